/** For tests of code that uses entity handles: a store in memory whose clock, rows and failures the test decides. */
import { AsyncLocalStorage } from 'node:async_hooks';

import { serializeFieldValue } from './entity/field-text';
import { builtinError } from './errors';
import type { EntityRead, EntityStore, EntityTx } from './entity/types';

/** The transaction that a {@link FakeEntityStore} hands out. */
export const FAKE_TX: EntityTx = Object.freeze({ fake: true });

/** A row that a {@link FakeEntityStore} recorded. */
export interface FakeTransition {
  /** The kind. */
  kind: string;
  /** The entity. */
  entityId: string;
  /** The field. */
  field: string;
  /** The text of the value before; `null` = the entity did not exist. */
  fromValue: string | null;
  /** The text of the value after. */
  toValue: string;
  /** What the clock said when it was appended. */
  transitionedAt: Date;
}

/** A step of a mutation, or a question, that can be made to fail. `commit` is the end of `runInTransaction`: the rows are taken back. */
export type FakeEntityStoreStep =
  | 'read'
  | 'runInTransaction'
  | 'appendTransitions'
  | 'commit'
  | 'inStateSince'
  | 'transitionCount';

/** An {@link EntityStore} in memory, and the test's side of it. Its members may be used detached. */
export interface FakeEntityStore extends EntityStore {
  /** The states that `readFor` answers from, by `kind:id`. The test fills it. */
  readonly rows: Map<string, Record<string, unknown>>;
  /** The recorded rows, in order: always the same array. Those of a transaction that rejected are taken back. */
  readonly transitions: FakeTransition[];
  /** Sets the clock of the rows. Default: the system's. */
  setClock(clock: () => Date): void;
  /** Sets what is called as `runInTransaction` begins; a later call replaces it. What it throws rejects the transaction. */
  onTransaction(listener: () => void): void;
  /** A `read` for `defineEntity` that answers from `rows`. */
  readFor<T extends Record<string, unknown> = Record<string, unknown>>(kind: string): EntityRead<T>;
  /**
   * Makes the next `times` (default 1) runs of a step reject with `error`, which arrives as the same object. Failures of one step queue up.
   *
   * @throws {TypeError} `HF_INVALID_ARGUMENT`: there is no such step
   */
  failNext(step: FakeEntityStoreStep, error: unknown, times?: number): void;
}

const STEPS: ReadonlySet<string> = new Set<FakeEntityStoreStep>([
  'read',
  'runInTransaction',
  'appendTransitions',
  'commit',
  'inStateSince',
  'transitionCount',
]);

/** Makes an empty fake store. */
export function createFakeEntityStore(): FakeEntityStore {
  const rows = new Map<string, Record<string, unknown>>();
  const transitions: FakeTransition[] = [];
  const failures = new Map<FakeEntityStoreStep, unknown[]>();
  /** The rows of the transaction that the caller is in; all transactions are the one `FAKE_TX`. */
  const appended = new AsyncLocalStorage<Set<FakeTransition>>();
  let clock = (): Date => new Date();
  let began = (): void => {};

  /** Rejects if the test wants this run of the step to fail. */
  async function step(name: FakeEntityStoreStep): Promise<void> {
    const queue = failures.get(name);
    if (queue !== undefined && queue.length > 0) throw queue.shift();
  }

  const of = (kind: string, entityId: string, field: string): FakeTransition[] =>
    transitions.filter((row) => row.kind === kind && row.entityId === entityId && row.field === field);

  return {
    rows,
    transitions,
    setClock(next) {
      clock = next;
    },
    onTransaction(listener) {
      began = listener;
    },
    readFor<T extends Record<string, unknown>>(kind: string): EntityRead<T> {
      return async (ids) => {
        await step('read');
        const found: [string, T][] = [];
        for (const id of ids) {
          const state = rows.get(`${kind}:${id}`);
          if (state !== undefined) found.push([id, state as T]);
        }
        // Not by assignment: an id may be `__proto__`.
        return Object.fromEntries(found);
      };
    },
    failNext(name, error, times = 1) {
      if (!STEPS.has(name)) {
        throw builtinError(TypeError, `failNext: there is no step "${name}"; the steps are ${[...STEPS].join(', ')}`, { hfCode: 'HF_INVALID_ARGUMENT' });
      }
      const queue = failures.get(name) ?? [];
      failures.set(name, queue);
      for (let n = 0; n < times; n++) queue.push(error);
    },
    async runInTransaction(fn) {
      began();
      await step('runInTransaction');
      const mine = new Set<FakeTransition>();
      try {
        const result = await appended.run(mine, () => fn(FAKE_TX));
        await step('commit');
        return result;
      } catch (error) {
        transitions.splice(0, transitions.length, ...transitions.filter((row) => !mine.has(row)));
        throw error;
      }
    },
    async appendTransitions({ kind, entityId, transitions: added }) {
      await step('appendTransitions');
      const transitionedAt = clock();
      for (const { field, fromValue, toValue } of added) {
        const row = { kind, entityId, field, fromValue, toValue, transitionedAt: new Date(transitionedAt) };
        transitions.push(row);
        appended.getStore()?.add(row);
      }
    },
    async inStateSince({ kind, entityId, field, currentValue }) {
      await step('inStateSince');
      const text = serializeFieldValue(currentValue);
      const times = of(kind, entityId, field).filter((row) => row.toValue === text).map((row) => row.transitionedAt.getTime());
      return times.length === 0 ? null : new Date(Math.max(...times));
    },
    async transitionCount({ kind, entityId, field, windowMs, now }) {
      await step('transitionCount');
      if (Number.isNaN(windowMs)) {
        throw builtinError(RangeError, 'transitionCount: windowMs must be a number', { hfCode: 'HF_ENTITY_WINDOW_INVALID' });
      }
      const since = Math.trunc(now.getTime() - windowMs);
      return of(kind, entityId, field).filter((row) => row.transitionedAt.getTime() >= since).length;
    },
  };
}
