// An agent runtime of two kinds of processes over one file: a supervisor lets messages of a user wait, and a worker takes them one by one and
// answers each in one turn. One worker is killed with SIGKILL while it thinks, the next one while it commits. Whoever comes next does the turn
// again: nothing is doubled, nothing is lost.
//
//   node examples/session-graph/agent.mjs
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { SessionGraphStore, completionOf } from 'holdfast/session-graph';

const self = fileURLToPath(import.meta.url);
const sessionId = 'demo';
const leaseTtlMs = 2000; // short, so that the demo does not wait long for the dead; minutes are usual

// ── the worker: takes what is next, thinks, commits ──

/** What the model would say; it costs money, so a turn that is done is not to be done again. */
function think({ text }) {
  const sum = /^what is (\d+) \+ (\d+)\?$/.exec(text);
  return sum ? String(Number(sum[1]) + Number(sum[2])) : `you said: ${text}`;
}

/** All that one turn changes, as one commit. Sent twice it is applied once, because the stamp names the work that it answers. */
function turnOf(claim, session) {
  const [{ batchId, items: [{ payload }] }] = claim.batches;
  const leaf = session?.graph.leafNodeId ?? null;
  const turnIndex = (session?.headRevision ?? 0) + 1;
  const now = new Date().toISOString();
  const [asked, answered] = [`${turnIndex}-user`, `${turnIndex}-agent`];
  return {
    sessionId,
    expectedHeadRevision: session?.headRevision ?? 0,
    config: { model: 'm1' }, agentFrames: [], currentAgentFrameId: '',
    graph: {
      type: 'append',
      nodes: [
        { nodeId: asked, parentNodeId: leaf, timestamp: now, payload: { role: 'user', text: payload.text } },
        { nodeId: answered, parentNodeId: asked, timestamp: now, payload: { role: 'agent', text: think(payload) } },
      ],
      leafNodeId: answered,
    },
    checkpoint: { turnState: { turnIndex } },
    usageDeltas: [{ source: 'turn', model: 'm1', usage: { inputTokens: 10, outputTokens: 5, cachedInputTokens: 0, reasoningTokens: 0 } }],
    completedQueueClaims: [completionOf(claim)],
    turnCommit: { sessionId, turnId: batchId },
  };
}

/** Keeps the lease while `run` runs; whoever is killed renews no more, and somebody else gets the work. */
async function held(store, claim, run) {
  const beat = setInterval(() => store.renewQueuedWorkClaim(claim, leaseTtlMs).catch(() => clearInterval(beat)), leaseTtlMs / 3);
  try {
    return await run();
  } finally {
    clearInterval(beat);
  }
}

async function worker(file, name, habit) {
  const store = await SessionGraphStore.open(file);
  const say = (word, value) => console.log(`${word} ${JSON.stringify(value)}`);
  for (;;) {
    const [next] = await store.listQueuedWork(sessionId);
    if (next === undefined) return store.close();
    // A conversation keeps its order: this message and no other, also while somebody else holds it, or held it when it was killed.
    const claim = await store.claimReadyQueuedWorkByBatchIds({ sessionId, ownerId: name, leaseTtlMs, boundary: 'idle', batchIds: [next.batchId] });
    if (claim === null) {
      await sleep(20);
      continue;
    }
    await held(store, claim, async () => {
      const { text } = claim.batches[0].items[0].payload;
      say('thinking', { text, fencingToken: claim.fencingToken });
      if (habit === `slow at ${text}`) await sleep(60_000); // until it is killed
      const turn = turnOf(claim, await store.loadSession({ scope: 'activePath' }));
      say('committing', turn);
      const { headRevision } = await store.commitRuntimeState(turn);
      if (habit === `silent after ${text}`) await sleep(60_000); // it is done, and nobody will ever hear of it
      say('committed', { headRevision });
    });
  }
}

// ── the supervisor: lets messages wait, starts workers, and knows what they said ──

/** Starts a worker; `stop(word, value)` says at which of its lines it is killed. Returns the last turn that it was about to commit. */
async function run(file, name, habit, stop) {
  const child = spawn(process.execPath, [self, name, file, habit], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'close');
  let [last, isKilled] = [undefined, false];
  for await (const line of createInterface({ input: child.stdout })) {
    const space = line.indexOf(' ');
    const [word, value] = [line.slice(0, space), JSON.parse(line.slice(space))];
    if (word === 'committing') last = value;
    if (word === 'thinking') console.log(`  ${name} has "${value.text}", fencing token ${value.fencingToken}`);
    if (word === 'committed') console.log(`  ${name} committed revision ${value.headRevision}`);
    if (stop?.(word, value)) {
      console.log(`  kill -9 for ${name}`);
      isKilled = child.kill('SIGKILL');
      break;
    }
  }
  const [code] = await ended;
  if (!isKilled && code !== 0) throw new Error(`${name} ended with exit code ${code}`);
  return last;
}

async function main() {
  const folder = mkdtempSync(path.join(tmpdir(), 'holdfast-agent-'));
  const file = path.join(folder, 'session.db');
  const store = await SessionGraphStore.open(file);
  try {
    const messages = [['msg-1', 'hello'], ['msg-2', 'what is 19 + 23?'], ['msg-2', 'what is 19 + 23?'], ['msg-3', 'thank you']];
    for (const [sourceKey, text] of messages) {
      await store.enqueueQueuedWork({ sessionId, payloads: [{ text }], sourceKey, deliveryPolicy: 'earliestSafeBoundary', slotPolicy: 'exclusive' });
    }
    console.log(`${messages.length} messages came, one of them twice; ${(await store.listQueuedWork(sessionId)).length} wait`);

    await run(file, 'worker-1', 'slow at what is 19 + 23?', (word, value) => word === 'thinking' && value.text === 'what is 19 + 23?');
    const thanks = ({ graph }) => graph.nodes[0].payload.text === 'thank you';
    const unheard = await run(file, 'worker-2', 'silent after thank you', (word, value) => word === 'committing' && thanks(value));
    // Did the last commit land before the kill? Nobody knows, and nobody has to: it is sent again.
    const { headRevision } = await store.commitRuntimeState(unheard);
    console.log(`  the supervisor sent the turn again: revision ${headRevision}`);
    await run(file, 'worker-3', '');

    const session = await store.loadSession({ scope: 'activePath' });
    console.log('the conversation');
    for (const { payload } of session.graph.nodes) console.log(`  ${payload.role}: ${payload.text}`);
    const [{ usage }] = session.tokenLedger;
    console.log(`${session.headRevision} turns, ${usage.inputTokens} tokens in, ${usage.outputTokens} out; ${(await store.listQueuedWork(sessionId)).length} messages wait`);
    const problems = await store.verify({ deep: true });
    console.log(problems.length === 0 ? 'the file is sound' : problems);
  } finally {
    await store.close();
    rmSync(folder, { recursive: true });
  }
}

const [name, file, habit] = process.argv.slice(2);
if (name === undefined) await main();
else await worker(file, name, habit);
