/** Session graph: one conversation of an agent runtime in one file, changed by commits that happened or did not. */
export type * from './session-graph/value-types';
export type * from './session-graph/commit-types';
export type * from './session-graph/queue-types';
export type * from './session-graph/store-types';
export type * from './session-graph/side-types';
export type * from './session-graph/process-types';
export type * from './session-graph/effect-types';
export type * from './session-graph/host-event-types';
export type * from './session-graph/upkeep-types';
export { SessionGraphStore } from './session-graph/store';
export { ProcessRegistryStore } from './session-graph/process-registry';
export { SessionGraphStoreFactory } from './session-graph/factory';
export { EffectReplayStore } from './session-graph/effects';
export { HostEventStore } from './session-graph/host-events';
export { turnCommitHash } from './session-graph/turn-hash';
export { completionOf } from './session-graph/queue';
export { BlobDescriptors, QUEUED_WORK_CLAIM_TTL_MS, SESSION_SCHEMA_VERSION } from './session-graph/constants';
export {
  BlobCorruptError,
  EffectReplayError,
  CommitTooLargeError,
  GraphCorruptError,
  GraphCycleError,
  HeadRevisionConflictError,
  HostEventError,
  InternalPanicError,
  InvalidArgumentError,
  MigrationError,
  MissingBlobError,
  NodeIdCollisionError,
  ProcessRegistryError,
  QueueRowCorruptError,
  QueuedWorkClaimExpiredError,
  ReadOnlyStoreError,
  RecordDecodeError,
  RuntimeTurnCommitConflictError,
  SessionBindingMismatchError,
  StoreBusyError,
  StoreClosedError,
  StoreCorruptError,
  StoreFullError,
  StoreIoError,
  StoreNotFoundError,
  UnknownLeafError,
  UnsupportedReadScopeError,
  UnsupportedRecordSchemaVersionError,
  UnsupportedSchemaError,
} from './session-graph/errors';
