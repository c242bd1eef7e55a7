/** Files: whose they are, who may write, and what damage does. The numbers are those of the acceptance checks. */
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { SessionGraphStore, SessionGraphStoreFactory, type SessionGraphStoreOptions } from 'holdfast';
import { expect, test } from 'vitest';

import { append, commit, draft, failure, ids, newFile, node, open, raw, tempDir } from './support';

const opening = (path: string, options?: SessionGraphStoreOptions) => failure(SessionGraphStore.open(path, options));

test('8: a file of another kind or version is refused and not touched', async () => {
  const path = newFile();
  const cases: [string[], string, string, string][] = [
    [['PRAGMA user_version = 99'], '99', 'It is not a holdfast session database.', 'HF_GRAPH_UNSUPPORTED_SCHEMA'],
    [['PRAGMA user_version = 0'], '0', 'It is not a holdfast session database.', 'HF_GRAPH_UNSUPPORTED_SCHEMA'],
    [['PRAGMA user_version = 3', 'PRAGMA application_id = 77'], '3', 'It is not a holdfast session database.', 'HF_GRAPH_UNSUPPORTED_SCHEMA'],
    [['PRAGMA user_version = 2', 'PRAGMA application_id = 1212568391'], '2', 'There is no migration from that version.', 'HF_GRAPH_UNSUPPORTED_SCHEMA'],
    [['PRAGMA user_version = 99'], '99', 'It was written by a newer build.', 'HF_FORMAT_TOO_NEW'],
  ];
  raw(path, 'CREATE TABLE t (a)');
  for (const [statements, found, advice, hfCode] of cases) {
    raw(path, ...statements);
    const before = readFileSync(path);
    const text =
      'Unsupported holdfast session schema: this build supports schema version 3, but the database reports version ' +
      `${found}. ${advice} The file was not changed.`;
    for (const error of [await opening(path), await failure(SessionGraphStore.openReadOnly(path))]) {
      expect(error).toMatchObject({ name: 'UnsupportedSchemaError', hfCode, message: text, found: Number(found), expected: 3 });
    }
    expect(readFileSync(path).equals(before)).toBe(true);
  }
});

test.each(['VIEW v AS SELECT 1', 'TABLE t (a)', 'INDEX i ON t (a)', 'TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END'])(
  '8: a file without a version that holds a %s is somebody else\'s',
  async (what) => {
    const path = newFile();
    const needsTable = what.includes(' ON t');
    raw(path, ...(needsTable ? ['CREATE TABLE t (a)'] : []), `CREATE ${what}`);
    const before = readFileSync(path);
    expect(await opening(path)).toMatchObject({ name: 'UnsupportedSchemaError', found: 0, message: expect.stringContaining('version 0') });
    expect(readFileSync(path).equals(before)).toBe(true);
    expect(readdirSync(join(path, '..'))).toEqual(['s.db']);
  },
);

test('an empty file becomes a store, for who may write', async () => {
  const path = newFile();
  writeFileSync(path, '');
  for (const error of [await failure(SessionGraphStore.openReadOnly(path)), await opening(path, { migrate: 'never' })]) {
    expect(error).toMatchObject({ name: 'UnsupportedSchemaError', reason: 'empty', message: expect.stringContaining('Open it once') });
  }
  expect(statSync(path).size).toBe(0);
  const store = await open(path);
  await store.commitRuntimeState(append([node('a')]));
  expect(await ids(store, { scope: 'activePath' })).toEqual(['a']);
});

test('a file whose first opening was cut short is empty, and opens', async () => {
  const whole = newFile();
  const other = await open(whole);
  const header = readFileSync(whole).subarray(0, 4096);
  await other.close();
  // SQLite's journal of a file that had this many pages before.
  const journal = (pages: number): Buffer => {
    const text = Buffer.alloc(512);
    Buffer.from('d9d505f920a163d7', 'hex').copy(text);
    [pages, 512, 4096].forEach((value, index) => text.writeUInt32BE(value, 16 + 4 * index));
    return text;
  };
  for (const pages of [null, 0]) {
    const path = newFile();
    writeFileSync(path, header);
    if (pages !== null) writeFileSync(`${path}-journal`, journal(pages));
    expect(await SessionGraphStore.preflight(path)).toEqual({ verdict: 'empty', opens: true, found: 0, expected: 3, problems: [] });
    expect(await failure(SessionGraphStore.openReadOnly(path))).toMatchObject({ name: 'UnsupportedSchemaError', reason: 'empty' });
    const store = await open(path);
    await store.commitRuntimeState(commit());
    expect(await SessionGraphStore.preflight(path)).toMatchObject({ verdict: 'ready' });
  }
  // A store whose journal was switched elsewhere, in the middle of a change.
  raw(whole, 'PRAGMA journal_mode = DELETE');
  writeFileSync(`${whole}-journal`, journal(statSync(whole).size / 4096));
  expect(await SessionGraphStore.preflight(whole)).toMatchObject({ verdict: 'damaged', opens: true, problems: [{ key: 'database' }] });
  const error = await failure(SessionGraphStore.openReadOnly(whole));
  expect(error).toMatchObject({ hfCode: 'HF_IO', message: expect.stringContaining('SessionGraphStore.open') });
  await open(whole);
  expect(await SessionGraphStore.preflight(whole)).toMatchObject({ verdict: 'ready' });
});

test('a store whose head is damaged can be committed to, and is whole again', async () => {
  const path = newFile();
  const before = await open(path);
  await before.commitRuntimeState(append([node('a')]));
  await before.close();
  raw(path, `UPDATE session_head SET head_json = '{"config"'`);
  const store = await open(path);
  expect(await failure(store.loadSession({ scope: 'activePath' }))).toMatchObject({ name: 'RecordDecodeError', table: 'session_head' });
  const tolerant = (await store.loadSession({ scope: 'activePath' }, { tolerant: true }))!;
  expect([tolerant.headRevision, tolerant.graph.nodes.length, tolerant.problems?.length]).toEqual([1, 1, 1]);
  await store.commitRuntimeState(append([node('b', 'a')], { expectedHeadRevision: 1 }));
  expect(await ids(store, { scope: 'activePath' })).toEqual(['a', 'b']);
  expect(await store.verify({ deep: true })).toEqual([]);
});

test('what is no database, a folder, a file in a folder that is missing', async () => {
  const path = newFile();
  writeFileSync(path, 'this is no database, it is a text that is long enough'.repeat(40));
  expect(await opening(path)).toMatchObject({ name: 'StoreCorruptError' });
  expect(await opening(tempDir())).toMatchObject({ name: 'InvalidArgumentError' });
  const missing = join(tempDir(), 'no', 'folder', 's.db');
  expect(await opening(missing)).toMatchObject({ name: 'StoreIoError', code: 'ENOENT' });
  expect(existsSync(join(missing, '..'))).toBe(false);
  expect(await opening(newFile(), { migrate: 'never' })).toMatchObject({ name: 'InvalidArgumentError' });
  for (const path of ['', ':memory:', 'file:x', 'a\0']) expect(await opening(path)).toMatchObject({ name: 'InvalidArgumentError' });
  for (const options of [{ durability: 'no' }, { maxReaders: 0 }, { busyTimeoutMs: -1 }, { whatever: 1 }, { gcPolicy: { minBlobAgeMs: -1 } }]) {
    expect(await opening(newFile(), options as SessionGraphStoreOptions)).toMatchObject({ name: 'InvalidArgumentError' });
  }
});

test('9: sixteen handles open a missing file at once', async () => {
  const path = newFile();
  const stores = await Promise.all(Array.from({ length: 16 }, () => open(path)));
  await Promise.all(stores.map((store) => store.enqueueQueuedWork(draft())));
  expect(new Set(stores.map((store) => store.schemaVersion))).toEqual(new Set([3]));
  await Promise.all(stores.map((store) => store.close()));
  expect(raw(path, 'PRAGMA user_version')).toEqual([{ user_version: 3 }]);
  expect(raw(path, 'PRAGMA application_id')).toEqual([{ application_id: 0x48465347 }]);
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

test('31: who only reads changes nothing and sees what others commit', async () => {
  const path = newFile();
  expect(await failure(SessionGraphStore.openReadOnly(path))).toMatchObject({ name: 'StoreNotFoundError', path });
  expect(existsSync(path)).toBe(false);
  const writer = await open(path);
  await writer.commitRuntimeState(append([node('a')]));
  await writer.close();
  const before = readFileSync(path);
  const reader = await SessionGraphStore.openReadOnly(path);
  expect([reader.readOnly, reader.durabilityTier(), writer.durabilityTier()]).toEqual([true, 'inline', 'durable']);
  expect(await ids(reader, { scope: 'fullGraph' })).toEqual(['a']);
  expect(readFileSync(path).equals(before)).toBe(true);
  const claim = { sessionId: 's', claimId: 'c', ownerId: 'o', leaseToken: 't', fencingToken: 1, claimedAtEpochMs: 1, expiresAtEpochMs: 1, batches: [] };
  const request = { sessionId: 's', ownerId: 'o', leaseTtlMs: 1, boundary: 'idle' } as const;
  const writes: { [name in keyof SessionGraphStore]?: () => Promise<unknown> } = {
    commitRuntimeState: () => reader.commitRuntimeState(commit()),
    saveSessionMeta: () => reader.saveSessionMeta({ sessionId: 's', sessionName: '', createdAt: '', model: '' }),
    putBlob: () => reader.putBlob(new Uint8Array()),
    putArtifactBlob: () => reader.putArtifactBlob({ kind: 'module' }, new Uint8Array()),
    putCheckpoint: () => reader.putCheckpoint({ turnState: 1 }),
    putNamedArtifact: () => reader.putNamedArtifact('a', new Uint8Array()),
    appendUsageDeltas: () => reader.appendUsageDeltas([]),
    enqueueQueuedWork: () => reader.enqueueQueuedWork(draft()),
    claimReadyQueuedWork: () => reader.claimReadyQueuedWork({ ...request, maxBatches: 1 }),
    claimReadyQueuedWorkByBatchIds: () => reader.claimReadyQueuedWorkByBatchIds({ ...request, batchIds: [] }),
    renewQueuedWorkClaim: () => reader.renewQueuedWorkClaim(claim, 1),
    abandonQueuedWorkClaim: () => reader.abandonQueuedWorkClaim(claim),
    cancelQueuedWorkBatch: () => reader.cancelQueuedWorkBatch('s', 'b'),
    tombstoneNodes: () => reader.tombstoneNodes([]),
    vacuum: () => reader.vacuum(),
    gcUnreachable: () => reader.gcUnreachable(),
    recordIntent: () => reader.recordIntent({ attachmentId: 'a', sessionId: 's', canonicalUri: '', intentAtEpochMs: 1 }),
    commitRefs: () => reader.commitRefs('s', []),
    forget: () => reader.forget('a'),
    backup: () => reader.backup(newFile()),
  };
  for (const [method, call] of Object.entries(writes)) {
    expect(await failure(call!()), method).toMatchObject({ name: 'ReadOnlyStoreError', hfCode: 'HF_GRAPH_READ_ONLY', method });
  }
  const again = await open(path);
  await again.commitRuntimeState(append([node('b', 'a')]));
  expect(await ids(reader, { scope: 'activePath' })).toEqual(['a', 'b']);
  expect(await reader.verify({ deep: true })).toEqual([]);
  await reader.close();
  expect(await failure(reader.loadSessionMeta())).toMatchObject({ name: 'StoreClosedError' });
});

test('25: a circle in a damaged file is an error, not a hang', async () => {
  const path = newFile();
  const before = await open(path);
  await before.commitRuntimeState(append([node('a'), node('b', 'a'), node('c', 'b')]));
  await before.close();
  raw(path, 'UPDATE graph_nodes SET parent_seq = 3 WHERE seq = 1');
  const store = await open(path);
  expect(await failure(store.loadSession({ scope: 'activePath' }))).toMatchObject({ name: 'GraphCorruptError', hfCode: 'HF_GRAPH_CORRUPT' });
  expect(await ids(store, { scope: 'fullGraph' })).toEqual(['a', 'b', 'c']);
  expect((await store.loadSession({ scope: 'activePath' }, { tolerant: true }))?.problems).toHaveLength(1);
  expect(await store.verify()).toHaveLength(1);
});

test('a damaged node is named, and skipped where that is asked for', async () => {
  const path = newFile();
  const before = await open(path);
  await before.commitRuntimeState(append([node('a'), node('b', 'a'), node('c', 'b')]));
  await before.close();
  raw(path, `UPDATE graph_bodies SET node_json = '{"x' WHERE seq = 2`, 'DELETE FROM graph_bodies WHERE seq = 3');
  const store = await open(path);
  const decode = { name: 'RecordDecodeError', table: 'graph_bodies' };
  expect(await failure(store.loadSession({ scope: 'fullGraph' }))).toMatchObject({ ...decode, key: expect.stringMatching(/^[23]$/) });
  expect(await failure(store.loadNode('b'))).toMatchObject({ ...decode, key: 'b' });
  const rest = (await store.loadSession({ scope: 'activePath' }, { tolerant: true }))!;
  expect(rest.graph.nodes.map((each) => each.nodeId)).toEqual(['a']);
  expect(rest.problems?.map(({ kind, key }) => [kind, key])).toEqual([
    ['node', '2'],
    ['node', '3'],
  ]);
  expect(await store.verify({ deep: true })).toHaveLength(2);
});

test('39: the factory', async () => {
  const root = join(tempDir(), 'made');
  const factory = new SessionGraphStoreFactory(root, { durability: 'normal' });
  const id = '../weird/session';
  const path = factory.pathForSession(id);
  expect(path).toBe(factory.pathForSession(id));
  expect(path).toMatch(/weird_session-[0-9a-f]{16}\.db$/);
  expect(join(path, '..')).toBe(root);
  const first = await factory.createStore({ sessionId: id, model: 'm1', relation: { type: 'child' } });
  expect(first.durabilityTier()).toBe('processCrash');
  const meta = (await first.loadSessionMeta())!;
  expect(meta).toMatchObject({ sessionId: id, sessionName: id, model: 'm1', cwd: process.cwd(), relation: { type: 'child' } });
  expect(Date.parse(meta.createdAt)).toBeGreaterThan(0);
  const second = await factory.createStore({ sessionId: id, model: 'm2' });
  expect(await second.loadSessionMeta()).toEqual(meta);
  await second.saveSessionMeta({ sessionId: id, sessionName: 'New', createdAt: meta.createdAt, model: 'm3' });
  expect(await first.loadSessionMeta()).toMatchObject({ sessionName: 'New', cwd: null, relation: { type: 'root' } });
  await Promise.all([first.close(), second.close()]);
  // What Windows has beside a file, whether SQLite knows of it or not.
  writeFileSync(`${path}-turn`, '');
  await factory.deleteSession(id);
  await factory.deleteSession(id);
  expect(readdirSync(root)).toEqual([]);
  expect(await failure(factory.createStore({ sessionId: '' }))).toMatchObject({ name: 'InvalidArgumentError' });
});

test('a backup is a store of its own, and close finishes what was called', async () => {
  const store = await open();
  const copy = newFile();
  const commits = Array.from({ length: 20 }, (_, n) => store.commitRuntimeState(append([node(`n${n}`)])));
  await commits[9];
  await store.backup(copy);
  const closed = store.close();
  await Promise.all([...commits, closed, store.close()]);
  expect(await failure(store.commitRuntimeState(commit()))).toMatchObject({ name: 'StoreClosedError', hfCode: 'HF_CLOSED' });
  const other = await open(copy);
  expect((await other.loadSession({ scope: 'fullGraph' }))!.headRevision).toBeGreaterThanOrEqual(10);
  expect(await other.verify({ deep: true })).toEqual([]);
  const again = await open(store.path!);
  expect((await again.loadSession({ scope: 'fullGraph' }))?.graph.nodes).toHaveLength(20);
});
