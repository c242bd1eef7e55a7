// @pool forks: what counts happens in processes of its own.
// SIGKILL at every step of stopAll and resumeAll: a fresh process goes on with it, whether it recovers first or not. And processes that resume at once.
import { setTimeout as sleep } from 'node:timers/promises';

import { openSessionStore } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { SHARED, start, type SharedPlace } from './children';
import { rejection, testPorts, world } from './support';

const STOP = ['before onKillRequested', 'after onKillRequested', 'runtime.destroy'];
const RESUME = ['workspace.restore', 'agent.getLaunchCommand', 'agent.getEnvironment', 'runtime.create', 'before onSpawnCompleted', 'after onSpawnCompleted'];

/** Runs an operation in a process of its own until it comes to a step, and kills it there. */
async function crash(place: SharedPlace, operation: string, step: string): Promise<void> {
  const child = start(place, 'step', operation, step);
  expect(await child.line('step')).toBe(step);
  await child.kill();
}

/** This process after the crash. */
async function after(place: SharedPlace) {
  const ports = testPorts();
  return world({ open: (options) => openSessionStore({ ...place, ...options }) }, { ports });
}

describe.each(SHARED)('on $name', ({ name, make }) => {
  const all = [...STOP.map((step) => ({ operation: 'stop', step })), ...RESUME.map((step) => ({ operation: 'resume', step }))];
  const some = all.filter(({ step }) => step === 'after onKillRequested' || step === 'runtime.create');
  const unrecovered = some.map((each) => ({ ...each, recovers: false }));
  // On PostgreSQL it takes seconds until a dead store counts as dead; the logic is the same.
  const cases = name === 'SQLite' ? [...all.map((each) => ({ ...each, recovers: true })), ...unrecovered] : unrecovered;

  test.each(cases)('killed in $operation at $step, recover() first: $recovers', async ({ operation, step, recovers }) => {
    const place = await make();
    await crash(place, operation, step);
    const { sessions, store, calls } = await after(place);
    try {
      if (recovers) expect(await sessions.recover()).toMatchObject({ parked: [], lost: [], failed: [] });
      // What a process was killed in the middle of is done again: all of it is stopped, or up.
      const destroyed = () => calls.filter((call) => call.includes('.destroy'));
      if (operation === 'stop') {
        // A server that has not noticed yet that the client is dead still has its operation.
        let { failed } = await sessions.stopAll();
        for (let tries = 0; tries < 50 && failed.some(({ reason }) => reason.includes('another operation')); tries++) {
          await sleep(100);
          ({ failed } = await sessions.stopAll());
        }
        expect(failed).toEqual([]);
        expect(destroyed()).toEqual(expect.arrayContaining(['runtime.destroy h-mer-1', 'runtime.destroy h-mer-2']));
      }
      expect(destroyed()).not.toContain('workspace.destroy /w/mer-1');
      const isUp = operation === 'resume' && step === 'after onSpawnCompleted';
      expect(await sessions.resumeAll({ concurrency: 1 })).toEqual({ resumed: isUp ? ['mer-2'] : ['mer-1', 'mer-2'], failed: [] });
      expect((await sessions.list('mer')).map(({ lifecycle }) => lifecycle.isAlive)).toEqual([true, true]);
      // Each handle is destroyed once: later it may be somebody else's.
      expect([...destroyed()].sort()).toEqual(operation === 'stop' ? ['runtime.destroy h-mer-1', 'runtime.destroy h-mer-2'] : []);
      expect(await sessions.resumeAll()).toEqual({ resumed: [], failed: [] });
      await sessions.kill('mer-1');
      expect((await sessions.recover()).failed).toEqual([]);
      expect((await sessions.get('mer-1')).status).toBe('killed');
      expect((await sessions.get('mer-2')).lifecycle.isAlive).toBe(true);
    } finally {
      await store.close();
    }
  });

  test('of two processes that resume at once each session comes back once', async () => {
    const place = await make();
    const first = await after(place);
    for (let at = 0; at < 6; at++) await first.sessions.spawn({ projectId: 'mer', prompt: 'p' });
    await first.sessions.stopAll();
    await first.sessions.kill('mer-3');
    const children = [start(place, 'resume'), start(place, 'resume')];
    await Promise.all(children.map((child) => child.line('ready')));
    for (const child of children) child.send('go');
    const reports = await Promise.all(children.map(async (child) => JSON.parse(await child.line('report')) as { resumed: string[]; failed: { reason: string }[] }));
    expect(reports.flatMap(({ resumed }) => resumed).sort()).toEqual(['mer-1', 'mer-2', 'mer-4', 'mer-5', 'mer-6']);
    for (const { reason } of reports.flatMap(({ failed }) => failed)) expect(reason).toMatch(/another operation is in progress/);
    const created = children.flatMap(({ lines }) => lines.filter((line) => line.startsWith('call runtime.create')));
    expect(created.sort()).toEqual([1, 2, 4, 5, 6].map((num) => `call runtime.create mer-${num}`));
    expect((await first.sessions.list('mer')).map(({ lifecycle }) => lifecycle.isAlive)).toEqual([true, true, false, true, true, true]);
    await first.store.close();
    expect((await rejection(first.sessions.resumeAll())).hfCode).toBe('HF_CLOSED');
  });
});
