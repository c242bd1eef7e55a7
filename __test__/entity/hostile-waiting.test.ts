// @pool forks @runtime node: it waits long, for stores and not for JavaScript.
// Stores that are closed while an owner keeps them waiting: they wait for it, but not for ever.
import { setTimeout as sleep } from 'node:timers/promises';

import { getEntityFailure } from 'holdfast';
import { expect, test } from 'vitest';

import { OWN, rowsOf } from './every-store';
import { deferred, rejection, world, type State } from './support';

const ANY = { '~standard': { version: 1 as const, vendor: 'test', validate: (value: unknown) => ({ value: value as State }) } };

/** Runs a test over every store at once: each waits five seconds. */
function onEvery(name: string, run: (make: (typeof OWN)[number]['make']) => Promise<void>): void {
  test(name, async () => {
    await Promise.all(OWN.map(({ make }) => run(make)));
  });
}

onEvery('a read that never settles holds up its entity alone, and not the end of the store', async (make) => {
  const { store } = await make();
  const { registry } = world({ store });
  const read = (ids: ReadonlyArray<string>): Promise<Record<string, State>> => (ids[0] === 'stuck' ? new Promise(() => {}) : Promise.resolve({}));
  const handle = registry.defineEntity<State>({ kind: 'k', state: ANY, read });
  const stuck = handle.mutate({ id: 'stuck', apply: async () => ({ a: 1 }) });
  const behind = handle.remove({ id: 'stuck', apply: async () => {} });
  expect(await handle.mutate({ id: 'free', apply: async () => ({ a: 1 }) })).toEqual({ a: 1 });
  expect(await Promise.race([stuck, behind, sleep(30, 'wait')])).toBe('wait');
  // It may be about to write: the store waits for it, but not for ever.
  expect(await Promise.race([store.close(), sleep(20_000, 'hangs')])).toBeUndefined();
});

onEvery('closed while an apply runs: close waits for it, but not for ever, and what it did then is completed by whoever opens the store again', async (make) => {
  const { store, reopen } = await make();
  const { handle, owner } = world({ store });
  const [inside, gate] = [deferred(), deferred()];
  const running = rejection(
    handle.mutate({
      id: '1',
      apply: async () => {
        inside.resolve();
        await gate.promise;
        owner.set('1', { n: 1 });
        return { n: 1 };
      },
    }),
  );
  await inside.promise;
  expect(await Promise.race([store.close(), sleep(20_000, 'hangs')])).toBeUndefined();
  gate.resolve();
  const error = await running;
  expect(error).toMatchObject({ hfCode: 'HF_CLOSED' });
  expect(getEntityFailure(error)).toMatchObject({ stage: 'append', applied: true });
  if (reopen === null) return;
  const later = reopen();
  const after = world({ store: later });
  after.owner.set('1', { n: 1 });
  await later.ready();
  expect((await rowsOf(later, '1')).map(({ toValue }) => toValue)).toEqual(['1']);
  expect(after.events.map(({ next }) => next)).toEqual([{ n: 1 }]);
});
