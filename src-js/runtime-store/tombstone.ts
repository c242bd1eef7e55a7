/** A run tombstone as data: its types, its validator, its expiry, and the check that needs no file. */
import { checkArray, checkOneOf, checkPlainObject, checkStringOrNull, invalidArgument, isBlank, isRecord } from '../check';
import { HoldfastError, RuntimeStaleEvidenceError, type RuntimeEvidenceKind } from '../errors';
import { isFilledString, isStringOrNull } from './store-data';

/** The schema version of a file of run tombstones: the highest one understood, and the one written. */
export const OPENCODE_RUNTIME_RUN_TOMBSTONE_SCHEMA_VERSION = 1;

/**
 * Every kind of evidence.
 *
 * @internal
 */
export const EVIDENCE_KINDS: readonly RuntimeEvidenceKind[] = [
  'sse_event',
  'permission_reply',
  'delivery_call',
  'prompt_error',
  'bootstrap_checkin',
  'launch_checkpoint',
  'heartbeat',
  'bridge_result',
  'recovery_result',
];

/**
 * Every reason of a tombstone.
 *
 * @internal
 */
export const TOMBSTONE_REASONS = [
  'stop_requested',
  'relaunch_started',
  'run_replaced',
  'provider_session_aborted',
  'recovery_rejected',
] as const;

/** Why a run is over. */
export type RuntimeRunTombstoneReason = (typeof TOMBSTONE_REASONS)[number];

/** The record that evidence of certain kinds is no longer accepted for a run. */
export interface RuntimeRunTombstone {
  /** The record's own id, unique in its file. */
  tombstoneId: string;
  /** The team that the run belonged to. */
  teamName: string;
  /** The run that is over. */
  runId: string;
  /** Why it is over. A run has at most one unexpired tombstone per reason. */
  reason: RuntimeRunTombstoneReason;
  /** The kinds of evidence that are refused, sorted, without repeats. */
  evidenceKinds: RuntimeEvidenceKind[];
  /** When it was added first, as `Date#toISOString()` writes it. */
  createdAt: string;
  /**
   * From when on it counts no longer: it is expired when this is not later than now. `null` = never; a text that is not a time
   * means never, too, so that a damaged record does not let evidence through.
   */
  expiresAt: string | null;
  /** A note for people, or `null`. */
  diagnostic: string | null;
}

/** A piece of evidence that asks to be accepted. */
export interface RuntimeEvidenceAcceptanceInput {
  /** The team. */
  teamName: string;
  /** The run that the evidence names, or `null` if it names none; blank counts as none. */
  runId: string | null;
  /** The run that is current, or `null` if there is none; blank counts as none. */
  currentRunId: string | null;
  /** What the evidence is. */
  evidenceKind: RuntimeEvidenceKind;
}

/**
 * Requires that evidence names the current run. Tombstones are not looked at: that is `assertEvidenceAccepted`.
 *
 * @throws {RuntimeStaleEvidenceError} with the `reason` `missing_run_id`, `current_run_missing` or `run_mismatch`, checked in
 *   this order
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT`, also for a kind of evidence that does not exist
 */
export function assertRuntimeEvidenceRunMatches(input: RuntimeEvidenceAcceptanceInput): void {
  const { runId, currentRunId, evidenceKind } = checkPlainObject(input, 'input');
  // A kind that no tombstone can name would be accepted for ever.
  checkEvidenceKind(evidenceKind, 'evidenceKind');
  if (isMissing(runId, 'runId')) {
    const message = `Rejected runtime evidence without run id: ${evidenceKind}`;
    throw new RuntimeStaleEvidenceError(message, 'missing_run_id', evidenceKind, runId ?? null);
  }
  if (isMissing(currentRunId, 'currentRunId')) {
    const message = `Rejected runtime evidence without current run: ${evidenceKind}`;
    throw new RuntimeStaleEvidenceError(message, 'current_run_missing', evidenceKind, runId);
  }
  if (runId !== currentRunId) {
    throw new RuntimeStaleEvidenceError(`Rejected stale runtime evidence: ${evidenceKind}`, 'run_mismatch', evidenceKind, runId);
  }
}

/**
 * Checks the data of a file of run tombstones and returns it as it is, unknown keys included. Time strings are not parsed.
 *
 * @throws {HoldfastError} `HF_RUNTIME_INVALID_TOMBSTONES`, naming the first bad record or repeated id
 */
export function validateRuntimeRunTombstones(value: unknown): RuntimeRunTombstone[] {
  if (!Array.isArray(value)) throw invalidTombstones('Runtime run tombstones must be an array');
  const ids = new Set<string>();
  for (const [index, record] of value.entries()) {
    if (!isTombstone(record)) throw invalidTombstones(`Invalid runtime run tombstone at index ${index}`);
    if (ids.has(record.tombstoneId)) throw invalidTombstones(`Duplicate runtime run tombstone id: ${record.tombstoneId}`);
    ids.add(record.tombstoneId);
  }
  return value;
}

/**
 * Returns the tombstones that are not expired at `now`, in their order. A pure filter: nothing is written or changed.
 *
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT`
 */
export function compactRuntimeRunTombstones(records: RuntimeRunTombstone[], now: Date): RuntimeRunTombstone[] {
  // Not instanceof: a Date of another realm is a Date.
  const nowMs = typeof now?.getTime === 'function' ? now.getTime() : NaN;
  // A time that is none would make nothing, or everything, look expired.
  if (Number.isNaN(nowMs)) throw invalidArgument('now', 'a valid Date', now);
  return checkArray(records, 'records').filter(({ expiresAt }) => expiryMs(expiresAt) > nowMs);
}

/**
 * Returns when a tombstone expires, in milliseconds since 1970; `Infinity` = never.
 *
 * @internal
 */
export function expiryMs(expiresAt: string | null): number {
  if (expiresAt === null) return Infinity;
  const ms = Date.parse(expiresAt);
  return Number.isNaN(ms) ? Infinity : ms;
}

/** @internal */
export function checkEvidenceKind(value: unknown, argument: string): RuntimeEvidenceKind {
  return checkOneOf(value, argument, EVIDENCE_KINDS);
}

/** @internal */
export function checkTombstoneReason(value: unknown, argument: string): RuntimeRunTombstoneReason {
  return checkOneOf(value, argument, TOMBSTONE_REASONS);
}

/** Tells whether a run id is absent; anything but a string, `null` or `undefined` is a mistake of the caller. */
function isMissing(runId: string | null | undefined, argument: string): runId is null | undefined {
  return runId === undefined || checkStringOrNull(runId, argument) === null || isBlank(runId as string);
}

function isTombstone(value: unknown): value is RuntimeRunTombstone {
  return (
    isRecord(value) &&
    isFilledString(value.tombstoneId) &&
    isFilledString(value.teamName) &&
    isFilledString(value.runId) &&
    (TOMBSTONE_REASONS as readonly unknown[]).includes(value.reason) &&
    Array.isArray(value.evidenceKinds) &&
    value.evidenceKinds.every((kind) => EVIDENCE_KINDS.includes(kind)) &&
    isFilledString(value.createdAt) &&
    isStringOrNull(value.expiresAt) &&
    isStringOrNull(value.diagnostic)
  );
}

function invalidTombstones(message: string): HoldfastError {
  return new HoldfastError(message, { hfCode: 'HF_RUNTIME_INVALID_TOMBSTONES' });
}
