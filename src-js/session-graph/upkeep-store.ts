/** Looking after a store. */
import { checkPath } from '../check';
import { checkBooleanOf, checkCount } from './arguments';
import { coreOf, question } from './base-store';
import type { IntegrityProblem } from './commit-types';
import { asGraphError } from './errors';
import { SessionGraphQueue } from './queue-store';
import type { GcReport, SessionGraphStats } from './store-types';

/** What keeps a store small, sound, and copied. */
export abstract class SessionGraphUpkeep extends SessionGraphQueue {
  /** Removes hidden nodes; `reclaimSpace` also gives free pages of the file back, piece by piece. The file shrinks when its log is written back. */
  async vacuum(opts: { reclaimSpace?: boolean } = {}): Promise<{ removedNodeCount: number }> {
    coreOf(this).requireWritable('vacuum');
    const reclaimSpace = checkBooleanOf(opts.reclaimSpace, 'opts.reclaimSpace');
    return { removedNodeCount: Number(await coreOf(this).write(JSON.stringify({ do: 'vacuum', reclaimSpace }))) };
  }

  /**
   * Removes blobs that neither the head nor a name keeps, in slices that let others write in between. Where it cannot be told what is alive,
   * nothing is removed and `aborted` says why.
   */
  async gcUnreachable(opts: { minBlobAgeMs?: number } = {}): Promise<GcReport> {
    coreOf(this).requireWritable('gcUnreachable');
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
    try {
      checkPath(toPath, 'toPath');
    } catch (error) {
      throw asGraphError(error);
    }
    await coreOf(this).backup(toPath);
  }

  /** Says what is not as it must be; nothing, if all is well. `deep` also compares each blob with its hash. Reads the whole file. */
  async verify(opts: { deep?: boolean } = {}): Promise<IntegrityProblem[]> {
    return question<IntegrityProblem[]>(this, { do: 'verify', deep: checkBooleanOf(opts.deep, 'opts.deep') });
  }

  /** Figures, for those who look after the store. */
  async stats(): Promise<SessionGraphStats> {
    return question<SessionGraphStats>(this, { do: 'stats' });
  }
}
