/** Options of a store. */
import { resolve } from 'node:path';
import { checkPath, checkPositiveInteger } from '../check';
import { bad, checkCount, checkObject, checkWord } from './arguments';
import { asGraphError } from './errors';
import type { CoreConfig } from './native-store';
import type { SessionGraphStoreOptions } from './store-types';

const KNOWN = ['blobProfile', 'gcPolicy', 'durability', 'busyTimeoutMs', 'maxReaders', 'migrate'] as const satisfies (keyof SessionGraphStoreOptions)[];

/** Checks options and puts them in the words of the addon. */
export function configOf(kind: 'file' | 'memory' | 'readOnly', path: string | null, options: SessionGraphStoreOptions): CoreConfig {
  checkObject(options, 'options');
  const unknown = Object.keys(options).find((name) => !KNOWN.some((known) => known === name));
  if (unknown !== undefined) throw bad('options', `an object with no other properties than ${KNOWN.join(', ')}`, unknown);
  const { durability = 'full', busyTimeoutMs, maxReaders = 4, migrate = 'auto' } = options;
  const gc = checkObject(options.gcPolicy ?? {}, 'options.gcPolicy');
  const every = gc.autoRunEveryCommits ?? null;
  return {
    path: path === null ? null : fileOf(path),
    readOnly: kind === 'readOnly',
    synchronous: checkWord(durability, 'options.durability', ['full', 'normal']),
    busyTimeoutMs: checkCount(busyTimeoutMs ?? (kind === 'readOnly' ? 1_000 : 15_000), 'options.busyTimeoutMs'),
    maxReaders: guarded(() => checkPositiveInteger(maxReaders, 'options.maxReaders')),
    migrates: checkWord(migrate, 'options.migrate', ['auto', 'never']) === 'auto',
    blobProfile: checkWord(options.blobProfile ?? (kind === 'memory' ? 'lowLatency' : 'balanced'), 'options.blobProfile', [
      'lowLatency',
      'balanced',
      'compact',
    ]),
    gc: {
      // 0 is never, too.
      everyCommits: (every === null ? 0 : checkCount(every, 'options.gcPolicy.autoRunEveryCommits')) || null,
      minBlobAgeMs: checkCount(gc.minBlobAgeMs ?? 0, 'options.gcPolicy.minBlobAgeMs'),
    },
  };
}

function fileOf(path: string): string {
  guarded(() => checkPath(path, 'path'));
  // SQLite would open something else than a file of that name.
  if (path === ':memory:' || /^file:/i.test(path)) throw bad('path', 'a plain path; for a store in memory use SessionGraphStore.memory()', path);
  return resolve(path);
}

function guarded<T>(check: () => T): T {
  try {
    return check();
  } catch (error) {
    throw asGraphError(error);
  }
}
