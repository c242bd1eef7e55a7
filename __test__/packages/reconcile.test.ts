// Reconciling: order, delta, concurrency, progress, abort, and transports that misbehave. Numbers are those of the acceptance checks.
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import {
  HoldfastError,
  computeLockfileHash,
  computeMissingBlobs,
  createReconcileFsDeps,
  reconcileToHash,
  verifyTree,
  type ManifestEntry,
  type ReconcileDeps,
  type ReconcileProgress,
} from 'holdfast';
import { describe, expect, test } from 'vitest';

import { currentOf, leftovers, makeHost, makePackage, names, rejection, somePackages } from './support';

const a: ManifestEntry = { name: 'a', version: '1.0.0', integrity: 'sha-a' };
const b: ManifestEntry = { name: 'b', version: '1.0.0', integrity: 'sha-b' };

/** Steps written by hand, which note every call. */
function handMade(local: string[], current: string | undefined, more: Partial<ReconcileDeps> = {}) {
  const calls: string[] = [];
  const deps: ReconcileDeps = {
    localCacheIntegrities: async () => local,
    fetchBlob: async ({ integrity }) => {
      calls.push(`fetch ${integrity}`);
      return new Uint8Array([1]);
    },
    seedBlob: async ({ entry }) => void calls.push(`seed ${entry.integrity}`),
    materializeAndFlip: async ({ lockfileHash }) => void calls.push(`materialize ${lockfileHash}`),
    currentLockfileHash: async () => current,
    ...more,
  };
  return { deps, calls };
}

describe('order and delta', () => {
  test('check 1: only what is missing is fetched and seeded, then the tree is built once', async () => {
    const { deps, calls } = handMade(['sha-a'], undefined);
    const result = await reconcileToHash({ lockfileHash: 'HASH1', manifest: [a, b], deps });
    expect(result).toEqual({ alreadyConverged: false, pulledIntegrities: ['sha-b'] });
    expect(calls).toEqual(['fetch sha-b', 'seed sha-b', 'materialize HASH1']);
  });

  test('check 2: at the hash already, nothing else is called', async () => {
    const lines: string[] = [];
    const { deps, calls } = handMade([], 'HASH1', { logger: { debug: (line) => void lines.push(line), error: () => {} } });
    deps.localCacheIntegrities = async () => void calls.push('local') as never;
    const result = await reconcileToHash({ lockfileHash: 'HASH1', manifest: [a], deps });
    expect(result).toEqual({ alreadyConverged: true, pulledIntegrities: [] });
    expect(calls).toEqual([]);
    expect(lines).toEqual(['Script packages already at HASH1; reconcile is a no-op.']);
  });

  test('check 3: a cold cache pulls all; an integrity counts once, by its first entry, the very object', async () => {
    const { deps, calls } = handMade([], undefined);
    await reconcileToHash({ lockfileHash: 'H', manifest: [a, b], deps });
    expect(calls).toEqual(['fetch sha-a', 'seed sha-a', 'fetch sha-b', 'seed sha-b', 'materialize H']);
    const twin = { ...b, integrity: 'sha-a' };
    const missing = computeMissingBlobs({ manifest: [a, twin], localIntegrities: [] });
    expect(missing).toHaveLength(1);
    expect(missing[0]).toBe(a);
    let walks = 0;
    const once = (function* () {
      walks++;
      yield 'sha-b';
    })();
    expect(computeMissingBlobs({ manifest: [a, b], localIntegrities: once })).toEqual([a]);
    expect(walks).toBe(1);
  });

  test('check 4: one after the other without `concurrency`; with 4, at most 4 overlap, and the result keeps the order', async () => {
    const slowly = async (width: number | undefined) => {
      const manifest = Array.from({ length: 12 }, (_, at) => ({ name: `p${at}`, version: '1.0.0', integrity: `sha-${at}` }));
      let [running, most] = [0, 0];
      const started: string[] = [];
      const { deps, calls } = handMade([], undefined, {
        ...(width && { concurrency: width }),
        fetchBlob: async ({ integrity }) => {
          started.push(integrity);
          most = Math.max(most, ++running);
          // Those that come later are faster.
          await sleep(40 - 3 * Number(integrity.slice(4)));
          return new Uint8Array([1]);
        },
      });
      deps.seedBlob = async ({ entry }) => {
        running--;
        calls.push(entry.integrity);
      };
      const { pulledIntegrities } = await reconcileToHash({ lockfileHash: 'H', manifest, deps });
      expect(pulledIntegrities).toEqual(manifest.map(({ integrity }) => integrity));
      expect(started).toEqual(pulledIntegrities);
      return { most, seeded: calls.slice(0, -1) };
    };
    const alone = await slowly(undefined);
    expect(alone.most).toBe(1);
    expect(alone.seeded[0]).toBe('sha-0');
    const four = await slowly(4);
    expect(four.most).toBe(4);
    expect([...four.seeded].sort()).toEqual([...alone.seeded].sort());
  });

  test('check 5: a fetch that rejects ends it with that error; current stays, and a retry pulls only the rest', async () => {
    const packages = await somePackages(3);
    const host = makeHost(packages, { concurrency: 1 });
    await host.to('old', { manifest: [] });
    const second = packages[1]!.entry.integrity;
    const blob = host.blobs.get(second)!;
    host.blobs.delete(second);
    const error = await rejection(host.to('new'));
    expect(error.message).toBe(`nobody has ${second}`);
    expect(currentOf(host.storeRoot)).toBe('trees/old');
    expect(names(host.path('trees'))).toEqual(['old']);
    host.blobs.set(second, blob);
    host.fetched.length = 0;
    const { pulledIntegrities } = await host.to('new');
    expect(pulledIntegrities).toEqual([second, packages[2]!.entry.integrity]);
    expect(host.fetched).toEqual(pulledIntegrities);
  });

  test('after the first error no fetch starts, those that run settle, and the first error in time is thrown', async () => {
    const manifest = Array.from({ length: 9 }, (_, at) => ({ name: `p${at}`, version: '1.0.0', integrity: `sha-${at}` }));
    const started: string[] = [];
    let settled = 0;
    const { deps, calls } = handMade([], undefined, {
      concurrency: 3,
      fetchBlob: async ({ integrity }) => {
        started.push(integrity);
        await sleep(integrity === 'sha-1' ? 10 : 40);
        settled++;
        throw new Error(integrity);
      },
    });
    const error = await rejection(reconcileToHash({ lockfileHash: 'H', manifest, deps }));
    expect(error.message).toBe('sha-1');
    expect(started).toEqual(['sha-0', 'sha-1', 'sha-2']);
    expect(settled).toBe(3);
    expect(calls).toEqual([]);
  });

  test('members of the steps may be replaced one by one', async () => {
    const packages = await somePackages(1);
    const host = makeHost(packages);
    const seeded: string[] = [];
    const deps = { ...host.deps, seedBlob: async (input: Parameters<ReconcileDeps['seedBlob']>[0]) => (seeded.push(input.entry.name), host.deps.seedBlob(input)) };
    await reconcileToHash({ lockfileHash: 'h', manifest: host.manifest, deps: deps as ReconcileDeps });
    expect(seeded).toEqual(['p0']);
    expect(readFileSync(host.path('current/node_modules/p0/index.js'), 'utf8')).toContain('p0 0');
  });
});

describe('hosts', () => {
  test('checks 8 and 9: two hosts converge from one set of blobs, fetch each once, and then have nothing to do', async () => {
    const packages = await somePackages(1);
    for (const manifest of [[], packages.map(({ entry }) => entry)]) {
      const hosts = [makeHost(packages), makeHost(packages)];
      for (const host of hosts) {
        expect((await host.to('convergehash', { manifest })).alreadyConverged).toBe(false);
        expect(currentOf(host.storeRoot)).toBe('trees/convergehash');
        for (const name of ['node_modules', 'package.json', 'bunfig.toml']) expect(existsSync(host.path('trees/convergehash', name))).toBe(true);
        expect(await host.to('convergehash', { manifest })).toEqual({ alreadyConverged: true, pulledIntegrities: [] });
        expect(host.fetched).toEqual(manifest.map(({ integrity }) => integrity));
        expect(await host.deps.localCacheIntegrities()).toEqual(manifest.map(({ integrity }) => integrity));
        expect(leftovers(host.storeRoot)).toEqual([]);
      }
    }
  });

  test('check 26: a tree without a record is none, and is built', async () => {
    const host = makeHost(await somePackages(2));
    mkdirSync(host.path('trees/h/node_modules'), { recursive: true });
    await host.to('h');
    expect(names(host.path('current/node_modules'))).toEqual(['p0', 'p1']);
    expect((await verifyTree({ storeRoot: host.storeRoot, lockfileHash: 'h' })).sound).toBe(true);
  });

  test('check 27: a deleted tree is rebuilt without a fetch; of a damaged cache only what is gone is fetched', async () => {
    const host = makeHost(await somePackages(3));
    await host.to('h');
    host.fetched.length = 0;
    rmSync(host.path('trees/h'), { recursive: true });
    expect(await host.to('h')).toEqual({ alreadyConverged: false, pulledIntegrities: [] });
    expect(names(host.path('current/node_modules'))).toEqual(['p0', 'p1', 'p2']);
    expect(host.fetched).toEqual([]);

    rmSync(host.path('cache/p1@1.0.0'), { recursive: true });
    rmSync(host.path('trees/h'), { recursive: true });
    const { pulledIntegrities } = await host.to('h');
    expect(pulledIntegrities).toEqual([host.manifest[1]!.integrity]);
    expect(host.fetched).toEqual(pulledIntegrities);
    expect((await verifyTree({ storeRoot: host.storeRoot, lockfileHash: 'h' })).sound).toBe(true);
  });

  test('an entry that lost a file is pulled again while building; if nobody has it, the error says which and why', async () => {
    const host = makeHost(await somePackages(2));
    await host.to('first');
    const [, second] = host.manifest;
    rmSync(host.path('cache/p1@1.0.0/index.js'));
    host.fetched.length = 0;
    await host.to('second');
    expect(host.fetched).toEqual([second!.integrity]);
    expect(existsSync(host.path('current/node_modules/p1/index.js'))).toBe(true);

    rmSync(host.path('cache/p1@1.0.0/index.js'));
    host.blobs.delete(second!.integrity);
    const error = await rejection(host.to('third'));
    expect(error.code).toBe('HF_PKG_ENTRY_MISSING');
    expect(error.message).toBe('Cache entry for p1@1.0.0 is missing or damaged and could not be re-pulled');
    expect((error.cause as Error).message).toBe(`nobody has ${second!.integrity}`);
    expect(currentOf(host.storeRoot)).toBe('trees/second');
  });

  test('entries are pulled again as many at a time as the first time', async () => {
    const host = makeHost(await somePackages(6), { concurrency: 3 });
    await host.to('first');
    for (let at = 0; at < 6; at++) rmSync(host.path(`cache/p${at}@1.0.0/index.js`));
    let [now, most] = [0, 0];
    const deps = createReconcileFsDeps({
      storeRoot: host.storeRoot,
      concurrency: 3,
      fetchBlob: async ({ integrity }) => {
        most = Math.max(most, ++now);
        await new Promise((resolve) => setTimeout(resolve, 20));
        now--;
        return host.blobs.get(integrity)!;
      },
    });
    await reconcileToHash({ lockfileHash: 'second', manifest: host.manifest, deps });
    expect(most).toBe(3);
  });

  test('where the network fails, but somebody else supplied the entry meanwhile, the tree is built and nothing is wrong', async () => {
    const host = makeHost(await somePackages(1));
    await host.to('first');
    rmSync(host.path('cache/p0@1.0.0/index.js'));
    const other = makeHost([], { storeRoot: host.storeRoot });
    const deps = createReconcileFsDeps({
      storeRoot: host.storeRoot,
      fetchBlob: async ({ integrity }) => {
        await other.deps.seedBlob({ entry: host.manifest[0]!, bytes: host.blobs.get(integrity)! });
        writeFileSync(host.path('cache/p0@1.0.0/index.js'), readFileSync(host.path('trees/first/node_modules/p0/index.js')));
        throw new Error('no network');
      },
    });
    expect(await reconcileToHash({ lockfileHash: 'second', manifest: host.manifest, deps })).toEqual({ alreadyConverged: false, pulledIntegrities: [] });
    expect(currentOf(host.storeRoot)).toBe('trees/second');
  });

  test('an abort before a step that fails at once leaves no rejection behind', async () => {
    const host = makeHost(await somePackages(1));
    const abort = new AbortController();
    const unhandled: unknown[] = [];
    const note = (error: unknown): void => void unhandled.push(error);
    process.on('unhandledRejection', note);
    const fetchBlob = (): Promise<never> => (abort.abort('enough'), Promise.reject(new Error('fetch')));
    const stopped = reconcileToHash({ lockfileHash: 'h', manifest: host.manifest, deps: { ...host.deps, fetchBlob }, signal: abort.signal });
    expect(await stopped.catch((reason: unknown) => reason)).toBe('enough');
    await new Promise((resolve) => setTimeout(resolve, 20));
    process.off('unhandledRejection', note);
    expect(unhandled).toEqual([]);
  });

  test('A, B, and A again: no fetch and no build the second time', async () => {
    const packages = await somePackages(2);
    const host = makeHost(packages);
    const only = [host.manifest[0]!];
    await host.to('A');
    await host.to('B', { manifest: only });
    host.fetched.length = 0;
    host.lines.length = 0;
    await host.to('A');
    expect(host.fetched).toEqual([]);
    expect(host.lines.filter((line) => line.startsWith('Built'))).toEqual([]);
    expect(names(host.path('trees'))).toEqual(['A', 'B']);
    expect(existsSync(host.path('trees/A/.retired-at'))).toBe(false);
    expect(existsSync(host.path('trees/B/.retired-at'))).toBe(true);
  });

  test('several reconciles of one root at a time fetch each blob once, and each lists its own delta', async () => {
    const packages = await somePackages(5);
    const first = makeHost(packages);
    const second = makeHost(packages, { storeRoot: first.storeRoot });
    const slow = (host: typeof first): void => {
      const { fetchBlob } = host.deps;
      host.deps.fetchBlob = async (input) => (await sleep(20), fetchBlob(input));
    };
    [first, second].forEach(slow);
    const results = await Promise.all([first.to('h'), second.to('h'), first.to('h')]);
    const all = first.manifest.map(({ integrity }) => integrity);
    for (const { pulledIntegrities } of results) expect(pulledIntegrities).toEqual(all);
    expect([...first.fetched, ...second.fetched].sort()).toEqual([...all].sort());
    expect(leftovers(first.storeRoot)).toEqual([]);
  });

  test('who waits for the fetch of somebody who fails fetches itself', async () => {
    const packages = await somePackages(1);
    const bad = makeHost(packages);
    const good = makeHost(packages, { storeRoot: bad.storeRoot });
    const begun = new Promise<void>((resolve) => {
      bad.deps.fetchBlob = async () => {
        resolve();
        await sleep(20);
        throw new Error('no network');
      };
    });
    const failing = bad.to('h');
    await Promise.race([begun, failing]);
    const [failed, succeeded] = await Promise.allSettled([failing, good.to('h')]);
    expect((failed as PromiseRejectedResult).reason.message).toBe('no network');
    expect(succeeded.status).toBe('fulfilled');
    expect(good.fetched).toHaveLength(1);
  });

  test('hashes and names that would leave the store are refused', async () => {
    const host = makeHost([]);
    for (const hash of ['../../x', '', '.', '..', 'a/b', 'a\\b', '-x', 'x'.repeat(129), 'a\0b']) {
      const error = await rejection(host.to(hash));
      expect([error.code, error.message], hash).toEqual(['HF_PKG_BAD_HASH', `Invalid lockfile hash "${hash}"`]);
    }
    for (const name of ['../x', 'a/b/c', '.hidden', '', '@scope', '@scope/', 'x'.repeat(215), 'node_modules']) {
      const error = await rejection(host.to('h', { manifest: [{ name, version: '1.0.0', integrity: 'i' }] }));
      expect(['HF_PKG_BAD_NAME', `nobody has i`], name).toContain(error.code ?? error.message);
      expect(names(host.path('trees'))).toEqual([]);
    }
  });

  test('an opaque hash may be checked against the manifest', async () => {
    const host = makeHost(await somePackages(1), { verifyLockfileHash: true });
    expect((await rejection(host.to('opaque'))).code).toBe('HF_PKG_BAD_HASH');
    await host.to(computeLockfileHash(host.manifest));
  });
});

describe('progress and abort', () => {
  test('is told in order, with totals; what a listener throws is logged', async () => {
    const host = makeHost(await somePackages(3), { concurrency: 1 });
    const seen: ReconcileProgress[] = [];
    await host.to('h', { onProgress: (progress) => void seen.push(progress) });
    const phases = seen.map(({ phase }) => phase).filter((phase) => phase !== 'linked');
    expect(phases).toEqual(['delta', ...Array(3).fill(['fetched', 'seeded']).flat(), 'materializing', 'materialized', 'flipped']);
    expect(seen[0]).toEqual({ phase: 'delta', missing: 3, total: 3 });
    const [entry] = host.manifest;
    const length = host.blobs.get(entry!.integrity)!.length;
    expect(seen[2]).toEqual({ phase: 'seeded', integrity: entry!.integrity, name: 'p0', version: '1.0.0', bytes: length, done: 1, of: 3 });
    const linked = seen.filter((progress) => progress.phase === 'linked').at(-1);
    expect(linked).toMatchObject({ packages: 3, packagesTotal: 3, filesTotal: 6, files: 6 });

    await host.to('other', {
      onProgress: () => {
        throw new Error('mine');
      },
    });
    expect(host.errors).toContain('onProgress threw: mine');
  });

  test('check 39: a hanging fetch is given up within 100 ms of the abort, with its reason, and nothing stays', async () => {
    const host = makeHost(await somePackages(2));
    host.deps.fetchBlob = () => new Promise<never>(() => {});
    const abort = new AbortController();
    const running = rejection(host.to('h', { signal: abort.signal }));
    await sleep(50);
    const reason = new Error('enough');
    const began = performance.now();
    abort.abort(reason);
    expect(await running).toBe(reason);
    expect(performance.now() - began).toBeLessThan(100);
    expect(leftovers(host.storeRoot)).toEqual([]);
    expect(currentOf(host.storeRoot)).toBeUndefined();
  });

  test('an abort while files are linked leaves no half-built tree, and what was seeded stays', async () => {
    const host = makeHost(await somePackages(8, 60));
    await host.to('before', { manifest: [] });
    const reason = new Error('enough');
    const delays = [1, 2, 3, 5, 8, 13, 0];
    let caught = 0;
    for (const [at, delay] of delays.entries()) {
      const abort = new AbortController();
      const onProgress = ({ phase }: ReconcileProgress): void => void (phase === 'materializing' && setTimeout(() => abort.abort(reason), delay));
      const outcome = await host.to(`h${at}`, { signal: abort.signal, onProgress }).catch((error: unknown) => error);
      expect(leftovers(host.storeRoot)).toEqual([]);
      // One that comes too late changes nothing: the result stands.
      expect(existsSync(host.path(`trees/h${at}`))).toBe(outcome !== reason);
      if (outcome === reason) caught++;
    }
    expect(caught).toBeGreaterThan(0);
    host.fetched.length = 0;
    await host.to('h');
    expect(host.fetched).toEqual([]);
  });

  test('aborted before it began, nothing is called', async () => {
    const { deps, calls } = handMade([], undefined);
    const reason = new Error('before');
    expect(await rejection(reconcileToHash({ lockfileHash: 'H', manifest: [a], deps, signal: AbortSignal.abort(reason) }))).toBe(reason);
    expect(calls).toEqual([]);
  });
});

describe('transports that misbehave', () => {
  test('wrong bytes are refused, and the next transport is believed', async () => {
    const packages = await somePackages(1);
    const host = makeHost(packages);
    const [entry] = host.manifest;
    const right = host.blobs.get(entry!.integrity)!;
    host.blobs.set(entry!.integrity, (await makePackage('p0', '1.0.0', { files: { 'index.js': 'evil()' } })).blob);
    const error = await rejection(host.to('h'));
    expect(error).toBeInstanceOf(HoldfastError);
    expect(error.code).toBe('HF_PKG_INTEGRITY');
    expect(names(host.path('cache'))).toEqual([]);
    host.blobs.set(entry!.integrity, right);
    await host.to('h');
    expect(readFileSync(host.path('current/node_modules/p0/index.js'), 'utf8')).not.toContain('evil');
  });

  test('a buffer that is changed after it was handed over changes nothing', async () => {
    const packages = await somePackages(6, 20);
    const host = makeHost(packages);
    const { seedBlob } = host.deps;
    host.deps.seedBlob = (input) => {
      const running = seedBlob(input);
      // Verified are the bytes of the call, and those are what is unpacked.
      input.bytes.fill(0);
      return running;
    };
    host.deps.fetchBlob = async ({ integrity }) => Uint8Array.from(host.blobs.get(integrity)!);
    await host.to('h');
    expect((await verifyTree({ storeRoot: host.storeRoot, lockfileHash: 'h' })).sound).toBe(true);
    expect(readFileSync(host.path('current/node_modules/p3/lib/file7.js'), 'utf8')).toBe("module.exports = 'p3 7';\n");
  });

  test('slices of larger buffers and ArrayBuffers are taken for what they are', async () => {
    const packages = await somePackages(2);
    const host = makeHost(packages);
    host.deps.fetchBlob = async ({ integrity }) => {
      const blob = host.blobs.get(integrity)!;
      if (integrity === host.manifest[0]!.integrity) {
        const large = new Uint8Array(blob.length + 200).fill(7);
        large.set(blob, 100);
        return large.subarray(100, 100 + blob.length);
      }
      return blob.buffer.slice(blob.byteOffset, blob.byteOffset + blob.length) as unknown as Uint8Array;
    };
    await host.to('h');
    expect(readdirSync(host.path('current/node_modules'))).toHaveLength(2);
  });

  test.each([
    ['nothing', undefined],
    ['a text', 'text'],
    ['null', null],
    ['a number', 5],
  ])('%s instead of bytes is an error of the call', async (_, value) => {
    const host = makeHost(await somePackages(1));
    host.deps.fetchBlob = async () => value as never;
    expect((await rejection(host.to('h'))).code).toBe('HF_INVALID_ARGUMENT');
    expect(names(host.path('cache'))).toEqual([]);
  });

  test('one that throws at once is one that rejects', async () => {
    const host = makeHost(await somePackages(1));
    host.deps.fetchBlob = () => {
      throw new Error('at once');
    };
    expect((await rejection(host.to('h'))).message).toBe('at once');
  });

  test('options that mean nothing are refused before anything is touched', () => {
    const fetchBlob = async () => new Uint8Array();
    const wrong = [
      { storeRoot: '' },
      { storeRoot: 5 },
      { fetchBlob: 'x' },
      { concurrency: 0 },
      { linkMode: 'soft' },
      { durability: 'maybe' },
      { verify: 'all' },
      { materializer: 'npm' },
      { limits: 5 },
      { limits: { maxEntries: -1 } },
      { lockTimeoutMs: Number.NaN },
      { treeGcGraceMs: -1 },
      { roots: [] },
    ];
    for (const bad of wrong) {
      expect(() => createReconcileFsDeps({ storeRoot: '/tmp/none', fetchBlob, ...(bad as object) }), JSON.stringify(bad)).toThrow(
        expect.objectContaining({ code: 'HF_INVALID_ARGUMENT' }),
      );
    }
  });
});

describe('work off the main thread', () => {
  test('check 40: the event loop turns while packages are seeded and a tree is built', async () => {
    const host = makeHost(await somePackages(120, 20), { durability: 'full' });
    const began = performance.now();
    let [longest, last] = [0, began];
    const timer = setInterval(() => {
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }, 1);
    await host.to('h');
    clearInterval(timer);
    const whole = performance.now() - began;
    expect(names(host.path('current/node_modules'))).toHaveLength(120);
    // The target of 20 ms is measured by `npm run bench`; a loaded machine takes a thread off its core for longer than that.
    expect(longest).toBeLessThan(Math.max(100, whole / 3));
  });
});
