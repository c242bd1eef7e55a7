// @pool forks @runtime node
/** Full disks, clocks that jump, bytes that change, collections beside commits, and another SQLite that looks at a live file. */
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { completionOf, type QueuedWorkClaim } from 'holdfast';
import { describe, expect, onTestFinished, test } from 'vitest';

import { canMount, empty, fill, smallDisk, unmountDisks } from '../support/disk';
import { FIRST_SEED } from './model/round';
import { random } from './model/steps';
import { append, ask, commit, draft, failure, ids, newFile, node, open, raw, tempDir } from './support';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const request = { sessionId: 'root', ownerId: 'o', leaseTtlMs: 600_000, boundary: 'idle', maxBatches: 1 } as const;
const used = (inputTokens: number) => ({ source: 's', model: 'm', usage: { inputTokens, outputTokens: 0, cachedInputTokens: 0, reasoningTokens: 0 } });

describe.runIf(canMount)('a full disk', () => {
  test.each([0, 3, 8, 21, 34])('in a commit, with %i pages left: nothing of it is there; with room it goes on without opening again', async (pages) => {
    const disk = smallDisk();
    // After the stores have been closed.
    onTestFinished(unmountDisks);
    const store = await open(join(disk, 's.db'), { blobProfile: 'lowLatency' });
    await store.commitRuntimeState(append([node('n0')], { usageDeltas: [used(1)] }));
    fill(disk, pages);
    let [told, refused] = [0, 0];
    const turn = async (n: number): Promise<void> => {
      await store.enqueueQueuedWork(draft({ payloads: [n], sourceKey: `w${n}` }));
      const claim = (await store.claimReadyQueuedWork({ ...request, leaseTtlMs: 0 }))!;
      await store.commitRuntimeState(
        append([node(`n${n}`, `n${told}`)], {
          expectedHeadRevision: told + 1,
          checkpoint: { turnState: n, toolState: `${n} `.repeat(6000) },
          usageDeltas: [used(1)],
          completedQueueClaims: [completionOf(claim)],
          turnCommit: { sessionId: 'root', turnId: `t${n}` },
        }),
      );
      told = n;
    };
    const sound = async (): Promise<void> => {
      const session = (await store.loadSession({ scope: 'activePath' }))!;
      expect(session.graph.nodes.map(({ nodeId }) => nodeId)).toEqual(Array.from({ length: told + 1 }, (_, n) => `n${n}`));
      expect([session.headRevision, session.tokenLedger[0]?.usage.inputTokens]).toEqual([told + 1, told + 1]);
      if (told > 0) expect(session.checkpoint?.toolState).toBe(`${told} `.repeat(6000));
      const waiting = (await store.listQueuedWork('root')).map(({ items }) => items[0]!.payload);
      expect(waiting.every((n) => n === told + 1)).toBe(true);
    };
    for (let round = 0; round < 60 && refused < 4; round++) {
      const error = await turn(told + 1).then(() => null, (reason: unknown) => reason as { name: string; hfCode: string });
      if (error !== null) {
        refused++;
        expect(error).toMatchObject({ name: 'StoreFullError', hfCode: 'HF_DISK_FULL' });
      }
      await sound();
    }
    expect(refused).toBe(4);
    empty(disk);
    await turn(told + 1);
    await sound();
    expect(await store.verify({ deep: true })).toEqual([]);
    await store.close();
    const again = await open(join(disk, 's.db'));
    expect((await again.loadSession({ scope: 'fullGraph' }))?.headRevision).toBe(told + 1);
  });
});

test('1: four processes that compare and set make one chain', async () => {
  const path = newFile();
  await (await open(path)).close();
  await Promise.all(['a', 'b', 'c', 'd'].map((owner) => ask(path, 'chain', owner, '20')));
  const store = await open(path);
  const { graph, headRevision } = (await store.loadSession({ scope: 'activePath' }))!;
  expect(headRevision).toBe(80);
  // Each was built on what was there just before it: nobody's commit is lost, and none is built on a past.
  expect(graph.nodes.map(({ payload }) => (payload as { seen: number }).seen)).toEqual(Array.from({ length: 80 }, (_, n) => n));
});

test('a collection beside commits that bring orphans back: what is committed stays, what was gone is missing', async () => {
  const path = newFile();
  const [sweeper, writer] = await Promise.all([open(path, { durability: 'normal' }), open(path, { durability: 'normal' })]);
  await writer.commitRuntimeState(commit());
  // So many that a collection takes several transactions, between which the other one writes.
  await Promise.all(Array.from({ length: 1300 }, (_, n) => writer.putBlob(bytes(`orphan ${n}`))));
  let over = false;
  let [collected, landed, missing] = [0, 0, 0];
  const sweeping = (async () => {
    while (!over) collected += (await sweeper.gcUnreachable()).deletedBlobCount;
  })();
  for (let n = 0; n < 250; n++) {
    const content = `orphan ${(n * 7) % 1300}`;
    const ref = await writer.putBlob(bytes(content));
    if (n % 3 === 0) await writer.gcUnreachable();
    const error = await writer.commitRuntimeState(commit({ retainedBlobRefs: [ref], checkpoint: { turnState: n, toolState: { kept: n % 5 } } })).catch((reason: unknown) => reason as Error);
    if (error instanceof Error) {
      missing++;
      expect(error).toMatchObject({ name: 'MissingBlobError', ref });
      continue;
    }
    landed++;
    expect(await writer.getBlob(ref)).toEqual(bytes(content));
    expect((await writer.loadSession({ scope: 'activePath' }))?.checkpoint?.toolState).toEqual({ kept: n % 5 });
  }
  over = true;
  await sweeping;
  // Both happen: now and then a blob is collected between its putting and the commit that names it.
  expect({ landed: landed > 0, missing: missing > 0, collected: collected > 0 }).toEqual({ landed: true, missing: true, collected: true });
  expect(await writer.verify({ deep: true })).toEqual([]);
  // A collection that spares the young never takes what was just put.
  for (let n = 0; n < 20; n++) {
    const [ref] = await Promise.all([writer.putBlob(bytes(`young ${n}`)), sweeper.gcUnreachable({ minBlobAgeMs: 60_000 })]);
    await Promise.all([sweeper.gcUnreachable({ minBlobAgeMs: 60_000 }), writer.commitRuntimeState(commit({ retainedBlobRefs: [ref] }))]);
    expect(await writer.getBlob(ref)).not.toBeNull();
  }
});

/** A program whose wall clock is set off; `null`, loudly, where that is not possible. */
const shim = (() => {
  const [source, library] = [join(__dirname, '../../tests/support/clock_shim.c'), join(tempDir(), 'clock_shim.so')];
  const isThere = process.platform === 'linux' && spawnSync('cc', ['-shared', '-fPIC', '-O1', '-o', library, source, '-ldl']).status === 0;
  if (!isThere) console.warn('SKIPPED: tests of clocks that jump need Linux and a C compiler');
  return isThere ? readFileSync(library) : null;
})();

test.skipIf(shim === null)('a clock that jumps: no batch has two owners, and none is lost', async () => {
  const path = newFile();
  const library = join(tempDir(), 'clock_shim.so');
  writeFileSync(library, shim!);
  const claimAt = (seconds: number): QueuedWorkClaim | null => {
    const env = { ...process.env, LD_PRELOAD: library, HOLDFAST_CLOCK_SECONDS: String(seconds) };
    const { stdout, stderr, status } = spawnSync(process.execPath, [join(__dirname, 'fixtures/graph-child.mjs'), path, 'claim', '600000'], { encoding: 'utf8', env });
    expect({ stderr, status }).toEqual({ stderr: '', status: 0 });
    return JSON.parse(stdout.slice('answer '.length)) as QueuedWorkClaim | null;
  };
  const store = await open(path);
  await store.enqueueQueuedWork(draft());
  const mine = (await store.claimReadyQueuedWork(request))!;
  // In the past the lease is live all the more, now as well; in an hour it has lapsed.
  expect(claimAt(-3600)).toBeNull();
  expect(claimAt(0)).toBeNull();
  const theirs = claimAt(3600)!;
  expect(theirs.batches).toEqual(mine.batches);
  expect(theirs.fencingToken).toBeGreaterThan(mine.fencingToken);
  expect(theirs.claimedAtEpochMs - mine.claimedAtEpochMs).toBeGreaterThan(3_500_000);
  const late = commit({ completedQueueClaims: [completionOf(mine)] });
  expect(await failure(store.commitRuntimeState(late))).toMatchObject({ name: 'QueuedWorkClaimExpiredError' });
  expect(await failure(store.renewQueuedWorkClaim(mine, 1000))).toMatchObject({ name: 'QueuedWorkClaimExpiredError' });
  // Here their lease ends in an hour and ten minutes; who holds its token may still give it back, or shorten it.
  expect(await store.claimReadyQueuedWork(request)).toBeNull();
  await store.renewQueuedWorkClaim(theirs, 0);
  const next = (await store.claimReadyQueuedWork(request))!;
  expect(next.fencingToken).toBeGreaterThan(theirs.fencingToken);
  await store.commitRuntimeState(commit({ completedQueueClaims: [completionOf(next)] }));
  expect(await store.listQueuedWork('root')).toEqual([]);
});

test('changed bytes: what is read is right, or an error says so; nothing hangs, nothing crashes', async () => {
  const path = newFile();
  const store = await open(path);
  const content = bytes('picture '.repeat(300));
  const ref = await store.putNamedArtifact('picture', content);
  for (let n = 1; n <= 8; n++) {
    await store.enqueueQueuedWork(draft({ payloads: [n] }));
    await store.commitRuntimeState(
      append([node(`n${n}`, n > 1 ? `n${n - 1}` : null)], { checkpoint: { turnState: n, toolState: 'tool '.repeat(1200), executionState: new Uint8Array(600).fill(n) } }),
    );
  }
  const state = (await store.loadSession({ scope: 'fullGraph' }))!.checkpoint;
  await store.close();
  const golden = readFileSync(path);
  const pick = random(FIRST_SEED);
  let [refused, same] = [0, 0];
  for (let round = 0; round < 45; round++) {
    let damaged = Buffer.from(golden);
    // The first page says how to read the others.
    const at = pick(3) === 0 ? pick(4096) : pick(golden.length);
    const kind = pick(8);
    if (kind < 6) damaged[at]! ^= 1 << pick(8);
    else if (kind === 6) damaged.fill(0, at - (at % 512), at - (at % 512) + 512);
    else damaged = damaged.subarray(0, at);
    const place = `HOLDFAST_SEED=${FIRST_SEED}, round ${round}: kind ${kind} at ${at}`;
    for (const end of ['', '-wal', '-shm']) rmSync(`${path}${end}`, { force: true });
    writeFileSync(path, damaged);
    const check = async (call: Promise<unknown>): Promise<unknown> => {
      try {
        return await call;
      } catch (error) {
        expect((error as { hfCode?: string }).hfCode, `${place}: ${String(error)}`).toMatch(/^HF_(?!PANIC|INTERNAL)/);
        refused++;
        return undefined;
      }
    };
    const damagedStore = (await check(open(path, { busyTimeoutMs: 500 }))) as Awaited<ReturnType<typeof open>> | undefined;
    if (damagedStore === undefined) continue;
    const blob = (await check(damagedStore.getBlob(ref))) as Uint8Array | null | undefined;
    if (blob) expect(Buffer.compare(blob, content), place).toBe(0);
    const session = (await check(damagedStore.loadSession({ scope: 'fullGraph' }))) as { headRevision: number; checkpoint: unknown } | undefined;
    // Rows carry no checksum, blobs and manifests do.
    if (session?.headRevision === 8) {
      expect(session.checkpoint, place).toEqual(state);
      same++;
    }
    for (const call of [
      () => damagedStore.loadSession({ scope: 'activePath' }, { tolerant: true }),
      () => damagedStore.verify({ deep: true }),
      () => damagedStore.listQueuedWork('root'),
      () => damagedStore.claimReadyQueuedWork(request),
      () => damagedStore.gcUnreachable(),
      () => damagedStore.commitRuntimeState(append([node('z')])),
      () => damagedStore.close(),
    ]) {
      await check(call());
    }
  }
  expect(refused).toBeGreaterThan(0);
  expect(same).toBeGreaterThan(0);
});

test('another SQLite may look at a live file, from a process of its own', async () => {
  const path = newFile();
  const store = await open(path);
  let over = false;
  const writing = (async () => {
    let n = 0;
    for (; !over; n++) await store.commitRuntimeState(append([node(`n${n}`, n > 0 ? `n${n - 1}` : null)]));
    return n;
  })();
  let last = 0;
  for (let look = 0; look < 4; look++) {
    const [row] = await new Promise<Record<string, number>[]>((resolve) => setTimeout(() => resolve(raw(path, 'SELECT count(*) AS n FROM graph_nodes') as Record<string, number>[]), 5));
    expect(row!.n).toBeGreaterThanOrEqual(last);
    last = row!.n!;
  }
  over = true;
  const written = await writing;
  expect(last).toBeGreaterThan(0);
  // It was not the last one to close the file, so the log is still there and whole.
  expect(await ids(store, { scope: 'fullGraph' })).toHaveLength(written);
  expect(raw(path, 'PRAGMA integrity_check')).toEqual([{ integrity_check: 'ok' }]);
  await store.commitRuntimeState(append([node('z')]));
  await store.close();
  expect(await (await open(path)).verify({ deep: true })).toEqual([]);
});
