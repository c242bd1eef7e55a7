/** Starting a session, and undoing what was done of it when a step fails. */
import { bestEffort, bestEffortLate, checkWorkspace, launch, type Kit } from './kit';
import { LostOperation, Operation, outside } from './operation';
import type { SpawnConfig } from './manager-types';
import type { WorkspaceInfo } from './port-types';
import { callPort, ownStep, placed, portStep, type Ends } from './ports';
import type { Session, SessionRecord } from './record-types';
import { reviveSession } from './revive';

/** What the prompt is with the rules. */
export function promptOf({ prompt = '', agentRules = '' }: SpawnConfig): string {
  return prompt !== '' && agentRules !== '' ? `${prompt}\n\n${agentRules}` : prompt + agentRules;
}

/** Starts a session. `get` reads it in the end. */
export async function spawn(kit: Kit, config: SpawnConfig, key: string | undefined, ends: Ends, get: (id: string) => Promise<Session>): Promise<Session> {
  const place = { op: 'spawn', step: 'create' };
  // Nothing is there to be undone yet.
  if (ends.signal?.aborted) await portStep(place, () => undefined, ends);
  const { operationToken, ...record } = await ownStep(place, () => create(kit, config, key));
  // The key is that of an earlier call, which has done the rest, or is at it.
  if (operationToken === undefined) return get(record.id);
  try {
    await start(kit, record, new Operation(kit, 'spawn', record.id, operationToken), ends);
  } catch (error) {
    throw outside(error);
  }
  return get(record.id);
}

/** A new session, whose spawn is noted in the same transaction; or the one that the key stands for. */
type Created = SessionRecord & { operationToken?: string };

async function create(kit: Kit, config: SpawnConfig, key: string | undefined): Promise<Created> {
  const { projectId, issueId, kind, harness, branch, mergeEnds } = config;
  const session = { projectId, issueId, kind, lifecycle: { harness }, metadata: { branch, prompt: promptOf(config) } };
  return reviveSession(JSON.parse(await kit.core.write({ do: 'createSession', session, now: kit.now(), key, operation: true, mergeEnds })) as Created);
}

async function start(kit: Kit, record: SessionRecord, operation: Operation, ends: Ends): Promise<void> {
  const { id, metadata } = record;
  const { lifecycle, runtime, store, workspace } = kit;
  const place = (step: string) => ({ op: 'spawn', id, step });
  let freed = false;
  /** The last one is undone first. */
  const undo = [() => bestEffort(kit, `spawn ${id}: marking it errored`, () => lifecycle.onKillRequested(id, 'error_in_process'))];
  const reclaim = async (info: WorkspaceInfo): Promise<void> => {
    freed = await bestEffort(kit, `spawn ${id}: destroying its workspace`, () => workspace.destroy(info));
  };
  try {
    const late = (info: WorkspaceInfo): void => void reclaimLate(kit, info);
    const make = async () => checkWorkspace(await workspace.create({ projectId: record.projectId, sessionId: id, branch: metadata.branch }), record);
    const info = await portStep(place('workspace'), make, ends, late);
    undo.push(async () => (await reclaim(info), freed));
    await ownStep(place('workspace'), () => store.patchSessionMetadata(id, { workspacePath: info.path, branch: info.branch }));

    const launchId = await operation.launch();
    const config = { sessionId: id, workspacePath: info.path, prompt: metadata.prompt };
    const handle = await launch(kit, 'spawn', record, { launchId, config, resume: '' }, ends);
    undo.push(() => bestEffort(kit, `spawn ${id}: destroying its runtime`, () => runtime.destroy(handle)));
    const outcome = { branch: info.branch, workspacePath: info.path, runtimeHandle: handle, prompt: metadata.prompt, launchId, expect: 'spawning' as const };
    try {
      await callPort(() => lifecycle.onSpawnCompleted(id, outcome), ends);
    } catch (error) {
      throw placed(place('completed'), error);
    }
  } catch (error) {
    // What another store has taken over, or what the next one finds after this one was closed, is not undone here.
    if (error instanceof LostOperation || kit.core.closed) throw error;
    for (const step of undo.reverse()) await step();
    await operation.endQuietly({ freed });
    throw error;
  }
  await operation.endQuietly();
}

/** Takes a workspace away that came after the call was given up. One that refuses is noted, so that a cleanup tries again. */
async function reclaimLate(kit: Kit, info: WorkspaceInfo): Promise<void> {
  const id = info.sessionId;
  if (await bestEffortLate(kit, `spawn ${id}: destroying its workspace`, () => kit.workspace.destroy(info))) return;
  const noted = () => kit.store.patchSessionMetadata(id, { workspacePath: info.path, branch: info.branch });
  await bestEffortLate(kit, `spawn ${id}: noting its workspace`, noted);
}
