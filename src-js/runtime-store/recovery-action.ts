/** What the state of one store file asks for. The planner in the engine has the same table. */
import { checkOneOf, checkPlainObject } from '../check';
import { RUNTIME_STORE_ENTRY_STATES, RUNTIME_STORE_REBUILD_STRATEGIES } from './descriptors';
import type {
  RuntimeStoreDescriptor,
  RuntimeStoreFileInspection,
  RuntimeStoreManifestEntryState,
  RuntimeStoreRebuildStrategy,
  RuntimeStoreRecoveryAction,
  RuntimeStoreRepairAction,
} from './types';

type RepairKind = RuntimeStoreRepairAction['kind'];

/** What a strategy does about an absent or outdated store; the two rebuilds also do it about one that cannot be parsed. */
const KIND_BY_STRATEGY: Readonly<Record<RuntimeStoreRebuildStrategy, RepairKind>> = {
  poll_opencode_provider: 'rebuild_from_provider',
  verify_canonical_destinations: 'rebuild_from_canonical_destination',
  rerun_capability_discovery: 'rerun_capability_discovery',
  drop_after_quarantine: 'quarantine',
  rebuild_from_launch_state: 'block_readiness',
  none: 'block_readiness',
};

/**
 * Says what to do about a store in the state that an inspection found. The action's `reason` is the state; a healthy store needs `none`.
 *
 * @param input.descriptor The store; its `rebuildStrategy` decides.
 * @param input.inspected What the inspector found; its `state` decides.
 * @throws HoldfastError `HF_INVALID_ARGUMENT`
 */
export function buildRecoveryAction(input: {
  descriptor: RuntimeStoreDescriptor;
  inspected: RuntimeStoreFileInspection;
}): RuntimeStoreRecoveryAction {
  checkPlainObject(input, 'input');
  const { schemaName, rebuildStrategy } = checkPlainObject(input.descriptor, 'input.descriptor');
  const { state } = checkPlainObject(input.inspected, 'input.inspected');
  checkOneOf(rebuildStrategy, 'input.descriptor.rebuildStrategy', RUNTIME_STORE_REBUILD_STRATEGIES);
  checkOneOf(state, 'input.inspected.state', RUNTIME_STORE_ENTRY_STATES);
  if (state === 'healthy') return { kind: 'none', schemaName };
  return { kind: repairKind(state, rebuildStrategy), schemaName, reason: state };
}

function repairKind(state: RuntimeStoreManifestEntryState, strategy: RuntimeStoreRebuildStrategy): RepairKind {
  // These bytes are somebody's data, perhaps of a newer version: they are set aside, whatever could be rebuilt in their place.
  if (state === 'future_schema' || state === 'hash_mismatch') return 'quarantine';
  const kind = KIND_BY_STRATEGY[strategy];
  const replacesGarbage = kind === 'rebuild_from_provider' || kind === 'rebuild_from_canonical_destination';
  return state === 'quarantined' && !replacesGarbage ? 'quarantine' : kind;
}
