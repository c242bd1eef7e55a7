/** Events of the host, and who wants a process started when they happen. */
import type { JsonValue } from './value-types';

/** What is to be subscribed to. */
export interface HostEventSubscriptionDraft {
  /** Whose it is. */
  sessionId: string;
  /** What people call it. */
  name?: string | null;
  /** What kind of source it has, such as `'cron'`. */
  sourceType: string;
  /** Which source: what {@link HostEventStore.sourceKey} returns, or any other text that occurrences will name. */
  sourceKey: string;
  /** The source, for those who list subscriptions; never interpreted. */
  source: JsonValue;
  /** What is to be started; never interpreted. */
  target: JsonValue;
}

/** A subscription as it is stored. */
export interface HostEventSubscription extends HostEventSubscriptionDraft {
  /** `subscription:<n>`, with a number that no other subscription of the file ever has. */
  subscriptionId: string;
  /** `trigger:<n>`, with the same number: what the session calls it. */
  handle: string;
  /** Whether it was not cancelled. */
  enabled: boolean;
  /** When it was registered, in milliseconds since 1970. */
  createdAtMs: number;
  /** When it was registered or cancelled. */
  updatedAtMs: number;
}

/** Which subscriptions: those that fit all that is given. */
export interface HostEventSubscriptionFilter {
  sessionId?: string | null;
  handle?: string | null;
  name?: string | null;
  sourceType?: string | null;
  sourceKey?: string | null;
  enabled?: boolean | null;
}

/** What happened. */
export interface HostEventOccurrenceRequest {
  /** What kind of source it comes from. */
  sourceType: string;
  /** Which source: subscriptions with the same type and key get it. */
  sourceKey: string;
  /** The same for each telling of the same occurrence, and for no other one. */
  idempotencyKey: string;
  /** What is known of it; never interpreted. */
  payload?: JsonValue;
  /** Where it comes from; never interpreted. */
  source?: JsonValue;
}

/** An occurrence as it is stored. */
export interface HostEventOccurrence extends HostEventOccurrenceRequest {
  /** `occurrence:<hash of the idempotency key>`. */
  occurrenceId: string;
  /** When it was recorded first, in milliseconds since 1970. */
  occurredAtMs: number;
}

/** One occurrence for one subscription: a process that is to be started. */
export interface HostEventDelivery {
  /** What happened. */
  occurrence: HostEventOccurrence;
  /** Who wanted to hear of it, as it is now. */
  subscription: HostEventSubscription;
  /** The id of the process: `process:host-event:<hash of both ids>`, the same whenever it is computed. */
  processId: string;
  /** When it was reserved, in milliseconds since 1970. */
  reservedAtMs: number;
}

/** What is forgotten: what is given. */
export interface HostEventPruneOptions {
  /** Occurrences recorded so long ago whose deliveries were reserved and are all started. */
  occurrencesOlderThanMs?: number | null;
  /** Subscriptions cancelled so long ago without an unstarted delivery. */
  subscriptionsOlderThanMs?: number | null;
}
