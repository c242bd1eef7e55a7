// Guards: through the handle where there is one, else just the owner's write (R43).
import { expect, test } from 'vitest';
import { withEntityRemove, withEntityWrite } from '../../src-js/entity/guards';

const opts = { runId: 'r' };

test('with a handle, id, opts and apply are forwarded', async () => {
  const calls: unknown[][] = [];
  const handle = {
    mutate: async (...args: unknown[]) => (calls.push(args), { a: 1 }),
    remove: async (...args: unknown[]) => void calls.push(args),
  };
  const write = async () => ({ a: 1 });
  const removal = async () => undefined;
  expect(await withEntityWrite({ handle, id: '1', opts, apply: write })).toBeUndefined();
  expect(await withEntityRemove({ handle, id: '2', opts: undefined, apply: removal })).toBeUndefined();
  expect(calls).toStrictEqual([[{ id: '1', opts, apply: write }], [{ id: '2', opts: undefined, apply: removal }]]);
});

test('without one, only apply runs, and is waited for', async () => {
  const log: string[] = [];
  const apply = async () => {
    await new Promise((resolve) => setImmediate(resolve));
    log.push('applied');
    return { a: 1 };
  };
  expect(await withEntityWrite({ handle: undefined, id: '1', apply })).toBeUndefined();
  expect(await withEntityRemove({ handle: undefined, id: '1', apply: async () => void (await apply()) })).toBeUndefined();
  expect(log).toEqual(['applied', 'applied']);
});

test('what throws comes through as the same object', async () => {
  const thrown = new Error('mine');
  const refuse = () => {
    throw thrown;
  };
  const handle = { mutate: refuse, remove: refuse };
  await expect(withEntityWrite({ handle: undefined, id: '1', apply: refuse })).rejects.toBe(thrown);
  await expect(withEntityRemove({ handle: undefined, id: '1', apply: refuse })).rejects.toBe(thrown);
  await expect(withEntityWrite({ handle, id: '1', apply: async () => ({}) })).rejects.toBe(thrown);
  await expect(withEntityRemove({ handle, id: '1', apply: async () => undefined })).rejects.toBe(thrown);
});
