/** Gives entities that existed before their kind was defined a history to begin with. */
import { createHash } from 'node:crypto';

import { invalidArgument } from '../check';
import { nameChange } from './change-name';
import { deriveChange } from './derive';
import { handleCore, type HandleCore } from './handle';
import { snapshotState } from './snapshot';
import type { EntityHandle, EntityStore, TransitionAppend } from './types';

type State = Record<string, unknown>;

/** Options of {@link backfillEntity}. */
export interface BackfillOptions<T extends State> {
  /** Only these fields. Default: all that the kind's schema can return. */
  fields?: ReadonlyArray<keyof T & string>;
}

/** Entities that are filled at a time. */
const AT_A_TIME = 100;
/** Rows older than this are none: what `transitionCount` is asked for, in milliseconds since 1970 (year 1). */
const FIRST_MS = -62_135_596_800_000;

/**
 * Writes "entered" rows for entities that have no history yet, so that `inStateSince`, `inStateForMs` and `timeInState` answer from now
 * on, and not only after the first change of each field.
 *
 * Every field that has no row gets one: from nothing, to its current value, at the current time. Those are the rows that creating the
 * entity now would write, so a field that is `null` or absent gets none. Fields with any row are left alone, ids that `read` does not
 * know are skipped. No event is sent. Doing it again writes nothing, so it may be run at every start; each entity is filled in its turn
 * among the mutations of it, in a transaction of its own.
 *
 * Nothing is masked: leave out fields that hold secrets, by `fields`.
 *
 * @param handle a handle of `defineEntity` or `createEntityHandle`; rows go to the store that it has now
 * @param ids the entities; one that is named twice counts once
 * @returns how many rows were written
 * @throws what `read` or the store rejects with; entities that were filled by then stay so, and calling it again does the rest
 * @throws {Error} `HF_ENTITY_STORE_UNBOUND`: the registry has no store yet
 * @throws {Error} `HF_INVALID_ARGUMENT`: `handle` is no handle of holdfast, or a copy of one
 *
 * @example
 * ```ts
 * const incident = registry.defineEntity({ kind: 'incident', state, read });
 * await backfillEntity(incident, await allIncidentIds(), { fields: ['status'] });
 * ```
 */
export async function backfillEntity<T extends State>(
  handle: EntityHandle<T>,
  ids: Iterable<string>,
  options: BackfillOptions<T> = {},
): Promise<{ appended: number }> {
  const core = handleCore(handle);
  if (core === undefined) throw invalidArgument('handle', 'a handle that holdfast made', handle);
  const fields = options.fields === undefined ? null : new Set<string>(options.fields);
  const all = [...new Set(ids)];
  let appended = 0;
  for (let start = 0; start < all.length; start += AT_A_TIME) {
    const some = all.slice(start, start + AT_A_TIME);
    // One read for all. Whoever has to wait for his turn reads again: the state may be newer by then.
    const shared = core.context.read(some);
    shared.catch(() => {});
    const outcomes = await Promise.allSettled(
      some.map((id) =>
        core.inTurn(id, async (store, waited) => {
          const found = await (waited ? core.context.read([id]) : shared);
          const state = Object.hasOwn(found, id) ? found[id] : undefined;
          return state ? fill(core, store, id, state, fields) : 0;
        }),
      ),
    );
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') throw outcome.reason;
      appended += outcome.value;
    }
  }
  return { appended };
}

async function fill<T extends State>(core: HandleCore<T>, store: EntityStore, id: string, state: T, only: ReadonlySet<string> | null): Promise<number> {
  const { kind, schema, logger, compat } = core.context;
  const warn = (message: string): void => logger?.warn(message);
  const derived = deriveChange({ prev: null, next: snapshotState(state as State, warn), known: schema.known, compat, warn });
  const wanted = (derived?.rows ?? []).filter(({ field }) => only?.has(field) ?? schema.known?.has(field) ?? true);
  const now = new Date();
  const counts = await Promise.all(
    wanted.map(({ field }) => store.transitionCount({ kind, entityId: id, field, windowMs: now.getTime() - FIRST_MS, now })),
  );
  const missing = wanted.filter((_, index) => counts[index] === 0);
  if (missing.length === 0) return 0;
  await store.runInTransaction(async (tx) => {
    for (const { field, toValue } of missing) {
      const transitions: TransitionAppend[] = [{ field, fromValue: null, toValue }];
      // One name for a field for all times: of two processes that do this at once, the second one's row is skipped.
      nameChange(transitions, { changeId: uuidOf(kind, id, field) });
      await store.appendTransitions({ tx, kind, entityId: id, transitions });
    }
  });
  return missing.length;
}

/** A UUID (version 8) that is always the same for a field of an entity. */
function uuidOf(...parts: string[]): string {
  const hex = createHash('sha256').update(JSON.stringify(['holdfast entity backfill', ...parts])).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}
