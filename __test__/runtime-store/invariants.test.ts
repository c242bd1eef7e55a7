// Stores that are healthy one by one and contradict each other (R43; A7 and A8).
import {
  createDefaultRuntimeStoreManifest,
  HoldfastError,
  validateOpenCodeRuntimeStoreInvariants,
  type RuntimeStoreCrossStoreInvariantInput,
} from 'holdfast';
import { describe, expect, it } from 'vitest';
import { caught } from './caught';

type Input = RuntimeStoreCrossStoreInvariantInput;

const consistent = (): Input => ({
  launchState: {
    providerId: 'opencode',
    teamName: 'team-a',
    runId: 'run-1',
    capabilitySnapshotId: 'cap-1',
    aggregateState: 'launching',
    members: [{ name: 'Builder', launchState: 'confirmed_alive' }, { name: 'Reviewer', launchState: 'starting' }, { name: 'Tester' }],
  },
  sessionStore: { sessions: [{ teamName: 'team-a', memberName: 'Builder', runId: 'run-1' }] },
  transaction: { status: 'active' },
  compatibilitySnapshot: { snapshotId: 'cap-1' },
  manifest: { ...createDefaultRuntimeStoreManifest('team-a', '2026-04-21T12:00:00.000Z'), activeRunId: 'run-1' },
  deliveryJournal: { records: [{ idempotencyKey: 'k-0', runId: 'run-1', status: 'started' }] },
  permissionStore: { requests: [{ appRequestId: 'p-0', runId: 'run-1', status: 'pending' }] },
});

const check = (changes: Partial<Input> = {}): string[] => validateOpenCodeRuntimeStoreInvariants({ ...consistent(), ...changes });
const launch = (changes: Partial<Input['launchState']>): Partial<Input> => ({ launchState: { ...consistent().launchState, ...changes } });

describe('validateOpenCodeRuntimeStoreInvariants', () => {
  it('finds nothing in consistent stores', () => {
    expect(check()).toEqual([]);
  });

  it('A7: a confirmed member needs a session', () => {
    expect(check({ sessionStore: { sessions: [] } })).toContain('confirmed member Builder has no matching OpenCode session record');
  });

  it('A8: another snapshot, a stale delivery, a stale permission, an active transaction', () => {
    const failures = check({
      ...launch({ aggregateState: 'ready', members: [] }),
      compatibilitySnapshot: { snapshotId: 'other-cap' },
      deliveryJournal: { records: [{ idempotencyKey: 'k-1', runId: 'old-run', status: 'started' }] },
      permissionStore: { requests: [{ appRequestId: 'perm-1', runId: 'old-run', status: 'pending' }] },
    });
    expect(failures).toEqual([
      'launch-state capability snapshot does not match compatibility snapshot',
      'non-committed delivery journal record belongs to stale run: k-1',
      'pending permission belongs to stale run: perm-1',
      'active launch transaction conflicts with ready launch-state',
    ]);
  });

  it('finds everything at once, in the order of the rules', () => {
    const failures = check({
      ...launch({
        runId: 'run-2',
        capabilitySnapshotId: 'cap-2',
        aggregateState: 'ready',
        members: [
          { name: 'Builder', launchState: 'confirmed_alive' },
          { name: 'Tester', launchState: 'confirmed_alive' },
        ],
      }),
    });
    expect(failures).toEqual([
      'launch-state runId does not match runtime store manifest activeRunId',
      'launch-state capability snapshot does not match compatibility snapshot',
      'confirmed member Builder has no matching OpenCode session record',
      'confirmed member Tester has no matching OpenCode session record',
      'non-committed delivery journal record belongs to stale run: k-0',
      'pending permission belongs to stale run: p-0',
      'active launch transaction conflicts with ready launch-state',
    ]);
  });

  it.each([
    ['team', { teamName: 'team-b', memberName: 'Builder', runId: 'run-1' }],
    ['member', { teamName: 'team-a', memberName: 'builder', runId: 'run-1' }],
    ['run', { teamName: 'team-a', memberName: 'Builder', runId: null }],
  ])('a session of another %s does not count', (_what, session) => {
    expect(check({ sessionStore: { sessions: [session] } })).toEqual(['confirmed member Builder has no matching OpenCode session record']);
  });

  it('null is an id like any other', () => {
    expect(check({ ...launch({ runId: null, members: [] }), deliveryJournal: {}, permissionStore: {} })).toEqual([
      'launch-state runId does not match runtime store manifest activeRunId',
    ]);
    expect(check({ compatibilitySnapshot: { snapshotId: null } })).toHaveLength(1);
    expect(check({ ...launch({ capabilitySnapshotId: null }), compatibilitySnapshot: { snapshotId: null } })).toEqual([]);
  });

  it('committed deliveries of another run are history', () => {
    const records = ['committed', 'started', 'failed'].map((status) => ({ idempotencyKey: status, runId: 'old-run', status }));
    expect(check({ deliveryJournal: { records } })).toEqual([
      'non-committed delivery journal record belongs to stale run: started',
      'non-committed delivery journal record belongs to stale run: failed',
    ]);
  });

  it.each([
    [{ status: 'pending' }, true],
    [{ state: 'pending' }, true],
    [{ status: 'pending', state: 'answered' }, true],
    [{ status: 'answered', state: 'pending' }, false],
    [{ state: 'answered' }, false],
    [{}, false],
  ])('a request of another run with %j: pending %s', (record, pending) => {
    const failures = check({ permissionStore: { requests: [{ appRequestId: 'p', runId: 'old-run', ...record }] } });
    expect(failures).toEqual(pending ? ['pending permission belongs to stale run: p'] : []);
  });

  it('only an active transaction conflicts, and only with a ready launch', () => {
    for (const transaction of [null, {}, { status: 'ready' }]) expect(check({ ...launch({ aggregateState: 'ready' }), transaction })).toEqual([]);
    expect(check({ transaction: undefined as never })).toEqual([]);
    expect(check(launch({ aggregateState: 'ready' }))).toEqual(['active launch transaction conflicts with ready launch-state']);
  });

  it('looks at nothing of another provider', () => {
    for (const providerId of [undefined, 'other', 'OpenCode']) {
      const input = { launchState: { ...consistent().launchState, providerId, runId: 'x' } } as unknown as Input;
      expect(validateOpenCodeRuntimeStoreInvariants(input)).toEqual([]);
    }
  });

  it('takes absent lists as empty', () => {
    for (const absent of [undefined, null as never]) {
      expect(
        check({
          ...launch({ members: absent }),
          sessionStore: { sessions: absent },
          deliveryJournal: { records: absent },
          permissionStore: { requests: absent },
        }),
      ).toEqual([]);
    }
  });

  it('refuses bad arguments by name', () => {
    const cases: [unknown, string][] = [
      [undefined, 'input'],
      ['x', 'input'],
      [{}, 'input.launchState'],
      [{ ...consistent(), manifest: null }, 'input.manifest'],
      [{ ...consistent(), compatibilitySnapshot: null }, 'input.compatibilitySnapshot'],
      [{ ...consistent(), sessionStore: [] }, 'input.sessionStore'],
      [{ ...consistent(), sessionStore: { sessions: {} } }, 'input.sessionStore.sessions'],
      [{ ...consistent(), sessionStore: { sessions: [null] } }, 'input.sessionStore.sessions[0]'],
      [{ ...consistent(), ...launch({ members: 'Builder' as never }) }, 'input.launchState.members'],
      [{ ...consistent(), ...launch({ members: [{ name: 'a' }, 'b' as never] }) }, 'input.launchState.members[1]'],
      [{ ...consistent(), deliveryJournal: undefined }, 'input.deliveryJournal'],
      [{ ...consistent(), deliveryJournal: { records: [1] } }, 'input.deliveryJournal.records[0]'],
      [{ ...consistent(), permissionStore: 1 }, 'input.permissionStore'],
      [{ ...consistent(), permissionStore: { requests: new Array(1) } }, 'input.permissionStore.requests[0]'],
      [{ ...consistent(), transaction: 'active' }, 'input.transaction'],
    ];
    for (const [input, argument] of cases) {
      const error = caught(() => validateOpenCodeRuntimeStoreInvariants(input as Input));
      expect(error).toBeInstanceOf(HoldfastError);
      expect(error).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT', argument });
    }
  });
});
