/**
 * The store over a drizzle object: decides on first use whether holdfast's own connections provably lead to the same table, and works
 * through them or through the object.
 */
import { HoldfastError } from '../errors';
import { Lifecycle } from '../lifecycle';
import { createDelegate, type Delegate } from './delegate-store';
import { assertUsable, probeThroughDrizzle, type PlaceFacts } from './drizzle-probe';
import { deriveConnection, isEnded, type DerivedConnection, type DrizzleDatabase } from './drizzle-target';
import type { EntityStoreOptions, NativeEntityStore } from './types';

/**
 * Opens a store over connections of holdfast's own, pinned to the schema of `place`, after asking the same probe there. What it says
 * otherwise is why it must not be used. Its rejection counts as "could not connect".
 */
export type OpenNative = (connection: DerivedConnection, place: PlaceFacts) => Promise<{ store: NativeEntityStore } | { differs: string }>;

/** What a choice gave: one of the two serves every call from then on. */
type Chosen = { store: NativeEntityStore } | { delegate: Delegate };

/** Makes the store. Nothing is asked before the first use. */
export function drizzleStore(db: DrizzleDatabase, options: EntityStoreOptions = {}, openNative?: OpenNative): NativeEntityStore {
  const { driver = 'auto', durability = 'after-commit', logger, retention } = options;
  const life = new Lifecycle('entity store');
  /** For transactions of the caller, whichever way the store itself works. */
  const delegate = createDelegate(db, { logger, retention });
  let choice: Promise<Chosen> | null = null;
  let timer: ReturnType<typeof setInterval> | undefined;

  async function choose(): Promise<Chosen> {
    assertOpen();
    if (durability !== 'after-commit') {
      const message = `\`durability: '${durability}'\` is not available through a drizzle object; make the store over { connectionString } for that`;
      throw new HoldfastError(message, { hfCode: 'HF_UNAVAILABLE' });
    }
    if (driver === 'delegate' || openNative === undefined) {
      await delegate.ready();
      return delegated(null);
    }
    const facts = await probeThroughDrizzle(db);
    assertUsable(facts);
    const derived = deriveConnection(db);
    if ('delegate' in derived) return delegated(derived.delegate, facts);
    const opened = await openNative(derived.connection, facts).catch((cause: unknown) => ({ differs: 'a connection of its own could not be made', cause }));
    if ('store' in opened) return opened;
    const what = opened.differs.startsWith('it is') ? `a connection made from its options leads elsewhere: ${opened.differs}` : opened.differs;
    return delegated(what, facts, 'cause' in opened ? opened.cause : undefined);
  }

  function delegated(reason: string | null, facts?: PlaceFacts, cause?: unknown): Chosen {
    if (driver === 'native') {
      const message = `the drizzle object cannot be replaced by connections of holdfast's own: ${reason ?? 'there is no native engine'}`;
      throw new HoldfastError(`${message}; use \`driver: 'auto'\``, { hfCode: 'HF_UNAVAILABLE', cause });
    }
    if (durability !== 'after-commit') {
      const message = `\`durability: '${durability}'\` needs connections of holdfast's own, which the drizzle object does not allow`;
      throw new HoldfastError(reason === null ? message : `${message}: ${reason}`, { hfCode: 'HF_UNAVAILABLE', cause });
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

  function keepRetention(made: Chosen): void {
    const everyMs = retention?.everyMs;
    if (everyMs === undefined || 'store' in made || timer !== undefined) return;
    timer = setInterval(() => {
      store.prune().catch((error: unknown) => logger?.warn(`entity retention failed: ${error instanceof Error ? error.message : String(error)}`));
    }, everyMs);
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

  async function close(): Promise<void> {
    clearInterval(timer);
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
    inStateSince: (args) => use((one) => one.inStateSince(args)),
    transitionCount: (args) => use((one) => one.transitionCount(args)),
    ready: () => use(async (one) => void (await one.ready())),
    close,
    [Symbol.asyncDispose]: close,
    // An application's table has no positions to page by: these go through its own driver.
    history: (query) => use(() => delegate.history(query)),
    prune: (now) => use(() => delegate.prune(now)),
    timeInState: (query) => use(() => delegate.timeInState(query)),
    isFlapping: (query) => use((one) => one.isFlapping(query)),
    withTransaction: (tx) => delegate.withTransaction(tx),
    changes: notRecorded,
    onChange: notRecorded,
    stats: () =>
      use(async (one) => {
        if ('stats' in one) return one.stats();
        const { appended, batches } = one.counts;
        return { appended, batches, gaps: 0, pending: 0, redelivered: 0, recovered: 0, lagMs: 0, clockSkewMs: null };
      }),
  };
  return store;
}

function notRecorded(): never {
  const message = 'changes are not recorded through a drizzle object; a store over { connectionString } records them';
  throw new HoldfastError(message, { hfCode: 'HF_INVALID_ARGUMENT' });
}
