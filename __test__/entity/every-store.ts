/** One store of every kind, so that one table of behaviour can be run over all of them. */
import { createEntityStore, serializeFieldValue, type EntityStore, type EntityStoreOptions, type EntityTx, type NativeEntityStore, type TransitionAppend } from 'holdfast';

import { freshSchema, query, type FreshSchema } from '../support/postgres';
import { closeAfterTest, openStore, tempDir } from './support';

/** A row of the history, whatever store it is in. */
export interface Row extends TransitionAppend {
  entityId: string;
}

/** A store under test. */
export interface Subject {
  store: EntityStore;
  /** The rows of a kind's entity, oldest first. */
  rows(entityId: string, kind?: string): Promise<Row[]>;
}

/** The same, of holdfast's own. */
export interface OwnSubject extends Subject {
  store: NativeEntityStore;
  /** Another store object over the same database; `null` where there is nothing to open again. */
  reopen: (() => NativeEntityStore) | null;
  /** Where it is in Postgres. */
  place?: FreshSchema;
  /** Where it is on disk. */
  path?: string;
}

interface StoredRow extends Row {
  kind: string;
  at: number;
}

/** A store as a program writes it that wants real answers: rows in memory, a transaction is undone as a whole. */
export function plainStore() {
  const rows: StoredRow[] = [];
  const open = new Map<EntityTx, StoredRow[]>();
  const of = (kind: string, entityId: string, field: string): StoredRow[] => rows.filter((row) => row.kind === kind && row.entityId === entityId && row.field === field);
  const store: EntityStore = {
    async runInTransaction(fn) {
      const tx = Symbol('tx');
      open.set(tx, []);
      try {
        const result = await fn(tx);
        rows.push(...open.get(tx)!);
        return result;
      } finally {
        open.delete(tx);
      }
    },
    async appendTransitions({ tx, kind, entityId, transitions }) {
      const at = Date.now();
      open.get(tx)!.push(...transitions.map(({ field, fromValue, toValue }) => ({ kind, entityId, field, fromValue, toValue, at })));
    },
    async inStateSince({ kind, entityId, field, currentValue }) {
      const text = serializeFieldValue(currentValue);
      const found = of(kind, entityId, field).filter(({ toValue }) => toValue === text).at(-1);
      return found === undefined ? null : new Date(found.at);
    },
    async transitionCount({ kind, entityId, field, windowMs, now }) {
      return of(kind, entityId, field).filter(({ at }) => at >= now.getTime() - windowMs).length;
    },
  };
  return { store, rows };
}

/** The same as a class: its methods are on the prototype, and need their `this`. */
export class PlainStore implements EntityStore {
  readonly #made = plainStore();
  get rows(): StoredRow[] {
    return this.#made.rows;
  }
  runInTransaction<R>(fn: (tx: EntityTx) => Promise<R>): Promise<R> {
    return this.#made.store.runInTransaction(fn);
  }
  appendTransitions(args: Parameters<EntityStore['appendTransitions']>[0]): Promise<void> {
    return this.#made.store.appendTransitions(args);
  }
  inStateSince(args: Parameters<EntityStore['inStateSince']>[0]): Promise<Date | null> {
    return this.#made.store.inStateSince(args);
  }
  transitionCount(args: Parameters<EntityStore['transitionCount']>[0]): Promise<number> {
    return this.#made.store.transitionCount(args);
  }
}

const plain = (made: { store: EntityStore; rows: StoredRow[] }): Subject => ({
  store: made.store,
  rows: async (entityId, kind = 'pod') =>
    made.rows.filter((row) => row.entityId === entityId && row.kind === kind).map(({ field, fromValue, toValue }) => ({ entityId, field, fromValue, toValue })),
});

/** Reads the history of one of holdfast's own stores. */
export async function rowsOf(store: NativeEntityStore, entityId: string, kind = 'pod'): Promise<Row[]> {
  const rows: Row[] = [];
  for (let cursor: string | undefined; ; ) {
    const page = await store.history({ kind, entityId, limit: 10_000, cursor });
    rows.push(...page.rows.map(({ field, fromValue, toValue }) => ({ entityId, field, fromValue, toValue })));
    if (page.cursor === null) return rows.reverse();
    cursor = page.cursor;
  }
}

const own = (store: NativeEntityStore, rest: Omit<OwnSubject, 'store' | 'rows'>): OwnSubject => ({ store, rows: (entityId, kind) => rowsOf(store, entityId, kind), ...rest });

/** A store in a schema of its own. It is closed after the test. */
export async function postgresSubject(options?: EntityStoreOptions): Promise<OwnSubject & { place: FreshSchema }> {
  const place = await freshSchema();
  const reopen = (): NativeEntityStore => closeAfterTest(createEntityStore({ connectionString: place.url, schema: place.schema }, options));
  return { ...own(reopen(), { reopen }), place };
}

/** holdfast's own stores, with their default durability. */
export const OWN: { name: string; keepsEvents: boolean; make: (options?: EntityStoreOptions) => Promise<OwnSubject> }[] = [
  { name: 'memory', keepsEvents: false, make: async (options) => own(openStore({ memory: true }, options), { reopen: null }) },
  {
    name: 'a file',
    keepsEvents: true,
    make: async (options) => {
      const path = `${tempDir()}/entities.db`;
      return own(openStore({ path }, options), { reopen: () => openStore({ path }, options), path });
    },
  },
  { name: 'Postgres', keepsEvents: true, make: postgresSubject },
];

/** Those, and stores that a program brings. */
export const EVERY: { name: string; keepsEvents: boolean; make: () => Promise<Subject> }[] = [
  { name: 'an object in JavaScript', keepsEvents: false, make: async () => plain(plainStore()) },
  {
    name: 'a class in JavaScript',
    keepsEvents: false,
    make: async () => {
      const store = new PlainStore();
      return plain({ store, rows: store.rows });
    },
  },
  ...OWN.map(({ name, keepsEvents, make }) => ({ name, keepsEvents, make: () => make() })),
];

/** Everything that is in the tables of a schema, as text. */
export async function dumpOf(place: FreshSchema): Promise<string> {
  const tables = await query<{ name: string }>('SELECT table_name AS name FROM information_schema.tables WHERE table_schema = $1', [place.schema]);
  const texts = await Promise.all(tables.map(({ name }) => query<{ row: string }>(`SELECT t::text AS row FROM ${place.schema}."${name}" AS t`)));
  return texts.flat().map(({ row }) => row).join('\n');
}
