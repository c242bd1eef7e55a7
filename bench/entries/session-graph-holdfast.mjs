// holdfast, as bench/session-graph.mjs drives it.
import { createRequire } from 'node:module';
import path from 'node:path';
import { SessionGraphStore } from '../../dist/session-graph.mjs';

// Below the public API: what a graph costs before it is made into objects.
const require = createRequire(import.meta.url);
const { GraphCore } = require('../../dist/session-graph/native-store.js');
const { configOf } = require('../../dist/session-graph/options.js');

const lease = 600_000;

export async function openGraph(dir) {
  const store = await SessionGraphStore.open(path.join(dir, 'session.db'));
  let core;
  let turn = Date.now() * 1000;
  return {
    file: store.path,
    commit: async (nodes, revision) => {
      turn++;
      const commit = {
        sessionId: 'bench',
        expectedHeadRevision: revision,
        config: { model: 'm' },
        agentFrames: [],
        currentAgentFrameId: '',
        graph: { type: 'append', nodes, leafNodeId: nodes.at(-1).nodeId },
        checkpoint: {
          turnState: { turn },
          toolState: { generation: turn },
          pluginSnapshot: { plugins: {} },
          executionState: Buffer.from(`exec-${turn}-${'y'.repeat(1000)}`),
        },
      };
      return (await store.commitRuntimeState(commit)).headRevision;
    },
    path: async (leafNodeId) => (await store.loadSession({ scope: 'activePath', leafNodeId })).graph.nodes.length,
    full: async () => (await store.loadSession({ scope: 'fullGraph' })).graph.nodes.length,
    text: async () => {
      core ??= new GraphCore(configOf('readOnly', store.path, {}));
      if (!core.schemaVersion) await core.open();
      const { parts } = await core.read(JSON.stringify({ do: 'load', path: false, leafNodeId: null, tolerant: false, checked: false }));
      return parts.at(-1).length;
    },
    enqueue: (i) => store.enqueueQueuedWork(draft(i)),
    enqueueMany: async (count) => {
      for (let from = 0; from < count; from += 2000) await Promise.all(Array.from({ length: Math.min(2000, count - from) }, (_, i) => store.enqueueQueuedWork(draft(from + i))));
    },
    claim: () => store.claimReadyQueuedWork({ sessionId: 'bench', ownerId: 'bench', leaseTtlMs: lease, boundary: 'idle', maxBatches: 1 }),
    renew: (claim) => store.renewQueuedWorkClaim(claim, lease),
    usage: (count) => store.appendUsageDeltas(Array.from({ length: count }, () => entry)),
    orphan: async (count) => {
      for (let from = 0; from < count; from += 1000) await Promise.all(Array.from({ length: Math.min(1000, count - from) }, (_, i) => store.putBlob(Buffer.from(`orphan-${from + i}-${'z'.repeat(1500)}`))));
    },
    gc: async () => (await store.gcUnreachable()).deletedBlobCount,
    shrink: () => store.vacuum({ reclaimSpace: true }),
    close: async () => {
      await core?.close();
      await store.close();
    },
  };
}

const entry = { source: 'turn', model: 'm', usage: { inputTokens: 1, outputTokens: 1, cachedInputTokens: 0, reasoningTokens: 0 } };
const draft = (i) => ({ sessionId: 'bench', payloads: [{ text: `work ${i}` }], deliveryPolicy: 'earliestSafeBoundary', slotPolicy: 'exclusive' });
