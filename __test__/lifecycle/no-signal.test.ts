// A live agent that was never heard since its start is shown as such, not as one that works calmly (F10).
import { InvalidArgumentError, NO_PR, NO_SIGNAL_AFTER_MS, SessionManager, deriveStatus } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { BACKENDS, world } from './support';

describe.each(BACKENDS)('on $name', ({ make }) => {
  test('after 90 seconds, in get and list, until something is heard', async () => {
    const { sessions, lifecycle, store, clock } = await world(await make());
    const { id } = await sessions.spawn({ projectId: 'mer', prompt: 'p' });
    const status = async (): Promise<string> => {
      const [listed] = await sessions.list('mer');
      expect(listed).toEqual(await sessions.get(id));
      return listed!.status;
    };
    clock.add(89_999);
    expect(await status()).toBe('spawning');
    clock.add(1);
    expect(await status()).toBe('no_signal');
    // Nothing of it is stored, and a sign of life of the runtime is none of the agent.
    const events = await store.maxChangeLogSeq();
    await lifecycle.applyRuntimeObservation(id, { runtime: 'alive', process: 'alive' });
    expect([await status(), await store.maxChangeLogSeq()]).toEqual(['no_signal', events]);
    await lifecycle.applyPrObservation(id, { fetched: true, url: 'https://x/1', number: 1, ci: 'failing' });
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'active', source: 'hook' });
    expect(await status()).toBe('ci_failed');
    await store.deletePr('https://x/1');
    clock.add(3_600_000);
    expect(await status()).toBe('working');
    // A new life begins unheard.
    await sessions.kill(id);
    await sessions.restore(id);
    clock.add(90_000);
    expect(await status()).toBe('no_signal');
    await sessions.kill(id);
    expect(await status()).toBe('killed');
  });

  test('a hook that was faster than the end of the start was heard', async () => {
    const { sessions, lifecycle, fail, clock } = await world(await make());
    fail['runtime.create'] = async ({ sessionId }: { sessionId: string }) => {
      await lifecycle.applyActivitySignal(sessionId, { valid: true, state: 'active', source: 'hook' });
      clock.add(1000);
      return { id: 'h', runtimeName: 'tmux' };
    };
    const { id } = await sessions.spawn({ projectId: 'mer', prompt: 'p' });
    clock.add(200_000);
    expect((await sessions.get(id)).status).toBe('working');
    await sessions.kill(id);
    fail['runtime.create'] = async ({ sessionId, launchId }: { sessionId: string; launchId: string }) => {
      await lifecycle.applyActivitySignal(sessionId, { valid: true, state: 'ready', source: 'hook', launchId });
      clock.add(1000);
      return { id: 'h', runtimeName: 'tmux' };
    };
    await sessions.restore(id);
    clock.add(200_000);
    expect((await sessions.get(id)).status).toBe('idle');
  });

  test('a clock that jumps back makes nobody silent, and no start slow', async () => {
    const { sessions, lifecycle, clock } = await world(await make());
    const { id } = await sessions.spawn({ projectId: 'mer' });
    const hour = 3_600_000;
    clock.add(-hour);
    expect((await sessions.get(id)).status).toBe('spawning');
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'idle', source: 'hook' });
    // It was heard before its start, says the clock.
    clock.add(hour + 91_000);
    expect((await sessions.get(id)).status).toBe('idle');
  });

  test('what was never launched, or starts yet, is not silent; how long it takes is an option', async () => {
    const { sessions, lifecycle, store, ports, clock } = await world(await make());
    await store.createSession({ projectId: 'mer', lifecycle: { isAlive: true } });
    await sessions.spawn({ projectId: 'mer' });
    clock.add(10_000);
    const statuses = async (noSignalAfterMs: number | false): Promise<string[]> => {
      const other = new SessionManager({ ...ports, store, lifecycle, clock: clock.read, noSignalAfterMs });
      return (await other.list('mer')).map(({ status }) => status);
    };
    expect(await statuses(10_000)).toEqual(['spawning', 'no_signal']);
    expect(await statuses(10_001)).toEqual(['spawning', 'spawning']);
    clock.add(1e9);
    expect(await statuses(false)).toEqual(['spawning', 'spawning']);
    expect(await statuses(Infinity)).toEqual(['spawning', 'spawning']);
  });
});

test('deriveStatus takes what is needed for it as a third argument, and is what it was without', () => {
  const silent = { state: 'idle', isAlive: true } as const;
  const launchedAt = new Date(1000);
  expect(NO_SIGNAL_AFTER_MS).toBe(90_000);
  expect(deriveStatus(silent, NO_PR)).toBe('idle');
  expect(deriveStatus(silent, NO_PR, { launchedAt, now: 90_999 })).toBe('idle');
  expect(deriveStatus(silent, NO_PR, { launchedAt, now: 91_000 })).toBe('no_signal');
  expect(deriveStatus(silent, NO_PR, { launchedAt, now: 1001, noSignalAfterMs: 1 })).toBe('no_signal');
  expect(deriveStatus(silent, NO_PR, { launchedAt: null, now: 91_000 })).toBe('idle');
  expect(deriveStatus({ ...silent, activity: { lastActivityAt: 5 } }, NO_PR, { launchedAt, now: 91_000 })).toBe('idle');
  expect(deriveStatus({ ...silent, isAlive: false }, NO_PR, { launchedAt, now: 91_000 })).toBe('idle');
  expect(deriveStatus({ state: 'stuck', isAlive: true }, NO_PR, { launchedAt, now: 91_000 })).toBe('stuck');
  expect(deriveStatus(silent, { ...NO_PR, exists: true, merged: true }, { launchedAt, now: 91_000 })).toBe('merged');
  expect(() => deriveStatus(silent, NO_PR, { launchedAt, now: 'soon' })).toThrow(InvalidArgumentError);
  expect(() => deriveStatus(silent, NO_PR, { launchedAt, now: 1, noSignalAfterMs: -1 })).toThrow(InvalidArgumentError);
});
