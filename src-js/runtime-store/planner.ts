/** Says what is wrong with a runtime directory after a restart, and what must be done per store. */
import { randomUUID } from 'node:crypto';

import { checkArray, checkBooleanOrUndefined, checkFunctionOrUndefined, checkNonEmptyString, checkPlainObject, checkStringOrNull } from '../check';
import { VersionedJsonStoreError } from '../errors';
import { call, native } from '../native';
import { defaultManifestText, placeOf } from './batch-input';
import { checkRuntimeStoreDescriptor } from './descriptors';
import type { RuntimeStoreFileInspector } from './inspector';
import { directoryOf, isoTime, partsOfManifest, partsOfReceipts, type Place } from './internals';
import type { RuntimeStoreManifestStore } from './manifest-store';
import type { RuntimeStoreReceiptStore } from './receipt-store';
import type { RuntimeStoreDescriptor, RuntimeStoreRecoveryPlan } from './types';

/** What the caller expects to find. */
export interface RuntimeStoreRecoveryPlanInput {
  /** The owner of the directory. */
  teamName: string;
  /** The run that the caller is about to continue, or `null`. */
  expectedRunId: string | null;
  /** Its capability snapshot, or `null`. */
  expectedCapabilitySnapshotId: string | null;
  /** Its behaviour fingerprint, or `null`. */
  expectedBehaviorFingerprint: string | null;
}

/** Options of a {@link RuntimeStoreRecoveryPlanner}. */
export interface RuntimeStoreRecoveryPlannerOptions {
  /** Makes plan ids. Default: `opencode-recovery-plan-<uuid>`. */
  planIdFactory?: () => string;
  /** Default: the wall clock. */
  clock?: () => Date;
  /**
   * Whether a store whose bytes a committed batch wrote, but the manifest does not know yet, is reported as `roll_forward`. `false`
   * classifies as the original did. Default `true`.
   */
  rollForward?: boolean;
}

/** A plan request as the engine takes it; `src/runtime_store/planner.rs` has the same shape. */
export interface EnginePlanRequest extends RuntimeStoreRecoveryPlanInput {
  planId: string;
  createdAt: string;
  rollForward: boolean;
  descriptors: RuntimeStoreDescriptor[];
  defaultManifest: string;
}

/** What the executor needs of a planner. */
export interface PlannerParts {
  dir: string;
  descriptors: RuntimeStoreDescriptor[];
  manifestStore: RuntimeStoreManifestStore;
  receiptStore: RuntimeStoreReceiptStore;
  place: Place;
  request(input: RuntimeStoreRecoveryPlanInput): EnginePlanRequest;
}

const plannerParts = new WeakMap<object, PlannerParts>();

/** Returns the parts of a planner. */
export function partsOfPlanner(planner: RuntimeStoreRecoveryPlanner): PlannerParts | undefined {
  return plannerParts.get(planner);
}

/** Builds recovery plans. Nothing is written, and no lock is held against writers for longer than one look takes. */
export class RuntimeStoreRecoveryPlanner {
  readonly #parts: PlannerParts;

  /** @throws HoldfastError `HF_INVALID_ARGUMENT` */
  constructor(
    descriptors: RuntimeStoreDescriptor[],
    manifestStore: RuntimeStoreManifestStore,
    receiptStore: RuntimeStoreReceiptStore,
    inspector: RuntimeStoreFileInspector,
    options: RuntimeStoreRecoveryPlannerOptions = {},
  ) {
    const checked = Array.from(checkArray(descriptors, 'descriptors'), (descriptor, index) => checkRuntimeStoreDescriptor(descriptor, `descriptors[${index}]`));
    const manifest = partsOfManifest(manifestStore);
    const receipts = partsOfReceipts(receiptStore, manifest);
    const dir = directoryOf(inspector);
    checkPlainObject(options, 'options');
    const planIdFactory = checkFunctionOrUndefined(options.planIdFactory, 'options.planIdFactory') ?? ((): string => `opencode-recovery-plan-${randomUUID()}`);
    const clock = checkFunctionOrUndefined(options.clock, 'options.clock') ?? ((): Date => new Date());
    const rollForward = checkBooleanOrUndefined(options.rollForward, 'options.rollForward') ?? true;
    this.#parts = {
      dir,
      descriptors: checked,
      manifestStore,
      receiptStore,
      place: placeOf(dir, manifest, receipts, false, checked),
      request: (input) => ({
        ...input,
        planId: checkNonEmptyString(planIdFactory(), 'planIdFactory()'),
        createdAt: isoTime(clock, 'clock'),
        rollForward,
        descriptors: checked,
        defaultManifest: defaultManifestText(manifest),
      }),
    };
    plannerParts.set(this, this.#parts);
  }

  /**
   * Compares manifest, receipts and files, off the JavaScript thread. While a batch is being published it waits for it, at most 100 ms.
   *
   * @throws VersionedJsonStoreError for an unreadable manifest or receipts file; RuntimeStorePathError; HoldfastError with Node's `code`
   * for I/O errors, `HF_INVALID_ARGUMENT`, `HF_BUSY` when the directory never stood still for two seconds.
   */
  async buildPlan(input: RuntimeStoreRecoveryPlanInput): Promise<RuntimeStoreRecoveryPlan> {
    const checked = checkPlanInput(input);
    const { place, request, manifestStore, receiptStore } = this.#parts;
    try {
      return JSON.parse(await call(native.buildPlan(JSON.stringify(place), JSON.stringify(request(checked)), undefined))) as RuntimeStoreRecoveryPlan;
    } catch (error) {
      if (!(error instanceof VersionedJsonStoreError)) throw error;
      // The stores know where copies of bad files go, and say so in their errors.
      await manifestStore.read();
      await receiptStore.list();
      throw error;
    }
  }
}

/** Checks what a plan is asked for. */
export function checkPlanInput(input: RuntimeStoreRecoveryPlanInput): RuntimeStoreRecoveryPlanInput {
  checkPlainObject(input, 'input');
  return {
    teamName: checkNonEmptyString(input.teamName, 'input.teamName'),
    expectedRunId: checkStringOrNull(input.expectedRunId, 'input.expectedRunId'),
    expectedCapabilitySnapshotId: checkStringOrNull(input.expectedCapabilitySnapshotId, 'input.expectedCapabilitySnapshotId'),
    expectedBehaviorFingerprint: checkStringOrNull(input.expectedBehaviorFingerprint, 'input.expectedBehaviorFingerprint'),
  };
}
