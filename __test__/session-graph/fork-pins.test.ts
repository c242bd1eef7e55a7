/** Going back and branching off: pins, forks, and what is cut back. */
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { SessionGraphStore, completionOf, type TokenLedgerEntry } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { KINDS, append, commit, draft, failure, ids, newFile, node, open, raw, tempDir } from './support';

const used = (model: string, input: number, cached = 0): TokenLedgerEntry => ({
  source: 'turn',
  model,
  usage: { inputTokens: input, outputTokens: 1, cachedInputTokens: cached, reasoningTokens: 0 },
});

describe.each(KINDS)('in a $name', ({ make }) => {
  test('a pin keeps the checkpoint that the head left behind, and what it names', async () => {
    const store = await make();
    expect(await failure(store.pinCheckpoint('before'))).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
    const hidden = await store.putBlob(new Uint8Array([1, 2]));
    const first = append([node('a')], {
      checkpoint: { turnState: 1, toolState: 'then', executionState: new Uint8Array([9]) },
      retainedBlobRefs: [hidden],
    });
    const { checkpointRef } = await store.commitRuntimeState(first);
    const pin = await store.pinCheckpoint('before');
    expect(pin).toEqual({
      name: 'before', checkpointRef, nodeId: 'a', headRevision: 1, pinnedAtEpochMs: pin.pinnedAtEpochMs, retainedBlobRefs: [hidden],
    });
    await store.commitRuntimeState(append([node('b', 'a')], { checkpoint: { turnState: 2, toolState: 'now' } }));
    expect(await store.gcUnreachable()).toMatchObject({ deletedBlobCount: 0 });
    expect(await store.getCheckpoint(checkpointRef)).toMatchObject({ turnState: 1, toolState: 'then' });
    expect(await store.getBlob(hidden)).toEqual(new Uint8Array([1, 2]));
    expect(await store.verify({ deep: true })).toEqual([]);
    expect([await store.getPin('before'), await store.getPin('none'), await store.listPins()]).toEqual([pin, null, [pin]]);
    expect([await store.unpinCheckpoint('before'), await store.unpinCheckpoint('before')]).toEqual([true, false]);
    expect((await store.gcUnreachable()).deletedBlobCount).toBe(4);
    expect(await store.getCheckpoint(checkpointRef)).toBeNull();
  });

  test('a pin of a checkpoint that is named belongs to the node that is named', async () => {
    const store = await make();
    const { checkpointRef: old } = await store.commitRuntimeState(append([node('a')], { checkpoint: { turnState: 1 } }));
    await store.commitRuntimeState(append([node('b', 'a')], { checkpoint: { turnState: 2 } }));
    expect(await failure(store.pinCheckpoint('p', { nodeId: 'a' }))).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT', argument: 'nodeId' });
    expect(await failure(store.pinCheckpoint('p', { nodeId: 'none' }))).toMatchObject({ name: 'UnknownLeafError' });
    expect(await failure(store.pinCheckpoint('p', { checkpointRef: 'blake3:00' }))).toMatchObject({ name: 'MissingBlobError' });
    const text = await store.putBlob(new TextEncoder().encode('no manifest'));
    expect(await failure(store.pinCheckpoint('p', { checkpointRef: text }))).toMatchObject({ name: 'RecordDecodeError' });
    expect(await failure(store.pinCheckpoint('p', { retainedBlobRefs: ['blake3:00'] }))).toMatchObject({ name: 'MissingBlobError' });
    expect(await store.listPins()).toEqual([]);
    expect(await store.pinCheckpoint('p')).toMatchObject({ nodeId: 'b', headRevision: 2 });
    const pin = await store.pinCheckpoint('p', { nodeId: 'a', checkpointRef: old, retainedBlobRefs: [text] });
    expect(pin).toMatchObject({ nodeId: 'a', checkpointRef: old, headRevision: null, retainedBlobRefs: [text] });
    expect(await store.listPins()).toEqual([pin]);
  });

  test('a fork has path, checkpoint, names and sums, and is a session of its own', async () => {
    const store = await make();
    const hidden = await store.putBlob(new Uint8Array(5_000).fill(7));
    await store.putNamedArtifact('module:main', new Uint8Array([1]));
    await store.saveSessionMeta({ sessionId: 'root', sessionName: 'chat', createdAt: 'then', model: 'm', summary: { last: 'hi' } });
    const state = new Uint8Array(100_000).fill(3);
    await store.commitRuntimeState(
      append([node('a'), node('b', 'a'), node('c', 'a', { text: '\u0000 ☃' })], {
        config: { x: 1 },
        agentFrames: [{ id: 'f' }],
        currentAgentFrameId: 'f',
        checkpoint: { turnState: { n: 1 }, toolState: ['t'], pluginSnapshot: { p: 1 }, executionState: state },
        retainedBlobRefs: [hidden],
        usageDeltas: [used('m1', 5), used('m2', 1), used('m1', 6), { ...used('m3', 0), usage: { ...used('m3', 0).usage, outputTokens: 0 } }],
        turnCommit: { sessionId: 'root', turnId: 't' },
      }),
    );
    await store.enqueueQueuedWork(draft());
    await store.putBlob(new Uint8Array([4, 4, 4]));
    const before = await store.loadSession({ scope: 'activePath' });

    const to = join(tempDir(), 'deeper', 'fork.db');
    const made = await store.fork(to, { sessionId: 'branch' });
    expect(made).toMatchObject({ path: to, sessionId: 'branch', headRevision: 1, leafNodeId: 'c', nodeCount: 2, checkpointRef: before!.checkpointRef });
    const fork = await open(to);
    expect(await fork.loadSession({ scope: 'fullGraph' })).toEqual({ ...before, sessionId: 'branch' });
    expect(await fork.tokenLedger()).toEqual([{ ...used('m1', 11), usage: { ...used('m1', 11).usage, outputTokens: 2 } }, used('m2', 1)]);
    expect(await fork.getNamedArtifact('module:main')).toEqual(new Uint8Array([1]));
    expect(await fork.getBlob(hidden)).toEqual(new Uint8Array(5_000).fill(7));
    expect(await fork.loadSessionMeta()).toMatchObject({
      sessionId: 'branch', sessionName: 'chat', summary: { last: 'hi' },
      relation: { type: 'fork', sessionId: 'root', headRevision: 1, leafNodeId: 'c' },
    });
    expect([await fork.listQueuedWork('root'), await fork.verify({ deep: true })]).toEqual([[], []]);
    const collected = await fork.gcUnreachable();
    expect([collected.deletedBlobCount, collected.retainedBlobCount]).toEqual([0, 6]);
    // The same turn again is a turn of the new session.
    const next = append([node('d', 'c')], { sessionId: 'branch', expectedHeadRevision: 1 });
    expect((await fork.commitRuntimeState(next)).headRevision).toBe(2);
    expect(await ids(store, { scope: 'fullGraph' })).toEqual(['a', 'b', 'c']);

    const side = join(dirname(to), 'side.db');
    await store.fork(side, { leafNodeId: 'b', ledger: 'none', relation: { type: 'mine' } });
    const other = await open(side);
    expect([await ids(other, { scope: 'fullGraph' }), await other.tokenLedger()]).toEqual([['a', 'b'], []]);
    expect([(await other.loadSession({ scope: 'activePath' }))!.sessionId, (await other.loadSessionMeta())!.relation]).toEqual(['root', { type: 'mine' }]);
  });

  test('a fork of a pin begins where the pin is', async () => {
    const store = await make();
    await store.commitRuntimeState(append([node('a')], { config: 'old', checkpoint: { turnState: 1, toolState: 'then' } }));
    await store.pinCheckpoint('p');
    await store.commitRuntimeState(append([node('b', 'a')], { config: 'new', checkpoint: { turnState: 2 } }));
    const to = newFile();
    expect(await failure(store.fork(to, { pin: 'none' }))).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
    expect(await store.fork(to, { pin: 'p' })).toMatchObject({ leafNodeId: 'a', nodeCount: 1 });
    const session = await (await open(to)).loadSession({ scope: 'fullGraph' });
    expect(session).toMatchObject({ config: 'old', checkpoint: { turnState: 1, toolState: 'then' }, graph: { leafNodeId: 'a' } });
  });

  test('a leaf that was hidden and removed leaves a sound store that goes on', async () => {
    const store = await make();
    const { checkpointRef } = await store.commitRuntimeState(append([node('a'), node('c', 'a')]));
    await store.tombstoneNodes(['c']);
    const hidden = newFile();
    expect(await store.fork(hidden)).toMatchObject({ leafNodeId: null, nodeCount: 0 });
    await store.vacuum();
    expect((await store.loadSession({ scope: 'activePath' }))!.graph).toEqual({ nodes: [], leafNodeId: 'c' });
    expect(await store.verify({ deep: true })).toEqual([]);
    const to = newFile();
    expect(await store.fork(to)).toMatchObject({ leafNodeId: null, nodeCount: 0, checkpointRef });
    const fork = await open(to);
    expect((await fork.loadSession({ scope: 'fullGraph' }))!.graph).toEqual({ nodes: [], leafNodeId: null });
    expect(await failure(store.fork(newFile(), { leafNodeId: 'c' }))).toMatchObject({ name: 'UnknownLeafError' });
    expect(await store.pinCheckpoint('p')).toMatchObject({ nodeId: null, checkpointRef });
    expect(await store.commitRuntimeState(commit({ graph: { type: 'unchanged', leafNodeId: 'c' } }))).toMatchObject({ headRevision: 2 });
    // Moving there is another thing.
    await store.commitRuntimeState(commit({ graph: { type: 'unchanged', leafNodeId: 'a' } }));
    const back = commit({ graph: { type: 'unchanged', leafNodeId: 'c' } });
    expect(await failure(store.commitRuntimeState(back))).toMatchObject({ name: 'UnknownLeafError' });
  });

  test('what keeps a load or a collection from working is told', async () => {
    const store = await make();
    const text = await store.putBlob(new TextEncoder().encode('no JSON'));
    await store.commitRuntimeState(commit({ checkpoint: { turnState: 1, toolStateRef: text } }));
    expect(await failure(store.loadSession({ scope: 'fullGraph' }))).toMatchObject({ name: 'RecordDecodeError' });
    expect(await store.verify({ deep: true })).toMatchObject([{ kind: 'blob', key: text }]);
    const none = await store.putArtifactBlob({ kind: 'checkpointManifest' }, new TextEncoder().encode('no manifest'));
    await store.commitRuntimeState(commit({ retainedBlobRefs: [none] }));
    expect(await store.gcUnreachable()).toMatchObject({ aborted: { ref: none } });
    for (const deep of [false, true]) expect(await store.verify({ deep })).toMatchObject([{ kind: 'manifest', key: none }]);
  });

  test('a fork that fails leaves nothing, and replaces nothing', async () => {
    const store = await make();
    const to = newFile();
    expect(await failure(store.fork(to))).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
    await store.commitRuntimeState(append([node('a')]));
    expect(await failure(store.fork(to, { leafNodeId: 'none' }))).toMatchObject({ name: 'UnknownLeafError' });
    expect(await failure(store.fork(to, { checkpointRef: 'blake3:00' }))).toMatchObject({ name: 'MissingBlobError' });
    expect(readdirSync(dirname(to))).toEqual([]);
    writeFileSync(to, 'mine');
    expect(await failure(store.fork(to))).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
    expect(readdirSync(dirname(to))).toEqual(['s.db']);
  });

  test('pruning forgets old turns, sums the ledger up, and changes nothing else', async () => {
    const store = await make();
    const entries = [used('m1', 1, 5), used('m2', 2), { ...used('m3', 0), usage: { ...used('m3', 0).usage, outputTokens: 0 } }, used('m1', 3), used('m2', 4)];
    const turn = (turnId: string) => commit({ turnCommit: { sessionId: 'root', turnId }, usageDeltas: entries });
    for (const turnId of ['t1', 't2']) await store.commitRuntimeState(turn(turnId));
    const ledger = await store.tokenLedger();
    expect(await store.prune()).toEqual({ turnCommitCount: 0, usageDeltaCount: 0, finishedBatchCount: 0 });
    expect(await store.prune({ turnCommitsOlderThanMs: 3_600_000, usageDeltasKept: 10 })).toMatchObject({ turnCommitCount: 0, usageDeltaCount: 0 });
    expect((await store.commitRuntimeState(turn('t1'))).headRevision).toBe(1);
    expect(await store.prune({ turnCommitsOlderThanMs: 0, usageDeltasKept: 2 })).toMatchObject({ turnCommitCount: 2, usageDeltaCount: 6 });
    expect(await store.loadUsageDeltas()).toHaveLength(4);
    expect(await store.tokenLedger()).toEqual(ledger);
    expect(await store.prune({ usageDeltasKept: 0 })).toMatchObject({ usageDeltaCount: 2 });
    expect(await store.loadUsageDeltas()).toEqual(ledger);
    await store.appendUsageDeltas([used('m1', 1)]);
    expect(await store.loadUsageDeltas()).toEqual([...ledger, used('m1', 1)]);
    // No longer protected.
    expect((await store.commitRuntimeState(turn('t1'))).headRevision).toBe(3);
    expect(await store.verify({ deep: true })).toEqual([]);
  });

  test('pruning clears ends that nobody is to remember any more', async () => {
    const store = await make({ queue: { retainFinishedMs: 1 } });
    await store.enqueueQueuedWork(draft());
    const claim = await store.claimReadyQueuedWork({ sessionId: 'root', ownerId: 'a', leaseTtlMs: 1000, boundary: 'idle', maxBatches: 1 });
    await store.commitRuntimeState(commit({ completedQueueClaims: [completionOf(claim!)] }));
    await expect.poll(() => store.prune()).toMatchObject({ finishedBatchCount: 1 });
  });
});

test('a thousand turns are looked through in slices', async () => {
  const store = await open(newFile(), { durability: 'normal' });
  const turns = Array.from({ length: 2_050 }, (_, n) => commit({ turnCommit: { sessionId: 'root', turnId: `t${n}` } }));
  await Promise.all(turns.map((turn) => store.commitRuntimeState(turn)));
  expect(await store.prune({ turnCommitsOlderThanMs: 0 })).toMatchObject({ turnCommitCount: 2_050 });
});

test('a damaged pin keeps a collection from removing anything, and verify names it', async () => {
  const path = newFile();
  const before = await open(path);
  const { checkpointRef } = await before.commitRuntimeState(append([node('a')], { checkpoint: { turnState: 1 } }));
  await before.pinCheckpoint('p');
  await before.commitRuntimeState(append([node('b', 'a')], { checkpoint: { turnState: 2 } }));
  await before.putBlob(new Uint8Array([1]));
  await before.close();
  raw(path, `DELETE FROM blobs WHERE hash = '${checkpointRef}'`);
  const store = await open(path);
  expect(await store.gcUnreachable()).toMatchObject({ deletedBlobCount: 0, aborted: { ref: checkpointRef } });
  expect(await store.verify()).toMatchObject([{ kind: 'head', key: 'blob_bytes' }, { kind: 'manifest', key: checkpointRef }]);
  expect(await failure(store.fork(newFile(), { pin: 'p' }))).toMatchObject({ name: 'MissingBlobError' });
});

test('a store that is only read can be forked, too', async () => {
  const path = newFile();
  const store = await open(path);
  await store.commitRuntimeState(append([node('a')]));
  await store.close();
  const reader = await SessionGraphStore.openReadOnly(path);
  const to = newFile();
  await reader.fork(to);
  await reader.close();
  expect(existsSync(to)).toBe(true);
});
