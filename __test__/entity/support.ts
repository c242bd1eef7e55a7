/** What the acceptance tests of the entity module share: owners, stores written in JavaScript, registries with everything observable. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';

import {
  createChangeEmitter,
  createEntityRegistry,
  createEntityStore,
  createRunSecretRegistry,
  type ChangeEmitter,
  type EntityChanged,
  type EntityRegistryArgs,
  type EntityStateSchema,
  type EntityStore,
  type EntityStoreOptions,
  type Logger,
  type NativeEntityStore,
  type TransitionAppend,
} from 'holdfast';
import { afterEach } from 'vitest';
import * as z from 'zod';

import { killChildren, startChild, type Child } from '../support/child';

export type State = Record<string, unknown>;

const folders: string[] = [];
const stores: NativeEntityStore[] = [];

/** A new empty folder, removed after the test. */
export function tempDir(): string {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-entity-'));
  folders.push(folder);
  return folder;
}

/** A store that is closed after the test. */
export function openStore(target: { path: string } | { memory: true }, options?: EntityStoreOptions): NativeEntityStore {
  const store = createEntityStore(target, options);
  stores.push(store);
  return store;
}

afterEach(async () => {
  killChildren();
  await Promise.all(stores.splice(0).map((store) => store.close()));
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

export interface RecordedRow extends TransitionAppend {
  kind: string;
  entityId: string;
}

/** A store as a program writes it: rows in an array, every call in `calls`. */
export function jsStore(calls: string[] = []) {
  const rows: RecordedRow[] = [];
  const failures: unknown[] = [];
  const store: EntityStore = {
    async runInTransaction(fn) {
      calls.push('runInTransaction');
      const before = rows.length;
      try {
        return await fn('tx');
      } catch (error) {
        rows.length = before;
        throw error;
      }
    },
    async appendTransitions({ tx, kind, entityId, transitions }) {
      calls.push(`append ${String(tx)} ${kind}:${entityId} ${transitions.map((row) => `${row.field}=${row.toValue}`).join(' ')}`);
      if (failures.length > 0) throw failures.shift();
      for (const row of transitions) rows.push({ kind, entityId, ...row });
    },
    async inStateSince({ currentValue }) {
      calls.push(`inStateSince ${String(currentValue)}`);
      return new Date(0);
    },
    async transitionCount({ windowMs }) {
      calls.push(`transitionCount ${windowMs}`);
      return rows.length;
    },
  };
  return { store, rows, failures, calls };
}

/** A logger that keeps its lines. */
export function logBook() {
  const lines: string[] = [];
  const log = (level: string) => (message: string, ...rest: unknown[]) => void lines.push([level, message, ...rest].join(' '));
  const logger: Logger = { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') };
  return { lines, logger };
}

/** What a handle needs besides its store: an owner that keeps states in a Map, subscribers in an array. */
export function world(options: Partial<EntityRegistryArgs> & { store?: EntityStore | null; schema?: EntityStateSchema<State>; wired?: boolean; kind?: string } = {}) {
  const { store, schema = z.looseObject({}), wired = true, kind = 'pod', ...args } = options;
  const owner = new Map<string, State>();
  const events: EntityChanged[] = [];
  const emitFailures: unknown[] = [];
  const calls: string[] = [];
  const emitter: ChangeEmitter = args.emitter ?? createChangeEmitter();
  const secrets = args.secretRegistry ?? createRunSecretRegistry();
  const { lines, logger } = logBook();
  const target = async (event: EntityChanged): Promise<void> => {
    calls.push(`emit ${event.kind}:${event.id}`);
    if (emitFailures.length > 0) throw emitFailures.shift();
    events.push(event);
  };
  if (wired) void emitter.wire(target);
  const registry = createEntityRegistry({ logger, ...args, emitter, secretRegistry: secrets });
  const read = async (ids: ReadonlyArray<string>): Promise<Record<string, State>> => {
    calls.push(`read ${ids.join(',')}`);
    return Object.fromEntries(ids.flatMap((id) => (owner.has(id) ? [[id, owner.get(id)!]] : [])));
  };
  const handle = registry.defineEntity<State>({ kind, state: schema, read });
  if (store) registry.setStore({ store });
  /** The owner's write. */
  const write = (id: string, state: State) => async (): Promise<State> => {
    calls.push(`write ${id}`);
    owner.set(id, state);
    return state;
  };
  const put = (id: string, state: State, opts?: { runId?: string }): Promise<State> => handle.mutate({ id, opts, apply: write(id, state) });
  const drop = (id: string): Promise<void> => handle.remove({ id, apply: async () => void owner.delete(id) });
  return { owner, events, emitFailures, calls, emitter, secrets, lines, logger, registry, handle, read, write, put, drop, target };
}

/** The rows of an entity's history, oldest first, as `field: from -> to`. */
export async function historyOf(store: NativeEntityStore, entityId: string, kind = 'pod'): Promise<string[]> {
  const { rows } = await store.history({ kind, entityId, limit: 10_000 });
  return rows.map(({ field, fromValue, toValue }) => `${field}: ${fromValue} -> ${toValue}`).reverse();
}

/** Runs `promise` and returns what it rejects with; fails the test when it resolves. */
export async function rejection(promise: Promise<unknown>): Promise<any> {
  let resolved = true;
  const result = await promise.catch((error: unknown) => {
    resolved = false;
    return error;
  });
  if (resolved) throw new Error('expected a rejection');
  return result;
}

/** Waits until `condition` holds, at most `ms` milliseconds; fails the test if it never does. */
export async function until(condition: () => boolean | Promise<boolean>, ms = 5000): Promise<void> {
  for (const end = Date.now() + ms; Date.now() < end; await sleep(5)) if (await condition()) return;
  throw new Error(`waited ${ms} ms in vain for ${condition.toString()}`);
}

/** A promise to be settled from outside. */
export function deferred<T = void>() {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((yes, no) => ([resolve, reject] = [yes, no]));
  return { promise, resolve, reject };
}

export type { Child };

const fixtures = fileURLToPath(new URL('./fixtures/', import.meta.url));

/** Starts `fixtures/<name>` on the runtime that runs the tests. It is killed after 45 seconds, or at the end of the test. */
export function start(name: string, ...args: string[]): Child {
  return startChild(join(fixtures, name), ...args);
}

/** Closes a store that was made elsewhere after the test. */
export function closeAfterTest<S extends NativeEntityStore>(store: S): S {
  stores.push(store);
  return store;
}
