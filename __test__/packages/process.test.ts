// @pool forks: what counts happens in processes of its own.
// A process and its workers may end at any moment, while packages are seeded and trees are built.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import { createFileBlobStore, verifyTree } from 'holdfast';
import { beforeAll, describe, expect, test } from 'vitest';

import { currentOf, makeHost, publish, somePackages, start, tempDir, type MadePackage } from './support';

let packages: MadePackage[];
beforeAll(async () => {
  packages = await somePackages(10, 20);
});

/** What is there is whole: the current tree, the cache, the blobs. */
async function look(storeRoot: string, blobs: string): Promise<void> {
  const current = currentOf(storeRoot)?.slice('trees/'.length);
  if (current !== undefined) expect((await verifyTree({ storeRoot, lockfileHash: current })).sound, current).toBe(true);
  await using store = createFileBlobStore({ root: blobs });
  for (const integrity of await store.list()) expect((await store.get({ integrity }))!.length).toBe(200_000);
  const host = makeHost(packages, { storeRoot });
  await host.to('after');
  expect((await verifyTree({ storeRoot, lockfileHash: 'after' })).sound).toBe(true);
  for (const { name } of host.manifest) expect(readdirSync(join(storeRoot, 'current/node_modules', name, 'lib'))).toHaveLength(19);
}

describe('the end of a process in the middle of its work', () => {
  test.each([0, 1, 5, 20, 60, 150])('by process.exit(), after %s ms', async (delay) => {
    const [storeRoot, blobs, published] = [join(tempDir(), 'store'), join(tempDir(), 'blobs'), publish(packages)];
    for (let round = 0; round < 3; round++) {
      const child = start('end-child.cjs', 'exit', String(delay), storeRoot, published, blobs);
      expect(await child.ended).toEqual({ code: 7, signal: null, err: '' });
    }
    await look(storeRoot, blobs);
  });

  test.each([0, 30])('by an error that nobody catches, after %s ms', async (delay) => {
    const [storeRoot, blobs, published] = [join(tempDir(), 'store'), join(tempDir(), 'blobs'), publish(packages)];
    const { code, signal, err } = await start('end-child.cjs', 'throw', String(delay), storeRoot, published, blobs).ended;
    expect({ code, signal }).toEqual({ code: 1, signal: null });
    expect(err).toContain('on purpose');
    await look(storeRoot, blobs);
  });
});

test('the end of workers in the middle of their work: the rest of the process goes on, and nothing half-made stays', async () => {
  const [storeRoot, blobs, published] = [join(tempDir(), 'store'), join(tempDir(), 'blobs'), publish(packages)];
  const child = start('end-child.cjs', 'workers', '12', storeRoot, published, blobs);
  const { code, signal, err } = await child.ended;
  expect({ code, signal, err }).toEqual({ code: 0, signal: null, err: '' });
  const found = JSON.parse(child.lines[0]!) as { seeded: number };
  expect(found).toEqual({ errors: 0, seeded: expect.any(Number), sound: true, staging: [] });
  expect(found.seeded).toBeGreaterThan(0);
  await look(storeRoot, blobs);
  const trees = readdirSync(join(storeRoot, 'trees'));
  for (const tree of trees) expect(existsSync(join(storeRoot, 'trees', tree, '.hf-tree.json')), tree).toBe(true);
  expect(JSON.parse(readFileSync(join(storeRoot, 'current/.hf-tree.json'), 'utf8'))).toMatchObject({ lockfileHash: 'after' });
});
