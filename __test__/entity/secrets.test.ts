// Secrets of runs are in no event, row, file, log line or error message (A13, A14, W11, R35, R36).
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { createRunSecretRegistry, getEntityFailure, type EntityDurability, type EntityStore, type NativeEntityStore, type RunSecretRegistry } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { historyOf, jsStore, logBook, openStore, rejection, tempDir, until, world, type State } from './support';

const RUN = { runId: 'r' };

/** The files of a folder, below it too, whose bytes hold one of the texts, in UTF-8 or as JSON writes them. */
function filesWith(folder: string, secrets: string[]): string[] {
  const needles = secrets.flatMap((secret) => [Buffer.from(secret), Buffer.from(JSON.stringify(secret).slice(1, -1))]);
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .filter((path) => needles.some((needle) => readFileSync(path).includes(needle)));
}

const STORES: { name: string; make: () => { store: EntityStore; rows: () => Promise<string> } }[] = [
  { name: 'a JavaScript store', make: () => { const js = jsStore(); return { store: js.store, rows: async () => JSON.stringify([js.rows, js.calls]) }; } },
  { name: 'memory', make: () => overNative(openStore({ memory: true })) },
  { name: 'a file', make: () => overNative(openStore({ path: join(tempDir(), 'e.db') })) },
];
function overNative(store: NativeEntityStore) {
  return { store, rows: async () => (await historyOf(store, '1')).join('\n') };
}

/** A registry as a program might write it: one plain replacement, keys included. */
function foreignRegistry(secrets: string[]): RunSecretRegistry {
  const ours = createRunSecretRegistry();
  const maskText = (_: string, text: string): string => secrets.reduce((masked, secret) => masked.replaceAll(secret, '<hidden>'), text);
  const maskDeep = (runId: string, value: unknown): unknown => (value === undefined ? value : JSON.parse(maskText(runId, JSON.stringify(value))) as unknown);
  return { ...ours, maskText, maskDeep };
}

describe.each(STORES)('on $name', ({ make }) => {
  test('A13: masked at top level, nested, in keys and names of fields; mutate returns it in clear, and so does a write without the run', async () => {
    const { store, rows } = make();
    const { put, events, secrets, owner, lines } = world({ store });
    secrets.register('r', ['s3cr3t']);
    const state = { token: 's3cr3t', deep: { list: ['a s3cr3t b'], 's3cr3t-key': 1 }, 'field-s3cr3t': true, n: 1 };
    expect(await put('1', state, RUN)).toEqual(state);
    expect(owner.get('1')).toEqual(state);
    expect({ ...events[0]! }).toMatchObject({
      next: { token: '****', deep: { list: ['a **** b'], '****-key': 1 }, 'field-****': true, n: 1 },
      changedFields: ['deep', 'field-****', 'n', 'token'],
    });
    expect(JSON.stringify(events) + (await rows()) + lines.join()).not.toContain('s3cr3t');
    await put('2', { token: 's3cr3t' });
    expect(events[1]!.next).toEqual({ token: 's3cr3t' });
  });

  test('A14, R36: from one secret to another is one event, with **** on both sides', async () => {
    const { store, rows } = make();
    const { put, events, secrets } = world({ store });
    secrets.register('r', ['first-secret', 'second-secret']);
    await put('1', { token: 'first-secret' }, RUN);
    await put('1', { token: 'second-secret' }, RUN);
    expect(events).toHaveLength(2);
    expect({ ...events[1]! }).toMatchObject({ prev: { token: '****' }, next: { token: '****' }, delta: { token: '****' }, changedFields: ['token'] });
    expect(await rows()).not.toContain('secret');
  });

  test('only the secrets of the run are masked, those that it learns later too; ids, kinds and actors never are', async () => {
    const { store } = make();
    const { handle, put, events, secrets } = world({ store });
    secrets.register('r', ['alpha']);
    secrets.register('other', ['omega']);
    await put('1', { a: 'alpha omega', b: 'gamma' }, RUN);
    secrets.register('r', ['gamma']);
    await put('2', { a: 'alpha omega', b: 'gamma' }, RUN);
    secrets.drop('r');
    await put('3', { a: 'alpha' }, RUN);
    const actor = { type: 'user' as const, id: 'omega', name: 'omega' };
    await handle.mutate({ id: 'omega', opts: { runId: 'other', actor }, apply: async () => ({ a: 'omega' }) });
    expect(events.map(({ next }) => next)).toEqual([{ a: '**** omega', b: 'gamma' }, { a: '**** omega', b: '****' }, { a: 'alpha' }, { a: '****' }]);
    expect(events[3]).toMatchObject({ id: 'omega', actor });
  });

  test('a registry that the program wrote masks as it likes', async () => {
    const { store, rows } = make();
    const { put, drop, events } = world({ store, secretRegistry: foreignRegistry(['s3cr3t']) });
    await put('1', { token: 's3cr3t', n: 1 }, RUN);
    await put('1', { token: 's3cr3t', n: 2 }, RUN);
    expect(events.map(({ prev, next, delta }) => [prev, next, delta])).toEqual([
      [null, { token: '<hidden>', n: 1 }, { token: '<hidden>', n: 1 }],
      [{ token: '<hidden>', n: 1 }, { token: '<hidden>', n: 2 }, { n: 2 }],
    ]);
    expect(await rows()).not.toContain('s3cr3t');
    await drop('1');
    expect(events).toHaveLength(3);
  });

  test('states that are no plain JSON are masked as well', async () => {
    const { store, rows } = make();
    const { put, events, secrets } = world({ store });
    secrets.register('r', ['s3cr3t']);
    const state = (n: number): State => ({ map: new Map([['k', `s3cr3t${n}`]]), big: 10n, set: new Set(['s3cr3t']), at: new Date(n), n });
    await put('1', state(1), RUN);
    await put('1', state(2), RUN);
    expect(events).toHaveLength(2);
    expect(events[1]!.changedFields).toEqual(['at', 'map', 'n']);
    const clear = (value: unknown): string => JSON.stringify(value, (_, part: unknown) => (part instanceof Map || part instanceof Set ? [...part] : typeof part === 'bigint' ? String(part) : part));
    expect(clear(events) + (await rows())).not.toContain('s3cr3t');
  });
});

describe('on disk', () => {
  const SECRETS = ['tr0ub4dor&3', 'quo"te\\d-secret', 'sécrèt-ü', '0123456789abcdef'.repeat(40)];

  test.each(['after-commit', 'outbox', 'journal'] as EntityDurability[])('no file holds a secret, at no time (%s)', async (durability) => {
    const folder = tempDir();
    mkdirSync(join(folder, 'db'));
    const { lines, logger } = logBook();
    const store = openStore({ path: join(folder, 'db', 'e.db') }, { durability, logger });
    const { put, handle, secrets, owner, emitFailures, lines: more } = world({ store });
    secrets.register('r', SECRETS);
    const clean = (): void => expect(filesWith(join(folder, 'db'), SECRETS)).toEqual([]);
    const state = (n: number): State => ({ n, plain: 'visible-marker', ...Object.fromEntries(SECRETS.map((secret, i) => [`f${i}`, `<${secret}>`])), deep: SECRETS });
    for (let n = 0; n < 5; n++) await put('1', state(n), RUN);
    clean();
    // The intent of the second is on disk while its apply runs, with the state before.
    await handle.mutate({ id: '1', opts: RUN, apply: async () => (clean(), owner.set('1', state(9)), state(9)) });
    await rejection(handle.mutate({ id: '1', opts: RUN, apply: () => Promise.reject(new Error('x')) }));
    emitFailures.push(new Error('down'));
    await put('1', state(10), RUN).catch(() => {});
    await handle.remove({ id: '1', opts: RUN, apply: async () => void owner.delete('1') });
    clean();
    await until(async () => (await store.stats()).pending === 0);
    await store.close();
    clean();
    // The search itself finds what is there.
    expect(filesWith(join(folder, 'db'), ['visible-marker']).length).toBeGreaterThan(0);
    for (const secret of SECRETS) expect([...lines, ...more].join('\n')).not.toContain(secret);
  });

  test('W11: a secret that was masked once does not come to disk with the next write without its run', async () => {
    const folder = tempDir();
    const store = openStore({ path: join(folder, 'e.db') });
    const { put, events, secrets, drop } = world({ store });
    secrets.register('r', SECRETS);
    await put('1', { token: SECRETS[0], deep: { list: [SECRETS[2]] }, n: 1 }, RUN);
    await put('1', { token: 'public', deep: { list: ['open'] }, n: 1 });
    expect(events[1]!.prev).toEqual({ token: '****', deep: { list: ['****'] }, n: 1 });
    expect.soft(filesWith(folder, SECRETS)).toEqual([]);
    await put('2', { token: SECRETS[0] }, RUN);
    await drop('2');
    await store.close();
    expect(filesWith(folder, SECRETS)).toEqual([]);
  });

  test('a foreign registry\'s secrets stay off the disk, too', async () => {
    const folder = tempDir();
    const store = openStore({ path: join(folder, 'e.db') });
    const { put, drop } = world({ store, secretRegistry: foreignRegistry(['s3cr3t-value']) });
    await put('1', { token: 's3cr3t-value', n: 1 }, RUN);
    await put('1', { token: 's3cr3t-value', n: 2, at: new Date(0) }, RUN);
    await put('1', { token: 's3cr3t-value', n: 3 }, RUN);
    await drop('1').catch(() => {});
    expect((await historyOf(store, '1')).length).toBeGreaterThan(4);
    expect(filesWith(folder, ['s3cr3t-value'])).toEqual(filesWith(folder, ['no such text at all']));
  });
});

describe('error messages and logs', () => {
  test('name kinds, ids and fields, never values', async () => {
    const { lines, logger } = logBook();
    const secret = 'value-that-must-not-be-told';
    const store = openStore({ memory: true }, { logger });
    const { put, handle, owner, lines: more } = world({ store });
    const cyclic: State = { secret };
    cyclic.self = cyclic;
    await put('1', { cyclic, fn: () => secret });
    owner.set('1', { n: secret });
    await put('1', { n: `${secret}2` });
    const errors = [
      await rejection(handle.mutate({ id: '2', apply: async () => secret as never })),
      await rejection(store.history({ kind: 'pod', entityId: '1', cursor: 'x' })),
    ];
    await store.close();
    errors.push(await rejection(put('1', { n: `${secret}3` })));
    expect(getEntityFailure(errors[2])).toBeDefined();
    expect(more.some((line) => line.includes('[unserializable]'))).toBe(true);
    const told = errors.map((error: Error) => `${error.message} ${error.stack} ${JSON.stringify(error)} ${String(error.cause)}`);
    expect([...lines, ...more, ...told].join('\n')).not.toContain(secret);
  });
});
