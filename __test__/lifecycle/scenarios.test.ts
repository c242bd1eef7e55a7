// The five scenarios that a host lives through, on every back end (checks 1 to 5).
import { Broadcaster, CdcPoller, type PrObservation } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { BACKENDS, typesOf, world } from './support';

const URL = 'https://x/pull/1';
const failing = (commitHash: string): PrObservation => ({
  fetched: true,
  url: URL,
  number: 1,
  ci: 'failing',
  checks: [{ name: 'build', commitHash, status: 'failed', logTail: 'panic: nil map' }],
});

describe.each(BACKENDS)('on $name', ({ make }) => {
  test('1: spawn, pull request, kill', async () => {
    const { sessions, lifecycle, store } = await world(await make());
    const session = await sessions.spawn({ projectId: 'mer', prompt: 'ship it' });
    expect(session.id).toBe('mer-1');
    expect(session.status).toBe('spawning');
    expect(session.lifecycle).toMatchObject({ state: 'not_started', isAlive: true, terminationReason: '', detecting: null });
    expect(session.metadata).toEqual({ branch: 'b', workspacePath: '/w/mer-1', runtimeHandleId: 'h1', runtimeName: 'tmux', agentSessionId: '', prompt: 'ship it' });
    await lifecycle.applyPrObservation(session.id, {
      fetched: true,
      url: URL,
      number: 1,
      ci: 'passing',
      mergeability: 'mergeable',
      checks: [{ name: 'build', commitHash: 'c1', status: 'passed' }],
    });
    expect(await store.getPr(URL)).toMatchObject({ sessionId: 'mer-1', number: 1, state: 'open', ciState: 'passing', mergeability: 'mergeable' });
    expect(await sessions.kill(session.id)).toBe(true);
    expect(await sessions.get(session.id)).toMatchObject({
      status: 'killed',
      lifecycle: { state: 'terminated', terminationReason: 'manually_killed', isAlive: false },
    });
    const types = await typesOf(store);
    expect(types[0]).toBe('session_created');
    for (const type of ['session_updated', 'pr_created', 'pr_check_recorded']) expect(types).toContain(type);
  });

  test('2: restore after a restart', async () => {
    const place = await make();
    const first = await world(place);
    const { id } = await first.sessions.spawn({ projectId: 'mer', prompt: 'ship it', branch: 'feat' });
    await first.store.patchSessionMetadata(id, { agentSessionId: 'agent-xyz' });
    await first.sessions.kill(id);
    await first.store.close();

    const second = await world(place);
    expect((await second.sessions.get(id)).status).toBe('killed');
    const restored = await second.sessions.restore(id);
    expect(second.configs.map(({ launchCommand }) => launchCommand)).toEqual(['resume agent-xyz']);
    expect(restored).toMatchObject({ status: 'spawning', lifecycle: { isAlive: true, state: 'not_started', terminationReason: '' } });
    expect(restored.metadata).toMatchObject({ agentSessionId: 'agent-xyz', branch: 'feat', prompt: 'ship it', runtimeHandleId: 'h1' });
    expect(second.calls).not.toContain('workspace.create mer-1');
  });

  test('3: CI fails, then recovers', async () => {
    const { sessions, lifecycle, store, sent, notified } = await world(await make());
    const { id } = await sessions.spawn({ projectId: 'mer' });
    await lifecycle.applyPrObservation(id, failing('c1'));
    expect(sent).toHaveLength(1);
    expect(sent[0]!.message).toBe('CI is failing on your PR. Review the output below and push a fix.\n\nFailing output:\npanic: nil map');
    expect(await store.recentCheckStatuses(URL, 'build', 3)).toEqual(['failed']);
    expect((await sessions.get(id)).status).toBe('spawning');
    await lifecycle.applyPrObservation(id, {
      fetched: true,
      url: URL,
      number: 1,
      ci: 'passing',
      mergeability: 'mergeable',
      checks: [{ name: 'build', commitHash: 'c2', status: 'passed' }],
    });
    expect(sent).toHaveLength(1);
    expect(notified.map(({ type }) => type)).toEqual(['reaction.approved-and-green']);
    expect((await store.getPr(URL))!.ciState).toBe('passing');
  });

  test('4: a quarantine survives a restart', async () => {
    const place = await make();
    const first = await world(place);
    const { id } = await first.sessions.spawn({ projectId: 'mer' });
    await first.lifecycle.applyActivitySignal(id, { valid: true, state: 'active', source: 'hook' });
    await first.lifecycle.applyRuntimeObservation(id, { runtime: 'failed', process: 'failed' });
    const { detecting, state } = (await first.store.getSession(id))!.lifecycle;
    expect(state).toBe('detecting');
    expect(detecting).toMatchObject({ attempts: 1, evidenceHash: expect.stringMatching(/^[0-9a-f]{64}$/) });
    expect(detecting!.startedAt).toBeInstanceOf(Date);
    await first.store.close();

    const second = await world(place);
    expect((await second.store.getSession(id))!.lifecycle.detecting).toEqual(detecting);
    await second.lifecycle.applyRuntimeObservation(id, { runtime: 'alive', process: 'alive' });
    expect((await second.store.getSession(id))!.lifecycle).toMatchObject({ state: 'working', detecting: null, isAlive: true });
  });

  test('5: a poller sees all stages', async () => {
    const { sessions, lifecycle, store } = await world(await make());
    const broadcaster = new Broadcaster();
    const poller = new CdcPoller(store, broadcaster);
    const { id } = await sessions.spawn({ projectId: 'mer' });
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'active' });
    await lifecycle.applyPrObservation(id, { fetched: true, url: URL, number: 1 });
    const seen: { seq: number; type: string }[] = [];
    broadcaster.subscribe((event) => void seen.push(event));
    expect(await poller.poll()).toBe(seen.length);
    const types = seen.map(({ type }) => type);
    for (const type of ['session_created', 'session_updated', 'pr_created']) expect(types).toContain(type);
    const seqs = seen.map(({ seq }) => seq);
    expect(seqs).toEqual([...new Set(seqs)].sort((a, b) => a - b));
    expect(poller.lastSeq).toBe(await store.maxChangeLogSeq());
    expect(await poller.poll()).toBe(0);
  });
});
