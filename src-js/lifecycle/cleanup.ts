/** Reclaiming the workspaces of sessions that have ended. */
import { bestEffort, busyError, exclusively, handleOf, hasEnded, look, workspaceOf, type Kit } from './kit';
import { messageOf } from './logging';
import type { CleanupReport } from './manager-types';
import { LostOperation, Operation } from './operation';
import { callPort, pause, type Ends } from './ports';
import type { SessionRecord } from './record-types';
import { many, reviveSession } from './revive';
import type { ProjectId, SessionId } from './word-types';

/** How patient a cleanup is. */
export interface Patience {
  readonly retries: number;
  readonly backoffMs: number;
}

/** However often the time between two rounds has doubled, it is not longer than this, unless the first was. */
const BACKOFF_MAX_MS = 60_000;

/** Reclaims what can be reclaimed of a project, by number, and tries again what refuses. */
export async function cleanup(kit: Kit, projectId: ProjectId, { retries, backoffMs }: Patience, ends: Ends): Promise<CleanupReport> {
  const cleaned: SessionId[] = [];
  const skipped = new Map<SessionId, string>();
  for (let round = 0, wait = backoffMs; ; round++, wait = Math.min(wait * 2, Math.max(BACKOFF_MAX_MS, backoffMs))) {
    const records = await many<SessionRecord>(await kit.core.read({ do: 'reclaimable', projectId }), reviveSession);
    for (const { id } of records) {
      // What has ended since the first round is another cleanup's.
      if (round > 0 && !skipped.has(id)) continue;
      try {
        await exclusively(kit, id, 'cleanup', () => reclaim(kit, id, ends));
        skipped.delete(id);
        cleaned.push(id);
      } catch (error) {
        if (kit.core.closed) throw kit.core.closedError();
        skipped.set(id, messageOf(error));
      }
    }
    if (skipped.size === 0 || round === retries || !(await pause(wait, ends))) break;
  }
  return { cleaned, skipped: Array.from(skipped, ([id, reason]) => ({ id, reason })) };
}

/** Tears down what is left of a session that has ended, and notes that its workspace is gone. Rejects if the workspace port refuses. */
async function reclaim(kit: Kit, id: SessionId, ends: Ends): Promise<void> {
  const { core, runtime, workspace } = kit;
  // Nothing is begun any more.
  if (ends.signal?.aborted) await callPort(() => undefined, ends);
  const operation = await Operation.begin(kit, 'cleanup', id);
  let freed = false;
  let runtimeFreed = false;
  try {
    // It may have been restored since the list was made, or stopped in order to be.
    const found = await look(kit, id);
    if (found === null || !hasEnded(found) || found.stopped) throw busyError('cleanup', id);
    if (found.metadata.runtimeHandleId !== '' && !found.runtimeFreed) {
      runtimeFreed = await bestEffort(kit, `cleanup ${id}: destroying its runtime`, () => runtime.destroy(handleOf(found)), ends.signal);
    }
    await operation.advance('workspace', { runtimeFreed });
    await callPort(() => workspace.destroy(workspaceOf(found)), ends);
    freed = true;
  } catch (error) {
    if (error instanceof LostOperation) throw error;
    if (!core.closed) await operation.endQuietly({ runtimeFreed });
    throw error;
  }
  await operation.endQuietly({ freed });
}
