// @pool forks: what counts happens in processes of its own.
// SIGKILL at every step of spawn, kill and restore, and again while recover() runs: a fresh process brings it to an end (F1).
import { describe, expect, test } from 'vitest';

import { openSessionStore, type RecoverReport } from 'holdfast';

import { SHARED, start, type SharedPlace } from './children';
import { BACKENDS, testPorts, world } from './support';

const SPAWN = ['workspace.create', 'agent.getLaunchCommand', 'agent.getEnvironment', 'runtime.create', 'before onSpawnCompleted', 'after onSpawnCompleted'];
const KILL = ['before onKillRequested', 'after onKillRequested', 'runtime.destroy', 'workspace.destroy'];
const RESTORE = ['workspace.restore', 'agent.getLaunchCommand', 'agent.getEnvironment', 'runtime.create', 'before onSpawnCompleted', 'after onSpawnCompleted'];

type Lists = Partial<Record<keyof RecoverReport, string[]>>;

/** What is expected after a crash at a step: the report, the status, what was torn down, and what cleanup still had to do. */
interface Outcome {
  report: Lists;
  status: string;
  destroyed: string[];
}

const WORKSPACE = 'workspace.destroy /w/mer-1';
const RUNTIME = 'runtime.destroy h-mer-1';

function outcomeOf(operation: string, step: string): Outcome {
  const lives = { status: 'spawning', destroyed: [] };
  if (operation === 'spawn') {
    // It is through: the note alone was left.
    if (step === 'after onSpawnCompleted') return { report: { finished: ['mer-1'], adopted: ['mer-1'] }, ...lives };
    return { report: { parked: ['mer-1'] }, status: 'errored', destroyed: step === 'workspace.create' ? [] : [WORKSPACE] };
  }
  if (operation === 'kill') {
    // A kill that had not ended the session never happened.
    if (step === 'before onKillRequested') return { report: { finished: ['mer-1'], adopted: ['mer-1'] }, ...lives };
    // What is known to be gone is not destroyed again: its handle may be somebody else's by now.
    return { report: { finished: ['mer-1'] }, status: 'killed', destroyed: step === 'workspace.destroy' ? [WORKSPACE] : [RUNTIME, WORKSPACE] };
  }
  if (step === 'after onSpawnCompleted') return { report: { finished: ['mer-1'], adopted: ['mer-1'] }, ...lives };
  return { report: { finished: ['mer-1'] }, status: 'killed', destroyed: [] };
}

const NOTHING: RecoverReport = { finished: [], parked: [], adopted: [], lost: [], unclear: [], failed: [] };

/** What recovering did here, which is another process than the one that was killed: its report, the session, and what was destroyed. */
async function recover(place: SharedPlace) {
  const ports = testPorts();
  const { store, sessions, calls } = await world({ open: (options) => openSessionStore({ ...place, ...options }) }, { ports });
  const report = await sessions.recover();
  const destroyed = calls.filter((call) => call.includes('.destroy'));
  const cleaned = await sessions.cleanup('mer');
  const [session] = await sessions.list('mer');
  await store.close();
  return { report, destroyed, cleaned, session: session! };
}

/** Runs an operation in a process of its own until it comes to a step, and kills it there. */
async function crash(place: SharedPlace, operation: string, step: string): Promise<void> {
  const child = start(place, 'step', operation, step);
  expect(await child.line('step')).toBe(step);
  await child.kill();
}

describe.each(SHARED)('on $name', ({ name, make }) => {
  const steps = [...SPAWN.map((step) => ({ operation: 'spawn', step })), ...KILL.map((step) => ({ operation: 'kill', step })), ...RESTORE.map((step) => ({ operation: 'restore', step }))];
  // On PostgreSQL it takes seconds until a dead store counts as dead; the logic is the same.
  const chosen = name === 'SQLite' ? steps : steps.filter(({ step }) => step === 'runtime.create' || step === 'after onKillRequested');

  test.each(chosen)('killed in $operation at $step', async ({ operation, step }) => {
    const place = await make();
    await crash(place, operation, step);
    const expected = outcomeOf(operation, step);
    const first = await recover(place);
    expect(first.report).toEqual({ ...NOTHING, ...expected.report });
    expect(first.session.status).toBe(expected.status);
    expect(first.session.lifecycle.isAlive).toBe(expected.status === 'spawning');
    expect(first.destroyed).toEqual(expected.destroyed);
    // Again there is nothing left to be done, and nothing is torn down twice.
    const second = await recover(place);
    expect(second.report).toEqual({ ...NOTHING, ...(expected.status === 'spawning' && { adopted: ['mer-1'] }) });
    expect(second.destroyed).toEqual([]);
    expect(second.cleaned).toEqual([]);
    expect(second.session.status).toBe(expected.status);
  });
});

const [sqlite] = SHARED;
/** A step at which recover() itself is killed. */
const AGAIN = [
  { operation: 'spawn', step: 'runtime.create', at: 'before onKillRequested', parked: true },
  { operation: 'spawn', step: 'runtime.create', at: 'after onKillRequested', parked: false },
  { operation: 'spawn', step: 'runtime.create', at: 'workspace.destroy', parked: false },
  { operation: 'kill', step: 'runtime.destroy', at: 'runtime.destroy', parked: false },
  { operation: 'kill', step: 'runtime.destroy', at: 'workspace.destroy', parked: false },
];

test.each(AGAIN)('killed in $operation at $step, and in recover() at $at', async ({ operation, step, at, parked }) => {
  const place = await sqlite!.make();
  await crash(place, operation, step);
  const child = start(place, 'recover', at);
  expect(await child.line('step')).toBe(at);
  await child.kill();
  const { report, session, destroyed } = await recover(place);
  const expected = outcomeOf(operation, step);
  expect(session.status).toBe(expected.status);
  expect(report).toEqual({ ...NOTHING, [parked ? 'parked' : 'finished']: ['mer-1'] });
  // What had been torn down may be so again (ports must bear that), but nothing is left out.
  expect(destroyed).toEqual(expected.destroyed);
  expect((await recover(place)).report).toEqual(NOTHING);
});

test('killed in recover() while it asks a runtime: the session is still running, and is asked again', async () => {
  const place = await sqlite!.make();
  await crash(place, 'kill', 'before onKillRequested');
  const child = start(place, 'recover', 'runtime.isAlive');
  expect(await child.line('step')).toBe('runtime.isAlive');
  await child.kill();
  const { report, session } = await recover(place);
  expect(report).toEqual({ ...NOTHING, adopted: ['mer-1'] });
  expect(session.status).toBe('spawning');
});

test('a workspace that a broken-off restore brought back is reclaimed by cleanup', async () => {
  const place = await sqlite!.make();
  // The kill before has freed the workspace; restore has made it again.
  await crash(place, 'restore', 'runtime.create');
  const { report, cleaned, session } = await recover(place);
  expect({ report, status: session.status }).toEqual({ report: { ...NOTHING, finished: ['mer-1'] }, status: 'killed' });
  expect(cleaned).toEqual(['mer-1']);
});

test.each(BACKENDS)('a workspace that a failed restore brought back is reclaimed by cleanup, on $name', async ({ make }) => {
  const { sessions, fail, calls } = await world(await make());
  await sessions.spawn({ projectId: 'mer', prompt: 'p' });
  await sessions.kill('mer-1');
  fail['runtime.create'] = () => Promise.reject(new Error('no tmux'));
  await expect(sessions.restore('mer-1')).rejects.toThrow('restore mer-1: runtime: no tmux');
  calls.length = 0;
  expect(await sessions.cleanup('mer')).toEqual(['mer-1']);
  expect(calls).toContain('workspace.destroy /w/mer-1');
  expect(await sessions.cleanup('mer')).toEqual([]);
});

test.each(BACKENDS)('a workspace that a failed restore made for a session that had none is found by cleanup, on $name', async ({ make }) => {
  const { sessions, fail } = await world(await make());
  fail['workspace.create'] = () => Promise.reject(new Error('no disk'));
  await expect(sessions.spawn({ projectId: 'mer', prompt: 'p' })).rejects.toThrow('spawn mer-1: workspace: no disk');
  fail['runtime.create'] = () => Promise.reject(new Error('no tmux'));
  await expect(sessions.restore('mer-1')).rejects.toThrow('restore mer-1: runtime: no tmux');
  expect(await sessions.cleanup('mer')).toEqual(['mer-1']);
});
