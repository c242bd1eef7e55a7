/** `ProcessRegistryStore`: the processes of a runtime in one file. */
import { checkFunctionOrUndefined } from '../check';
import { checkBooleanOf, checkCount, checkId, checkObject, checkSignal, given, guarded, print } from './arguments';
import { PayloadCheck } from './payload-check';
import { appendOf, descriptorOf, leaseOf, outputOf, registrationOf, scopeOf, terminalTypeOf, transferOf } from './process-arguments';
import type {
  AwaitOutput,
  HandleGrant,
  ProcessEvent,
  ProcessEventAppend,
  ProcessLease,
  ProcessRecord,
  ProcessRegistration,
  ProcessRegistryOptions,
  ProcessScope,
  ProcessWaitOptions,
  SessionProcessStateDeletion,
  WakeDelivery,
} from './process-types';
import { SideCore } from './side-core';
import type { DurabilityTier, JsonValue } from './value-types';

/** Only the static functions make stores. */
const MAKE = Symbol('make');

/** So many processes are forgotten at a time; others write in between. */
const SLICE = 100;

/**
 * The processes that agents started: what they are, the events that they append, who has a handle of them, and who runs them. One file that any
 * number of threads and processes may use. Writes of one store apply in the order of the calls, but for events that wait for a `validatePayload` of the
 * caller's: those keep their order within a process, and nothing else waits for them. A read sees every write that was resolved before.
 *
 * @example
 * ```ts
 * await using processes = await ProcessRegistryStore.open('processes.db');
 * await processes.registerProcess({ id: 'build', input: { target: 'all' }, provenance: { ownerScope: { sessionId: 'chat' }, hostProfileId: 'local' } });
 * const lease = await processes.claimProcessLease('build', 'worker-1', 30_000);
 * await processes.completeProcess('build', { type: 'success', value: { exitCode: 0 } });
 * await processes.completeProcessLease(lease);
 * ```
 */
export class ProcessRegistryStore implements AsyncDisposable {
  readonly #core: SideCore;
  /** Where the caller has a validator of his own. */
  readonly #check: PayloadCheck | undefined;

  /** @internal */
  constructor(make: symbol, core: SideCore, check: PayloadCheck | undefined) {
    if (make !== MAKE) throw new TypeError('use ProcessRegistryStore.open() or .memory()');
    this.#core = core;
    this.#check = check;
  }

  /**
   * Opens a file, and makes it (not its folder) when it is missing. Any number of processes may do so at once.
   *
   * @throws {UnsupportedSchemaError} It is no process registry, or of a version that this build cannot use; it was not touched.
   * @throws {StoreBusyError} Others kept it to themselves for longer than `busyTimeoutMs`.
   */
  static open(path: string, options: ProcessRegistryOptions = {}): Promise<ProcessRegistryStore> {
    return opened(path, options);
  }

  /** Makes a private store in memory, gone when it is closed. */
  static memory(options: ProcessRegistryOptions = {}): Promise<ProcessRegistryStore> {
    return opened(null, options);
  }

  /** Where the file is, with links followed; `null` in memory. */
  get path(): string | null {
    return this.#core.path;
  }

  /** The version of the file. */
  get schemaVersion(): number {
    return this.#core.schemaVersion;
  }

  /** What a resolved write survives; `inline` in memory. */
  durabilityTier(): DurabilityTier {
    return this.#core.durabilityTier();
  }

  /**
   * Finishes what was called, then closes the file. Waits, events whose `validatePayload` has not answered yet, and later calls reject with
   * {@link StoreClosedError}; closing again is fine.
   */
  close(): Promise<void> {
    this.#check?.close();
    return this.#core.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /**
   * Makes a process known. The same registration again, by anybody, returns the stored record.
   *
   * @throws {ProcessRegistryError} The id is known with other contents, or the registration makes no sense.
   */
  async registerProcess(registration: ProcessRegistration): Promise<ProcessRecord> {
    return this.#write<ProcessRecord>({ do: 'register', registration: registrationOf(registration) }, 'registration');
  }

  /** Reads a process; `null` if there is none. */
  async getProcess(id: string): Promise<ProcessRecord | null> {
    return this.#question<ProcessRecord | null>({ do: 'process', id: checkId(id, 'id') });
  }

  /** The processes that have not ended, the oldest first. */
  async listNonTerminal(): Promise<ProcessRecord[]> {
    return this.#question<ProcessRecord[]>({ do: 'running' });
  }

  /** Notes where a process runs, for whoever looks for it after a restart; `null` forgets it. */
  async setExternalRef(id: string, ref: JsonValue): Promise<ProcessRecord> {
    return this.#write<ProcessRecord>({ do: 'setExternalRef', id: checkId(id, 'id'), reference: given(ref, 'ref') }, 'ref');
  }

  /**
   * Appends an event. With a `replayKey` it can be appended again when nobody knows whether it landed: the stored event comes back, with the wake
   * that it made.
   *
   * @returns The event, and whom it wakes.
   * @throws {ProcessRegistryError} The process or the type is unknown, the payload does not fit, the replay key belongs to another event, the
   *   process has ended already, or a wake has no target.
   */
  async appendEvent(id: string, req: ProcessEventAppend): Promise<{ event: ProcessEvent; wakeDelivery?: WakeDelivery }> {
    const event = appendOf(req);
    const command = { do: 'append', id: checkId(id, 'id'), ...event };
    return this.#validated(command, 'req', event.eventType, event.payload);
  }

  /** The events with a larger sequence, in order. */
  async eventsAfter(id: string, seq: number): Promise<ProcessEvent[]> {
    return this.#question<ProcessEvent[]>({ do: 'events', id: checkId(id, 'id'), seq: checkCount(seq, 'seq') });
  }

  /** Those of them that wake somebody and were not acknowledged. */
  async wakeEventsAfter(id: string, seq: number): Promise<ProcessEvent[]> {
    return this.#question<ProcessEvent[]>({ do: 'wakes', id: checkId(id, 'id'), seq: checkCount(seq, 'seq') });
  }

  /** Notes that the wake of this one event has arrived; again, or of an event that wakes nobody, changes nothing. */
  async ackWake(id: string, seq: number): Promise<void> {
    await this.#write({ do: 'ackWake', id: checkId(id, 'id'), seq: checkCount(seq, 'seq') }, 'seq');
  }

  /**
   * Waits for the first event of a type with a larger sequence, whichever process appends it. Keeps Node alive meanwhile.
   *
   * @throws {InvalidArgumentError} The process declares no such type.
   */
  async waitEventAfter(id: string, type: string, seq: number, opts: ProcessWaitOptions = {}): Promise<ProcessEvent> {
    const command = { do: 'eventAfter', id: checkId(id, 'id'), eventType: checkId(type, 'type'), seq: checkCount(seq, 'seq') };
    return this.#wait<ProcessEvent>(command, opts);
  }

  /** Waits until a process has ended, however; returns its output. Keeps Node alive meanwhile. */
  async awaitProcess(id: string, opts: ProcessWaitOptions = {}): Promise<AwaitOutput> {
    return this.#wait<AwaitOutput>({ do: 'outcome', id: checkId(id, 'id') }, opts);
  }

  /**
   * Ends a process: appends `process.completed`, `process.failed` or `process.cancelled`. The same output again is fine.
   *
   * @throws {ProcessRegistryError} It has ended in another way.
   */
  async completeProcess(id: string, output: AwaitOutput): Promise<ProcessRecord> {
    const checked = outputOf(output);
    const command = { do: 'complete', id: checkId(id, 'id'), output: checked };
    return this.#validated(command, 'output', terminalTypeOf(checked), { awaitOutput: checked });
  }

  /** Lets a scope deal with a process; a second grant replaces the descriptor. */
  async grantHandle(scope: ProcessScope, id: string, d: { kind?: string; label?: string }): Promise<HandleGrant> {
    const command = { do: 'grant', scope: scopeOf(scope, 'scope'), id: checkId(id, 'id'), descriptor: descriptorOf(d) };
    return this.#write<HandleGrant>(command, 'd');
  }

  /** Takes a handle back; none is fine. */
  async revokeHandle(scope: ProcessScope, id: string): Promise<void> {
    await this.#write({ do: 'revoke', scope: scopeOf(scope, 'scope'), id: checkId(id, 'id') }, 'scope');
  }

  /** Whether exactly this scope has a handle: one of the session is none of its frames. */
  async hasHandleGrant(scope: ProcessScope, id: string): Promise<boolean> {
    return this.#question<boolean>({ do: 'hasGrant', scope: scopeOf(scope, 'scope'), id: checkId(id, 'id') });
  }

  /**
   * Moves handles to another scope, with their descriptors: all of them or none.
   *
   * @throws {ProcessRegistryError} `from` lacks one of them.
   */
  async transferHandleGrants(from: ProcessScope, to: ProcessScope, ids: string[]): Promise<void> {
    await this.#write({ do: 'transfer', ...transferOf(from, to, ids) }, 'ids');
  }

  /** The handles of a process, by session, then scope id. */
  async handleGrantsForProcess(id: string): Promise<HandleGrant[]> {
    return this.#question<HandleGrant[]>({ do: 'grantsOfProcess', id: checkId(id, 'id') });
  }

  /** The handles of a scope with their processes, by process id; with `liveOnly` without those that have ended. */
  async listHandleGrants(scope: ProcessScope, opts: { liveOnly?: boolean } = {}): Promise<{ grant: HandleGrant; record: ProcessRecord }[]> {
    checkObject(opts, 'opts');
    const liveOnly = checkBooleanOf(opts.liveOnly, 'opts.liveOnly');
    return this.#question({ do: 'grants', scope: scopeOf(scope, 'scope'), liveOnly });
  }

  /** Takes back all handles of a session and its frames. Says which running processes nobody holds any more; it cancels none. */
  async deleteSessionProcessState(sessionId: string): Promise<SessionProcessStateDeletion> {
    return this.#write<SessionProcessStateDeletion>({ do: 'deleteSession', sessionId: checkId(sessionId, 'sessionId') }, 'sessionId');
  }

  /**
   * Claims the running of a process for `leaseTtlMs`: one that is free, whose lease has lapsed, or that is the owner's own.
   *
   * @throws {ProcessRegistryError} Another owner has a lease that has not lapsed.
   */
  async claimProcessLease(id: string, ownerId: string, leaseTtlMs: number): Promise<ProcessLease> {
    const command = { do: 'claimLease', id: checkId(id, 'id'), ownerId: checkId(ownerId, 'ownerId'), leaseTtlMs: checkCount(leaseTtlMs, 'leaseTtlMs') };
    return this.#write<ProcessLease>(command, 'ownerId');
  }

  /**
   * Lets a lease end `leaseTtlMs` from now.
   *
   * @throws {ProcessRegistryError} It has lapsed, or is no longer the current one.
   */
  async renewProcessLease(lease: ProcessLease, leaseTtlMs: number): Promise<ProcessLease> {
    return this.#write<ProcessLease>({ do: 'renewLease', ...leaseOf(lease), leaseTtlMs: checkCount(leaseTtlMs, 'leaseTtlMs') }, 'lease');
  }

  /** Gives a lease back; one that is no longer the current one changes nothing. */
  async completeProcessLease(c: { processId: string; leaseToken: string }): Promise<void> {
    checkObject(c, 'c');
    const command = { do: 'releaseLease', processId: checkId(c.processId, 'c.processId'), leaseToken: checkId(c.leaseToken, 'c.leaseToken') };
    await this.#write(command, 'c');
  }

  /**
   * Forgets processes that ended, and were not changed since, for `olderThanMs`, with their events and wakes, also those that nobody acknowledged;
   * never one that runs, that somebody has a handle of, or whose lease has not lapsed. A forgotten id can be registered anew: sequences and fencing
   * tokens begin again, so choose an age that nobody's retry or lease reaches. Nothing is ever forgotten by itself.
   *
   * @returns How many.
   */
  async prune(opts: { olderThanMs: number }): Promise<number> {
    checkObject(opts, 'opts');
    const command = JSON.stringify({ do: 'prune', olderThanMs: checkCount(opts.olderThanMs, 'opts.olderThanMs'), limit: SLICE });
    return this.#core.writeInSlices(command, SLICE);
  }

  async #question<T>(command: object): Promise<T> {
    return JSON.parse(await this.#core.read(JSON.stringify(command))) as T;
  }

  async #wait<T>(command: object, opts: ProcessWaitOptions): Promise<T> {
    checkObject(opts, 'opts');
    const signal = checkSignal(opts.signal, 'opts.signal');
    return this.#core.until(async () => (await this.#question<T | null>(command)) ?? undefined, { signal });
  }

  async #write<T>(command: object, argument: string): Promise<T> {
    return JSON.parse(await this.#core.write(print(command, argument))) as T;
  }

  /** Writes after the caller's own validator has seen the payload, if there is one. */
  async #validated<T>(command: { do: string; id: string }, argument: string, eventType: string, payload: unknown): Promise<T> {
    if (this.#check === undefined) return this.#write(command, argument);
    const [text, payloadText] = [print(command, argument), print({ payload }, argument)];
    return JSON.parse(await this.#check.write({ id: command.id, eventType, text, payloadText })) as T;
  }
}

async function opened(path: string | null, options: ProcessRegistryOptions): Promise<ProcessRegistryStore> {
  checkObject(options, 'options');
  const validate = guarded(() => checkFunctionOrUndefined(options.validatePayload, 'options.validatePayload'));
  const core = await SideCore.open('processes', path, options, ['validatePayload']);
  return new ProcessRegistryStore(MAKE, core, validate === undefined ? undefined : new PayloadCheck(core, validate));
}
