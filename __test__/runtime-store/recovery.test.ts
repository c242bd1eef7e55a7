// @pool forks: what counts happens in processes of its own.
/** A23, A24: real processes killed at every step of a batch and of its undoing, then recovered. */
import { cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import type { RuntimeStoreFault } from 'holdfast';
import { describe, expect, it } from 'vitest';

import { dataOf, leftovers, openRuntime, readJson, rejection, run, tempDir, visible } from './support';

const kill = (point: RuntimeStoreFault['point'], nth = 1): RuntimeStoreFault => ({ point, nth, action: 'kill' });
/**
 * Every step of a two-store batch, and what a crash there must leave after recovery. After `after_stage_files` everything is
 * written and nothing synced: a kill alone loses none of it, so that recovery may finish the batch as well as drop it.
 */
const STEPS: [string, RuntimeStoreFault[], 'old' | 'new' | 'either'][] = [
  ['after_lock', [kill('after_lock')], 'old'],
  ['after_stage_files', [kill('after_stage_files')], 'either'],
  ['after_commit_point', [kill('after_commit_point')], 'new'],
  ['between_publish 1', [kill('between_publish', 1)], 'new'],
  ['between_publish 2', [kill('between_publish', 2)], 'new'],
  ['between_publish 3', [kill('between_publish', 3)], 'new'],
  ['between_publish 4', [kill('between_publish', 4)], 'new'],
  ['after_publish', [kill('after_publish')], 'new'],
  ['before_cleanup', [kill('before_cleanup')], 'new'],
  ['in_undo', [{ op: 'rename', pathEnds: 'opencode-sessions.json', action: { errno: 1 } }, kill('in_undo')], 'old'],
];
const KINDS = ['new stores', 'healthy stores'] as const;
const cases = KINDS.flatMap((kind) => STEPS.map((step) => [kind, ...step] as const));

/** A directory in which a process was killed while it wrote `new`. */
async function killed(kind: (typeof KINDS)[number], faults: RuntimeStoreFault[]): Promise<string> {
  const dir = tempDir();
  if (kind === 'healthy stores') await openRuntime(dir, { idPrefix: 'old-' }).writePair('old');
  const ended = await run('batch-once.mjs', dir, 'new', JSON.stringify(faults));
  expect(ended).toMatchObject({ signal: 'SIGKILL', out: '' });
  return dir;
}
const versions = (dir: string) => ['launch-state.json', 'opencode-sessions.json'].map((name) => dataOf(dir, name)?.version);

describe('a process killed in a batch', () => {
  it.each(cases)('A23: %s, %s', async (kind, _, faults, allowed) => {
    const dir = await killed(kind, faults);

    // A24: the original, which knows neither the sidecar nor hf keys, never calls a mixture healthy.
    const bare = tempDir();
    cpSync(dir, bare, { recursive: true });
    rmSync(join(bare, '.holdfast'), { recursive: true, force: true });
    const receipts = join(bare, 'opencode-runtime-receipts.json');
    if (existsSync(receipts)) {
      writeFileSync(receipts, JSON.stringify(JSON.parse(readFileSync(receipts, 'utf8')), (key, value) => (key.startsWith('hf') ? undefined : value)));
    }
    const [launch, sessions] = versions(bare);
    const seen = await openRuntime(bare, { planner: { rollForward: false } }).plan();
    if (launch !== sessions) expect(seen.manifestHealthy).toBe(false);

    // Reads and plans change nothing, and a plan before recovery is never worse than degraded where the batch can be finished.
    const store = openRuntime(dir);
    const before = visible(dir);
    const planned = await store.plan();
    await Promise.all([store.manifestStore.read(), store.receiptStore.list()]);
    expect(visible(dir)).toEqual(before);
    if (allowed === 'new') expect(planned.readinessImpact).not.toBe('blocked');

    const report = await store.recover();
    const outcome = allowed === 'either' ? (versions(dir)[0] === 'new' ? 'new' : 'old') : allowed;
    const expected = outcome === 'new' ? 'new' : kind === 'healthy stores' ? 'old' : undefined;
    expect(versions(dir)).toEqual([expected, expected]);
    const { highWatermark, lastCommittedBatchId } = await store.manifestStore.read();
    const count = Number(kind === 'healthy stores') + Number(outcome === 'new');
    expect([highWatermark, lastCommittedBatchId]).toEqual([count, outcome === 'new' ? 'new-batch-1' : count ? 'old-batch-1' : null]);
    expect((await store.receiptStore.list()).map(({ state }) => state)).toEqual(Array(count).fill('committed'));
    expect(report.after).toEqual(await store.plan());
    expect(report.after).toMatchObject(count ? { manifestHealthy: true, readinessImpact: 'none' } : { readinessImpact: 'blocked', diagnostics: ['Runtime store missing: opencode.launchState', 'Runtime store missing: opencode.sessionStore'] });
    expect(leftovers(dir)).toEqual([]);

    const after = visible(dir);
    expect((await store.recover()).steps).toEqual([]);
    expect(visible(dir)).toEqual(after);
    expect(await store.writePair('next')).toMatchObject({ state: 'committed' });
    expect(await store.plan()).toMatchObject({ manifestHealthy: true });
  });

  it.each(cases)('the next batch settles it without recover(): %s, %s', async (kind, _, faults, allowed) => {
    const dir = await killed(kind, faults);
    const store = openRuntime(dir, { idPrefix: 'next-' });
    await store.writePair('next');
    expect(versions(dir)).toEqual(['next', 'next']);
    const ids = (await store.receiptStore.list()).map(({ batchId }) => batchId);
    const outcome = allowed === 'either' ? (ids.includes('new-batch-1') ? 'new' : 'old') : allowed;
    expect((await store.manifestStore.read()).highWatermark).toBe(Number(kind === 'healthy stores') + Number(outcome === 'new') + 1);
    expect(ids.includes('new-batch-1')).toBe(outcome === 'new');
    expect(await store.plan()).toMatchObject({ manifestHealthy: true, diagnostics: [] });
    expect(leftovers(dir)).toEqual([]);
  });

  it('A26: an interrupted publish plans as roll_forward, degraded; with rollForward false as the original would', async () => {
    const dir = await killed('healthy stores', [kill('between_publish', 2)]);
    const plan = await openRuntime(dir).plan();
    expect(plan).toMatchObject({ readinessImpact: 'degraded', manifestHealthy: false });
    expect(plan.actions.filter(({ kind }) => kind === 'roll_forward')).not.toEqual([]);
    for (const action of plan.actions) if (action.kind === 'roll_forward') expect(action).toMatchObject({ batchId: 'new-batch-1', reason: 'batch_publish_interrupted' });
    const original = await openRuntime(dir, { planner: { rollForward: false } }).plan();
    expect(original).toMatchObject({ readinessImpact: 'blocked', actions: [{ kind: 'quarantine', reason: 'hash_mismatch' }, { kind: 'quarantine', reason: 'hash_mismatch' }] });
  });

  it.each([1, 2, 3, 4, 5, 6])('a crash during recovery (point %i) changes nothing in the result', async (nth) => {
    for (const [kind, faults, expected] of [
      ['healthy stores', [kill('after_commit_point')], 'new'],
      ['healthy stores', [kill('between_publish', 2)], 'new'],
      ['healthy stores', [{ op: 'rename', pathEnds: 'manifest.json', action: { errno: 1 } }, kill('in_undo')], 'old'],
    ] as [(typeof KINDS)[number], RuntimeStoreFault[], string][]) {
      const dir = await killed(kind, faults);
      await run('recover-once.mjs', dir, JSON.stringify([kill('in_recovery', nth)]));
      const store = openRuntime(dir);
      const { after } = await store.recover();
      expect(after).toMatchObject({ manifestHealthy: true, readinessImpact: 'none' });
      expect(versions(dir)).toEqual([expected, expected]);
      expect((await store.manifestStore.read()).highWatermark).toBe(expected === 'new' ? 2 : 1);
      expect(leftovers(dir)).toEqual([]);
      expect((await store.recover()).steps).toEqual([]);
    }
  });

  it('the first crash during recovery does happen', async () => {
    const dir = await killed('healthy stores', [kill('after_commit_point')]);
    expect(await run('recover-once.mjs', dir, JSON.stringify([kill('in_recovery')]))).toMatchObject({ signal: 'SIGKILL', out: '' });
  });
});

describe('control files that cannot be read (W17)', () => {
  it('a bad manifest is set aside and made anew, watermark included; bad receipts, too', async () => {
    const dir = tempDir();
    const store = openRuntime(dir);
    for (let i = 1; i <= 3; i++) await store.writePair(i);
    const good = await store.manifestStore.read();
    writeFileSync(store.manifestPath, '{bad');
    const report = await store.recover();
    expect(report).toMatchObject({ before: null, after: { manifestHealthy: true, readinessImpact: 'none' } });
    expect(report.steps.map(({ kind }) => kind)).toContain('rebuild_manifest');
    expect(await store.manifestStore.read()).toMatchObject({ ...good, lastRecoveryPlanId: 'plan-1' });
    expect(Object.entries(visible(dir)).find(([name]) => name.startsWith('manifest.json.invalid_json.'))?.[1]).toBe('{bad');
    expect((await store.recover()).steps).toEqual([]);

    writeFileSync(store.receiptsPath, '[]');
    expect(await store.recover()).toMatchObject({ before: null, after: { manifestHealthy: true } });
    expect(await store.receiptStore.list()).toEqual([]);
    expect(await store.writePair('next')).toMatchObject({ state: 'committed' });
    expect((await store.recover()).steps).toEqual([]);
  });

  it('one of a newer version stays untouched, and recover() says so', async () => {
    for (const name of ['manifest.json', 'opencode-runtime-receipts.json']) {
      const dir = tempDir();
      const store = openRuntime(dir);
      await store.writePair('old');
      writeFileSync(join(dir, name), JSON.stringify({ ...readJson(dir, name), schemaVersion: 2 }));
      const before = visible(dir);
      expect(await rejection(store.recover())).toMatchObject({ hfCode: 'HF_FORMAT_TOO_NEW' });
      for (const [path, text] of Object.entries(before)) expect(visible(dir)[path]).toBe(text);
    }
  });
});
