/** Arguments of the queue. */
import { bad, checkCount, checkId, checkIds, checkList, checkObject, checkWord } from './arguments';
import type { MergeKey, QueuedWorkBatchDraft, QueuedWorkClaim, QueuedWorkClaimRequest, QueuedWorkCompletion } from './queue-types';

/** Says that all work of a claim is done, for `completedQueueClaims` of a commit. */
export function completionOf(claim: QueuedWorkClaim): QueuedWorkCompletion {
  return { ...heldOf(claim), batchIds: batchIdsOf(claim) };
}

/** What batches of a handle are enqueued with unless they say something else. */
export interface QueueDefaults {
  maxAttempts: number | null;
  retainMs: number | null;
}

/** Requires a number of attempts, or none. */
export function attemptsOf(value: unknown, argument: string): number | null {
  if (value === undefined || value === null) return null;
  if (checkCount(value, argument) === 0) throw bad(argument, 'a safe integer of 1 or more', value);
  return value as number;
}

/** The command that cancels a batch; others name theirs likewise. */
export function cancelCommand(sessionId: string, batchId: string): { do: string; sessionId: string; batchId: string } {
  return { do: 'cancel', sessionId: checkId(sessionId, 'sessionId'), batchId: checkId(batchId, 'batchId') };
}

const DRAFT = [
  'sessionId', 'payloads', 'sourceKey', 'deliveryPolicy', 'slotPolicy', 'mergeKey', 'availableAtMs', 'maxAttempts', 'dedupe',
] as const satisfies (keyof QueuedWorkBatchDraft)[];

/** The command that enqueues a batch. */
export function enqueueCommand(draft: QueuedWorkBatchDraft, defaults: QueueDefaults): object {
  checkObject(draft, 'draft', DRAFT);
  const { sourceKey, availableAtMs = 0, dedupe } = draft;
  return {
    do: 'enqueue',
    sessionId: checkId(draft.sessionId, 'draft.sessionId'),
    payloads: checkList(draft.payloads, 'draft.payloads'),
    sourceKey: sourceKey === undefined || sourceKey === null ? null : checkId(sourceKey, 'draft.sourceKey'),
    deliveryPolicy: checkWord(draft.deliveryPolicy, 'draft.deliveryPolicy', ['earliestSafeBoundary', 'afterCurrentTurnCommit']),
    slotPolicy: checkWord(draft.slotPolicy, 'draft.slotPolicy', ['join', 'exclusive']),
    mergeKey: mergeKeyOf(draft.mergeKey ?? 'never'),
    availableAtMs: checkCount(availableAtMs, 'draft.availableAtMs'),
    maxAttempts: (draft.maxAttempts === undefined ? defaults.maxAttempts : attemptsOf(draft.maxAttempts, 'draft.maxAttempts')) ?? undefined,
    retainMs: (dedupe === undefined ? defaults.retainMs : retentionOf(dedupe)) ?? undefined,
  };
}

function retentionOf(dedupe: QueuedWorkBatchDraft['dedupe']): number | null {
  return dedupe === null || dedupe === undefined ? null : checkCount(checkObject(dedupe, 'draft.dedupe', ['retainMs']).retainMs, 'draft.dedupe.retainMs');
}

function mergeKeyOf(key: MergeKey): MergeKey {
  if (key === 'never' || key === 'payloadDefault') return key;
  const group = (key as { group?: unknown } | null)?.group;
  if (typeof group !== 'string') throw bad('draft.mergeKey', "'never', 'payloadDefault' or an object with a group", key);
  return { group: checkId(group, 'draft.mergeKey.group') };
}

/** The command that claims so many batches, or exactly these. */
export function claimCommand(request: QueuedWorkClaimRequest, wanted: { maxBatches: number } | { batchIds: string[] }): object {
  checkObject(request, 'req');
  return {
    do: 'claim',
    request: {
      sessionId: checkId(request.sessionId, 'req.sessionId'),
      ownerId: checkId(request.ownerId, 'req.ownerId'),
      leaseTtlMs: checkCount(request.leaseTtlMs, 'req.leaseTtlMs'),
      boundary: checkWord(request.boundary, 'req.boundary', ['activeTurnCheckpoint', 'idle']),
    },
    maxBatches: 'maxBatches' in wanted ? checkCount(wanted.maxBatches, 'req.maxBatches') : null,
    batchIds: 'batchIds' in wanted ? checkIds(wanted.batchIds, 'req.batchIds') : null,
  };
}

/** What identifies a claim. */
export function heldOf(claim: QueuedWorkClaim): { sessionId: string; claimId: string; leaseToken: string } {
  checkObject(claim, 'claim');
  return {
    sessionId: checkId(claim.sessionId, 'claim.sessionId'),
    claimId: checkId(claim.claimId, 'claim.claimId'),
    leaseToken: checkId(claim.leaseToken, 'claim.leaseToken'),
  };
}

/** The ids of a claim's batches. */
export function batchIdsOf(claim: QueuedWorkClaim): string[] {
  return checkIds(
    checkList(claim.batches, 'claim.batches').map((batch) => batch?.batchId),
    'claim.batches',
  );
}
