// Questions to a log of a million transitions.
import { withEntity } from './entity-mutate.mjs';
import { now, quantile, rounds, sample } from './lib.mjs';

const ROWS = 1_000_000;
/** A value as long as a document. */
const long = (i) => `${i % 2}`.repeat(20_000);

/** One entity with the whole history, beside one whose values are long. */
export async function log(contenders, report, options) {
  const questions = {
    'inStateSince, 1M transitions of one entity': (entity) => entity.inStateSince('e0', 'status'),
    'inStateSince, value of 20 KB, among 1M transitions': (entity) => entity.inStateSince('long', 'text'),
    'transitionCount, 1M transitions of one entity': (entity) => entity.transitionCount('e0', 'status'),
    'mutate, 1M transitions of one entity': (entity, i) => entity.mutate('e0', { status: `s${i & 1}` }),
  };
  const measured = new Map();
  for (const contender of contenders) {
    await withEntity(contender, options, 'file', async (entity) => {
      if (!entity.fill) return;
      const started = now();
      await entity.fill('e0', 'status', ROWS);
      await entity.fill('long', 'text', 200, long);
      const answers = { fillMs: now() - started };
      const counted = await entity.transitionCount('e0', 'status');
      if (counted !== ROWS) throw new Error(`${contender.name} counts ${counted} transitions instead of ${ROWS}`);
      if ((await entity.inStateSince('e0', 'status')) === null) throw new Error(`${contender.name} does not find the last transition`);
      for (const [name, ask] of Object.entries(questions)) {
        answers[name] = await sample((i) => ask(entity, i), { count: 4000, warmup: 200, budgetMs: 2500 });
      }
      measured.set(contender.name, answers);
    });
  }
  const answering = contenders.filter(({ name }) => measured.has(name));
  for (const question of Object.keys(questions)) {
    const results = await rounds(answering, ({ name }) => ({ times: measured.get(name)[question] }), 1);
    for (const result of results) {
      const times = measured.get(result.contender)[question];
      const filled = measured.get(result.contender).fillMs / 1000;
      result.extra = { 'p50, ms': quantile(times, 0.5), 'p99, ms': quantile(times, 0.99), 'log filled in, s': filled };
    }
    report.add(question, results);
  }
}
