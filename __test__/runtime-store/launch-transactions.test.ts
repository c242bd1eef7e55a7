import { mkdtempSync, rmSync } from 'node:fs';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import {
  canMarkOpenCodeRunReady,
  createOpenCodeLaunchTransactionStore,
  hasMemberCheckpoint,
  HoldfastError,
  OPENCODE_LAUNCH_TRANSACTION_SCHEMA_VERSION,
  OpenCodeLaunchTransactionStore,
  validateOpenCodeLaunchTransactions,
  VersionedJsonStore,
  VersionedJsonStoreError,
  type OpenCodeLaunchCheckpoint,
  type OpenCodeLaunchTransaction,
} from 'holdfast';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const NOW = '2026-04-21T12:00:00.000Z';
const RUN = { teamName: 'team-a', runId: 'run-1' };

let folder: string;
let filePath: string;
let now: Date;
const clock = () => now;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-transactions-'));
  filePath = join(folder, 'opencode-launch-transaction.json');
  now = new Date(NOW);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const open = (options: { maxFinished?: number; maxAgeMs?: number } = {}) =>
  createOpenCodeLaunchTransactionStore({ filePath, clock, ...options });
const later = (ms: number) => {
  now = new Date(now.getTime() + ms);
};
const checkpoint = (more: Partial<OpenCodeLaunchCheckpoint> = {}): OpenCodeLaunchCheckpoint => ({
  name: 'member_session_recorded',
  ...RUN,
  memberName: 'Builder',
  runtimeSessionId: 'session-1',
  hostKey: null,
  evidenceHash: 'sha256:1',
  createdAt: '2026-04-21T12:00:05.000Z',
  diagnostics: [],
  ...more,
});
const refusal = (hfCode: string, message: string) => expect.objectContaining({ hfCode, message });

describe('beginRun', () => {
  it('begins an active transaction, in the format of the file', async () => {
    const { state, transaction } = await open().beginRun(RUN);
    expect(state).toBe('created');
    const expected = { ...RUN, providerId: 'opencode', startedAt: NOW, updatedAt: NOW, status: 'active', checkpoints: [] };
    expect(transaction).toEqual(expected);
    const envelope = { schemaVersion: OPENCODE_LAUNCH_TRANSACTION_SCHEMA_VERSION, updatedAt: NOW, data: [expected] };
    expect(await readFile(filePath, 'utf8')).toBe(`${JSON.stringify(envelope, null, 2)}\n`);
  });

  it('takes startedAt for both times', async () => {
    const { transaction } = await open().beginRun({ ...RUN, startedAt: '2026-04-20T00:00:00.000Z' });
    expect(transaction).toMatchObject({ startedAt: '2026-04-20T00:00:00.000Z', updatedAt: '2026-04-20T00:00:00.000Z' });
  });

  it.each(['run-1', 'run-2'])('returns the active transaction unchanged when asked for %s', async (runId) => {
    const store = open();
    const { transaction } = await store.beginRun(RUN);
    const before = await stat(filePath);
    later(1000);
    expect(await store.beginRun({ teamName: 'team-a', runId })).toEqual({ state: 'already_active', transaction });
    expect((await stat(filePath)).ino).toBe(before.ino);
  });

  it('keeps teams apart', async () => {
    const store = open();
    await store.beginRun(RUN);
    expect((await store.beginRun({ teamName: 'team-b', runId: 'run-1' })).state).toBe('created');
    expect((await store.list()).map(({ teamName }) => teamName)).toEqual(['team-a', 'team-b']);
  });

  it('lets exactly one of many concurrent callers begin', async () => {
    const runs = Array.from({ length: 20 }, (_, i) => open().beginRun({ teamName: 'team-a', runId: `run-${i}` }));
    const results = await Promise.all(runs);
    expect(results.filter(({ state }) => state === 'created')).toHaveLength(1);
    expect(new Set(results.map(({ transaction }) => transaction.runId)).size).toBe(1);
  });
});

describe('addCheckpoint', () => {
  it('appends the checkpoint and takes its time', async () => {
    const store = open();
    await store.beginRun(RUN);
    expect(await store.addCheckpoint(checkpoint())).toBe('created');
    expect(await store.addCheckpoint(checkpoint({ name: 'run_created', memberName: null }))).toBe('created');
    const transaction = await store.read('team-a', 'run-1');
    expect(transaction?.checkpoints.map(({ name }) => name)).toEqual(['member_session_recorded', 'run_created']);
    expect(transaction).toMatchObject({ startedAt: NOW, updatedAt: '2026-04-21T12:00:05.000Z' });
  });

  it('writes the keys in the order of the format, whatever the order they come in', async () => {
    const store = open();
    await store.beginRun(RUN);
    const reversed = Object.fromEntries(Object.entries(checkpoint()).reverse()) as unknown as OpenCodeLaunchCheckpoint;
    await store.addCheckpoint(reversed);
    const [transaction] = await store.list();
    expect(JSON.stringify(transaction?.checkpoints[0])).toBe(JSON.stringify(checkpoint()));
  });

  it('knows a checkpoint by name, member and evidence hash, and then changes nothing', async () => {
    const store = open();
    await store.beginRun(RUN);
    await store.addCheckpoint(checkpoint());
    const before = await readFile(filePath, 'utf8');
    expect(await store.addCheckpoint(checkpoint({ createdAt: '2027-01-01T00:00:00.000Z', diagnostics: ['again'] }))).toBe('unchanged');
    expect(await readFile(filePath, 'utf8')).toBe(before);
    for (const other of [{ evidenceHash: 'sha256:2' }, { memberName: null }, { name: 'mcp_connected' as const }]) {
      expect(await store.addCheckpoint(checkpoint(other))).toBe('created');
    }
  });

  it('is refused for a finished launch', async () => {
    const store = open();
    await store.beginRun(RUN);
    await store.addCheckpoint(checkpoint());
    await store.finish({ ...RUN, status: 'failed' });
    const refused = refusal('HF_RUNTIME_TRANSACTION_NOT_ACTIVE', 'OpenCode launch transaction is not active: run-1');
    await expect(store.addCheckpoint(checkpoint())).rejects.toThrow(refused);
    await expect(store.addCheckpoint(checkpoint())).rejects.toBeInstanceOf(HoldfastError);
  });

  it('is refused for an unknown run, and then creates nothing', async () => {
    const refused = refusal('HF_RUNTIME_TRANSACTION_NOT_FOUND', 'OpenCode launch transaction not found: run-1');
    await expect(open().addCheckpoint(checkpoint())).rejects.toThrow(refused);
    expect(await readdir(folder)).toEqual([]);
    await open().beginRun({ teamName: 'team-a', runId: 'run-2' });
    await expect(open().addCheckpoint(checkpoint())).rejects.toThrow(refused);
  });
});

describe('reading', () => {
  it('finds checkpoints, with and without their evidence', async () => {
    const store = open();
    const asked = { ...RUN, memberName: 'Builder', name: 'member_session_recorded' as const };
    expect(await store.hasCheckpoint(asked)).toBe(false);
    await store.beginRun(RUN);
    await store.addCheckpoint(checkpoint());
    expect(await store.hasCheckpoint(asked)).toBe(true);
    expect(await store.hasCheckpoint({ ...asked, evidenceHash: 'sha256:1' })).toBe(true);
    expect(await store.hasCheckpoint({ ...asked, evidenceHash: 'sha256:2' })).toBe(false);
    expect(await store.hasCheckpoint({ ...asked, memberName: null })).toBe(false);
    expect(await store.hasCheckpoint({ ...asked, runId: 'run-2' })).toBe(false);
  });

  it('answers null and [] where nothing is, and creates nothing', async () => {
    const store = open();
    expect(await store.read('team-a', 'run-1')).toBeNull();
    expect(await store.readActive('team-a')).toBeNull();
    expect(await store.list()).toEqual([]);
    expect(await readdir(folder)).toEqual([]);
  });

  it('returns the active launch until it is finished', async () => {
    const store = open();
    await store.beginRun(RUN);
    expect(await store.readActive('team-a')).toMatchObject(RUN);
    expect(await store.readActive('team-b')).toBeNull();
    await store.finish({ ...RUN, status: 'ready' });
    expect(await store.readActive('team-a')).toBeNull();
  });

  it('rejects, in every method, when the file cannot be used', async () => {
    await writeFile(filePath, JSON.stringify({ schemaVersion: 1, updatedAt: NOW, data: [{ bad: true }] }));
    const store = open();
    const calls = [
      () => store.list(),
      () => store.read('team-a', 'run-1'),
      () => store.readActive('team-a'),
      () => store.hasCheckpoint({ ...RUN, memberName: null, name: 'run_ready' }),
      () => store.beginRun(RUN),
      () => store.addCheckpoint(checkpoint()),
      () => store.finish({ ...RUN, status: 'ready' }),
    ];
    for (const call of calls) {
      const error = await call().catch((e: unknown) => e);
      expect(error).toBeInstanceOf(VersionedJsonStoreError);
      expect(error).toMatchObject({ reason: 'invalid_data', hfCode: 'HF_RUNTIME_INVALID_DATA' });
      expect((error as Error).message).toContain('Invalid OpenCode launch transaction at index 0');
    }
  });
});

describe('finish', () => {
  it.each(['ready', 'failed', 'cancelled', 'reconciled'] as const)('sets the status %s once', async (status) => {
    const store = open();
    await store.beginRun(RUN);
    later(1000);
    expect(await store.finish({ ...RUN, status })).toBe('finished');
    const finished = await store.read('team-a', 'run-1');
    expect(finished).toMatchObject({ status, startedAt: NOW, updatedAt: '2026-04-21T12:00:01.000Z' });
    expect(await store.finish({ ...RUN, status: status === 'ready' ? 'failed' : 'ready' })).toBe('unchanged');
    expect(await store.read('team-a', 'run-1')).toEqual(finished);
  });

  it('takes the given time', async () => {
    const store = open();
    await store.beginRun(RUN);
    await store.finish({ ...RUN, status: 'ready', updatedAt: '2026-05-01T00:00:00.000Z' });
    expect(await store.read('team-a', 'run-1')).toMatchObject({ updatedAt: '2026-05-01T00:00:00.000Z' });
  });

  it('names the active run when asked for an unknown one', async () => {
    const store = open();
    await store.beginRun({ teamName: 'team-a', runId: 'run-2' });
    const error = await store.finish({ ...RUN, status: 'ready' }).catch((e: unknown) => e);
    expect(error).toMatchObject({
      hfCode: 'HF_RUNTIME_TRANSACTION_STALE',
      message: 'OpenCode launch transaction run-1 is stale; active run is run-2',
      activeRunId: 'run-2',
    });
  });

  it('says not found when the team has no active run either', async () => {
    const store = open();
    await store.beginRun({ teamName: 'team-b', runId: 'run-2' });
    const refused = refusal('HF_RUNTIME_TRANSACTION_NOT_FOUND', 'OpenCode launch transaction not found: run-1');
    await expect(store.finish({ ...RUN, status: 'ready' })).rejects.toThrow(refused);
  });
});

describe('a relaunch with the same run id (A34)', () => {
  // Once, checkpoints of the second launch were refused as "not active", and its end was reported as "unchanged", because every
  // lookup found the first, finished transaction of that run.
  it('acts on the new transaction', async () => {
    const store = open();
    await store.beginRun(RUN);
    await store.addCheckpoint(checkpoint());
    await store.finish({ ...RUN, status: 'failed' });
    later(60_000);

    expect((await store.beginRun(RUN)).state).toBe('created');
    expect(await store.hasCheckpoint({ ...RUN, memberName: 'Builder', name: 'member_session_recorded' })).toBe(false);
    expect(await store.addCheckpoint(checkpoint())).toBe('created');
    expect(await store.finish({ ...RUN, status: 'ready' })).toBe('finished');

    expect(await store.read('team-a', 'run-1')).toMatchObject({ status: 'ready', startedAt: '2026-04-21T12:01:00.000Z' });
    expect((await store.list()).map(({ status }) => status)).toEqual(['failed', 'ready']);
  });
});

describe('retention', () => {
  const launch = async (store: OpenCodeLaunchTransactionStore, teamName: string, runId: string) => {
    await store.beginRun({ teamName, runId });
    await store.finish({ teamName, runId, status: 'ready' });
  };
  const runIds = async (store: OpenCodeLaunchTransactionStore) => (await store.list()).map(({ runId }) => runId);

  it('is off by default', async () => {
    const store = open();
    for (let i = 0; i < 12; i++) await launch(store, 'team-a', `run-${i}`);
    later(1e12);
    await launch(store, 'team-a', 'run-12');
    expect(await store.list()).toHaveLength(13);
  });

  it('keeps the newest finished ones of each team, and every active one', async () => {
    const store = open({ maxFinished: 2 });
    await launch(store, 'team-b', 'b-1');
    await store.beginRun({ teamName: 'team-c', runId: 'c-1' });
    for (let i = 1; i <= 4; i++) await launch(store, 'team-a', `a-${i}`);
    expect(await runIds(store)).toEqual(['b-1', 'c-1', 'a-2', 'a-3', 'a-4']);
    await store.beginRun({ teamName: 'team-a', runId: 'a-5' });
    expect(await runIds(store)).toEqual(['b-1', 'c-1', 'a-3', 'a-4', 'a-5']);
  });

  it('keeps nothing finished with maxFinished 0, but only from the next launch on', async () => {
    const store = open({ maxFinished: 0 });
    await launch(store, 'team-a', 'run-1');
    expect(await store.read('team-a', 'run-1')).toMatchObject({ status: 'ready' });
    await launch(store, 'team-a', 'run-2');
    expect(await runIds(store)).toEqual(['run-2']);
  });

  it('drops what is older than maxAgeMs, not what is exactly as old, and never an active one', async () => {
    const store = open({ maxAgeMs: 1000 });
    await store.beginRun({ teamName: 'team-b', runId: 'old-active' });
    await launch(store, 'team-a', 'run-1');
    later(1000);
    await launch(store, 'team-a', 'run-2');
    expect(await runIds(store)).toEqual(['old-active', 'run-1', 'run-2']);
    later(1);
    await launch(store, 'team-a', 'run-3');
    expect(await runIds(store)).toEqual(['old-active', 'run-2', 'run-3']);
  });

  it('keeps a finished one whose time cannot be read', async () => {
    const store = open({ maxAgeMs: 1000 });
    await store.beginRun(RUN);
    await store.finish({ ...RUN, status: 'ready', updatedAt: 'last Tuesday' });
    later(1e9);
    await launch(store, 'team-a', 'run-2');
    expect(await runIds(store)).toEqual(['run-1', 'run-2']);
  });

  it.each([{ maxFinished: -1 }, { maxFinished: 1.5 }, { maxFinished: NaN }, { maxAgeMs: -1 }, { maxAgeMs: NaN }])(
    'refuses %o', (options) => {
      const name = Object.keys(options)[0];
      expect(() => open(options)).toThrow(
        expect.objectContaining({ hfCode: 'HF_INVALID_ARGUMENT', message: expect.stringContaining(String(name)) }),
      );
    },
  );
});

describe('the validator', () => {
  const transaction = (more: object = {}): object => ({
    ...RUN, providerId: 'opencode', startedAt: NOW, updatedAt: NOW, status: 'active', checkpoints: [checkpoint()], ...more,
  });

  it('returns good data as it is, unknown keys and unreadable times included', () => {
    const data = [transaction({ extra: 1, startedAt: 'soon' }), transaction({ status: 'ready', checkpoints: [] })];
    expect(validateOpenCodeLaunchTransactions(data)).toBe(data);
    expect(validateOpenCodeLaunchTransactions([])).toEqual([]);
  });

  it.each([[null], [undefined], [{}], ['[]']])('refuses %o', (value) => {
    expect(() => validateOpenCodeLaunchTransactions(value)).toThrow(
      refusal('HF_RUNTIME_INVALID_TRANSACTIONS', 'OpenCode launch transactions must be an array'),
    );
  });

  it.each<[string, unknown]>([
    ['null', null],
    ['an array', []],
    ['a blank team', transaction({ teamName: ' ' })],
    ['a run that is no string', transaction({ runId: 1 })],
    ['another provider', transaction({ providerId: 'other' })],
    ['no start', transaction({ startedAt: undefined })],
    ['a blank updatedAt', transaction({ updatedAt: '' })],
    ['an unknown status', transaction({ status: 'done' })],
    ['checkpoints that are no list', transaction({ checkpoints: {} })],
    ['a checkpoint that is null', transaction({ checkpoints: [null] })],
    ['an unknown checkpoint', transaction({ checkpoints: [{ ...checkpoint(), name: 'lunch' }] })],
    ['a checkpoint without member', transaction({ checkpoints: [{ ...checkpoint(), memberName: undefined }] })],
    ['a session that is a number', transaction({ checkpoints: [{ ...checkpoint(), runtimeSessionId: 1 }] })],
    ['a host that is a number', transaction({ checkpoints: [{ ...checkpoint(), hostKey: 1 }] })],
    ['a hash that is null', transaction({ checkpoints: [{ ...checkpoint(), evidenceHash: null }] })],
    ['a checkpoint without time', transaction({ checkpoints: [{ ...checkpoint(), createdAt: '' }] })],
    ['diagnostics that are no texts', transaction({ checkpoints: [{ ...checkpoint(), diagnostics: [1] }] })],
  ])('refuses %s, and names the index', (_what, record) => {
    expect(() => validateOpenCodeLaunchTransactions([transaction(), record])).toThrow(
      refusal('HF_RUNTIME_INVALID_TRANSACTIONS', 'Invalid OpenCode launch transaction at index 1'),
    );
  });
});

describe('canMarkOpenCodeRunReady (A35)', () => {
  const transaction = (checkpoints: OpenCodeLaunchCheckpoint[]): OpenCodeLaunchTransaction => ({
    ...RUN, providerId: 'opencode', startedAt: NOW, updatedAt: NOW, status: 'failed', checkpoints,
  });
  const complete = [checkpoint(), checkpoint({ name: 'required_tools_proven' })];

  it('lists what is missing, in order', () => {
    const members = [{ name: 'Builder', launchState: 'confirmed_alive' }, { name: 'Tester', launchState: 'pending' }];
    expect(
      canMarkOpenCodeRunReady({ members, transaction: transaction(complete), toolProof: { ok: false }, deliveryReady: false }),
    ).toEqual({
      ok: false,
      missing: [
        'Tester:member_session_recorded',
        'Tester:required_tools_proven',
        'Tester:bootstrap_confirmed',
        'required_runtime_tools',
        'runtime_delivery_service',
      ],
    });
  });

  it('says ok when nothing is missing, whatever the status of the transaction', () => {
    const members = [{ name: 'Builder', launchState: 'confirmed_alive' }];
    const input = { members, transaction: transaction(complete), toolProof: { ok: true }, deliveryReady: true };
    expect(canMarkOpenCodeRunReady(input)).toEqual({ ok: true, missing: [] });
    expect(canMarkOpenCodeRunReady({ ...input, members: [] })).toEqual({ ok: true, missing: [] });
    expect(canMarkOpenCodeRunReady({ ...input, members: [{ name: 'Builder' }] }).missing).toEqual(['Builder:bootstrap_confirmed']);
  });

  it('does not take another member, or the whole run, for the member', () => {
    const launch = transaction([checkpoint({ memberName: null }), checkpoint({ memberName: 'Other' })]);
    expect(hasMemberCheckpoint(launch, 'Builder', 'member_session_recorded')).toBe(false);
    expect(hasMemberCheckpoint(launch, 'Other', 'member_session_recorded')).toBe(true);
    expect(hasMemberCheckpoint(launch, 'Other', 'member_ready')).toBe(false);
  });

  it.each<unknown>([
    null,
    {},
    { members: [], transaction: transaction([]), deliveryReady: true },
    { members: [{ name: 'Builder' }], transaction: null, toolProof: { ok: true }, deliveryReady: true },
  ])('refuses %o', (input) => {
    expect(() => canMarkOpenCodeRunReady(input as never)).toThrow(expect.objectContaining({ hfCode: 'HF_INVALID_ARGUMENT' }));
  });

  it('does not take a truthy text for a proof', () => {
    const input = { members: [], transaction: transaction([]), toolProof: { ok: 'no' }, deliveryReady: 'no' };
    expect(canMarkOpenCodeRunReady(input as never).missing).toEqual(['required_runtime_tools', 'runtime_delivery_service']);
  });
});

describe('bad arguments', () => {
  it.each<[string, (store: OpenCodeLaunchTransactionStore) => Promise<unknown>]>([
    ['input', (store) => store.beginRun(null as never)],
    ['teamName', (store) => store.beginRun({ teamName: ' ', runId: 'run-1' })],
    ['runId', (store) => store.beginRun({ teamName: 'team-a', runId: 1 as never })],
    ['startedAt', (store) => store.beginRun({ ...RUN, startedAt: '' })],
    ['checkpoint', (store) => store.addCheckpoint(undefined as never)],
    ['checkpoint.name', (store) => store.addCheckpoint(checkpoint({ name: 'lunch' as never }))],
    ['checkpoint.teamName', (store) => store.addCheckpoint(checkpoint({ teamName: '' }))],
    ['checkpoint.memberName', (store) => store.addCheckpoint(checkpoint({ memberName: undefined as never }))],
    ['checkpoint.evidenceHash', (store) => store.addCheckpoint(checkpoint({ evidenceHash: '' }))],
    ['checkpoint.createdAt', (store) => store.addCheckpoint(checkpoint({ createdAt: new Date() as never }))],
    ['checkpoint.diagnostics', (store) => store.addCheckpoint(checkpoint({ diagnostics: 'x' as never }))],
    ['checkpoint.diagnostics[1]', (store) => store.addCheckpoint(checkpoint({ diagnostics: ['x', 1 as never] }))],
    ['memberName', (store) => store.hasCheckpoint({ ...RUN, memberName: 1 as never, name: 'run_ready' })],
    ['name', (store) => store.hasCheckpoint({ ...RUN, memberName: null, name: 'x' as never })],
    ['teamName', (store) => store.readActive('')],
    ['runId', (store) => store.read('team-a', '')],
    ['status', (store) => store.finish({ ...RUN, status: 'active' as never })],
    ['updatedAt', (store) => store.finish({ ...RUN, status: 'ready', updatedAt: ' ' })],
  ])('%s is named, and nothing is touched', async (argument, call) => {
    const error = await call(open()).catch((e: unknown) => e);
    expect(error).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT', argument });
    expect(await readdir(folder)).toEqual([]);
  });

  it('are refused by the factory and the constructor at once', () => {
    const code = expect.objectContaining({ hfCode: 'HF_INVALID_ARGUMENT' });
    expect(() => createOpenCodeLaunchTransactionStore(undefined as never)).toThrow(code);
    expect(() => createOpenCodeLaunchTransactionStore({ filePath: '' })).toThrow(code);
    expect(() => createOpenCodeLaunchTransactionStore({ filePath, clock: 1 as never })).toThrow(code);
    expect(() => new OpenCodeLaunchTransactionStore(null as never)).toThrow(code);
  });

  it('lets the constructor take a store of the caller', async () => {
    const store = new OpenCodeLaunchTransactionStore(
      new VersionedJsonStore({ filePath, schemaVersion: 1, defaultData: () => [], validate: validateOpenCodeLaunchTransactions }),
    );
    expect((await store.beginRun(RUN)).state).toBe('created');
  });
});

describe('close', () => {
  it('waits for what is under way, and refuses what comes after', async () => {
    const store = open();
    const last = store.beginRun(RUN);
    await store.close();
    await store[Symbol.asyncDispose]();
    await last;
    expect(await open().list()).toHaveLength(1);
    await expect(store.beginRun(RUN)).rejects.toMatchObject({ hfCode: 'HF_CLOSED' });
    await expect(store.list()).rejects.toMatchObject({ hfCode: 'HF_CLOSED' });
  });
});
