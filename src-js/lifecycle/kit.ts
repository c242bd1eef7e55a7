/** What the operations of a session manager share. */
import { AsyncLocalStorage } from 'node:async_hooks';
import { invalidArgument, isRecord } from '../check';
import { SessionBusyError } from './errors';
import { messageOf } from './logging';
import type { Basis } from './manager-support';
import type { EnvironmentNames, SessionManagerOptions } from './manager-types';
import type { StoreCore } from './native-store';
import type { AgentConfig, RuntimeHandle, WorkspaceInfo } from './port-types';
import { callPort, portStep, type Ends, type Place } from './ports';
import type { Session, SessionRecord } from './record-types';
import { one, reviveSession } from './revive';
import type { SessionId } from './word-types';

/** A call under way that others may join. */
export interface Call<T = unknown> {
  readonly promise: Promise<T>;
  /** Names it to {@link isInside}. */
  readonly mark: object;
}

/** An operation that runs in this process. */
export interface Busy extends Call {
  readonly kind: 'kill' | 'restore' | 'cleanup' | 'stop';
  readonly force: boolean;
}

/** The calls in whose ports the running code is. */
const context = new AsyncLocalStorage<readonly object[]>();

/** Begins a call. */
export function begun<T>(run: () => Promise<T>): Call<T> {
  const mark = {};
  return { promise: context.run([...(context.getStore() ?? []), mark], run), mark };
}

/** Whether the running code is part of a call, say in one of its ports: whoever joined it from there would wait for himself. */
export function isInside({ mark }: Call): boolean {
  return context.getStore()?.includes(mark) === true;
}

/** An interrupted operation that was taken over. */
export interface Adopted {
  token: string;
  sessionId: SessionId;
  kind: 'spawn' | Busy['kind'];
  step: string;
}

/** What runs on one store in this process, whichever manager began it. */
export interface Running {
  readonly busy: Map<SessionId, Busy>;
  /** Spawns with a key, by project and key. */
  readonly spawns: Map<string, Call<Session>>;
  /** Operations whose end could not be noted, by token: until it is, the session counts as busy. */
  readonly unended: Map<string, { id: SessionId; freed: { freed?: boolean; runtimeFreed?: boolean } }>;
  /** Operations of dead stores that were taken over and could not be brought to an end, by token: the next `recover()` goes on with them. */
  readonly adopted: Map<string, Adopted>;
}

const running = new WeakMap<StoreCore, Running>();

export function runningOn(core: StoreCore): Running {
  const known = running.get(core) ?? { busy: new Map(), spawns: new Map(), unended: new Map(), adopted: new Map() };
  running.set(core, known);
  return known;
}

/** A session manager's parts. */
export interface Kit extends Basis, Pick<SessionManagerOptions, 'store' | 'lifecycle' | 'runtime' | 'agent' | 'workspace' | 'messenger'> {
  readonly names: Required<EnvironmentNames>;
  /** `undefined` = an agent may be silent for ever. */
  readonly noSignalAfterMs: number | undefined;
  readonly running: Running;
}

/** Runs an operation as the only one on its session in this process; rejects if there is another. */
export async function exclusively<T>(kit: Kit, id: SessionId, kind: Busy['kind'], run: () => Promise<T>): Promise<T> {
  const { busy } = kit.running;
  if (busy.has(id)) throw busyError(kind, id);
  const call = begun(run);
  busy.set(id, { kind, force: false, ...call });
  try {
    return await call.promise;
  } finally {
    busy.delete(id);
  }
}

/** A session with what operations need to know of it. */
export type Found = SessionRecord & {
  /** Its runtime is known to be gone: somebody else may have its handle by now. */
  runtimeFreed: boolean;
  /** It was ended in order to be resumed. */
  stopped: boolean;
};

/** Looks at a session; `null` = there is none. */
export async function look(kit: Kit, id: SessionId): Promise<Found | null> {
  return one<Found>(await kit.core.read({ do: 'found', id }), reviveSession);
}

/** Whether a session has ended. */
export function hasEnded({ lifecycle }: SessionRecord): boolean {
  return lifecycle.state === 'terminated' || lifecycle.state === 'done';
}

/** Does what may fail without changing the outcome; tells whether it did not. */
export async function bestEffort(kit: Kit, what: string, run: () => unknown, signal?: AbortSignal): Promise<boolean> {
  try {
    await callPort(run, { core: kit.core, signal });
    return true;
  } catch (error) {
    // The port's own words are the caller's to read: above debug no path or handle may stand in a log.
    kit.logger?.warn(`${what} failed`);
    kit.logger?.debug(`${what} failed: ${messageOf(error)}`);
    return false;
  }
}

/** How a runtime is called by what is stored. */
export function handleOf({ metadata }: SessionRecord): RuntimeHandle {
  return { id: metadata.runtimeHandleId, runtimeName: metadata.runtimeName };
}

/** A workspace by what is stored. */
export function workspaceOf({ id, projectId, metadata }: SessionRecord): WorkspaceInfo {
  return { projectId, sessionId: id, branch: metadata.branch, path: metadata.workspacePath };
}

/** Requires of a workspace port that it answers with a workspace. */
export function checkWorkspace(info: unknown, record: SessionRecord): WorkspaceInfo {
  if (!isRecord(info) || typeof info.path !== 'string' || info.path === '') throw invalidArgument('what the workspace port resolves to', 'an object { path, … }', info);
  const branch = typeof info.branch === 'string' && info.branch !== '' ? info.branch : record.metadata.branch;
  return { projectId: record.projectId, sessionId: record.id, branch, path: info.path };
}

/** Requires of a runtime port that it answers with a handle. */
export function checkHandle(handle: unknown): RuntimeHandle {
  const { id, runtimeName } = isRecord(handle) ? handle : { id: undefined, runtimeName: undefined };
  if (typeof id !== 'string' || id === '' || typeof runtimeName !== 'string') {
    throw invalidArgument('what the runtime port resolves to', 'an object { id, runtimeName }', handle);
  }
  return { id, runtimeName };
}

/** How the runtime of a session is to be started. */
export interface Launch {
  /** Names this start. */
  readonly launchId: string;
  readonly config: AgentConfig;
  /** The conversation to go on with; `''` = begin with the prompt. */
  readonly resume: string;
}

/** Starts the runtime of a session: what the agent wants to be called with, then `runtime.create`. */
export async function launch(kit: Kit, op: string, record: SessionRecord, { launchId, config, resume }: Launch, ends: Ends): Promise<RuntimeHandle> {
  const { agent, runtime, names } = kit;
  const place = (step: string): Place => ({ op, id: record.id, step });
  const command = () => (resume === '' ? agent.getLaunchCommand({ ...config }) : agent.getRestoreCommand(resume));
  const launchCommand = await portStep(place('agent'), async () => checkText(await command(), 'the command of the agent port'), ends);
  const wanted = await portStep(place('agent'), async () => checkEnvironment(await agent.getEnvironment({ ...config })), ends);
  const ids = { [names.sessionId]: record.id, [names.projectId]: record.projectId, [names.issueId]: record.issueId, [names.launchId]: launchId };
  const env = { ...wanted, ...ids };
  // A runtime that comes up after the call was given up is known to nobody else.
  const late = (handle: RuntimeHandle): void => void bestEffortLate(kit, `${op} ${record.id}: destroying its runtime`, () => runtime.destroy(handle));
  const create = async (): Promise<RuntimeHandle> =>
    checkHandle(await runtime.create({ sessionId: record.id, workspacePath: config.workspacePath, launchCommand, env, launchId }));
  return portStep(place('runtime'), create, ends, late);
}

/** As {@link bestEffort}, but after the end of the operation, and so of the store perhaps. */
export async function bestEffortLate(kit: Kit, what: string, run: () => unknown): Promise<boolean> {
  try {
    await run();
    return true;
  } catch {
    kit.logger?.warn(`${what} failed`);
    return false;
  }
}

function checkText(value: unknown, argument: string): string {
  if (typeof value !== 'string') throw invalidArgument(argument, 'a string', value);
  return value;
}

function checkEnvironment(value: unknown): Record<string, string> {
  if (!isRecord(value)) throw invalidArgument('the environment of the agent port', 'an object of strings', value);
  const odd = Object.entries(value).find(([, text]) => typeof text !== 'string');
  if (odd !== undefined) throw invalidArgument(`the environment of the agent port, variable ${odd[0]},`, 'a string', odd[1]);
  return value as Record<string, string>;
}

/** @param id `undefined` where it is not known yet. */
export function busyError(op: string, id?: SessionId): SessionBusyError {
  const what = id === undefined ? op : `${op} ${id}`;
  return new SessionBusyError(`${what}: session: another operation is in progress`, { fields: { op, ...(id !== undefined && { sessionId: id }) } });
}
