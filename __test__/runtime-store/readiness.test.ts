// From a finding to an action (R39), and from a plan to an answer (R42).
import {
  buildRecoveryAction,
  buildRuntimeStoreReadiness,
  HoldfastError,
  type RuntimeStoreDescriptor,
  type RuntimeStoreFileInspection,
  type RuntimeStoreManifestEntryState,
  type RuntimeStoreRebuildStrategy,
  type RuntimeStoreRecoveryPlan,
} from 'holdfast';
import { describe, expect, it } from 'vitest';
import { caught } from './caught';

const descriptor = (rebuildStrategy: RuntimeStoreRebuildStrategy): RuntimeStoreDescriptor => ({
  schemaName: 'opencode.hostLeases',
  schemaVersion: 1,
  relativePath: 'opencode-host-leases.json',
  criticality: 'readiness_blocking',
  owner: 'host',
  rebuildStrategy,
});

const inspection = (state: RuntimeStoreManifestEntryState): RuntimeStoreFileInspection => ({
  // Another store on purpose: the descriptor beside it decides.
  descriptor: { ...descriptor('none'), schemaName: 'opencode.launchState' },
  state,
  message: 'text',
  entry: null,
  manifestEntry: null,
});

describe('buildRecoveryAction', () => {
  // Columns: future_schema and hash_mismatch · quarantined · any other state that is not healthy.
  const table: [RuntimeStoreRebuildStrategy, string, string, string][] = [
    ['poll_opencode_provider', 'quarantine', 'rebuild_from_provider', 'rebuild_from_provider'],
    ['verify_canonical_destinations', 'quarantine', 'rebuild_from_canonical_destination', 'rebuild_from_canonical_destination'],
    ['rerun_capability_discovery', 'quarantine', 'quarantine', 'rerun_capability_discovery'],
    ['drop_after_quarantine', 'quarantine', 'quarantine', 'quarantine'],
    ['rebuild_from_launch_state', 'quarantine', 'quarantine', 'block_readiness'],
    ['none', 'quarantine', 'quarantine', 'block_readiness'],
  ];
  const columns: [RuntimeStoreManifestEntryState, 1 | 2 | 3][] = [
    ['future_schema', 1],
    ['hash_mismatch', 1],
    ['quarantined', 2],
    ['missing', 3],
    ['uncommitted_write', 3],
    ['stale_run', 3],
    ['rebuild_required', 3],
  ];

  it.each(table.flatMap((row) => columns.map(([state, column]) => [row[0], state, row[column]] as const)))(
    '%s, %s: %s',
    (strategy, state, kind) => {
      expect(buildRecoveryAction({ descriptor: descriptor(strategy), inspected: inspection(state) })).toEqual({
        kind,
        schemaName: 'opencode.hostLeases',
        reason: state,
      });
    },
  );

  it.each(table)('%s, healthy: none', (strategy) => {
    expect(buildRecoveryAction({ descriptor: descriptor(strategy), inspected: inspection('healthy') })).toEqual({
      kind: 'none',
      schemaName: 'opencode.hostLeases',
    });
  });

  it('refuses bad arguments by name', () => {
    const good = { descriptor: descriptor('none'), inspected: inspection('missing') };
    const cases: [unknown, string][] = [
      [undefined, 'input'],
      [[], 'input'],
      [{ ...good, descriptor: null }, 'input.descriptor'],
      [{ ...good, inspected: 'missing' }, 'input.inspected'],
      [{ ...good, descriptor: descriptor('toString' as never) }, 'input.descriptor.rebuildStrategy'],
      [{ ...good, inspected: inspection('ill' as never) }, 'input.inspected.state'],
    ];
    for (const [input, argument] of cases) {
      const error = caught(() => buildRecoveryAction(input as typeof good));
      expect(error).toBeInstanceOf(HoldfastError);
      expect(error).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT', argument });
    }
  });
});

describe('buildRuntimeStoreReadiness', () => {
  const plan = (readinessImpact: RuntimeStoreRecoveryPlan['readinessImpact'], diagnostics = ['d1', 'd2']): RuntimeStoreRecoveryPlan => ({
    planId: 'plan-1',
    teamName: 'team-a',
    runId: 'run-1',
    createdAt: '2026-04-21T12:00:00.000Z',
    manifestHealthy: readinessImpact === 'none',
    readinessImpact,
    actions: [],
    diagnostics,
  });
  const recovery = { ok: false, reason: 'runtime_store_recovery_required' };

  it.each([
    ['none', [], { ok: true, reason: 'runtime_store_manifest_valid', diagnostics: [] }],
    ['degraded', [], { ok: false, reason: 'runtime_store_rebuild_in_progress', diagnostics: ['d1', 'd2'] }],
    ['blocked', [], { ...recovery, diagnostics: ['d1', 'd2'] }],
    ['none', ['f1'], { ...recovery, diagnostics: ['d1', 'd2', 'f1'] }],
    ['degraded', ['f1'], { ...recovery, diagnostics: ['d1', 'd2', 'f1'] }],
    ['blocked', ['f1', 'f2'], { ...recovery, diagnostics: ['d1', 'd2', 'f1', 'f2'] }],
  ] as const)('%s with failures %j', (impact, failures, expected) => {
    expect(buildRuntimeStoreReadiness({ recoveryPlan: plan(impact), invariantFailures: [...failures] })).toEqual(expected);
  });

  it('returns lists of its own', () => {
    const blocked = plan('blocked');
    buildRuntimeStoreReadiness({ recoveryPlan: blocked, invariantFailures: ['f1'] }).diagnostics.push('x');
    expect(blocked.diagnostics).toEqual(['d1', 'd2']);
  });

  it('refuses bad arguments by name, and never answers ok for them', () => {
    const good = { recoveryPlan: plan('none'), invariantFailures: [] };
    const cases: [unknown, string][] = [
      [null, 'input'],
      [{ ...good, recoveryPlan: undefined }, 'input.recoveryPlan'],
      [{ ...good, recoveryPlan: plan('fine' as never) }, 'input.recoveryPlan.readinessImpact'],
      [{ ...good, recoveryPlan: { ...plan('none'), diagnostics: 'd' } }, 'input.recoveryPlan.diagnostics'],
      [{ ...good, invariantFailures: undefined }, 'input.invariantFailures'],
      [{ ...good, invariantFailures: '' }, 'input.invariantFailures'],
    ];
    for (const [input, argument] of cases) {
      expect(caught(() => buildRuntimeStoreReadiness(input as typeof good))).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT', argument });
    }
  });
});
