/**
 * The delegate: the transition store that works through the application's own drizzle object, where holdfast must not or cannot have
 * connections of its own. Every call is a transaction of the object, so that what a wrapper does in its transactions applies.
 */
import { randomUUID } from 'node:crypto';
import { EventEmitter } from 'node:events';

import { invalidArgument } from '../check';
import { builtinError, HoldfastError, type HoldfastErrorCode } from '../errors';
import { stableStringify } from './canonical';
import { changeNameOf } from './change-name';
import { executorOf, hasPool, isEnded, poolEnded, whileOpen, type DrizzleDatabase, type DrizzleTransaction, type Execute } from './drizzle-target';
import { assertUsable, parseFacts, probeText, probeThroughDrizzle, tableMissing, type PlaceFacts } from './drizzle-probe';
import { serializeFieldValue } from './field-text';
import { pgText, TransitionSql, type FieldKey, type Statement } from './transition-sql';
import type {
  EntityRetention,
  EntityStore,
  EntityTx,
  FlappingQuery,
  HistoryPage,
  HistoryQuery,
  Logger,
  TimeInState,
  TimeInStateQuery,
  TransitionAppend,
} from './types';

/** What a delegate needs to know beside the database. */
export interface DelegateOptions {
  /** What a probe has found already. Default: it probes on first use. */
  facts?: PlaceFacts;
  /** Why there are no native connections: said once, as a warning, on first use. Default: nothing is said. */
  reason?: string;
  logger?: Logger;
  /** What `prune` deletes. Default: nothing. */
  retention?: EntityRetention;
}

/** One change of one entity, to append. */
export interface DelegateAppend {
  tx: EntityTx;
  kind: string;
  entityId: string;
  transitions: ReadonlyArray<TransitionAppend & { masked?: boolean }>;
  /** Names the change, so that a second append of it changes nothing. Default: the change of a handle, or a new UUID. */
  changeId?: string;
}

/** A store over a drizzle object. Plain functions, as every store's. */
export interface Delegate extends EntityStore {
  appendTransitions(args: DelegateAppend): Promise<void>;
  /** Probes, if that was not done or failed. Rejects with `HF_ENTITY_TABLE_MISSING` as long as there is no usable table. */
  ready(): Promise<PlaceFacts>;
  history(query: HistoryQuery): Promise<HistoryPage>;
  timeInState(query: TimeInStateQuery): Promise<TimeInState[]>;
  isFlapping(query: FlappingQuery): Promise<boolean>;
  prune(now?: Date): Promise<{ deleted: number }>;
  /** The same store inside a transaction of the caller. It probes there: a pool of one connection has no other one to give. */
  withTransaction(tx: EntityTx): EntityStore & { appendTransitions(args: DelegateAppend): Promise<void> };
  /** How many rows were appended, in how many statements. */
  readonly counts: { appended: number; batches: number };
}

/** Makes a delegate. Nothing is asked before the first use. */
export function createDelegate(db: DrizzleDatabase, options: DelegateOptions = {}): Delegate {
  const { logger, retention = {} } = options;
  let { facts: given, reason } = options;
  /** The probe that is under way or was good, and what it found. */
  let known: Promise<PlaceFacts> | null = null;
  let found: PlaceFacts | null = null;
  const counts = { appended: 0, batches: 0 };
  const sides = hasPool(db);
  /** The last transaction on a single client, whose transactions would run into each other. */
  let last: Promise<unknown> = Promise.resolve();

  function assertOpen(): void {
    if (isEnded(db)) throw poolEnded();
  }

  function facts(): Promise<PlaceFacts> {
    if (reason !== undefined) {
      logger?.warn(`entity store: using the drizzle object's own connections, because ${reason}`);
      reason = undefined;
    }
    if (known === null) {
      const asked = given?.tableOid ? Promise.resolve(given) : transaction(() => probeThroughDrizzle(db));
      known = asked.then((answer) => {
        assertUsable(answer);
        return (found = answer);
      });
      // A table that is not there yet is looked for again.
      known.catch(forget);
    }
    return known;
  }

  function forget(): void {
    known = null;
    found = null;
    given = undefined;
  }

  /** Runs what opens a transaction of the object; one after the other where they share a connection. */
  async function transaction<R>(open: () => Promise<R>): Promise<R> {
    assertOpen();
    if (sides) return open();
    const turn = last.then(open, open);
    last = turn.catch(() => {});
    return turn;
  }

  function run<R>(work: (tx: DrizzleTransaction) => Promise<R>): Promise<R> {
    return transaction(async () => {
      let thrown: { error: unknown } | undefined;
      let unwatch: (() => void) | undefined;
      try {
        return await whileOpen(db, () =>
          db.transaction(async (tx) => {
            unwatch = watchErrors(tx.session?.client);
            try {
              return await work(tx);
            } catch (error) {
              thrown = { error };
              throw error;
            }
          }),
        );
      } catch (error) {
        // Where the connection is gone, the failing ROLLBACK would hide what went wrong.
        throw thrown ? thrown.error : error;
      } finally {
        unwatch?.();
      }
    });
  }

  async function execute(run: Execute, [text, values]: Statement, hfCode: HoldfastErrorCode): Promise<ReadonlyArray<Record<string, unknown>>> {
    try {
      return await run(text, values);
    } catch (error) {
      // The table was dropped or altered: the next call looks at it anew.
      if (['42P01', '42703', '42P10'].includes((error as { code?: string }).code ?? '')) forget();
      throw translate(error, hfCode);
    }
  }

  async function append(run: Execute, place: PlaceFacts, { kind, entityId, transitions, changeId: given }: DelegateAppend): Promise<void> {
    if (transitions.length === 0) return;
    const name = changeNameOf(transitions);
    const changeId = given ?? name?.changeId ?? randomUUID();
    const rows = transitions.map(({ field, fromValue, toValue, masked }, n) => ({
      id: `${changeId}.${n}`,
      changeId,
      kind: pgText(kind),
      entityId: pgText(entityId),
      field: pgText(field),
      fromValue: fromValue === null ? null : pgText(fromValue),
      toValue: pgText(toValue),
      masked: masked ?? name?.masked?.[n] ?? false,
    }));
    await execute(run, sqlOf(place).append(rows), 'HF_ENTITY_APPEND_FAILED');
    counts.appended += rows.length;
    counts.batches += 1;
  }

  /** The reading half of a store: `ask` answers statements, wherever they run. */
  function reader(ask: (make: (sql: TransitionSql) => Statement) => Promise<ReadonlyArray<Record<string, unknown>>>) {
    const inStateSince: EntityStore['inStateSince'] = async ({ kind, entityId, field, currentValue }) => {
      const key = { kind, entityId, field };
      if (typeof currentValue === 'object' && currentValue !== null) {
        const since = await sinceByMeaning(ask, key, currentValue);
        if (since !== null) return since;
      }
      const text = pgText(serializeFieldValue(currentValue));
      const [row] = await ask((sql) => sql.since(key, [text]));
      return dateOf(row?.masked) ?? dateOf(row?.since);
    };
    const transitionCount: EntityStore['transitionCount'] = async ({ kind, entityId, field, windowMs, now }) => {
      const bound = windowStart(windowMs, now);
      if (bound === 'never') return 0;
      const [row] = await ask((sql) => sql.count({ kind, entityId, field }, bound));
      return Number(row?.count ?? 0);
    };
    return { inStateSince, transitionCount };
  }

  async function read(make: (sql: TransitionSql) => Statement): Promise<ReadonlyArray<Record<string, unknown>>> {
    const statement = make(sqlOf(await facts()));
    // On a single client a read may come from inside a transaction on it: waiting for its end would be for ever.
    if (sides) return run((tx) => execute(executorOf(tx), statement, 'HF_DATABASE'));
    assertOpen();
    return execute(async (text, values) => rowsOf(await (db.$client as QueryClient).query(text, values)), statement, 'HF_DATABASE');
  }

  return {
    async runInTransaction(fn) {
      await facts();
      return run((tx) => fn(tx));
    },
    async appendTransitions(args) {
      const run = executorOf(args.tx);
      await append(run, await facts(), args);
    },
    ...reader(read),
    ready: facts,
    async history(query) {
      const { limit = 100, cursor } = query;
      if (!Number.isInteger(limit) || limit < 1 || limit > 10_000) throw invalidArgument('limit', 'a whole number from 1 to 10000', limit);
      const rows = await read((sql) =>
        sql.history({
          kind: query.kind,
          entityId: query.entityId,
          field: query.field,
          fromMs: millis(query.from, 'from'),
          toMs: millis(query.to, 'to'),
          after: cursor === undefined ? undefined : openCursor(cursor),
          limit: limit + 1,
        }),
      );
      const page = rows.slice(0, limit);
      const end = page.at(-1);
      return {
        rows: page.map((row) => ({
          id: row.id as string,
          field: row.field as string,
          fromValue: row.from_value as string | null,
          toValue: row.to_value as string,
          masked: row.masked === 'true',
          changeId: row.change_id as string | null,
          at: new Date(Math.floor(Number(row.at) / 1000)),
        })),
        cursor: rows.length > limit && end ? Buffer.from(JSON.stringify([end.at, end.tie])).toString('base64url') : null,
      };
    },
    async timeInState({ kind, entityId, field, from, to = new Date() }) {
      const [fromMs, toMs] = [millis(from, 'from'), millis(to, 'to')];
      if (fromMs === undefined || toMs === undefined) throw invalidArgument('from', 'a valid Date', from);
      if (toMs <= fromMs) return [];
      const rows = await read((sql) => sql.timeInState({ kind, entityId, field }, fromMs, toMs));
      return rows.map((row) => ({ value: row.value as string, ms: Number(row.ms) }));
    },
    async isFlapping({ kind, entityId, field, count, windowMs }) {
      if (!Number.isInteger(count) || count < 1) throw invalidArgument('count', 'a whole number, 1 or more', count);
      const bound = windowStart(windowMs, new Date());
      if (bound === 'never') return false;
      const [row] = await read((sql) => sql.count({ kind, entityId, field }, bound));
      return Number(row?.count ?? 0) >= count;
    },
    async prune(now = new Date()) {
      const { maxAgeMs, maxRowsPerField } = retention;
      const limits = { olderThanMs: maxAgeMs === undefined ? null : now.getTime() - maxAgeMs, rowsMax: maxRowsPerField ?? null };
      let deleted = 0;
      for (let part = PRUNE_ROWS; part === PRUNE_ROWS; deleted += part) {
        const statement = sqlOf(await facts()).prune(limits, PRUNE_ROWS);
        if (statement === null) break;
        const [row] = await run((tx) => execute(executorOf(tx), statement, 'HF_DATABASE'));
        part = Number(row?.deleted ?? 0);
      }
      return { deleted };
    },
    withTransaction(tx) {
      const inside = executorOf(tx);
      let probed: Promise<PlaceFacts> | undefined;
      // Not a probe that is still under way: it may wait for the very connection that this transaction holds.
      const place = (): Promise<PlaceFacts> => (probed ??= found ? Promise.resolve(found) : probeInside(inside));
      return {
        runInTransaction: (fn) => fn(tx),
        appendTransitions: async (args) => append(inside, await place(), args),
        ...reader(async (make) => execute(inside, make(sqlOf(await place())), 'HF_DATABASE')),
      };
    },
    counts,
  };
}

/** Most rows that one transaction of `prune` deletes. */
const PRUNE_ROWS = 1000;
/** How many rows of a field are compared by meaning, first and at most; beyond, only by text. */
const COMPARED_ROWS = [10, 1000];

/**
 * Listens for errors of a client. One that is lent by a pool has no listener: a connection that is cut between two statements of a
 * transaction would end the process. The next statement says what happened.
 */
function watchErrors(client: unknown): (() => void) | undefined {
  if (!(client instanceof EventEmitter)) return undefined;
  const ignore = (): void => {};
  client.on('error', ignore);
  return () => client.off('error', ignore);
}

interface QueryClient {
  query(text: string, values: ReadonlyArray<unknown>): Promise<unknown>;
}

function rowsOf(result: unknown): ReadonlyArray<Record<string, unknown>> {
  return (result as { rows?: ReadonlyArray<Record<string, unknown>> } | null)?.rows ?? [];
}

const builders = new WeakMap<PlaceFacts, TransitionSql>();
function sqlOf(facts: PlaceFacts): TransitionSql {
  let sql = builders.get(facts);
  if (sql === undefined) {
    assertUsable(facts);
    builders.set(facts, (sql = new TransitionSql(facts)));
  }
  return sql;
}

/** Probes in somebody's transaction, with a query that cannot fail for a missing table: that would end the transaction. */
async function probeInside(run: Execute): Promise<PlaceFacts> {
  const [row] = await run(probeText(), []);
  const facts = parseFacts(String(row?.facts));
  assertUsable(facts);
  return facts;
}

/**
 * Finds the newest row whose text means the same as an object or array: `jsonb` gives keys back in another order than they were
 * written in. `null` = not among the newest rows. A masked newest row counts as the one, whatever was masked.
 */
async function sinceByMeaning(
  ask: (make: (sql: TransitionSql) => Statement) => Promise<ReadonlyArray<Record<string, unknown>>>,
  key: FieldKey,
  value: object,
): Promise<Date | null> {
  let wanted: string;
  try {
    wanted = pgText(stableStringify(value));
  } catch {
    // A cycle has no canonical text; its field text is found by text.
    return null;
  }
  for (const limit of COMPARED_ROWS) {
    const rows = await ask((sql) => sql.newest(key, limit));
    const row = rows[0]?.masked === 'true' ? rows[0] : rows.find((each) => meaning(each.value as string) === wanted);
    if (row !== undefined || rows.length < limit) return dateOf(row?.at);
  }
  return null;
}

function meaning(text: string): string {
  try {
    return pgText(stableStringify(JSON.parse(text)));
  } catch {
    return text;
  }
}

/** The earliest time that counts, in milliseconds; `null` = all times, `never` = none. */
function windowStart(windowMs: number, now: Date): number | null | 'never' {
  if (typeof windowMs !== 'number' || Number.isNaN(windowMs)) {
    throw builtinError(RangeError, 'transitionCount: windowMs must be a number', { hfCode: 'HF_ENTITY_WINDOW_INVALID' });
  }
  const start = Math.trunc(now.getTime() - windowMs);
  if (start < YEAR_ONE) return null;
  return start > LAST_DATE ? 'never' : start;
}
const YEAR_ONE = Date.parse('0001-01-01T00:00:00.000Z');
const LAST_DATE = 8.64e15;

function dateOf(ms: unknown): Date | null {
  return ms === null || ms === undefined ? null : new Date(Number(ms));
}

function millis(date: Date | undefined, name: string): number | undefined {
  if (date === undefined) return undefined;
  const ms = date instanceof Date ? date.getTime() : Number.NaN;
  if (Number.isNaN(ms)) throw invalidArgument(name, 'a valid Date', date);
  return ms;
}

function openCursor(cursor: string): { at: string; tie: string } {
  try {
    const [at, tie] = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8')) as unknown[];
    if (typeof at === 'string' && Number.isFinite(Number(at)) && typeof tie === 'string') return { at, tie };
  } catch {
    // Not one of ours: said below.
  }
  throw invalidArgument('cursor', 'the cursor of an earlier page', cursor);
}

/** What a driver's error says, without what it quotes: its details list the values of the row. */
function translate(error: unknown, hfCode: HoldfastErrorCode): HoldfastError {
  const { code, message } = error as { code?: unknown; message?: unknown };
  const state = typeof code === 'string' ? code : undefined;
  if (state === '42P01') return tableMissing();
  const said = typeof message === 'string' ? message : 'unknown failure of the driver';
  // Class 22, data exceptions: "invalid input syntax for type x: "the value"".
  const safe = state?.startsWith('22') ? said.replace(/:? "[\s\S]*$/, '') : said;
  return new HoldfastError(safe, { hfCode, cause: Object.assign(new Error(safe), state === undefined ? {} : { code: state }) });
}
