/** Acts on recovery plans. */
import { resolve } from 'node:path';

import { checkBooleanOrUndefined, checkFiniteNumber, checkFunctionOrUndefined, checkOneOf, checkPath, checkPlainObject, invalidArgument } from '../check';
import { HoldfastError, VersionedJsonStoreError } from '../errors';
import { call, native } from '../native';
import { RECEIPT_RETENTION } from './batch-input';
import { partsOfWriter, type RuntimeStoreBatchWriter } from './batch-writer';
import { RUNTIME_STORE_REBUILD_STRATEGIES } from './descriptors';
import { loadFaults, type RuntimeStoreFault } from './faults';
import { isoTime, type FaultRules } from './internals';
import { checkPlanInput, partsOfPlanner, type PlannerParts, type RuntimeStoreRecoveryPlanInput, type RuntimeStoreRecoveryPlanner } from './planner';
import type { RuntimeStoreDescriptor, RuntimeStoreRebuildStrategy, RuntimeStoreRecoveryPlan } from './types';

/** What a rebuild callback gets. */
export interface RuntimeStoreRebuildContext {
  /** The store to make anew. */
  descriptor: RuntimeStoreDescriptor;
  /** Its state: `missing`, `quarantined`, `hash_mismatch` … */
  reason: string;
  /** Where the bad bytes are, or `null` if there were none. */
  quarantinePath: string | null;
}

/** Makes the data of a store anew, or leaves it as it is. */
export type RuntimeStoreRebuild = (context: RuntimeStoreRebuildContext) => Promise<{ data: unknown } | 'skip'>;

/** Options of a {@link RuntimeStoreRecoveryExecutor}. */
export interface RuntimeStoreRecoveryExecutorOptions {
  /** Callbacks by rebuild strategy. A store whose strategy has none is left to the caller. */
  rebuild?: Partial<Record<RuntimeStoreRebuildStrategy, RuntimeStoreRebuild>>;
  /** Change nothing, and report what would be done. Default `false`. */
  dryRun?: boolean;
  /** Default: the wall clock. */
  clock?: () => Date;
  /** Unfinished records of the original format younger than this are left alone: their writer may live. Milliseconds; default 60000. */
  settleMs?: number;
  /** Faults to inject, for tests of one's own recovery. Default: none. */
  faults?: RuntimeStoreFault[];
}

/** Something that recovery did. */
export interface RuntimeStoreRecoveryStep {
  /** `roll_forward`, `roll_back`, `discard`, `keep_newer`, `supersede`, `quarantine`, `rebuild`, `rebuild_manifest`, `archive`, `remove_leftover`. */
  kind: string;
  /** To which store, where it is about one. */
  schemaName?: string;
  /** For which batch, where it is about one. */
  batchId?: string;
  /** In words. */
  detail: string;
}

/** What `recover()` found, did and left. */
export interface RuntimeStoreRecoveryReport {
  /** The plan before; `null` when a control file could not be read. */
  before: RuntimeStoreRecoveryPlan | null;
  /** What was done, in order; empty when there was nothing to do. */
  steps: RuntimeStoreRecoveryStep[];
  /** The plan after. */
  after: RuntimeStoreRecoveryPlan;
}

/** What {@link RuntimeStoreRecoveryExecutor.verify} found. Times are milliseconds since the epoch, sizes bytes. */
export interface RuntimeStoreVerification {
  /** The plan, or `null` when a control file could not be read. */
  plan: RuntimeStoreRecoveryPlan | null;
  /** The runtime directory. */
  directory: string;
  /** The manifest; `fault` says what is wrong with it. */
  manifest: { path: string; bytes: number | null; fault: string | null };
  /** The receipts; `fault` says what is wrong with them. */
  receipts: { path: string; bytes: number | null; fault: string | null };
  /** Batches applied so far, or `null` when the manifest cannot be read. */
  highWatermark: number | null;
  /** Records in the receipts file. */
  batches: number;
  /** Ids of batches that never ended. */
  unresolved: string[];
  /** Batches that are being written (`alive`) or were interrupted. */
  openBatches: { folder: string; batchId: string | null; state: 'incomplete' | 'committed' | 'aborted'; alive: boolean }[];
  /** Lock files; `held` by a living holdfast process. */
  locks: { path: string; content: string; held: boolean }[];
  /** Temporary files that somebody left. */
  temporaryFiles: { path: string; bytes: number; modifiedMs: number }[];
  /** Copies of bad files. */
  quarantineFiles: { path: string; bytes: number; modifiedMs: number }[];
  /** Size of the archive of receipts. */
  archiveBytes: number;
  /** The manifest before the newest batch, if it was kept. */
  manifestCopy: string | null;
}

/**
 * Repairs a runtime directory after a crash: settles interrupted batches, moves bad files aside, makes stores anew by the caller's
 * callbacks, and clears away what was left. Bytes are never dropped unreported: they go to quarantine files or the archive.
 */
export class RuntimeStoreRecoveryExecutor {
  readonly #parts: PlannerParts;
  readonly #planner: RuntimeStoreRecoveryPlanner;
  readonly #writer: RuntimeStoreBatchWriter;
  readonly #options: RuntimeStoreRecoveryExecutorOptions;
  readonly #clock: () => Date;
  readonly #faults: FaultRules;

  /** @throws HoldfastError `HF_INVALID_ARGUMENT` */
  constructor(
    teamRuntimeDirectory: string,
    planner: RuntimeStoreRecoveryPlanner,
    writer: RuntimeStoreBatchWriter,
    options: RuntimeStoreRecoveryExecutorOptions = {},
  ) {
    const parts = partsOfPlanner(planner);
    if (parts === undefined) throw invalidArgument('planner', 'a RuntimeStoreRecoveryPlanner of this package', planner);
    const written = partsOfWriter(writer);
    if (written === undefined) throw invalidArgument('writer', 'a RuntimeStoreBatchWriter of this package', writer);
    const dir = resolve(checkPath(teamRuntimeDirectory, 'teamRuntimeDirectory'));
    const { place } = parts;
    if (dir !== place.dir || dir !== written.dir || place.manifest !== written.manifest || place.receipts !== written.receipts) {
      throw invalidArgument('writer', `a writer and a planner of ${dir}, with the same manifest and receipts`, writer);
    }
    checkPlainObject(options, 'options');
    checkBooleanOrUndefined(options.dryRun, 'options.dryRun');
    if (options.settleMs !== undefined) checkFiniteNumber(options.settleMs, 'options.settleMs');
    for (const [strategy, callback] of Object.entries(options.rebuild === undefined ? {} : checkPlainObject(options.rebuild, 'options.rebuild'))) {
      checkOneOf(strategy, 'a key of options.rebuild', RUNTIME_STORE_REBUILD_STRATEGIES);
      checkFunctionOrUndefined(callback, `options.rebuild.${strategy}`);
    }
    this.#parts = parts;
    this.#planner = planner;
    this.#writer = writer;
    this.#options = { ...options };
    this.#clock = checkFunctionOrUndefined(options.clock, 'options.clock') ?? (() => new Date());
    this.#faults = loadFaults(options.faults, 'options.faults');
  }

  /**
   * Plans, repairs, and plans again. Running it twice does nothing the second time; a crash in the middle is repaired by the next run.
   * The directory is locked during each step, but not while rebuild callbacks run.
   *
   * @throws HoldfastError `HF_FORMAT_TOO_NEW` for control files of a newer version, which stay untouched; what a rebuild callback
   * throws; whatever `writeBatch` throws.
   */
  async recover(input: RuntimeStoreRecoveryPlanInput): Promise<RuntimeStoreRecoveryReport> {
    const checked = checkPlanInput(input);
    const before = await this.#planIfReadable(checked);
    if (this.#options.dryRun === true) return this.#rehearse(checked, before);

    const begun = JSON.parse(await call(native.beginRecovery(this.#place(), this.#orders(checked), this.#faults))) as {
      steps: RuntimeStoreRecoveryStep[];
      rebuilds: { schemaName: string; reason: string; quarantinePath: string | null }[];
    };
    const steps = [...begun.steps, ...(await this.#rebuild(checked, begun.rebuilds))];
    steps.push(...(JSON.parse(await call(native.finishRecovery(this.#place(), this.#orders(checked), this.#faults))) as RuntimeStoreRecoveryStep[]));
    const after = await this.#planner.buildPlan(checked);
    if (steps.length > 0) await this.#parts.manifestStore.markRecoveryPlan(after);
    return { before, steps, after };
  }

  /** Looks at the directory without changing it: plan, open batches, locks, leftovers, quarantine, sizes. For support. */
  async verify(input: RuntimeStoreRecoveryPlanInput): Promise<RuntimeStoreVerification> {
    const plan = await this.#planIfReadable(checkPlanInput(input), true);
    return { plan, ...(JSON.parse(await call(native.examineStore(this.#place()))) as Omit<RuntimeStoreVerification, 'plan'>) };
  }

  #place(): string {
    return JSON.stringify(this.#parts.place);
  }

  #orders(input: RuntimeStoreRecoveryPlanInput): string {
    const rebuild = this.#options.rebuild ?? {};
    return JSON.stringify({
      plan: this.#parts.request(input),
      now: isoTime(this.#clock, 'clock'),
      settleMs: this.#options.settleMs ?? 60_000,
      rebuildable: Object.keys(rebuild).filter((strategy) => rebuild[strategy as RuntimeStoreRebuildStrategy] !== undefined),
      retention: RECEIPT_RETENTION,
    });
  }

  async #planIfReadable(input: RuntimeStoreRecoveryPlanInput, evenNewer = false): Promise<RuntimeStoreRecoveryPlan | null> {
    try {
      return await this.#planner.buildPlan(input);
    } catch (error) {
      if (error instanceof VersionedJsonStoreError && (evenNewer || error.reason !== 'future_schema')) return null;
      throw error;
    }
  }

  async #rebuild(
    input: RuntimeStoreRecoveryPlanInput,
    rebuilds: { schemaName: string; reason: string; quarantinePath: string | null }[],
  ): Promise<RuntimeStoreRecoveryStep[]> {
    const steps: RuntimeStoreRecoveryStep[] = [];
    const writes: { descriptor: RuntimeStoreDescriptor; data: unknown }[] = [];
    for (const { schemaName, reason, quarantinePath } of rebuilds) {
      const descriptor = this.#parts.descriptors.find((candidate) => candidate.schemaName === schemaName);
      const callback = descriptor && this.#options.rebuild?.[descriptor.rebuildStrategy];
      if (descriptor === undefined || callback === undefined) continue;
      const made = await callback({ descriptor, reason, quarantinePath });
      if (made === 'skip') continue;
      if (typeof made !== 'object' || made === null || !('data' in made)) {
        throw new HoldfastError(`the rebuild callback of ${descriptor.rebuildStrategy} must return { data } or 'skip'`, { hfCode: 'HF_INVALID_ARGUMENT' });
      }
      writes.push({ descriptor, data: made.data });
      steps.push({ kind: 'rebuild', schemaName, detail: `${reason}: made anew by ${descriptor.rebuildStrategy}` });
    }
    // While the callbacks ran, others may have written what was missing: theirs is newer.
    const now = writes.length === 0 ? undefined : await this.#planner.buildPlan(input);
    const isSick = (name: string | undefined): boolean => now?.actions.some((action) => action.kind !== 'none' && action.schemaName === name) === true;
    const wanted = writes.filter((write) => isSick(write.descriptor.schemaName));
    if (wanted.length === 0) return [];
    // A recovery never changes which run is active: only a directory without one takes over what the caller expects.
    const { activeRunId, activeCapabilitySnapshotId, activeBehaviorFingerprint } = await this.#parts.manifestStore.read();
    const active = { runId: activeRunId, capabilitySnapshotId: activeCapabilitySnapshotId, behaviorFingerprint: activeBehaviorFingerprint };
    const expected = {
      runId: input.expectedRunId,
      capabilitySnapshotId: input.expectedCapabilitySnapshotId,
      behaviorFingerprint: input.expectedBehaviorFingerprint,
    };
    const batch = await this.#writer.writeBatch({
      teamName: input.teamName,
      ...(activeRunId === null || activeRunId === input.expectedRunId ? expected : active),
      expectedActiveRunId: activeRunId,
      reason: 'recovery',
      writes: wanted,
    });
    return steps.filter((step) => isSick(step.schemaName)).map((step) => ({ ...step, batchId: batch.batchId }));
  }

  async #rehearse(input: RuntimeStoreRecoveryPlanInput, before: RuntimeStoreRecoveryPlan | null): Promise<RuntimeStoreRecoveryReport> {
    // No plan without readable control files: their own errors say which, and why.
    const plan = before ?? (await this.#planner.buildPlan(input));
    const steps = plan.actions.flatMap((action): RuntimeStoreRecoveryStep[] => {
      if (action.kind === 'none') return [];
      const { kind, schemaName, reason } = action;
      return [{ kind, schemaName, ...('batchId' in action ? { batchId: action.batchId } : {}), detail: `would act: ${reason}` }];
    });
    return { before: plan, steps, after: plan };
  }
}
