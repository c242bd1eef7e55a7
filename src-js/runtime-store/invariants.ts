/** Whether the stores of one run agree with each other: each can be healthy by itself and still contradict the next. */
import { checkPlainObject, invalidArgument, isRecord } from '../check';
import type { RuntimeStoreCrossStoreInvariantInput, RuntimeStorePermissionRequestRecord } from './types';

/**
 * Compares launch state, sessions, deliveries, permissions, transaction and manifest of one run.
 *
 * Permission requests may carry their status as `status` or, as records on disk do, as `state`.
 *
 * @returns One text per contradiction, in a fixed order; none unless `launchState.providerId` is `opencode`.
 * @throws HoldfastError `HF_INVALID_ARGUMENT`
 */
export function validateOpenCodeRuntimeStoreInvariants(input: RuntimeStoreCrossStoreInvariantInput): string[] {
  const launchState = checkPlainObject(checkPlainObject(input, 'input').launchState, 'input.launchState');
  if (launchState.providerId !== 'opencode') return [];
  const { runId } = launchState;
  const failures: string[] = [];

  if (runId !== checkPlainObject(input.manifest, 'input.manifest').activeRunId) {
    failures.push('launch-state runId does not match runtime store manifest activeRunId');
  }
  const { snapshotId } = checkPlainObject(input.compatibilitySnapshot, 'input.compatibilitySnapshot');
  if (launchState.capabilitySnapshotId !== snapshotId) {
    failures.push('launch-state capability snapshot does not match compatibility snapshot');
  }
  const sessions = records(checkPlainObject(input.sessionStore, 'input.sessionStore').sessions, 'input.sessionStore.sessions');
  for (const member of records(launchState.members, 'input.launchState.members')) {
    if (member.launchState !== 'confirmed_alive') continue;
    const hasSession = sessions.some(
      (session) => session.teamName === launchState.teamName && session.memberName === member.name && session.runId === runId,
    );
    if (!hasSession) failures.push(`confirmed member ${member.name} has no matching OpenCode session record`);
  }
  const journal = checkPlainObject(input.deliveryJournal, 'input.deliveryJournal');
  for (const record of records(journal.records, 'input.deliveryJournal.records')) {
    if (record.runId !== runId && record.status !== 'committed') {
      failures.push(`non-committed delivery journal record belongs to stale run: ${record.idempotencyKey}`);
    }
  }
  const permissions = checkPlainObject(input.permissionStore, 'input.permissionStore');
  for (const request of records(permissions.requests, 'input.permissionStore.requests')) {
    if (request.runId !== runId && isPending(request)) {
      failures.push(`pending permission belongs to stale run: ${request.appRequestId}`);
    }
  }
  if (isActive(input.transaction) && launchState.aggregateState === 'ready') {
    failures.push('active launch transaction conflicts with ready launch-state');
  }
  return failures;
}

function isPending(request: RuntimeStorePermissionRequestRecord): boolean {
  return (request.status ?? request.state) === 'pending';
}

function isActive(transaction: RuntimeStoreCrossStoreInvariantInput['transaction']): boolean {
  // Callers hand down what a store gave them; a store without a transaction gives null or nothing.
  if (transaction === null || transaction === undefined) return false;
  return checkPlainObject(transaction, 'input.transaction').status === 'active';
}

function records<T extends object>(value: readonly T[] | null | undefined, argument: string): readonly T[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw invalidArgument(argument, 'an array or undefined', value);
  for (const [index, record] of value.entries()) {
    if (!isRecord(record)) throw invalidArgument(`${argument}[${index}]`, 'an object', record);
  }
  return value;
}
