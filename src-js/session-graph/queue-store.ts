/** The queue of a store. */
import { checkBooleanOf, checkCount, checkId, checkObject, print } from './arguments';
import { SessionGraphBase, coreOf, question } from './base-store';
import { batchIdsOf, cancelCommand, claimCommand, enqueueCommand, heldOf } from './queue';
import type {
  QueuedWorkBatch,
  QueuedWorkBatchDraft,
  QueuedWorkCancellation,
  QueuedWorkClaim,
  QueuedWorkClaimRequest,
  QueuedWorkDeadLetter,
  QueuedWorkState,
} from './queue-types';

/** Work that waits for a turn. */
export abstract class SessionGraphQueue extends SessionGraphBase {
  /**
   * Lets work wait for its turn; a batch with the same `sourceKey` that is not done yet is returned instead, and with `dedupe` also one
   * whose end is remembered: then `finished` says how it ended.
   */
  async enqueueQueuedWork(draft: QueuedWorkBatchDraft): Promise<QueuedWorkBatch> {
    coreOf(this).requireWritable('enqueueQueuedWork');
    return JSON.parse(await coreOf(this).write(print(enqueueCommand(draft, coreOf(this).config.queue), 'draft'))) as QueuedWorkBatch;
  }

  /** Claims what is next: the first batch that is ready, and those that may go with it. `null` if there is nothing. */
  async claimReadyQueuedWork(req: QueuedWorkClaimRequest & { maxBatches: number }): Promise<QueuedWorkClaim | null> {
    coreOf(this).requireWritable('claimReadyQueuedWork');
    const command = claimCommand(req, { maxBatches: req?.maxBatches });
    return JSON.parse(await coreOf(this).write(print(command, 'req'))) as QueuedWorkClaim | null;
  }

  /** Claims exactly these batches if they are what is next, in this order; else `null`. */
  async claimReadyQueuedWorkByBatchIds(req: QueuedWorkClaimRequest & { batchIds: string[] }): Promise<QueuedWorkClaim | null> {
    coreOf(this).requireWritable('claimReadyQueuedWorkByBatchIds');
    const command = claimCommand(req, { batchIds: req?.batchIds });
    return JSON.parse(await coreOf(this).write(print(command, 'req'))) as QueuedWorkClaim | null;
  }

  /**
   * Lets a lease end `leaseTtlMs` from now, also one that has lapsed as long as nobody else claimed the work.
   *
   * @throws {QueuedWorkClaimExpiredError} Somebody else did.
   */
  async renewQueuedWorkClaim(claim: QueuedWorkClaim, leaseTtlMs: number): Promise<QueuedWorkClaim> {
    coreOf(this).requireWritable('renewQueuedWorkClaim');
    const command = { do: 'renew', ...heldOf(claim), batchIds: batchIdsOf(claim), leaseTtlMs: checkCount(leaseTtlMs, 'leaseTtlMs') };
    return { ...claim, expiresAtEpochMs: Number(await coreOf(this).write(JSON.stringify(command))) };
  }

  /**
   * Gives back what still belongs to the claim.
   *
   * @param opts `uncounted`: the claim is no attempt, as when a worker is stopped before it began; without it a batch with `maxAttempts` comes
   *   closer to being a dead letter.
   */
  async abandonQueuedWorkClaim(claim: QueuedWorkClaim, opts: { uncounted?: boolean } = {}): Promise<void> {
    coreOf(this).requireWritable('abandonQueuedWorkClaim');
    const uncounted = checkBooleanOf(checkObject(opts, 'opts', ['uncounted']).uncounted, 'opts.uncounted');
    await coreOf(this).write(JSON.stringify({ do: 'abandon', ...heldOf(claim), uncounted }));
  }

  /** Removes and returns a batch that nobody works on; `null` for all others. */
  async cancelQueuedWorkBatch(sessionId: string, batchId: string): Promise<QueuedWorkBatch | null> {
    coreOf(this).requireWritable('cancelQueuedWorkBatch');
    return JSON.parse(await coreOf(this).write(JSON.stringify(cancelCommand(sessionId, batchId)))) as QueuedWorkBatch | null;
  }

  /**
   * Removes a batch that nobody works on, and says why not where it does not. Cancelling again says `cancelled` for as long as that is
   * remembered.
   *
   * @param opts `retainMs`: how long it is remembered; default what `dedupe` of its draft said.
   */
  async cancelQueuedWork(sessionId: string, batchId: string, opts: { retainMs?: number } = {}): Promise<QueuedWorkCancellation> {
    coreOf(this).requireWritable('cancelQueuedWork');
    checkObject(opts, 'opts', ['retainMs']);
    const retainMs = opts.retainMs === undefined ? undefined : checkCount(opts.retainMs, 'opts.retainMs');
    const command = { ...cancelCommand(sessionId, batchId), withReason: true, retainMs };
    return JSON.parse(await coreOf(this).write(JSON.stringify(command))) as QueuedWorkCancellation;
  }

  /** What has become of a batch; how it ended only where that is remembered. */
  async queuedWorkState(sessionId: string, batchId: string): Promise<QueuedWorkState> {
    return question<QueuedWorkState>(this, { ...cancelCommand(sessionId, batchId), do: 'queueState' });
  }

  /** Batches whose last allowed claim ended without a commit: nobody gets them until they are requeued. In their order. */
  async listDeadLetters(sessionId: string): Promise<QueuedWorkDeadLetter[]> {
    return question<QueuedWorkDeadLetter[]>(this, { do: 'deadLetters', key: checkId(sessionId, 'sessionId') });
  }

  /**
   * Lets a dead letter wait again, at its old place and as if it had never been claimed; `null` if it is none. Whoever claimed it last can
   * no longer complete it.
   *
   * @param opts `availableAtMs`: not before that time; default as before.
   */
  async requeueDeadLetter(sessionId: string, batchId: string, opts: { availableAtMs?: number } = {}): Promise<QueuedWorkBatch | null> {
    coreOf(this).requireWritable('requeueDeadLetter');
    checkObject(opts, 'opts', ['availableAtMs']);
    const availableAtMs = opts.availableAtMs === undefined ? null : checkCount(opts.availableAtMs, 'opts.availableAtMs');
    const command = { ...cancelCommand(sessionId, batchId), do: 'requeue', availableAtMs };
    return JSON.parse(await coreOf(this).write(JSON.stringify(command))) as QueuedWorkBatch | null;
  }

  /** All batches of a session in their order, also those that are claimed and those of the future. */
  async listQueuedWork(sessionId: string): Promise<QueuedWorkBatch[]> {
    return question<QueuedWorkBatch[]>(this, { do: 'queue', sessionId: checkId(sessionId, 'sessionId'), pending: false });
  }

  /** The batches of a session that nobody works on, also those of the future; without dead letters. */
  async listPendingQueuedWork(sessionId: string): Promise<QueuedWorkBatch[]> {
    return question<QueuedWorkBatch[]>(this, { do: 'queue', sessionId: checkId(sessionId, 'sessionId'), pending: true });
  }
}
