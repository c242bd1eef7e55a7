/**
 * Random calls on a store and on lists in memory. One seed makes the same calls again; a failure names it: `HOLDFAST_SEED=… npx vitest run
 * __test__/session-graph/model.test.ts`. `HOLDFAST_MODEL_MS` lets each place take longer than a moment.
 */
import { randomUUID } from 'node:crypto';

import { expect, test } from 'vitest';

import { FIRST_SEED, round } from './model/round';
import { connect, memory, newFile, open } from './support';

const PLACES = [
  { name: 'in memory', make: () => memory, reopens: false, steps: 80, ms: 500 },
  {
    name: 'in a file',
    make: () => {
      const path = newFile();
      return () => open(path, { durability: 'normal' });
    },
    reopens: true,
    steps: 80,
    ms: 800,
  },
  {
    name: 'in a schema',
    make: () => {
      const id = randomUUID();
      return () => connect(id);
    },
    reopens: true,
    steps: 50,
    ms: 800,
  },
];

test.each(PLACES)('$name a store does what lists do', async ({ make, reopens, steps, ms }) => {
  const calculator = await memory();
  const until = performance.now() + Number(process.env.HOLDFAST_MODEL_MS ?? ms);
  let [rounds, committed] = [0, 0];
  do {
    const { model } = await round(FIRST_SEED + rounds, steps, calculator, make(), reopens);
    rounds++;
    committed += model.head?.revision ?? 0;
  } while (performance.now() < until);
  expect(committed).toBeGreaterThan(0);
  if (process.env.HOLDFAST_MODEL_MS) console.log(`${rounds} rounds, ${committed} commits`);
});
