// The pure functions: comparing, canonical text, masking.
import { noteBest, sampleSync, state } from './entity-lib.mjs';
import { rounds } from './lib.mjs';

/** Notes holdfast's time as a multiple of the best peer's. */
function against(results, name) {
  noteBest(results, 'best, µs', 1000);
  const peers = results.slice(1).filter(({ low }) => low !== undefined);
  if (peers.length > 0 && results[0].extra) results[0].extra[name] = results[0].low / Math.min(...peers.map(({ low }) => low));
  return results;
}

export async function pure(contenders, report, options) {
  const timed = (measure) => rounds(contenders, measure, options.rounds);
  for (const fields of [5, 50, 500]) {
    const [prev, next, same] = [state(fields, 0), state(fields, 1), state(fields, 0)];
    const diff = (b) => ({ module }) => (module.diffEntityState ? sampleSync(() => module.diffEntityState({ prev, next: b })) : null);
    report.add(`diffEntityState, ${fields} fields, 1 changed`, against(await timed(diff(next)), 'times the peer'));
    const equal = ({ module }) => (module.sameStates ? sampleSync(() => module.sameStates(prev, same)) : diff(same)({ module }));
    report.add(`diffEntityState, ${fields} fields, none changed`, against(await timed(equal), 'times the peer'));
    const print = ({ module }) => (module.stableStringify ? sampleSync(() => module.stableStringify(prev)) : null);
    report.add(`stableStringify, ${fields} fields`, against(await timed(print), 'times the peer'));
  }
  for (const [fields, count] of [[50, 1], [50, 20], [500, 20], [500, 200]]) {
    const value = state(fields);
    const secrets = Array.from({ length: count }, (_, i) => `secret-value-${i}`);
    const once = ({ module }) => (module.maskSecretsDeep ? sampleSync(() => module.maskSecretsDeep({ value, values: secrets })) : null);
    const kept = ({ module }) => {
      if (!module.createRunSecretRegistry) return null;
      const registry = module.createRunSecretRegistry();
      registry.register('run', secrets);
      return sampleSync(() => registry.maskDeep('run', value));
    };
    const noted = async (measure) => noteBest(await timed(measure), 'best, µs', 1000);
    report.add(`maskDeep of a registry, ${fields} fields, ${count} secrets`, await noted(kept));
    report.add(`maskSecretsDeep, ${fields} fields, ${count} secrets`, await noted(once));
  }
}
