// A mutation end to end: on the embedded store, on Postgres, over a store in plain JavaScript; and its share of the main thread.
import { noteBest, onMainThread, pair, sideBySide } from './entity-lib.mjs';
import { quantile, rounds, sample, scratch, wipe } from './lib.mjs';

/** Opens a contender for a target, runs `fn`, closes it; null for a contender that has no such target. */
export async function withEntity({ module }, options, target, fn) {
  if (!module.openEntity) return null;
  const dir = scratch(options.dir, 'entity');
  const opened = await module.openEntity({ target, dir, url: options.url });
  try {
    return opened && (await fn(opened));
  } finally {
    await opened?.close();
    wipe(dir);
  }
}

/** A lone caller: latency of each call. */
async function lone(entity, fields, { count, budgetMs }) {
  const states = pair(fields);
  let turn = 0;
  const mutate = () => entity.mutate('e0', states[turn++ & 1]);
  const times = await sample(mutate, { count, warmup: 300, budgetMs });
  return { times, extra: { 'p99, ms': quantile(times, 0.99) } };
}

/** 32 callers on 32 entities: time per mutation, several blocks long. */
async function crowd(entity, fields, { blocks, each }) {
  const [a, b] = pair(fields);
  const run = (count) => sideBySide(32, count, (caller, i) => entity.mutate(`e${caller}`, i & 1 ? a : b));
  await run(10);
  const times = [];
  const latencies = [];
  for (let i = 0; i < blocks; i++) {
    const block = await run(each);
    times.push(block.perCall);
    latencies.push(...block.latencies);
  }
  return { times, extra: { 'latency p50, ms': quantile(latencies, 0.5), 'latency p99, ms': quantile(latencies, 0.99) } };
}

/** The store that holdfast keeps in a file, durable when the promise resolves. */
export async function embedded(contenders, report, options) {
  for (const fields of [5, 50, 500]) {
    const run = (entity) => lone(entity, fields, { count: 2000, budgetMs: 1500 });
    const measure = (contender) => withEntity(contender, options, 'file', run);
    report.add(`mutate, file, ${fields} fields`, noteBest(await rounds(contenders, measure, options.rounds), 'best p50, ms'));
  }
  for (const fields of [5, 50]) {
    const measure = (contender) => withEntity(contender, options, 'file', (entity) => crowd(entity, fields, { blocks: 9, each: 60 }));
    const results = noteBest(await rounds(contenders, measure, options.rounds), 'best, ms per mutation');
    report.add(`mutate, file, 32 callers on 32 ids, ${fields} fields`, results);
  }
}

/**
 * What a mutation costs the thread that everything else of the program runs on. A lone caller puts it to sleep and wakes it up at each
 * step, which alone takes the kernel some 20 µs; callers side by side share that.
 */
export async function mainThread(contenders, report, options) {
  for (const [callers, each] of [[1, 400], [32, 40]]) {
    for (const fields of [5, 50]) {
      const measure = (contender) =>
        withEntity(contender, options, 'file', async (entity) => {
          const states = pair(fields);
          const run = (count) => sideBySide(callers, count, (caller, i) => entity.mutate(`e${caller}`, states[i & 1]));
          await run(each * 6);
          const times = [];
          const cpus = [];
          for (let i = 0; i < 9; i++) {
            const { active, cpu } = await onMainThread(() => run(each));
            times.push(active / (callers * each));
            if (cpu !== null) cpus.push(cpu / (callers * each));
          }
          return { times, extra: cpus.length > 0 ? { 'thread CPU, µs': Math.min(...cpus) * 1000 } : {} };
        });
      const results = noteBest(await rounds(contenders, measure, options.rounds), 'best, µs', 1000);
      report.add(`main thread per mutate, file, ${fields} fields${callers === 1 ? '' : `, ${callers} callers`}`, results);
    }
  }
}

/** holdfast's own connections, default durability, beside what one writes by hand. */
export async function postgres(contenders, report, options) {
  const over = (results) => {
    noteBest(results, 'best, ms');
    const byHand = results.find(({ contender }) => contender.startsWith('by hand'));
    if (byHand?.low && results[0].extra) results[0].extra['time, of that by hand'] = results[0].low / byHand.low;
    return results;
  };
  for (const [target, states] of [['postgres', 'states in a table'], ['postgres log', 'states in memory']]) {
    const alone = (contender) => withEntity(contender, options, target, (entity) => lone(entity, 50, { count: 600, budgetMs: 1500 }));
    report.add(`mutate, Postgres, 50 fields, ${states}`, over(await rounds(contenders, alone, options.rounds)));
    const many = (contender) => withEntity(contender, options, target, (entity) => crowd(entity, 50, { blocks: 7, each: 25 }));
    report.add(`mutate, Postgres, 32 callers on 32 ids, ${states}`, over(await rounds(contenders, many, options.rounds)));
  }
}

/** A store in plain JavaScript that does nothing: the time is the handle's. */
export async function inMemory(contenders, report, options) {
  for (const fields of [5, 50, 500]) {
    const measure = (contender) =>
      withEntity(contender, options, 'memory', async (entity) => {
        const states = pair(fields);
        const each = fields > 100 ? 100 : 1000;
        const run = (count) => sideBySide(1, count, (_, i) => entity.mutate('e0', states[i & 1]));
        await run(each * 3);
        const times = [];
        for (let i = 0; i < 15; i++) times.push((await run(each)).perCall);
        return times;
      });
    const results = noteBest(await rounds(contenders, measure, options.rounds), 'best, µs', 1000);
    report.add(`mutate, store in JavaScript, ${fields} fields`, results);
  }
}
