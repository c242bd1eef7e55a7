/**
 * The store over a drizzle object: decides on first use whether holdfast's own connections provably lead to the same table, and works
 * through them or through the object.
 */
import { HoldfastError } from '../errors';
import { HandleState } from '../handle-state';
import { checkDate, checkFlapping, checkHistoryQuery, checkTimeInState } from './check-input';
import { createDelegate, type Delegate } from './delegate-store';
import { assertUsable, oddTable, probeThroughDrizzle, type PlaceFacts } from './drizzle-probe';
import { deriveConnection, isEnded, type DerivedConnection, type DrizzleDatabase } from './drizzle-target';
import { EntityChangeStream } from './change-stream';
import { LateInternals } from './late-internals';
import { messageOf, quietLogger } from './logging';
import { registerStore, storeInternals } from './store-core';
import type { EntityChangedUnsubscribe, EntityChangesOptions, EntityStoreOptions, NativeEntityStore } from './types';

/** What opening a store beside a drizzle object gave: it, why it must not be used, or what it lacks for the durability that is wanted. */
export type OpenedBeside = { store: NativeEntityStore } | { differs: string } | { lacks: Error };

/**
 * Opens a store over connections of holdfast's own, pinned to the schema of `place`, after asking the same probe there. Its rejection
 * counts as "could not connect".
 */
export type OpenNative = (connection: DerivedConnection, place: PlaceFacts) => Promise<OpenedBeside>;

/** What a choice gave: one of the two serves every call from then on. */
type Chosen = { store: NativeEntityStore } | { delegate: Delegate };

/** Makes the store. Nothing is asked before the first use. */
export function drizzleStore(db: DrizzleDatabase, options: EntityStoreOptions = {}, openNative?: OpenNative): NativeEntityStore {
  const { driver = 'auto', durability = 'after-commit', retention } = options;
  const logger = quietLogger(options.logger);
  const life = new HandleState('entity store');
  /** For transactions of the caller, whichever way the store itself works. */
  const delegate = createDelegate(db, { logger, retention });
  let choice: Promise<Chosen> | null = null;
  /** What keeps events is holdfast's own connections or nothing, so handles can work with the engine itself, once it is found. */
  const late = durability === 'after-commit' ? null : new LateInternals(durability, logger, () => life.read(chosen), assertOpen);
  let timer: ReturnType<typeof setInterval> | undefined;

  async function choose(): Promise<Chosen> {
    assertOpen();
    if (driver === 'delegate' || openNative === undefined) {
      if (late !== null) return delegated("`driver: 'delegate'` was asked for");
      await delegate.ready();
      return delegated(null);
    }
    const facts = await probeThroughDrizzle(db);
    assertUsable(facts);
    const odd = oddTable(facts);
    if (odd !== null) return delegated(odd, facts);
    const derived = deriveConnection(db);
    if ('delegate' in derived) return delegated(derived.delegate, facts);
    const opened = await openNative(derived.connection, facts).catch((cause: unknown) => ({ differs: 'a connection of its own could not be made', cause }));
    if ('lacks' in opened) throw opened.lacks;
    if ('store' in opened) {
      if (late !== null) settle(late, opened.store);
      return opened;
    }
    const what = opened.differs.startsWith('it is') ? `a connection made from its options leads elsewhere: ${opened.differs}` : opened.differs;
    return delegated(what, facts, 'cause' in opened ? opened.cause : undefined);
  }

  function delegated(reason: string | null, facts?: PlaceFacts, cause?: unknown): Chosen {
    if (driver === 'native') {
      const message = `the drizzle object cannot be replaced by connections of holdfast's own: ${reason ?? 'there is no native engine'}`;
      throw new HoldfastError(`${message}; use \`driver: 'auto'\``, { hfCode: 'HF_UNAVAILABLE', cause });
    }
    if (durability !== 'after-commit') {
      const message = `\`durability: '${durability}'\` needs connections of holdfast's own, which this drizzle object does not allow: ${reason}`;
      throw new HoldfastError(`${message}. Make the store over { connectionString } for that`, { hfCode: 'HF_UNAVAILABLE', cause });
    }
    return { delegate: reason === null && facts === undefined ? delegate : createDelegate(db, { logger, retention, facts, reason: reason ?? undefined }) };
  }

  function assertOpen(): void {
    if (!isEnded(db)) return;
    // The application has let go of its database: so do we, without waiting to be told.
    void choice?.then((chosen) => ('store' in chosen ? chosen.store.close() : undefined)).catch(() => {});
    throw new HoldfastError('Cannot use a pool after calling end on the pool', { hfCode: 'HF_CLOSED' });
  }

  function chosen(): Promise<Chosen> {
    if (choice === null) {
      choice = choose();
      // A table that is not there yet, or a server that is down, is tried again.
      choice.then(keepRetention, () => (choice = null));
    }
    return choice;
  }

  function keepRetention(): void {
    const everyMs = retention?.everyMs;
    // A store that keeps events has more to delete than rows, and does it itself.
    if (everyMs === undefined || late !== null || timer !== undefined) return;
    // With more, a timer of Node would not wait at all.
    timer = setInterval(() => {
      store.prune().catch((error: unknown) => logger?.warn(`entity retention failed: ${messageOf(error)}`));
    }, Math.min(everyMs, 2 ** 31 - 1));
    timer.unref?.();
  }

  /** Runs a call on whichever way was chosen. */
  function use<R>(run: (store: NativeEntityStore | Delegate) => Promise<R>): Promise<R> {
    return life.read(async () => {
      const made = await chosen();
      assertOpen();
      return run('store' in made ? made.store : made.delegate);
    });
  }

  /** A call that a table of seven columns, which has no positions to page by, can only answer to the delegate's statements. */
  function useFull<R>(run: (store: Pick<Delegate, 'history' | 'prune' | 'timeInState'>) => Promise<R>): Promise<R> {
    return use((one) => run(late === null ? delegate : one));
  }

  async function close(): Promise<void> {
    clearInterval(timer);
    late?.end();
    await life.close();
    const made = await choice?.catch(() => null);
    if (made && 'store' in made) await made.store.close();
  }

  const store: NativeEntityStore = {
    runInTransaction: (fn) => use((one) => one.runInTransaction(fn)),
    // Not through `use`: it runs inside `runInTransaction`, and a `close()` that waits for that must let it end.
    appendTransitions: async (args) => {
      const made = await chosen();
      await ('store' in made ? made.store : made.delegate).appendTransitions(args);
    },
    // The application's table knows texts only: what an object's text means, whatever the order of its keys, the delegate compares.
    inStateSince: (args) => use((one) => (late === null && typeof args.currentValue === 'object' && args.currentValue !== null ? delegate : one).inStateSince(args)),
    transitionCount: (args) => use((one) => one.transitionCount(args)),
    ready: () => use(async (one) => void (await one.ready())),
    close,
    [Symbol.asyncDispose]: close,
    history: async (query) => {
      checkHistoryQuery(query);
      return useFull((one) => one.history(query));
    },
    prune: async (now) => {
      checkDate(now, 'now', 'prune', 'optional');
      return useFull((one) => one.prune(now));
    },
    timeInState: async (query) => {
      checkTimeInState(query);
      return useFull((one) => one.timeInState(query));
    },
    isFlapping: async (query) => {
      checkFlapping(query);
      return use((one) => one.isFlapping(query));
    },
    withTransaction: (tx) => delegate.withTransaction(tx),
    changes: (changesOptions: EntityChangesOptions = {}) => {
      const from = late ?? notRecorded();
      return new EntityChangeStream((listener, ended) => from.listen(listener, ended), changesOptions, true);
    },
    onChange(listener, { kind, signal } = {}): EntityChangedUnsubscribe {
      const end = (late ?? notRecorded()).listen((change) => {
        if (kind === undefined || change.kind === kind) listener(change);
      });
      signal?.addEventListener('abort', end, { once: true });
      if (signal?.aborted) end();
      return async () => {
        signal?.removeEventListener('abort', end);
        end();
      };
    },
    stats: () =>
      use(async (one) => {
        if ('stats' in one) return one.stats();
        const { appended, batches } = one.counts;
        return { appended, batches, gaps: 0, pending: 0, unfinished: 0, redelivered: 0, recovered: 0, lagMs: 0, clockSkewMs: null };
      }),
  };
  if (late !== null) registerStore(store, late);
  return store;
}

/** Hands everything that handles and listeners did so far over to the store that was opened. */
function settle(late: LateInternals, opened: NativeEntityStore): void {
  const core = storeInternals(opened);
  if (core === undefined) throw new HoldfastError('a store that keeps events must be one of the engine', { hfCode: 'HF_UNAVAILABLE' });
  late.settle(core);
}

function notRecorded(): never {
  const message = 'changes are not recorded with durability "after-commit"; pass "outbox" or "journal" to createEntityStore';
  throw new HoldfastError(message, { hfCode: 'HF_INVALID_ARGUMENT' });
}
