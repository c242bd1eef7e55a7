/** The reactive side of one kind: puts the caller's `read`, `apply` and schema, the store and the emitter in their order. */
import { HoldfastError, builtinError } from '../errors';
import { checkEmitter, checkField, checkId, checkIds, checkLogger, checkNamed, checkSecretRegistry, checkStore, refuse, refusedWrite, refusedWrites } from './check-input';
import { emitTracked } from './emitter';
import { noteFailure } from './failures';
import type { HandleContext } from './handle-context';
import { Frame, Lanes, currentFrame, inFrame } from './lanes';
import { messageOf, quietLogger } from './logging';
import { NativeRecorder } from './native-recorder';
import { OutgoingChanges, type Outgoing } from './outgoing';
import { PlainRecorder } from './plain-recorder';
import type { RecordedChange, Recorder, SendableChange, State } from './recording';
import { compileStateSchema } from './state-schema';
import { storeClosed, storeInternals, type OrphanIntent, type Orphans } from './store-core';
import type {
  EntityChanged,
  EntityFailure,
  EntityHandle,
  EntityHandleArgs,
  EntityMutationOpts,
  EntityStore,
  MutateInput,
  RemoveInput,
} from './types';
import { UnfinishedChanges } from './unfinished';
import { waitForState } from './wait-until';

const cores = new WeakMap<object, HandleCore<never>>();

/** Makes the handle of a kind. */
export function makeHandle<T extends State>(context: HandleContext<T>): EntityHandle<T> {
  const core = new HandleCore<T>(context);
  const handle: EntityHandle<T> = {
    kind: context.kind,
    mutate: (input) => core.mutate(input),
    remove: (input) => core.remove(input),
    get: (id) => core.get(id),
    getMany: (ids) => core.getMany(ids),
    inStateSince: (id, field) => core.inStateSince(id, field, 'inStateSince'),
    inStateForMs: async (id, field) => {
      const since = await core.inStateSince(id, field, 'inStateForMs');
      return since === null ? 0 : Math.max(core.now() - since.getTime(), 0);
    },
    transitionCount: (args) => core.transitionCount(args),
    mutateMany: (inputs) => core.mutateMany(inputs),
    waitUntil: (id, predicate, options) => waitForState(core, id, predicate, options),
  };
  cores.set(handle, core as unknown as HandleCore<never>);
  return handle;
}

/** Tells a handle of the store that it uses from now on, so that it finishes what a crash left of its kind there. */
export function bindStore<T extends State>(handle: EntityHandle<T>, store: EntityStore): void {
  cores.get(handle)?.recorderFor(store);
}

/** What is behind a handle; `undefined` for anything else, also for a copy of a handle. */
export function handleCore<T extends State>(handle: EntityHandle<T>): HandleCore<T> | undefined {
  return cores.get(handle) as HandleCore<T> | undefined;
}

/**
 * Makes a handle without a registry. Make it once per kind, and share it: mutations keep their order within one handle only, and a store
 * of holdfast's own knows its handles until it is closed. (One over `withTransaction` is as short-lived as the transaction.)
 *
 * @throws {TypeError} `HF_INVALID_ARGUMENT`: an argument is missing, or has not the functions that it needs
 * @throws {Error} `HF_ENTITY_STATE_SCHEMA_INVALID`
 */
export function createEntityHandle<T extends State>(args: EntityHandleArgs<T>): EntityHandle<T> {
  const where = 'createEntityHandle';
  checkNamed(args, '{ kind, schema, store, emitter, secretRegistry, read }', where);
  if (typeof args.kind !== 'string') throw refuse('kind', 'a string', args.kind, { where: `${where}: ` });
  if (typeof args.read !== 'function') throw refuse('read', 'a function', args.read, { where: `${where}: `, kind: args.kind });
  const { kind, store, emitter, secretRegistry: secrets, read } = args;
  const schema = compileStateSchema(args.schema);
  if ('rejected' in schema) {
    const message = `createEntityHandle: kind "${kind}" — \`schema\` must be a z.object (got ${schema.rejected})`;
    throw new HoldfastError(message, { hfCode: 'HF_ENTITY_STATE_SCHEMA_INVALID', fields: { kind } });
  }
  const compat = 'holdfast';
  checkStore(store, `${where}: `, compat);
  checkEmitter(emitter, where);
  checkSecretRegistry(secrets, where, compat);
  checkLogger(args.logger, 'logger', `${where}: `);
  const logger = quietLogger(args.logger);
  const handle = makeHandle<T>({ kind, schema, read, store: () => store, emitter, secrets, logger, compat, serialize: 'id' });
  bindStore(handle, store);
  return handle;
}

/** What a handle does, and the state that it needs for that. */
export class HandleCore<T extends State> {
  /** Told of each recorded change, by id. */
  readonly listeners = new Set<(id: string) => void>();
  private readonly lanes = new Lanes();
  private readonly outgoing: OutgoingChanges;
  private readonly unfinished: UnfinishedChanges;
  private recorder: Recorder | null = null;
  private readonly inOrder: boolean;
  private warnedOfDefault = false;

  constructor(readonly context: HandleContext<T>) {
    this.outgoing = new OutgoingChanges(this, context.kind, context.logger);
    this.unfinished = new UnfinishedChanges(this, context.kind, this.lanes, context.logger);
    this.inOrder = context.serialize === 'database' || (context.compat === 'holdfast' && context.serialize !== 'none');
  }

  mutate(input: MutateInput<T>): Promise<T> {
    const refused = refusedWrite(input, 'mutate', this.context);
    if (refused !== null) return Promise.reject(refused);
    return this.inOwnFrame(input.id, (frame) => this.change(frame, input, false)) as Promise<T>;
  }

  async remove(input: RemoveInput): Promise<void> {
    const refused = refusedWrite(input, 'remove', this.context);
    if (refused !== null) throw refused;
    await this.inOwnFrame(input.id, (frame) => this.change(frame, input, true));
  }

  async get(id: string): Promise<T | undefined> {
    checkId(id, 'get', this.context);
    const found = await this.context.read([id]);
    return this.context.compat === 'original' ? found[id] : (this.own(found, id) ?? undefined);
  }

  async getMany(ids: ReadonlyArray<string>): Promise<Record<string, T>> {
    checkIds(ids, 'getMany', this.context);
    return this.context.read(ids);
  }

  async inStateSince(id: string, field: string, method: string): Promise<Date | null> {
    checkId(id, method, this.context);
    checkField(field, method, this.context);
    const state = await this.get(id);
    if (state === undefined) return null;
    const store = this.store();
    const currentValue = Object.hasOwn(state, field) || this.context.compat === 'original' ? state[field] : undefined;
    return store.inStateSince({ kind: this.context.kind, entityId: id, field, currentValue });
  }

  async transitionCount(args: { id: string; field: string; windowMs: number }): Promise<number> {
    checkNamed(args, '{ id, field, windowMs }', 'transitionCount');
    const { id, field, windowMs } = args;
    checkId(id, 'transitionCount', this.context);
    checkField(field, 'transitionCount', this.context);
    if (typeof windowMs !== 'number' || Number.isNaN(windowMs)) {
      throw builtinError(RangeError, 'transitionCount: windowMs must be a number', { hfCode: 'HF_ENTITY_WINDOW_INVALID' });
    }
    return this.store().transitionCount({ kind: this.context.kind, entityId: id, field, windowMs, now: new Date(this.now()) });
  }

  /** The time by the clock that the rows have theirs from, in milliseconds. */
  now(): number {
    const store = this.context.store();
    return (store === null ? undefined : storeInternals(store)?.now()) ?? Date.now();
  }

  async mutateMany(inputs: ReadonlyArray<MutateInput<T>>): Promise<T[]> {
    const refused = refusedWrites(inputs, 'mutateMany', this.context);
    if (refused !== null) throw refused;
    // One read for all: each mutation takes its own out of it, unless it had to wait for its lane and the state may be newer. With locks
    // between processes it may always be: nothing that was read before the lock counts.
    const ids = this.context.serialize === 'database' ? [] : [...new Set(inputs.map(({ id }) => id))];
    const first = new Set(ids);
    const shared = ids.length === 0 ? undefined : this.context.read(ids);
    // Whoever needs it hears of its failure.
    shared?.catch(() => {});
    const outcomes = await Promise.allSettled(
      inputs.map((input) => {
        const prefetched = first.delete(input.id) ? shared : undefined;
        return this.inOwnFrame(input.id, (frame) => this.change(frame, input, false, prefetched));
      }),
    );
    const failed = outcomes.find((outcome) => outcome.status === 'rejected');
    if (failed) throw failed.reason;
    return outcomes.map((outcome) => (outcome as PromiseFulfilledResult<T>).value);
  }

  /** Runs `work` as a mutation of the entity would run: in its turn, after what is unfinished of it. `waited`: others may have been before. */
  inTurn<R>(id: string, work: (store: EntityStore, waited: boolean) => Promise<R>): Promise<R> {
    return this.inOwnFrame(id, async (frame) => {
      const entered = this.inOrder ? this.lanes.enter(frame) : null;
      const waited = entered instanceof Promise;
      let leave = waited ? await entered : entered;
      try {
        const recorder = this.recorderFor(this.store());
        await recorder.ready();
        const isLocked = this.context.serialize === 'database' && leave !== null;
        if (isLocked) leave = await locked(recorder, id, leave as () => void);
        if (leave !== null) await this.unfinished.complete(id);
        return await work(recorder.store, waited || isLocked);
      } finally {
        frame.active = false;
        leave?.();
      }
    });
  }

  /** The recorder of a store; the same one for the same store. */
  recorderFor(store: EntityStore): Recorder {
    if (this.recorder?.store === store) return this.recorder;
    const internals = storeInternals(store);
    if (internals === undefined) {
      this.recorder = new PlainRecorder(store, this.context);
    } else {
      const recorder = new NativeRecorder(store, internals, this.context);
      this.recorder = recorder;
      recorder.participant = {
        kindNumber: recorder.kindNumber,
        load: (orphans) => this.load(orphans, recorder),
        drain: async () => {
          // What cannot be completed now, and what a subscriber refuses, is on record and tried again: the store is as ready as it can be.
          await this.unfinished.flush().catch((error: unknown) => this.warnOfOrphans(error));
          await this.outgoing.flush().catch((error: unknown) => this.warnOfDelivery('changes', error));
        },
        unfinished: () => this.unfinished.count(store),
        finish: (until) => this.unfinished.finish(store, until),
        stop: () => {
          this.outgoing.stop(store);
          return this.unfinished.stop(store);
        },
      };
      internals.join(recorder.participant);
    }
    return this.recorder;
  }

  private load(orphans: Orphans, recorder: NativeRecorder): void {
    for (const payload of orphans.events) {
      const event = JSON.parse(payload) as EntityChanged;
      const delivered = (): void => recorder.log.delivered(event.changeId as string);
      this.outgoing.keep(this.outgoingOf(event.id, { changedFields: event.changedFields, event: () => event, delivered }, recorder));
    }
    for (const intent of orphans.intents) {
      const orphan: Orphan = { intent, change: null, isTaken: false };
      const complete = (): Promise<void> => this.finishOrphan(orphan, recorder);
      // Its intent stays on record until it is completed.
      this.unfinished.keep({ id: intent.entityId, store: recorder.store, cause: null, complete, isOnRecord: true, abandon: () => {} });
    }
  }

  // ── one change ──

  private store(): EntityStore {
    const store = this.context.store();
    if (store === null) throw this.unbound();
    return store;
  }

  private unbound(): HoldfastError {
    const message = 'entity store not initialized yet — defineEntity handles can only mutate from init() onward';
    return new HoldfastError(message, { hfCode: 'HF_ENTITY_STORE_UNBOUND', fields: { kind: this.context.kind } });
  }

  private recorderOf(removal: boolean): Recorder {
    const store = this.context.store();
    if (store !== null) return this.recorderFor(store);
    if (!removal && this.context.compat === 'holdfast') throw this.unbound();
    // A removal writes no history, and the original finds out that there is no store only when it needs one.
    return new PlainRecorder({ runInTransaction: () => Promise.reject(this.unbound()) } as Partial<EntityStore> as EntityStore, this.context);
  }

  private own(found: unknown, id: string): T | null {
    if (this.context.compat === 'original') return (found as Record<string, T | undefined>)[id] ?? null;
    if (typeof found !== 'object' || found === null) {
      const message = `\`read\` of kind "${this.context.kind}" must resolve to an object of states by id`;
      throw builtinError(TypeError, message, { hfCode: 'HF_ENTITY_READ_INVALID', fields: { kind: this.context.kind } });
    }
    return Object.hasOwn(found, id) ? ((found as Record<string, T | undefined>)[id] ?? null) : null;
  }

  private inOwnFrame<R>(id: string, run: (frame: Frame) => Promise<R>): Promise<R> {
    const frame = new Frame(this, id, currentFrame());
    return inFrame(frame, () => run(frame));
  }

  private async change(
    frame: Frame,
    input: { id: string; opts?: EntityMutationOpts; apply: () => unknown },
    removal: boolean,
    prefetched?: Promise<Record<string, T>>,
  ): Promise<T | undefined> {
    const { id, opts, apply } = input;
    const failure: EntityFailure = { stage: 'read', applied: false, pending: false };
    const entered = this.inOrder ? this.lanes.enter(frame) : null;
    let leave = entered instanceof Promise ? await entered : entered;
    // From here until the change is recorded its store does not close.
    let recording: Recorder | null = null;
    try {
      const recorder = this.recorderOf(removal);
      const opening = recorder.ready();
      if (opening) await opening;
      recorder.enter();
      recording = recorder;
      if (this.context.serialize === 'database' && leave !== null) leave = await locked(recorder, id, leave);
      const earlier = leave === null ? undefined : this.unfinished.complete(id);
      if (earlier) await at(failure, 'append', earlier);

      const fresh = entered instanceof Promise || prefetched === undefined;
      const prev = this.own(await (fresh ? this.context.read([id]) : prefetched), id);
      const change = recorder.start({ id, removal, prev, opts });
      if (change.begun) await at(failure, 'append', change.begun);
      if (recorder.isEnded) {
        change.discard();
        throw storeClosed();
      }

      let result: unknown;
      let next: State | null;
      try {
        failure.stage = 'apply';
        result = await apply();
        failure.applied = true;
        failure.stage = 'validate';
        next = removal || result === null ? null : ((await this.context.schema.validate(result)) as State);
        change.take(next);
      } catch (error) {
        change.discard();
        throw error;
      }

      failure.stage = 'append';
      const recorded = await this.append(change, id, recorder, failure);
      recording = null;
      recorder.leave();
      if (recorded !== null) {
        failure.stage = 'emit';
        const sent = this.send(recorded, frame, recorder, failure);
        // Its place among the outgoing changes is taken: the next mutation may begin.
        leave?.();
        leave = null;
        await sent;
        if (prev !== null) this.warnOfDefaults(prev, recorded.changedFields);
      }
      if (!removal && result === null) {
        failure.stage = 'validate';
        const message = `EntityHandle.mutate: apply for kind "${this.context.kind}" id "${id}" resolved to no state`;
        throw new HoldfastError(message, { hfCode: 'HF_ENTITY_NO_STATE', fields: { kind: this.context.kind, id } });
      }
      return next as T;
    } catch (error) {
      throw noteFailure(error, failure);
    } finally {
      frame.active = false;
      recording?.leave();
      leave?.();
    }
  }

  private async append(
    change: RecordedChange,
    id: string,
    recorder: Recorder,
    failure: EntityFailure,
  ): Promise<SendableChange | null> {
    try {
      return this.appended(await change.append(), id);
    } catch (error) {
      if (this.context.store() !== null) {
        // What has an intent on record is completed by whoever opens the store next, if not here.
        const isOnRecord = change.begun !== undefined;
        const abandon = (): void => {
          if (!isOnRecord) change.discard();
        };
        const complete = (): Promise<void> => this.appendAgain(change, id, recorder);
        const isKept = this.unfinished.keep({ id, store: recorder.store, cause: error, complete, isOnRecord, abandon });
        if (!isKept) abandon();
        failure.pending = isKept || isOnRecord;
      }
      throw error;
    }
  }

  private async appendAgain(change: RecordedChange, id: string, recorder: Recorder): Promise<void> {
    const recorded = this.appended(await change.appendAgain(), id);
    if (recorded !== null) this.outgoing.keep(this.outgoingOf(id, recorded, recorder));
  }

  private appended(recorded: SendableChange | null, id: string): SendableChange | null {
    if (recorded !== null) for (const listener of this.listeners) listener(id);
    return recorded;
  }

  private async send(recorded: SendableChange, frame: Frame, recorder: Recorder, failure: EntityFailure): Promise<void> {
    const outgoing = this.outgoingOf(frame.id, recorded, recorder);
    try {
      await this.outgoing.send(outgoing, frame, this.inOrder);
    } catch (error) {
      failure.pending = true;
      failure.change = recorded.event();
      if (!recorder.keepsEvents) throw error;
      // It is on disk, and sent again; the caller's write and its history are whole.
      this.warnOfDelivery(`a change of ${this.context.kind}:${frame.id}`, error);
    }
  }

  private warnOfOrphans(error: unknown): void {
    const what = `completing changes of kind "${this.context.kind}" that were interrupted`;
    this.context.logger?.warn(`${what} failed, it is tried again: ${messageOf(error)}`);
  }

  private warnOfDelivery(what: string, error: unknown): void {
    this.context.logger?.warn(`delivering ${what} failed, it is tried again: ${messageOf(error)}`);
  }

  private outgoingOf(id: string, recorded: SendableChange, { store, keepsEvents, noteRetry }: Recorder): Outgoing {
    const { emitter } = this.context;
    const event = (): EntityChanged => recorded.event();
    let crowdedOut = false;
    const outgoing: Outgoing = {
      id,
      store: keepsEvents ? store : undefined,
      event,
      deliver: async () => {
        if (!keepsEvents) return emitter.emit(event());
        if (crowdedOut && !emitter.isWired) throw new Error('the emitter has no target yet, and its buffer is full');
        const settled = (taken: boolean): void => {
          if (taken) return recorded.delivered();
          crowdedOut = true;
          this.outgoing.keep(outgoing);
        };
        if (await emitTracked(emitter, event(), settled)) recorded.delivered();
      },
      retried: noteRetry,
    };
    return outgoing;
  }

  /** A change whose process died after its intent: what the entity is now says whether the owner's write happened. */
  private async finishOrphan(orphan: Orphan, recorder: NativeRecorder): Promise<void> {
    const { intent } = orphan;
    if (!orphan.isTaken) {
      const now = this.own(await this.context.read([intent.entityId]), intent.entityId);
      // Staged once, however often it is tried: what is forgotten loses its intent.
      orphan.change ??= recorder.adopt(intent);
      orphan.change.take(now);
      orphan.isTaken = true;
    }
    const recorded = await (orphan.change as RecordedChange).appendAgain();
    recorder.internals.counters.recovered++;
    if (this.appended(recorded, intent.entityId) !== null) this.outgoing.keep(this.outgoingOf(intent.entityId, recorded as SendableChange, recorder));
  }

  /** A schema that fills in what the stored state lacks makes every mutation a change of that field. */
  private warnOfDefaults(prev: State, changedFields: readonly string[]): void {
    if (this.warnedOfDefault || this.context.logger === undefined) return;
    const { schema, kind, logger } = this.context;
    const field = changedFields.find((name) => !Object.hasOwn(prev, name) && schema.hasDefault(name));
    if (field === undefined) return;
    this.warnedOfDefault = true;
    logger.warn(`the schema of kind "${kind}" has a default for "${field}", which \`read\` does not return: each mutation counts it as changed`);
  }
}

interface Orphan {
  readonly intent: OrphanIntent;
  /** What goes on with it, from the first try on. */
  change: RecordedChange | null;
  /** Whether the change knows the state after the write. */
  isTaken: boolean;
}

/** Takes the lock between processes on top of the lane; both end together. */
async function locked(recorder: Recorder, id: string, leave: () => void): Promise<() => void> {
  const unlock = await recorder.lock(id);
  return () => {
    unlock();
    leave();
  };
}

/** Awaits a step, noting the stage if it fails. */
async function at(failure: EntityFailure, stage: EntityFailure['stage'], step: Promise<void>): Promise<void> {
  const before = failure.stage;
  failure.stage = stage;
  await step;
  failure.stage = before;
}
