// What the entity cases share: states like those of a backend, main-thread clocks, callers that run side by side.
import fs from 'node:fs';
import { now } from './lib.mjs';

/** A state of `count` fields, strings, numbers, booleans, small arrays and small objects in turn, and one more that `version` changes. */
export function state(count, version = 0) {
  const fields = {};
  for (let i = 0; i < count; i++) {
    const name = `field_${(i * 7919) % 10007}`;
    const nested = { a: i, b: `nested ${i}`, c: { d: [1, 2, 3] } };
    fields[name] = [`value ${i} of the state`, i * 1.5, i % 2 === 0, [i, i + 1, `tag-${i}`], nested][i % 5];
  }
  fields.status = `s${version % 2}`;
  return fields;
}

/** The two states that a measured entity goes to and fro between, by turns. */
export function pair(count) {
  return [state(count, 0), state(count, 1)];
}

/** Times a synchronous function in blocks of about `blockMs`; gives milliseconds per call, one figure per block. */
export function sampleSync(fn, { blocks = 15, blockMs = 12 } = {}) {
  let calls = 1;
  for (let took = 0; took < blockMs / 4; calls *= 2) took = block(fn, calls);
  block(fn, calls); // the compiler has seen the last of it by now
  const perBlock = Math.max(1, Math.round((calls * blockMs) / block(fn, calls)));
  return Array.from({ length: blocks }, () => block(fn, perBlock) / perBlock);
}

function block(fn, calls) {
  const started = now();
  for (let i = 0; i < calls; i++) fn(i);
  return now() - started;
}

/**
 * `callers` loops side by side, each awaiting `each` calls of `fn(caller, i)`. Gives the milliseconds of one call, counted as
 * wall time over all calls, and the latencies that the callers saw.
 */
export async function sideBySide(callers, each, fn) {
  const latencies = [];
  const loop = async (caller) => {
    for (let i = 0; i < each; i++) {
      const started = now();
      await fn(caller, i);
      latencies.push(now() - started);
    }
  };
  const started = now();
  await Promise.all(Array.from({ length: callers }, (_, caller) => loop(caller)));
  return { perCall: (now() - started) / (callers * each), latencies };
}

/** CPU time of the main thread so far, in ms; null where the system does not tell. `process.cpuUsage()` has all threads in it. */
export function mainThreadCpu() {
  try {
    return Number(fs.readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ')[0]) / 1e6;
  } catch {
    return null;
  }
}

/**
 * What `run()` costs the main thread: `active`, the time that its event loop was not waiting, in ms, by `performance`; and `cpu`, by the
 * kernel (null where it does not tell). The first has also the time in which other processes had the core.
 */
export async function onMainThread(run) {
  const cpu = mainThreadCpu();
  const before = performance.eventLoopUtilization();
  await run();
  const { active } = performance.eventLoopUtilization(before);
  return { active, cpu: cpu === null ? null : mainThreadCpu() - cpu };
}

/** Adds the best of the rounds' medians to a contender's notes: what other jobs on the machine disturb the least. */
export function noteBest(results, name, scale = 1) {
  for (const result of results) if (!result.error) result.extra = { [name]: result.low * scale, ...result.extra };
  return results;
}
