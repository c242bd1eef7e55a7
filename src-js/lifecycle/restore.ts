/** Bringing a session back that has ended. */
import { NothingToResumeError, SessionNotFoundError, SessionNotRestorableError } from './errors';
import { bestEffort, busyError, checkWorkspace, handleOf, hasEnded, launch, look, type Found, type Kit, type LetGo } from './kit';
import { lateRestored, lateRuntime } from './late';
import { LostOperation, Operation, outside } from './operation';
import { HoldfastError } from '../errors';
import { callPort, ownStep, placed, portStep, type Ends } from './ports';
import type { RuntimeHandle } from './port-types';
import type { Session } from './record-types';
import type { SessionId } from './word-types';

/** Restores a session. `get` reads it in the end. Nothing of it is written before all that can fail has worked. */
export async function restore(kit: Kit, id: SessionId, ends: Ends, letGo: LetGo, get: (id: string) => Promise<Session>): Promise<Session> {
  await bringBack(kit, id, ends, letGo, () => true);
  return get(id);
}

/** Restores a session if it `isWanted` still when nobody else can be at it any more; tells whether it was. */
export async function bringBack(kit: Kit, id: SessionId, ends: Ends, letGo: LetGo, isWanted: (found: Found) => boolean): Promise<boolean> {
  checkRestorable(await look(kit, id), id);
  const operation = await Operation.begin(kit, 'restore', id);
  try {
    // Somebody may have restored it, or killed it for good, before it was ours.
    const found = await look(kit, id);
    if (found === null || !hasEnded(found)) throw busyError('restore', id);
    if (!isWanted(found)) {
      await operation.endQuietly();
      return false;
    }
    await start(kit, found, operation, ends, letGo);
  } catch (error) {
    if (!kit.core.closed && !(error instanceof LostOperation)) await operation.endQuietly();
    throw outside(error);
  }
  await operation.endQuietly();
  return true;
}

function checkRestorable(found: Found | null, id: SessionId): void {
  const about = { fields: { op: 'restore', sessionId: id } };
  if (found === null) throw new SessionNotFoundError(`restore ${id}: session: not found`, about);
  if (!hasEnded(found)) throw new SessionNotRestorableError(`restore ${id}: session: not restorable (not terminal)`, about);
  const { agentSessionId, prompt } = found.metadata;
  if (agentSessionId === '' && prompt === '') throw new NothingToResumeError(`restore ${id}: nothing to resume from`, about);
}

async function start(kit: Kit, found: Found, operation: Operation, ends: Ends, letGo: LetGo): Promise<void> {
  const { id, projectId, metadata } = found;
  const { lifecycle, runtime, store, workspace } = kit;
  const { agentSessionId, branch, prompt } = metadata;
  const bring = async () => checkWorkspace(await workspace.restore({ projectId, sessionId: id, branch }), found);
  const info = await portStep({ op: 'restore', id, step: 'workspace' }, bring, ends, (late) => void lateRestored(kit, late));
  // Elsewhere than was known: if a later step fails, a cleanup must find it.
  if (info.path !== metadata.workspacePath || info.branch !== branch) {
    const noted = () => store.patchSessionMetadata(id, { workspacePath: info.path, branch: info.branch });
    await ownStep({ op: 'restore', id, step: 'workspace' }, noted);
  }
  const isGone = await endFormer(kit, found, ends, letGo);
  if (ends.signal?.aborted) {
    // While that was under way; the next restore must not do it again.
    if (isGone) await operation.advance('runtime', { runtimeFreed: true });
    await portStep({ op: 'restore', id, step: 'runtime' }, () => undefined, ends);
  }
  const launchId = await operation.launch(isGone);
  const config = { sessionId: id, workspacePath: info.path, prompt };
  const handle = await launch(kit, 'restore', found, { launchId, config, resume: agentSessionId }, ends, (late) => void lateRuntime(kit, 'restore', id, late));
  const outcome = { branch: info.branch, workspacePath: info.path, runtimeHandle: handle, agentSessionId, prompt, launchId, expect: 'terminal' as const };
  try {
    // Not given up by the signal: what has been sent to the database may come about all the same.
    await callPort(() => lifecycle.onSpawnCompleted(id, outcome), { core: kit.core });
  } catch (error) {
    if (error instanceof HoldfastError && 'outcomeUnknown' in error && (await isOurs(kit, id, handle))) return;
    const isOvertaken = error instanceof HoldfastError && error.hfCode === 'HF_LIFECYCLE_SESSION_BUSY';
    // Whoever was faster may have a runtime with the same handle.
    const isNeeded = kit.core.closed || (isOvertaken && (await isOurs(kit, id, handle)));
    if (!isNeeded) await bestEffort(kit, `restore ${id}: destroying its runtime`, () => runtime.destroy(handle));
    if (isOvertaken) throw busyError('restore', id);
    throw placed({ op: 'restore', id, step: 'completed' }, error);
  }
}

/**
 * Ends the runtime of the life before, which nobody else may have done: a merge, or `done`, ends a session without touching it. One that is
 * known to be gone is left alone, for its handle may be somebody else's by now. Tells whether it is gone.
 */
async function endFormer(kit: Kit, found: Found, { core, signal }: Ends, letGo: LetGo): Promise<boolean> {
  const { id, metadata, runtimeFreed, lifecycle } = found;
  if (runtimeFreed || lifecycle.terminationReason === 'runtime_lost' || metadata.runtimeHandleId === '') return false;
  const destroy = () => kit.runtime.destroy(handleOf(found));
  if (signal?.aborted) return false;
  const ends = { core, signal, letGo: (error: unknown) => letGo(placed({ op: 'restore', id, step: 'runtime' }, error)) };
  return bestEffort(kit, `restore ${id}: destroying its former runtime`, destroy, ends);
}

/** Whether the session runs with this very runtime, whoever has written that, or perhaps does. */
async function isOurs({ store }: Kit, id: SessionId, handle: RuntimeHandle): Promise<boolean> {
  try {
    const record = await store.getSession(id);
    return record !== null && record.lifecycle.isAlive && record.metadata.runtimeHandleId === handle.id;
  } catch {
    // Then nobody knows: the runtime that it may have is left alone, and probes find out.
    return true;
  }
}
