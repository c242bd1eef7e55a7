// Messages: at least once, after the commit, never into a session that cannot take them (check 21, R51, F7).
import { ReactionDeliveryError } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { BACKENDS, deferred, rejection, until, world, type Place } from './support';

const URL = 'https://x/pull/1';

/** A world with a running session whose agent has been heard. */
async function active(place: Place, options?: Parameters<typeof world>[1]) {
  const all = await world(place, options);
  const { id } = await all.sessions.spawn({ projectId: 'mer' });
  await all.lifecycle.applyActivitySignal(id, { valid: true, state: 'active' });
  return { ...all, id };
}

const failing = (commitHash: string) => ({
  fetched: true,
  url: URL,
  number: 1,
  ci: 'failing' as const,
  checks: [{ name: 'build', commitHash, status: 'failed' as const, logTail: 'tail' }],
});

describe.each(BACKENDS)('on $name', ({ make }) => {
  test('21: a notifier that rejects once: the state is stored, the next tick tells, once', async () => {
    const { lifecycle, sessions, id, fail, notified } = await active(await make());
    const cause = new Error('no network');
    fail['notifier.notify'] = () => Promise.reject(cause);
    const error = await rejection(lifecycle.applyActivitySignal(id, { valid: true, state: 'waiting_input' }));
    expect(error).toBeInstanceOf(ReactionDeliveryError);
    expect(error).toMatchObject({
      message: `deliver agent-needs-input for ${id}: no network`,
      hfCode: 'HF_LIFECYCLE_REACTION_DELIVERY_FAILED',
      sessionId: id,
      failures: [{ sessionId: id, reaction: 'agent-needs-input', to: 'human', cause }],
    });
    expect(error.cause).toBe(cause);
    expect((await sessions.get(id)).status).toBe('needs_input');
    delete fail['notifier.notify'];
    await lifecycle.tickEscalations();
    await lifecycle.tickEscalations();
    expect(notified).toEqual([{ type: 'reaction.agent-needs-input', priority: 'urgent', sessionId: id, projectId: 'mer', message: 'Agent needs input to continue.' }]);
  });

  test('what could not be told survives a restart', async () => {
    const place = await make();
    const first = await active(place);
    first.fail['notifier.notify'] = () => Promise.reject(new Error('no network'));
    await rejection(first.lifecycle.applyRuntimeObservation(first.id, { runtime: 'dead', process: 'dead', observedAt: first.clock.add(120_000) }));
    await first.store.close();
    const second = await world(place);
    await second.lifecycle.tickEscalations();
    expect(second.notified.map(({ type }) => type)).toEqual(['reaction.agent-exited']);
  });

  test('one session whose messenger hangs holds up neither another one nor other calls', async () => {
    const { lifecycle, sessions, id, fail, sent, calls, clock } = await active(await make());
    const other = await sessions.spawn({ projectId: 'mer' });
    const gate = deferred();
    fail['messenger.send'] = async (sessionId: string, message: string) => {
      if (sessionId === id) await gate.promise;
      sent.push({ sessionId, message });
    };
    const hanging = lifecycle.applyPrObservation(id, failing('c1'));
    await until(() => calls.includes(`messenger.send ${id}`));
    await lifecycle.applyPrObservation(other.id, { ...failing('c1'), url: 'https://x/pull/2' });
    expect(sent.map(({ sessionId }) => sessionId)).toEqual([other.id]);
    // A tick does not say again what is on its way, even when it is handed out again; and once it is there, nobody does.
    clock.add(60_000);
    await lifecycle.tickEscalations();
    expect(calls.filter((call) => call === `messenger.send ${id}`)).toHaveLength(1);
    gate.resolve();
    await hanging;
    clock.add(60_000);
    await lifecycle.tickEscalations();
    expect(sent).toHaveLength(2);
  });

  test('a notifier that kills the session it is told of does not deadlock', async () => {
    const { lifecycle, sessions, id, fail, calls } = await active(await make());
    fail['notifier.notify'] = () => sessions.kill(id);
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'blocked' });
    expect((await sessions.get(id)).status).toBe('killed');
    expect(calls).toContain('workspace.destroy /w/mer-1');
  });

  test('F7: nothing is typed into a shell that the agent has left; it waits until that is over', async () => {
    const { lifecycle, id, sent, clock } = await active(await make());
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'exited', timestamp: clock.add(1000) });
    await lifecycle.applyPrObservation(id, failing('c1'));
    await lifecycle.tickEscalations();
    expect(sent).toEqual([]);
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'active', timestamp: clock.add(1000) });
    await lifecycle.tickEscalations();
    expect(sent).toHaveLength(1);
  });

  test('F7: can be switched off', async () => {
    const { lifecycle, id, sent, clock } = await active(await make(), { guardMessages: false });
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'exited', timestamp: clock.add(1000) });
    await lifecycle.applyPrObservation(id, failing('c1'));
    expect(sent).toHaveLength(1);
  });

  test('a missing port counts as told', async () => {
    const { lifecycle, id, store, notified } = await active(await make(), { messenger: undefined, notifier: undefined });
    await lifecycle.applyPrObservation(id, failing('c1'));
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'waiting_input' });
    await lifecycle.tickEscalations();
    expect(notified).toEqual([]);
    expect((await store.getSession(id))!.lifecycle.state).toBe('needs_input');
  });

  test('a policy switches reactions off and changes their texts', async () => {
    const { lifecycle, id, sent, notified } = await active(await make(), { policy: { off: ['agent-stuck'], messages: { 'agent-idle': 'Go on.' } } });
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'blocked' });
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'idle' });
    expect(notified).toEqual([]);
    expect(sent.map(({ message }) => message)).toEqual(['Go on.']);
  });
});
