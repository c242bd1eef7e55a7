// Several pull requests of one session: the worst counts, stacked ones wait, and a session may have its own way to end (F5).
import { InvalidArgumentError, SessionNotFoundError, type PrObservation } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { BACKENDS, rejection, world, type Place } from './support';

/** A world with a running session whose agent has been heard; `look` is a look at a pull request, a minute later. */
async function active(place: Place, options?: Parameters<typeof world>[1]) {
  const all = await world(place, options);
  const { id } = await all.sessions.spawn({ projectId: 'mer' });
  await all.lifecycle.applyActivitySignal(id, { valid: true, state: 'active' });
  const look = async (url: string, seen: Partial<PrObservation> = {}, session = id) => {
    all.clock.add(60_000);
    await all.lifecycle.applyPrObservation(session, { fetched: true, url, number: Number(url.slice(-1)), ...seen });
  };
  const status = async () => {
    const { status: one } = await all.sessions.get(id);
    expect((await all.sessions.list('mer')).find((session) => session.id === id)?.status).toBe(one);
    return one;
  };
  const news = () => [...all.sent.splice(0), ...all.notified.splice(0)].map(({ message }) => message);
  return { ...all, id, look, status, news };
}

const failing = (commitHash: string): Partial<PrObservation> => ({ ci: 'failing', checks: [{ name: 'build', commitHash, status: 'failed', logTail: `log ${commitHash}` }] });
const green: Partial<PrObservation> = { ci: 'passing', mergeability: 'mergeable' };
const [ONE, TWO] = ['https://x/pull/1', 'https://x/pull/2'];

describe.each(BACKENDS)('on $name', ({ make }) => {
  test('the newest counts, or the worst: as the manager wants, or the project', async () => {
    const { store, id, look, status, news } = await active(await make());
    await look(ONE, failing('a1'));
    await look(TWO, green);
    expect(await status()).toBe('mergeable');
    expect(news()).toHaveLength(2);
    await store.setReactionPolicy('mer', { severalPrs: 'worst' });
    expect(await status()).toBe('ci_failed');
    expect(await store.prFactsForSession(id)).toMatchObject({ url: ONE, ci: 'failing' });
    await store.setReactionPolicy('mer', { severalPrs: 'newest' });
    expect(await status()).toBe('mergeable');

    const other = await active(await make(), { policy: { severalPrs: 'worst' } });
    await other.look(ONE, failing('a1'));
    await other.look(TWO, green);
    expect(await other.status()).toBe('ci_failed');
    expect(other.news()).toHaveLength(1);
    await other.look(ONE, green);
    expect(await other.status()).toBe('mergeable');
    expect(other.news()).toEqual(['PR is approved and green — ready to merge.']);
    await other.store.setReactionPolicy('mer', { severalPrs: 'newest' });
    await other.look(ONE, failing('a2'));
    await other.look(TWO, { ...green, mergeability: 'unstable' });
    expect(await other.status()).toBe('pr_open');
  });

  test('two that are looked at in turn are told once each', async () => {
    const { look, news } = await active(await make(), { policy: { severalPrs: 'worst' } });
    for (const mergeability of ['unknown', 'blocked', 'unknown', 'conflicting', 'blocked'] as const) {
      await look(ONE, { ...failing('a1'), mergeability });
      await look(TWO, { ...failing('b1'), mergeability });
    }
    expect(news()).toEqual([
      'CI is failing on your PR. Review the output below and push a fix.\n\nFailing output:\nlog a1',
      `CI is failing on your PR. Review the output below and push a fix.\n\nPull request: ${TWO}\n\nFailing output:\nlog b1`,
    ]);
  });

  test('what was told is known after a restart, and a pull request that moves is news where it goes', async () => {
    const place = await make();
    const first = await active(place, { policy: { severalPrs: 'worst' } });
    await first.look(ONE, failing('a1'));
    await first.look(TWO, failing('b1'));
    await first.store.close();
    const { lifecycle, sessions, sent } = await world(place, { policy: { severalPrs: 'worst' } });
    for (const [url, commit] of [[ONE, 'a1'], [TWO, 'b1']] as const) {
      await lifecycle.applyPrObservation(first.id, { fetched: true, url, number: 1, ...failing(commit) });
    }
    expect(sent).toEqual([]);
    const { id } = await sessions.spawn({ projectId: 'mer' });
    await lifecycle.applyPrObservation(id, { fetched: true, url: TWO, number: 2, ...failing('b1') });
    expect(sent.map(({ sessionId }) => sessionId)).toEqual([id]);
    await lifecycle.applyPrObservation(first.id, { fetched: true, url: ONE, number: 1, ...failing('a1') });
    expect(sent).toHaveLength(1);
  });

  test('a stacked one is not told of its conflicts before its parent is merged', async () => {
    const { store, id, look, news } = await active(await make(), { policy: { mergeEnds: 'last' } });
    const parent = { headBranch: 'one', baseBranch: 'main' };
    const child: Partial<PrObservation> = { headBranch: 'two', baseBranch: 'one', mergeability: 'conflicting' };
    await look(ONE, parent);
    await look(TWO, child);
    expect(news()).toEqual([]);
    expect(await store.prFactsForSession(id)).toMatchObject({ url: TWO, stacked: true });
    expect(await store.getPr(TWO)).toMatchObject({ headBranch: 'two', baseBranch: 'one' });
    const events = await store.maxChangeLogSeq();
    await look(TWO, { ...child, headBranch: 'renamed' });
    expect(await store.maxChangeLogSeq()).toBe(events);
    await look(ONE, { ...parent, merged: true });
    await look(TWO, child);
    expect(news()).toEqual(['Your PR has merge conflicts. Rebase onto the base branch and resolve them.']);
    expect(await store.prFactsForSession(id)).not.toHaveProperty('stacked');
    // What is left out is unknown.
    await store.upsertPr({ url: TWO, sessionId: id });
    expect(await store.getPr(TWO)).toMatchObject({ headBranch: '', baseBranch: '' });
  });

  test('two that go to each other wait for nobody', async () => {
    const { look, news } = await active(await make(), { policy: { severalPrs: 'worst' } });
    await look(ONE, { headBranch: 'a', baseBranch: 'b' });
    await look(TWO, { headBranch: 'b', baseBranch: 'a', mergeability: 'conflicting' });
    expect(news()).toEqual([`Your PR has merge conflicts. Rebase onto the base branch and resolve them.\n\nPull request: ${TWO}`]);
  });

  test('a session may have its own way to end, from its spawn on or later', async () => {
    const place = await make();
    const { store, sessions, look, id } = await active(place);
    const [never, last] = [await sessions.spawn({ projectId: 'mer', mergeEnds: 'never' }), await sessions.spawn({ projectId: 'mer' })];
    await store.setMergeEnds(last.id, 'last');
    expect([await store.mergeEnds(id), await store.mergeEnds(never.id), await store.mergeEnds(last.id)]).toEqual([null, 'never', 'last']);
    expect(await store.getSession(last.id)).toEqual({ ...last, status: undefined });
    for (const { id: each } of [{ id }, never, last]) {
      await look(`https://x/${each}/2`, {}, each);
      await look(`https://x/${each}/1`, { merged: true }, each);
    }
    const states = async () => (await store.listSessions('mer')).map(({ lifecycle }) => lifecycle.state);
    expect(await states()).toEqual(['terminated', 'not_started', 'not_started']);
    for (const { id: each } of [never, last]) await look(`https://x/${each}/2`, { merged: true }, each);
    expect(await states()).toEqual(['terminated', 'not_started', 'terminated']);
    await store.setMergeEnds(never.id, null);
    await look(`https://x/${never.id}/2`, { merged: true }, never.id);
    expect(await states()).toEqual(['terminated', 'terminated', 'terminated']);
  });

  test('what cannot be is refused', async () => {
    const { store, sessions } = await active(await make());
    expect(await rejection(store.setMergeEnds('mer-9', 'any'))).toBeInstanceOf(SessionNotFoundError);
    expect(await store.mergeEnds('mer-9')).toBeNull();
    expect(await rejection(store.setMergeEnds('mer-1', 'soon' as never))).toBeInstanceOf(InvalidArgumentError);
    expect(await rejection(sessions.spawn({ projectId: 'mer', mergeEnds: 'soon' as never }))).toBeInstanceOf(InvalidArgumentError);
    expect(await rejection(store.setReactionPolicy('mer', { severalPrs: 'all' as never }))).toBeInstanceOf(InvalidArgumentError);
    expect(await sessions.list('mer')).toHaveLength(1);
  });
});
