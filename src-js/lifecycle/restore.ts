/** Bringing a session back that has ended. */
import { NothingToResumeError, SessionNotFoundError, SessionNotRestorableError } from './errors';
import { bestEffort, bestEffortLate, busyError, checkWorkspace, exclusively, handleOf, hasEnded, launch, look, workspaceOf, type Found, type Kit } from './kit';
import { LostOperation, Operation, outside } from './operation';
import { HoldfastError } from '../errors';
import { callPort, ownStep, placed, portStep, type Ends } from './ports';
import type { RuntimeHandle, WorkspaceInfo } from './port-types';
import type { Session } from './record-types';
import type { SessionId } from './word-types';

/** Restores a session. `get` reads it in the end. Nothing of it is written before all that can fail has worked. */
export async function restore(kit: Kit, id: SessionId, ends: Ends, get: (id: string) => Promise<Session>): Promise<Session> {
  await bringBack(kit, id, ends, () => true);
  return get(id);
}

/** Restores a session if it `isWanted` still when nobody else can be at it any more; tells whether it was. */
export async function bringBack(kit: Kit, id: SessionId, ends: Ends, isWanted: (found: Found) => boolean): Promise<boolean> {
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
    await start(kit, found, operation, ends);
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

async function start(kit: Kit, found: Found, operation: Operation, ends: Ends): Promise<void> {
  const { id, projectId, metadata } = found;
  const { lifecycle, runtime, store, workspace } = kit;
  const { agentSessionId, branch, prompt } = metadata;
  const bring = async () => checkWorkspace(await workspace.restore({ projectId, sessionId: id, branch }), found);
  const info = await portStep({ op: 'restore', id, step: 'workspace' }, bring, ends, (late) => void reclaimLate(kit, late));
  // Elsewhere than was known: if a later step fails, a cleanup must find it.
  if (info.path !== metadata.workspacePath || info.branch !== branch) {
    const noted = () => store.patchSessionMetadata(id, { workspacePath: info.path, branch: info.branch });
    await ownStep({ op: 'restore', id, step: 'workspace' }, noted);
  }
  const launchId = await operation.launch(await endFormer(kit, found, ends));
  const config = { sessionId: id, workspacePath: info.path, prompt };
  const handle = await launch(kit, 'restore', found, { launchId, config, resume: agentSessionId }, ends);
  const outcome = { branch: info.branch, workspacePath: info.path, runtimeHandle: handle, agentSessionId, prompt, launchId, expect: 'terminal' as const };
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

/**
 * Ends the runtime of the life before, which nobody else may have done: a merge, or `done`, ends a session without touching it. One that is
 * known to be gone is left alone, for its handle may be somebody else's by now. Tells whether it is gone.
 */
async function endFormer(kit: Kit, found: Found, ends: Ends): Promise<boolean> {
  const { id, metadata, runtimeFreed } = found;
  if (runtimeFreed || metadata.runtimeHandleId === '') return false;
  const destroy = () => kit.runtime.destroy(handleOf(found));
  const isGone = await bestEffort(kit, `restore ${id}: destroying its former runtime`, destroy, ends.signal);
  // Given up while that ran.
  if (ends.signal?.aborted) await portStep({ op: 'restore', id, step: 'runtime' }, () => undefined, ends);
  return isGone;
}

/**
 * A workspace came back after the restore was given up. It stays where a cleanup finds it, as that of every restore that failed; but if one
 * was there meanwhile, and took it for gone, it is taken away now.
 */
async function reclaimLate(kit: Kit, info: WorkspaceInfo): Promise<void> {
  const { sessionId: id, path, branch } = info;
  // Whoever is at the session now decides first: it may need the workspace, or take it away.
  await kit.running.busy.get(id)?.promise.catch(() => {});
  const isFree = async (): Promise<boolean> => JSON.parse(await kit.core.write({ do: 'workspaceBack', id, path, branch, now: kit.now() })) as boolean;
  await bestEffortLate(kit, `restore ${id}: noting its workspace`, async () => {
    if (await isFree()) await exclusively(kit, id, 'cleanup', () => takeAway(kit, id));
  });
}

async function takeAway(kit: Kit, id: SessionId): Promise<void> {
  const operation = await Operation.begin(kit, 'cleanup', id);
  const found = await look(kit, id);
  const destroy = () => kit.workspace.destroy(workspaceOf(found as Found));
  const freed = found !== null && hasEnded(found) && (await bestEffort(kit, `restore ${id}: destroying its workspace`, destroy));
  await operation.endQuietly({ freed });
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
