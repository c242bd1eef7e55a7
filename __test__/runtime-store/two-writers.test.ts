/** Two processes write batches into one directory and are killed at random moments: nothing that was acknowledged is lost. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { expect, it } from 'vitest';

import { dataOf, leftovers, openRuntime, start, tempDir } from './support';

/** How the random moments are drawn; printed when the test fails, so that the run can be looked at again. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

it('A23, A31: after each of 12 double kills everything acknowledged is there, nothing is torn, nothing is left', async () => {
  const seed = Date.now() >>> 0;
  const next = random(seed);
  const dir = tempDir();
  const acknowledged = new Set<string>();
  let found = 0;
  try {
    for (let round = 0; round < 12; round++) {
      const writers = ['a', 'b'].map((name) => start('batch-loop.mjs', dir, `${name}${round}`));
      await Promise.all(writers.map((writer) => writer.line('ready')));
      // One is killed first, the other works on over what it left, and is killed in turn.
      for (const writer of next() < 0.5 ? writers : [...writers].reverse()) {
        await sleep(5 + next() * 60);
        writer.process.kill('SIGKILL');
      }
      const ended = await Promise.all(writers.map((writer) => writer.ended));
      const order = ended.flatMap(({ out }) => [...out.matchAll(/^ack (\S+) (\S+)$/gm)].map(([, batchId]) => batchId!));
      order.forEach((batchId) => acknowledged.add(batchId));
      expect(ended.map(({ signal, err }) => ({ signal, err }))).toEqual(Array(2).fill({ signal: 'SIGKILL', err: '' }));

      const store = openRuntime(dir, { idPrefix: `check${round}-` });
      const { after } = await store.recover();
      if ((await store.manifestStore.read()).highWatermark === 0) continue;
      expect(after).toMatchObject({ manifestHealthy: true, readinessImpact: 'none' });
      expect(leftovers(dir)).toEqual([]);
      expect((await store.recover()).steps).toEqual([]);
      const [launch, sessions] = [dataOf(dir, 'launch-state.json'), dataOf(dir, 'opencode-sessions.json')];
      expect(launch.version).toBe(sessions.version);
      // The newest batch on disk is one that was acknowledged, or the one that was being written.
      const { highWatermark, lastCommittedBatchId } = await store.manifestStore.read();
      expect(highWatermark).toBeGreaterThanOrEqual(acknowledged.size);
      expect(highWatermark - acknowledged.size).toBeLessThanOrEqual(2 * (round + 1));
      const retained = new Set((await store.receiptStore.list()).map(({ batchId }) => batchId));
      expect(retained.has(lastCommittedBatchId!)).toBe(true);
      const archive = join(dir, '.holdfast', 'receipts.archive.jsonl');
      if (existsSync(archive)) for (const line of readFileSync(archive, 'utf8').trim().split('\n')) retained.add(JSON.parse(line).batchId);
      for (const batchId of acknowledged) expect(retained, batchId).toContain(batchId);
      found = highWatermark;
    }
  } catch (error) {
    throw Object.assign(error as Error, { message: `seed ${seed}: ${(error as Error).message}` });
  }
  expect(acknowledged.size).toBeGreaterThan(12);
  expect(found).toBeGreaterThanOrEqual(acknowledged.size);
});
