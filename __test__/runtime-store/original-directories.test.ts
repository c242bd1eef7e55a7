/** A25, A26, C1: directories that the JSON-file implementation left, made here and, where they are at hand, real ones. */
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { describe, expect, it } from 'vitest';

import { ORIGINAL_STEPS, writeOriginalBatch } from './fixtures/original.mjs';
import { dataOf, descriptorOf, IDENTITY, LAUNCH, openRuntime, SESSIONS, tempDir, visible } from './support';

const KINDS = ['was-empty', 'was-healthy'] as const;
type Kind = (typeof KINDS)[number];

/** Makes the directory that a kill of the original after `step` leaves. */
function made(kind: Kind, step: string): string {
  const dir = tempDir();
  const write = (batchId: string, version: string, stopAfter: string) => {
    const writes = [LAUNCH, SESSIONS].map(({ schemaName, relativePath }) => ({ schemaName, relativePath, data: { version } }));
    writeOriginalBatch(dir, { batchId, identity: IDENTITY, writes, stopAfter });
  };
  if (kind === 'was-healthy') write('old', 'old', 's5');
  write('new', 'new', step);
  return dir;
}

const real = fileURLToPath(new URL('../../../shared/fixtures/runtime-store', import.meta.url));
const STEP_OF_FOLDER: Record<string, string> = {
  's0-nothing': 's0', 's1-begun': 's1', 's2-marked': 's2', 's3-first-file': 's3-first', 's3-second-file': 's3-second', 's4-receipts-committed': 's4', 's5-applied': 's5',
};
/** Copies a directory that the original was really killed in. */
function copied(kind: Kind, step: string): string {
  const folder = Object.keys(STEP_OF_FOLDER).find((name) => STEP_OF_FOLDER[name] === step)!;
  const dir = tempDir();
  cpSync(join(real, `${kind}-${folder}`), dir, { recursive: true });
  return dir;
}
const sources: [string, (kind: Kind, step: string) => string][] = [['made', made]];
if (existsSync(real)) sources.push(['real', copied]);
const rows = KINDS.flatMap((kind) => ORIGINAL_STEPS.map((step: string) => [kind, step] as const));

/** What the original's own planner says of each row: `[actions, impact]`. */
function originalPlan(kind: Kind, step: string): [string[], string] {
  const unfinished = ['s1', 's2', 's3-first', 's3-second'].includes(step) ? ['block_readiness'] : [];
  if (step === 's5') return [['none', 'none'], 'none'];
  if (kind === 'was-empty') return [['block_readiness', 'rebuild_from_provider', ...unfinished], 'blocked'];
  const stores = step === 's3-first' ? ['quarantine', 'none'] : ['s3-second', 's4'].includes(step) ? ['quarantine', 'quarantine'] : ['none', 'none'];
  return [[...stores, ...unfinished], step === 's0' ? 'none' : 'blocked'];
}

describe.each(sources)('a directory of the original (%s)', (_, directory) => {
  it.each(rows)('A25: %s, killed after %s: planned as in the crash table, with and without roll-forward', async (kind, step) => {
    const dir = directory(kind, step);
    const before = visible(dir);
    const original = await openRuntime(dir, { planner: { rollForward: false } }).plan();
    expect([original.actions.map((action) => action.kind), original.readinessImpact]).toEqual(originalPlan(kind, step));
    const plan = await openRuntime(dir).plan();
    if (step === 's4') {
      expect(plan.readinessImpact).toBe('degraded');
      expect(plan.actions).toMatchObject([LAUNCH, SESSIONS].map(({ schemaName }) => ({ kind: 'roll_forward', schemaName, reason: 'committed_batch_not_applied', batchId: expect.any(String) })));
    } else {
      expect(plan).toEqual(original);
    }
    expect(visible(dir)).toEqual(before);
  });

  it.each(rows)('A25: %s, killed after %s: recovered', async (kind, step) => {
    const dir = directory(kind, step);
    const store = openRuntime(dir, { executor: { settleMs: 0 } });
    const watermark = (await store.manifestStore.read()).highWatermark;
    const { steps, after } = await store.recover();
    const found = [dataOf(dir, 'launch-state.json')?.version, dataOf(dir, 'opencode-sessions.json')?.version];
    const old = kind === 'was-healthy' ? 'old' : undefined;
    expect((await store.manifestStore.read()).highWatermark).toBe(step === 's4' ? watermark + 1 : watermark);
    const healthy = step === 's4' || step === 's5' || (kind === 'was-healthy' && ['s0', 's1', 's2'].includes(step));
    expect(after.manifestHealthy).toBe(healthy);
    if (healthy) {
      expect(after.readinessImpact).toBe('none');
      expect(found).toEqual(step === 's4' || step === 's5' ? ['new', 'new'] : [old, old]);
      expect(await store.receiptStore.listUncommitted('team-a')).toEqual([]);
    }
    if (kind === 'was-healthy' && (step === 's1' || step === 's2')) {
      expect(steps).toMatchObject([{ kind: 'archive', batchId: expect.any(String) }]);
      expect(readFileSync(join(dir, '.holdfast', 'receipts.archive.jsonl'), 'utf8')).toContain(steps[0]!.batchId);
    }
    if (kind === 'was-healthy' && step.startsWith('s3')) {
      // R39: mismatched bytes are set aside, and what cannot be rebuilt blocks.
      expect(after.readinessImpact).toBe('blocked');
      const aside = readdirSync(dir).filter((name) => name.endsWith('.quarantine'));
      expect(aside).toHaveLength(step === 's3-first' ? 1 : 2);
      for (const name of aside) expect(dataOf(dir, name).version).toBe('new');
    }
    if (kind === 'was-empty' && step.startsWith('s3')) expect(found[0]).toBe('new');
    const settled = visible(dir);
    expect((await store.recover()).steps).toEqual([]);
    expect(visible(dir)).toEqual(settled);
  });

  it('A25: a young unfinished record is left alone, because its writer may live', async () => {
    const store = openRuntime(directory('was-healthy', 's2'), { executor: { settleMs: 60_000, clock: () => new Date(0) } });
    const { steps, after } = await store.recover();
    expect(steps).toEqual([]);
    expect(after.readinessImpact).toBe('blocked');
  });
});

describe('rebuild callbacks', () => {
  it('make anew what the plan asks for, as one batch, and get the quarantine path', async () => {
    const dir = made('was-healthy', 's3-second');
    const asked: unknown[] = [];
    const store = openRuntime(dir, {
      executor: {
        settleMs: 0,
        rebuild: {
          poll_opencode_provider: async (context) => (asked.push(context), { data: { version: 'rebuilt' } }),
          none: async (context) => (asked.push(context), { data: { version: 'rebuilt' } }),
        },
      },
    });
    const { steps, after } = await store.recover();
    expect(asked).toMatchObject([
      { descriptor: { schemaName: 'opencode.launchState' }, reason: 'hash_mismatch', quarantinePath: expect.stringContaining('launch-state.json.') },
      { descriptor: { schemaName: 'opencode.sessionStore' }, reason: 'hash_mismatch' },
    ]);
    expect(steps.map(({ kind }) => kind)).toEqual(['quarantine', 'quarantine', 'rebuild', 'rebuild', 'archive']);
    expect(after).toMatchObject({ manifestHealthy: true, readinessImpact: 'none' });
    expect((await store.receiptStore.list()).at(-1)).toMatchObject({ reason: 'recovery', state: 'committed' });
    expect((await store.recover()).steps).toEqual([]);
  });

  it('may skip, and what one throws arrives as the same object', async () => {
    const bang = new Error('bang');
    const skip = openRuntime(made('was-healthy', 's3-first'), { executor: { settleMs: 0, rebuild: { none: async () => 'skip' } } });
    expect((await skip.recover()).after.readinessImpact).toBe('blocked');
    const broken = openRuntime(made('was-healthy', 's3-first'), { executor: { settleMs: 0, rebuild: { none: () => Promise.reject(bang) } } });
    await expect(broken.recover()).rejects.toBe(bang);
  });

  it('dryRun changes nothing, and says what it would do', async () => {
    const dir = made('was-healthy', 's4');
    const before = visible(dir);
    const { steps, before: plan, after } = await openRuntime(dir, { executor: { dryRun: true } }).recover();
    expect(steps.map(({ kind, batchId }) => [kind, batchId])).toEqual([['roll_forward', 'new'], ['roll_forward', 'new']]);
    expect(after).toEqual(plan);
    expect(visible(dir)).toEqual(before);
    expect(existsSync(join(dir, '.holdfast'))).toBe(false);
  });
});

describe('going on after the original', () => {
  it('C1: both write one directory in turn, and it stays healthy', async () => {
    const dir = tempDir();
    mkdirSync(dir, { recursive: true });
    const store = openRuntime(dir);
    for (let turn = 1; turn <= 4; turn++) {
      await store.writePair(`holdfast-${turn}`);
      writeOriginalBatch(dir, { batchId: `original-${turn}`, identity: IDENTITY, writes: [{ ...LAUNCH, data: { version: `original-${turn}` } }] });
      expect(await store.plan()).toMatchObject({ manifestHealthy: true });
      expect((await store.recover()).steps).toEqual([]);
    }
    expect(await store.manifestStore.read()).toMatchObject({ highWatermark: 8, lastCommittedBatchId: 'original-4' });
    expect((await store.receiptStore.list()).map(({ batchId }) => batchId)).toHaveLength(8);
  });

  it.runIf(existsSync(real))('a long unpruned history is opened, pruned by the next batch, and stays healthy', async () => {
    const dir = tempDir();
    cpSync(join(real, 'long-history-300-batches'), dir, { recursive: true });
    const descriptors = [descriptorOf('deliveryJournal'), descriptorOf('promptDeliveryLedger')];
    const store = openRuntime(dir, { descriptors, idPrefix: 'next-' });
    expect((await store.receiptStore.list()).length).toBe(300);
    await store.write([[descriptors[0]!, {}]]);
    expect((await store.receiptStore.list()).length).toBeLessThan(20);
    expect(readFileSync(join(dir, '.holdfast', 'receipts.archive.jsonl'), 'utf8').trim().split('\n').length).toBeGreaterThan(280);
  });
});
