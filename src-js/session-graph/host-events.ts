/** `HostEventStore`: what happens outside of a runtime, and the sessions that want a process started when it does. */
import { callSync, native } from '../native';
import { isBlank } from '../check';
import { bad, checkCount, checkId, checkObject, checkText, given, guarded, print } from './arguments';
import { HostEventError } from './errors';
import type {
  HostEventDelivery,
  HostEventOccurrence,
  HostEventOccurrenceRequest,
  HostEventPruneOptions,
  HostEventSubscription,
  HostEventSubscriptionDraft,
  HostEventSubscriptionFilter,
} from './host-event-types';
import { SideCore } from './side-core';
import type { SideStoreOptions } from './side-types';
import type { DurabilityTier, JsonValue } from './value-types';

const addon = native as unknown as { sessionGraphSourceKey(sourceType: string, source: string): string };
const FILTERS = ['sessionId', 'handle', 'name', 'sourceType', 'sourceKey', 'enabled'] as const satisfies (keyof HostEventSubscriptionFilter)[];
/** Rows that one transaction forgets. */
const SLICE = 500;
/** Only the static functions make stores. */
const MAKE = Symbol('make');

/**
 * Subscriptions of sessions to events of their host, and what became of them. An occurrence is recorded once, however often it is told; each
 * pair of an occurrence and a subscription is handed out once, as a process to be started under an id that depends on nothing but the pair;
 * and a pair whose process nobody started, because who was about to do it died, can be found.
 *
 * @example
 * ```ts
 * await using events = await HostEventStore.open('host-events.db');
 * const source = { at: '09:00' };
 * const sourceKey = HostEventStore.sourceKey('cron', source);
 * await events.registerSubscription({ sessionId: 'chat', sourceType: 'cron', sourceKey, source, target: { prompt: 'good morning' } });
 * const { occurrenceId } = await events.recordOccurrence({ sourceType: 'cron', sourceKey, idempotencyKey: '2026-11-22T09:00' });
 * for (const { processId, subscription } of await events.reserveMatchingDeliveries(occurrenceId)) {
 *   await startProcess(processId, subscription.target);
 *   await events.markDeliveryStarted(processId);
 * }
 * ```
 */
export class HostEventStore implements AsyncDisposable {
  readonly #core: SideCore;

  /** @internal */
  constructor(make: symbol, core: SideCore) {
    if (make !== MAKE) throw new TypeError('use HostEventStore.open() or .memory()');
    this.#core = core;
  }

  /**
   * Opens a file, and makes it (not its folder) when it is missing. Any number of processes may do so at once.
   *
   * @throws {UnsupportedSchemaError} It is no file of host events, or of a version that this build cannot use; it was not touched.
   */
  static async open(path: string, options: SideStoreOptions = {}): Promise<HostEventStore> {
    return new HostEventStore(MAKE, await SideCore.open('hostEvents', path, options));
  }

  /** Makes a private store in memory, gone when it is closed. */
  static async memory(options: SideStoreOptions = {}): Promise<HostEventStore> {
    return new HostEventStore(MAKE, await SideCore.open('hostEvents', null, options));
  }

  /** The key of a source: `source:<type>:<hash of type and source>`; the order of members does not matter. */
  static sourceKey(sourceType: string, source: JsonValue): string {
    checkId(sourceType, 'sourceType');
    given(source, 'source');
    const text = print(source, 'source');
    return guarded(() => callSync(() => addon.sessionGraphSourceKey(sourceType, text)));
  }

  /** Where the file is, with links followed; `null` in memory. */
  get path(): string | null {
    return this.#core.path;
  }

  /** The version of the file. */
  get schemaVersion(): number {
    return this.#core.schemaVersion;
  }

  /** What a resolved write survives. */
  durabilityTier(): DurabilityTier {
    return this.#core.durabilityTier();
  }

  /** Registers a subscription; each call makes a new one, with a number that was never used in this file. */
  async registerSubscription(draft: HostEventSubscriptionDraft): Promise<HostEventSubscription> {
    checkObject(draft, 'draft', ['sessionId', 'name', 'sourceType', 'sourceKey', 'source', 'target']);
    const { name, source, target } = draft;
    const command = {
      do: 'subscribe',
      sessionId: checkId(draft.sessionId, 'draft.sessionId'),
      name: name === undefined || name === null ? null : checkText(name, 'draft.name'),
      sourceType: checkId(draft.sourceType, 'draft.sourceType'),
      sourceKey: checkId(draft.sourceKey, 'draft.sourceKey'),
      source: given(source, 'draft.source'),
      target: given(target, 'draft.target'),
    };
    return JSON.parse(await this.#core.write(print(command, 'draft'))) as HostEventSubscription;
  }

  /** Ends a subscription of a session; `true` if it was on. It stays in the lists, and no occurrence is reserved for it any more. */
  async cancelSubscription(sessionId: string, handle: string): Promise<boolean> {
    const command = { do: 'unsubscribe', sessionId: checkId(sessionId, 'sessionId'), handle: checkId(handle, 'handle') };
    return JSON.parse(await this.#core.write(JSON.stringify(command))) as boolean;
  }

  /** Lists subscriptions, also cancelled ones, by session and then by number. */
  async listSubscriptions(filter: HostEventSubscriptionFilter = {}): Promise<HostEventSubscription[]> {
    checkObject(filter, 'filter', FILTERS);
    const { enabled } = filter;
    if (enabled !== undefined && enabled !== null && typeof enabled !== 'boolean') throw bad('filter.enabled', 'a boolean', enabled);
    for (const name of FILTERS) {
      const value = filter[name];
      if (name !== 'enabled' && value !== undefined && value !== null) checkText(value, `filter.${name}`);
    }
    return JSON.parse(await this.#core.read(JSON.stringify({ do: 'subscriptions', ...filter }))) as HostEventSubscription[];
  }

  /**
   * Records that something happened; told again under the same key, it answers what was recorded then.
   *
   * @throws {HostEventError} The key has an occurrence with other contents, or something is missing or blank.
   */
  async recordOccurrence(request: HostEventOccurrenceRequest): Promise<HostEventOccurrence> {
    checkObject(request, 'request', ['sourceType', 'sourceKey', 'idempotencyKey', 'payload', 'source']);
    const command = {
      do: 'occur',
      sourceType: required(request.sourceType, 'sourceType', 'source_type'),
      sourceKey: required(request.sourceKey, 'sourceKey', 'source_key'),
      idempotencyKey: required(request.idempotencyKey, 'idempotencyKey', 'idempotency_key'),
      payload: request.payload,
      source: request.source,
    };
    return JSON.parse(await this.#core.write(print(command, 'request'))) as HostEventOccurrence;
  }

  /**
   * Reserves an occurrence for each subscription that is on and has its source, and returns what was not reserved before, by any process: each
   * pair once, ever. Start the processes, and say so with {@link markDeliveryStarted}.
   *
   * @throws {HostEventError} There is no such occurrence.
   */
  async reserveMatchingDeliveries(occurrenceId: string): Promise<HostEventDelivery[]> {
    const command = { do: 'reserve', occurrenceId: checkId(occurrenceId, 'occurrenceId') };
    return JSON.parse(await this.#core.write(JSON.stringify(command))) as HostEventDelivery[];
  }

  /**
   * Notes that the process of a delivery was started; `false` if that was noted before.
   *
   * @throws {HostEventError} There is no delivery of that process.
   */
  async markDeliveryStarted(processId: string): Promise<boolean> {
    const command = { do: 'started', processId: checkId(processId, 'processId') };
    return JSON.parse(await this.#core.write(JSON.stringify(command))) as boolean;
  }

  /**
   * Deliveries that were reserved and not marked as started, the oldest first: after a crash, start these. Who reserved one a moment ago may
   * be about to start it; starting it twice is harmless where processes are registered by id.
   */
  async listUnstartedDeliveries(): Promise<HostEventDelivery[]> {
    return JSON.parse(await this.#core.read(JSON.stringify({ do: 'unstarted' }))) as HostEventDelivery[];
  }

  /**
   * Forgets what is old, never by itself. An occurrence that is told again after it was forgotten is recorded and reserved again, with the
   * same ids: choose a time that no sender waits for. Numbers of subscriptions do not come back.
   *
   * @returns How many of each.
   */
  async prune(opts: HostEventPruneOptions): Promise<{ occurrences: number; subscriptions: number }> {
    checkObject(opts, 'opts');
    const command = (what: string, age: number | null | undefined, argument: string): string | undefined =>
      age === undefined || age === null ? undefined : JSON.stringify({ do: what, olderThanMs: checkCount(age, argument), limit: SLICE });
    // Both are looked at before anything is forgotten.
    const occurrences = command('pruneOccurrences', opts.occurrencesOlderThanMs, 'opts.occurrencesOlderThanMs');
    const subscriptions = command('pruneSubscriptions', opts.subscriptionsOlderThanMs, 'opts.subscriptionsOlderThanMs');
    return {
      occurrences: occurrences === undefined ? 0 : await this.#core.writeInSlices(occurrences, SLICE),
      subscriptions: subscriptions === undefined ? 0 : await this.#core.writeInSlices(subscriptions, SLICE),
    };
  }

  /** Finishes what was called, then closes the file. Later calls reject with {@link StoreClosedError}; closing again is fine. */
  close(): Promise<void> {
    return this.#core.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function required(value: unknown, name: string, word: string): string {
  if (value === undefined || value === null || (typeof value === 'string' && isBlank(value))) {
    throw new HostEventError(`host event occurrence requires ${word}`);
  }
  return checkId(value, `request.${name}`);
}
