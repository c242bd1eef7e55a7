import { createChangeEmitter, createEntityRegistry, createEntityStore, createRunSecretRegistry, type EntityChanged } from 'holdfast';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { freshSchema } from '../support/postgres';

type State = { status: string; note?: unknown };

describe('a store of holdfast in Postgres', () => {
  let place: Awaited<ReturnType<typeof freshSchema>>;
  beforeAll(async () => {
    place = await freshSchema();
  });
  afterAll(() => place.drop());

  function pod(extra: { serialize?: 'id' | 'database' } = {}) {
    const events: EntityChanged[] = [];
    const emitter = createChangeEmitter();
    void emitter.wire(async (event) => void events.push(event));
    const secretRegistry = createRunSecretRegistry();
    const store = createEntityStore({ connectionString: place.url, schema: place.schema });
    const registry = createEntityRegistry({ secretRegistry, emitter, ...extra });
    registry.setStore({ store });
    return { events, emitter, secretRegistry, store, registry };
  }

  function kindOf(registry: ReturnType<typeof pod>['registry'], kind: string, states: Map<string, State>) {
    const read = async (ids: ReadonlyArray<string>) => Object.fromEntries(ids.filter((id) => states.has(id)).map((id) => [id, states.get(id)!]));
    const handle = registry.defineEntity<State>({ kind, state: z.object({ status: z.string(), note: z.unknown().optional() }), read });
    const set = (id: string, state: State, runId?: string) =>
      handle.mutate({
        id,
        opts: runId === undefined ? undefined : { runId },
        apply: async () => {
          states.set(id, state);
          return state;
        },
      });
    return { handle, set };
  }

  it('records, answers, and keeps the history', async () => {
    const { events, store, registry, secretRegistry } = pod();
    const { handle, set } = kindOf(registry, 'incident', new Map());
    secretRegistry.register('run', ['s3cr3t']);
    await set('7', { status: 'open' });
    await set('7', { status: 'closed', note: 'a\0b' });
    await set('7', { status: 'has s3cr3t', note: { b: 1, a: [2] } }, 'run');
    expect(events.map(({ changedFields }) => changedFields)).toEqual([['status'], ['note', 'status'], ['note', 'status']]);
    expect(events[2]!.next).toEqual({ status: 'has ****', note: { b: 1, a: [2] } });
    expect(await handle.transitionCount({ id: '7', field: 'status', windowMs: 60_000 })).toBe(3);
    expect(await handle.transitionCount({ id: '7', field: 'status', windowMs: Infinity })).toBe(3);
    expect(await handle.inStateForMs('7', 'note')).toBeLessThan(20_000);
    const { rows } = await store.history({ kind: 'incident', entityId: '7', field: 'status' });
    expect(rows.map(({ fromValue, toValue, masked }) => [fromValue, toValue, masked])).toEqual([
      ['closed', 'has ****', true],
      ['open', 'closed', false],
      [null, 'open', false],
    ]);
    await set('7', { status: 'plain' });
    expect(events[3]!.prev).toMatchObject({ status: 'has ****' });
    await store.close();
    await expect(set('7', { status: 'x' })).rejects.toMatchObject({ hfCode: 'HF_CLOSED' });
  });

  it('commits what waits together', async () => {
    const { events, store, registry } = pod();
    const { set } = kindOf(registry, 'many', new Map());
    await Promise.all(Array.from({ length: 500 }, (_, i) => set(`m${i}`, { status: 'on' })));
    expect(events).toHaveLength(500);
    const { appended, batches, gaps } = await store.stats();
    expect({ appended, gaps }).toEqual({ appended: 500, gaps: 0 });
    expect(batches).toBeLessThan(200);
    await store.close();
  });

  it('two pods that write one entity get one order of positions', async () => {
    const states = new Map<string, State>();
    const [a, b] = [pod(), pod()];
    const [first, second] = [kindOf(a.registry, 'shared', states), kindOf(b.registry, 'shared', states)];
    await Promise.all(Array.from({ length: 40 }, (_, i) => (i % 2 ? first : second).set('s', { status: `v${i}` })));
    const { rows } = await a.store.history({ kind: 'shared', entityId: 's', limit: 1000 });
    expect(new Set(rows.map(({ id }) => id)).size).toBe(rows.length);
    expect(await first.handle.transitionCount({ id: 's', field: 'status', windowMs: Infinity })).toBe(rows.length);
    await Promise.all([a.store.close(), b.store.close()]);
  });
});
