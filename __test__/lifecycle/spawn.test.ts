// Starting a session: every step may fail, abort or meet a kill, and what was done is undone in order (checks 22 to 24, R53 to R55).
import { AsyncLocalStorage } from 'node:async_hooks';
import { ConstraintError, InvalidArgumentError, LifecycleManager, PortError, SessionManager, SessionTerminatedError } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { BACKENDS, deferred, rejection, until, world } from './support';

const boom = (): never => {
  throw new Error('boom');
};

describe.each(BACKENDS)('on $name', ({ make }) => {
  const STEPS = [
    { step: 'workspace', port: 'workspace.create', undo: [] },
    { step: 'agent', port: 'agent.getLaunchCommand', undo: ['workspace.destroy /w/mer-1'] },
    { step: 'agent', port: 'agent.getEnvironment', undo: ['workspace.destroy /w/mer-1'] },
    { step: 'runtime', port: 'runtime.create', undo: ['workspace.destroy /w/mer-1'] },
  ];
  test.each(STEPS)('22: a failure of $port undoes what was done', async ({ step, port, undo }) => {
    const { sessions, calls, fail } = await world(await make());
    fail[port] = boom;
    const error = await rejection(sessions.spawn({ projectId: 'mer' }));
    expect(error).toBeInstanceOf(PortError);
    expect(error).toMatchObject({ message: `spawn mer-1: ${step}: boom`, hfCode: 'HF_LIFECYCLE_PORT_FAILED', op: 'spawn', sessionId: 'mer-1', step });
    expect(error.cause).toMatchObject({ message: 'boom' });
    expect(calls.slice(calls.findIndex((call) => call.startsWith(port)) + 1)).toEqual(undo);
    const session = await sessions.get('mer-1');
    expect(session).toMatchObject({ status: 'errored', lifecycle: { state: 'terminated', terminationReason: 'error_in_process', isAlive: false } });
    // What was destroyed is not destroyed again.
    expect(await sessions.cleanup('mer')).toEqual([]);
  });

  test('22: a failure of the last step destroys the runtime, then the workspace, then marks the row', async () => {
    const place = await make();
    const { store, ports, calls } = await world(place);
    class Failing extends LifecycleManager {
      override async onSpawnCompleted(): Promise<void> {
        throw new Error('boom');
      }
      override async onKillRequested(...args: Parameters<LifecycleManager['onKillRequested']>): Promise<void> {
        calls.push(`kill ${args.join(' ')}`);
        return super.onKillRequested(...args);
      }
    }
    const sessions = new SessionManager({ ...ports, store, lifecycle: new Failing({ store }) });
    const error = await rejection(sessions.spawn({ projectId: 'mer' }));
    expect(error).toMatchObject({ message: 'spawn mer-1: completed: boom', step: 'completed' });
    expect(calls.slice(-3)).toEqual(['runtime.destroy h1', 'workspace.destroy /w/mer-1', 'kill mer-1 error_in_process']);
    expect((await sessions.get('mer-1')).status).toBe('errored');
  });

  test('22: an undo that fails too does not hide the first failure, and leaves the workspace to cleanup', async () => {
    const { sessions, fail, lines } = await world(await make());
    fail['runtime.create'] = boom;
    fail['workspace.destroy'] = () => Promise.reject(new Error('/secret/path refuses'));
    expect((await rejection(sessions.spawn({ projectId: 'mer' }))).message).toBe('spawn mer-1: runtime: boom');
    expect((await sessions.get('mer-1')).status).toBe('errored');
    expect(lines.filter((line) => !line.startsWith('debug'))).toEqual(['warn spawn mer-1: destroying its workspace failed']);
    delete fail['workspace.destroy'];
    expect(await sessions.cleanup('mer')).toEqual(['mer-1']);
  });

  test('an unknown project is a constraint, before any port is called', async () => {
    const { sessions, calls } = await world(await make());
    const error = await rejection(sessions.spawn({ projectId: 'nobody' }));
    expect(error).toBeInstanceOf(ConstraintError);
    expect(error).toMatchObject({ hfCode: 'HF_LIFECYCLE_CONSTRAINT', constraint: 'foreign_key' });
    expect(error.message).toMatch(/^spawn: create: /);
    expect(calls).toEqual([]);
  });

  test('23: an abort during runtime.create undoes it, and a runtime that comes up later is destroyed', async () => {
    const { sessions, calls, fail } = await world(await make());
    const controller = new AbortController();
    const gate = deferred();
    fail['runtime.create'] = async () => {
      controller.abort(new Error('no longer wanted'));
      await gate.promise;
      return { id: 'late', runtimeName: 'tmux' };
    };
    const error = await rejection(sessions.spawn({ projectId: 'mer' }, { signal: controller.signal }));
    expect(error).toMatchObject({ message: 'spawn mer-1: runtime: no longer wanted', hfCode: 'HF_LIFECYCLE_PORT_FAILED', step: 'runtime' });
    expect(error.cause).toBe(controller.signal.reason);
    expect(calls).toContain('workspace.destroy /w/mer-1');
    expect((await sessions.get('mer-1')).status).toBe('errored');
    expect(calls).not.toContain('runtime.destroy late');
    gate.resolve();
    await until(() => calls.includes('runtime.destroy late'));
  });

  test('23: a signal that has aborted before makes no row', async () => {
    const { sessions, store } = await world(await make());
    const error = await rejection(sessions.spawn({ projectId: 'mer' }, { signal: AbortSignal.abort(new Error('no')) }));
    expect(error.message).toBe('spawn: create: no');
    expect(await store.listAllSessions()).toEqual([]);
  });

  test('24: a kill meanwhile wins', async () => {
    const { sessions, lifecycle, calls, fail } = await world(await make());
    fail['runtime.create'] = async () => {
      await lifecycle.onKillRequested('mer-1', 'auto_cleanup');
      return { id: 'h9', runtimeName: 'tmux' };
    };
    const error = await rejection(sessions.spawn({ projectId: 'mer' }));
    expect(error).toBeInstanceOf(SessionTerminatedError);
    expect(error).toMatchObject({ message: 'spawn mer-1: completed: session: terminated', hfCode: 'HF_LIFECYCLE_SESSION_TERMINATED', op: 'spawn', sessionId: 'mer-1' });
    expect(calls.slice(-2)).toEqual(['runtime.destroy h9', 'workspace.destroy /w/mer-1']);
    expect((await sessions.get('mer-1')).lifecycle).toMatchObject({ state: 'terminated', terminationReason: 'auto_cleanup' });
  });

  test('a hook that is faster than the end of the spawn is kept', async () => {
    const { sessions, lifecycle, fail } = await world(await make());
    fail['runtime.create'] = async () => {
      await lifecycle.applyActivitySignal('mer-1', { valid: true, state: 'active', source: 'hook' });
      return { id: 'h9', runtimeName: 'tmux' };
    };
    const session = await sessions.spawn({ projectId: 'mer' });
    expect(session).toMatchObject({ status: 'working', lifecycle: { state: 'working', activity: { state: 'active', source: 'hook' } } });
  });

  test('prompt, command and environment are as the rules say', async () => {
    const { sessions, configs } = await world(await make());
    const session = await sessions.spawn({ projectId: 'mer', prompt: 'ship it', agentRules: 'be nice', issueId: 'i-7' });
    expect(session.metadata.prompt).toBe('ship it\n\nbe nice');
    expect((await sessions.spawn({ projectId: 'mer', agentRules: 'be nice' })).metadata.prompt).toBe('be nice');
    expect(configs[0]).toEqual({
      sessionId: 'mer-1',
      workspacePath: '/w/mer-1',
      launchCommand: 'launch ship it\n\nbe nice',
      env: { HOME: '/h', AO_SESSION_ID: 'mer-1', AO_PROJECT_ID: 'mer', AO_ISSUE_ID: 'i-7', AO_LAUNCH_ID: session.launchId },
      launchId: session.launchId,
    });
    expect(configs[1]!.env.AO_ISSUE_ID).toBe('');
  });

  test('the names of the environment variables are options', async () => {
    const place = await make();
    const { store, lifecycle, ports, configs } = await world(place);
    const sessions = new SessionManager({ ...ports, store, lifecycle, environmentNames: { sessionId: 'MY_ID', issueId: 'MY_ISSUE', launchId: 'MY_LAUNCH' } });
    const { launchId } = await sessions.spawn({ projectId: 'mer' });
    expect(configs[0]!.env).toEqual({ HOME: '/h', MY_ID: 'mer-1', AO_PROJECT_ID: 'mer', MY_ISSUE: '', MY_LAUNCH: launchId });
  });

  test('a key makes a repeated spawn return the first session, at the same time and later', async () => {
    const place = await make();
    const first = await world(place);
    const both = await Promise.all([1, 2].map(() => first.sessions.spawn({ projectId: 'mer' }, { key: 'k' })));
    expect(both.map(({ id }) => id)).toEqual(['mer-1', 'mer-1']);
    await first.store.close();
    const second = await world(place);
    expect((await second.sessions.spawn({ projectId: 'mer' }, { key: 'k' })).id).toBe('mer-1');
    expect((await second.sessions.spawn({ projectId: 'mer' }, { key: 'other' })).id).toBe('mer-2');
    expect(second.calls.filter((call) => call.startsWith('runtime.create'))).toEqual(['runtime.create mer-2']);
  });

  test('ports run in the async context of the caller', async () => {
    const { sessions, fail } = await world(await make());
    const storage = new AsyncLocalStorage<string>();
    const seen: unknown[] = [];
    for (const port of ['workspace.create', 'runtime.create']) {
      fail[port] = async ({ sessionId }: { sessionId: string }) => {
        seen.push(storage.getStore());
        return port === 'runtime.create' ? { id: 'h', runtimeName: 'tmux' } : { path: `/w/${sessionId}` };
      };
    }
    await storage.run('caller', () => sessions.spawn({ projectId: 'mer' }));
    expect(seen).toEqual(['caller', 'caller']);
  });
});

describe('ports that answer nonsense', () => {
  const answers = [
    ['workspace.create', undefined, /^spawn mer-1: workspace: what the workspace port resolves to must be an object/],
    ['workspace.create', { path: 5 }, /^spawn mer-1: workspace: /],
    ['agent.getLaunchCommand', null, /^spawn mer-1: agent: the command of the agent port must be a string/],
    ['agent.getEnvironment', ['x'], /^spawn mer-1: agent: /],
    ['agent.getEnvironment', { A: 5 }, /^spawn mer-1: agent: the environment of the agent port, variable A, must be a string/],
    ['runtime.create', {}, /^spawn mer-1: runtime: /],
    ['runtime.create', { id: '', runtimeName: 'tmux' }, /^spawn mer-1: runtime: /],
  ] as const;
  test.each(answers)('%s: %s', async (port, answer, message) => {
    const { sessions, fail } = await world(await BACKENDS[0]!.make());
    fail[port] = () => answer;
    const error = await rejection(sessions.spawn({ projectId: 'mer' }));
    expect(error).toBeInstanceOf(PortError);
    expect(error.message).toMatch(message);
    expect((await sessions.get('mer-1')).status).toBe('errored');
  });

  test('ports that are no async functions, or throw things that are no errors', async () => {
    const { sessions, fail } = await world(await BACKENDS[0]!.make());
    fail['agent.getLaunchCommand'] = () => Promise.reject(Object.create(null));
    expect((await rejection(sessions.spawn({ projectId: 'mer' }))).message).toBe('spawn mer-1: agent: something that is no error was thrown');
    fail['agent.getLaunchCommand'] = () => Promise.reject(undefined);
    expect((await rejection(sessions.spawn({ projectId: 'mer' }))).message).toBe('spawn mer-2: agent: undefined');
  });
});

test('bad arguments are refused before anything is written', async () => {
  const { sessions, store, lifecycle, ports } = await world(await BACKENDS[0]!.make());
  for (const bad of [undefined, null, {}, { projectId: '' }, { projectId: 'mer', prompt: 5 }, { projectId: 'mer', branch: null }] as never[]) {
    expect(await rejection(sessions.spawn(bad))).toBeInstanceOf(InvalidArgumentError);
  }
  for (const bad of [null, { key: '' }, { key: 5 }, { signal: {} }] as never[]) {
    expect(await rejection(sessions.spawn({ projectId: 'mer' }, bad))).toBeInstanceOf(InvalidArgumentError);
  }
  expect(await store.listAllSessions()).toEqual([]);
  for (const bad of [{ store: {} }, { runtime: {} }, { agent: null }, { environmentNames: { sessionId: 'A=B' } }, { clock: 5 }, { logger: {} }]) {
    expect(() => new SessionManager({ ...ports, store, lifecycle, ...bad } as never), JSON.stringify(bad)).toThrow(InvalidArgumentError);
  }
});
