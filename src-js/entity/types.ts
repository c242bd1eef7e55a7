/** The shapes of the entity module: changes, kinds, handles, and what delivers the changes. Those of the store are in `store-types`. */
import type { StandardSchemaV1 } from './standard-schema';
import type { EntityStore } from './store-types';
import type { Logger } from '../logging';

export type { Log, Logger } from '../logging';

export type { StandardSchemaV1 } from './standard-schema';
export type * from './store-types';

// ── actors and changes ──

/** What kind of party made a change; `ACTOR_TYPES` lists them. */
export type ActorType = 'system' | 'user' | 'application' | 'service';

/** Who made a change. */
export interface Actor {
  /** What kind of party. */
  type: ActorType;
  /** Which one. Never masked. */
  id: string;
  /** A name for people. */
  name?: string;
}

/** A change of one entity, as subscribers get it. Known secrets of the run that made it are masked. */
export interface EntityChanged {
  /** The kind of the entity. */
  kind: string;
  /** The entity, unique within its kind. */
  id: string;
  /** The state before; `null` = it did not exist. */
  prev: Record<string, unknown> | null;
  /** The state after; `null` = it was removed. */
  next: Record<string, unknown> | null;
  /** The changed fields with their values in `next`; a field that `next` does not have is `null`. `{}` on a removal. */
  delta: Record<string, unknown>;
  /** The names of the changed fields, sorted by UTF-16 code unit. */
  changedFields: string[];
  /** Who made the change. */
  actor: Actor;
  /** When the change was sent: ISO 8601 with milliseconds and `Z`. A later delivery of the same change keeps it. */
  occurredAt: string;
  /**
   * Names the change, so that a second delivery of it can be recognised. holdfast always sets it; it is optional so that payloads
   * of older senders parse.
   */
  changeId?: string;
}

/** What `EntityChangedSchema` is: a Standard Schema that can also be called directly. */
export interface EntityChangedParser extends StandardSchemaV1<unknown, EntityChanged> {
  /**
   * Returns a copy of the payload without unknown keys.
   *
   * @throws {EntityValidationError} the payload is not a change
   */
  parse(value: unknown): EntityChanged;
  /** The same without throwing. */
  safeParse(value: unknown): { success: true; data: EntityChanged } | { success: false; error: Error };
}

// ── defining a kind ──

/** The current state of entities by id; ids that do not exist are left out. The order and the number of `ids` are the caller's. */
export type EntityRead<T extends Record<string, unknown>> = (ids: ReadonlyArray<string>) => Promise<Record<string, T>>;

/** A schema of object states: an object schema of zod 3, zod 4 or zod-mini, or any other library's Standard Schema. */
export type EntityStateSchema<T> =
  | { parse(input: unknown): T; readonly shape: Readonly<Record<string, unknown>> }
  | StandardSchemaV1<unknown, T>;

/** What makes a kind of entity. */
export interface DefineEntityInput<T extends Record<string, unknown>> {
  /** The name of the kind: not blank, unique in the registry, kept as given (` a` and `a` are two kinds). */
  kind: string;
  /** The schema that every state is validated with. */
  state: EntityStateSchema<T>;
  /** Reads current states from wherever the owner keeps them. */
  read: EntityRead<T>;
}

/**
 * Registers a kind and returns its handle. A refused kind leaves the registry as it was.
 *
 * @throws {Error} `HF_ENTITY_KIND_INVALID`, `HF_ENTITY_KIND_DUPLICATE`, `HF_ENTITY_STATE_SCHEMA_INVALID`
 * @throws {TypeError} `HF_ENTITY_READ_INVALID`
 */
export type DefineEntity = <T extends Record<string, unknown>>(input: DefineEntityInput<T>) => EntityHandle<T>;

/** Says that a table is not reactive, and why; for lint rules and documentation. */
export interface DeclareNonReactiveStateInput {
  /** The table. */
  table: string;
  /** Why it has no kind. */
  reason: 'raw-sample' | 'sensitive' | 'externally-owned' | 'bookkeeping';
  /** The reason in words. */
  note: string;
}

/** A recorded declaration. */
export type NonReactiveDeclaration = DeclareNonReactiveStateInput;

/** The `read` of a kind, without its type. */
export type EntityKindResolver = (ids: ReadonlyArray<string>) => Promise<Record<string, Record<string, unknown>>>;

/** The kinds of one process, and the store that they share. */
export interface EntityRegistry {
  /** Validates a kind, registers it and returns its handle. */
  readonly defineEntity: DefineEntity;
  /** Records a declaration, as a copy. Nothing is checked. */
  declareNonReactiveState(input: DeclareNonReactiveStateInput): void;
  /** Binds the store that all handles use from now on; the last call wins. */
  setStore(args: { store: EntityStore }): void;
  /** Whether a store is bound. */
  readonly hasStore: boolean;
  /** The declarations, in order: always the same array, which grows. */
  getNonReactiveDeclarations(): ReadonlyArray<NonReactiveDeclaration>;
  /** The kinds in the order of their registration: always the same array, which grows. */
  getKinds(): ReadonlyArray<string>;
  /** The `read` of a kind, always the same function; `undefined` for an unknown kind. */
  entityResolverFor(kind: string): EntityKindResolver | undefined;
}

/**
 * How a handle behaves where holdfast deviates from the original: `original` keeps the original's results, `holdfast` (the default)
 * its own. `docs/migrating.md` lists the differences.
 */
export type EntityCompat = 'holdfast' | 'original';

/**
 * How mutations of one entity are kept apart: `id` (the default) = one after the other within the registry; `none` = not at all;
 * `database` = also across processes, by a lock on the server that is held over the whole mutation, on a connection that is reserved for
 * such locks. That needs a store over `{ connectionString }`; with any other, mutations reject. Who waits for more than 60 seconds is
 * rejected with `HF_BUSY`.
 */
export type EntitySerialize = 'id' | 'none' | 'database';

/** Arguments of `createEntityRegistry`. */
export interface EntityRegistryArgs {
  /** Knows the secrets of the runs, which are masked in everything that is sent or stored. */
  secretRegistry: RunSecretRegistry;
  /** Where changes are sent. */
  emitter: ChangeEmitter;
  /** Gets warnings. Default: nobody. */
  logger?: Logger;
  /** Default `holdfast`. */
  compat?: EntityCompat;
  /** Default `id`. */
  serialize?: EntitySerialize;
}

// ── the handle ──

/** Who a mutation is by. */
export interface EntityMutationOpts {
  /** Default: the system actor. */
  actor?: Actor;
  /** The run whose secrets are masked in the event and in the history. Without it nothing is masked. */
  runId?: string;
}

/** A write of one entity. */
export interface MutateInput<T extends Record<string, unknown>> {
  /** The entity. */
  id: string;
  /** Who it is by. */
  opts?: EntityMutationOpts;
  /** The owner's write; resolves to the state after it. */
  apply: () => Promise<T>;
}

/** A removal of one entity. */
export interface RemoveInput {
  /** The entity. */
  id: string;
  /** Who it is by. */
  opts?: EntityMutationOpts;
  /** The owner's removal. What it resolves to is ignored. */
  apply: () => Promise<void>;
}

/** Options of {@link EntityHandle.waitUntil}. */
export interface EntityWaitOptions {
  /** How long to wait, in milliseconds. Default: as long as it takes. */
  timeoutMs?: number;
  /** Gives up when it aborts. */
  signal?: AbortSignal;
}

/** The reactive side of one kind. Errors that `read`, `apply`, the schema, the store or the emitter throw arrive as the same object. */
export interface EntityHandle<T extends Record<string, unknown>> {
  /** The kind, as it was defined. */
  readonly kind: string;
  /**
   * Reads the state, runs `apply`, validates what it resolved to, records one transition per changed field and sends the change.
   * Resolves when all of that is done, with the validated state, unmasked. Without a change nothing is recorded or sent. After a
   * rejection, `getEntityFailure(error)` says whether the owner's write had happened.
   *
   * @throws {Error} `HF_ENTITY_STORE_UNBOUND`: no store yet, nothing was run; `HF_ENTITY_NO_STATE`: `apply` resolved to `null`
   */
  mutate(input: MutateInput<T>): Promise<T>;
  /** The same for a removal: the change has `next: null`, and the history gets no row. An absent entity sends nothing, but `apply` runs. */
  remove(input: RemoveInput): Promise<void>;
  /** The current state as `read` gives it: not cached, validated or masked. */
  get(id: string): Promise<T | undefined>;
  /** The current states as `read` gives them. */
  getMany(ids: ReadonlyArray<string>): Promise<Record<string, T>>;
  /** When the field got the value that it has now, by the history; `null` for an absent entity, or when the history does not say. */
  inStateSince(id: string, field: keyof T & string): Promise<Date | null>;
  /** For how many milliseconds the field has had its value, by the store's clock; 0 when the history does not say. */
  inStateForMs(id: string, field: keyof T & string): Promise<number>;
  /**
   * How often the field changed in the last `windowMs` milliseconds by the store's clock, both ends included.
   *
   * @throws {RangeError} `HF_ENTITY_WINDOW_INVALID`: `windowMs` is not a number
   */
  transitionCount(args: { id: string; field: keyof T & string; windowMs: number }): Promise<number>;
  /**
   * Many mutations with one `read` (with `serialize: 'database'`: one each, under its lock) and shared appends; ids may repeat.
   * Resolves to the states in the order of `inputs`. All are run: if some fail, it rejects with the error of the first of them, when all
   * have settled.
   */
  mutateMany(inputs: ReadonlyArray<MutateInput<T>>): Promise<T[]>;
  /**
   * Resolves with the state (`undefined` = absent) as soon as `predicate` accepts it: now, or after a change that this registry sends
   * or, with a store that holdfast owns, another process.
   *
   * @throws {HoldfastError} `HF_LOCK_TIMEOUT` after `timeoutMs`; `HF_CLOSED` when a store that holdfast owns is closed
   * @throws the signal's reason when it aborts; what `predicate` or `read` throws
   */
  waitUntil(id: string, predicate: (state: T | undefined) => boolean, options?: EntityWaitOptions): Promise<T | undefined>;
}

/** Arguments of `createEntityHandle`: a handle without a registry. */
export interface EntityHandleArgs<T extends Record<string, unknown>> {
  /** The kind. */
  kind: string;
  /** The schema of its states. */
  schema: EntityStateSchema<T>;
  /** Where the history goes. */
  store: EntityStore;
  /** Where changes are sent. */
  emitter: ChangeEmitter;
  /** Knows the secrets of the runs. */
  secretRegistry: RunSecretRegistry;
  /** Reads current states. */
  read: EntityRead<T>;
  /** Gets warnings. Default: nobody. */
  logger?: Logger;
}

/** At which step a rejected `mutate` or `remove` stopped. */
export interface EntityFailure {
  /** The step. */
  stage: 'read' | 'apply' | 'validate' | 'append' | 'emit';
  /** Whether the owner's write had happened. */
  applied: boolean;
  /**
   * Whether the change is kept and will be completed: before the next mutation of the entity, or by itself, or, if the store was closed
   * meanwhile, when one with `outbox` or `journal` is opened anew.
   */
  pending: boolean;
  /** The change, as far as it was known. */
  change?: EntityChanged;
}

// ── emitter, subscriptions, derivers, guards ──

/** Delivers one change; resolves when it was taken. */
export type EmitEntityChanged = (payload: EntityChanged) => Promise<void>;

/** Sends changes to a target that may come later. */
export interface ChangeEmitter {
  /** Delivers a change, or keeps it while there is no target. Rejects with what the target throws. */
  emit(payload: EntityChanged): Promise<void>;
  /**
   * Sets the target and delivers to it what was kept, one change at a time, in order. With nothing kept it is set before the call
   * returns. If a delivery fails it rejects with that error, the change stays first in line, and a new `wire` resumes with it.
   */
  wire(emit: EmitEntityChanged): Promise<void>;
  /** Whether changes go straight to the target. */
  readonly isWired: boolean;
}

/** Arguments of `createChangeEmitter`. */
export interface ChangeEmitterArgs {
  /** Is told of dropped and of late changes. Default: nobody. */
  logger?: Logger;
  /** How many changes are kept while there is no target; above it the oldest is dropped. At least 1; `NaN` = no limit. Default 10000. */
  bufferLimit?: number;
}

/** Handles a change of its kind. */
export type EntityChangedHandler = (change: EntityChanged) => Promise<void> | void;

/** Ends a subscription. Twice is harmless. */
export type EntityChangedUnsubscribe = () => Promise<void>;

/** `broadcast`: every process handles the change; `work-queue`: one process of the group. */
export type EntityChangedDelivery =
  | { mode?: 'broadcast' }
  | {
      mode: 'work-queue';
      /** Which group; not blank. */
      workerGroup: string;
      /** How often the queue tries again after a handler has thrown. Default: the queue's. */
      maxRetries?: number;
    };

/** A subscription. */
export interface OnEntityChangedInput {
  /** The kind to hear of; not blank. */
  kind: string;
  /** Called with a copy of each change. What it throws is logged and, in a work queue, given to the queue. */
  handler: EntityChangedHandler;
  /** Default `broadcast`. */
  delivery?: EntityChangedDelivery;
}

/**
 * Subscribes to the changes of a kind, before or after `wire`.
 *
 * @throws {Error} `HF_ENTITY_SUBSCRIBE_INVALID`: a blank kind, or a work queue without a group
 */
export type OnEntityChanged = (input: OnEntityChangedInput) => EntityChangedUnsubscribe;

/** How a host's event bus takes a listener; returns what ends it. */
export type OnHookFn = <T>(
  hook: { id: string; _type?: T },
  listener: (payload: T, meta?: unknown) => Promise<void>,
  options?:
    | { mode?: 'broadcast'; maxRetries?: number }
    | { mode: 'instance-local' }
    | { mode: 'work-queue'; workerGroup: string; maxRetries?: number },
) => () => Promise<void>;

/** Subscriptions that can be made before the host's bus is there. */
export interface EntityChangedSubscriptions {
  /** Subscribes. */
  readonly onEntityChanged: OnEntityChanged;
  /** Connects the subscriptions, those before and those to come, to a bus. A second call only adds what is not connected yet. */
  wire(args: { onHook: OnHookFn; logger: Logger }): void;
  /** Ends all subscriptions; errors of ending one are ignored. */
  disposeAll(): Promise<void>;
}

/** What a bus for entity changes is made of. */
export interface EntityChangeBusArgs {
  /** A store whose other processes are heard as well: one over Postgres, with `outbox` or `journal`. Default: this process alone. */
  store?: EntityStore;
  /** Gets warnings. Default: nobody. */
  logger?: Logger;
}

/** A bus for entity changes. */
export interface EntityChangeBus {
  /** Tells the listeners of a change; for `emitter.wire`. Resolves when they are done. */
  readonly emit: EmitEntityChanged;
  /** Subscribes; for `subscriptions.wire`. Returns what ends the subscription. */
  readonly onHook: OnHookFn;
  /** Ends all subscriptions. A work queue tries nothing again after that: `emit` rejects with what it failed with. */
  close(): void;
}

/** The names of the host events that a change stands for. */
export type EntityChangeDeriver = (changed: EntityChanged) => ReadonlyArray<string>;

/** The payload of the host events that a change stands for. */
export type EntityChangePayloadMapper = (changed: EntityChanged) => Record<string, unknown>;

/** Which host events the changes of a kind stand for. */
export interface ChangeDeriverRegistry {
  /**
   * Adds a deriver to a kind, and sets the kind's payload mapper. The same function twice counts once.
   *
   * @throws {Error} `HF_ENTITY_DERIVER_INVALID`: a blank kind; `HF_ENTITY_DERIVER_CONFLICT`: the kind has another mapper. Nothing is added
   */
  register(args: { kind: string; derive: EntityChangeDeriver; toPayload?: EntityChangePayloadMapper }): void;
  /** The names of all derivers of the kind, each once, in order. A deriver that throws, or gives no array, is skipped. */
  derive(changed: EntityChanged): ReadonlyArray<string>;
  /** What the kind's mapper makes of the change; `undefined` without one. What the mapper throws comes through. */
  payload(changed: EntityChanged): Record<string, unknown> | undefined;
  /** The kinds that have a deriver, in order. */
  kinds(): ReadonlyArray<string>;
}

// ── pure helpers and secrets ──

/** What differs between two states. */
export interface EntityDiff {
  /** The names of the changed fields, sorted by UTF-16 code unit. */
  changedFields: string[];
  /** Their values in the later state; `null` for one that it does not have. */
  delta: Record<string, unknown>;
}

/** Knows the secret values of running jobs, in memory only, and masks them. */
export interface RunSecretRegistry {
  /** Adds secret values of a run. Empty values and values that are no strings are skipped. */
  register(runId: string, values: Iterable<string>): void;
  /** Says which run a step belongs to; the last call wins. */
  linkStep(stepId: string, runId: string): void;
  /** Masks the run's secrets in a text. An unknown run changes nothing. */
  maskText(runId: string, text: string): string;
  /** Masks the run's secrets in all strings and keys of a value, in a copy. An unknown run gives the value itself. */
  maskDeep(runId: string, value: unknown): unknown;
  /** `maskText` for the run of a step. */
  maskTextForStep(stepId: string, text: string): string;
  /** `maskDeep` for the run of a step. */
  maskDeepForStep(stepId: string, value: unknown): unknown;
  /** Forgets a run's secrets and the steps that are linked to it. */
  drop(runId: string): void;
}

/** A host's look-up of services. */
export type GetService = <T>(ref: { id: string; T?: T }) => Promise<T>;
