// @pool forks: what counts happens in processes of its own.
/** Several processes on one file. The numbers are those of the acceptance checks. */
import { setTimeout as sleep } from 'node:timers/promises';

import { SessionGraphStore } from 'holdfast';
import { expect, test } from 'vitest';

import { append, ask, draft, failure, ids, lock, newFile, node, open, race, raw, start } from './support';

test('1: of two processes that commit with the same expectation one wins', async () => {
  const path = newFile();
  const outcomes = await race(['a', 'b'].map((id) => start(path, 'race', id)));
  const lost = { code: 'HF_GRAPH_HEAD_REVISION_CONFLICT', expected: 0, actual: 1 };
  expect(outcomes).toEqual(expect.arrayContaining(['won', lost]));
});

test('9: sixteen processes open a missing file at once', { timeout: 45_000 }, async () => {
  const path = newFile();
  const versions = await race<number>(Array.from({ length: 16 }, () => start(path, 'open')));
  expect(versions).toEqual(Array.from({ length: 16 }, () => 3));
  expect(raw(path, 'PRAGMA user_version')).toEqual([{ user_version: 3 }]);
});

test('7: four processes drain fifty batches, each of them once', async () => {
  const path = newFile();
  const store = await open(path);
  await Promise.all(Array.from({ length: 50 }, (_, n) => store.enqueueQueuedWork(draft({ payloads: [n], mergeKey: 'payloadDefault' }))));
  const drained = await Promise.all(['a', 'b', 'c', 'd'].map((owner) => ask<number[]>(path, 'drain', owner)));
  expect(drained.flat().sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, n) => n));
});

test('27: a load never sees half a commit', async () => {
  const path = newFile();
  await (await open(path)).close();
  const watcher = start(path, 'watch', '1000');
  await watcher.line('ready');
  const store = await open(path, { durability: 'normal' });
  let over = false;
  void watcher.ended.then(() => (over = true));
  // Not as fast as it can: what is loaded grows with every commit.
  for (let n = 1; !over; n++) {
    await store.commitRuntimeState(append([node(`n${n}`, n > 1 ? `n${n - 1}` : null)]));
    if (n > 100) await sleep(2);
  }
  const { torn, loads, different } = JSON.parse(await watcher.line('answer')) as { torn: number; loads: number; different: number };
  expect(torn).toBe(0);
  expect(loads).toBeGreaterThanOrEqual(1000);
  expect(different).toBeGreaterThanOrEqual(20);
});

test('37: a killed process leaves whole commits, and all that it was told of', { timeout: 60_000 }, async () => {
  const path = newFile();
  let told = 0;
  for (let round = 0; round < 8; round++) {
    const child = start(path, 'append', '100000', String(told + 1));
    await child.line(`done ${told + 2 + ((round * 3) % 7)}`);
    await child.kill();
    told = Number(child.lines.filter((line) => line.startsWith('done ')).at(-1)!.slice(5));
    // Who only reads sees it, too, before anybody recovered the file.
    const reader = await SessionGraphStore.openReadOnly(path);
    const read = (await reader.loadSession({ scope: 'fullGraph' }))!;
    await reader.close();
    const store = await open(path);
    const session = (await store.loadSession({ scope: 'activePath' }))!;
    // One more may have landed without having been told.
    const revision = session.headRevision;
    expect(read.headRevision).toBe(revision);
    expect(revision - told).toBeGreaterThanOrEqual(0);
    expect(revision - told).toBeLessThanOrEqual(1);
    expect(session.graph.nodes.map((each) => each.nodeId)).toEqual(Array.from({ length: revision }, (_, n) => `n${n + 1}`));
    expect(session.tokenLedger[0]?.usage.inputTokens).toBe(revision);
    expect((await store.listQueuedWork('root')).length).toBeLessThanOrEqual(1);
    expect(await store.verify({ deep: true })).toEqual([]);
    // What was on its way is done again: the same turn answers, and leaves no second one.
    const left = await store.listQueuedWork('root');
    for (const batch of left) await store.cancelQueuedWorkBatch('root', batch.batchId);
    told = revision;
    await store.close();
  }
});

test('32: who writes holds up no reader, and other writers only for a while', { timeout: 30_000 }, async () => {
  const path = newFile();
  const [holder, store] = await Promise.all([open(path), open(path, { busyTimeoutMs: 500 })]);
  await holder.commitRuntimeState(append([node('a')]));
  // A large commit of another handle holds the write lock for a moment; what waits longer than it may is told.
  const many = Array.from({ length: 30_000 }, (_, n) => node(`m${n}`, n > 0 ? `m${n - 1}` : 'a'));
  const large = holder.commitRuntimeState(append(many));
  const begun = Date.now();
  const patient = await open(path);
  expect(await ids(patient, { scope: 'fullGraph' })).toEqual(expect.arrayContaining(['a']));
  expect(Date.now() - begun).toBeLessThan(7500);
  await patient.commitRuntimeState(append([node('z')]));
  await large;
  await store.commitRuntimeState(append([node('y')]));
  const read = await SessionGraphStore.openReadOnly(path);
  expect((await read.loadSession({ scope: 'fullGraph' }))?.headRevision).toBe(4);
  await read.close();
});

test('32: while another process holds the write lock for 3 s', async () => {
  const path = newFile();
  const [patient, hasty] = await Promise.all([open(path), open(path, { busyTimeoutMs: 500 })]);
  await patient.commitRuntimeState(append([node('a')]));
  const locker = await lock(path, 3000);
  const waiting = patient.commitRuntimeState(append([node('b', 'a')])).then(() => 'committed');
  let held = true;
  void locker.ended.then(() => (held = false));
  const refused = failure(hasty.commitRuntimeState(append([node('c', 'a')])));
  // A neighbour on this machine may stop this process at any time; of a few tries one must be free of that.
  const times: number[] = [];
  for (let round = 0; round < 4; round++) {
    const begun = performance.now();
    const fresh = await open(path);
    expect(await ids(fresh, { scope: 'activePath' })).toEqual(['a']);
    expect(await ids(patient, { scope: 'fullGraph' })).toEqual(['a']);
    times.push(performance.now() - begun);
  }
  expect(Math.min(...times)).toBeLessThan(1000);
  expect(await refused).toMatchObject({ name: 'StoreBusyError', hfCode: 'HF_BUSY', retryable: true, waitedMs: 500 });
  expect(held, 'all of that happened under the lock').toBe(true);
  expect(await waiting).toBe('committed');
  await locker.ended;
  // Nothing of what was refused is there, and it can be tried again unchanged.
  expect(await ids(hasty, { scope: 'fullGraph' })).toEqual(['a', 'b']);
  await hasty.commitRuntimeState(append([node('c', 'a')]));
});
