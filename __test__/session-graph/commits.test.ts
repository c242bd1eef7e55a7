/** Commits: compare-and-set, turns that are sent again, graphs. The numbers are those of the acceptance checks. */
import { SessionGraphStore, completionOf, turnCommitHash, type HydratedSessionCheckpoint, type RuntimeCommit } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { KINDS, append, commit, draft, failure, ids, newFile, node, open } from './support';

const request = { sessionId: 'root', ownerId: 'o', leaseTtlMs: 60_000, boundary: 'idle' } as const;

test('1: of two handles that commit with the same expectation one wins', async () => {
  const path = newFile();
  const handles = await Promise.all([open(path), open(path)]);
  const outcomes = await Promise.allSettled(
    handles.map((store, index) => store.commitRuntimeState(append([node(`n${index}`)], { expectedHeadRevision: 0 }))),
  );
  expect(outcomes.map((outcome) => outcome.status).sort()).toEqual(['fulfilled', 'rejected']);
  const lost = outcomes.find((outcome) => outcome.status === 'rejected') as PromiseRejectedResult;
  expect(lost.reason).toMatchObject({
    name: 'HeadRevisionConflictError',
    hfCode: 'HF_GRAPH_HEAD_REVISION_CONFLICT',
    expected: 0,
    actual: 1,
    message: 'store head revision conflict: expected 0, actual 1',
  });
  expect((await handles[0]!.loadSession({ scope: 'fullGraph' }))?.headRevision).toBe(1);
});

describe.each(KINDS)('in a $name', ({ make }) => {
  test('2: expectations', async () => {
    const store = await make();
    expect(await failure(store.commitRuntimeState(commit({ expectedHeadRevision: 1 })))).toMatchObject({ expected: 1, actual: 0 });
    expect(await store.loadSession({ scope: 'fullGraph' })).toBeNull();
    expect((await store.commitRuntimeState(commit({ expectedHeadRevision: 0 }))).headRevision).toBe(1);
    expect((await store.commitRuntimeState(commit())).headRevision).toBe(2);
    expect(await failure(store.commitRuntimeState(commit({ expectedHeadRevision: 0 })))).toMatchObject({ actual: 2 });
    expect((await store.commitRuntimeState(commit({ expectedHeadRevision: null }))).headRevision).toBe(3);
    for (const expectedHeadRevision of [NaN, -1, 1.5, '3' as unknown as number]) {
      expect(await failure(store.commitRuntimeState(commit({ expectedHeadRevision })))).toMatchObject({ name: 'InvalidArgumentError' });
    }
  });

  test('3: a store belongs to one session', async () => {
    const store = await make();
    await store.commitRuntimeState(commit());
    const error = await failure(store.commitRuntimeState(commit({ sessionId: 'other', expectedHeadRevision: 7 })));
    expect(error).toMatchObject({
      name: 'SessionBindingMismatchError',
      boundSessionId: 'root',
      attemptedSessionId: 'other',
      message: 'store is already bound to session `root` and cannot be reused for `other`',
    });
    expect((await store.enqueueQueuedWork(draft({ sessionId: 'other' }))).sessionId).toBe('other');
  });

  test('11: a turn that is sent again answers what it answered', async () => {
    const store = await make();
    const usageDeltas = [{ source: 's', model: 'm', usage: { inputTokens: 3, outputTokens: 0, cachedInputTokens: 0, reasoningTokens: 0 } }];
    const t1 = append([node('a')], { expectedHeadRevision: 0, usageDeltas, turnCommit: { sessionId: 'root', turnId: 't1' } });
    const first = await store.commitRuntimeState(t1);
    await store.commitRuntimeState(commit({ expectedHeadRevision: 1 }));
    expect(await store.commitRuntimeState(t1)).toEqual(first);
    expect(first.headRevision).toBe(1);
    expect((await store.loadSession({ scope: 'fullGraph' }))?.headRevision).toBe(2);
    expect((await store.tokenLedger())[0]?.usage.inputTokens).toBe(3);
    const conflict = { name: 'RuntimeTurnCommitConflictError', turnId: 't1' };
    expect(await failure(store.commitRuntimeState({ ...t1, config: { other: true } }))).toMatchObject({
      ...conflict,
      message: 'runtime turn `t1` for session `root` was already committed with a different commit hash',
    });
    const given = { sessionId: 'root', turnId: 't1', turnCommitHash: turnCommitHash(t1) };
    expect(await store.commitRuntimeState({ ...t1, config: 'is not looked at', turnCommit: given })).toEqual(first);
    const foreign = commit({ turnCommit: { sessionId: 'else', turnId: 't1' } });
    expect(await failure(store.commitRuntimeState(foreign))).toMatchObject({ ...conflict, sessionId: 'else' });
  });

  test('12: a completed turn whose answer was lost is answered again', async () => {
    const store = await make();
    await store.enqueueQueuedWork(draft());
    const claim = (await store.claimReadyQueuedWork({ ...request, maxBatches: 1 }))!;
    const turn = commit({ turnCommit: { sessionId: 'root', turnId: 't' }, completedQueueClaims: [completionOf(claim)], expectedHeadRevision: 0 });
    const first = await store.commitRuntimeState(turn);
    expect(await store.listQueuedWork('root')).toEqual([]);
    expect(await store.commitRuntimeState(turn)).toEqual(first);
  });

  test('23: the path and everything', async () => {
    const store = await make();
    const nodes = [node('root'), node('left', 'root'), node('left-leaf', 'left'), node('right-leaf', 'root')];
    await store.commitRuntimeState(commit({ graph: { type: 'append', nodes, leafNodeId: 'left-leaf' } }));
    expect(await ids(store, { scope: 'fullGraph' })).toEqual(['root', 'left', 'left-leaf', 'right-leaf']);
    expect(await ids(store, { scope: 'activePath' })).toEqual(['root', 'left', 'left-leaf']);
    const right = await store.loadSession({ scope: 'activePath', leafNodeId: 'right-leaf' });
    expect(right?.graph).toEqual({ nodes: [nodes[0], nodes[3]], leafNodeId: 'right-leaf' });
    expect((await store.loadSession({ scope: 'activePath', leafNodeId: null }))?.graph.leafNodeId).toBe('left-leaf');
    expect((await store.loadSession({ scope: 'activePath', leafNodeId: 'nobody' }))?.graph).toEqual({ nodes: [], leafNodeId: 'nobody' });
    expect(await store.loadNode('left')).toEqual(nodes[1]);
    expect(await store.loadNode('nobody')).toBeNull();
    expect(await failure(store.loadSession({ scope: 'half' } as never))).toMatchObject({
      name: 'UnsupportedReadScopeError',
      message: 'store does not support read scope half',
    });
  });

  test('24: tombstones cut the path and vanish with vacuum', async () => {
    const chain = [node('a'), node('b', 'a'), node('c', 'b')];
    const middle = await make();
    await middle.commitRuntimeState(append(chain));
    await middle.tombstoneNodes(['b', 'nobody']);
    expect(await ids(middle, { scope: 'activePath' })).toEqual(['c']);
    expect(await ids(middle, { scope: 'fullGraph' })).toEqual(['a', 'c']);
    expect(await middle.loadNode('b')).toBeNull();
    const leaf = await make();
    await leaf.commitRuntimeState(append(chain));
    await leaf.tombstoneNodes(['c']);
    expect((await leaf.loadSession({ scope: 'activePath' }))?.graph).toEqual({ nodes: [], leafNodeId: 'c' });
    for (const store of [middle, leaf]) {
      expect(await store.vacuum()).toEqual({ removedNodeCount: 1 });
      expect(await store.vacuum({ reclaimSpace: true })).toEqual({ removedNodeCount: 0 });
    }
  });

  test('25: nobody becomes his own ancestor', async () => {
    const store = await make();
    await store.commitRuntimeState(append([node('child', 'missing')]));
    for (const nodes of [[node('x', 'x')], [node('x', 'y'), node('y', 'x')], [node('missing', 'child')]]) {
      expect(await failure(store.commitRuntimeState(append(nodes)))).toMatchObject({ name: 'GraphCycleError', hfCode: 'HF_GRAPH_CYCLE' });
    }
    const graph = { nodes: [node('a', 'c'), node('b', 'a'), node('c', 'b')], leafNodeId: 'a' };
    expect(await failure(store.commitRuntimeState(commit({ graph: { type: 'replaceFull', graph } })))).toMatchObject({ name: 'GraphCycleError' });
    expect(await ids(store, { scope: 'fullGraph' })).toEqual(['child']);
    await store.commitRuntimeState(append([node('missing')], { graph: { type: 'append', nodes: [node('missing')], leafNodeId: 'child' } }));
    expect(await ids(store, { scope: 'activePath' })).toEqual(['missing', 'child']);
  });

  test('26: ids are unique, hidden ones included', async () => {
    const store = await make();
    await store.commitRuntimeState(append([node('a'), node('b', 'a')]));
    await store.tombstoneNodes(['b']);
    for (const nodes of [[node('a')], [node('b')], [node('x'), node('x')]]) {
      expect(await failure(store.commitRuntimeState(append(nodes)))).toMatchObject({ name: 'NodeIdCollisionError', nodeId: nodes.at(-1)!.nodeId });
    }
    await store.commitRuntimeState(commit({ graph: { type: 'replaceFull', graph: { nodes: [node('a')], leafNodeId: 'a' } } }));
    await store.commitRuntimeState(append([node('b', 'a')]));
    expect(await ids(store, { scope: 'activePath' })).toEqual(['a', 'b']);
    expect(await failure(store.commitRuntimeState(commit({ graph: { type: 'unchanged', leafNodeId: 'zzz' } })))).toMatchObject({
      name: 'UnknownLeafError',
      nodeId: 'zzz',
    });
  });

  test('30: references must lead somewhere, and values win over them', async () => {
    const store = await make();
    const unknown = `blake3:${'0'.repeat(64)}`;
    for (const more of [{ checkpoint: { turnState: 1, toolStateRef: unknown } }, { retainedBlobRefs: [unknown] }]) {
      expect(await failure(store.commitRuntimeState(append([node('a')], more)))).toMatchObject({ name: 'MissingBlobError', ref: unknown });
    }
    expect(await store.loadSession({ scope: 'fullGraph' })).toBeNull();
    const given = await store.putBlob(Buffer.from('{"from":"ref"}'));
    const { manifest } = await store.commitRuntimeState(commit({ checkpoint: { turnState: 1, toolState: { from: 'value' }, toolStateRef: given } }));
    expect(manifest.toolStateRef).not.toBe(given);
    expect((await store.loadSession({ scope: 'fullGraph' }))?.checkpoint?.toolState).toEqual({ from: 'value' });
    await store.commitRuntimeState(commit({ checkpoint: { turnState: 1, toolStateRef: given, toolState: null } }));
    expect((await store.loadSession({ scope: 'fullGraph' }))?.checkpoint?.toolState).toEqual({ from: 'ref' });
    await store.commitRuntimeState(commit());
    const { checkpoint } = (await store.loadSession({ scope: 'fullGraph' }))!;
    expect(checkpoint).toEqual({ turnState: { turnIndex: 1 } });
  });

  test('33: whatever JSON can say comes back; what cannot be an id is refused', async () => {
    const store = await make();
    let deep: RuntimeCommit['config'] = 'bottom';
    for (let level = 0; level < 1000; level++) deep = level % 2 === 0 ? [deep] : { deep };
    const payload = { deep, text: '日本\u0000\u{1f600}', lone: '\ud800', big: 2 ** 53 - 1, tiny: 5e-324, '': 1, 10: 2, b: 1, a: 2 };
    const checkpoint: HydratedSessionCheckpoint = { turnState: payload, toolState: payload, pluginSnapshot: [payload] };
    const sent = append([node('n\u{1f600}', null, payload)], { config: payload, agentFrames: [payload], checkpoint });
    await store.commitRuntimeState(sent);
    const back = (await store.loadSession({ scope: 'activePath' }))!;
    expect(back.config).toEqual(payload);
    expect(JSON.stringify(back.config)).toBe(JSON.stringify(payload));
    expect(JSON.stringify(back.graph.nodes[0])).toBe(JSON.stringify((sent.graph as { nodes: unknown[] }).nodes[0]));
    expect(back.checkpoint).toMatchObject(checkpoint);
    const invalid = { name: 'InvalidArgumentError', hfCode: 'HF_INVALID_ARGUMENT' };
    for (const id of ['', '\ud800', 'a\0', 'x'.repeat(1025), 7 as unknown as string]) {
      expect(await failure(store.commitRuntimeState(append([node(id)])))).toMatchObject(invalid);
      expect(await failure(store.commitRuntimeState(commit({ sessionId: id })))).toMatchObject(invalid);
      expect(await failure(store.loadNode(id))).toMatchObject(invalid);
    }
    for (const availableAtMs of [-1, 2 ** 60]) {
      expect(await failure(store.enqueueQueuedWork(draft({ availableAtMs })))).toMatchObject(invalid);
    }
    for (const config of [1n, undefined] as unknown as RuntimeCommit['config'][]) {
      expect(await failure(store.commitRuntimeState(commit({ config })))).toMatchObject(invalid);
    }
  });

  test('35: the ledger sums, in the order of the first entries', async () => {
    const store = await make();
    const entry = (source: string, inputTokens: number, cachedInputTokens = 0) => ({
      source,
      model: 'm1',
      usage: { inputTokens, outputTokens: 1, cachedInputTokens, reasoningTokens: 0 },
    });
    await store.appendUsageDeltas([entry('turn', 11), entry('obs', 2)]);
    const nothing = { source: 'none', model: 'm1', usage: { inputTokens: 0, outputTokens: 0, cachedInputTokens: 5, reasoningTokens: 0 } };
    await store.commitRuntimeState(commit({ usageDeltas: [entry('turn', 4, 7), nothing] }));
    await store.appendUsageDeltas([]);
    const sums = [
      { source: 'turn', model: 'm1', usage: { inputTokens: 15, outputTokens: 2, cachedInputTokens: 7, reasoningTokens: 0 } },
      entry('obs', 2),
    ];
    expect(await store.tokenLedger()).toEqual(sums);
    expect((await store.loadSession({ scope: 'fullGraph' }))?.tokenLedger).toEqual(sums);
    expect(await store.loadUsageDeltas()).toHaveLength(4);
    if (store.path === null) return;
    await store.close();
    expect(await (await open(store.path)).tokenLedger()).toEqual(sums);
  });
});

test('13: the hash of a turn knows what matters', () => {
  const base = (more: Partial<RuntimeCommit> = {}, id = 'n', time = 't', payload: RuntimeCommit['config'] = { timestamp: 1 }): RuntimeCommit =>
    commit({
      graph: {
        type: 'append',
        nodes: [
          { nodeId: id, parentNodeId: 'before', timestamp: time, payload },
          { nodeId: `${id}2`, parentNodeId: id, timestamp: time, payload },
        ],
        leafNodeId: id,
      },
      completedQueueClaims: [{ sessionId: 'root', claimId: 'c', leaseToken: 'secret', batchIds: ['b', 'a'] }],
      checkpoint: { turnState: {}, toolState: { z: 1 }, executionState: new Uint8Array([1, 2]) },
      ...more,
    });
  const hash = turnCommitHash(base());
  expect(hash).toMatch(/^[0-9a-f]{64}$/);
  const again = [{ sessionId: 'root', claimId: 'c9', leaseToken: 'other', batchIds: ['a', 'b'] }];
  expect(turnCommitHash(base({ expectedHeadRevision: 9, completedQueueClaims: again }, 'other', 'later'))).toBe(hash);
  expect(turnCommitHash(base({}, 'n', 't', { timestamp: 2 }))).not.toBe(hash);
  expect(turnCommitHash(base({ checkpoint: { turnState: {}, toolState: { z: 2 }, executionState: new Uint8Array([1, 2]) } }))).not.toBe(hash);
  const retaining = (...retainedBlobRefs: string[]) => turnCommitHash(base({ retainedBlobRefs }));
  expect([retaining(), retaining('y', 'x')]).toEqual([hash, retaining('x', 'y')]);
  expect(new Set([hash, retaining('x'), retaining('y')]).size).toBe(3);
  const scrub = { scrubPayload: () => null };
  expect(turnCommitHash(base(), scrub)).toBe(turnCommitHash(base({}, 'n', 't', { timestamp: 2 }), scrub));
});

test('13: a part as a value and by reference has the same hash', async () => {
  const store = await SessionGraphStore.memory();
  const value = commit({ checkpoint: { turnState: {}, toolState: { z: 1 } } });
  const { manifest } = await store.commitRuntimeState(value);
  await store.close();
  expect(turnCommitHash(commit({ checkpoint: { turnState: {}, toolStateRef: manifest.toolStateRef! } }))).toBe(turnCommitHash(value));
});
