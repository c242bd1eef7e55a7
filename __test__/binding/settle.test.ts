/** Promises of the addon: they settle, in any number, in the caller's context, with the right errors. */
import { AsyncLocalStorage } from 'node:async_hooks';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HoldfastError, VersionedJsonStore, computeRuntimeStoreContentHash } from 'holdfast';
import { afterAll, describe, expect, it } from 'vitest';

const directory = mkdtempSync(join(tmpdir(), 'holdfast-settle-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const storeAt = (filePath: string) =>
  new VersionedJsonStore<{ n: number }>({
    filePath,
    schemaVersion: 1,
    defaultData: () => ({ n: 0 }),
    validate: (value) => value as { n: number },
  });

describe('promises of the addon', () => {
  it('settle also when nobody awaits them: 10,000 at once', async () => {
    let settled = 0;
    for (let i = 0; i < 10_000; i++) {
      // Every tenth is a directory, which rejects.
      const store = storeAt(i % 10 === 0 ? directory : join(directory, `missing-${i}.json`));
      void store.read().then(
        () => settled++,
        () => settled++,
      );
    }
    await expect.poll(() => settled, { timeout: 20_000 }).toBe(10_000);
  }, 30_000);

  it('keep the AsyncLocalStorage of their caller', async () => {
    const storage = new AsyncLocalStorage<number>();
    const seen = await Promise.all(
      Array.from({ length: 200 }, (_, i) =>
        storage.run(i, async () => {
          await storeAt(join(directory, 'missing.json')).read();
          return storage.getStore();
        }),
      ),
    );
    expect(seen).toEqual(Array.from({ length: 200 }, (_, i) => i));
  });

  it('reject with an error whose stack names the caller', async () => {
    async function theCaller(): Promise<unknown> {
      return await storeAt(directory).read();
    }
    const error = await theCaller().then(
      () => expect.unreachable(),
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(HoldfastError);
    expect(error).toMatchObject({ code: 'EISDIR', hfCode: 'HF_IO' });
    expect((error as Error).stack).toContain('theCaller');
  });
});

describe('synchronous calls of the addon', () => {
  it('return their result', () => {
    expect(computeRuntimeStoreContentHash('')).toBe(
      'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    );
  });
});
