/** Which host events the changes of a kind stand for. */
import { checkFunction, checkFunctionOrUndefined, isBlank } from '../check';
import { HoldfastError } from '../errors';
import type { ChangeDeriverRegistry, EntityChangeDeriver, EntityChangePayloadMapper } from './types';

interface Derivation {
  derivers: Set<EntityChangeDeriver>;
  toPayload: EntityChangePayloadMapper | undefined;
}

/** Makes a registry of derivers. */
export function createChangeDeriverRegistry(): ChangeDeriverRegistry {
  const derivations = new Map<string, Derivation>();

  return {
    register({ kind, derive, toPayload }) {
      if (typeof kind !== 'string' || isBlank(kind)) {
        throw new HoldfastError('registerChangeDeriver: `kind` must be a non-empty string', { hfCode: 'HF_ENTITY_DERIVER_INVALID' });
      }
      checkFunction(derive, 'derive');
      checkFunctionOrUndefined(toPayload, 'toPayload');
      const known = derivations.get(kind);
      if (known?.toPayload !== undefined && toPayload !== undefined && known.toPayload !== toPayload) {
        const message = `registerChangeDeriver: a payload mapper is already registered for kind "${kind}"`;
        throw new HoldfastError(message, { hfCode: 'HF_ENTITY_DERIVER_CONFLICT', fields: { kind } });
      }
      derivations.set(kind, { derivers: (known?.derivers ?? new Set()).add(derive), toPayload: known?.toPayload ?? toPayload });
    },
    derive(changed) {
      const names = new Set<string>();
      for (const derive of derivations.get(changed.kind)?.derivers ?? []) {
        for (const name of namesFrom(() => derive(changed))) {
          if (typeof name === 'string' && name !== '') names.add(name);
        }
      }
      return [...names];
    },
    payload: (changed) => derivations.get(changed.kind)?.toPayload?.(changed),
    kinds: () => [...derivations.keys()],
  };
}

/** What a deriver gives: nothing if it throws, or if it is no array. One bad deriver must not silence the others. */
function namesFrom(derive: () => unknown): readonly unknown[] {
  try {
    const names = derive();
    if (Array.isArray(names)) return names;
    // An asynchronous deriver is a mistake; its rejection must not end the process.
    if (names instanceof Promise) names.catch(() => undefined);
    return [];
  } catch {
    return [];
  }
}
