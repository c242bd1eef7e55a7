/** A2 to A6, R34 to R42, W8: what a plan says, and that it only looks. */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import {
  buildRecoveryAction,
  buildRuntimeStoreReadiness,
  OPENCODE_RUNTIME_STORE_DESCRIPTORS,
  RuntimeStoreFileInspector,
  RuntimeStoreRecoveryPlanner,
  VersionedJsonStoreError,
  type RuntimeStoreDescriptor,
  type RuntimeStoreManifestEntryState,
  type RuntimeStoreRecoveryPlan,
} from 'holdfast';
import { beforeEach, describe, expect, it } from 'vitest';

import { descriptorOf, EXPECTED, fixedClock, IDENTITY, LAUNCH, NOW, openRuntime, rejection, SESSIONS, tempDir, tree } from './support';

let dir: string;
beforeEach(() => {
  dir = tempDir();
});

const put = (descriptor: RuntimeStoreDescriptor, text: string) => writeFileSync(join(dir, descriptor.relativePath), text);
const envelope = (data: unknown, schemaVersion = 1) => JSON.stringify({ schemaVersion, updatedAt: NOW, data });
/** Plans for `descriptors`, and checks that planning touched nothing. */
async function plan(descriptors: RuntimeStoreDescriptor[], input = {}): Promise<RuntimeStoreRecoveryPlan> {
  const before = tree(dir);
  const built = await openRuntime(dir, { descriptors }).planner.buildPlan({ ...EXPECTED, ...input });
  expect(tree(dir)).toEqual(before);
  return built;
}
const readiness = (recoveryPlan: RuntimeStoreRecoveryPlan) => buildRuntimeStoreReadiness({ recoveryPlan, invariantFailures: [] });

describe('a plan', () => {
  it('A2: only a session store, nothing committed', async () => {
    put(SESSIONS, envelope({}));
    const built = await plan([LAUNCH, SESSIONS]);
    expect(built).toEqual({
      planId: 'plan-1', teamName: 'team-a', runId: 'run-1', createdAt: NOW, manifestHealthy: false, readinessImpact: 'blocked',
      actions: [
        { kind: 'block_readiness', schemaName: 'opencode.launchState', reason: 'missing' },
        { kind: 'rebuild_from_provider', schemaName: 'opencode.sessionStore', reason: 'uncommitted_write' },
      ],
      diagnostics: ['Runtime store missing: opencode.launchState', 'Runtime store has no manifest entry: opencode.sessionStore'],
    });
    const store = openRuntime(dir);
    expect((await store.manifestStore.read()).entries).toEqual([]);
    expect(await store.receiptStore.list()).toEqual([]);
    expect(readiness(built)).toMatchObject({ ok: false, reason: 'runtime_store_recovery_required' });
  });

  it('A3: a permissions file that is not JSON', async () => {
    put(descriptorOf('permissionRequests'), '{bad');
    const built = await plan([descriptorOf('permissionRequests')]);
    expect(built.actions).toEqual([{ kind: 'rebuild_from_provider', schemaName: 'opencode.permissionRequests', reason: 'quarantined' }]);
    expect(built).toMatchObject({ readinessImpact: 'degraded', diagnostics: ['Runtime store opencode.permissionRequests failed inspection: invalid_json'] });
    expect(readiness(built).reason).toBe('runtime_store_rebuild_in_progress');
  });

  it('A4: a compatibility snapshot of a newer version', async () => {
    put(descriptorOf('compatibilitySnapshot'), envelope({}, 99));
    expect(await plan([descriptorOf('compatibilitySnapshot')])).toMatchObject({
      readinessImpact: 'blocked',
      actions: [{ kind: 'quarantine', schemaName: 'opencode.compatibilitySnapshot', reason: 'future_schema' }],
      diagnostics: ['Runtime store opencode.compatibilitySnapshot failed inspection: future_schema'],
    });
  });

  it('A5, R38: run, then capability snapshot, then fingerprint must be the expected ones; null counts', async () => {
    const store = openRuntime(dir);
    await store.write([[LAUNCH, {}]], { runId: 'old-run', capabilitySnapshotId: null });
    const blocked = (text: string) => ({ readinessImpact: 'blocked', diagnostics: [text], actions: [{ kind: 'block_readiness', schemaName: 'opencode.launchState', reason: text }] });
    expect(await plan([LAUNCH])).toMatchObject(blocked('Runtime store opencode.launchState has stale run id'));
    expect(await plan([LAUNCH], { expectedRunId: 'old-run' })).toMatchObject(blocked('Runtime store opencode.launchState has stale capability snapshot'));
    expect(await plan([LAUNCH], { expectedRunId: 'old-run', expectedCapabilitySnapshotId: null, expectedBehaviorFingerprint: null })).toMatchObject(
      blocked('Runtime store opencode.launchState has stale behavior fingerprint'),
    );
    expect(await plan([LAUNCH], { expectedRunId: 'old-run', expectedCapabilitySnapshotId: null })).toMatchObject({ readinessImpact: 'none' });
  });

  it('R38, R40: a diagnostic store may be of any run, and harms no readiness', async () => {
    const diagnostics = descriptorOf('runtimeDiagnostics');
    await openRuntime(dir, { descriptors: [diagnostics] }).write([[diagnostics, {}]], { runId: 'old-run' });
    expect(await plan([diagnostics])).toMatchObject({ manifestHealthy: true, readinessImpact: 'none' });
    put(diagnostics, envelope('other bytes'));
    const built = await plan([diagnostics]);
    expect(built).toMatchObject({ manifestHealthy: false, readinessImpact: 'none', actions: [{ kind: 'quarantine', reason: 'hash_mismatch' }] });
    expect(readiness(built).ok).toBe(true);
  });

  it('A6, R42: everything as expected', async () => {
    await openRuntime(dir).write([[LAUNCH, {}]]);
    const built = await plan([LAUNCH]);
    expect(built).toMatchObject({ actions: [{ kind: 'none', schemaName: 'opencode.launchState' }], readinessImpact: 'none', manifestHealthy: true, diagnostics: [] });
    expect(readiness(built)).toEqual({ ok: true, reason: 'runtime_store_manifest_valid', diagnostics: [] });
  });

  it('R36, R37: team first, descriptors in order, then the team\'s uncommitted batches in file order', async () => {
    const store = openRuntime(dir, { teamName: 'team-b' });
    const begin = (batchId: string, teamName: string) =>
      store.receiptStore.begin({ batchId, teamName, ...IDENTITY, reason: 'migration', startedAt: NOW, completedAt: null, receipts: [], lastError: null, state: 'preparing' });
    await store.manifestStore.setActiveRun({ runId: null });
    await begin('z', 'team-a');
    await begin('other', 'team-b');
    await begin('a', 'team-a');
    expect(await plan([SESSIONS, LAUNCH])).toMatchObject({
      diagnostics: [
        'Runtime store manifest team mismatch: team-b', 'Runtime store missing: opencode.sessionStore', 'Runtime store missing: opencode.launchState',
        'Uncommitted runtime store batch detected: z', 'Uncommitted runtime store batch detected: a',
      ],
      actions: [
        { kind: 'block_readiness', schemaName: 'opencode.launchState', reason: 'manifest_team_mismatch' },
        { kind: 'rebuild_from_provider', schemaName: 'opencode.sessionStore', reason: 'missing' },
        { kind: 'block_readiness', schemaName: 'opencode.launchState', reason: 'missing' },
        { kind: 'block_readiness', schemaName: 'opencode.launchTransaction', reason: 'uncommitted_batch:z' },
        { kind: 'block_readiness', schemaName: 'opencode.launchTransaction', reason: 'uncommitted_batch:a' },
      ],
    });
  });

  it.each(['manifest.json', 'opencode-runtime-receipts.json'])('R36: an unreadable %s rejects, and leaves a quarantine copy', async (name) => {
    await openRuntime(dir).writePair('old');
    writeFileSync(join(dir, name), '{bad');
    const error = await rejection(openRuntime(dir).plan());
    expect(error).toBeInstanceOf(VersionedJsonStoreError);
    expect(error).toMatchObject({ reason: 'invalid_json', message: expect.stringContaining(name), quarantinePath: expect.stringContaining('.quarantine') });
  });

  it('R41: ids and times are the caller\'s, the default id has its form, nothing at all is created', async () => {
    rmSync(dir, { recursive: true });
    const store = openRuntime(dir);
    const planner = new RuntimeStoreRecoveryPlanner([LAUNCH], store.manifestStore, store.receiptStore, new RuntimeStoreFileInspector(dir), { clock: fixedClock });
    expect(await planner.buildPlan({ ...EXPECTED, expectedRunId: null })).toMatchObject({ planId: expect.stringMatching(/^opencode-recovery-plan-[0-9a-f-]{36}$/), runId: null, createdAt: NOW });
    expect(tree(dir)).toEqual({});
  });
});

describe('the table of actions (R39)', () => {
  const strategies = ['poll_opencode_provider', 'verify_canonical_destinations', 'rerun_capability_discovery', 'drop_after_quarantine', 'rebuild_from_launch_state', 'none'] as const;
  const other = ['rebuild_from_provider', 'rebuild_from_canonical_destination', 'rerun_capability_discovery', 'quarantine', 'block_readiness', 'block_readiness'];
  const bad = ['rebuild_from_provider', 'rebuild_from_canonical_destination', 'quarantine', 'quarantine', 'quarantine', 'quarantine'];
  const aside = Array(6).fill('quarantine');
  const rows: [RuntimeStoreManifestEntryState, string[]][] = [
    ['future_schema', aside], ['hash_mismatch', aside], ['quarantined', bad], ['missing', other], ['uncommitted_write', other], ['stale_run', other], ['rebuild_required', other],
    ['healthy', Array(6).fill('none')],
  ];
  const cases = rows.flatMap(([state, kinds]) => kinds.map((kind, i) => [state, strategies[i]!, kind] as const));

  it.each(cases)('%s with %s is %s', (state, rebuildStrategy, kind) => {
    const descriptor = { ...LAUNCH, rebuildStrategy };
    const inspected = { descriptor, state, message: null, entry: null, manifestEntry: null };
    expect(buildRecoveryAction({ descriptor, inspected })).toEqual(kind === 'none' ? { kind, schemaName: LAUNCH.schemaName } : { kind, schemaName: LAUNCH.schemaName, reason: state });
  });

  it('the planner in the engine has the same one', async () => {
    const put4: Record<string, (descriptor: RuntimeStoreDescriptor) => void> = {
      missing: (descriptor) => rmSync(join(dir, descriptor.relativePath)),
      quarantined: (descriptor) => put(descriptor, '[]'),
      future_schema: (descriptor) => put(descriptor, envelope(1, 2)),
      hash_mismatch: (descriptor) => put(descriptor, envelope('other')),
    };
    const descriptors = OPENCODE_RUNTIME_STORE_DESCRIPTORS;
    for (const [state, damage] of Object.entries(put4)) {
      await openRuntime(dir, { descriptors, idPrefix: `${state}-` }).write(descriptors.map((descriptor) => [descriptor, {}]));
      descriptors.forEach(damage);
      const expected = descriptors.map((descriptor) =>
        buildRecoveryAction({ descriptor, inspected: { descriptor, state: state as never, message: null, entry: null, manifestEntry: null } }),
      );
      expect((await plan(descriptors)).actions).toEqual(expected);
    }
    rmSync(join(dir, 'manifest.json'));
    rmSync(join(dir, 'opencode-runtime-receipts.json'));
    descriptors.forEach((descriptor) => put(descriptor, envelope({})));
    expect(new Set((await plan(descriptors)).actions.map((action) => 'reason' in action && action.reason))).toEqual(new Set(['uncommitted_write']));
  });
});

describe('inspection (R34, R35)', () => {
  it('the first finding wins, and `entry` says what is known', async () => {
    const store = openRuntime(dir);
    const inspect = async () => store.inspector.inspect({ descriptor: LAUNCH, manifest: await store.manifestStore.read() });
    expect(await inspect()).toEqual({ descriptor: LAUNCH, state: 'missing', message: 'Runtime store missing: opencode.launchState', entry: null, manifestEntry: null });
    put(LAUNCH, '{"schemaVersion":1}');
    expect(await inspect()).toMatchObject({ state: 'uncommitted_write', entry: { fileSize: 19, runId: null, lastWriteReceiptId: null }, manifestEntry: null });
    await store.write([[LAUNCH, {}]]);
    const healthy = await inspect();
    expect(healthy).toMatchObject({ state: 'healthy', message: null, entry: healthy.manifestEntry });
    for (const [text, state, what] of [
      ['x', 'quarantined', 'invalid_json'], ['[1]', 'quarantined', 'invalid_envelope'], ['{"schemaVersion":"1"}', 'quarantined', 'invalid_envelope'],
      ['{"schemaVersion":2}', 'future_schema', 'future_schema'],
    ]) {
      put(LAUNCH, text!);
      expect(await inspect()).toMatchObject({
        state, message: `Runtime store opencode.launchState failed inspection: ${what}`, entry: { ...healthy.manifestEntry, state }, manifestEntry: healthy.manifestEntry,
      });
    }
    put(LAUNCH, envelope('changed'));
    expect(await inspect()).toMatchObject({ state: 'hash_mismatch', message: 'Runtime store hash mismatch: opencode.launchState', entry: { runId: 'run-1', lastWriteReceiptId: 'receipt-1', state: 'hash_mismatch' } });
    expect((await inspect()).entry!.contentHash).not.toBe(healthy.entry!.contentHash);
  });
});
