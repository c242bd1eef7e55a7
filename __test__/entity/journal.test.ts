// @pool forks: what counts happens in processes of its own.
// Processes that are killed between any two steps of a mutation, and several on one file (A37, W1, W2): what was acknowledged is
// there once, what was interrupted is completed or forgotten as the owner's state says, and every event is heard with one id.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { createChangeEmitter, createEntityRegistry, createRunSecretRegistry } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { historyOf, openStore, start, tempDir, until, type Child, type State } from './support';

interface Heard {
  id: string;
  changeId: string;
  from: number | null;
  to: number | null;
}

/** A folder with an owner's states and a store. */
function place(): string {
  const folder = tempDir();
  mkdirSync(join(folder, 'owner'));
  return folder;
}

function ownerOf(folder: string): Record<string, State> {
  const names = readdirSync(join(folder, 'owner')).filter((name) => name.endsWith('.json'));
  return Object.fromEntries(names.map((name) => [name.slice(0, -5), JSON.parse(readFileSync(join(folder, 'owner', name), 'utf8')) as State]));
}

const heardBy = (child: Child): Heard[] => child.lines.filter((line) => line.startsWith('event ')).map((line) => JSON.parse(line.slice(6)) as Heard);

/** The next process, in this one: opens the store, finishes what is left, and tells what it heard. */
async function recover(folder: string) {
  const events: Heard[] = [];
  const states: State[] = [];
  const emitter = createChangeEmitter();
  void emitter.wire(async ({ id, changeId, prev, next }) => {
    events.push({ id, changeId: changeId!, from: (prev?.n as number) ?? null, to: (next?.n as number) ?? null });
    states.push({ prev, next });
  });
  const registry = createEntityRegistry({ emitter, secretRegistry: createRunSecretRegistry() });
  const state = { '~standard': { version: 1 as const, vendor: 'test', validate: (value: unknown) => ({ value: value as State }) } };
  const handle = registry.defineEntity<State>({ kind: 'pod', state, read: async () => ownerOf(folder) });
  const store = openStore({ path: join(folder, 'entities.db') });
  registry.setStore({ store });
  await store.ready();
  await until(async () => (await store.stats()).pending === 0);
  return { store, events, states, handle, stats: await store.stats() };
}

/** What is left for a third process: nothing. */
async function expectNothingLeft(folder: string): Promise<void> {
  const { events, stats, store } = await recover(folder);
  expect({ events, recovered: stats.recovered, pending: stats.pending, redelivered: stats.redelivered }).toEqual({ events: [], recovered: 0, pending: 0, redelivered: 0 });
  await store.close();
  expect(readdirSync(folder).filter((name) => name.includes('-owner-'))).toEqual([]);
}

const BEFORE = ['read', 'read-done', 'apply'];
const AFTER = ['applied', 'validate', 'emit', 'emit-done', 'resolved'];

describe.each(['create', 'mutate', 'remove'])('A37: a process that is killed in the middle of a %s', (op) => {
  const first = op === 'create' ? [] : ['n: null -> 1'];
  const second = { create: ['n: null -> 2'], mutate: ['n: 1 -> 2'], remove: [] as string[] }[op]!;
  const change = { create: [null, 2], mutate: [1, 2], remove: [1, null] }[op]!;
  // A removal is not validated.
  const steps = [...BEFORE, ...AFTER].filter((step) => op !== 'remove' || step !== 'validate');

  test.each(steps)('at the step %s', async (step) => {
    const folder = place();
    const child = start('journal-child.mjs', folder, 'pause', step, op);
    await child.line(`step ${step}`);
    await child.kill();
    const happened = AFTER.includes(step);
    const { store, events, stats } = await recover(folder);
    expect(await historyOf(store, '1')).toEqual([...first, ...(happened ? second : [])]);
    const heard = [...heardBy(child), ...events].filter(({ from, to }) => from === change[0] && to === change[1]);
    expect(heard.length > 0).toBe(happened);
    expect(new Set(heard.map(({ changeId }) => changeId)).size).toBe(happened ? 1 : 0);
    expect(stats.recovered).toBe(['apply', 'applied', 'validate'].includes(step) ? 1 : 0);
    expect(stats.gaps).toBe(0);
    await store.close();
    await expectNothingLeft(folder);
  });
});

test.each(['nothing', 'throw'])('killed in the middle of a mutation, right after one that came to nothing (%s): it is completed once', async (op) => {
  for (const step of ['applied', 'apply']) {
    const folder = place();
    const child = start('journal-child.mjs', folder, 'pause', step, op);
    await child.line(`step ${step}`);
    await child.kill();
    const { store, events, stats } = await recover(folder);
    expect(await historyOf(store, '1')).toEqual(['n: null -> 1', ...(step === 'applied' ? ['n: 1 -> 2'] : [])]);
    expect(events.filter(({ to }) => to === 2)).toHaveLength(step === 'applied' ? 1 : 0);
    expect(stats).toMatchObject({ gaps: 0, pending: 0 });
    await store.close();
    await expectNothingLeft(folder);
  }
});

describe.each(['apply', 'applied'])('a process that died at the step %s, and another one that wrote the entity before anybody looked', (step) => {
  test('what is recorded already is not said again, in the name of the dead one', async () => {
    const folder = place();
    const { store: live, handle } = await recover(folder);
    const child = start('journal-child.mjs', folder, 'pause', step, 'mutate');
    await child.line(`step ${step}`);
    await child.kill();
    const put = (n: number) => handle.mutate({ id: '1', apply: async () => (writeFileSync(join(folder, 'owner', '1.json'), JSON.stringify({ n })), { n }) });
    await put(5);
    await put(6);
    await live.close();
    const { store, events, stats } = await recover(folder);
    // The dead one's write, where there was one, shows as the gap that it is.
    expect(await historyOf(store, '1')).toEqual(['n: null -> 1', `n: ${step === 'applied' ? 2 : 1} -> 5`, 'n: 5 -> 6']);
    // (Of the first one nobody knew that it was heard.)
    expect(events.filter(({ to }) => to !== 1)).toEqual([]);
    expect(stats).toMatchObject({ recovered: 1, pending: 0, unfinished: 0 });
    await store.close();
    await expectNothingLeft(folder);
  });
});

describe('a run whose secrets died with its process', () => {
  test.each([
    ['run', 'applied', ['n: null -> 1', 'token: null -> ****', 'n: 1 -> 2']],
    ['rotate', 'applied', ['n: null -> 1', 'token: null -> ****', 'n: 1 -> 2', 'token: **** -> ****']],
    ['run', 'apply', ['n: null -> 1', 'token: null -> ****']],
    ['rotate', 'apply', ['n: null -> 1', 'token: null -> ****']],
  ])('%s, killed at %s: completed with **** or dropped, as the owner\'s state says, and never told', async (op, step, history) => {
    const folder = place();
    const child = start('journal-child.mjs', folder, 'pause', step, op);
    await child.line(`step ${step}`);
    await child.kill();
    const grep = (): string[] => readdirSync(folder).filter((name) => name !== 'owner' && readFileSync(join(folder, name)).includes('s3cr3t'));
    expect(grep()).toEqual([]);
    const { store, events, states } = await recover(folder);
    expect.soft((await historyOf(store, '1')).sort()).toEqual(history.sort());
    expect.soft(events.filter(({ from }) => from === 1)).toHaveLength(step === 'applied' ? 1 : 0);
    expect.soft(JSON.stringify(states)).not.toContain('s3cr3t');
    expect(grep()).toEqual([]);
  });
});

test('W2: what nobody could hear before the process ended is heard by the next one, in order', async () => {
  const folder = place();
  const child = start('journal-child.mjs', folder, 'unwired', '5');
  expect(await child.ended).toMatchObject({ code: 0, err: '' });
  const { store, events } = await recover(folder);
  expect(events.map(({ from, to }) => [from, to])).toEqual([[null, 1], [1, 2], [2, 3], [3, 4], [4, 5]]);
  await store.close();
  await expectNothingLeft(folder);
});

test('40 kills at random moments, also of processes that were recovering', async () => {
  const seed = Date.now() >>> 0;
  let state = seed;
  const random = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  const folder = place();
  const acknowledged = new Map<string, number>();
  const heard: Heard[] = [];
  try {
    for (let round = 0; round < 40; round++) {
      const child = start('journal-child.mjs', folder, 'loop', 'a,b,c,d,e', '0');
      if (random() < 0.7) await child.line('ready');
      else await sleep(60);
      await sleep(random() * 60);
      await child.kill();
      expect((await child.ended).err).toBe('');
      for (const [, id, n] of child.lines.flatMap((line) => [.../^ack (\S) (\d+)$/g[Symbol.matchAll](line)])) {
        // One after the other: an acknowledged change is not taken back, and not counted twice.
        expect(Number(n)).toBeGreaterThan(acknowledged.get(id!) ?? 0);
        acknowledged.set(id!, Number(n));
      }
      heard.push(...heardBy(child));
    }
    const { store, events, stats } = await recover(folder);
    heard.push(...events);
    expect(acknowledged.size).toBe(5);
    for (const [id, n] of Object.entries(ownerOf(folder)).map(([id, { n }]) => [id, n as number] as const)) {
      expect(n).toBeGreaterThanOrEqual(acknowledged.get(id)!);
      const chain = Array.from({ length: n }, (_, i) => `n: ${i === 0 ? null : i} -> ${i + 1}`);
      expect(await historyOf(store, id)).toEqual(chain);
      const { rows } = await store.history({ kind: 'pod', entityId: id, limit: 10_000 });
      for (const row of rows) {
        const told = heard.filter((event) => event.id === id && event.to === Number(row.toValue));
        expect({ row: row.toValue, ids: [...new Set(told.map(({ changeId }) => changeId))] }).toEqual({ row: row.toValue, ids: [row.changeId] });
      }
    }
    expect(stats).toMatchObject({ pending: 0, gaps: 0 });
    await store.close();
    await expectNothingLeft(folder);
  } catch (error) {
    throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
  }
}, 60_000);

describe('several live processes on one file', () => {
  test('each records its own changes, of its own entities and of shared ones', async () => {
    const folder = place();
    const children = ['x', 'y'].map((own) => start('journal-child.mjs', folder, 'loop', `${own}1,${own}2,shared`, '40'));
    const ended = await Promise.all(children.map((child) => child.ended));
    expect(ended.map(({ code }) => code)).toEqual([0, 0]);
    const { store, events } = await recover(folder);
    expect(events).toEqual([]);
    for (const id of ['x1', 'x2', 'y1', 'y2']) {
      expect(await historyOf(store, id)).toEqual(Array.from({ length: 40 }, (_, i) => `n: ${i === 0 ? null : i} -> ${i + 1}`));
    }
    // The processes race for the shared one, as its owner lets them; each records what it did, and says it once.
    const told = children.flatMap(heardBy).filter(({ id }) => id === 'shared');
    const { rows } = await store.history({ kind: 'pod', entityId: 'shared', limit: 10_000 });
    expect(rows.map(({ changeId }) => changeId).sort()).toEqual(told.map(({ changeId }) => changeId).sort());
    expect(new Set(told.map(({ changeId }) => changeId)).size).toBe(told.length);
    expect(rows.map(({ at }) => at.getTime())).toEqual(rows.map(({ at }) => at.getTime()).sort((a, b) => b - a));
  });

  test('nobody takes over what a live process has under way; a killed one\'s is taken over while others live', async () => {
    const folder = place();
    const slow = start('journal-child.mjs', folder, 'hold', '1', '7');
    await slow.line('held');
    const doomed = start('journal-child.mjs', folder, 'pause', 'applied', 'create');
    await doomed.line('step applied');
    const early = await recover(folder);
    expect(early.stats).toMatchObject({ recovered: 0, appended: 0 });
    await doomed.kill();
    await early.store.close();
    const later = await recover(folder);
    expect(later.stats).toMatchObject({ recovered: 1, appended: 1 });
    expect(await historyOf(later.store, '1')).toEqual(['n: null -> 2']);
    slow.send('go');
    await slow.ended;
    expect(heardBy(slow)).toEqual([{ id: '1', changeId: expect.any(String), from: null, to: 7 }]);
    expect(await historyOf(later.store, '1')).toEqual(['n: null -> 2', 'n: null -> 7']);
    expect(later.events).toHaveLength(1);
    await later.store.close();
    await expectNothingLeft(folder);
  });
});
