/** Ending a session: its row first, then its runtime, then its workspace. */
import { IncompleteHandleError } from './errors';
import { handleOf, workspaceOf, type Kit } from './kit';
import { LostOperation, Operation, outside } from './operation';
import { ownStep, portStep } from './ports';
import type { SessionId, TerminationReason } from './word-types';

/** Ends a session; `false` = there is none. */
export async function kill(kit: Kit, id: SessionId, reason: TerminationReason, force: boolean): Promise<boolean> {
  const { core, lifecycle, runtime, store, workspace } = kit;
  const found = await store.getSession(id);
  if (found === null) return false;
  const missing = (['runtimeHandleId', 'workspacePath'] as const).filter((field) => found.metadata[field] === '');
  if (missing.length > 0 && !force) {
    throw new IncompleteHandleError(`kill ${id}: session: incomplete teardown handle`, { fields: { op: 'kill', sessionId: id, missing } });
  }
  const operation = await Operation.begin(kit, 'kill', id);
  let freed = false;
  let runtimeFreed = false;
  try {
    await ownStep({ op: 'kill', id }, () => lifecycle.onKillRequested(id, reason));
    // A spawn, or another process, may have come through since: what is torn down is what stands there now that the session has ended.
    const record = await ownStep({ op: 'kill', id }, () => store.getSession(id));
    if (record === null) return true;
    if (record.metadata.runtimeHandleId !== '') {
      await operation.advance('runtime');
      await portStep({ op: 'kill', id, step: 'runtime' }, () => runtime.destroy(handleOf(record)), { core });
      runtimeFreed = true;
    }
    if (record.metadata.workspacePath !== '') {
      await operation.advance('workspace', { runtimeFreed });
      await portStep({ op: 'kill', id, step: 'workspace' }, () => workspace.destroy(workspaceOf(record)), { core });
      freed = true;
    }
  } catch (error) {
    // After a close the next store finds the note, and finishes.
    if (!core.closed && !(error instanceof LostOperation)) await operation.endQuietly({ runtimeFreed });
    throw outside(error);
  }
  await operation.endQuietly({ freed, runtimeFreed });
  return true;
}
