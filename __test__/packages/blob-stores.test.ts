// The blob stores against real disks and servers. Numbers: acceptance checks.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import {
  blobSha256,
  createBlobStoreRegistry,
  createFileBlobStore,
  createPostgresBlobStore,
  createS3BlobStore,
  createSqliteBlobStore,
  runStorageMigration,
  type NativeBlobStore,
} from 'holdfast';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { startS3, type S3Server } from '../../scripts/s3.mjs';
import { freshSchema, query } from '../support/postgres';
import { integrityOf, makeHost, rejection, somePackages, start, tempDir } from './support';

let s3: S3Server | null = null;
beforeAll(async () => {
  s3 = await startS3();
}, 180_000);
afterAll(() => s3?.stop());

let buckets = 0;
const kinds: Record<string, () => Promise<() => NativeBlobStore>> = {
  async fs() {
    const root = join(tempDir(), 'blobs');
    return () => createFileBlobStore({ root });
  },
  async sqlite() {
    const path = join(tempDir(), 'blobs.db');
    return () => createSqliteBlobStore({ path });
  },
  async postgres() {
    const { url } = await freshSchema();
    return () => createPostgresBlobStore({ connectionString: url });
  },
  async 'postgres, as the original wrote'() {
    const { url } = await freshSchema();
    return () => createPostgresBlobStore({ connectionString: url, encoding: 'base64-text' });
  },
  async s3() {
    const options = s3Options(await s3!.bucket(`bucket-${++buckets}`));
    return () => createS3BlobStore(options);
  },
};

const s3Options = (bucket: string) => ({ bucket, accessKeyId: 'AKIATESTER', secretAccessKey: 'hunter2', endpoint: s3!.url, forcePathStyle: true });

const keys = [
  'sha512-ab/cd+ef==',
  'x'.repeat(300),
  integrityOf('a', '1.0.0'),
  'ünïcödé ✓',
  '../../etc/passwd',
  'a b',
  'sha1-x sha512-y',
];

describe.each(Object.keys(kinds))('check 37: %s', (kind) => {
  // An S3 server needs Python; where there is none, scripts/s3.mjs says so on stderr.
  const ready = (): boolean => kind !== 's3' || s3 !== null;

  test('put, get, has, delete and list, with keys of all kinds', async ({ skip }) => {
    if (!ready()) skip();
    const make = await kinds[kind]!();
    await using store = make();
    expect(store.id).toBe(kind.split(',')[0]);
    expect(await store.list()).toEqual([]);
    expect(await store.get({ integrity: 'none' })).toBeUndefined();
    expect(await store.has({ integrity: 'none' })).toBe(false);
    await store.delete({ integrity: 'none' });
    for (const [at, integrity] of keys.entries()) {
      const bytes = new Uint8Array(at * 10_000).map((_, index) => index * (at + 1));
      await store.put({ integrity, bytes });
      expect(await store.get({ integrity }), integrity).toEqual(bytes);
      expect(await store.has({ integrity })).toBe(true);
    }
    expect([...(await store.list())].sort()).toEqual([...keys].sort());
    for (const integrity of keys.slice(1)) await store.delete({ integrity });
    expect(await store.list()).toEqual([keys[0]]);
    await using other = make();
    expect((await other.get({ integrity: keys[0]! }))!.length).toBe(0);
  });

  test('the first of a key wins, also of many at once, and the bytes of the call are what is kept', async ({ skip }) => {
    if (!ready()) skip();
    const make = await kinds[kind]!();
    const stores = [make(), make()];
    const bytes = new Uint8Array(100_000).fill(1);
    const first = stores[0]!.put({ integrity: 'k', bytes });
    // Taken over with the call.
    bytes.fill(2);
    await first;
    await stores[1]!.put({ integrity: 'k', bytes: new Uint8Array([9]) });
    expect(await stores[1]!.get({ integrity: 'k' })).toEqual(new Uint8Array(100_000).fill(1));
    await Promise.all(Array.from({ length: 10 }, (_, at) => stores[at % 2]!.put({ integrity: 'race', bytes: new Uint8Array(50_000).fill(at) })));
    const winner = (await stores[0]!.get({ integrity: 'race' }))!;
    expect(winner.length).toBe(50_000);
    expect(winner.every((byte) => byte === winner[0])).toBe(true);
    // A slice is a slice.
    await stores[0]!.put({ integrity: 'slice', bytes: new Uint8Array([1, 2, 3, 4]).subarray(1, 3) });
    expect(await stores[0]!.get({ integrity: 'slice' })).toEqual(new Uint8Array([2, 3]));
    await Promise.all(stores.map((store) => store.close()));
    await stores[0]!.close();
    expect((await rejection(stores[0]!.get({ integrity: 'k' }))).code).toBe('HF_CLOSED');
  });

  test('what is no bytes, and what is no key, is refused', async ({ skip }) => {
    if (!ready()) skip();
    await using store = (await kinds[kind]!())();
    for (const bytes of [undefined, null, 'text', [1, 2]]) {
      expect((await rejection(store.put({ integrity: 'k', bytes: bytes as never }))).code).toBe('HF_INVALID_ARGUMENT');
    }
    expect((await rejection(store.put({ integrity: '', bytes: new Uint8Array(1) }))).code).toBe('HF_INVALID_ARGUMENT');
    expect(await store.list()).toEqual([]);
  });

  test.skipIf(kind === 's3' || kind.includes(','))('a put that is killed leaves the whole blob or none, and what was acknowledged stays', async () => {
    const size = 3_000_000;
    const schema = kind === 'postgres' ? await freshSchema() : null;
    const place = schema?.url ?? join(tempDir(), kind === 'sqlite' ? 'blobs.db' : 'blobs');
    const open = (): NativeBlobStore => {
      if (schema) return createPostgresBlobStore({ connectionString: place });
      return kind === 'sqlite' ? createSqliteBlobStore({ path: place }) : createFileBlobStore({ root: place });
    };
    let kept = 0;
    for (let round = 0; round < 6; round++) {
      const child = start('put-child.mjs', kind, place, String(size));
      await child.line(round % 2 === 0 ? 'kept' : 'ready');
      await sleep(7 * round);
      await child.kill();
      await using store = open();
      const found = new Set(await store.list());
      for (const line of child.lines.filter((each) => each.startsWith('kept '))) {
        const [, integrity, value] = line.split(' ') as [string, string, string];
        kept++;
        expect(found.has(integrity)).toBe(true);
        const bytes = (await store.get({ integrity }))!;
        expect([bytes.length, bytes[0], bytes.at(-1)]).toEqual([size, Number(value), Number(value)]);
      }
      for (const integrity of found) {
        const bytes = (await store.get({ integrity }))!;
        expect(bytes.length).toBe(size);
        expect(bytes.every((byte) => byte === bytes[0])).toBe(true);
      }
    }
    expect(kept).toBeGreaterThan(0);
  });
});

describe('formats', () => {
  test('files have the names of the format, and raw bytes', async () => {
    const root = tempDir();
    await using store = createFileBlobStore({ root, id: 'mine' });
    expect(store.id).toBe('mine');
    await store.put({ integrity: 'sha-a', bytes: new Uint8Array([1, 2]) });
    const [folder] = readdirSync(root);
    expect(folder).toMatch(/^[0-9a-f]{2}$/);
    expect(readFileSync(join(root, folder!, '7368612d61'))).toEqual(Buffer.from([1, 2]));
  });

  test('a damaged copy in SQLite is told, not given', async () => {
    const path = join(tempDir(), 'blobs.db');
    const blob = new Uint8Array(300_000).fill(7);
    {
      await using store = createSqliteBlobStore({ path });
      await store.put({ integrity: 'k', bytes: blob });
    }
    const bytes = readFileSync(path);
    const at = bytes.indexOf(Buffer.alloc(3000, 7));
    expect(at).toBeGreaterThan(0);
    bytes[at + 100] = 8;
    writeFileSync(path, bytes);
    await using store = createSqliteBlobStore({ path });
    expect((await rejection(store.get({ integrity: 'k' }))).hfCode).toBe('HF_CORRUPT');
  });

  test('the table of the original is read and written', async () => {
    const { url } = await freshSchema();
    await query('CREATE TABLE script_package_blob_data (integrity text PRIMARY KEY, data text NOT NULL, size_bytes bigint NOT NULL, created_at timestamp DEFAULT now() NOT NULL)', [], url);
    await query('INSERT INTO script_package_blob_data VALUES ($1, $2, 3)', ['old', Buffer.from('abc').toString('base64')], url);
    // The encoding of the original means its table, too.
    await using store = createPostgresBlobStore({ connectionString: url, encoding: 'base64-text' });
    expect(await store.get({ integrity: 'old' })).toEqual(new Uint8Array([97, 98, 99]));
    await store.put({ integrity: 'new', bytes: new Uint8Array([0, 255]) });
    expect(await query('SELECT data, size_bytes::int FROM script_package_blob_data WHERE integrity = $1', ['new'], url)).toEqual([{ data: 'AP8=', size_bytes: 2 }]);
    await using own = createPostgresBlobStore({ connectionString: url });
    await own.put({ integrity: 'x', bytes: new Uint8Array([1]) });
    const [row] = await query<{ sha256: string; data: Buffer }>('SELECT sha256, data FROM holdfast_blobs', [], url);
    expect([row!.sha256, row!.data]).toEqual([blobSha256(new Uint8Array([1])), Buffer.from([1])]);
  });

  test('objects in S3 have the names of the original, and secrets are in no error', async ({ skip }) => {
    if (s3 === null) return skip();
    const bucket = await s3.bucket('names');
    await using store = createS3BlobStore(s3Options(bucket));
    await store.put({ integrity: 'sha-a', bytes: new Uint8Array([1]) });
    const listed = await (await fetch(`${s3.url}/${bucket}?list-type=2`)).text();
    expect(listed).toContain('<Key>script-packages/blobs/7368612d61</Key>');
    await using nowhere = createS3BlobStore(s3Options('missing-bucket'));
    const error = await rejection(nowhere.get({ integrity: 'sha-a' }));
    expect(JSON.stringify([error.message, error, error.stack])).not.toContain('hunter2');
    expect(error.message).toContain('missing-bucket');
  });

  test('nothing is opened before it is used, and options that mean nothing are refused', () => {
    const path = join(tempDir(), 'none.db');
    createSqliteBlobStore({ path });
    expect(existsSync(path)).toBe(false);
    createPostgresBlobStore({ connectionString: 'postgres://nobody@127.0.0.1:1/none' });
    expect(() => createFileBlobStore({ root: ' ' })).toThrow(expect.objectContaining({ code: 'HF_INVALID_ARGUMENT' }));
    expect(() => createPostgresBlobStore({ connectionString: 'x', encoding: 'hex' as never })).toThrow(expect.objectContaining({ code: 'HF_INVALID_ARGUMENT' }));
    expect(() => createS3BlobStore({ bucket: '', accessKeyId: 'a', secretAccessKey: 'b' })).toThrow(expect.objectContaining({ code: 'HF_INVALID_ARGUMENT' }));
  });
});

describe('the S3 server of these tests', () => {
  const run = (script: string, env: NodeJS.ProcessEnv) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [script], { encoding: 'utf8', env: { ...process.env, ...env } });
    return { status, stdout, stderr };
  };
  const script = resolve(__dirname, '../../scripts/s3.mjs');

  test('where none can be had, stderr says so, and that is no failure', () => {
    // A copy has a cache of its own, and nothing is on its path.
    const copy = join(tempDir(), 'scripts', 's3.mjs');
    mkdirSync(dirname(copy));
    copyFileSync(script, copy);
    const env = { PATH: tempDir(), HOLDFAST_S3_SERVER: '' };
    expect(run(copy, env)).toEqual({ status: 0, stdout: '', stderr: expect.stringMatching(/^SKIPPED: what needs an S3 server/) });
  });

  test('a program that does not start is none', ({ skip }) => {
    if (s3 === null) return skip();
    const broken = join(tempDir(), 'moto_server');
    const { status, stdout, stderr } = run(script, { HOLDFAST_S3_SERVER: broken });
    expect([status, stderr]).toEqual([0, expect.stringContaining(`${broken}, which does not start`)]);
    expect(stdout.trim()).not.toBe('');
    expect(stdout).not.toContain(broken);
  });
});

describe('stores at work', () => {
  test('check 38: a host is served by another store where the active one is damaged', async () => {
    const packages = await somePackages(2);
    const registry = createBlobStoreRegistry();
    const root = tempDir();
    const fs = createFileBlobStore({ root });
    const sqlite = createSqliteBlobStore({ path: join(tempDir(), 'blobs.db') });
    for (const store of [fs, sqlite]) {
      registry.register(store);
      for (const { entry, blob } of packages) await store.put({ integrity: entry.integrity, bytes: blob });
    }
    const host = makeHost(packages);
    const damaged = readdirSync(root).flatMap((folder) => readdirSync(join(root, folder)).map((name) => join(root, folder, name)))[0]!;
    truncateSync(damaged, statSync(damaged).size - 5);
    const servedBy: string[] = [];
    host.deps.fetchBlob = async ({ integrity }) => {
      const blobSha256 = host.manifest.find((entry) => entry.integrity === integrity)!.blobSha256!;
      const found = (await registry.readWithFallback({ integrity, activeBackendId: 'fs', blobSha256 }))!;
      servedBy.push(found.servedBy);
      return found.bytes;
    };
    await host.to('h');
    expect(servedBy.sort()).toEqual(['fs', 'sqlite']);
    for (const store of [fs, sqlite]) await store.close();
  });

  test('a migration from files to SQLite to Postgres keeps every byte', async () => {
    const { url } = await freshSchema();
    const stores = [createFileBlobStore({ root: join(tempDir(), 'b') }), createSqliteBlobStore({ path: join(tempDir(), 'b.db') }), createPostgresBlobStore({ connectionString: url })];
    const packages = await somePackages(3);
    const index = new Map(packages.map(({ entry }) => [entry.integrity, 'fs']));
    for (const { entry, blob } of packages) await stores[0]!.put({ integrity: entry.integrity, bytes: blob });
    for (const [at, target] of ['sqlite', 'postgres'].entries()) {
      const result = await runStorageMigration({
        blobIndex: {
          listNotOnBackend: async (backend) => [...index].filter(([, held]) => held !== backend).map(([integrity, held]) => ({ integrity, backend: held })),
          setBackend: async (integrity, backend) => void index.set(integrity, backend),
        },
        storage: { beginMigration: async () => {}, setMigratedCount: async () => {}, completeMigration: async () => {}, failMigration: async () => {} },
        getStore: (id) => stores.find((store) => store.id === id)!,
        activeBackend: stores[at]!.id,
        target,
        gcSource: true,
      });
      expect(result).toEqual({ migrated: 3, completed: true });
      expect(await stores[at]!.list()).toEqual([]);
    }
    for (const { entry, blob } of packages) expect(await stores[2]!.get({ integrity: entry.integrity })).toEqual(blob);
    for (const store of stores) await store.close();
  });
});
