// @pool forks @runtime node: what counts happens in processes of its own.
// Postgres is killed and comes back, and so are processes that use it: nothing acknowledged is lost, each change is recorded once, and
// every event is heard with one id (W1, W2, A37 on Postgres).
import { mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { createChangeEmitter, createEntityRegistry, createEntityStore, createRunSecretRegistry, getEntityFailure, type EntityChanged, type EntityStoreOptions } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { freshSchema, query, restartablePostgres } from '../support/postgres';
import { rowsOf } from './every-store';
import { closeAfterTest, deferred, logBook, start, tempDir, until, type Child, type State } from './support';

const ANY = { '~standard': { version: 1 as const, vendor: 'test', validate: (value: unknown) => ({ value: value as State }) } };

interface Place {
  url: string;
  schema: string;
}

/** A process, in this one: an owner with its states, a registry, a store. */
function programOf({ url, schema }: Place, read: () => Record<string, State>, options?: EntityStoreOptions) {
  const events: EntityChanged[] = [];
  const { lines, logger } = logBook();
  const emitter = createChangeEmitter();
  void emitter.wire(async (event) => void events.push(event));
  const registry = createEntityRegistry({ emitter, secretRegistry: createRunSecretRegistry(), logger });
  const handle = registry.defineEntity<State>({ kind: 'pod', state: ANY, read: async () => read() });
  const store = closeAfterTest(createEntityStore({ connectionString: url, schema }, { logger, ...options }));
  registry.setStore({ store });
  return { handle, store, events, lines };
}

const counting = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1);
/** What the events of an entity say, each change once. */
const heardOf = (events: { changeId?: string; id: string; to: number }[], id: string): number[] => [
  ...new Map(events.filter((event) => event.id === id).map(({ changeId, to }) => [changeId, to])).values(),
];
const toOf = (events: EntityChanged[]) => events.map(({ id, changeId, next }) => ({ id, changeId, to: (next?.n as number) ?? 0 }));

describe('the server is killed under the load of 16 callers, and started again', () => {
  test.each<{ name: string; options: EntityStoreOptions; downMs: number }>([
    { name: 'journal', options: {}, downMs: 300 },
    { name: 'journal, away for longer than a batch is tried', options: {}, downMs: 6500 },
    { name: 'outbox', options: { durability: 'outbox' }, downMs: 300 },
    { name: 'after-commit', options: { durability: 'after-commit' }, downMs: 300 },
  ])('$name: nothing acknowledged is lost, nothing is there twice, and everything is heard', async ({ options, downMs }) => {
    const server = await restartablePostgres();
    const place = { url: server.url, schema: 'entities' };
    const owner = new Map<string, State>();
    const { handle, store, events, lines } = programOf(place, () => Object.fromEntries(owner), options);
    await store.ready();
    const acknowledged = new Map<string, number>();
    const refused: unknown[] = [];
    let running = true;
    const caller = async (id: string): Promise<void> => {
      while (running) {
        const apply = async (): Promise<State> => {
          const state = { n: ((owner.get(id)?.n as number | undefined) ?? 0) + 1, text: `of ${id}` };
          owner.set(id, state);
          return state;
        };
        await handle.mutate({ id, apply }).then(
          ({ n }) => void acknowledged.set(id, n as number),
          async (error: unknown) => {
            refused.push(error);
            await sleep(20);
          },
        );
      }
    };
    const callers = Array.from({ length: 16 }, (_, n) => caller(`e${n}`));
    await sleep(400);
    const before = acknowledged.get('e0')!;
    await server.kill();
    await sleep(downMs);
    await server.start();
    await until(() => [...acknowledged.values()].every((n) => n > before + 10), 10_000);
    running = false;
    await Promise.all(callers);
    for (const error of refused) {
      expect(error).toMatchObject({ hfCode: expect.stringMatching(/^HF_(UNAVAILABLE|ENTITY_APPEND_FAILED)$/) });
      expect(getEntityFailure(error)).toMatchObject({ stage: 'append' });
    }
    if (downMs < 5000) expect(refused).toEqual([]);
    // What was refused after its write is completed without being asked for.
    await until(() => [...owner].every(([id, { n }]) => heardOf(toOf(events), id).length === n), 10_000);
    expect(acknowledged.size).toBe(16);
    for (const [id, { n }] of owner) {
      expect(acknowledged.get(id)).toBeLessThanOrEqual(n as number);
      const rows = (await rowsOf(store, id)).filter(({ field }) => field === 'n');
      expect(rows.map(({ fromValue, toValue }) => [Number(fromValue), Number(toValue)])).toEqual(counting(n as number).map((to) => [to - 1, to]));
      expect(heardOf(toOf(events), id)).toEqual(counting(n as number));
    }
    const twice = await query('SELECT change_id FROM entities.entity_transitions GROUP BY change_id, field HAVING count(*) > 1', [], server.url);
    expect(twice).toEqual([]);
    await until(async () => (await store.stats()).pending === 0);
    expect(await store.stats()).toMatchObject({ pending: 0, gaps: 0 });
    const left = await query<{ n: number }>('SELECT count(*)::int AS n FROM entities.entity_intents', [], server.url);
    expect(left).toEqual([{ n: 0 }]);
    expect(lines.filter((line) => line.includes('gap') || line.startsWith('error'))).toEqual([]);
  }, 40_000);

  test('what a live process has under way over a restart is not taken over by another one', async () => {
    const server = await restartablePostgres();
    const place = { url: server.url, schema: 'entities' };
    const owner = new Map<string, State>();
    const a = programOf(place, () => Object.fromEntries(owner));
    await a.handle.mutate({ id: '1', apply: async () => (owner.set('1', { n: 1 }), { n: 1 }) });
    const [inside, gate] = [deferred(), deferred()];
    const slow = a.handle.mutate({
      id: '1',
      apply: async () => {
        owner.set('1', { n: 2 });
        inside.resolve();
        await gate.promise;
        return { n: 2 };
      },
    });
    await inside.promise;
    await server.kill();
    await server.start();
    // Longer than the time for which nobody is held dead after a start.
    await sleep(6500);
    const b = programOf(place, () => Object.fromEntries(owner));
    await b.store.ready();
    expect(await b.store.stats()).toMatchObject({ recovered: 0 });
    gate.resolve();
    expect(await slow).toEqual({ n: 2 });
    expect((await rowsOf(b.store, '1')).map(({ toValue }) => toValue)).toEqual(['1', '2']);
    expect([toOf(a.events), toOf(b.events)]).toEqual([[1, 2].map((to) => ({ id: '1', changeId: expect.any(String), to })), []]);
  }, 40_000);

  test('questions and history wait for the server, and a store that is made while it is away works once it is there', async () => {
    const server = await restartablePostgres();
    const place = { url: server.url, schema: 'entities' };
    const owner = new Map<string, State>([['1', { n: 1 }]]);
    const first = programOf(place, () => ({}));
    await first.handle.mutate({ id: '1', apply: async () => ({ n: 1 }) });
    await server.kill();
    const second = programOf(place, () => Object.fromEntries(owner));
    const apply = { ran: false };
    const early = second.handle.mutate({ id: '2', apply: async () => ((apply.ran = true), { n: 1 }) }).catch((error: unknown) => error);
    const asked = first.store.transitionCount({ kind: 'pod', entityId: '1', field: 'n', windowMs: 1e15, now: new Date() });
    asked.catch(() => {});
    const started = Date.now();
    await sleep(200);
    await server.start();
    // Questions wait for 5 seconds; a busy machine may take longer to start a server.
    if (Date.now() - started < 4000) expect(await asked).toBe(1);
    else await expect(asked.catch((error: unknown) => error)).resolves.toSatisfy((answer) => answer === 1 || (answer as { hfCode?: string }).hfCode === 'HF_UNAVAILABLE');
    const outcome = await early;
    // Either it waited, or it was refused before the owner's write, and says so.
    if (outcome instanceof Error) {
      expect(outcome).toMatchObject({ hfCode: 'HF_UNAVAILABLE' });
      expect(getEntityFailure(outcome)).toMatchObject({ applied: false });
      expect(apply.ran).toBe(false);
    }
    await second.handle.mutate({ id: '2', apply: async () => ({ n: 2 }) });
    expect(await second.handle.inStateSince('1', 'n')).toBeInstanceOf(Date);
  }, 40_000);
});

// ── processes that are killed ──

/** Waits until the server is old enough to tell the dead from those who have not come back yet. */
async function graceIsOver(url: string): Promise<void> {
  const [row] = await query<{ ms: number }>('SELECT (extract(epoch FROM clock_timestamp() - pg_postmaster_start_time()) * 1000)::float8 AS ms', [], url);
  await sleep(Math.max(0, 5200 - row!.ms));
}

const ownerOf = (folder: string): Record<string, State> =>
  Object.fromEntries(readdirSync(folder).filter((name) => name.endsWith('.json')).map((name) => [name.slice(0, -5), JSON.parse(readFileSync(join(folder, name), 'utf8')) as State]));
const heardBy = (child: Child): { id: string; changeId: string; from: number | null; to: number }[] =>
  child.lines.filter((line) => line.startsWith('event ')).map((line) => JSON.parse(line.slice(6)));

function ownerFolder(): string {
  const folder = join(tempDir(), 'owner');
  mkdirSync(folder);
  return folder;
}

/** The URL by which the server knows a child's sessions: they carry a name of their own. */
function named(url: string): string {
  const made = new URL(url);
  made.searchParams.set('application_name', `child_${crypto.randomUUID()}`);
  return made.href.replaceAll('+', '%20');
}

/** Waits until the server has noticed that a killed child is gone. */
async function isGone(url: string, childUrl: string): Promise<void> {
  const name = new URL(childUrl).searchParams.get('application_name');
  const sessions = () => query('SELECT 1 FROM pg_stat_activity WHERE application_name = $1', [name], url);
  await until(async () => (await sessions()).length === 0);
}

/** The next process: takes over what the dead one left. */
async function takeOver(place: Place, folder: string) {
  const program = programOf(place, () => ownerOf(folder));
  await graceIsOver(place.url);
  const open = async (): Promise<number> => {
    const [row] = await query<{ n: number }>(
      `SELECT ((SELECT count(*) FROM ${place.schema}.entity_intents) + (SELECT count(*) FROM ${place.schema}.entity_changes WHERE delivered_at IS NULL))::int AS n`,
      [],
      place.url,
    );
    return row!.n;
  };
  await program.store.ready();
  await until(async () => (await open()) === 0);
  return { ...program, open: await open() };
}

describe.each(['create', 'mutate', 'remove'])('a process that is killed in the middle of a %s', (op) => {
  const first = op === 'create' ? [] : [1];
  const second = op === 'remove' ? [] : [2];

  test.each(['read', 'apply', 'applied', 'emit', 'resolved'])('at the step %s', async (step) => {
    const { url, schema } = await freshSchema();
    const folder = ownerFolder();
    const childUrl = named(url);
    const child = start('postgres-child.mjs', childUrl, schema, folder, 'pause', step, op);
    await child.line(`step ${step}`);
    await child.kill();
    await isGone(url, childUrl);
    const happened = ['applied', 'emit', 'resolved'].includes(step);
    const { store, events, open } = await takeOver({ url, schema }, folder);
    expect(open).toBe(0);
    expect((await rowsOf(store, '1')).map(({ toValue }) => Number(toValue))).toEqual([...first, ...(happened ? second : [])]);
    const change = { from: op === 'create' ? null : 1, to: op === 'remove' ? null : 2 };
    const told = [...heardBy(child), ...events.map(({ changeId, prev, next }) => ({ changeId, from: prev?.n ?? null, to: next?.n ?? null }))];
    const heard = told.filter(({ from, to }) => from === change.from && to === change.to);
    expect(heard.length > 0).toBe(happened);
    expect(new Set(heard.map(({ changeId }) => changeId)).size).toBe(happened ? 1 : 0);
    expect(await store.stats()).toMatchObject({ recovered: ['apply', 'applied'].includes(step) ? 1 : 0, gaps: 0 });
  });
});

test('processes that are killed in the middle of many mutations, each taken over by the next', async () => {
  const { url, schema } = await freshSchema();
  const folder = ownerFolder();
  await graceIsOver(url);
  const acknowledged = new Map<string, number>();
  const heard: { id: string; changeId?: string; to: number }[] = [];
  for (let round = 0; round < 6; round++) {
    const childUrl = named(url);
    const child = start('postgres-child.mjs', childUrl, schema, folder, 'loop', 'a,b,c,d');
    await child.line('ready');
    await sleep(100 + Math.random() * 200);
    await child.kill();
    // A next process that came before would find the dead one alive.
    await isGone(url, childUrl);
    expect((await child.ended).err).toBe('');
    for (const line of child.lines.filter((each) => each.startsWith('ack '))) {
      const [, id, n] = line.split(' ') as [string, string, string];
      expect(Number(n)).toBeGreaterThan(acknowledged.get(id) ?? 0);
      acknowledged.set(id, Number(n));
    }
    heard.push(...heardBy(child));
  }
  const { store, events, open } = await takeOver({ url, schema }, folder);
  heard.push(...toOf(events));
  expect([open, acknowledged.size]).toEqual([0, 4]);
  for (const [id, { n }] of Object.entries(ownerOf(folder)) as [string, { n: number }][]) {
    expect(n).toBeGreaterThanOrEqual(acknowledged.get(id)!);
    const { rows } = await store.history({ kind: 'pod', entityId: id, limit: 10_000 });
    expect(rows.map(({ fromValue, toValue }) => [Number(fromValue), Number(toValue)]).reverse()).toEqual(counting(n).map((to) => [to - 1, to]));
    for (const { toValue, changeId } of rows) {
      const ids = new Set(heard.filter((event) => event.id === id && event.to === Number(toValue)).map((event) => event.changeId));
      expect({ id, toValue, ids: [...ids] }).toEqual({ id, toValue, ids: [changeId] });
    }
  }
  expect(await store.stats()).toMatchObject({ gaps: 0 });
}, 40_000);

test('process and server are killed together: the next process completes what both left', async () => {
  const server = await restartablePostgres();
  const place = { url: server.url, schema: 'entities' };
  const folder = ownerFolder();
  const child = start('postgres-child.mjs', server.url, place.schema, folder, 'loop', 'a,b,c,d,e,f,g,h');
  await child.line('ready');
  await sleep(400);
  await Promise.all([server.kill(), child.kill()]);
  await server.start();
  const began = Date.now();
  const { store, events, open } = await takeOver(place, folder);
  expect(Date.now() - began).toBeLessThan(15_000);
  expect(open).toBe(0);
  const heard = [...heardBy(child), ...toOf(events)];
  for (const [id, { n }] of Object.entries(ownerOf(folder)) as [string, { n: number }][]) {
    expect((await rowsOf(store, id)).map(({ toValue }) => Number(toValue))).toEqual(counting(n));
    expect(heardOf(heard, id).sort((x, y) => x - y)).toEqual(counting(n));
  }
}, 40_000);
