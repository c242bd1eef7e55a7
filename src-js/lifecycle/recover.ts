/** After a crash: what was interrupted is finished or undone, and running sessions are looked at. */
import { bestEffort, handleOf, hasEnded, look, workspaceOf, type Adopted, type Kit } from './kit';
import { runningWithoutPrompts } from './lifecycle-manager';
import { messageOf } from './logging';
import type { RecoverReport } from './manager-types';
import { Operation } from './operation';
import type { Runtime } from './port-types';
import { callPort } from './ports';
import type { ProbeResult, SessionId } from './word-types';
import { pooled, within } from './waiting';

/** How many runtimes are asked at a time, and how long each may take to answer. */
const CONCURRENCY = 8;
const PROBE_MS = 5000;

/** Takes over the operations of stores that are gone, then asks the runtimes of all running sessions. */
export async function recover(kit: Kit, runtimes: Record<string, Runtime> | undefined): Promise<RecoverReport> {
  const report: RecoverReport = { finished: [], parked: [], adopted: [], lost: [], unclear: [], failed: [] };
  const attempt = async (id: SessionId, run: () => Promise<void>): Promise<void> => {
    try {
      await run();
    } catch (error) {
      if (kit.core.closed) throw kit.core.closedError();
      report.failed.push({ id, reason: messageOf(error) });
    }
  };
  const { adopted } = kit.running;
  for (const operation of JSON.parse(await kit.core.write({ do: 'abandoned', now: kit.now() })) as Adopted[]) adopted.set(operation.token, operation);
  for (const operation of [...adopted.values()]) {
    await attempt(operation.sessionId, async () => {
      await finish(kit, operation, report);
      adopted.delete(operation.token);
    });
  }
  const running = await runningWithoutPrompts(kit.lifecycle);
  const known = running.filter(({ metadata }) => metadata.runtimeHandleId !== '');
  await pooled(known, CONCURRENCY, (record) => attempt(record.id, () => ask(kit, record, report, runtimes)));
  return report;
}

/** Brings one interrupted operation to an end. */
async function finish(kit: Kit, { token, sessionId: id, kind }: Adopted, report: RecoverReport): Promise<void> {
  const { lifecycle, runtime, workspace } = kit;
  const operation = new Operation(kit, kind, id, token);
  const record = await look(kit, id);
  const isOver = record !== null && hasEnded(record);
  const isHalfSpawned = record !== null && kind === 'spawn' && !isOver && record.metadata.runtimeHandleId === '';
  // A kill that had not ended the session yet never happened; a restore that did not come to its last step changed nothing.
  const tearsDown = record !== null && (isHalfSpawned || (isOver && (kind === 'kill' || kind === 'spawn')));
  let freed = false;
  let runtimeFreed = false;
  if (tearsDown) {
    if (isHalfSpawned) await lifecycle.onKillRequested(id, 'error_in_process');
    if (record.metadata.runtimeHandleId !== '') runtimeFreed = await bestEffort(kit, `recover ${id}: destroying its runtime`, () => runtime.destroy(handleOf(record)));
    if (record.metadata.workspacePath !== '') {
      freed = await bestEffort(kit, `recover ${id}: destroying its workspace`, () => workspace.destroy(workspaceOf(record)));
    }
  }
  // What was stopped keeps its workspace, to be resumed in.
  if (kind === 'stop' && isOver && !record.runtimeFreed && record.metadata.runtimeHandleId !== '') {
    runtimeFreed = await bestEffort(kit, `recover ${id}: destroying its runtime`, () => runtime.destroy(handleOf(record)));
  }
  await operation.end({ freed, runtimeFreed });
  (isHalfSpawned ? report.parked : report.finished).push(id);
}

type Known = Awaited<ReturnType<Kit['lifecycle']['runningSessions']>>[number];

/** Asks the runtime of one session, and reports what it says. */
async function ask(kit: Kit, record: Known, report: RecoverReport, runtimes: Record<string, Runtime> | undefined): Promise<void> {
  const { runtimeName } = record.metadata;
  const runtime = runtimes === undefined ? kit.runtime : Object.hasOwn(runtimes, runtimeName) ? runtimes[runtimeName] : undefined;
  // Another runtime would know nothing of it, and that is no death.
  if (runtime === undefined) throw new Error(`no runtime of the name ${JSON.stringify(runtimeName)} was given`);
  let found: ProbeResult = 'failed';
  try {
    const isAlive: unknown = await within(callPort(() => runtime.isAlive(handleOf(record)), { core: kit.core }), PROBE_MS);
    if (typeof isAlive === 'boolean') found = isAlive ? 'alive' : 'dead';
  } catch (error) {
    if (kit.core.closed) throw error;
    kit.logger?.debug(`recover ${record.id}: its runtime cannot be asked: ${messageOf(error)}`);
  }
  const list = { alive: report.adopted, dead: report.lost, failed: report.unclear, unknown: report.unclear }[found];
  list.push(record.id);
  await kit.lifecycle.applyRuntimeObservation(record.id, { runtime: found, process: found, launchId: record.launchId });
}
