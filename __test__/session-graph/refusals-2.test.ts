// @pool forks: nothing here concerns threads.
/** What a caller who means harm, or slips, is told. */
import {
  EffectReplayStore,
  ProcessRegistryStore,
  SessionGraphStore,
  SessionGraphStoreFactory,
  completionOf,
  turnCommitHash,
  type EffectEnvelope,
  type EffectScope,
  type QueuedWorkClaim,
  type RuntimeCommit,
  type Selector,
  type TokenLedgerEntry,
} from 'holdfast';
import { describe, expect, test } from 'vitest';

import { KINDS, append, commit, failure, memory, newFile, node, open, tempDir } from './support';

const TURN: EffectScope = { type: 'turn', id: 't' };
const effect = (replayKey: string, command: EffectEnvelope['command'] = 1): EffectEnvelope => {
  return { effectId: replayKey, kind: 'tool', replayKey, command };
};

describe('effects', () => {
  test('what runs is what was recorded, whatever becomes of the envelope', async () => {
    await using store = await EffectReplayStore.memory();
    const envelope = effect('k', { a: 1 });
    const asked = store.scoped(TURN).execute(envelope, ({ effectId, kind, command }) => [effectId, kind, command]);
    (envelope.command as { a: number }).a = 2;
    envelope.kind = 'other';
    expect(await asked).toEqual(['k', 'tool', { a: 1 }]);
    const replaced = effect('l', 'first');
    const second = store.scoped(TURN).execute(replaced, ({ command }) => command);
    replaced.command = 'second';
    expect(await second).toBe('first');
  });

  test('an effect inside its own run is refused at once; others nest', async () => {
    const path = newFile();
    await using store = await EffectReplayStore.open(path);
    await using other = await EffectReplayStore.open(path);
    const turn = store.scoped(TURN);
    const message = expect.stringContaining('wait for itself') as string;
    const refusal = { hfCode: 'HF_INVALID_ARGUMENT', argument: 'envelope.replayKey', message };
    expect(await failure(turn.execute(effect('k'), () => turn.execute(effect('k'), () => 2)))).toMatchObject(refusal);
    const far = (): Promise<unknown> => other.scoped(TURN).execute(effect('l'), () => 3);
    let caught: unknown;
    const outcome = await turn.execute(effect('l'), () =>
      turn.execute(effect('m'), async () => {
        caught = await failure(far());
        return 4;
      }),
    );
    expect([outcome, caught]).toEqual([4, expect.objectContaining(refusal)]);
    // Of another scope, and of what is over: neither waits for itself.
    let later = Promise.resolve<unknown>(undefined);
    let go = (): void => {};
    const over = new Promise<void>((resolve) => (go = resolve));
    const mixed = turn.execute(effect('n'), () => {
      later = over.then(() => turn.execute(effect('n'), () => 'again'));
      return store.scoped({ type: 'process', id: 't' }).execute(effect('n'), () => 5);
    });
    expect(await mixed).toBe(5);
    go();
    expect(await later).toBe(5);
  });
});

/** An argument that its type does not allow. */
const odd = <T>(value: unknown): T => value as T;
const thrown = (act: () => unknown): Promise<Record<string, unknown>> => failure((async () => act())());
const refused = (argument: string): object => ({ name: 'InvalidArgumentError', hfCode: 'HF_INVALID_ARGUMENT', argument });

test('bytes that are gone are not taken for none', async () => {
  const store = await memory();
  const gone = new Uint8Array(8);
  new MessageChannel().port1.postMessage(null, [gone.buffer]);
  // Not in the types of this version of the language.
  const shrunk = new (ArrayBuffer as unknown as new (length: number, more: object) => ArrayBuffer & { resize(length: number): void })(8, {
    maxByteLength: 16,
  });
  const outside = new Uint8Array(shrunk, 4, 4);
  shrunk.resize(2);
  for (const bytes of [gone, outside]) {
    for (const act of [
      () => store.putBlob(bytes),
      () => store.putArtifactBlob({ kind: 'module', hints: [] }, bytes),
      () => store.putNamedArtifact('a', bytes),
    ]) {
      expect(await failure(act())).toMatchObject(refused('content'));
    }
    const checkpoint = { turnState: 1, executionState: bytes };
    expect(await failure(store.commitRuntimeState(commit({ checkpoint })))).toMatchObject(refused('commit.checkpoint.executionState'));
    expect(await failure(store.putCheckpoint(checkpoint))).toMatchObject(refused('checkpoint.executionState'));
    expect(await thrown(() => turnCommitHash(commit({ checkpoint })))).toMatchObject(refused('commit.checkpoint.executionState'));
  }
  expect(await store.getBlob(await store.putBlob(new Uint8Array(0)))).toHaveLength(0);
});

test('options that are none are refused with their name', async () => {
  const store = await open();
  const nothing = odd<undefined>(null);
  const claim: QueuedWorkClaim = odd({ sessionId: 'a', claimId: 'b', leaseToken: 'c', batches: [] });
  for (const act of [
    () => store.vacuum(nothing),
    () => store.gcUnreachable(nothing),
    () => store.forget('a', nothing),
    () => store.loadSession({ scope: 'fullGraph' }, nothing),
    () => store.verify(nothing),
    () => store.abandonQueuedWorkClaim(claim, nothing),
    () => store.cancelQueuedWork('a', 'b', nothing),
    () => store.requeueDeadLetter('a', 'b', nothing),
    () => SessionGraphStore.preflight(newFile(), nothing),
  ]) {
    expect(await failure(act()), String(act)).toMatchObject(refused('opts'));
  }
  const signal = odd<AbortSignal>({});
  for (const act of [
    () => store.loadSession({ scope: 'fullGraph' }, { signal }),
    () => store.verify({ signal }),
    () => store.iterateNodes({ signal }).next(),
    () => store.watch({ signal }).next(),
    () => SessionGraphStore.preflight(newFile(), { signal }),
    () => new SessionGraphStoreFactory(tempDir()).listSessions({ signal }),
  ]) {
    expect(await thrown(act), String(act)).toMatchObject(refused('opts.signal'));
  }
  const scrubPayload = (): null => null;
  for (const [act, argument] of [
    [() => completionOf(odd(null)), 'claim'],
    [() => completionOf(odd({})), 'claim.sessionId'],
    [() => completionOf(odd({ ...claim, batches: undefined })), 'claim.batches'],
    [() => turnCommitHash(commit(), odd(null)), 'options'],
    [() => turnCommitHash(odd(null), { scrubPayload }), 'commit'],
    [() => turnCommitHash(odd({}), { scrubPayload }), 'commit.graph'],
    [() => turnCommitHash(commit({ graph: odd({ type: 'append', nodes: null }) }), { scrubPayload }), 'commit.graph.nodes'],
    [() => turnCommitHash(commit({ graph: odd({ type: 'append', nodes: [null] }) }), { scrubPayload }), 'commit.graph.nodes'],
    [() => turnCommitHash(commit({ graph: odd({ type: 'replaceFull' }) }), { scrubPayload }), 'commit.graph.graph'],
  ] as [() => unknown, string][]) {
    expect(await thrown(act), String(act)).toMatchObject(refused(argument));
  }
});

test('what JSON would leave out is refused', async () => {
  const store = await memory();
  const none = { toJSON: () => undefined };
  for (const value of [undefined, () => 1, Symbol('s'), none]) {
    const nodes = [node('a'), { ...node('b'), payload: odd<null>(value) }];
    const full: RuntimeCommit['graph'] = { type: 'replaceFull', graph: { nodes, leafNodeId: null } };
    expect(await failure(store.commitRuntimeState(append(nodes)))).toMatchObject(refused('commit.graph.nodes[1].payload'));
    expect(await failure(store.commitRuntimeState(commit({ graph: full })))).toMatchObject(refused('commit.graph.graph.nodes[1].payload'));
    expect(await failure(store.commitRuntimeState(commit({ config: odd(value) })))).toMatchObject(refused('commit.config'));
    const checkpoint = { turnState: odd<null>(value) };
    expect(await failure(store.putCheckpoint(checkpoint))).toMatchObject(refused('checkpoint.turnState'));
  }
  for (const value of [() => 1, Symbol('s'), none, Number.NaN, Infinity, new Date(Number.NaN)]) {
    for (const name of ['toolState', 'pluginSnapshot']) {
      expect(await failure(store.putCheckpoint({ turnState: 1, [name]: value })), String(name)).toMatchObject(refused(`checkpoint.${name}`));
    }
  }
  const { manifest } = await store.putCheckpoint({ turnState: 1, toolState: 0, pluginSnapshot: odd(new Date(0)) });
  const { toolStateRef, pluginSnapshotRef } = manifest;
  expect([toolStateRef, pluginSnapshotRef]).toEqual([expect.any(String), expect.any(String)]);
});

test('watching a closed store rejects', async () => {
  const store = await open();
  const before = store.watch();
  await store.close();
  expect(await before.next()).toEqual({ done: true, value: undefined });
  expect(await failure(store.watch().next())).toMatchObject({ hfCode: 'HF_CLOSED' });
});

test('many reads on one signal have one listener, and all end with it', async () => {
  const store = await open();
  await store.commitRuntimeState(append([node('a')]));
  const warnings: Error[] = [];
  const warn = (warning: Error): unknown => warnings.push(warning);
  process.on('warning', warn);
  const controller = new AbortController();
  const { signal } = controller;
  const read = (): Promise<unknown> => store.loadSession({ scope: 'fullGraph' }, { signal });
  await Promise.all(Array.from({ length: 30 }, read));
  const reads = Array.from({ length: 30 }, () => failure(read()));
  controller.abort(new Error('enough'));
  for (const each of await Promise.all(reads)) expect(each.message).toBe('enough');
  await new Promise((resolve) => setImmediate(resolve));
  process.off('warning', warn);
  expect(warnings).toEqual([]);
});

test.each(KINDS)('sums that are no longer exact are refused: $name', async ({ make }) => {
  const store = await make();
  const entry = (inputTokens: number, cachedInputTokens = 0): TokenLedgerEntry => {
    return { source: 'turn', model: 'm', usage: { inputTokens, outputTokens: 0, cachedInputTokens, reasoningTokens: 0 } };
  };
  const most = Number.MAX_SAFE_INTEGER;
  await store.appendUsageDeltas([entry(most - 1), entry(1)]);
  for (const more of [[entry(1)], [entry(-1, most), entry(-1, 1)], [entry(-most), entry(-most), entry(-1)]]) {
    const refusal = { hfCode: 'HF_INVALID_ARGUMENT', argument: 'usage', source: 'turn', model: 'm' };
    expect(await failure(store.appendUsageDeltas(more))).toMatchObject(refusal);
    expect(await failure(store.commitRuntimeState(commit({ usageDeltas: more })))).toMatchObject(refusal);
  }
  expect(await store.tokenLedger()).toEqual([entry(most)]);
  expect(await store.loadUsageDeltas()).toHaveLength(2);
  await store.appendUsageDeltas([entry(-most)]);
  expect(await store.tokenLedger()).toEqual([entry(0)]);
});

test('templates of a process that double each other are refused', async () => {
  await using processes = await ProcessRegistryStore.memory();
  let input: Selector = 'payload';
  for (let level = 0; level < 24; level++) input = { template: '{a}{a}', fields: { a: input } };
  const scope = { sessionId: 's' };
  const provenance = { ownerScope: scope, hostProfileId: 'local' };
  await processes.registerProcess({ id: 'p', input: 1, eventTypes: [{ name: 'e', wake: { input } }], provenance });
  const event = { eventType: 'e', payload: 'xxxxxxxxxx', wakeTargetScope: scope };
  expect(await failure(processes.appendEvent('p', event))).toMatchObject({
    hfCode: 'HF_GRAPH_PROCESS_REGISTRY',
    message: expect.stringMatching(/^a template makes more than \d+ bytes/) as string,
  });
  expect(await processes.eventsAfter('p', 0)).toEqual([]);
});
