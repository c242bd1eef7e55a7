/** Options of a store. */
import { createHash } from 'node:crypto';
import { resolve } from 'node:path';
import { checkNonEmptyString, checkPath, checkPositiveInteger } from '../check';
import { deriveTls } from '../tls';
import { bad, checkCount, checkId, checkObject, checkWord, guarded } from './arguments';
import type { CoreConfig } from './native-store';
import { attemptsOf } from './queue';
import type { PostgresSessionGraphOptions, SessionGraphStoreOptions } from './store-types';

const KNOWN = ['blobProfile', 'gcPolicy', 'durability', 'busyTimeoutMs', 'maxReaders', 'migrate', 'queue', 'commitLimits'] as const satisfies (keyof SessionGraphStoreOptions)[];

const SHARED = ['blobProfile', 'gcPolicy', 'busyTimeoutMs', 'migrate', 'queue', 'commitLimits'] as const satisfies (keyof PostgresSessionGraphOptions)[];
const POSTGRES = [...SHARED, 'connectionString', 'sessionId', 'schema', 'poolSize', 'ssl'] as const satisfies (keyof PostgresSessionGraphOptions)[];

/** Checks the options of a store in PostgreSQL and puts them in the words of the addon. */
export function postgresConfigOf(options: PostgresSessionGraphOptions): CoreConfig {
  checkObject(options, 'options', POSTGRES);
  const { connectionString, schema = 'holdfast_sessions', poolSize = 4, ssl } = options;
  // Never shown in an error: it has a password in it.
  if (typeof connectionString !== 'string' || connectionString === '') {
    throw bad('options.connectionString', 'a string that is not empty', typeof connectionString === 'string' ? '' : connectionString);
  }
  const tls = ssl === undefined ? null : deriveTls(ssl);
  if (typeof tls === 'string') throw bad('options.ssl', `what can be used; ${tls}`, ssl);
  const connection = { connectionString, poolSize: guarded(() => checkPositiveInteger(poolSize, 'options.poolSize')), ssl: tls };
  const shared = Object.fromEntries(SHARED.map((name) => [name, options[name]]).filter(([, value]) => value !== undefined));
  return {
    ...configOf('file', null, shared as SessionGraphStoreOptions),
    postgres: {
      connection,
      connectionKey: createHash('sha256').update(JSON.stringify(connection)).digest('hex'),
      schema: guarded(() => checkNonEmptyString(schema, 'options.schema')),
      key: checkId(options.sessionId, 'options.sessionId'),
    },
  };
}

/** Checks options and puts them in the words of the addon. */
export function configOf(kind: 'file' | 'memory' | 'readOnly', path: string | null, options: SessionGraphStoreOptions): CoreConfig {
  checkObject(options, 'options', KNOWN);
  const { durability = 'full', busyTimeoutMs, maxReaders = 4, migrate = 'auto' } = options;
  const gc = checkObject(options.gcPolicy ?? {}, 'options.gcPolicy', ['autoRunEveryCommits', 'minBlobAgeMs']);
  const every = gc.autoRunEveryCommits ?? null;
  const queue = checkObject(options.queue ?? {}, 'options.queue', ['maxAttempts', 'retainFinishedMs']);
  const retain = queue.retainFinishedMs ?? null;
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
    queue: {
      maxAttempts: attemptsOf(queue.maxAttempts, 'options.queue.maxAttempts'),
      retainMs: retain === null ? null : checkCount(retain, 'options.queue.retainFinishedMs'),
    },
    commitLimits: limitsOf(options.commitLimits ?? {}),
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
  if (path === ':memory:' || /^file:/i.test(path)) throw bad('path', 'a plain path; for a store in memory use memory()', path);
  return resolve(path);
}

function limitsOf(limits: NonNullable<SessionGraphStoreOptions['commitLimits']>): CoreConfig['commitLimits'] {
  const { maxBytes, maxNodes } = checkObject(limits, 'options.commitLimits', ['maxBytes', 'maxNodes']);
  const limit = (value: number | null | undefined, name: string): number =>
    value === null || value === undefined ? Number.MAX_SAFE_INTEGER : checkCount(value, `options.commitLimits.${name}`);
  return { maxBytes: limit(maxBytes, 'maxBytes'), maxNodes: limit(maxNodes, 'maxNodes') };
}
