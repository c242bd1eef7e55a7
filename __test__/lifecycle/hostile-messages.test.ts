// Every misbehaviour of what tells agents and people, and of probes: the transition is stored, the message is told once in the end, nothing
// hangs but the call itself, and close() ends that too.
import { Reaper } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { MEMORY, hostileWorld, soon, soundness, type HostileWorld } from './hostile';
import { BACKENDS, rejection, until } from './support';

interface Way {
  name: string;
  port: 'messenger.send' | 'notifier.notify';
  run(w: HostileWorld): Promise<void>;
  reaction: string;
  state: string;
}

const WAYS: Way[] = [
  { name: 'an activity signal', port: 'notifier.notify', run: (w) => w.lifecycle.applyActivitySignal('mer-1', { valid: true, state: 'waiting_input' }), reaction: 'agent-needs-input', state: 'needs_input' },
  { name: 'an activity signal', port: 'messenger.send', run: (w) => w.lifecycle.applyActivitySignal('mer-1', { valid: true, state: 'idle' }), reaction: 'agent-idle', state: 'idle' },
  { name: 'a probe', port: 'notifier.notify', run: (w) => w.lifecycle.applyRuntimeObservation('mer-1', { runtime: 'dead', process: 'dead' }), reaction: 'agent-exited', state: 'terminated' },
  {
    name: 'a pull request',
    port: 'messenger.send',
    run: (w) => w.lifecycle.applyPrObservation('mer-1', { fetched: true, url: 'u', number: 1, ci: 'failing', checks: [{ name: 'unit', commitHash: 'c', status: 'failed' }] }),
    reaction: 'ci-failed',
    state: 'not_started',
  },
  { name: 'a merge', port: 'notifier.notify', run: (w) => w.lifecycle.applyPrObservation('mer-1', { fetched: true, url: 'u', number: 1, merged: true }), reaction: 'pr-merged', state: 'terminated' },
  {
    name: 'a tick',
    port: 'notifier.notify',
    run: async (w) => {
      await w.lifecycle.applyActivitySignal('mer-1', { valid: true, state: 'idle' });
      w.clock.add(15 * 60_000);
      await w.lifecycle.tickEscalations();
    },
    reaction: 'agent-idle',
    state: 'idle',
  },
];

const begin = async (place = MEMORY) => {
  const w = await hostileWorld(place);
  await w.sessions.spawn({ projectId: 'mer' });
  w.calls.length = 0;
  return w;
};
const told = (w: HostileWorld, port: string): number => w.calls.filter((call) => call.port === port).length;

describe.each(WAYS)('$port, after $name', ({ port, run, reaction, state }) => {
  test.each([
    { what: 'throws at once', instead: () => { throw new Error('down'); } },
    { what: 'rejects', instead: () => Promise.reject(new Error('down')) },
    { what: 'rejects with nothing', instead: () => Promise.reject(undefined) },
    { what: 'throws null', instead: () => { throw null; } },
    { what: 'is a thenable that throws', instead: () => ({ then() { throw new Error('down'); } }) },
  ])('$what: it is told by the next tick, once', async ({ instead }) => {
    const w = await begin();
    w.instead[port] = instead;
    const error = await soon(rejection(run(w)), 'the call');
    expect(error).toMatchObject({ name: 'ReactionDeliveryError', hfCode: 'HF_LIFECYCLE_REACTION_DELIVERY_FAILED', failures: [expect.objectContaining({ sessionId: 'mer-1', reaction })] });
    expect(error.message).toMatch(new RegExp(`^deliver ${reaction} for mer-1: `));
    expect((await w.store.getSession('mer-1'))!.lifecycle.state).toBe(state);
    expect(await soundness(w.store)).toEqual([]);
    delete w.instead[port];
    w.calls.length = 0;
    await w.lifecycle.tickEscalations();
    expect(told(w, port)).toBe(1);
    await w.lifecycle.tickEscalations();
    expect(told(w, port)).toBe(1);
  });

  test.each([undefined, 5, null, {}, 'x'])('returns %o instead of a promise: it counts as told', async (value) => {
    const w = await begin();
    w.instead[port] = () => value;
    await soon(run(w), 'the call');
    expect(told(w, port)).toBe(1);
    await w.lifecycle.tickEscalations();
    expect(told(w, port)).toBe(1);
  });

  test('never settles: nobody else waits, nothing is told twice, close() ends it', async () => {
    const w = await begin();
    await w.sessions.spawn({ projectId: 'mer' });
    w.instead[port] = () => new Promise(() => {});
    const hanging = rejection(run(w));
    await until(() => told(w, port) === 1);
    // The same store, the same session, another one.
    await soon(w.sessions.list('mer'), 'list');
    await soon(w.lifecycle.tickEscalations(), 'a tick beside it');
    await soon(w.lifecycle.applyActivitySignal('mer-2', { valid: true, state: 'active' }), 'another session');
    w.clock.add(31_000);
    await soon(w.lifecycle.tickEscalations(), 'a tick after the lease');
    expect(told(w, port)).toBe(1);
    expect(await soon(w.sessions.kill('mer-1'), 'kill')).toBe(true);
    await soon(w.store.close(), 'close()');
    expect(await soon(hanging, 'the call')).toMatchObject({ hfCode: 'HF_CLOSED' });
  });

  test('ends, observes and lists the same session meanwhile', async () => {
    const w = await begin();
    let inside = '';
    w.instead[port] = async () => {
      delete w.instead[port];
      await w.lifecycle.applyActivitySignal('mer-1', { valid: true, state: 'active' });
      await w.lifecycle.applyRuntimeObservation('mer-1', { runtime: 'alive', process: 'alive' });
      await w.lifecycle.tickEscalations();
      await w.sessions.list('mer');
      inside = String(await w.sessions.kill('mer-1'));
    };
    await soon(run(w), 'the call');
    expect(inside).toBe('true');
    expect((await w.store.getSession('mer-1'))!.lifecycle).toMatchObject({ state: 'terminated', isAlive: false });
    expect(await soundness(w.store)).toEqual([]);
    // Whatever was still to be said of a session that was ended by hand is dropped, terminal notices apart.
    w.calls.length = 0;
    w.clock.add(60_000);
    await w.lifecycle.tickEscalations();
    expect(w.calls).toEqual([]);
  });

  test('deletes the session meanwhile: what it was about is gone, and nobody is told again', async () => {
    const w = await begin();
    w.instead[port] = async () => {
      delete w.instead[port];
      await w.store.deleteSession('mer-1');
    };
    await soon(run(w), 'the call');
    expect(await w.store.listAllSessions()).toEqual([]);
    w.clock.add(60_000);
    await w.lifecycle.tickEscalations();
    expect(told(w, port)).toBe(1);
    expect(await w.store.check()).toEqual({ sound: true, problems: [] });
  });

  test('calls itself: the same observation from inside is answered at once', async () => {
    const w = await begin();
    let depth = 0;
    w.instead[port] = async () => {
      if (++depth < 50) await run(w);
    };
    await soon(run(w), 'the call');
    expect(depth).toBeLessThan(3);
  });
});

describe('messages for many', () => {
  test('one that fails keeps none of the others: they are told, and the failures are named', async () => {
    const w = await hostileWorld(MEMORY);
    for (let n = 0; n < 20; n++) {
      await w.sessions.spawn({ projectId: 'mer' });
      await w.lifecycle.applyActivitySignal(`mer-${n + 1}`, { valid: true, state: 'idle' });
    }
    w.clock.add(15 * 60_000);
    w.calls.length = 0;
    w.instead['notifier.notify'] = ({ sessionId }) => {
      if (Number(sessionId.slice(4)) % 5 === 0) throw new Error(`no ${sessionId}`);
    };
    const error = await rejection(w.lifecycle.tickEscalations());
    expect(error.failures.map((failure: { sessionId: string }) => failure.sessionId).sort()).toEqual(['mer-10', 'mer-15', 'mer-20', 'mer-5']);
    expect(told(w, 'notifier.notify')).toBe(20);
    delete w.instead['notifier.notify'];
    w.calls.length = 0;
    await w.lifecycle.tickEscalations();
    expect(w.calls.map(({ args }) => args[0].sessionId).sort()).toEqual(['mer-10', 'mer-15', 'mer-20', 'mer-5']);
  });

  test('10,000 calls at once, of which every port hangs, end with close()', async () => {
    const w = await hostileWorld(MEMORY);
    for (let n = 0; n < 10; n++) await w.sessions.spawn({ projectId: 'mer' });
    for (const port of ['messenger.send', 'notifier.notify', 'runtime.destroy'] as const) w.instead[port] = () => new Promise(() => {});
    const states = ['active', 'idle', 'waiting_input', 'blocked'] as const;
    const outcomes = Array.from({ length: 10_000 }, (_, n) => {
      const id = `mer-${(n % 10) + 1}`;
      const run = n % 4 === 3 ? w.sessions.send(id, 'x') : w.lifecycle.applyActivitySignal(id, { valid: true, state: states[n % 4]! });
      return run.then(() => 'done', (error) => error.hfCode ?? error.message);
    });
    await until(() => told(w, 'messenger.send') >= 2500, 20_000);
    await soon(w.store.close(), 'close()', 10_000);
    const counted = new Set(await soon(Promise.all(outcomes), 'the calls', 10_000));
    expect([...counted].sort()).toEqual(['HF_CLOSED', 'done']);
  });
});

describe.each(BACKENDS)('probes on $name', ({ make }) => {
  const PROBES: { what: string; instead: () => unknown; status: string }[] = [
    { what: 'throw at once', instead: () => { throw new Error('no socket'); }, status: 'detecting' },
    { what: 'reject with nothing', instead: () => Promise.reject(undefined), status: 'detecting' },
    { what: 'answer with nonsense', instead: () => Promise.resolve('yes'), status: 'detecting' },
    { what: 'answer with undefined', instead: () => undefined, status: 'detecting' },
    { what: 'answer with null, which is no "false"', instead: () => null, status: 'detecting' },
    { what: 'never settle', instead: () => new Promise(() => {}), status: 'detecting' },
    { what: 'answer without a promise', instead: () => true, status: 'working' },
    { what: 'say that it is dead', instead: () => false, status: 'killed' },
  ];
  test('that misbehave are never read as death', async () => {
    const place = await make();
    for (const { what, instead, status } of PROBES) {
      const w = await hostileWorld(place);
      const { id } = await w.sessions.spawn({ projectId: 'mer' });
      await w.lifecycle.applyActivitySignal(id, { valid: true, state: 'active' });
      w.clock.add(61_000);
      w.instead['runtime.isAlive'] = instead;
      const reaper = new Reaper({ lifecycle: w.lifecycle, runtimes: { tmux: w.runtime }, probeTimeoutMs: 30, clock: w.clock.read });
      await soon(reaper.tick(), `a tick over probes that ${what}`);
      expect((await w.sessions.get(id)).status, what).toBe(status);
      if (status !== 'killed') await w.sessions.kill(id);
      await w.store.close();
    }
  });

  test('that kill and list their session from inside hold nobody up', async () => {
    const w = await hostileWorld(await make());
    await w.sessions.spawn({ projectId: 'mer' });
    w.instead['runtime.isAlive'] = async ({ id }) => {
      const sessionId = id.slice(2);
      await w.sessions.list('mer');
      await w.sessions.kill(sessionId);
      return true;
    };
    const reaper = new Reaper({ lifecycle: w.lifecycle, runtimes: { tmux: w.runtime }, clock: w.clock.read });
    await soon(reaper.tick(), 'a tick');
    // The probe's "alive" comes after the end, and changes nothing.
    expect(await w.sessions.get('mer-1')).toMatchObject({ status: 'killed', lifecycle: { isAlive: false } });
    expect(await soundness(w.store)).toEqual([]);
  });
});
