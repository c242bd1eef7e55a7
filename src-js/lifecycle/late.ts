/**
 * What a port brings after the call that asked for it was given up: nobody else knows of it, so it is taken away. Not if somebody has brought
 * the session back since, and runtimes and workspaces are called after their sessions: then it is the one in use. In doubt it stays.
 */
import { bestEffort, bestEffortLate, exclusively, handleOf, hasEnded, look, workspaceOf, type Found, type Kit } from './kit';
import { messageOf } from './logging';
import { Operation, type Freed } from './operation';
import type { RuntimeHandle, WorkspaceInfo } from './port-types';
import type { SessionId } from './word-types';

/** Destroys the runtime that came late, unless the session runs with it, or may. `undone` = the call that was given up is through. */
export async function lateRuntime(kit: Kit, op: string, id: SessionId, handle: RuntimeHandle, undone?: Promise<unknown>): Promise<void> {
  const destroy = () => bestEffortLate(kit, `${op} ${id}: destroying its runtime`, () => kit.runtime.destroy(handle));
  await unlessInDoubt(kit, `${op} ${id}: its runtime`, `${handle.runtimeName} ${handle.id}`, async () => {
    const found = await settled(kit, id, undone);
    const isNeeded = (now: Found): boolean => !hasEnded(now) && isSame(handleOf(now), handle);
    if (found === null) await destroy();
    // It runs: with this one, or with another, and nobody waits for a late one to go then.
    else if (!hasEnded(found)) isNeeded(found) || (await destroy());
    // Nobody may bring it back, here or elsewhere, before this one is gone: the next one may have the same handle.
    else await held(kit, id, async (now) => void (isNeeded(now) || (await destroy())));
  });
}

/**
 * Destroys the workspace of a spawn that came late, unless something has brought the session back. One that refuses is noted, so that a
 * cleanup tries again.
 */
export async function lateWorkspace(kit: Kit, info: WorkspaceInfo, undone: Promise<unknown>): Promise<void> {
  const { sessionId: id, path, branch } = info;
  const destroy = () => bestEffortLate(kit, `spawn ${id}: destroying its workspace`, () => kit.workspace.destroy(info));
  await unlessInDoubt(kit, `spawn ${id}: its workspace`, path, async () => {
    const found = await settled(kit, id, undone);
    if (found === null) return void (await destroy());
    // Of a later life, which may have ended too.
    if (found.metadata.workspacePath === path) return hasEnded(found) ? workspaceBack(kit, info) : undefined;
    checkForgotten(found);
    await held(kit, id, async (now) => {
      checkForgotten(now);
      if (await destroy()) return;
      const noted = () => kit.store.patchSessionMetadata(id, { workspacePath: path, branch });
      await bestEffortLate(kit, `spawn ${id}: noting its workspace`, noted);
    });
  });
}

/**
 * The workspace of a restore came late. It stays where a cleanup finds it, as that of every restore that failed; but if one was there
 * meanwhile, and took it for gone, it is taken away now.
 */
export async function lateRestored(kit: Kit, info: WorkspaceInfo): Promise<void> {
  await bestEffortLate(kit, `restore ${info.sessionId}: noting its workspace`, () => workspaceBack(kit, info));
}

async function workspaceBack(kit: Kit, { sessionId: id, path, branch }: WorkspaceInfo): Promise<void> {
  // Whoever is at the session now decides first: it may need the workspace, or take it away.
  await settled(kit, id);
  if (!(JSON.parse(await kit.core.write({ do: 'workspaceBack', id, path, branch, now: kit.now() })) as boolean)) return;
  await held(kit, id, async (found) => {
    const destroy = () => kit.workspace.destroy(workspaceOf(found));
    const freed = hasEnded(found) && !found.stopped && (await bestEffort(kit, `restore ${id}: destroying its workspace`, destroy));
    return { freed };
  });
}

/** Runs what may find that it must not go on, by throwing: then what came stays, and that is logged. */
async function unlessInDoubt(kit: Kit, what: string, name: string, run: () => Promise<void>): Promise<void> {
  try {
    await run();
  } catch (error) {
    kit.logger?.warn(`${what} came after the call was given up, and was left alone: the session may need it`);
    kit.logger?.debug(`${what}, ${name}, was left alone: ${messageOf(error)}`);
  }
}

/** The session when nobody in this process is at it (any more). Rejects if the store is closed. */
async function settled(kit: Kit, id: SessionId, undone?: Promise<unknown>): Promise<Found | null> {
  const { busy } = kit.running;
  await undone;
  let found: Found | null;
  do {
    for (let other; (other = busy.get(id)) !== undefined; ) await other.promise.catch(() => {});
    found = await look(kit, id);
  } while (busy.has(id));
  return found;
}

/** Does something while nobody else, in this process or another, is at the session. Rejects if somebody is, elsewhere. */
async function held(kit: Kit, id: SessionId, run: (found: Found) => Promise<Freed | void>): Promise<void> {
  for (let other; (other = kit.running.busy.get(id)) !== undefined; ) await other.promise.catch(() => {});
  await exclusively(kit, id, 'cleanup', async () => {
    const operation = await Operation.begin(kit, 'cleanup', id);
    let freed: Freed = {};
    try {
      const found = await look(kit, id);
      freed = (found !== null && (await run(found))) || {};
    } finally {
      await operation.endQuietly(freed);
    }
  });
}

function isSame(one: RuntimeHandle, other: RuntimeHandle): boolean {
  return one.id === other.id && one.runtimeName === other.runtimeName;
}

/** Requires that a session has ended for good, without a workspace that is known. */
function checkForgotten(found: Found): void {
  if (!hasEnded(found) || found.stopped || found.metadata.workspacePath !== '') throw new Error('somebody has brought the session back');
}
