/** How a handle records a change, whatever store it has: what every change goes through, and the two ways to do it. */
import type { HandleContext } from './handle-context';
import type { EntityChanged, EntityMutationOpts, EntityStore } from './types';

/** The state of an entity. */
export type State = Record<string, unknown>;

/** What is known before the owner's write. */
export interface ChangeStart {
  readonly id: string;
  readonly removal: boolean;
  /** What `read` returned. Taken by value here, because the owner may edit it in place. */
  readonly prev: State | null;
  readonly opts: EntityMutationOpts | undefined;
}

/** A change on its way into the history. */
export interface RecordedChange {
  /** Resolves when the store knows what is going to happen; `undefined` if it does not need to know. */
  readonly begun: Promise<void> | undefined;
  /** Takes the state after the owner's write by value. Throws what a getter or `toJSON` of the state throws; the change is lost then. */
  take(next: State | null): void;
  /** Appends what has changed; resolves to the change to send, or `null` if nothing had changed. */
  append(): Promise<SendableChange | null>;
  /** Tries a failed append again. */
  appendAgain(): Promise<SendableChange | null>;
  /** Forgets the change: its write did not happen, or it changed nothing. */
  discard(): void;
}

/** A recorded change that subscribers are to hear of. */
export interface SendableChange {
  readonly changedFields: readonly string[];
  /** The event; always the same object. Its time is that of the first call. */
  event(): EntityChanged;
  /** Notes that the emitter's target took it. */
  delivered(): void;
}

/** What recording needs to know of a handle. */
export type RecordingContext = Pick<HandleContext<State>, 'kind' | 'schema' | 'secrets' | 'logger' | 'compat'>;

/** Records the changes of one kind in one store. */
export interface Recorder {
  /** The store it belongs to. */
  readonly store: EntityStore;
  /** Whether what was appended is sent again after a failure, so that a mutation need not fail with its subscribers. */
  readonly keepsEvents: boolean;
  /** Counts a delivery that is tried again. */
  readonly noteRetry: () => void;
  /** Resolves when the store can be used; `undefined` once it can. */
  ready(): Promise<void> | undefined;
  /** Whether the store waits for no mutation any more: an owner that writes now would write what is not recorded. */
  readonly isEnded: boolean;
  /** A mutation begins: the store waits with its closing, a while at least, until it is recorded. Throws if the store is being closed. */
  enter(): void;
  /** The mutation is recorded, or failed. */
  leave(): void;
  /** Keeps other processes from changing an entity; resolves to what ends that. */
  lock(id: string): Promise<() => void>;
  /** Takes what is known before the owner's write. */
  start(start: ChangeStart): RecordedChange;
}
