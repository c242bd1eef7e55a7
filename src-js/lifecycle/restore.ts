/** Bringing a session back that has ended. */
import { NothingToResumeError, SessionNotFoundError, SessionNotRestorableError } from './errors';
import { bestEffort, busyError, checkWorkspace, launch, type Kit } from './kit';
import { LostOperation, Operation, outside } from './operation';
import { HoldfastError } from '../errors';
import { callPort, ownStep, placed, portStep, type Ends } from './ports';
import type { RuntimeHandle } from './port-types';
import type { Session, SessionRecord } from './record-types';
import type { SessionId } from './word-types';

/** Restores a session. `get` reads it in the end. Nothing of it is written before all that can fail has worked. */
export async function restore(kit: Kit, id: SessionId, ends: Ends, get: (id: string) => Promise<Session>): Promise<Session> {
  const record = await kit.store.getSession(id);
  const about = { fields: { op: 'restore', sessionId: id } };
  if (record === null) throw new SessionNotFoundError(`restore ${id}: session: not found`, about);
  const { state } = record.lifecycle;
  if (state !== 'terminated' && state !== 'done') throw new SessionNotRestorableError(`restore ${id}: session: not restorable (not terminal)`, about);
  const { agentSessionId, prompt } = record.metadata;
  if (agentSessionId === '' && prompt === '') throw new NothingToResumeError(`restore ${id}: nothing to resume from`, about);
  const operation = await Operation.begin(kit, 'restore', id);
  try {
    await start(kit, record, operation, ends);
  } catch (error) {
    if (!kit.core.closed && !(error instanceof LostOperation)) await operation.endQuietly(false);
    throw outside(error);
  }
  await operation.endQuietly(false);
  return get(id);
}

async function start(kit: Kit, record: SessionRecord, operation: Operation, ends: Ends): Promise<void> {
  const { id, projectId, metadata } = record;
  const { lifecycle, runtime, store, workspace } = kit;
  const { agentSessionId, branch, prompt } = metadata;
  const bring = async () => checkWorkspace(await workspace.restore({ projectId, sessionId: id, branch }), record);
  const info = await portStep({ op: 'restore', id, step: 'workspace' }, bring, ends);
  // Elsewhere than was known: if a later step fails, a cleanup must find it.
  if (info.path !== metadata.workspacePath || info.branch !== branch) {
    const noted = () => store.patchSessionMetadata(id, { workspacePath: info.path, branch: info.branch });
    await ownStep({ op: 'restore', id, step: 'workspace' }, noted);
  }
  await operation.advance('runtime');
  const handle = await launch(kit, 'restore', record, { sessionId: id, workspacePath: info.path, prompt }, agentSessionId, ends);
  const outcome = { branch: info.branch, workspacePath: info.path, runtimeHandle: handle, agentSessionId, prompt, expect: 'terminal' as const };
  try {
    // Not given up by the signal: what has been sent to the database may come about all the same.
    await callPort(() => lifecycle.onSpawnCompleted(id, outcome), { core: kit.core });
  } catch (error) {
    if (error instanceof HoldfastError && 'outcomeUnknown' in error && (await isOurs(kit, id, handle))) return;
    if (!kit.core.closed) await bestEffort(kit, `restore ${id}: destroying its runtime`, () => runtime.destroy(handle));
    // Somebody restored it meanwhile.
    if (error instanceof HoldfastError && error.hfCode === 'HF_LIFECYCLE_SESSION_BUSY') throw busyError('restore', id);
    throw placed({ op: 'restore', id, step: 'completed' }, error);
  }
}

/** Whether the session runs with this very runtime, although nobody was told that it was written. */
async function isOurs({ store }: Kit, id: SessionId, handle: RuntimeHandle): Promise<boolean> {
  try {
    const record = await store.getSession(id);
    return record !== null && record.lifecycle.isAlive && record.metadata.runtimeHandleId === handle.id;
  } catch {
    // Then nobody knows: the runtime that it may have is left alone, and probes find out.
    return true;
  }
}
