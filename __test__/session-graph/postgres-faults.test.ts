// @pool forks @runtime node: servers and processes of its own are killed and frozen.
/** PostgreSQL is away, comes back, cuts connections and stands still; and so do processes that use it. */
import { setTimeout as sleep } from 'node:timers/promises';

import { SessionGraphStore, completionOf, type QueuedWorkClaim, type RuntimeCommit } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { freshSchema, query, restartablePostgres } from '../support/postgres';
import { append, ask, commit, draft, failure, node, start } from './support';

const request = { sessionId: 'root', ownerId: 'o', leaseTtlMs: 60_000, boundary: 'idle', maxBatches: 1 } as const;
const usage = { inputTokens: 1, outputTokens: 0, cachedInputTokens: 0, reasoningTokens: 0 };
/** The n-th turn of a session: each adds a node, an entry of usage and a blob. */
const turn = (n: number): RuntimeCommit =>
  append([node(`n${n}`, n > 1 ? `n${n - 1}` : null)], {
    turnCommit: { sessionId: 'root', turnId: `t${n}` },
    usageDeltas: [{ source: 'turn', model: 'm', usage }],
    checkpoint: { turnState: { n }, toolState: { n } },
  });

/** Whatever happened: nodes, usage and head are of one and the same number of turns; returns it. */
async function whole(store: SessionGraphStore): Promise<number> {
  const session = await store.loadSession({ scope: 'activePath' });
  if (session === null) return 0;
  expect(session.graph.nodes.map((each) => each.nodeId)).toEqual(Array.from({ length: session.headRevision }, (_, n) => `n${n + 1}`));
  expect(session.tokenLedger[0]?.usage.inputTokens).toBe(session.headRevision);
  expect(session.checkpoint?.toolState).toEqual({ n: session.headRevision });
  expect(await store.verify({ deep: true })).toEqual([]);
  return session.headRevision;
}

/** The processes of the server that serve sessions of holdfast. */
const serving = async (url: string): Promise<number[]> =>
  (await query<{ pid: number }>("SELECT pid FROM pg_stat_activity WHERE application_name LIKE '%holdfast%'", [], url)).map(({ pid }) => pid);

// Most of it is waiting, each for a server of its own.
describe.concurrent('servers of their own', () => {
  test('killed and started again in the middle of commits, twice: nothing acknowledged is lost, nothing is there twice', { timeout: 40_000 }, async () => {
    const server = await restartablePostgres();
    const store = await SessionGraphStore.connect({ connectionString: server.url, sessionId: 's' });
    let [acknowledged, over] = [0, false];
    const refused: string[] = [];
    // Sends each turn until it is told of its end; the same again is the same turn.
    const committing = (async () => {
      for (let n = 1; !over; n++) {
        for (;;) {
          const outcome = await store.commitRuntimeState(turn(n)).catch((error: { hfCode: string }) => error);
          if ('headRevision' in outcome) {
            expect(outcome.headRevision).toBe(n);
            break;
          }
          refused.push(outcome.hfCode);
          await sleep(20);
        }
        acknowledged = n;
      }
    })();
    const enqueued: string[] = [];
    const enqueuing = (async () => {
      for (let n = 0; !over; n++) {
        const batch = await store.enqueueQueuedWork(draft({ sourceKey: `k${n}` })).catch(() => null);
        if (batch !== null) enqueued.push(batch.batchId);
      }
    })();
    for (let round = 0; round < 2; round++) {
      const before = acknowledged;
      while (acknowledged < before + 5) await sleep(5);
      await sleep(round * 4);
      await server.kill();
      await server.start();
    }
    over = true;
    await Promise.all([committing, enqueuing]);
    expect(await whole(store)).toBe(acknowledged);
    const there = new Set((await store.listQueuedWork('root')).map((batch) => batch.batchId));
    expect(enqueued.filter((id) => !there.has(id))).toEqual([]);
    for (const code of refused) expect(code).toBe('HF_UNAVAILABLE');
    // The stored answer of an old turn, and of no other.
    expect((await store.commitRuntimeState(turn(1))).headRevision).toBe(1);
    await store.close();
  });

  test('away: calls are refused in bounded time, and go on when it is back; standing still: close() ends all the same', { timeout: 40_000 }, async () => {
    const connect = (url: string, sessionId: string) => SessionGraphStore.connect({ connectionString: url, sessionId });
    const away = async (): Promise<void> => {
      const server = await restartablePostgres();
      const [store, other] = [await connect(server.url, 's'), await connect(server.url, 't')];
      await store.commitRuntimeState(turn(1));
      await server.kill();
      const begun = performance.now();
      const outcomes = await Promise.all([
        failure(store.commitRuntimeState(turn(2))),
        failure(store.enqueueQueuedWork(draft())),
        failure(other.claimReadyQueuedWork(request)),
        failure(other.loadSession({ scope: 'fullGraph' })),
      ]);
      expect(outcomes.map((error) => error.hfCode)).toEqual(Array.from({ length: 4 }, () => 'HF_UNAVAILABLE'));
      // One after the other on a handle, but tried no longer than one.
      expect(performance.now() - begun).toBeLessThan(9000);
      await server.start();
      expect((await store.commitRuntimeState(turn(2))).headRevision).toBe(2);
      expect(await whole(store)).toBe(2);
      await Promise.all([store.close(), other.close()]);
    };
    const frozen = async (): Promise<void> => {
      const server = await restartablePostgres();
      const [store, other] = [await connect(server.url, 's'), await connect(server.url, 't')];
      await store.commitRuntimeState(turn(1));
      await other.loadSessionMeta();
      const stopped = await serving(server.url);
      for (const pid of [server.pid()!, ...stopped]) process.kill(pid, 'SIGSTOP');
      try {
        const hanging = [failure(store.commitRuntimeState(turn(2))), failure(store.loadSession({ scope: 'fullGraph' })), failure(other.enqueueQueuedWork(draft()))];
        const begun = performance.now();
        await Promise.all([store.close(), other.close()]);
        expect(performance.now() - begun).toBeLessThan(9000);
        for (const error of await Promise.all(hanging)) expect(error.hfCode).toBe('HF_UNAVAILABLE');
      } finally {
        for (const pid of [...stopped, server.pid()!]) process.kill(pid, 'SIGCONT');
      }
      const again = await connect(server.url, 's');
      expect([1, 2]).toContain(await whole(again));
      expect((await again.commitRuntimeState(turn(2))).headRevision).toBe(2);
      expect(await whole(again)).toBe(2);
      await again.close();
    };
    await Promise.all([away(), frozen()]);
  });
});

test('connections are cut in the middle of everything: no call fails, nothing happens twice', { timeout: 30_000 }, async () => {
  const { url, schema } = await freshSchema();
  const tagged = new URL(url);
  tagged.searchParams.set('application_name', schema);
  const options = { connectionString: tagged.href.replaceAll('+', '%20'), schema };
  const [store, worker] = [await SessionGraphStore.connect({ ...options, sessionId: 's' }), await SessionGraphStore.connect({ ...options, sessionId: 's' })];
  let [over, ended] = [false, 0];
  const cutting = (async () => {
    let cut = 0;
    for (let round = 0; !over; round++) {
      await sleep((round * 3) % 11);
      cut += (await query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1', [schema])).length;
      // However slow the machine: a call must end before the next cut.
      for (const before = ended; ended === before && !over; ) await sleep(2);
    }
    return cut;
  })();
  const told = async <T>(call: Promise<T>): Promise<T> => {
    const value = await call;
    ended++;
    return value;
  };
  const done: unknown[] = [];
  const claims = new Set<number>();
  const working = (async () => {
    for (let n = 0; n < 25; n++) {
      await told(worker.enqueueQueuedWork(draft({ payloads: [n] })));
      let claim: QueuedWorkClaim | null;
      // A claim whose answer was lost is not lost: nobody else would get its work.
      while ((claim = await told(worker.claimReadyQueuedWork(request))) === null);
      claims.add(claim.fencingToken);
      const { expiresAtEpochMs } = await told(worker.renewQueuedWorkClaim(claim, 90_000));
      expect(expiresAtEpochMs).toBeGreaterThan(claim.expiresAtEpochMs);
      done.push(claim.batches[0]!.items[0]!.payload);
      await told(worker.commitRuntimeState(commit({ completedQueueClaims: [completionOf(claim)] })));
    }
  })();
  await working;
  over = true;
  expect(await cutting).toBeGreaterThan(5);
  expect(done).toEqual(Array.from({ length: 25 }, (_, n) => n));
  expect(claims.size).toBe(25);
  // All commits, each of them once, though none of them had a stamp.
  expect(await store.stats()).toMatchObject({ headRevision: 25, queuedBatches: 0 });
  await Promise.all([store.close(), worker.close()]);
});

describe('who holds a session', () => {
  test('and stands still keeps commits waiting for busyTimeoutMs; the queue goes on beside it, and so do other sessions', async () => {
    const { url, schema } = await freshSchema();
    const options = { connectionString: url, schema, busyTimeoutMs: 300 };
    const [store, other] = [await SessionGraphStore.connect({ ...options, sessionId: 's' }), await SessionGraphStore.connect({ ...options, sessionId: 't' })];
    await store.commitRuntimeState(turn(1));
    const holding = query(`BEGIN; SELECT * FROM ${schema}.all_store_info i JOIN ${schema}.stores s USING (store_no) WHERE s.store_key = 's' FOR UPDATE OF i; SELECT pg_sleep(1.5); COMMIT`);
    await sleep(150);
    const begun = performance.now();
    const refused = failure(store.commitRuntimeState(turn(2)));
    // On a handle of its own: calls of one handle take effect in their order.
    const worker = await SessionGraphStore.connect({ ...options, sessionId: 's' });
    await worker.enqueueQueuedWork(draft());
    const claim = (await worker.claimReadyQueuedWork(request))!;
    await worker.renewQueuedWorkClaim(claim, 1000);
    await worker.abandonQueuedWorkClaim(claim);
    expect((await worker.cancelQueuedWorkBatch('root', claim.batches[0]!.batchId))?.batchId).toBe(claim.batches[0]!.batchId);
    await worker.recordIntent({ attachmentId: 'a', sessionId: 'root', canonicalUri: 'u', intentAtEpochMs: 1 });
    expect((await worker.loadSession({ scope: 'fullGraph' }))?.headRevision).toBe(1);
    await other.commitRuntimeState(turn(1));
    expect(performance.now() - begun).toBeLessThan(1000);
    expect(await refused).toMatchObject({ name: 'StoreBusyError', hfCode: 'HF_BUSY', retryable: true });
    await holding;
    expect((await store.commitRuntimeState(turn(2))).headRevision).toBe(2);
    await Promise.all([store.close(), other.close(), worker.close()]);
  });
});

describe('processes', () => {
  test('1, 7: of two that commit with one expectation one wins; four drain fifty batches, each of them once', { timeout: 30_000 }, async () => {
    const { url, schema } = await freshSchema();
    const place = JSON.stringify({ connectionString: url, schema, sessionId: 's' });
    const at = String(Date.now() + 1200);
    const outcomes = await Promise.all(['a', 'b'].map((id) => ask<unknown>(place, 'race', at, id)));
    const lost = { code: 'HF_GRAPH_HEAD_REVISION_CONFLICT', expected: 0, actual: 1 };
    expect(outcomes).toEqual(expect.arrayContaining(['won', lost]));
    const store = await SessionGraphStore.connect({ connectionString: url, schema, sessionId: 's' });
    await Promise.all(Array.from({ length: 50 }, (_, n) => store.enqueueQueuedWork(draft({ payloads: [n], mergeKey: 'payloadDefault' }))));
    const drained = await Promise.all(['a', 'b', 'c', 'd'].map((owner) => ask<number[]>(place, 'drain', owner)));
    expect(drained.flat().sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, n) => n));
    await store.close();
  });

  test('37: a killed one leaves whole commits, and all that it was told of', { timeout: 40_000 }, async () => {
    const { url, schema } = await freshSchema();
    const options = { connectionString: url, schema, sessionId: 's' };
    const store = await SessionGraphStore.connect(options);
    let told = 0;
    for (let round = 0; round < 3; round++) {
      const child = start(JSON.stringify(options), 'append', '100000', String(told + 1));
      await child.line(`done ${told + 2 + ((round * 3) % 7)}`);
      await child.kill();
      told = Number(child.lines.filter((line) => line.startsWith('done ')).at(-1)!.slice(5));
      // What it had sent before its end may still take effect now.
      while ((await query('SELECT 1 FROM pg_stat_activity WHERE query LIKE $1 AND state <> $2 AND pid <> pg_backend_pid()', [`%${schema}%`, 'idle'])).length > 0) await sleep(5);
      const session = (await store.loadSession({ scope: 'activePath' }))!;
      const revision = session.headRevision;
      expect(revision - told).toBeGreaterThanOrEqual(0);
      expect(revision - told).toBeLessThanOrEqual(1);
      expect(session.graph.nodes.map((each) => each.nodeId)).toEqual(Array.from({ length: revision }, (_, n) => `n${n + 1}`));
      expect(session.tokenLedger[0]?.usage.inputTokens).toBe(revision);
      expect(await store.verify({ deep: true })).toEqual([]);
      const left = await store.listQueuedWork('root');
      expect(left.length).toBeLessThanOrEqual(1);
      for (const batch of left) await store.cancelQueuedWorkBatch('root', batch.batchId);
      told = revision;
    }
    await store.close();
  });
});
