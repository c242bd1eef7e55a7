// Names that no option has are refused: left out without a word they cost data (a committed attachment, a compare-and-set, a limit).
import { EffectReplayStore, ProcessRegistryStore, SessionGraphStore, type RuntimeCommit } from 'holdfast';
import { expect, test } from 'vitest';

import { commit, memory, node, tempDir } from './support';

const bad = { hfCode: 'HF_INVALID_ARGUMENT', message: expect.stringContaining('no other members than') };

test('of a commit and its parts', async () => {
  const store = await memory();
  const whole = commit({ graph: { type: 'append', nodes: [node('a')], leafNodeId: 'a' } });
  const wrong: object[] = [
    { ...whole, expectedHeadRevison: 0 },
    { ...whole, turnComit: { sessionId: 'root', turnId: 't' } },
    { ...whole, turnCommit: { sessionId: 'root', turnId: 't', hash: 'x' } },
    { ...whole, retainedBlobRef: [] },
    { ...whole, checkpoint: { turnState: null, toolstate: 1 } },
    { ...whole, graph: { type: 'append', nodes: [node('a')], leafNodeID: 'a' } },
    { ...whole, graph: { type: 'unchanged', leafNode: null } },
    { ...whole, graph: { type: 'replaceFull', graph: { nodes: [node('a')], leaf: 'a' } } },
  ];
  for (const one of wrong) await expect(store.commitRuntimeState(one as RuntimeCommit)).rejects.toMatchObject(bad);
  expect(await store.loadSession({ scope: 'fullGraph' })).toBeNull();
  // Members of nodes are the caller's own.
  const graph = { type: 'append' as const, nodes: [{ ...node('a'), colour: 'red' }], leafNodeId: 'a' };
  expect(await store.commitRuntimeState({ ...whole, graph })).toMatchObject({ headRevision: 1 });
  expect(await store.loadNode('a')).toMatchObject({ colour: 'red' });
});

test('of the calls that remove something', async () => {
  const store = await memory();
  await store.recordIntent({ attachmentId: 'x', sessionId: 'root', canonicalUri: 'file:///x', intentAtEpochMs: 1 });
  await store.commitRefs('root', ['x']);
  await expect(store.forget('x', { onlyIfUncomitted: true } as object)).rejects.toMatchObject(bad);
  expect(await store.forget('x', { onlyIfUncommitted: true })).toBe(false);
  const ref = await store.putBlob(new Uint8Array([1]));
  await expect(store.gcUnreachable({ minBlobAge: 1e9 } as object)).rejects.toMatchObject(bad);
  expect(await store.getBlob(ref)).toEqual(new Uint8Array([1]));
  for (const run of [
    () => store.vacuum({ reclaim: true } as object),
    () => store.prune({ turnsOlderThanMs: 0 } as object),
    () => store.fork(`${tempDir()}/f.db`, { leafNode: 'a' } as object),
    () => store.pinCheckpoint('p', { checkpointref: 'x' } as object),
    () => store.verify({ depp: true } as object),
    () => store.loadSession({ scope: 'activePath', leaf: 'a' } as never),
    () => store.loadSession({ scope: 'fullGraph' }, { tolerent: true } as object),
    async () => store.iterateNodes({ after: 1 } as object),
    async () => store.watch({ from: 1 } as object),
  ]) {
    await expect(run()).rejects.toMatchObject(bad);
  }
});

test('of queued work, blobs, options, and the stores beside the sessions', async () => {
  const store = await memory();
  const draft = { sessionId: 'root', payloads: [], deliveryPolicy: 'earliestSafeBoundary' as const, slotPolicy: 'join' as const };
  await expect(store.enqueueQueuedWork({ ...draft, sourcekey: 'k' } as never)).rejects.toMatchObject(bad);
  await expect(store.enqueueQueuedWork({ ...draft, dedupe: { retain: 1 } } as never)).rejects.toMatchObject(bad);
  const hints = ['compresible'] as never;
  await expect(store.putArtifactBlob({ kind: 'module', hints }, new Uint8Array(1))).rejects.toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
  for (const options of [{ gcPolicy: { autoRunEveryCommit: 1 } }, { queue: { maxAttempt: 1 } }, { commitLimits: { maxByte: 1 } }, { readers: 1 }]) {
    await expect(SessionGraphStore.memory(options as object)).rejects.toMatchObject(bad);
  }
  await using effects = await EffectReplayStore.memory();
  expect(() => effects.scoped({ type: 'turn', sesionId: 's', id: '1' } as never)).toThrow(expect.objectContaining(bad));
  await using processes = await ProcessRegistryStore.memory();
  const provenance = { ownerScope: { sessionId: 's' }, hostProfileId: 'local' };
  const eventTypes = [{ name: 'x', wakes: { input: 'payload' } }] as never;
  await expect(processes.registerProcess({ id: 'p', input: null, eventTypes, provenance })).rejects.toMatchObject(bad);
});
