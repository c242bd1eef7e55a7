// Probing all sessions: one that hangs or fails holds up nobody else, and ticks never overlap (R69).
import { setTimeout as sleep } from 'node:timers/promises';
import { InvalidArgumentError, Reaper, type LifecycleManager, type ReaperOptions, type Runtime, type RuntimeFacts, type SessionRecord } from 'holdfast';
import { afterEach, describe, expect, test } from 'vitest';

import { deferred, logBook, rejection, until } from './support';

const reapers: Reaper[] = [];
afterEach(async () => {
  await Promise.all(reapers.splice(0).map((reaper) => reaper.stop()));
});

const NOW = new Date('2026-05-31T12:00:00.000Z');

function record(id: string, handle = id, runtimeName = 'tmux'): SessionRecord {
  return { id, metadata: { runtimeHandleId: handle, runtimeName } } as SessionRecord;
}

/** A manager that notes what is reported to it. */
function watched(sessions: SessionRecord[], isAlive: Runtime['isAlive'], options: Partial<ReaperOptions> = {}) {
  const calls: string[] = [];
  const { lines, logger } = logBook();
  const lifecycle = {
    fail: {} as Record<string, () => unknown>,
    async tickEscalations(now: Date) {
      calls.push(`tick ${now.toISOString()}`);
      await this.fail.tick?.();
    },
    async runningSessions() {
      calls.push('running');
      await this.fail.running?.();
      return sessions;
    },
    async applyRuntimeObservation(id: string, { runtime, process, observedAt }: RuntimeFacts) {
      calls.push(`${id} ${runtime}/${process} ${(observedAt as Date).toISOString()}`);
      await this.fail[id]?.();
    },
  };
  const runtimes = { tmux: { isAlive } as Runtime };
  const reaper = new Reaper({ lifecycle: lifecycle as unknown as LifecycleManager, runtimes, clock: () => NOW, logger, ...options });
  reapers.push(reaper);
  return { reaper, calls, lines, lifecycle };
}

describe('a tick', () => {
  test('escalates, then reports every session with the same time', async () => {
    const { reaper, calls, lines } = watched([record('a'), record('b'), record('c')], async ({ id }) => {
      if (id === 'c') throw new Error('no socket');
      return id === 'a';
    });
    await reaper.tick();
    const at = NOW.toISOString();
    expect(calls).toEqual([`tick ${at}`, 'running', `a alive/alive ${at}`, `b dead/dead ${at}`, `c failed/failed ${at}`]);
    expect(lines).toEqual(['debug reaper: c: the probe failed: no socket']);
  });

  test('a probe that throws at once, or answers nonsense, has failed', async () => {
    const { reaper, calls } = watched([record('a'), record('b'), record('c')], (({ id }: { id: string }) => {
      if (id === 'a') throw new Error('at once');
      return id === 'b' ? undefined : true;
    }) as never);
    await reaper.tick();
    expect(calls.slice(2).map((call) => call.split(' ')[1])).toEqual(['failed/failed', 'failed/failed', 'alive/alive']);
  });

  test('skips, with a warning, what has no runtime, or one that nobody knows', async () => {
    const { reaper, calls, lines } = watched([record('a', ''), record('b', 'h', ''), record('c', 'h', 'docker'), record('d', 'h', 'toString')], async () => true);
    await reaper.tick();
    expect(calls).toHaveLength(2);
    expect(lines).toEqual([
      'warn reaper: a is not probed: it has no runtime',
      'warn reaper: b is not probed: it has no runtime',
      'warn reaper: c is not probed: no runtime of its name is known',
      'warn reaper: d is not probed: no runtime of its name is known',
    ]);
  });

  test('asks eight at a time, and waits for none that hangs', async () => {
    let open = 0;
    let most = 0;
    const sessions = Array.from({ length: 30 }, (_, index) => record(`s${index}`));
    const { reaper, calls } = watched(
      sessions,
      async ({ id }) => {
        most = Math.max(most, ++open);
        if (Number(id.slice(1)) < 3) await new Promise(() => {});
        await sleep(1);
        open--;
        return true;
      },
      { probeTimeoutMs: 50 },
    );
    const begun = performance.now();
    await reaper.tick();
    expect(performance.now() - begun).toBeLessThan(1000);
    expect(most).toBe(8);
    expect(calls.filter((call) => call.includes('alive/alive'))).toHaveLength(27);
    expect(calls.filter((call) => call.includes('failed/failed'))).toHaveLength(3);
  });

  test('a session whose probes all hang is no longer asked, but still reported', async () => {
    let asked = 0;
    const { reaper, calls } = watched([record('a')], () => (asked++, new Promise(() => {})), { probeTimeoutMs: 5 });
    for (let i = 0; i < 7; i++) await reaper.tick();
    expect(asked).toBe(4);
    expect(calls.filter((call) => call.includes('failed/failed'))).toHaveLength(7);
  });

  test('reports go on when a report, or an escalation, fails or hangs', async () => {
    const { reaper, calls, lines, lifecycle } = watched([record('a'), record('b'), record('c')], async () => true, { probeTimeoutMs: 20, concurrency: 1 });
    lifecycle.fail.tick = () => new Promise(() => {});
    lifecycle.fail.a = () => Promise.reject(new Error('port'));
    lifecycle.fail.b = () => new Promise(() => {});
    await reaper.tick();
    expect(calls.filter((call) => call.includes('alive'))).toHaveLength(3);
    expect(lines).toEqual(['error reaper: a: an error of a port', 'debug reaper: a: port', 'warn reaper: b: a port takes its time with a message']);
    await reaper.tick();
    // The escalations of the first tick still hang.
    expect(calls.filter((call) => call.startsWith('tick'))).toHaveLength(1);
  });

  test('rejects when the sessions cannot be read; a failed escalation is logged', async () => {
    const { reaper, lines, lifecycle } = watched([], async () => true);
    lifecycle.fail.tick = () => Promise.reject(new Error('tick'));
    lifecycle.fail.running = () => Promise.reject(new Error('disk'));
    expect((await rejection(reaper.tick())).message).toBe('disk');
    expect(lines).toEqual(['error reaper: escalations: an error of a port', 'debug reaper: escalations: tick']);
  });

  test('another one at the same time joins it', async () => {
    const gate = deferred();
    const { reaper, calls, lifecycle } = watched([], async () => true);
    lifecycle.fail.running = () => gate.promise;
    const both = [reaper.tick(), reaper.tick()];
    await sleep(1);
    gate.resolve();
    await Promise.all(both);
    expect(calls.filter((call) => call === 'running')).toHaveLength(1);
    await reaper.tick();
    expect(calls.filter((call) => call === 'running')).toHaveLength(2);
  });
});

describe('start', () => {
  test('looks for the first time after one interval, then again and again, and never twice at a time', async () => {
    let open = 0;
    let most = 0;
    const { reaper, calls, lifecycle } = watched([record('a')], async () => true, { intervalMs: 40 });
    lifecycle.fail.running = async () => {
      most = Math.max(most, ++open);
      await sleep(70);
      open--;
    };
    reaper.start();
    reaper.start();
    await sleep(20);
    expect(calls).toEqual([]);
    await until(() => calls.filter((call) => call.startsWith('a ')).length === 3);
    expect(most).toBe(1);
    await reaper.stop();
    const seen = calls.length;
    await sleep(100);
    expect(calls).toHaveLength(seen);
  });

  test('goes on after a failure, which it logs', async () => {
    const { reaper, calls, lines, lifecycle } = watched([record('a')], async () => true, { intervalMs: 5 });
    lifecycle.fail.running = async () => {
      lifecycle.fail.running = () => {};
      throw new Error('disk');
    };
    reaper.start();
    await until(() => calls.some((call) => call.startsWith('a ')));
    expect(lines).toEqual(['error reaper: disk']);
  });

  test('stop() does not wait for a probe that hangs, whose session is not reported then', async () => {
    const { reaper, calls } = watched([record('a')], () => new Promise(() => {}), { intervalMs: 5 });
    reaper.start();
    await until(() => calls.includes('running'));
    await sleep(5);
    const begun = performance.now();
    await reaper.stop();
    expect(performance.now() - begun).toBeLessThan(500);
    expect(calls).toHaveLength(2);
  });
});

test('bad options are refused', () => {
  const good = { lifecycle: { tickEscalations() {}, runningSessions() {}, applyRuntimeObservation() {} }, runtimes: {} };
  for (const bad of [{ lifecycle: {} }, { runtimes: null }, { runtimes: { tmux: {} } }, { intervalMs: 0 }, { probeTimeoutMs: -1 }, { concurrency: 0.5 }, { clock: 5 }]) {
    expect(() => new Reaper({ ...good, ...bad } as never), JSON.stringify(bad)).toThrow(InvalidArgumentError);
  }
});
