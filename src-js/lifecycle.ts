/** Session lifecycle: sessions of coding agents whose truth survives restarts, and a change log that misses nothing. */
export type * from './lifecycle/types';
export { openSessionStore } from './lifecycle/open-store';
export { LifecycleManager } from './lifecycle/lifecycle-manager';
export { SessionManager } from './lifecycle/session-manager';
export { Reaper } from './lifecycle/reaper';
export { Broadcaster } from './lifecycle/broadcaster';
export { CdcPoller, type CdcPollerOptions } from './lifecycle/poller';
export { createDetectingDecision, deriveStatus, hashEvidence, reactionFor, resolveProbeDecision } from './lifecycle/deciders';
export {
  CI_BRAKE_RUNS,
  DEFAULT_POLL_BATCH,
  DEFAULT_POLL_INTERVAL_MS,
  DETECTING_MAX_ATTEMPTS,
  DETECTING_MAX_DURATION_MS,
  ESCALATE_AFTER_MS,
  NO_PR,
  NO_SIGNAL_AFTER_MS,
  RECENT_ACTIVITY_WINDOW_MS,
  REVIEW_MAX_NUDGES,
} from './lifecycle/constants';
export {
  ChangeLogTruncatedError,
  ConstraintError,
  IncompleteHandleError,
  InvalidArgumentError,
  MigrationError,
  NothingToResumeError,
  PortError,
  ReactionDeliveryError,
  SchemaTooNewError,
  SessionBusyError,
  SessionNotFoundError,
  SessionNotRestorableError,
  SessionTerminatedError,
  StaleRecordError,
  StoreBusyError,
  StoreClosedError,
  StoreCorruptError,
  StoreFullError,
  SubscriberOverflowError,
  type DeliveryFailure,
  type LifecycleErrorOptions,
} from './lifecycle/errors';
