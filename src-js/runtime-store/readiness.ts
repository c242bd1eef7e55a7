/** From a recovery plan to the one question that matters at start: may the application go? */
import { checkArray, checkOneOf, checkPlainObject } from '../check';
import type { RuntimeStoreReadinessCheck, RuntimeStoreRecoveryPlan } from './types';

const IMPACTS = ['none', 'degraded', 'blocked'] as const;

/**
 * Says whether the application may start. A blocked plan or a broken invariant asks for recovery, a degraded plan for a rebuild;
 * both answers carry the plan's diagnostics and then the broken invariants. A good answer carries none.
 *
 * @param input.recoveryPlan What the planner built.
 * @param input.invariantFailures What {@link validateOpenCodeRuntimeStoreInvariants} returned.
 * @throws HoldfastError `HF_INVALID_ARGUMENT`
 */
export function buildRuntimeStoreReadiness(input: {
  recoveryPlan: RuntimeStoreRecoveryPlan;
  invariantFailures: string[];
}): RuntimeStoreReadinessCheck {
  const { recoveryPlan, invariantFailures } = checkPlainObject(input, 'input');
  const plan = checkPlainObject(recoveryPlan, 'input.recoveryPlan');
  const impact = checkOneOf(plan.readinessImpact, 'input.recoveryPlan.readinessImpact', IMPACTS);
  const diagnostics = [
    ...checkArray(plan.diagnostics, 'input.recoveryPlan.diagnostics'),
    ...checkArray(invariantFailures, 'input.invariantFailures'),
  ];
  if (impact === 'blocked' || invariantFailures.length > 0) {
    return { ok: false, reason: 'runtime_store_recovery_required', diagnostics };
  }
  if (impact === 'degraded') return { ok: false, reason: 'runtime_store_rebuild_in_progress', diagnostics };
  return { ok: true, reason: 'runtime_store_manifest_valid', diagnostics: [] };
}
