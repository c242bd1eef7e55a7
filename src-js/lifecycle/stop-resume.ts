/** Stopping what runs for a while, and bringing just that back. */
import { IncompleteHandleError } from './errors';
import { HoldfastError } from '../errors';
import { exclusively, handleOf, hasEnded, look, type Found, type Kit } from './kit';
import { messageOf } from './logging';
import type { ResumeReport, StopReport } from './manager-types';
import { LostOperation, Operation, outside } from './operation';
import { ownStep, portStep, type Ends } from './ports';
import type { SessionRecord } from './record-types';
import { bringBack } from './restore';
import { many, reviveSession } from './revive';
import { pooled } from './waiting';
import type { ProjectId, SessionId } from './word-types';

/** How many sessions are stopped at a time. */
const STOP_CONCURRENCY = 8;

/** Stops all sessions (of a project) that run, each noted as to be resumed in the transaction that ends it. */
export async function stopAll(kit: Kit, projectId: ProjectId | undefined, ends: Ends): Promise<StopReport> {
  // Also what an earlier call has ended without getting rid of its runtime.
  const sessions = await many<SessionRecord>(await kit.core.read({ do: 'stoppable', projectId }), reviveSession);
  const { done, failed } = await each(kit, 'stop', sessions, STOP_CONCURRENCY, ends, (id) => exclusively(kit, id, 'stop', () => stop(kit, id, ends)));
  return { stopped: done, failed };
}

/** Brings back the sessions (of a project) that were stopped and that nobody has ended for good since. */
export async function resumeAll(kit: Kit, projectId: ProjectId | undefined, concurrency: number, ends: Ends): Promise<ResumeReport> {
  const sessions = await many<SessionRecord>(await kit.core.read({ do: 'stopped', projectId }), reviveSession);
  const { done, failed } = await each(kit, 'restore', sessions, concurrency, ends, async (id) => {
    try {
      return await exclusively(kit, id, 'restore', () => bringBack(kit, id, ends, ({ stopped }) => stopped));
    } catch (error) {
      // Another process was faster, or it has been deleted.
      if (error instanceof HoldfastError && OVERTAKEN.has(error.hfCode)) return false;
      throw error;
    }
  });
  return { resumed: done, failed };
}

const OVERTAKEN = new Set<string>(['HF_LIFECYCLE_SESSION_NOT_RESTORABLE', 'HF_LIFECYCLE_SESSION_NOT_FOUND']);

/** Runs `one` for each session; it tells whether it had anything to do. Nothing waits for a session that somebody is at: that is a failure. */
async function each(kit: Kit, op: string, sessions: SessionRecord[], concurrency: number, ends: Ends, one: (id: SessionId) => Promise<boolean>) {
  const outcomes = new Map<SessionId, true | string>();
  await pooled(sessions, concurrency, async ({ id }) => {
    try {
      if (ends.signal?.aborted) await portStep({ op, id }, () => undefined, ends);
      if (await one(id)) outcomes.set(id, true);
    } catch (error) {
      if (kit.core.closed) throw kit.core.closedError();
      outcomes.set(id, messageOf(error));
    }
  });
  const done: SessionId[] = [];
  const failed: { id: SessionId; reason: string }[] = [];
  for (const { id } of sessions) {
    const outcome = outcomes.get(id);
    if (outcome === true) done.push(id);
    else if (outcome !== undefined) failed.push({ id, reason: outcome });
  }
  return { done, failed };
}

/** Stops one session; its workspace stays. Tells whether it is stopped: it may have ended otherwise. */
async function stop(kit: Kit, id: SessionId, ends: Ends): Promise<boolean> {
  const { core, lifecycle, runtime } = kit;
  const operation = await Operation.begin(kit, 'stop', id);
  let runtimeFreed = false;
  let stopped = false;
  try {
    const before = await look(kit, id);
    if (before !== null && isToBeStopped(before)) {
      if (before.metadata.runtimeHandleId === '') {
        throw new IncompleteHandleError(`stop ${id}: session: incomplete teardown handle`, { fields: { op: 'stop', sessionId: id, missing: ['runtimeHandleId'] } });
      }
      await ownStep({ op: 'stop', id }, () => lifecycle.onKillRequested(id, 'auto_cleanup', { resume: true }));
      const found = await look(kit, id);
      // Not if a probe was faster: what has ended by itself is not resumed.
      stopped = found !== null && found.stopped;
      if (found !== null && stopped) {
        await operation.advance('runtime');
        await portStep({ op: 'stop', id, step: 'runtime' }, () => runtime.destroy(handleOf(found)), ends);
        runtimeFreed = true;
      }
    }
  } catch (error) {
    if (!core.closed && !(error instanceof LostOperation)) await operation.endQuietly({ runtimeFreed });
    throw outside(error);
  }
  await operation.endQuietly({ runtimeFreed });
  return stopped;
}

function isToBeStopped(found: Found): boolean {
  return !hasEnded(found) || (found.stopped && !found.runtimeFreed);
}
