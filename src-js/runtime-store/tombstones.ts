/** The file of run tombstones: which runs are over, so that evidence of them that arrives late is refused. */
import { randomUUID } from 'node:crypto';

import {
  checkArray,
  checkFiniteNumber,
  checkFunction,
  checkNonEmptyString,
  checkPlainObject,
  checkStringOrNull,
  invalidArgument,
} from '../check';
import { RuntimeStaleEvidenceError, type RuntimeEvidenceKind } from '../errors';
import { isoTime } from './internals';
import { readStoreData } from './store-data';
import {
  assertRuntimeEvidenceRunMatches,
  checkEvidenceKind,
  checkTombstoneReason,
  compactRuntimeRunTombstones,
  EVIDENCE_KINDS,
  expiryMs,
  OPENCODE_RUNTIME_RUN_TOMBSTONE_SCHEMA_VERSION,
  validateRuntimeRunTombstones,
  type RuntimeEvidenceAcceptanceInput,
  type RuntimeRunTombstone,
  type RuntimeRunTombstoneReason,
} from './tombstone';
import type { FileLockOptions } from './types';
import { VersionedJsonStore } from './versioned-json-store';

export {
  assertRuntimeEvidenceRunMatches,
  compactRuntimeRunTombstones,
  OPENCODE_RUNTIME_RUN_TOMBSTONE_SCHEMA_VERSION,
  validateRuntimeRunTombstones,
  type RuntimeEvidenceAcceptanceInput,
  type RuntimeRunTombstone,
  type RuntimeRunTombstoneReason,
} from './tombstone';
export type { RuntimeEvidenceKind } from '../errors';

/** Options of a {@link RuntimeRunTombstoneStore}. */
export interface RuntimeRunTombstoneOptions {
  /** Where tombstone ids come from. Default: `opencode-run-tombstone-<uuid>`. */
  idFactory?: () => string;
  /** Where times come from. Default: the wall clock. */
  clock?: () => Date;
  /**
   * How long to keep a tombstone that never expires after its `createdAt`, in milliseconds, 0 or more. Default: for ever.
   *
   * `add` and `compact` drop older ones; until then they count. Late evidence of a run whose tombstone was dropped is still
   * refused as long as another run is current. One whose `createdAt` is not a time is kept.
   */
  maxAgeMs?: number;
}

/** Options of {@link createRuntimeRunTombstoneStore}. */
export interface RuntimeRunTombstoneStoreOptions extends RuntimeRunTombstoneOptions {
  /** The file; usually `opencode-run-tombstones.json`. It and its folder are created by the first `add`. */
  filePath: string;
  /** Waiting times of the file's lock. */
  lockOptions?: FileLockOptions;
}

/**
 * Opens the run tombstones in a file. Nothing is read or created yet.
 *
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT`
 */
export function createRuntimeRunTombstoneStore(o: RuntimeRunTombstoneStoreOptions): RuntimeRunTombstoneStore {
  const { filePath, lockOptions, ...options } = checkPlainObject(o, 'options');
  const store = new VersionedJsonStore<RuntimeRunTombstone[]>({
    filePath,
    schemaVersion: OPENCODE_RUNTIME_RUN_TOMBSTONE_SCHEMA_VERSION,
    defaultData: () => [],
    validate: validateRuntimeRunTombstones,
    clock: options.clock,
    lockOptions,
  });
  return new RuntimeRunTombstoneStore(store, options);
}

/**
 * Run tombstones in one file, shared by any number of processes.
 *
 * Every change is one locked read-modify-write of the file, durable when its promise resolves. The store fails closed: where its
 * file cannot be used, every method rejects with `VersionedJsonStoreError`, so that no evidence is accepted on the word of a
 * file that nobody can read. Bad arguments reject with `HF_INVALID_ARGUMENT` before anything is touched.
 */
export class RuntimeRunTombstoneStore {
  private readonly store: VersionedJsonStore<RuntimeRunTombstone[]>;
  private readonly idFactory: () => string;
  private readonly clock: () => Date;
  private readonly maxAgeMs: number;

  /**
   * @param store the file; its `validate` should be {@link validateRuntimeRunTombstones}
   * @param options ids, clock and retention
   * @throws {HoldfastError} `HF_INVALID_ARGUMENT`
   */
  constructor(store: VersionedJsonStore<RuntimeRunTombstone[]>, options: RuntimeRunTombstoneOptions = {}) {
    this.store = checkPlainObject(store, 'store');
    const { idFactory, clock, maxAgeMs } = checkPlainObject(options, 'options');
    this.idFactory = checkFunction(idFactory ?? (() => `opencode-run-tombstone-${randomUUID()}`), 'idFactory');
    this.clock = checkFunction(clock ?? (() => new Date()), 'clock');
    this.maxAgeMs = maxAgeMs === undefined ? Infinity : checkFiniteNumber(maxAgeMs, 'maxAgeMs');
  }

  /**
   * Adds a tombstone, and drops the expired ones of all teams.
   *
   * Where an unexpired tombstone of the same team, run and reason is there, it is widened instead: it gets the kinds of both and
   * the later expiry of the two (never is the latest). Its id, `createdAt` and `diagnostic` stay. So a second `add` never makes
   * the first one weaker.
   *
   * @param i `evidenceKinds`: what to refuse, default (also for `[]`) all kinds. `ttlMs`: for how long, in milliseconds,
   *   default for ever; 0 or less never takes effect. `diagnostic`: a note for people
   * @returns the tombstone as stored
   */
  async add(i: {
    teamName: string;
    runId: string;
    reason: RuntimeRunTombstoneReason;
    evidenceKinds?: RuntimeEvidenceKind[];
    ttlMs?: number;
    diagnostic?: string | null;
  }): Promise<RuntimeRunTombstone> {
    const { teamName, runId, reason, evidenceKinds, ttlMs, diagnostic = null } = checkPlainObject(i, 'input');
    checkNonEmptyString(teamName, 'teamName');
    checkNonEmptyString(runId, 'runId');
    checkTombstoneReason(reason, 'reason');
    const kinds = checkedKinds(evidenceKinds);
    checkTtl(ttlMs);
    checkStringOrNull(diagnostic, 'diagnostic');
    const isSame = (one: RuntimeRunTombstone): boolean =>
      one.teamName === teamName && one.runId === runId && one.reason === reason;

    let added: string | null = null;
    const { data } = await this.store.updateLocked((current) => {
      const now = this.now();
      const kept = this.dropOld(current, now);
      const expiresAt = expiryAfter(now, ttlMs);
      const existing = kept.find(isSame);
      if (existing) {
        existing.evidenceKinds = sortedUnion(existing.evidenceKinds, kinds);
        existing.expiresAt = laterExpiry(existing.expiresAt, expiresAt);
        added = existing.tombstoneId;
        return kept;
      }
      const tombstoneId = checkNonEmptyString(this.idFactory(), 'the result of idFactory');
      added = tombstoneId;
      const createdAt = now.toISOString();
      return [...kept, { tombstoneId, teamName, runId, reason, evidenceKinds: kinds, createdAt, expiresAt, diagnostic }];
    });
    // Ids are unique in the file, and the updater has just stored this one.
    return data.find(({ tombstoneId }) => tombstoneId === added) as RuntimeRunTombstone;
  }

  /** Returns the team's unexpired tombstones, in the order in which they were added. Never writes. */
  async list(teamName: string): Promise<RuntimeRunTombstone[]> {
    checkNonEmptyString(teamName, 'teamName');
    const unexpired = compactRuntimeRunTombstones(await readStoreData(this.store), this.now());
    return unexpired.filter((one) => one.teamName === teamName);
  }

  /** Returns the first unexpired tombstone of a run, and, if `evidenceKind` is given, of that kind; else `null`. Never writes. */
  async find(i: { teamName: string; runId: string; evidenceKind?: RuntimeEvidenceKind }): Promise<RuntimeRunTombstone | null> {
    const { teamName, runId, evidenceKind } = checkPlainObject(i, 'input');
    checkNonEmptyString(teamName, 'teamName');
    checkNonEmptyString(runId, 'runId');
    if (evidenceKind !== undefined) checkEvidenceKind(evidenceKind, 'evidenceKind');
    const matches = (one: RuntimeRunTombstone): boolean =>
      one.runId === runId && (evidenceKind === undefined || one.evidenceKinds.includes(evidenceKind));
    return (await this.list(teamName)).find(matches) ?? null;
  }

  /**
   * Resolves when evidence may be accepted. The run ids are checked first, without touching the disk
   * ({@link assertRuntimeEvidenceRunMatches}), then the tombstones of that run and kind. Never writes.
   *
   * @throws {RuntimeStaleEvidenceError} with the `reason` `missing_run_id`, `current_run_missing`, `run_mismatch` or
   *   `run_tombstoned`
   */
  async assertEvidenceAccepted(input: RuntimeEvidenceAcceptanceInput): Promise<void> {
    assertRuntimeEvidenceRunMatches(input);
    const { teamName, evidenceKind } = input;
    // What the check above has let through is a run id.
    const runId = input.runId as string;
    if (await this.find({ teamName, runId, evidenceKind })) {
      throw new RuntimeStaleEvidenceError(`Rejected stale runtime evidence: ${evidenceKind}`, 'run_tombstoned', evidenceKind, runId);
    }
  }

  /** Drops the expired tombstones of all teams, and those beyond `maxAgeMs`; returns how many. */
  async compact(): Promise<number> {
    let removed = 0;
    await this.store.updateLocked((current) => {
      const kept = this.dropOld(current, this.now());
      removed = current.length - kept.length;
      return kept;
    });
    return removed;
  }

  /** Waits for calls in flight; later calls reject with `HF_CLOSED`. The file's store is closed with it. Twice is harmless. */
  close(): Promise<void> {
    return this.store.close();
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private now(): Date {
    return new Date(isoTime(this.clock, 'clock'));
  }

  private dropOld(records: RuntimeRunTombstone[], now: Date): RuntimeRunTombstone[] {
    const oldestMs = now.getTime() - this.maxAgeMs;
    // A createdAt that cannot be read parses as NaN, which is not below any limit.
    const isTooOld = (one: RuntimeRunTombstone): boolean =>
      expiryMs(one.expiresAt) === Infinity && Date.parse(one.createdAt) < oldestMs;
    return compactRuntimeRunTombstones(records, now).filter((one) => !isTooOld(one));
  }
}

function checkedKinds(kinds: RuntimeEvidenceKind[] | undefined): RuntimeEvidenceKind[] {
  if (kinds === undefined || checkArray(kinds, 'evidenceKinds').length === 0) return sortedUnion(EVIDENCE_KINDS, []);
  return sortedUnion(kinds.map((kind, index) => checkEvidenceKind(kind, `evidenceKinds[${index}]`)), []);
}

function sortedUnion(a: readonly RuntimeEvidenceKind[], b: readonly RuntimeEvidenceKind[]): RuntimeEvidenceKind[] {
  return [...new Set([...a, ...b])].sort();
}

function checkTtl(ttlMs: unknown): void {
  if (ttlMs === undefined || ttlMs === null) return;
  if (typeof ttlMs !== 'number' || !Number.isFinite(ttlMs)) {
    throw invalidArgument('ttlMs', 'a finite number of milliseconds, or left out for a tombstone that never expires', ttlMs);
  }
}

/** Returns the time `ttlMs` after `now`, or `null` = never. */
function expiryAfter(now: Date, ttlMs: number | null | undefined): string | null {
  if (ttlMs === undefined || ttlMs === null) return null;
  const expiry = new Date(now.getTime() + ttlMs);
  if (Number.isNaN(expiry.getTime())) {
    throw invalidArgument('ttlMs', 'a number of milliseconds that ends within the range of Date', ttlMs);
  }
  return expiry.toISOString();
}

/** Returns the later of two expiries. One that never comes, whatever its text, becomes `null`, which every reader understands. */
function laterExpiry(a: string | null, b: string | null): string | null {
  const later = expiryMs(a) >= expiryMs(b) ? a : b;
  return expiryMs(later) === Infinity ? null : later;
}
