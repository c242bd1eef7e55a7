/** The stores that holdfast keeps itself: the public side of a transition log in the addon. */
import { randomUUID } from 'node:crypto';
import { isRecord, invalidArgument } from '../check';
import { HoldfastError, builtinError } from '../errors';
import { call, callSync } from '../native';
import { stableStringify } from './canonical';
import { checkDate, checkFlapping, checkHistoryQuery, checkTimeInState } from './check-input';
import { changeNameOf } from './change-name';
import { EntityChangeStream } from './change-stream';
import { StoreCore, registerStore, type Log } from './store-core';
import type {
  EntityChanged,
  EntityChangesOptions,
  EntityChangedUnsubscribe,
  EntityDurability,
  EntityStore,
  EntityStoreOptions,
  EntityStoreStats,
  EntityTx,
  FlappingQuery,
  HistoryPage,
  HistoryQuery,
  NativeEntityStore,
  TimeInState,
  TimeInStateQuery,
  TransitionAppend,
} from './types';

/** Year 1: a window that begins before it means "everything". */
const FIRST_MS = -62_135_596_800_000;
/** Microseconds that a double and the databases can hold. */
const LAST_US = 9_000_000_000_000_000;
const PAGE_LIMIT = 10_000;

/** What makes one store differ from another. */
export interface StoreParts {
  readonly log: Log;
  readonly durability: EntityDurability;
  /** Whether other processes can use the same database. */
  readonly isShared: boolean;
  /** How rows get into a transaction of the caller. */
  appendInside(tx: EntityTx): EntityStore;
}

interface PlainRow extends TransitionAppend {
  kind: string;
  entityId: string;
  index: number;
  changeId: string;
  masked: boolean;
}

/** Makes the public side of a log. */
export function storeOver(parts: StoreParts, options: EntityStoreOptions): NativeEntityStore {
  const { log, durability, isShared } = parts;
  const core = new StoreCore(log, durability, options.logger, options.clock, options.retention, isShared);
  const embedded = log.isEmbedded();
  /** The rows of the transactions that are open. */
  const open = new WeakMap<object, PlainRow[]>();
  /** Opening takes no turn of the event loop once it has happened. */
  const opened = async (): Promise<void> => core.open();

  async function count(kind: string, entityId: string, field: string, sinceMs: number): Promise<number> {
    const sinceUs = sinceMs < FIRST_MS ? -LAST_US : Math.min(Math.trunc(sinceMs) * 1000, LAST_US);
    await opened();
    if (embedded) return callSync(() => log.transitionCountHere(kind, entityId, field, sinceUs));
    return call(log.transitionCount(kind, entityId, field, sinceUs));
  }

  async function historyRows(query: Record<string, unknown>): Promise<{ id: string; field: string; fromValue: string | null; toValue: string; masked: boolean; changeId: string | null; atUs: number; seq: number }[]> {
    await opened();
    return JSON.parse(await call(log.history(JSON.stringify(query, wellFormed)))) as never;
  }

  const store: NativeEntityStore = {
    async runInTransaction<R>(fn: (tx: EntityTx) => Promise<R>): Promise<R> {
      const tx = {};
      const rows: PlainRow[] = [];
      open.set(tx, rows);
      await opened();
      try {
        const result = await fn(tx);
        if (rows.length > 0) await call(log.appendRows(JSON.stringify(rows, wellFormed), core.now())).catch(appendFailed);
        return result;
      } finally {
        open.delete(tx);
      }
    },

    async appendTransitions({ tx, kind, entityId, transitions }) {
      const rows = isRecord(tx) ? open.get(tx) : undefined;
      if (rows === undefined) {
        throw invalidArgument('tx', 'the transaction that runInTransaction() gave, while it runs', tx);
      }
      // A failed append may have been committed, so the next try has its ids again; the database skips what it has.
      const name = changeNameOf(transitions);
      const changeId = name?.changeId ?? randomUUID();
      transitions.forEach(({ field, fromValue, toValue }, index) => {
        const from = fromValue === null ? null : String(fromValue).toWellFormed();
        const masked = name?.masked?.[index] ?? false;
        rows.push({ kind, entityId, field: field.toWellFormed(), fromValue: from, toValue: String(toValue).toWellFormed(), index, changeId, masked });
      });
    },

    async inStateSince({ kind, entityId, field, currentValue }) {
      const value = stableStringify(currentValue);
      await opened();
      const us = embedded
        ? callSync(() => log.inStateSinceHere(kind, entityId, field, value))
        : await call(log.inStateSince(kind, entityId, field, value));
      return us === null || us === undefined ? null : new Date(Math.floor(us / 1000));
    },

    async transitionCount({ kind, entityId, field, windowMs, now }) {
      if (typeof windowMs !== 'number' || Number.isNaN(windowMs)) {
        throw builtinError(RangeError, 'transitionCount: windowMs must be a number', { hfCode: 'HF_ENTITY_WINDOW_INVALID' });
      }
      checkDate(now, 'now', 'transitionCount');
      return count(kind, entityId, field, now.getTime() - windowMs);
    },

    ready: () => core.ready(),
    close: () => core.close(),
    [Symbol.asyncDispose]: () => core.close(),

    async history(query: HistoryQuery): Promise<HistoryPage> {
      checkHistoryQuery(query);
      const limit = query.limit ?? 100;
      if (!Number.isInteger(limit) || limit < 1 || limit > PAGE_LIMIT) {
        throw invalidArgument('limit', `a whole number from 1 to ${PAGE_LIMIT}`, query.limit);
      }
      const { kind, entityId, field, from, to, cursor } = query;
      const after = cursor === undefined ? undefined : readCursor(cursor);
      const rows = await historyRows({ kind, entityId, field, fromMs: from?.getTime(), toMs: to?.getTime(), limit, after });
      const last = rows.length === limit ? rows.at(-1) : undefined;
      return {
        rows: rows.map(({ id, field, fromValue, toValue, masked, changeId, atUs }) => {
          return { id, field, fromValue, toValue, masked, changeId, at: new Date(Math.floor(atUs / 1000)) };
        }),
        cursor: last === undefined ? null : `${last.atUs}.${last.seq}`,
      };
    },

    async prune(now?: Date) {
      checkDate(now, 'now', 'prune', 'optional');
      return { deleted: await core.prune(now === undefined ? core.now() : now.getTime()) };
    },

    async timeInState(query: TimeInStateQuery): Promise<TimeInState[]> {
      checkTimeInState(query);
      const { kind, entityId, field, from, to } = query;
      const [fromMs, toMs] = [from.getTime(), to === undefined ? core.now() : to.getTime()];
      const times = new Map<string, number>();
      const add = (value: string | null, ms: number): void => {
        if (value !== null && ms > 0) times.set(value, (times.get(value) ?? 0) + ms);
      };
      // What the field was at the beginning: the last row before it, or what the first row after it says it had been.
      const [before] = await historyRows({ kind, entityId, field, toMs: fromMs, limit: 1 });
      let value: string | null = before?.toValue ?? null;
      let at = fromMs;
      let isFirst = before === undefined;
      let after: [number, number] | undefined;
      for (;;) {
        const rows = await historyRows({ kind, entityId, field, fromMs, toMs, limit: PAGE_LIMIT, ascending: true, after });
        for (const row of rows) {
          if (isFirst) value = row.fromValue;
          isFirst = false;
          add(value, row.atUs / 1000 - at);
          value = row.toValue;
          at = row.atUs / 1000;
        }
        const last = rows.at(-1);
        if (last === undefined || rows.length < PAGE_LIMIT) break;
        after = [last.atUs, last.seq];
      }
      add(value, toMs - at);
      return [...times].map(([text, ms]) => ({ value: text, ms })).sort((a, b) => b.ms - a.ms);
    },

    async isFlapping(query: FlappingQuery) {
      checkFlapping(query);
      const { kind, entityId, field, count: least, windowMs } = query;
      return (await count(kind, entityId, field, core.now() - windowMs)) >= least;
    },

    withTransaction: (tx) => parts.appendInside(tx),

    changes: (changesOptions: EntityChangesOptions = {}) => {
      needsEvents(durability);
      return new EntityChangeStream((listener, ended) => core.listen(listener, ended), changesOptions, !embedded);
    },

    onChange(listener: (change: EntityChanged) => void, { kind, signal }: EntityChangesOptions = {}): EntityChangedUnsubscribe {
      needsEvents(durability);
      const end = core.listen((change) => {
        if (kind === undefined || change.kind === kind) listener(change);
      });
      signal?.addEventListener('abort', end, { once: true });
      if (signal?.aborted) end();
      return async () => {
        signal?.removeEventListener('abort', end);
        end();
      };
    },

    async stats(): Promise<EntityStoreStats> {
      await opened();
      const counts = JSON.parse(await call(log.stats())) as { rows: number; batches: number; gaps: number; undelivered: number; oldestUndeliveredMs: number | null; clockSkewMs: number | null };
      return {
        appended: counts.rows,
        batches: counts.batches,
        gaps: counts.gaps,
        pending: counts.undelivered,
        unfinished: core.unfinished(),
        redelivered: core.counters.redelivered,
        recovered: core.counters.recovered,
        lagMs: counts.oldestUndeliveredMs === null ? 0 : Math.max(core.now() - counts.oldestUndeliveredMs, 0),
        clockSkewMs: counts.clockSkewMs,
      };
    },
  };
  registerStore(store, core);
  return store;
}

/** The databases hold no lone surrogates, and the engine reads no text with one. */
function wellFormed(_key: string, value: unknown): unknown {
  return typeof value === 'string' ? value.toWellFormed() : value;
}

function needsEvents(durability: EntityDurability): void {
  if (durability !== 'after-commit') return;
  throw new HoldfastError('changes of a store are only recorded with durability "outbox" or "journal"; pass one of them to createEntityStore', {
    hfCode: 'HF_INVALID_ARGUMENT',
  });
}

/** Throws the error of rows that were not appended; that of a store that is closed says so itself. */
function appendFailed(error: unknown): never {
  if (!(error instanceof HoldfastError) || error.hfCode === 'HF_CLOSED' || error.hfCode === 'HF_PANIC') throw error;
  throw new HoldfastError(`entity transitions could not be appended: ${error.message}`, { hfCode: 'HF_ENTITY_APPEND_FAILED', cause: error });
}

function readCursor(cursor: string): [number, number] {
  const match = /^(-?\d{1,16})\.(\d{1,16})$/.exec(cursor);
  if (match === null) throw invalidArgument('cursor', 'the cursor of an earlier page', cursor);
  return [Number(match[1]), Number(match[2])];
}
