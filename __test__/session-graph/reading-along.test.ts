/** Watching, paging, limits, aborts, lists of sessions, and looks before a start. */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { SessionGraphStore, SessionGraphStoreFactory, type SessionGraphChange } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { KINDS, append, commit, draft, failure, ids, memory, newFile, node, open, raw, start, tempDir } from './support';

const stateOf = (path: string): [string[], string] => [readdirSync(dirname(path)).sort(), createHash('sha256').update(readFileSync(path)).digest('hex')];

describe.each(KINDS)('in a $name', ({ make }) => {
  test('whoever watches hears of revisions and of the queue', async () => {
    const store = await make();
    await store.commitRuntimeState(commit());
    const changes = store.watch({ since: 1, pollMs: 20 });
    await store.commitRuntimeState(commit());
    expect((await changes.next()).value).toEqual({ changed: ['revision'], headRevision: 2, queuedBatches: 0 });
    const pending = changes.next();
    const { batchId } = await store.enqueueQueuedWork(draft());
    expect((await pending).value).toEqual({ changed: ['queue'], headRevision: 2, queuedBatches: 1 });
    for (const change of [
      () => store.claimReadyQueuedWork({ sessionId: 'root', ownerId: 'a', leaseTtlMs: 0, boundary: 'idle', maxBatches: 1 }),
      () => store.cancelQueuedWork('root', batchId),
    ]) {
      const next = changes.next();
      await change();
      expect((await next).value).toMatchObject({ changed: ['queue'] });
    }
    await changes.return!();
    const late = store.watch({ since: 1 });
    expect((await late.next()).value).toMatchObject({ changed: ['revision'], headRevision: 2 });
    const last = late.next();
    await store.close();
    expect(await last).toEqual({ value: undefined, done: true });
    expect(await failure(store.watch().next())).toMatchObject({ hfCode: 'HF_CLOSED' });
  });

  test('an abort ends a watch without an error', async () => {
    const store = await make();
    const stop = new AbortController();
    const seen: SessionGraphChange[] = [];
    const reading = (async () => {
      for await (const change of store.watch({ since: 0, signal: stop.signal, pollMs: 600_000 })) {
        seen.push(change);
        setTimeout(() => stop.abort(), 5);
      }
    })();
    await store.commitRuntimeState(commit());
    await reading;
    expect(seen).toMatchObject([{ headRevision: 1 }]);
    for await (const change of store.watch({ signal: stop.signal })) seen.push(change);
    expect(seen).toHaveLength(1);
  });

  test('leaving ends a watch that waits for a change', async () => {
    const store = await make();
    const changes = store.watch({ since: 0, pollMs: 600_000 });
    await store.commitRuntimeState(commit());
    expect((await changes.next()).value).toMatchObject({ headRevision: 1 });
    const pending = changes.next();
    // Nothing is changed any more, and nobody asks again.
    expect(await changes.return!()).toEqual({ value: undefined, done: true });
    expect(await pending).toEqual({ value: undefined, done: true });
    expect(await changes.next()).toEqual({ value: undefined, done: true });
    const unused = store.watch();
    expect(await unused.return!()).toEqual({ value: undefined, done: true });
  });

  test('nodes come page by page', async () => {
    const store = await make();
    const all = Array.from({ length: 1_300 }, (_, n) => node(`n${n}`, n === 0 ? null : `n${n - 1}`, { n, text: 'x'.repeat(n % 100 === 0 ? 20_000 : 10) }));
    await store.commitRuntimeState(append(all));
    await store.tombstoneNodes(['n3']);
    const seen: string[] = [];
    let last = 0;
    for await (const { seq, node: each } of store.iterateNodes()) {
      seen.push(each.nodeId);
      expect(seq).toBeGreaterThan(last);
      last = seq;
    }
    expect(seen).toEqual(await ids(store, { scope: 'fullGraph' }));
    const some = [];
    for await (const each of store.iterateNodes({ afterSeq: 2, limit: 3 })) some.push(each);
    expect(some).toEqual([3, 5, 6].map((seq) => ({ seq, node: all[seq - 1] })));
    const none = [];
    for await (const each of store.iterateNodes({ afterSeq: last })) none.push(each);
    for await (const each of store.iterateNodes({ limit: 0 })) none.push(each);
    expect(none).toEqual([]);
  });

  test('limits hold before anything is sent', async () => {
    const store = await make({ commitLimits: { maxBytes: 2_000, maxNodes: 2 } });
    await store.commitRuntimeState(append([node('a'), node('b', 'a')]));
    const many = store.commitRuntimeState(append([node('c'), node('d'), node('e')]));
    expect(await failure(many)).toMatchObject({ name: 'CommitTooLargeError', hfCode: 'HF_GRAPH_COMMIT_TOO_LARGE', limit: 'nodes', max: 2, actual: 3 });
    const full = commit({ graph: { type: 'replaceFull', graph: { nodes: [node('c'), node('d'), node('e')], leafNodeId: null } } });
    expect(await failure(store.commitRuntimeState(full))).toMatchObject({ limit: 'nodes' });
    for (const large of [
      commit({ config: 'x'.repeat(2_000) }),
      commit({ config: 'é'.repeat(950) }),
      commit({ checkpoint: { turnState: 1, executionState: new Uint8Array(1_990) } }),
    ]) {
      expect(await failure(store.commitRuntimeState(large))).toMatchObject({ limit: 'bytes', max: 2_000 });
    }
    expect((await store.commitRuntimeState(commit({ config: 'x'.repeat(1_500) }))).headRevision).toBe(2);
  });

  test('reads that nobody waits for any more reject with the reason', async () => {
    const store = await make();
    await store.commitRuntimeState(append([node('a')]));
    const reason = new Error('enough');
    const over = AbortSignal.abort(reason);
    for (const read of [
      store.loadSession({ scope: 'fullGraph' }, { signal: over }),
      store.verify({ signal: over }),
      store.iterateNodes({ signal: over }).next(),
    ]) {
      await expect(read).rejects.toBe(reason);
    }
    const stop = new AbortController();
    const pending = store.loadSession({ scope: 'fullGraph' }, { signal: stop.signal });
    stop.abort(reason);
    await expect(pending).rejects.toBe(reason);
    expect(await ids(store, { scope: 'fullGraph' })).toEqual(['a']);
  });

  test('figures tell of the queue', async () => {
    const store = await make();
    const claim = (leaseTtlMs: number) =>
      store.claimReadyQueuedWork({ sessionId: 'root', ownerId: 'a', leaseTtlMs, boundary: 'idle', maxBatches: 1 });
    expect(await store.stats()).toMatchObject({ readyBatches: 0, oldestReadyMs: null, claimedBatches: 0, deadLetters: 0 });
    await store.enqueueQueuedWork(draft({ maxAttempts: 1 }));
    await claim(0);
    for (let n = 0; n < 3; n++) await store.enqueueQueuedWork(draft());
    await store.enqueueQueuedWork(draft({ availableAtMs: Date.now() + 600_000 }));
    await claim(60_000);
    await claim(0);
    const stats = await store.stats();
    expect(stats).toMatchObject({ queuedBatches: 5, readyBatches: 2, claimedBatches: 1, deadLetters: 1 });
    expect(stats.oldestReadyMs).toBeGreaterThanOrEqual(0);
    if (store.path !== null) expect(stats.lockWaitMs!.p50).toBeGreaterThan(0);
  });
});

test('another process is heard, and hears', async () => {
  const path = newFile();
  const [store, second] = [await open(path), await open(path)];
  const changes = store.watch({ since: 0 });
  const pending = changes.next();
  await second.commitRuntimeState(commit());
  expect((await pending).value).toMatchObject({ headRevision: 1 });
  const reader = await SessionGraphStore.openReadOnly(path);
  const there = reader.watch({ since: 1 });
  const until = async (heard: AsyncIterator<SessionGraphChange>): Promise<void> => {
    // It enqueues and claims before: those may be changes of their own.
    while (!((await heard.next()).value as SessionGraphChange).changed.includes('revision'));
  };
  const heard = Promise.all([until(changes), until(there)]);
  const child = start(path, 'append', '1');
  await heard;
  expect((await child.ended).code).toBe(0);
  await Promise.all([changes.return!(), there.return!()]);
  await reader.close();
});

test('a look before a start says what is there, and changes no byte', async () => {
  const path = newFile();
  const look = (deep?: boolean) => SessionGraphStore.preflight(path, deep === undefined ? {} : { deep });
  expect(await look()).toEqual({ verdict: 'missing', opens: true, found: null, expected: 3, problems: [] });
  writeFileSync(path, '');
  expect(await look()).toMatchObject({ verdict: 'empty', opens: true });
  const store = await open(path);
  await store.commitRuntimeState(append([node('a'), node('b', 'a')]));
  expect(await look()).toMatchObject({ verdict: 'ready', opens: true });
  await store.close();
  const before = stateOf(path);
  expect(await look()).toEqual({ verdict: 'ready', opens: true, found: 3, expected: 3, problems: [] });
  expect(stateOf(path)).toEqual(before);

  raw(path, "UPDATE graph_bodies SET node_json = '{' WHERE seq = 2", 'PRAGMA wal_checkpoint(TRUNCATE)');
  expect(await look(false)).toMatchObject({ verdict: 'ready' });
  expect(await look()).toMatchObject({ verdict: 'damaged', opens: true, problems: [{ kind: 'node', key: '2' }] });
  raw(path, 'PRAGMA user_version = 99');
  const newer = stateOf(path);
  expect(await look()).toMatchObject({ verdict: 'newer', opens: false, found: 99 });
  expect(stateOf(path)).toEqual(newer);
  raw(path, 'PRAGMA application_id = 5');
  expect(await look()).toMatchObject({ verdict: 'foreign', opens: false });
  writeFileSync(path, 'x'.repeat(5_000));
  expect(await look()).toMatchObject({ verdict: 'damaged', opens: false });
  const over = AbortSignal.abort(new Error('enough'));
  await expect(SessionGraphStore.preflight(path, { signal: over })).rejects.toThrow('enough');
});

test('the sessions of a folder are listed without loading them', async () => {
  const root = join(tempDir(), 'none', 'yet');
  const factory = new SessionGraphStoreFactory(root);
  expect(await factory.listSessions()).toEqual([]);
  const made = [];
  for (const sessionId of ['one', '../two', 'three']) made.push(await factory.createStore({ sessionId, model: 'm' }));
  const [one, two, three] = made as [SessionGraphStore, SessionGraphStore, SessionGraphStore];
  await two.commitRuntimeState(commit());
  await two.saveSessionMeta({ ...(await two.loadSessionMeta())!, sessionName: 'Two', summary: { last: 'bye', unread: 3 } });
  await Promise.all([one.close(), three.close()]);
  mkdirSync(join(root, 'folder-0123456789abcdef.db'));
  writeFileSync(join(root, 'notes.db'), 'mine');
  writeFileSync(join(root, 'broken-0123456789abcdef.db'), 'x'.repeat(5_000));
  const foreign = join(root, 'foreign-0123456789abcdef.db');
  raw(foreign, 'PRAGMA journal_mode = DELETE', 'PRAGMA application_id = 5', 'CREATE TABLE t (x)');
  const listed = await factory.listSessions({ concurrency: 2 });
  const short = listed.map(({ path, meta, headRevision, problem }) => [path, meta?.sessionName ?? null, headRevision, problem?.code]);
  expect(short.sort()).toEqual(
    [
      [factory.pathForSession('one'), 'one', 0, undefined],
      [factory.pathForSession('../two'), 'Two', 1, undefined],
      [factory.pathForSession('three'), 'three', 0, undefined],
      [join(root, 'broken-0123456789abcdef.db'), null, 0, 'HF_CORRUPT'],
    ].sort(),
  );
  expect(listed.find((each) => each.meta?.sessionName === 'Two')!.meta!.summary).toEqual({ last: 'bye', unread: 3 });
  expect(listed.every((each) => each.bytes > 0 && each.modifiedAtMs > 1e12)).toBe(true);
  expect(readdirSync(root).filter((name) => name.startsWith('one'))).toHaveLength(1);
  expect(await failure(factory.listSessions({ concurrency: 0 }))).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
  await expect(factory.listSessions({ signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough');
  await two.close();
});

test('a summary is left out where there is none', async () => {
  const store = await memory();
  await store.saveSessionMeta({ sessionId: 's', sessionName: 's', createdAt: 't', model: 'm' });
  expect(await store.loadSessionMeta()).toEqual({ sessionId: 's', sessionName: 's', createdAt: 't', model: 'm', cwd: null, relation: { type: 'root' } });
});
