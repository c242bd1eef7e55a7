// The package's entity handles as built here, with their defaults.
//
// An entity contender exports any of
//   diffEntityState({ prev, next }), sameStates(a, b), stableStringify(value),
//   maskSecretsDeep({ value, values }), createRunSecretRegistry()
//   openEntity({ target, dir, url }) -> { mutate(id, state), close(), fill?(rows), inStateSince?(id, field), transitionCount?(id, field) };
//     `target`: 'file' (log in `dir`, states in memory), 'memory' (a store in plain JavaScript), 'postgres' (log and states at `url`),
//     'postgres log' (log at `url`, states in memory). Null for a target that it does not have.
import path from 'node:path';
import { z } from 'zod';
import { createChangeEmitter, createEntityRegistry, createEntityStore, createRunSecretRegistry } from '../../dist/entity.mjs';
import { dropSchema, statesInMemory, statesInPostgres } from '../entity-owner.mjs';

export { createRunSecretRegistry, diffEntityState, maskSecretsDeep, stableStringify } from '../../dist/entity.mjs';

let schemas = 0;

/** A store in plain JavaScript, as tests and small programs bring it. */
function plainStore() {
  let rows = [];
  return {
    runInTransaction: (fn) => fn(null),
    appendTransitions: async ({ kind, entityId, transitions }) => {
      // What it holds is bounded: the collector's work on a growing heap is not the handle's.
      if (rows.length > 1000) rows = [];
      for (const transition of transitions) rows.push({ kind, entityId, ...transition, at: Date.now() });
    },
    inStateSince: async () => null,
    transitionCount: async () => rows.length,
  };
}

export async function openEntity({ target, dir, url }) {
  let time = Date.now() - 2_000_000;
  let clock; // the system's, but while a history is made up
  const inPostgres = target === 'postgres' || target === 'postgres log';
  const log = { connectionString: url, schema: `bench_log_${process.pid}_${schemas++}` };
  const embedded = () => createEntityStore({ path: path.join(dir, 'entities.db') }, { clock: () => new Date(clock ?? Date.now()) });
  const store = target === 'memory' ? plainStore() : inPostgres ? createEntityStore(log) : embedded();
  const owner = target === 'postgres' ? await statesInPostgres(url) : statesInMemory();
  const emitter = createChangeEmitter();
  let sent = 0;
  await emitter.wire(async () => void sent++);
  const registry = createEntityRegistry({ secretRegistry: createRunSecretRegistry(), emitter });
  registry.setStore({ store });
  const handle = registry.defineEntity({ kind: 'bench', state: z.looseObject({}), read: owner.read });
  await store.ready?.();
  return {
    mutate: (id, state) => handle.mutate({ id, apply: () => owner.write(id, state) }),
    inStateSince: (id, field) => handle.inStateSince(id, field),
    transitionCount: (id, field) => handle.transitionCount({ id, field, windowMs: 1e12 }),
    sent: () => sent,
    /** Puts a history of `rows` changes of one field of one entity into the log; `values(i)` is what the i-th led to. */
    async fill(id, field, rows, values = (i) => `s${i % 2}`) {
      const step = 20_000;
      for (let first = 0; first < rows; first += step) {
        clock = time += 1000;
        await store.runInTransaction(async (tx) => {
          const transitions = [];
          for (let i = first; i < Math.min(rows, first + step); i++) {
            transitions.push({ field, fromValue: i === 0 ? null : values(i - 1), toValue: values(i) });
          }
          await store.appendTransitions({ tx, kind: 'bench', entityId: id, transitions });
        });
      }
      clock = undefined;
      await owner.write(id, { [field]: values(rows - 1) });
    },
    async close() {
      await store.close?.();
      if (inPostgres) await dropSchema(url, log.schema);
      await owner.close();
    },
  };
}
