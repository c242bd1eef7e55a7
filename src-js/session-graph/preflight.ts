/** Looking at a file before it is opened. */
import { HoldfastError } from '../errors';
import { SESSION_SCHEMA_VERSION } from './constants';
import { StoreNotFoundError, UnsupportedSchemaError } from './errors';
import type { IntegrityProblem } from './commit-types';
import type { PreflightReport } from './upkeep-types';

export type { PreflightReport } from './upkeep-types';

interface Store {
  verify(opts: { deep: boolean; signal?: AbortSignal }): Promise<IntegrityProblem[]>;
  close(): Promise<void>;
}

/** Whether a process was killed in the middle of a change that the next writer undoes. */
function isUnfinished(error: unknown): error is HoldfastError {
  return error instanceof HoldfastError && (error as { reason?: unknown }).reason === 'unfinished';
}

/** Gives the verdict; `look` opens the file for reading. */
export async function preflightOf(look: () => Promise<Store>, deep: boolean, signal?: AbortSignal): Promise<PreflightReport> {
  signal?.throwIfAborted();
  const report = (verdict: PreflightReport['verdict'], found: number | null, problems: IntegrityProblem[] = []): PreflightReport => ({
    verdict,
    opens: verdict === 'ready' || verdict === 'missing' || verdict === 'empty' || (verdict === 'damaged' && found !== null),
    found,
    expected: SESSION_SCHEMA_VERSION,
    problems,
  });
  const damaged = (error: unknown): IntegrityProblem[] => {
    if (!(error instanceof HoldfastError) || error.hfCode !== 'HF_CORRUPT') throw error;
    return [{ kind: 'head', key: 'database', detail: error.message }];
  };
  let store: Store;
  try {
    store = await look();
  } catch (error) {
    if (error instanceof StoreNotFoundError) return report('missing', null);
    if (isUnfinished(error)) {
      // What opening undoes cannot be looked at before, without writing.
      const detail = `${error.message}; until then what is in it cannot be looked at`;
      return { ...report('damaged', null, [{ kind: 'head', key: 'database', detail }]), opens: true };
    }
    if (!(error instanceof UnsupportedSchemaError)) return report('damaged', null, damaged(error));
    return report(error.reason, error.found);
  }
  try {
    const problems = await store.verify({ deep, signal }).catch(damaged);
    return report(problems.length === 0 ? 'ready' : 'damaged', SESSION_SCHEMA_VERSION, problems);
  } finally {
    await store.close();
  }
}
