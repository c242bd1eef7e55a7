/** Reclaiming the workspaces of sessions that have ended. */
import { begun, bestEffort, busyError, handleOf, workspaceOf, type Kit } from './kit';
import { messageOf } from './logging';
import type { CleanupReport } from './manager-types';
import { LostOperation, Operation } from './operation';
import { callPort } from './ports';
import type { SessionRecord } from './record-types';
import { many, reviveSession } from './revive';
import type { ProjectId } from './word-types';

/** Reclaims what can be reclaimed of a project, by number. */
export async function cleanup(kit: Kit, projectId: ProjectId): Promise<CleanupReport> {
  const report: CleanupReport = { cleaned: [], skipped: [] };
  for (const record of await many<SessionRecord>(await kit.core.read({ do: 'reclaimable', projectId }), reviveSession)) {
    const { id } = record;
    try {
      await exclusively(kit, id, () => reclaim(kit, record));
      report.cleaned.push(id);
    } catch (error) {
      if (kit.core.closed) throw kit.core.closedError();
      report.skipped.push({ id, reason: messageOf(error) });
    }
  }
  return report;
}

/** Tears down what is left of a session that has ended, and notes that its workspace is gone. Rejects if the workspace port refuses. */
async function reclaim(kit: Kit, { id }: SessionRecord): Promise<void> {
  const operation = await Operation.begin(kit, 'cleanup', id);
  let freed = false;
  try {
    // It may have been restored since the list was made.
    const record = await kit.store.getSession(id);
    const state = record?.lifecycle.state;
    if (record === null || (state !== 'terminated' && state !== 'done')) throw busyError('cleanup', id);
    if (record.metadata.runtimeHandleId !== '') await bestEffort(kit, `cleanup ${id}: destroying its runtime`, () => kit.runtime.destroy(handleOf(record)));
    await operation.advance('workspace');
    await callPort(() => kit.workspace.destroy(workspaceOf(record)), { core: kit.core });
    freed = true;
  } catch (error) {
    if (error instanceof LostOperation) throw error;
    if (!kit.core.closed) await operation.endQuietly(false);
    throw error;
  }
  await operation.endQuietly(freed);
}

/** Runs an operation as the only one on its session in this process. */
async function exclusively(kit: Kit, id: string, run: () => Promise<void>): Promise<void> {
  const { busy } = kit.running;
  if (busy.has(id)) throw busyError('cleanup', id);
  const call = begun(run);
  busy.set(id, { kind: 'cleanup', force: false, ...call });
  try {
    await call.promise;
  } finally {
    busy.delete(id);
  }
}
