/** Processes of a runtime: what they are, what they say, and who may deal with them. */
import type { SideStoreOptions } from './side-types';
import type { JsonValue } from './value-types';

/** A session, or one agent frame of it. Its id is `session:<s>` or `session:<s>/frame:<f>`. */
export interface ProcessScope {
  /** Not empty; must not contain `/frame:`. */
  sessionId: string;
  agentFrameId?: string;
}

/**
 * What is taken from a payload: all of it, the value that a JSON pointer (RFC 6901) leads to, a constant, whether a pointer leads anywhere, or
 * a text in which each `{name}` is replaced by that field's text. Strings are taken as they are, all else as JSON where text is needed.
 *
 * A template nests 32 deep at most, and its text may be 1 MiB longer than the payload; an event that would make more is refused.
 */
export type Selector =
  | 'payload'
  | { pointer: string }
  | { const: JsonValue }
  | { present: string }
  | { template: string; fields: Record<string, Selector> };

/** How a process ends. */
export type ProcessTerminalState = 'completed' | 'failed' | 'cancelled';

/** A kind of event that a process may append. */
export interface ProcessEventType {
  name: string;
  /** Checked before an event is stored: a JSON Schema, of which type, required, properties, items, enum, const and additionalProperties count. */
  payloadSchema?: JsonValue;
  /** The event ends the process. `awaitOutput` takes an {@link AwaitOutput} of that state from the payload; default `success` with the payload. */
  terminal?: { state: ProcessTerminalState; awaitOutput?: Selector };
  /** The event wakes somebody. */
  wake?: {
    /** Only if this is something (not null, false, `""`, `[]` or `{}`); default always. */
    when?: Selector;
    /** What he is told. */
    input: Selector;
    /** Wakes of one target with equal keys have one `wakeId`. Default `eventIdentity`: `<process id>:<sequence>`. */
    dedupeKey?: 'eventIdentity' | { selector: Selector } | { const: string };
  };
}

/** A process that is to be known. */
export interface ProcessRegistration {
  id: string;
  input: JsonValue;
  /** `process.cancel_requested`, `process.completed`, `process.failed` and `process.cancelled` are added where they are missing. */
  eventTypes?: ProcessEventType[];
  provenance: { ownerScope: ProcessScope; hostProfileId: string; causedBy?: JsonValue };
}

/** What somebody gets who waits for a process. */
export type AwaitOutput =
  | { type: 'success'; value: JsonValue }
  | { type: 'failure'; class: string; code: string; message: string; raw?: JsonValue }
  | { type: 'cancelled'; message: string; raw?: JsonValue };

/** A process as it is stored. */
export interface ProcessRecord extends ProcessRegistration {
  eventTypes: ProcessEventType[];
  /** Over id, input, event types and provenance, whatever their order. */
  registrationHash: string;
  createdAtMs: number;
  /** When the reference or the status changed last. */
  updatedAtMs: number;
  /** Where it runs, as `setExternalRef` said. */
  externalRef?: JsonValue;
  status: 'running' | ProcessTerminalState;
  /** Of a process that has ended. */
  awaitOutput?: AwaitOutput;
}

/** An event that is to be appended. */
export interface ProcessEventAppend {
  eventType: string;
  payload: JsonValue;
  /** Makes the event one that can be appended again; needed for those that end a process and for `process.cancel_requested`. */
  replayKey?: string;
  /** Whom the event wakes; needed if its type wakes somebody. */
  wakeTargetScope?: ProcessScope;
}

/** An event of a process. */
export interface ProcessEvent {
  processId: string;
  /** 1, 2, 3 … per process. */
  sequence: number;
  eventType: string;
  payload: JsonValue;
  occurredAtMs: number;
  replayKey?: string;
  terminal?: { state: ProcessTerminalState; awaitOutput: AwaitOutput };
  wake?: { input: string; dedupeKey: string };
}

/** A wake on its way to its target. */
export interface WakeDelivery {
  /** `wake:` and a hash of target scope and dedupe key. */
  wakeId: string;
  targetSessionId: string;
  targetScopeId: string;
  processId: string;
  sequence: number;
  eventType: string;
  dedupeKey: string;
  input: string;
  createdAtMs: number;
  /** `provenance.causedBy` of the process. */
  processCausedBy?: JsonValue;
}

/** A scope's right to deal with a process. */
export interface HandleGrant {
  sessionId: string;
  /** Only of a grant to a frame. */
  agentFrameId?: string;
  processId: string;
  descriptor: { kind?: string; label?: string };
}

/** What became of the processes of a session that was deleted. */
export interface SessionProcessStateDeletion {
  sessionId: string;
  revokedHandleCount: number;
  /** Always 0: wakes belong to processes. */
  deletedWakeCount: number;
  /** Running processes that nobody has a handle of any more. Nothing was cancelled: that is the host's to do. */
  cancelProcessIds: string[];
  /** Running processes that somebody else has a handle of. */
  preservedProcessIds: string[];
}

/** The right to run a process until a time. Plain data: it may cross processes. */
export interface ProcessLease {
  schemaVersion: 1;
  processId: string;
  ownerId: string;
  leaseToken: string;
  /** Larger with each claim of the process. */
  fencingToken: number;
  claimedAtEpochMs: number;
  expiresAtEpochMs: number;
}

/** How a process registry is opened. */
export interface ProcessRegistryOptions extends SideStoreOptions {
  /**
   * Replaces the check of payloads against the `payloadSchema` of their type; called before each write of such an event. Says what does not fit, or
   * throws it; returns nothing if all is well. Later events of the same process, and its end, wait until it has answered; nothing else does: leases
   * are renewed meanwhile. It cannot append events or complete processes of the store that asks it: those calls are refused with a
   * {@link ProcessRegistryError} while it is asked.
   */
  validatePayload?: (schema: JsonValue, payload: JsonValue) => string | undefined | void | Promise<string | undefined | void>;
}

/** How a wait may end. */
export interface ProcessWaitOptions {
  /** Ends it with its reason. */
  signal?: AbortSignal;
}
