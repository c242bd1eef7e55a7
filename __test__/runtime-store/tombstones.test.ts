import { mkdtempSync, rmSync } from 'node:fs';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import {
  assertRuntimeEvidenceRunMatches,
  compactRuntimeRunTombstones,
  createRuntimeRunTombstoneStore,
  HoldfastError,
  OPENCODE_RUNTIME_RUN_TOMBSTONE_SCHEMA_VERSION,
  RuntimeRunTombstoneStore,
  RuntimeStaleEvidenceError,
  validateRuntimeRunTombstones,
  VersionedJsonStoreError,
  type RuntimeEvidenceAcceptanceInput,
  type RuntimeEvidenceKind,
  type RuntimeRunTombstone,
} from 'holdfast';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const NOW = '2026-04-21T12:00:00.000Z';
const RUN = { teamName: 'team-a', runId: 'run-1' };
const STOP = { ...RUN, reason: 'stop_requested' as const };
const ALL_KINDS: RuntimeEvidenceKind[] = [
  'bootstrap_checkin', 'bridge_result', 'delivery_call', 'heartbeat', 'launch_checkpoint', 'permission_reply', 'prompt_error',
  'recovery_result', 'sse_event',
];

let folder: string;
let filePath: string;
let now: Date;
let ids: number;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-tombstones-'));
  filePath = join(folder, 'opencode-run-tombstones.json');
  now = new Date(NOW);
  ids = 0;
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const open = (options: { maxAgeMs?: number } = {}) =>
  createRuntimeRunTombstoneStore({ filePath, clock: () => now, idFactory: () => `tombstone-${++ids}`, ...options });
const later = (ms: number) => {
  now = new Date(now.getTime() + ms);
};
const at = (ms: number) => new Date(Date.parse(NOW) + ms).toISOString();
const record = (more: object = {}): RuntimeRunTombstone => ({
  tombstoneId: 'tombstone-x', ...STOP, evidenceKinds: ['heartbeat'], createdAt: NOW, expiresAt: null, diagnostic: null, ...more,
});
const put = (...data: object[]) => writeFile(filePath, JSON.stringify({ schemaVersion: 1, updatedAt: NOW, data }));
const stored = async () => (JSON.parse(await readFile(filePath, 'utf8')) as { data: RuntimeRunTombstone[] }).data;
const evidence = (more: Partial<RuntimeEvidenceAcceptanceInput> = {}): RuntimeEvidenceAcceptanceInput => ({
  ...RUN, currentRunId: 'run-1', evidenceKind: 'sse_event', ...more,
});

describe('add', () => {
  it('stores a tombstone in the format of the file', async () => {
    const added = await open().add({ ...STOP, evidenceKinds: ['sse_event', 'heartbeat', 'sse_event'], diagnostic: 'bye' });
    const expected = {
      tombstoneId: 'tombstone-1', ...STOP, evidenceKinds: ['heartbeat', 'sse_event'], createdAt: NOW, expiresAt: null, diagnostic: 'bye',
    };
    expect(added).toEqual(expected);
    const envelope = { schemaVersion: OPENCODE_RUNTIME_RUN_TOMBSTONE_SCHEMA_VERSION, updatedAt: NOW, data: [expected] };
    expect(await readFile(filePath, 'utf8')).toBe(`${JSON.stringify(envelope, null, 2)}\n`);
  });

  it.each([undefined, []])('refuses every kind when evidenceKinds is %o', async (evidenceKinds) => {
    expect((await open().add({ ...STOP, evidenceKinds })).evidenceKinds).toEqual(ALL_KINDS);
  });

  it('makes ids of its own, and takes the wall clock', async () => {
    const added = await createRuntimeRunTombstoneStore({ filePath }).add(STOP);
    expect(added.tombstoneId).toMatch(/^opencode-run-tombstone-[0-9a-f-]{36}$/);
    expect(Math.abs(Date.now() - Date.parse(added.createdAt))).toBeLessThan(60_000);
  });

  it('drops the expired tombstones of all teams', async () => {
    const store = open();
    await store.add({ ...STOP, teamName: 'team-b', ttlMs: 1000 });
    await store.add({ ...STOP, teamName: 'team-c', ttlMs: 1001 });
    later(1000);
    await store.add(STOP);
    expect((await stored()).map(({ teamName }) => teamName)).toEqual(['team-c', 'team-a']);
  });

  it('gives another reason, run or team a record of its own', async () => {
    const store = open();
    await store.add(STOP);
    await store.add({ ...STOP, reason: 'run_replaced' });
    await store.add({ ...STOP, runId: 'run-2' });
    await store.add({ ...STOP, teamName: 'team-b' });
    expect(await stored()).toHaveLength(4);
  });

  it('refuses an id that is taken, and writes nothing', async () => {
    const store = createRuntimeRunTombstoneStore({ filePath, idFactory: () => 'same' });
    await store.add(STOP);
    const before = await readFile(filePath, 'utf8');
    await expect(store.add({ ...STOP, runId: 'run-2' })).rejects.toThrow('Duplicate runtime run tombstone id: same');
    expect(await readFile(filePath, 'utf8')).toBe(before);
  });

  it('passes on what idFactory throws', async () => {
    const failure = new Error('no more ids');
    const store = createRuntimeRunTombstoneStore({
      filePath,
      idFactory: () => {
        throw failure;
      },
    });
    await expect(store.add(STOP)).rejects.toBe(failure);
    expect(await readdir(folder)).toEqual([]);
  });
});

describe('adding the same tombstone again', () => {
  // Once, a second call with more kinds or a longer life was dropped, and evidence that it should have refused was accepted.
  it('gives one record (A37)', async () => {
    const store = open();
    const first = await store.add({ ...STOP, ttlMs: 1000 });
    expect(await store.add({ ...STOP, ttlMs: 1000 })).toEqual(first);
    expect(await stored()).toEqual([first]);
    later(2000);
    expect(await store.compact()).toBe(1);
    expect(await stored()).toEqual([]);
  });

  it('adds its kinds, and keeps id, time and diagnostic of the first', async () => {
    const store = open();
    const first = await store.add({ ...STOP, evidenceKinds: ['sse_event'], diagnostic: 'first' });
    later(1000);
    const second = await store.add({ ...STOP, evidenceKinds: ['heartbeat'], diagnostic: 'second' });
    expect(second).toEqual({ ...first, evidenceKinds: ['heartbeat', 'sse_event'] });
    expect(await stored()).toEqual([second]);
    await expect(store.assertEvidenceAccepted(evidence({ evidenceKind: 'heartbeat' }))).rejects.toThrow(RuntimeStaleEvidenceError);
  });

  it.each([
    [1000, 5000, at(5000)],
    [5000, 1000, at(5000)],
    [1000, undefined, null],
    [undefined, 1000, null],
    [1000, 0, at(1000)],
    [1000, -5000, at(1000)],
  ])('keeps the later of two expiries: %o, then %o', async (first, second, expected) => {
    const store = open();
    await store.add({ ...STOP, ttlMs: first });
    expect((await store.add({ ...STOP, ttlMs: second })).expiresAt).toBe(expected);
  });

  it('compares times, not texts', async () => {
    await put(record({ expiresAt: '2026-04-21T15:00:00+02:00' }));
    expect((await open().add({ ...STOP, ttlMs: 30 * 60_000 })).expiresAt).toBe('2026-04-21T15:00:00+02:00');
    expect((await open().add({ ...STOP, ttlMs: 90 * 60_000 })).expiresAt).toBe(at(90 * 60_000));
  });

  it('writes null for an expiry that is no time', async () => {
    await put(record({ expiresAt: 'garbage' }));
    expect((await open().add({ ...STOP, ttlMs: 1000 })).expiresAt).toBeNull();
  });

  it('begins anew once the first has expired', async () => {
    const store = open();
    await store.add({ ...STOP, evidenceKinds: ['sse_event'], ttlMs: 1000 });
    later(1000);
    expect(await store.add({ ...STOP, evidenceKinds: ['heartbeat'] })).toMatchObject({
      tombstoneId: 'tombstone-2', evidenceKinds: ['heartbeat'], createdAt: at(1000),
    });
    expect(await stored()).toHaveLength(1);
  });

  it('is one record for any number of concurrent callers', async () => {
    await Promise.all(ALL_KINDS.map((kind) => open().add({ ...STOP, evidenceKinds: [kind] })));
    expect((await stored()).map(({ evidenceKinds }) => evidenceKinds)).toEqual([ALL_KINDS]);
  });
});

describe('expiry', () => {
  it('comes when expiresAt is not later than now', async () => {
    const store = open();
    await store.add({ ...STOP, ttlMs: 1000 });
    later(999);
    expect(await store.list('team-a')).toHaveLength(1);
    later(1);
    expect(await store.list('team-a')).toEqual([]);
    expect(await store.find(RUN)).toBeNull();
    await store.assertEvidenceAccepted(evidence());
  });

  it('makes ttlMs 0 without effect', async () => {
    const store = open();
    expect((await store.add({ ...STOP, ttlMs: 0 })).expiresAt).toBe(NOW);
    expect(await store.list('team-a')).toEqual([]);
  });

  it('never comes when expiresAt is no time: evidence stays refused', async () => {
    await put(record({ expiresAt: 'garbage', evidenceKinds: ['sse_event'] }));
    later(1e12);
    await expect(open().assertEvidenceAccepted(evidence())).rejects.toMatchObject({ reason: 'run_tombstoned' });
    expect(await open().compact()).toBe(0);
    expect(await open().list('team-a')).toHaveLength(1);
  });

  it('is a pure filter that keeps the order', () => {
    const records = [
      record({ tombstoneId: 'c' }),
      record({ tombstoneId: 'now', expiresAt: NOW }),
      record({ tombstoneId: 'a', expiresAt: at(1) }),
      record({ tombstoneId: 'past', expiresAt: at(-1) }),
      record({ tombstoneId: 'b', expiresAt: 'garbage' }),
    ];
    const copy = structuredClone(records);
    expect(compactRuntimeRunTombstones(records, now).map(({ tombstoneId }) => tombstoneId)).toEqual(['c', 'a', 'b']);
    expect(records).toEqual(copy);
  });

  it.each([[[], new Date(NaN)], [[], NOW], [[], undefined], [null, new Date(NOW)]])('refuses %o at %o', (records, time) => {
    expect(() => compactRuntimeRunTombstones(records as never, time as never)).toThrow(
      expect.objectContaining({ hfCode: 'HF_INVALID_ARGUMENT' }),
    );
  });

  it('lets nothing through when the clock is broken', async () => {
    await put(record({ evidenceKinds: ['sse_event'] }));
    const store = createRuntimeRunTombstoneStore({ filePath, clock: () => new Date(NaN) });
    await expect(store.assertEvidenceAccepted(evidence())).rejects.toThrow(HoldfastError);
  });
});

describe('list and find', () => {
  it('look at one team, and never write', async () => {
    const data = [
      record({ tombstoneId: 'old', expiresAt: at(-1) }),
      record({ tombstoneId: 'a' }),
      record({ tombstoneId: 'other', teamName: 'team-b' }),
      record({ tombstoneId: 'b', runId: 'run-2' }),
    ];
    await put(...data);
    const before = await readFile(filePath, 'utf8');
    expect((await open().list('team-a')).map(({ tombstoneId }) => tombstoneId)).toEqual(['a', 'b']);
    expect(await open().find({ teamName: 'team-a', runId: 'run-2' })).toMatchObject({ tombstoneId: 'b' });
    expect(await open().find({ teamName: 'team-a', runId: 'run-3' })).toBeNull();
    expect(await open().find({ teamName: 'team-c', runId: 'run-1' })).toBeNull();
    expect(await readFile(filePath, 'utf8')).toBe(before);
    expect(await readdir(folder)).toHaveLength(1);
  });

  it('answer [] and null where nothing is, and create nothing', async () => {
    expect(await open().list('team-a')).toEqual([]);
    expect(await open().find(RUN)).toBeNull();
    await open().assertEvidenceAccepted(evidence());
    expect(await readdir(folder)).toEqual([]);
  });

  it('find by kind across the reasons of a run', async () => {
    const store = open();
    await store.add({ ...STOP, evidenceKinds: ['heartbeat'] });
    await store.add({ ...STOP, reason: 'run_replaced', evidenceKinds: ['sse_event'] });
    expect(await store.find({ ...RUN, evidenceKind: 'sse_event' })).toMatchObject({ reason: 'run_replaced' });
    expect(await store.find({ ...RUN, evidenceKind: 'delivery_call' })).toBeNull();
    expect(await store.find(RUN)).toMatchObject({ reason: 'stop_requested' });
  });
});

describe('evidence', () => {
  it('is refused by run and kind (A36)', async () => {
    const store = open();
    await store.add({ ...STOP, evidenceKinds: ['sse_event', 'permission_reply'] });

    const error = await store.assertEvidenceAccepted(evidence()).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(RuntimeStaleEvidenceError);
    expect(error).toMatchObject({
      name: 'RuntimeStaleEvidenceError',
      message: 'Rejected stale runtime evidence: sse_event',
      reason: 'run_tombstoned',
      evidenceKind: 'sse_event',
      runId: 'run-1',
      hfCode: 'HF_RUNTIME_STALE_EVIDENCE',
    });
    await store.assertEvidenceAccepted(evidence({ evidenceKind: 'delivery_call' }));
    await store.assertEvidenceAccepted(evidence({ runId: 'run-2', currentRunId: 'run-2' }));
    await store.assertEvidenceAccepted(evidence({ teamName: 'team-b' }));
  });

  it.each<[Partial<RuntimeEvidenceAcceptanceInput>, string, string]>([
    [{ runId: null }, 'missing_run_id', 'Rejected runtime evidence without run id: sse_event'],
    [{ runId: ' ' }, 'missing_run_id', 'Rejected runtime evidence without run id: sse_event'],
    [{ runId: undefined }, 'missing_run_id', 'Rejected runtime evidence without run id: sse_event'],
    [{ runId: null, currentRunId: null }, 'missing_run_id', 'Rejected runtime evidence without run id: sse_event'],
    [{ currentRunId: null }, 'current_run_missing', 'Rejected runtime evidence without current run: sse_event'],
    [{ currentRunId: '' }, 'current_run_missing', 'Rejected runtime evidence without current run: sse_event'],
    [{ currentRunId: 'run-2' }, 'run_mismatch', 'Rejected stale runtime evidence: sse_event'],
    [{ currentRunId: 'run-1 ' }, 'run_mismatch', 'Rejected stale runtime evidence: sse_event'],
  ])('%o is %s, before any file is read', async (more, reason, message) => {
    // A file that cannot be used would be reported, were it read.
    await writeFile(filePath, '{bad');
    const input = evidence(more);
    const expected = { reason, message, evidenceKind: 'sse_event', runId: input.runId ?? null };
    await expect(open().assertEvidenceAccepted(input)).rejects.toMatchObject(expected);
    expect(() => assertRuntimeEvidenceRunMatches(input)).toThrow(expect.objectContaining(expected));
    expect(await readdir(folder)).toHaveLength(1);
  });

  it('of the current run passes the check that reads no file', () => {
    expect(assertRuntimeEvidenceRunMatches(evidence())).toBeUndefined();
  });

  it('of a kind that does not exist is refused: no tombstone could ever name it', async () => {
    const input = evidence({ evidenceKind: 'gossip' as never });
    await expect(open().assertEvidenceAccepted(input)).rejects.toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT', argument: 'evidenceKind' });
  });
});

describe('a file that cannot be used (A38)', () => {
  it('fails closed, and leaves a copy', async () => {
    await put(record({ evidenceKinds: ['gossip'] }));
    const before = await readFile(filePath, 'utf8');
    const store = open();
    const calls = [() => store.list('team-a'), () => store.assertEvidenceAccepted(evidence()), () => store.find(RUN), () => store.add(STOP), () => store.compact()];
    for (const call of calls) {
      const error = await call().catch((e: unknown) => e);
      expect(error).toBeInstanceOf(VersionedJsonStoreError);
      const { reason, quarantinePath, message } = error as VersionedJsonStoreError;
      expect(reason).toBe('invalid_data');
      expect(message).toContain('Invalid runtime run tombstone at index 0');
      expect(await readFile(String(quarantinePath), 'utf8')).toBe(before);
    }
    expect(await readFile(filePath, 'utf8')).toBe(before);
  });
});

describe('compact', () => {
  it('counts and drops what has expired, of all teams', async () => {
    await put(record({ tombstoneId: 'a', expiresAt: NOW }), record({ tombstoneId: 'b' }), record({ tombstoneId: 'c', teamName: 'team-b', expiresAt: at(-1) }));
    expect(await open().compact()).toBe(2);
    expect((await stored()).map(({ tombstoneId }) => tombstoneId)).toEqual(['b']);
    const before = await readFile(filePath, 'utf8');
    later(1000);
    expect(await open().compact()).toBe(0);
    expect(await readFile(filePath, 'utf8')).toBe(before);
  });
});

describe('maxAgeMs', () => {
  const data = () => [
    record({ tombstoneId: 'never', createdAt: at(-1001) }),
    record({ tombstoneId: 'as-old', runId: 'run-2', createdAt: at(-1000) }),
    record({ tombstoneId: 'expires', runId: 'run-3', createdAt: at(-5000), expiresAt: at(1) }),
    record({ tombstoneId: 'no-time', runId: 'run-4', createdAt: 'long ago' }),
  ];

  it('is off by default', async () => {
    await put(...data());
    expect(await open().compact()).toBe(0);
  });

  it('drops old tombstones that never expire, in add and compact; until then they count', async () => {
    await put(...data());
    expect(await open({ maxAgeMs: 1000 }).find(RUN)).toMatchObject({ tombstoneId: 'never' });
    expect(await open({ maxAgeMs: 1000 }).compact()).toBe(1);
    expect((await stored()).map(({ tombstoneId }) => tombstoneId)).toEqual(['as-old', 'expires', 'no-time']);
    await put(...data());
    await open({ maxAgeMs: 1000 }).add({ ...STOP, teamName: 'team-b' });
    expect((await stored()).map(({ tombstoneId }) => tombstoneId)).toEqual(['as-old', 'expires', 'no-time', 'tombstone-1']);
  });
});

describe('the validator', () => {
  it('returns good data as it is, unknown keys and unreadable times included', () => {
    const data = [record({ extra: 1, expiresAt: 'garbage' }), record({ tombstoneId: 'b', evidenceKinds: [] })];
    expect(validateRuntimeRunTombstones(data)).toBe(data);
  });

  const refusal = (message: string) => expect.objectContaining({ hfCode: 'HF_RUNTIME_INVALID_TOMBSTONES', message });

  it.each([[null], [undefined], [{}], ['[]']])('refuses %o', (value) => {
    expect(() => validateRuntimeRunTombstones(value)).toThrow(refusal('Runtime run tombstones must be an array'));
  });

  it.each<[string, unknown]>([
    ['null', null],
    ['an array', []],
    ['a blank id', record({ tombstoneId: ' ' })],
    ['a team that is no string', record({ teamName: 1 })],
    ['no run', record({ runId: undefined })],
    ['an unknown reason', record({ reason: 'boredom' })],
    ['kinds that are no list', record({ evidenceKinds: 'heartbeat' })],
    ['an unknown kind', record({ evidenceKinds: ['heartbeat', 'gossip'] })],
    ['a blank time', record({ createdAt: '' })],
    ['an expiry that is a number', record({ expiresAt: 1 })],
    ['no expiry', record({ expiresAt: undefined })],
    ['a diagnostic that is no text', record({ diagnostic: {} })],
  ])('refuses %s, and names the index', (_what, bad) => {
    expect(() => validateRuntimeRunTombstones([record({ tombstoneId: 'first' }), bad])).toThrow(
      refusal('Invalid runtime run tombstone at index 1'),
    );
  });

  it('refuses an id that comes twice', () => {
    expect(() => validateRuntimeRunTombstones([record(), record({ runId: 'run-2' })])).toThrow(
      refusal('Duplicate runtime run tombstone id: tombstone-x'),
    );
  });
});

describe('bad arguments', () => {
  it.each<[string, (store: RuntimeRunTombstoneStore) => Promise<unknown>]>([
    ['input', (store) => store.add(undefined as never)],
    ['teamName', (store) => store.add({ ...STOP, teamName: '' })],
    ['runId', (store) => store.add({ ...STOP, runId: null as never })],
    ['reason', (store) => store.add({ ...STOP, reason: 'boredom' as never })],
    ['evidenceKinds', (store) => store.add({ ...STOP, evidenceKinds: 'heartbeat' as never })],
    ['evidenceKinds[1]', (store) => store.add({ ...STOP, evidenceKinds: ['heartbeat', 'gossip' as never] })],
    ['ttlMs', (store) => store.add({ ...STOP, ttlMs: NaN })],
    ['ttlMs', (store) => store.add({ ...STOP, ttlMs: Infinity })],
    ['ttlMs', (store) => store.add({ ...STOP, ttlMs: 1e300 })],
    ['ttlMs', (store) => store.add({ ...STOP, ttlMs: '1000' as never })],
    ['diagnostic', (store) => store.add({ ...STOP, diagnostic: 1 as never })],
    ['teamName', (store) => store.list(' ')],
    ['runId', (store) => store.find({ teamName: 'team-a', runId: '' })],
    ['evidenceKind', (store) => store.find({ ...RUN, evidenceKind: 'gossip' as never })],
    ['input', (store) => store.assertEvidenceAccepted(null as never)],
    ['teamName', (store) => store.assertEvidenceAccepted(evidence({ teamName: '' }))],
    ['runId', (store) => store.assertEvidenceAccepted(evidence({ runId: 7 as never }))],
  ])('%s is named, and nothing is touched', async (argument, call) => {
    const error = await call(open()).catch((e: unknown) => e);
    expect(error).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT', argument });
    expect(await readdir(folder)).toEqual([]);
  });

  it('are refused by the factory and the constructor at once', () => {
    const code = expect.objectContaining({ hfCode: 'HF_INVALID_ARGUMENT' });
    expect(() => createRuntimeRunTombstoneStore(null as never)).toThrow(code);
    expect(() => createRuntimeRunTombstoneStore({ filePath: 1 as never })).toThrow(code);
    expect(() => createRuntimeRunTombstoneStore({ filePath, idFactory: 'x' as never })).toThrow(code);
    expect(() => createRuntimeRunTombstoneStore({ filePath, clock: 1 as never })).toThrow(code);
    expect(() => createRuntimeRunTombstoneStore({ filePath, maxAgeMs: -1 })).toThrow(code);
    expect(() => new RuntimeRunTombstoneStore(undefined as never)).toThrow(code);
  });
});

describe('close', () => {
  it('waits for what is under way, and refuses what comes after', async () => {
    const store = open();
    const last = store.add(STOP);
    await store.close();
    await store[Symbol.asyncDispose]();
    await last;
    expect(await open().list('team-a')).toHaveLength(1);
    await expect(store.add(STOP)).rejects.toMatchObject({ hfCode: 'HF_CLOSED' });
    await expect(store.list('team-a')).rejects.toMatchObject({ hfCode: 'HF_CLOSED' });
  });
});
