// What the cases of the session lifecycle share: a store to run over, and polls of a pull request.
import { now, scratch, wipe } from './lib.mjs';

/** Runs `fn` over a store in a folder of its own. */
export const opened = (options, fn) => async ({ module }) => {
  const dir = scratch(options.dir, 'lifecycle');
  const store = await module.openLifecycle(dir);
  try {
    return await fn(store, dir);
  } finally {
    await store.close();
    wipe(dir);
  }
};

/** One poll of a pull request with 8 checks and 6 comments: `changed` of the checks differ from the poll before, with 8 all else too. */
export const poll = (turn, changed) => ({
  number: 1,
  ci: changed === 8 && turn % 2 ? 'pending' : 'passing',
  checks: Array.from({ length: 8 }, (_, i) => ({ name: `check-${i}`, commit: 'c0ffee', status: i < changed && turn % 2 ? 'queued' : 'passed', log: 'x'.repeat(200) })),
  comments: Array.from({ length: 6 }, (_, i) => ({ id: `c${i}`, author: 'reviewer', file: 'src/a.ts', line: i, body: `${changed === 8 ? turn : ''} ${'please look at this '.repeat(6)}` })),
});
export const extents = [
  [0, 'nothing changed'],
  [1, 'one check changed'],
  [8, 'everything changed'],
];

/** 64 callers, each with a session of its own, observe it `each` times. */
export async function company(store, changed, each) {
  const ids = await Promise.all(Array.from({ length: 64 }, () => store.spawn()));
  for (const turn of [0, 1]) await Promise.all(ids.map((id) => store.observe(id, poll(turn, changed))));
  const started = now();
  await Promise.all(
    ids.map(async (id) => {
      for (let turn = 0; turn < each; turn++) await store.observe(id, poll(turn, changed));
    }),
  );
  const took = now() - started;
  const n = 64 * each;
  return { times: [took / n], extra: { 'observations/s': Math.round((n / took) * 1000) } };
}
