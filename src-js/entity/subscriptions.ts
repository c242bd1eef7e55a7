/** Subscriptions to the changes of a kind, over the event bus of a host that may come later. */
import { checkFunction, isBlank } from '../check';
import { HoldfastError } from '../errors';
import { EntityChangedSchema } from './change-schema';
import { messageOf, quietLogger } from './logging';
import type { EntityChangedSubscriptions, EntityChangedUnsubscribe, Logger, OnEntityChangedInput, OnHookFn } from './types';

/** The host's event that carries changes. */
export const ENTITY_CHANGED_HOOK: { readonly id: 'automation.entity.changed' } = Object.freeze({ id: 'automation.entity.changed' });

interface Bus {
  onHook: OnHookFn;
  logger: Logger;
}

/** Makes a set of subscriptions. They begin to hear when `wire` has connected them to the host's bus. */
export function createEntityChangedSubscriptions(): EntityChangedSubscriptions {
  /** Those that have not been ended. */
  const subscriptions = new Set<Subscription>();
  let bus: Bus | null = null;

  return {
    onEntityChanged(input) {
      const subscription = new Subscription(input);
      if (bus !== null) subscription.connect(bus);
      subscriptions.add(subscription);
      return () => {
        subscriptions.delete(subscription);
        return subscription.end();
      };
    },
    wire({ onHook, logger }) {
      bus = { onHook: checkFunction(onHook, 'onHook'), logger: quietLogger(logger) };
      for (const subscription of subscriptions) subscription.connect(bus);
    },
    async disposeAll() {
      const ended = [...subscriptions].map((subscription) => subscription.end());
      subscriptions.clear();
      await Promise.allSettled(ended);
    },
  };
}

type Options = { mode: 'broadcast' } | { mode: 'work-queue'; workerGroup: string; maxRetries: number | undefined };

class Subscription {
  readonly #kind: string;
  readonly #handler: OnEntityChangedInput['handler'];
  readonly #options: Options;
  #disconnect: EntityChangedUnsubscribe | undefined;
  #ended: Promise<void> | undefined;

  constructor({ kind, handler, delivery }: OnEntityChangedInput) {
    if (typeof kind !== 'string' || isBlank(kind)) throw invalid('onEntityChanged: `kind` must be a non-empty string');
    this.#kind = kind;
    this.#handler = checkFunction(handler, 'handler');
    this.#options = optionsOf(delivery);
  }

  connect({ onHook, logger }: Bus): void {
    if (this.#disconnect !== undefined) return;
    this.#disconnect = onHook<unknown>(ENTITY_CHANGED_HOOK, (payload) => this.#hear(payload, logger), this.#options);
  }

  async #hear(payload: unknown, logger: Logger): Promise<void> {
    const queued = this.#options.mode === 'work-queue';
    // A queue counts a job as done when the listener resolves: what it still hands out must be handled, not swallowed.
    if (this.#ended !== undefined && !queued) return;
    const parsed = EntityChangedSchema.safeParse(payload);
    if (!parsed.success) {
      logger.warn(`onEntityChanged(${this.#kind}): dropping malformed ENTITY_CHANGED payload`);
      return;
    }
    if (parsed.data.kind !== this.#kind) return;
    try {
      await this.#handler.call(undefined, parsed.data);
    } catch (error) {
      logger.warn(`onEntityChanged(${this.#kind}) handler threw: ${messageOf(error)}`);
      if (queued) throw error;
    }
  }

  end(): Promise<void> {
    this.#ended ??= Promise.resolve().then(() => this.#disconnect?.());
    return this.#ended;
  }
}

function optionsOf(delivery: OnEntityChangedInput['delivery']): Options {
  if (delivery?.mode !== 'work-queue') return { mode: 'broadcast' };
  const { workerGroup, maxRetries } = delivery;
  if (typeof workerGroup !== 'string' || isBlank(workerGroup)) {
    throw invalid('onEntityChanged: work-queue delivery requires a non-empty `workerGroup`');
  }
  return { mode: 'work-queue', workerGroup, maxRetries };
}

function invalid(message: string): HoldfastError {
  return new HoldfastError(message, { hfCode: 'HF_ENTITY_SUBSCRIBE_INVALID' });
}
