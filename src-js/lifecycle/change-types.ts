/** The change log: what is told about a change, who tells it, and who listens. */
import type { ActivityState, CheckStatus, CiState, Mergeability, PrState, ProjectId, ReviewDecision, SessionId, SessionState, TerminationReason } from './word-types';

/** What is told of a session. Never its metadata. */
export interface SessionChange {
  id: string;
  state: SessionState;
  terminationReason: TerminationReason;
  isAlive: 0 | 1;
  activity: ActivityState;
}

/** What is told of a pull request. */
export interface PrChange {
  url: string;
  /** The session that it belongs to. */
  session: string;
  state: PrState;
  ci: CiState;
  review: ReviewDecision;
  mergeability: Mergeability;
}

/** What is told of a check. */
export interface PrCheckChange {
  /** The address of the pull request. */
  pr: string;
  name: string;
  commit: string;
  status: CheckStatus;
}

/** One row of the change log. `seq` grows in the order of the commits, is never given twice, and has gaps where rows were pruned. */
export type ChangeEvent = {
  seq: number;
  projectId: ProjectId;
  sessionId: SessionId | null;
  /** When the change was made, by the clock of who made it. */
  createdAt: Date;
} & (
  | { type: 'session_created' | 'session_updated'; payload: SessionChange }
  | { type: 'session_deleted'; payload: { id: string } }
  | { type: 'pr_created' | 'pr_updated'; payload: PrChange }
  | { type: 'pr_check_recorded'; payload: PrCheckChange }
);

/** What is told of a pull request that is gone, or whose comments are others now. */
export interface PrReference {
  url: string;
  /** The session that it belongs, or belonged, to. */
  session: string;
}

/** What is told of a notification. */
export interface NotificationChange {
  id: number;
  /** The session that it is about. */
  session: string;
  reaction: string;
  seen: 0 | 1;
  /** Its cause is gone, or all of its session is. */
  resolved: 0 | 1;
}

/**
 * What the log of a store tells besides {@link ChangeEvent} once it was opened with `invalidation: true`. Types of their own, so that a `switch`
 * over the types of `ChangeEvent` stays exhaustive where nobody asked for more.
 */
export type InvalidationEvent = {
  seq: number;
  projectId: ProjectId;
  sessionId: SessionId | null;
  createdAt: Date;
} & ({ type: 'pr_deleted' | 'pr_comments_replaced'; payload: PrReference } | { type: 'notification_changed'; payload: NotificationChange });

/** Whatever may be in a change log. */
export type AnyChangeEvent = ChangeEvent | InvalidationEvent;

/** Where a {@link CdcPoller} reads. A session store is one; so is any object with these two methods. */
export interface ChangeSource<E extends AnyChangeEvent = ChangeEvent> {
  /**
   * Reads at most `limit` (default 512) events with a seq above `after`, ascending.
   *
   * @throws {ChangeLogTruncatedError} `HF_LIFECYCLE_CHANGE_LOG_TRUNCATED`: events after `after` were pruned; the error has `after` and `oldestSeq`
   */
  readChangeLogAfter(after: number, limit?: number): Promise<E[]>;
  /** The highest seq that was ever given; 0 if there was none. Pruning does not lower it. */
  maxChangeLogSeq(): Promise<number>;
}

/**
 * A reader of the log that the store remembers by name, across restarts. It gets every event at least once: what it has not
 * confirmed with `ack` it reads again, and what it has not confirmed is not pruned, unless a hard limit of the caller's says so.
 */
export interface ChangeConsumer<E extends AnyChangeEvent = ChangeEvent> {
  /**
   * Reads at most `limit` (default 512) events after the confirmed one.
   *
   * @throws {ChangeLogTruncatedError} `HF_LIFECYCLE_CHANGE_LOG_TRUNCATED`: a hard limit pruned some of them
   */
  read(limit?: number): Promise<E[]>;
  /** Confirms everything up to `seq`. A lower seq than the confirmed one changes nothing. */
  ack(seq: number): Promise<void>;
  /** The confirmed seq; 0 if nothing was confirmed. */
  offset(): Promise<number>;
  /** Forgets the reader, which no longer holds pruning up. */
  delete(): Promise<void>;
}

/** Options of {@link Broadcaster.subscribe} for a reader that iterates. */
export interface SubscribeOptions {
  /** Only events of this project. Default: of all. */
  projectId?: ProjectId;
  /** How many events may wait for the reader before the subscription ends with an error. Default 1024. */
  buffer?: number;
  /** Ends the subscription when it aborts. */
  signal?: AbortSignal;
}

/**
 * Events as an async iterator, for one reader. It never holds up who publishes and never skips an event in silence: when more than
 * `buffer` events wait, those are still handed out, and then `next()` rejects with `HF_LIFECYCLE_SUBSCRIBER_OVERFLOW`, whose `lastSeq` is the one to
 * read on from. `break`, `return()`, disposing it and its signal end it.
 */
export interface ChangeSubscription<E extends AnyChangeEvent = ChangeEvent> extends AsyncIterableIterator<E>, AsyncDisposable {
  /** The seq of the event that was handed out last; 0 before the first. */
  readonly lastSeq: number;
  return(): Promise<IteratorResult<E, undefined>>;
}

/** Options of {@link SessionStore.changes}. */
export interface FollowChangesOptions {
  /** Begin with what comes after this seq, such as the last one that a client has seen. Default 0: the oldest event that is still there. */
  after?: number;
  /** Only events of this project. Default: of all. */
  projectId?: ProjectId;
  /** Ends the iteration when it aborts. */
  signal?: AbortSignal;
}
