// Every misbehaviour in every port of spawn, kill and restore: a documented error, no deadlock, and a state that is whole.
import { describe, expect, test } from 'vitest';

import { MEMORY, THROWN, goesOn, goodAnswer, hostileWorld, soon, type HostileWorld, type Instead, type PortName } from './hostile';
import { BACKENDS, rejection } from './support';

const [sqlite] = BACKENDS;

interface Operation {
  name: string;
  ports: PortName[];
  /** Brings the session `mer-1` to where the operation begins. */
  before(w: HostileWorld): Promise<unknown>;
  run(w: HostileWorld, signal?: AbortSignal): Promise<unknown>;
  takesSignal: boolean;
  /** The session's status when a port failed. */
  failed: string;
  /** Its status when all went well. */
  done: string;
}

const spawned = (w: HostileWorld) => w.sessions.spawn({ projectId: 'mer', prompt: 'p' });
const OPERATIONS: Operation[] = [
  {
    name: 'spawn',
    ports: ['workspace.create', 'agent.getLaunchCommand', 'agent.getEnvironment', 'runtime.create'],
    before: async () => {},
    run: (w, signal) => w.sessions.spawn({ projectId: 'mer', prompt: 'p' }, { signal }),
    takesSignal: true,
    failed: 'errored',
    done: 'spawning',
  },
  {
    name: 'kill',
    ports: ['runtime.destroy', 'workspace.destroy'],
    before: spawned,
    run: (w) => w.sessions.kill('mer-1'),
    takesSignal: false,
    failed: 'killed',
    done: 'killed',
  },
  {
    name: 'restore',
    ports: ['workspace.restore', 'agent.getLaunchCommand', 'agent.getEnvironment', 'runtime.create'],
    before: async (w) => (await spawned(w), w.sessions.kill('mer-1')),
    run: (w, signal) => w.sessions.restore('mer-1', { signal }),
    takesSignal: true,
    failed: 'killed',
    done: 'spawning',
  },
  {
    name: 'restore of a conversation',
    ports: ['agent.getRestoreCommand'],
    before: async (w) => {
      await spawned(w);
      await w.store.patchSessionMetadata('mer-1', { agentSessionId: 'agent-xyz' });
      await w.sessions.kill('mer-1');
    },
    run: (w, signal) => w.sessions.restore('mer-1', { signal }),
    takesSignal: true,
    failed: 'killed',
    done: 'spawning',
  },
];
const CASES = OPERATIONS.flatMap((operation) => operation.ports.map((port) => ({ operation, name: operation.name, port })));

/** What a port that does nothing but answer may answer anyway: for these any answer is right. */
const ANSWERS_NOTHING: PortName[] = ['runtime.destroy', 'workspace.destroy'];

describe.each(CASES)('$name, $port', ({ operation, port }) => {
  const begin = async () => {
    const w = await hostileWorld(MEMORY);
    await operation.before(w);
    return w;
  };

  const fails = async (instead: Instead, cause?: unknown): Promise<void> => {
    const w = await begin();
    w.instead[port] = instead;
    const error = await soon(rejection(operation.run(w)), operation.name);
    expect(error).toMatchObject({ name: 'PortError', hfCode: 'HF_LIFECYCLE_PORT_FAILED', sessionId: 'mer-1', step: port.split('.')[0] });
    expect(error.message).toMatch(new RegExp(`^${operation.name.split(' ')[0]} mer-1: ${port.split('.')[0]}: `));
    if (cause !== undefined) expect(error.cause).toBe(cause);
    expect((await w.sessions.get('mer-1')).status).toBe(operation.failed);
    await goesOn(w);
  };

  test.each(THROWN)('throws $what, at once or later', async ({ value }) => {
    await fails(() => {
      throw value;
    }, value);
    await fails(() => Promise.reject(value), value);
  });

  test('a thenable that throws, or rejects twice and then resolves', async () => {
    await fails(() => ({
      then() {
        throw new Error('thenable');
      },
    }));
    await fails(() => ({
      then(resolve: (value: unknown) => void, reject: (error: unknown) => void) {
        reject(new Error('first'));
        reject(new Error('second'));
        resolve('well');
      },
    }));
  });

  test('an answer without a promise counts', async () => {
    const w = await begin();
    w.instead[port] = (...args) => goodAnswer(port, args);
    await soon(operation.run(w), operation.name);
    expect((await w.sessions.get('mer-1')).status).toBe(operation.done);
    await goesOn(w);
  });

  test.each([undefined, null, 5, {}, { path: '' }, { id: '', runtimeName: '' }, [], Symbol('s'), { path: 'x'.repeat(5), branch: 5, id: {} }])('answers with nonsense: %o', async (value) => {
    const w = await begin();
    w.instead[port] = () => Promise.resolve(value);
    const running = operation.run(w);
    // An environment may be empty, a workspace may come without a branch, and whoever is to end something need not say anything.
    const isRight =
      ANSWERS_NOTHING.includes(port) ||
      (port === 'agent.getEnvironment' && typeof value === 'object' && value !== null && Object.values(value).every((each) => typeof each === 'string') && !Array.isArray(value)) ||
      (port.startsWith('workspace.') && (value as { path?: string } | null)?.path === 'xxxxx');
    if (isRight) await soon(running, operation.name);
    else expect(await soon(rejection(running), operation.name)).toMatchObject({ hfCode: 'HF_LIFECYCLE_PORT_FAILED' });
    expect((await w.sessions.get('mer-1')).status).toBe(isRight ? operation.done : operation.failed);
    await goesOn(w);
  });

  test.runIf(operation.takesSignal)('never settles: the signal ends it, and what comes later harms nobody', async () => {
    const w = await begin();
    let late: (value: unknown) => void = () => {};
    const abort = new AbortController();
    w.instead[port] = (...args) =>
      new Promise((resolve) => {
        late = () => resolve(goodAnswer(port, args));
        setImmediate(() => abort.abort(new Error('enough')));
      });
    const error = await soon(rejection(operation.run(w, abort.signal)), operation.name);
    expect(error).toMatchObject({ hfCode: 'HF_LIFECYCLE_PORT_FAILED', cause: expect.objectContaining({ message: 'enough' }) });
    expect((await w.sessions.get('mer-1')).status).toBe(operation.failed);
    w.calls.length = 0;
    late(undefined);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect((await w.sessions.get('mer-1')).status).toBe(operation.failed);
    // What came up too late is taken down again; a restored workspace is never destroyed.
    const undone = { 'runtime.create': 'runtime.destroy', 'workspace.create': 'workspace.destroy' }[port as string];
    expect(w.calls.map((call) => call.port)).toEqual(undone === undefined ? [] : [undone]);
    await goesOn(w);
  });

  test('never settles: close() ends it, and the next one brings it to an end', async () => {
    const place = await sqlite!.make();
    const w = await hostileWorld(place);
    await operation.before(w);
    const reached = new Promise<void>((resolve) => {
      w.instead[port] = () => (resolve(), new Promise(() => {}));
    });
    const running = rejection(operation.run(w));
    await reached;
    await soon(w.store.close(), 'close()');
    expect(await soon(running, operation.name)).toMatchObject({ hfCode: 'HF_CLOSED' });
    const next = await hostileWorld(place);
    await next.sessions.recover();
    expect((await next.sessions.get('mer-1')).status).toBe(operation.failed);
    await goesOn(next);
  });

  test('looks at the session, and tells of it, while it runs', async () => {
    const w = await begin();
    w.instead[port] = async (...args) => {
      const [listed] = await w.sessions.list('mer');
      await w.sessions.get('mer-1');
      await w.lifecycle.applyRuntimeObservation('mer-1', { runtime: 'alive', process: 'alive' });
      await w.lifecycle.applyPrObservation('mer-1', { fetched: true, url: 'https://x/1', number: 1, ci: 'passing' });
      await w.lifecycle.tickEscalations();
      await w.sessions.cleanup('other');
      expect(listed!.id).toBe('mer-1');
      return goodAnswer(port, args);
    };
    await soon(operation.run(w), operation.name);
    expect((await w.sessions.get('mer-1')).status).toBe(operation.name === 'kill' ? 'killed' : 'spawning');
    await goesOn(w);
  });

  test('ends the session while it runs', async () => {
    const w = await begin();
    const outcomes: string[] = [];
    w.instead[port] = async (...args) => {
      // Only once: what undoes a failed spawn calls ports again.
      delete w.instead[port];
      outcomes.push(await soon(w.sessions.kill('mer-1'), 'kill inside a port', 2000).then(String, (error) => error.hfCode ?? error.message));
      return goodAnswer(port, args);
    };
    await soon(operation.run(w), operation.name);
    const spawning = port === 'workspace.create' || operation.name === 'spawn';
    expect(outcomes).toEqual([spawning ? 'HF_LIFECYCLE_INCOMPLETE_HANDLE' : 'HF_LIFECYCLE_SESSION_BUSY']);
    await goesOn(w);
  });
});
