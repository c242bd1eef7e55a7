// @pool forks @runtime node
/**
 * The random calls of model.test.ts, made by a process that is killed with -9 in the middle of some of them. Of the one call that was not
 * answered either outcome is fine, whole; everything that was answered is there. `HOLDFAST_SEED` runs the same calls again (when a kill hits
 * is not up to the seed), `HOLDFAST_MODEL_MS` lets it take longer.
 */
import { SessionGraphStore, type BlobRef } from 'holdfast';
import { afterEach, expect, test } from 'vitest';

import { killChildren, startChild, type Child } from '../support/child';
import { Model, type View } from './model/model';
import { FIRST_SEED, compare, observe, settle, shown, told, type Answer } from './model/round';
import { ARTIFACTS, Steps, random, type Step } from './model/steps';
import { memory, newFile } from './support';

afterEach(killChildren);

const program = `${__dirname}/fixtures/model-child.mjs`;
const packed = (_: string, value: unknown): unknown => (value instanceof Uint8Array ? { $bytes: Buffer.from(value).toString('base64') } : value);

async function started(path: string): Promise<Child> {
  const child = startChild(program, path);
  await child.line('ready');
  return child;
}

function send(child: Child, n: number, { method, args }: Step): void {
  // Bytes know how to print themselves, so they are replaced before that.
  child.send(JSON.stringify({ n, method, args: args.map((arg) => (arg instanceof Uint8Array ? packed('', arg) : arg)) }, packed));
}

function answerIn(line: string): Answer {
  const answer = JSON.parse(line.slice(line.indexOf('{'))) as Answer;
  // JSON has no undefined.
  return 'error' in answer || 'value' in answer ? answer : { value: undefined };
}

/** Takes over whichever of the two outcomes is there; says whether the call landed, where that can be seen. */
function adopt(steps: Steps, step: Step, seen: View, refs: BlobRef[]): boolean {
  const before = steps.model;
  const { after, errors } = step.outcome;
  steps.blur(step.blurs ?? []);
  if (errors !== undefined || after === before) {
    expect(seen).toEqual(before.view(refs, ARTIFACTS));
    return false;
  }
  if (isEqual(seen, before.view(refs, ARTIFACTS))) return false;
  step.found?.(seen);
  expect(seen).toEqual(after.view(refs, ARTIFACTS));
  steps.model = after;
  return true;
}

function isEqual(a: unknown, b: unknown): boolean {
  try {
    expect(a).toEqual(b);
    return true;
  } catch {
    return false;
  }
}

test('37: a killed process leaves what lists hold, before or after the call that it was in', async () => {
  const calculator = await memory();
  const until = performance.now() + Number(process.env.HOLDFAST_MODEL_MS ?? 2500);
  let [seed, kills, landed, answered] = [FIRST_SEED - 1, 0, 0, 0];
  do {
    seed++;
    const pick = random(seed);
    const steps = new Steps(new Model(), calculator, pick);
    const path = newFile();
    const log: string[] = [];
    let child = await started(path);
    await told(seed, log, async () => {
      for (let n = 1; n <= 60; n++) {
        const step = await steps.next();
        log.push(shown(step));
        send(child, n, step);
        // Not where nobody could tell afterwards what to expect.
        const isKilled = pick(12) === 0 && !step.isHidden && step.method !== 'loadSession';
        if (!isKilled) {
          settle(steps, step, answerIn(await child.line(`answer ${n} `)));
          continue;
        }
        // Long enough for the call to arrive, and now and then for an answer; timers are too coarse.
        const end = performance.now() + pick(40) / 10;
        while (performance.now() < end);
        await child.kill();
        kills++;
        // The one who comes next recovers; it is this process, so that it can be looked at.
        const store = await SessionGraphStore.open(path, { durability: 'normal' });
        const line = child.lines.find((each) => each.startsWith(`answer ${n} `));
        log.push(`killed, ${line === undefined ? 'without an answer' : 'after the answer'}`);
        if (line === undefined) {
          const refs = [...steps.refs];
          if (adopt(steps, step, await observe(store, refs), refs)) landed++;
        } else {
          settle(steps, step, answerIn(line));
          answered++;
        }
        await compare(store, steps);
        await store.close();
        child = await started(path);
      }
    });
    await child.kill();
    const store = await SessionGraphStore.open(path);
    await told(seed, log, () => compare(store, steps));
    await store.close();
  } while (performance.now() < until || kills < 4);
  if (process.env.HOLDFAST_MODEL_MS) console.log(`${seed - FIRST_SEED + 1} rounds, ${kills} kills: ${landed} landed unanswered, ${answered} were answered`);
});
