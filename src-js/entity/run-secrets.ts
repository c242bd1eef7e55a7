/** The secrets that a run has resolved, so that they can be masked in everything the run writes. */
import { compileSecrets, maskable, type SecretMatcher } from './mask';
import type { RunSecretRegistry } from './types';

/** The secrets of a run that can be masked, and which set of secrets that is. */
export interface RunSecrets {
  readonly values: readonly string[];
  /** Changes whenever the set does, and is never used again for another one of any run. 0: the run is unknown. */
  readonly version: number;
}

/** The secrets of one run. */
interface Run {
  readonly values: Set<string>;
  version: number;
  /** Made when first needed, and again after a change. */
  matcher: SecretMatcher | null;
  maskable: readonly string[] | null;
}

/** The runs of the registries that were made here. */
const RUNS = new WeakMap<RunSecretRegistry, ReadonlyMap<string, Run>>();

const NO_SECRETS: RunSecrets = { values: [], version: 0 };

let lastVersion = 0;

/**
 * Creates a registry of run secrets. Every member works without `this`.
 *
 * Secrets stay in memory until {@link RunSecretRegistry.drop}; a run that ends without it keeps its secrets there.
 */
export function createRunSecretRegistry(): RunSecretRegistry {
  const runs = new Map<string, Run>();
  const runOfStep = new Map<string, string>();

  const matcherOf = (runId: string | undefined): SecretMatcher | undefined => {
    const run = runId === undefined ? undefined : runs.get(runId);
    return run && (run.matcher ??= compileSecrets(run.values));
  };
  const maskText = (runId: string | undefined, text: string): string => matcherOf(runId)?.maskText(text) ?? text;
  const maskDeep = (runId: string | undefined, value: unknown): unknown => {
    const matcher = matcherOf(runId);
    return matcher === undefined ? value : matcher.maskDeep(value);
  };

  const registry: RunSecretRegistry = {
    register(runId, values) {
      const run = runs.get(runId) ?? { values: new Set(), version: ++lastVersion, matcher: null, maskable: null };
      runs.set(runId, run);
      const known = run.values.size;
      for (const value of values) {
        if (typeof value === 'string' && value !== '') {
          run.values.add(value);
        }
      }
      if (run.values.size > known) {
        run.version = ++lastVersion;
        run.matcher = null;
        run.maskable = null;
      }
    },
    linkStep: (stepId, runId) => void runOfStep.set(stepId, runId),
    maskText,
    maskDeep,
    maskTextForStep: (stepId, text) => maskText(runOfStep.get(stepId), text),
    maskDeepForStep: (stepId, value) => maskDeep(runOfStep.get(stepId), value),
    drop(runId) {
      runs.delete(runId);
      for (const [stepId, run] of runOfStep) {
        if (run === runId) {
          runOfStep.delete(stepId);
        }
      }
    },
  };
  RUNS.set(registry, runs);
  return registry;
}

/**
 * Returns the secrets of a run, for masking elsewhere than in the registry.
 *
 * @returns `undefined` when the registry was not made by {@link createRunSecretRegistry}, so that only its own functions can mask
 */
export function secretsOfRun(registry: RunSecretRegistry, runId: string): RunSecrets | undefined {
  const runs = RUNS.get(registry);
  const run = runs?.get(runId);
  if (run === undefined) {
    return runs && NO_SECRETS;
  }
  run.maskable ??= maskable(run.values);
  return { values: run.maskable, version: run.version };
}
