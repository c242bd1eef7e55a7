/** The inbox: what people were, or should have been, told. */
import type { NotificationEvent } from './port-types';
import type { ProjectId, ReactionKey, SessionId } from './word-types';

/**
 * Something for people: written with the transition that called for it, whether a notifier exists, fails or succeeds. As long as it is not
 * resolved, the same reaction to the same session counts to it.
 */
export interface SessionNotification {
  /** Newer ones have higher ids. */
  id: number;
  projectId: ProjectId;
  sessionId: SessionId;
  /** What it is about; for `reaction.escalated`, what came to nothing. */
  reaction: ReactionKey;
  /** As the notifier gets it: `reaction.<key>` or `reaction.escalated`. */
  type: string;
  priority: NotificationEvent['priority'];
  message: string;
  /** How often it was said. */
  count: number;
  firstAt: Date;
  lastAt: Date;
  /** When somebody saw it; `null` = nobody has, or not since it was said last. */
  seenAt: Date | null;
  /** When its cause went away, or somebody said so. What only informs (`info`) is resolved from the beginning. */
  resolvedAt: Date | null;
}

/** Which notifications are wanted. */
export interface NotificationFilter {
  projectId?: ProjectId;
  sessionId?: SessionId;
  /** Only those whose cause is still there. */
  unresolved?: boolean;
  /** Only those that nobody saw. */
  unseen?: boolean;
  /** At most so many; default 100, at most 1000. */
  limit?: number;
  /** Only those with a lower id: the last one of the page before. */
  before?: number;
}

/** For a badge. */
export interface NotificationCounts {
  /** Nobody saw them, resolved or not. */
  unseen: number;
  /** Their cause is still there, seen or not. */
  unresolved: number;
  /** Of those, the urgent ones. */
  urgent: number;
}
