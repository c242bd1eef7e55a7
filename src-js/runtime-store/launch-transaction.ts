/** A launch transaction as data: its types, its validator, and what can be read off it. No file is touched here. */
import { checkArray, checkOneOf, checkPlainObject, isRecord } from '../check';
import { HoldfastError } from '../errors';
import { isFilledString, isStringOrNull } from './store-data';

/** The schema version of a file of launch transactions: the highest one understood, and the one written. */
export const OPENCODE_LAUNCH_TRANSACTION_SCHEMA_VERSION = 1;

const CHECKPOINT_NAMES = [
  'run_created',
  'host_ready',
  'lead_session_recorded',
  'member_session_recorded',
  'mcp_connected',
  'required_tools_proven',
  'prompt_sent',
  'bootstrap_confirmed',
  'permission_blocked',
  'delivery_ready',
  'member_ready',
  'run_ready',
  'run_failed',
  'run_cancelled',
] as const;

/** What a launch has reached. Checkpoints may come in any order and any number. */
export type OpenCodeLaunchCheckpointName = (typeof CHECKPOINT_NAMES)[number];

const FINISHED_STATUSES = ['ready', 'failed', 'cancelled', 'reconciled'] as const;

/** How a launch ended. `reconciled` = somebody found it unfinished later, and closed it. */
export type OpenCodeLaunchFinishedStatus = (typeof FINISHED_STATUSES)[number];

/** One proven step of a launch. */
export interface OpenCodeLaunchCheckpoint {
  /** What was reached. */
  name: OpenCodeLaunchCheckpointName;
  /** The team; with `runId` it names the transaction. */
  teamName: string;
  /** The run; with `teamName` it names the transaction. */
  runId: string;
  /** The team member that it is about, or `null` when it is about the whole run. */
  memberName: string | null;
  /** The provider's session, or `null`. */
  runtimeSessionId: string | null;
  /** The host that the session runs on, or `null`. */
  hostKey: string | null;
  /** What proves it, as a hash (`createOpenCodeLaunchEvidenceHash`). A checkpoint with the same name, member and hash is the same one. */
  evidenceHash: string;
  /** When it was reached, as `Date#toISOString()` writes it. Not parsed. */
  createdAt: string;
  /** Notes for people. They are stored as they are: keep secrets out. */
  diagnostics: string[];
}

/** The record of one launch: begun, given checkpoints while it is `active`, then finished once. */
export interface OpenCodeLaunchTransaction {
  /** The team. At most one of its transactions is `active`. */
  teamName: string;
  /** The run. A relaunch may use the id of a finished run again; the newest transaction then stands for it. */
  runId: string;
  /** Always `'opencode'`. */
  providerId: 'opencode';
  /** When it began. */
  startedAt: string;
  /** When it last changed: its beginning, its newest checkpoint's `createdAt`, or its end. */
  updatedAt: string;
  /** `active` until it is finished. */
  status: 'active' | OpenCodeLaunchFinishedStatus;
  /** What it reached, in the order of recording. */
  checkpoints: OpenCodeLaunchCheckpoint[];
}

/** What {@link canMarkOpenCodeRunReady} looks at. */
export interface OpenCodeRunReadyInput {
  /** The members that must be ready. `launchState: 'confirmed_alive'` means that the member's bootstrap is confirmed. */
  members: { name: string; launchState?: string }[];
  /** The launch whose checkpoints count. Neither its status nor its run is looked at. */
  transaction: OpenCodeLaunchTransaction;
  /** Whether the tools that the run needs were proven to be there. */
  toolProof: { ok: boolean };
  /** Whether messages can be delivered to the run. */
  deliveryReady: boolean;
}

/**
 * Checks the data of a file of launch transactions and returns it as it is, unknown keys included. Time strings are not parsed.
 *
 * @throws {HoldfastError} `HF_RUNTIME_INVALID_TRANSACTIONS`, naming the first bad record
 */
export function validateOpenCodeLaunchTransactions(value: unknown): OpenCodeLaunchTransaction[] {
  if (!Array.isArray(value)) throw invalidTransactions('OpenCode launch transactions must be an array');
  for (const [index, record] of value.entries()) {
    if (!isTransaction(record)) throw invalidTransactions(`Invalid OpenCode launch transaction at index ${index}`);
  }
  return value;
}

/**
 * Tells whether a run may be marked ready, and if not, what is missing.
 *
 * Per member, in order: `<member>:member_session_recorded` and `<member>:required_tools_proven` (missing checkpoints),
 * `<member>:bootstrap_confirmed` (unless the member's `launchState` is `'confirmed_alive'`). Then `required_runtime_tools`
 * (`toolProof.ok`) and `runtime_delivery_service` (`deliveryReady`). `ok` is true when `missing` is empty.
 *
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT`
 */
export function canMarkOpenCodeRunReady(input: OpenCodeRunReadyInput): { ok: boolean; missing: string[] } {
  const { members, transaction, toolProof, deliveryReady } = checkPlainObject(input, 'input');
  checkArray(members, 'members');
  checkPlainObject(toolProof, 'toolProof');
  const missing: string[] = [];
  for (const { name, launchState } of members) {
    for (const required of ['member_session_recorded', 'required_tools_proven'] as const) {
      if (!hasMemberCheckpoint(transaction, name, required)) missing.push(`${name}:${required}`);
    }
    if (launchState !== 'confirmed_alive') missing.push(`${name}:bootstrap_confirmed`);
  }
  // Strictly true: in a program without types, a text such as 'no' must not make a run ready.
  if (toolProof.ok !== true) missing.push('required_runtime_tools');
  if (deliveryReady !== true) missing.push('runtime_delivery_service');
  return { ok: missing.length === 0, missing };
}

/**
 * Tells whether a launch has a checkpoint of that name for that member, whatever its evidence.
 *
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT`
 */
export function hasMemberCheckpoint(
  t: OpenCodeLaunchTransaction,
  memberName: string,
  name: OpenCodeLaunchCheckpointName,
): boolean {
  const { checkpoints } = checkPlainObject(t, 'transaction');
  return checkArray(checkpoints, 'transaction.checkpoints').some(
    (checkpoint) => checkpoint.memberName === memberName && checkpoint.name === name,
  );
}

/** @internal */
export function checkCheckpointName(value: unknown, argument: string): OpenCodeLaunchCheckpointName {
  return checkOneOf(value, argument, CHECKPOINT_NAMES);
}

/** @internal */
export function checkFinishedStatus(value: unknown, argument: string): OpenCodeLaunchFinishedStatus {
  return checkOneOf(value, argument, FINISHED_STATUSES);
}

function isTransaction(value: unknown): boolean {
  return (
    isRecord(value) &&
    isFilledString(value.teamName) &&
    isFilledString(value.runId) &&
    value.providerId === 'opencode' &&
    isFilledString(value.startedAt) &&
    isFilledString(value.updatedAt) &&
    (value.status === 'active' || isOneOf(FINISHED_STATUSES, value.status)) &&
    Array.isArray(value.checkpoints) &&
    value.checkpoints.every(isCheckpoint)
  );
}

function isCheckpoint(value: unknown): boolean {
  return (
    isRecord(value) &&
    isOneOf(CHECKPOINT_NAMES, value.name) &&
    isFilledString(value.teamName) &&
    isFilledString(value.runId) &&
    isStringOrNull(value.memberName) &&
    isStringOrNull(value.runtimeSessionId) &&
    isStringOrNull(value.hostKey) &&
    typeof value.evidenceHash === 'string' &&
    isFilledString(value.createdAt) &&
    Array.isArray(value.diagnostics) &&
    value.diagnostics.every((line) => typeof line === 'string')
  );
}

function isOneOf(allowed: readonly string[], value: unknown): boolean {
  return typeof value === 'string' && allowed.includes(value);
}

function invalidTransactions(message: string): HoldfastError {
  return new HoldfastError(message, { hfCode: 'HF_RUNTIME_INVALID_TRANSACTIONS' });
}
