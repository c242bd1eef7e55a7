// @pool forks: what counts happens in processes of its own.
/** Somebody writes between a crash and the recovery: what is newer survives, also a crash during recovery. */
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { VersionedJsonStore, type RuntimeStoreFault } from 'holdfast';
import { describe, expect, it } from 'vitest';

import { envelopeText, replace, writeOriginalBatch } from './fixtures/original.mjs';
import { dataOf, fixedClock, IDENTITY, LAUNCH, leftovers, openRuntime, run, SESSIONS, tempDir, visible } from './support';

const CRASHES: [string, RuntimeStoreFault['point'], number][] = [
  ['at the commit point', 'after_commit_point', 1],
  ['after the first store', 'between_publish', 1],
  ['after both stores', 'between_publish', 2],
  ['after the receipts', 'between_publish', 3],
  ['after the manifest', 'between_publish', 4],
  ['before the clean-up', 'before_cleanup', 1],
];

async function killed(point: RuntimeStoreFault['point'], nth: number): Promise<string> {
  const dir = tempDir();
  await openRuntime(dir, { idPrefix: 'old-' }).writePair('old');
  expect(await run('batch-once.mjs', dir, 'new', JSON.stringify([{ point, nth, action: 'kill' }]))).toMatchObject({ signal: 'SIGKILL' });
  return dir;
}
const launch = (dir: string) => join(dir, 'launch-state.json');
const original = (dir: string, stores: (typeof LAUNCH)[]) =>
  writeOriginalBatch(dir, { batchId: 'theirs', identity: IDENTITY, writes: stores.map((store) => ({ ...store, data: { version: 'theirs' } })) });
const versions = (dir: string) => ['launch-state.json', 'opencode-sessions.json'].map((name) => dataOf(dir, name)?.version);
const ids = async (dir: string) => (await openRuntime(dir).receiptStore.list()).map(({ batchId }) => batchId);
/** The text stands in the directory: in place, or in a file that recovery put aside and reported. */
function survives(dir: string, text: string): string | undefined {
  return Object.entries(visible(dir)).find(([, content]) => content === text)?.[0];
}

/** Recovers after a number of crashes of recovery itself (0 = none), and twice. */
async function recoverAfterCrashes(dir: string, crashAt: number) {
  if (crashAt > 0) await run('recover-once.mjs', dir, JSON.stringify([{ point: 'in_recovery', nth: crashAt, action: 'kill' }]));
  const report = await openRuntime(dir).recover();
  expect(leftovers(dir)).toEqual([]);
  expect((await openRuntime(dir).recover()).steps).toEqual([]);
  return report;
}

describe.each(CRASHES)('a crash %s, then', (_, point, nth) => {
  it('a hand edit of a store: kept in place or put aside, and reported', async () => {
    for (const crashAt of [0, 1]) {
      const dir = await killed(point, nth);
      const edited = envelopeText({ version: 'edited' });
      writeFileSync(launch(dir), edited);
      const report = await recoverAfterCrashes(dir, crashAt);
      const where = survives(dir, edited);
      expect(where, 'the edit is gone').toBeDefined();
      if (crashAt === 0) expect(JSON.stringify(report.steps)).toContain('launchState');
      expect(versions(dir)[1]).toBe('new');
      expect(await ids(dir)).toEqual(['old-batch-1', 'new-batch-1']);
    }
  });

  it.each([
    ['replaced', (path: string) => replace(path, '{half of an edit')],
    ['in place', (path: string) => writeFileSync(path, '{half of an edit')],
  ])('an edit that broke a store, %s: the other one gets the batch, and what was dropped is kept aside', async (_, edit) => {
    const dir = await killed(point, nth);
    edit(launch(dir));
    await recoverAfterCrashes(dir, 0);
    expect(survives(dir, '{half of an edit'), 'the bytes are gone').toBeDefined();
    expect(versions(dir)[1]).toBe('new');
  });

  it('an updateLocked on a store: sees the batch, and survives', async () => {
    const dir = await killed(point, nth);
    const store = new VersionedJsonStore({ filePath: launch(dir), schemaVersion: 1, defaultData: () => ({ version: 'none' }), validate: (value) => value as { version: string }, clock: fixedClock });
    const { data } = await store.updateLocked(({ version }) => ({ version: `${version}+update` }));
    expect(data).toEqual({ version: 'new+update' });
    expect(versions(dir)).toEqual(['new+update', 'new']);
    await recoverAfterCrashes(dir, 0);
    expect(survives(dir, envelopeText({ version: 'new+update' }))).toBeDefined();
    expect(await ids(dir)).toEqual(['old-batch-1', 'new-batch-1']);
  });

  it('a change of the manifest: sees the batch, and survives', async () => {
    const dir = await killed(point, nth);
    const manifest = await openRuntime(dir).manifestStore.setActiveRun({ runId: 'run-1', behaviorFingerprint: 'changed' });
    expect(manifest).toMatchObject({ highWatermark: 2, lastCommittedBatchId: 'new-batch-1', activeBehaviorFingerprint: 'changed' });
    await openRuntime(dir).receiptStore.list();
    await recoverAfterCrashes(dir, 0);
    expect(versions(dir)).toEqual(['new', 'new']);
    expect(await openRuntime(dir).manifestStore.read()).toMatchObject({ highWatermark: 2, activeBehaviorFingerprint: 'changed' });
  });

  it.each([0, 1])('a batch of the original on one store: both survive (crash %i in recovery)', async (crashAt) => {
    const dir = await killed(point, nth);
    original(dir, [LAUNCH]);
    const before = await openRuntime(dir).manifestStore.read();
    await recoverAfterCrashes(dir, crashAt);
    expect(versions(dir)).toEqual(['theirs', 'new']);
    const manifest = await openRuntime(dir).manifestStore.read();
    const applied = point === 'before_cleanup' || nth === 4;
    expect(manifest.highWatermark).toBe(before.highWatermark + (applied ? 0 : 1));
    expect(manifest.entries.map(({ lastWriteReceiptId }) => lastWriteReceiptId)).toEqual(['theirs-receipt-0', 'new-receipt-2']);
    expect((await ids(dir)).sort()).toEqual(['new-batch-1', 'old-batch-1', 'theirs']);
    expect(await openRuntime(dir).plan()).toMatchObject({ manifestHealthy: true, readinessImpact: 'none' });
  });

  it('a batch of the original on both stores: theirs stays, and the older batch is reported', async () => {
    const dir = await killed(point, nth);
    original(dir, [LAUNCH, SESSIONS]);
    const report = await recoverAfterCrashes(dir, 0);
    expect(versions(dir)).toEqual(['theirs', 'theirs']);
    expect(await openRuntime(dir).plan()).toMatchObject({ manifestHealthy: true, readinessImpact: 'none' });
    if (point === 'after_commit_point') {
      expect(report.steps).toMatchObject([{ kind: 'supersede', batchId: 'new-batch-1' }]);
      expect(readdirSync(join(dir, '.holdfast', 'superseded'))).toHaveLength(1);
    }
  });

  it('a reset of the whole directory: recovery brings nothing back', async () => {
    const dir = await killed(point, nth);
    for (const name of readdirSync(dir)) rmSync(join(dir, name), { recursive: true });
    const { after } = await openRuntime(dir).recover();
    expect(after.diagnostics).toEqual(['Runtime store missing: opencode.launchState', 'Runtime store missing: opencode.sessionStore']);
    expect(existsSync(launch(dir))).toBe(false);
  });
});

describe('a crash in the undo, then', () => {
  it('a hand edit survives, and the rest is as before the batch', async () => {
    const dir = tempDir();
    await openRuntime(dir, { idPrefix: 'old-' }).writePair('old');
    const faults = [{ op: 'rename', pathEnds: 'manifest.json', action: { errno: 1 } }, { point: 'in_undo', action: 'kill' }];
    expect(await run('batch-once.mjs', dir, 'new', JSON.stringify(faults))).toMatchObject({ signal: 'SIGKILL' });
    expect(versions(dir)).toEqual(['new', 'new']);
    const edited = envelopeText({ version: 'edited' });
    writeFileSync(launch(dir), edited);
    await recoverAfterCrashes(dir, 0);
    expect(survives(dir, edited)).toBeDefined();
    expect(versions(dir)[1]).toBe('old');
    expect((await openRuntime(dir).manifestStore.read()).highWatermark).toBe(1);
  });
});
