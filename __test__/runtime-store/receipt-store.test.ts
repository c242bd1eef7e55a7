/** R29, R30, E1: the receipts by themselves. */
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { createRuntimeStoreReceiptStore, VersionedJsonStoreError, type RuntimeStoreWriteBatch } from 'holdfast';
import { beforeEach, describe, expect, it } from 'vitest';

import { fixedClock, IDENTITY, NOW, readJson, rejection, tempDir } from './support';

let dir: string;
let filePath: string;
beforeEach(() => {
  dir = tempDir();
  filePath = join(dir, 'opencode-runtime-receipts.json');
});

const open = () => createRuntimeStoreReceiptStore({ filePath, clock: fixedClock });
const batch = (batchId: string, more: object = {}): RuntimeStoreWriteBatch => ({
  batchId, teamName: 'team-a', ...IDENTITY, reason: 'delivery_commit', startedAt: 'started', completedAt: null, state: 'preparing', receipts: [], lastError: null, ...more,
});

describe('the receipts', () => {
  it('are empty while the file is missing, and reading creates nothing', async () => {
    expect(await open().list()).toEqual([]);
    expect(await open().listUncommitted('team-a')).toEqual([]);
    expect(readdirSync(dir)).toEqual([]);
  });

  it('R29: begin appends, and refuses an id that is there', async () => {
    await open().begin(batch('b'));
    await open().begin(batch('a'));
    const before = readFileSync(filePath, 'utf8');
    expect(await rejection(open().begin(batch('b')))).toMatchObject({ message: 'Runtime store batch already exists: b', hfCode: 'HF_RUNTIME_BATCH_EXISTS' });
    expect(readFileSync(filePath, 'utf8')).toBe(before);
    expect((await open().list()).map(({ batchId }) => batchId)).toEqual(['b', 'a']);
    expect(Object.keys(readJson(filePath).data[0])).toEqual(Object.keys(batch('b')));
  });

  it('R30: commit and fail replace in place, with completedAt and lastError', async () => {
    const store = open();
    for (const id of ['a', 'b', 'c', 'd']) await store.begin(batch(id));
    await store.commit(batch('b', { completedAt: 'the writer says' }));
    await store.fail(batch('a'), new Error('why'));
    await store.fail(batch('c'), 42);
    expect((await store.list()).map(({ batchId, state, completedAt, lastError }) => [batchId, state, completedAt, lastError])).toEqual([
      ['a', 'failed', NOW, 'why'], ['b', 'committed', NOW, null], ['c', 'failed', NOW, '42'], ['d', 'preparing', null, null],
    ]);
  });

  it('R30: an unknown id throws, after an empty file was made if there was none', async () => {
    expect(await rejection(open().commit(batch('x')))).toMatchObject({ message: 'Runtime store batch not found: x', hfCode: 'HF_RUNTIME_BATCH_NOT_FOUND' });
    expect(existsSync(filePath)).toBe(true);
    expect(readJson(filePath).data).toEqual([]);
    expect(await rejection(open().fail(batch('x'), new Error()))).toMatchObject({ hfCode: 'HF_RUNTIME_BATCH_NOT_FOUND' });
  });

  it('listUncommitted: the team\'s batches in any other state, in file order', async () => {
    const store = open();
    await store.begin(batch('a', { state: 'failed' }));
    await store.begin(batch('b', { state: 'committed' }));
    await store.begin(batch('c', { teamName: 'team-b' }));
    await store.begin(batch('d', { state: 'committing' }));
    await store.begin(batch('e'));
    expect((await store.listUncommitted('team-a')).map(({ batchId }) => batchId)).toEqual(['a', 'd', 'e']);
    expect((await store.listUncommitted('team-b')).map(({ batchId }) => batchId)).toEqual(['c']);
    expect(await store.listUncommitted('team-c')).toEqual([]);
  });

  it('C2: unknown keys stay through rewrites', async () => {
    await open().begin(batch('a', { hfPrior: { n: 1.5 }, other: null }));
    await open().begin(batch('b'));
    expect(readJson(filePath).data[0]).toEqual(batch('a', { hfPrior: { n: 1.5 }, other: null }));
  });

  it('E1: one bad record makes the file unreadable for everyone', async () => {
    writeFileSync(filePath, JSON.stringify({ schemaVersion: 1, updatedAt: NOW, data: [batch('a'), { batchId: 'b' }] }));
    const message = `Invalid data in versioned store ${filePath}: Invalid runtime store write batch at index 1`;
    expect(await rejection(open().list())).toBeInstanceOf(VersionedJsonStoreError);
    for (const attempt of [() => open().list(), () => open().listUncommitted('team-a'), () => open().begin(batch('c')), () => open().commit(batch('a'))]) {
      expect(await rejection(attempt())).toMatchObject({ reason: 'invalid_data', message });
    }
    writeFileSync(filePath, JSON.stringify({ schemaVersion: 1, updatedAt: NOW, data: [batch('a'), batch('a')] }));
    expect(await rejection(open().list())).toMatchObject({ message: expect.stringContaining('Duplicate runtime store write batch: a') });
  });
});
