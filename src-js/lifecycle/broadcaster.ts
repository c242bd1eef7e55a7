/** Fan-out of events within the process. */
import { checkFunction, checkPositiveInteger, invalidArgument, isRecord } from '../check';
import type { Logger } from '../logging';
import { attempt } from '../logging';
import { checkId, checkSignal, guarded } from './arguments';
import type { AnyChangeEvent, ChangeEvent, ChangeSubscription, SubscribeOptions } from './change-types';
import { checkLogger, messageOf } from './logging';
import { BufferedSubscription } from './subscription';

const DEFAULT_BUFFER = 1024;

interface Subscriber<E> {
  readonly hear: (event: E) => unknown;
  /** How many events had been published when it came. */
  readonly since: number;
}

/** Loggers of the pollers that publish to broadcasters without one. */
const lent = new WeakMap<object, Logger>();

/** Lends `broadcaster` a logger to report throwing listeners to, if it has none of its own. */
export function lendLogger(broadcaster: object, logger: Logger | undefined): void {
  if (logger !== undefined && !lent.has(broadcaster)) lent.set(broadcaster, logger);
}

/**
 * Hands each event to everybody who listens in this process, in the order of their subscriptions. A {@link CdcPoller} fills it from a store.
 *
 * Listeners are called synchronously. One that throws, or rejects, is reported to the logger and disturbs nobody. Subscribing and
 * unsubscribing inside a listener is fine: who left gets nothing more, who came begins with the next event.
 *
 * @example
 * ```ts
 * const broadcaster = new Broadcaster();
 * const poller = new CdcPoller(store, broadcaster, { logger: console });
 * const unsubscribe = broadcaster.subscribe((event) => console.log(event.seq, event.type));
 * poller.start();
 * ```
 */
export class Broadcaster<E extends AnyChangeEvent = ChangeEvent> {
  // Sets keep the order of insertion, and may be changed while they are walked.
  readonly #subscribers = new Set<Subscriber<E>>();
  readonly #logger: Logger | undefined;
  #published = 0;

  /** @param options `logger` gets a line for each listener that throws. Default: the logger of the poller that publishes. */
  constructor(options: { logger?: Logger } = {}) {
    this.#logger = guarded(() => {
      if (!isRecord(options)) throw invalidArgument('options', 'an object', options);
      return checkLogger(options.logger, 'options.logger');
    });
  }

  /** Calls `listener` with every event from now on. Returns how to end that; calling it twice is harmless. */
  subscribe(listener: (event: E) => void): () => void;
  /** Makes an async iterator of the events from now on. */
  subscribe(options?: SubscribeOptions): ChangeSubscription<E>;
  subscribe(listener: ((event: E) => void) | SubscribeOptions = {}): (() => void) | ChangeSubscription<E> {
    if (typeof listener === 'function') return this.#add(listener);
    return guarded(() => {
      const asked: SubscribeOptions = listener;
      if (!isRecord(asked)) throw invalidArgument('listener', 'a function, or an object of options', listener);
      const { projectId, buffer = DEFAULT_BUFFER, signal }: SubscribeOptions = asked;
      checkPositiveInteger(buffer, 'options.buffer');
      checkSignal(signal, 'options.signal');
      if (projectId === undefined) return new BufferedSubscription((put) => this.#add(put), buffer, signal);
      checkId(projectId, 'options.projectId');
      const listen = (put: (event: E) => void) => this.#add((event) => event.projectId === projectId && put(event));
      return new BufferedSubscription(listen, buffer, signal);
    });
  }

  /** Hands `event` to everybody who listens now. */
  publish(event: E): void {
    const turn = ++this.#published;
    for (const subscriber of this.#subscribers) {
      // Who came while this event was being handed out is at the end, with all who came after.
      if (subscriber.since >= turn) break;
      attempt(
        () => subscriber.hear(event),
        (error) => this.#failed(event, error),
      );
    }
  }

  /** How many listen, iterators included. */
  get subscriberCount(): number {
    return this.#subscribers.size;
  }

  #add(hear: (event: E) => unknown): () => void {
    const subscriber = { hear: checkFunction(hear, 'listener'), since: this.#published };
    this.#subscribers.add(subscriber);
    return () => void this.#subscribers.delete(subscriber);
  }

  #failed(event: E, error: unknown): void {
    const logger = this.#logger ?? lent.get(this);
    logger?.error(`a listener of changes threw at seq ${event.seq}: ${messageOf(error)}`, { seq: event.seq });
  }
}
