/** Looking after a store. */
import { checkPath } from '../check';
import { checkBooleanOf, checkCount, checkId, checkIds, checkObject, checkWord, guarded, print } from './arguments';
import { coreOf, question } from './base-store';
import type { IntegrityProblem } from './commit-types';
import { SessionGraphQueue } from './queue-store';
import { nodesOfPages } from './reading';
import type { GcReport, SessionGraphStats } from './store-types';
import type { CheckpointPin, ForkOptions, ForkedSession, NodeAt, PinRequest, PruneOptions, PruneReport, SessionGraphChange, WatchOptions } from './upkeep-types';
import { watchOf } from './watch';

/** What keeps a store small, sound, and copied. */
export abstract class SessionGraphUpkeep extends SessionGraphQueue {
  /** Removes hidden nodes; `reclaimSpace` also gives free pages of the file back, piece by piece. The file shrinks when its log is written back. */
  async vacuum(opts: { reclaimSpace?: boolean } = {}): Promise<{ removedNodeCount: number }> {
    coreOf(this).requireWritable('vacuum');
    checkObject(opts, 'opts', ['reclaimSpace']);
    const reclaimSpace = checkBooleanOf(opts.reclaimSpace, 'opts.reclaimSpace');
    return { removedNodeCount: Number(await coreOf(this).write(JSON.stringify({ do: 'vacuum', reclaimSpace }))) };
  }

  /**
   * Removes blobs that neither the head nor a name keeps, in slices that let others write in between. Where it cannot be told what is alive,
   * nothing is removed from then on and `aborted` says why.
   */
  async gcUnreachable(opts: { minBlobAgeMs?: number } = {}): Promise<GcReport> {
    coreOf(this).requireWritable('gcUnreachable');
    checkObject(opts, 'opts', ['minBlobAgeMs']);
    const age = opts.minBlobAgeMs;
    const minBlobAgeMs = age === undefined ? null : checkCount(age, 'opts.minBlobAgeMs');
    return JSON.parse(await coreOf(this).write(JSON.stringify({ do: 'gc', minBlobAgeMs }))) as GcReport;
  }

  /**
   * Copies the store, as it is at one moment, to a file, which appears whole or not at all. Others go on writing. Never copy a live file yourself:
   * the copy would be torn.
   */
  async backup(toPath: string): Promise<void> {
    coreOf(this).requireWritable('backup');
    await coreOf(this).backup(pathOf(toPath));
  }

  /**
   * Makes a new file that begins where this session is: the path to a leaf, a checkpoint, all named artifacts, what the head retains, and
   * the sums of the ledger, at revision 1. It appears whole or not at all, and replaces no other file. Not taken along: other branches, the
   * queue, turns that were committed, attachments, pins.
   *
   * @throws {InvalidArgumentError} There is a file already; nothing was committed yet; there is no such pin.
   * @throws {UnknownLeafError} The leaf is no stored node. {@link MissingBlobError}, {@link BlobCorruptError}: something is damaged.
   */
  async fork(toPath: string, opts: ForkOptions = {}): Promise<ForkedSession> {
    checkObject(opts, 'opts', ['leafNodeId', 'checkpointRef', 'pin', 'sessionId', 'ledger', 'relation']);
    const id = (name: 'leafNodeId' | 'checkpointRef' | 'pin' | 'sessionId'): string | undefined =>
      opts[name] === undefined ? undefined : checkId(opts[name], `opts.${name}`);
    const command = {
      leafNodeId: id('leafNodeId'),
      checkpointRef: id('checkpointRef'),
      pin: id('pin'),
      sessionId: id('sessionId'),
      ledger: checkWord(opts.ledger ?? 'totals', 'opts.ledger', ['totals', 'none']) === 'totals',
      createdAt: new Date().toISOString(),
      relation: opts.relation,
    };
    return JSON.parse(await coreOf(this).fork(pathOf(toPath), print(command, 'opts'))) as ForkedSession;
  }

  /**
   * Cuts back what only grows, as far as `opts` say so: turns and finished batches in slices that let others write in between, the entries of
   * the ledger at once.
   */
  async prune(opts: PruneOptions = {}): Promise<PruneReport> {
    const core = coreOf(this);
    core.requireWritable('prune');
    const { turnCommitsOlderThanMs: age, usageDeltasKept: keep } = checkObject(opts, 'opts', ['turnCommitsOlderThanMs', 'usageDeltasKept']);
    const olderThanMs = age === undefined ? undefined : checkCount(age, 'opts.turnCommitsOlderThanMs');
    if (keep !== undefined) checkCount(keep, 'opts.usageDeltasKept');
    const report: PruneReport = { turnCommitCount: 0, usageDeltaCount: 0, finishedBatchCount: 0 };
    if (olderThanMs !== undefined) {
      let after: [string, string] | null = null;
      do {
        const slice = JSON.parse(await core.write(JSON.stringify({ do: 'pruneTurns', olderThanMs, after }))) as {
          removed: number;
          next: [string, string] | null;
        };
        report.turnCommitCount += slice.removed;
        after = slice.next;
      } while (after !== null);
    }
    if (keep !== undefined) report.usageDeltaCount = Number(await core.write(JSON.stringify({ do: 'foldUsage', keep })));
    for (let removed = -1; removed !== 0; report.finishedBatchCount += removed) {
      removed = Number(await core.write(JSON.stringify({ do: 'clearFinished' })));
    }
    return report;
  }

  /**
   * Keeps a checkpoint by a name, so that it can be gone back to when the head has moved on: the head's as it is now, or a stored one. What had
   * the name before loses it. A pin is kept for ever; its node may be removed all the same.
   *
   * @throws {MissingBlobError} The checkpoint or one of its parts is not stored. {@link UnknownLeafError}: the node is not.
   */
  async pinCheckpoint(name: string, opts: PinRequest = {}): Promise<CheckpointPin> {
    coreOf(this).requireWritable('pinCheckpoint');
    const { nodeId, checkpointRef, retainedBlobRefs = [] } = checkObject(opts, 'opts', ['nodeId', 'checkpointRef', 'retainedBlobRefs']);
    const command = {
      do: 'pin',
      name: checkId(name, 'name'),
      nodeId: nodeId === undefined ? undefined : checkId(nodeId, 'opts.nodeId'),
      checkpointRef: checkpointRef === undefined ? undefined : checkId(checkpointRef, 'opts.checkpointRef'),
      retained: checkIds(retainedBlobRefs, 'opts.retainedBlobRefs'),
    };
    return JSON.parse(await coreOf(this).write(JSON.stringify(command))) as CheckpointPin;
  }

  /** The pin of a name; `null` if there is none. */
  async getPin(name: string): Promise<CheckpointPin | null> {
    const pins = await question<CheckpointPin[]>(this, { do: 'pins', name: checkId(name, 'name') });
    return pins[0] ?? null;
  }

  /** All pins, by name. */
  async listPins(): Promise<CheckpointPin[]> {
    return question<CheckpointPin[]>(this, { do: 'pins', name: null });
  }

  /** Gives a name up; tells whether there was one. The next collection removes what nothing else keeps. */
  async unpinCheckpoint(name: string): Promise<boolean> {
    coreOf(this).requireWritable('unpinCheckpoint');
    return (await coreOf(this).write(JSON.stringify({ do: 'unpin', name: checkId(name, 'name') }))) === 'true';
  }

  /**
   * Tells of new revisions and of changes of the queue: those of this process and of others, for a file at once, in PostgreSQL within `pollMs`.
   * Ends when the store is closed, when `signal` aborts, and with the iteration. Somebody who watches keeps the process alive.
   *
   * @throws {StoreClosedError} With the first step: the store was closed before.
   */
  watch(opts: WatchOptions = {}): AsyncIterableIterator<SessionGraphChange> {
    return watchOf(this, checkObject(opts, 'opts', ['since', 'signal', 'pollMs']));
  }

  /**
   * All nodes that are not hidden, in the order in which they were stored, page by page: for graphs that do not fit into memory. Each page is a
   * snapshot of its own, so nodes that are appended meanwhile come, too.
   *
   * @param opts Those behind `afterSeq`, at most `limit` of them; default all. An abort of `signal` rejects with its reason.
   */
  iterateNodes(opts: { afterSeq?: number; limit?: number; signal?: AbortSignal } = {}): AsyncIterableIterator<NodeAt> {
    const { afterSeq = 0, limit = Number.MAX_SAFE_INTEGER, signal } = checkObject(opts, 'opts', ['afterSeq', 'limit', 'signal']);
    const [after, most] = [checkCount(afterSeq, 'opts.afterSeq'), checkCount(limit, 'opts.limit')];
    return nodesOfPages((from, count) => coreOf(this).read(JSON.stringify({ do: 'nodes', after: from, limit: count }), signal), after, most);
  }

  /** Says what is not as it must be; nothing, if all is well. `deep` also compares each blob with its hash. Reads the whole file. */
  async verify(opts: { deep?: boolean; signal?: AbortSignal } = {}): Promise<IntegrityProblem[]> {
    checkObject(opts, 'opts', ['deep', 'signal']);
    return question<IntegrityProblem[]>(this, { do: 'verify', deep: checkBooleanOf(opts.deep, 'opts.deep') }, opts.signal);
  }

  /** Figures, for those who look after the store. */
  async stats(): Promise<SessionGraphStats> {
    return question<SessionGraphStats>(this, { do: 'stats' });
  }
}

function pathOf(path: string): string {
  return guarded(() => checkPath(path, 'toPath'));
}
