/** The file of launch transactions: which launches of which team were begun, how far they came, how they ended. */
import {
  checkArray,
  checkFiniteNumber,
  checkFunction,
  checkNonEmptyString,
  checkPlainObject,
  checkString,
  checkStringOrNull,
  invalidArgument,
} from '../check';
import { HoldfastError } from '../errors';
import { isoTime } from './internals';
import {
  checkCheckpointName,
  checkFinishedStatus,
  OPENCODE_LAUNCH_TRANSACTION_SCHEMA_VERSION,
  validateOpenCodeLaunchTransactions,
  type OpenCodeLaunchCheckpoint,
  type OpenCodeLaunchCheckpointName,
  type OpenCodeLaunchFinishedStatus,
  type OpenCodeLaunchTransaction,
} from './launch-transaction';
import { readStoreData } from './store-data';
import type { FileLockOptions } from './types';
import { VersionedJsonStore } from './versioned-json-store';

export {
  canMarkOpenCodeRunReady,
  hasMemberCheckpoint,
  OPENCODE_LAUNCH_TRANSACTION_SCHEMA_VERSION,
  validateOpenCodeLaunchTransactions,
  type OpenCodeLaunchCheckpoint,
  type OpenCodeLaunchCheckpointName,
  type OpenCodeLaunchFinishedStatus,
  type OpenCodeLaunchTransaction,
  type OpenCodeRunReadyInput,
} from './launch-transaction';

/**
 * How long finished launch transactions are kept. By default for ever.
 *
 * Both limits are applied when `beginRun` appends a transaction, so what was just finished can be read until the next launch.
 * An active transaction is never dropped. What was dropped is as if it had never been: `finish` for it says *not found*.
 */
export interface OpenCodeLaunchTransactionRetention {
  /** How many finished transactions to keep per team, the newest ones: an integer, 0 or more. Default: all. */
  maxFinished?: number;
  /**
   * How long to keep a finished transaction after its `updatedAt`, in milliseconds, 0 or more. One whose `updatedAt` is not a
   * time is kept. Default: for ever.
   */
  maxAgeMs?: number;
}

/** Options of {@link createOpenCodeLaunchTransactionStore}. */
export interface OpenCodeLaunchTransactionStoreOptions extends OpenCodeLaunchTransactionRetention {
  /** The file. It and its folder are created by the first `beginRun`. */
  filePath: string;
  /** Where times come from. Default: the wall clock. */
  clock?: () => Date;
  /** Waiting times of the file's lock. */
  lockOptions?: FileLockOptions;
}

/**
 * Opens the launch transactions in a file. Nothing is read or created yet.
 *
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT`
 */
export function createOpenCodeLaunchTransactionStore(o: OpenCodeLaunchTransactionStoreOptions): OpenCodeLaunchTransactionStore {
  const { filePath, clock, lockOptions, maxFinished, maxAgeMs } = checkPlainObject(o, 'options');
  const store = new VersionedJsonStore<OpenCodeLaunchTransaction[]>({
    filePath,
    schemaVersion: OPENCODE_LAUNCH_TRANSACTION_SCHEMA_VERSION,
    defaultData: () => [],
    validate: validateOpenCodeLaunchTransactions,
    clock,
    lockOptions,
  });
  return new OpenCodeLaunchTransactionStore(store, clock, { maxFinished, maxAgeMs });
}

/**
 * Launch transactions in one file, shared by any number of processes.
 *
 * Every change is one locked read-modify-write of the file, durable when its promise resolves; nothing is written when it
 * changes nothing or throws. All methods reject with `VersionedJsonStoreError` when the file's content cannot be used, and with
 * `HF_INVALID_ARGUMENT`, before anything is touched, for a bad argument. Where a run id was used again, its *newest*
 * transaction is meant, everywhere.
 */
export class OpenCodeLaunchTransactionStore {
  private readonly store: VersionedJsonStore<OpenCodeLaunchTransaction[]>;
  private readonly clock: () => Date;
  private readonly retention: OpenCodeLaunchTransactionRetention;

  /**
   * @param store the file; its `validate` should be {@link validateOpenCodeLaunchTransactions}
   * @param clock where times come from; default: the wall clock
   * @param retention how long finished transactions are kept; default: for ever
   * @throws {HoldfastError} `HF_INVALID_ARGUMENT`
   */
  constructor(
    store: VersionedJsonStore<OpenCodeLaunchTransaction[]>,
    clock: () => Date = () => new Date(),
    retention: OpenCodeLaunchTransactionRetention = {},
  ) {
    this.store = checkPlainObject(store, 'store');
    this.clock = checkFunction(clock, 'clock');
    this.retention = checkRetention(retention);
  }

  /**
   * Begins a launch, unless the team has an active one (of this run or any other): then that one is returned, unchanged.
   *
   * @param i `startedAt` defaults to the clock
   */
  async beginRun(i: {
    teamName: string;
    runId: string;
    startedAt?: string;
  }): Promise<{ state: 'created' | 'already_active'; transaction: OpenCodeLaunchTransaction }> {
    const { teamName, runId, startedAt } = checkPlainObject(i, 'input');
    checkTeamAndRun(teamName, runId);
    if (startedAt !== undefined) checkNonEmptyString(startedAt, 'startedAt');
    let state: 'created' | 'already_active' = 'already_active';
    const { data } = await this.store.updateLocked((current) => {
      if (newestActive(current, teamName)) return current;
      state = 'created';
      const at = startedAt ?? isoTime(this.clock, 'clock');
      const begun: OpenCodeLaunchTransaction = {
        teamName,
        runId,
        providerId: 'opencode',
        startedAt: at,
        updatedAt: at,
        status: 'active',
        checkpoints: [],
      };
      return [...retained(current, this.retention, this.clock), begun];
    });
    // The updater has just made sure that there is one.
    return { state, transaction: newestActive(data, teamName) as OpenCodeLaunchTransaction };
  }

  /**
   * Records a checkpoint in the launch of `input.teamName` and `input.runId`; `unchanged` when one with the same name, member
   * and evidence hash is there. The transaction's `updatedAt` becomes the checkpoint's `createdAt`.
   *
   * @throws {HoldfastError} `HF_RUNTIME_TRANSACTION_NOT_ACTIVE` when that launch is finished,
   *   `HF_RUNTIME_TRANSACTION_NOT_FOUND` when there is none
   */
  async addCheckpoint(input: OpenCodeLaunchCheckpoint): Promise<'created' | 'unchanged'> {
    const checkpoint = checkedCheckpoint(input);
    const { teamName, runId, name, memberName, evidenceHash } = checkpoint;
    let outcome: 'created' | 'unchanged' = 'unchanged';
    await this.store.updateLocked((current) => {
      const transaction = newestOfRun(current, teamName, runId);
      if (!transaction) throw notFound(teamName, runId);
      if (transaction.status !== 'active') {
        throw new HoldfastError(`OpenCode launch transaction is not active: ${runId}`, {
          hfCode: 'HF_RUNTIME_TRANSACTION_NOT_ACTIVE',
          fields: { teamName, runId, status: transaction.status },
        });
      }
      if (hasSameCheckpoint(transaction, name, memberName, evidenceHash)) return current;
      outcome = 'created';
      transaction.checkpoints.push(checkpoint);
      transaction.updatedAt = checkpoint.createdAt;
      return current;
    });
    return outcome;
  }

  /** Tells whether a launch has a checkpoint of that name and member, and, if `evidenceHash` is given, with that evidence. */
  async hasCheckpoint(i: {
    teamName: string;
    runId: string;
    memberName: string | null;
    name: OpenCodeLaunchCheckpointName;
    evidenceHash?: string;
  }): Promise<boolean> {
    const { teamName, runId, memberName, name, evidenceHash } = checkPlainObject(i, 'input');
    checkTeamAndRun(teamName, runId);
    checkStringOrNull(memberName, 'memberName');
    checkCheckpointName(name, 'name');
    if (evidenceHash !== undefined) checkString(evidenceHash, 'evidenceHash');
    const transaction = newestOfRun(await readStoreData(this.store), teamName, runId);
    return transaction !== null && hasSameCheckpoint(transaction, name, memberName, evidenceHash);
  }

  /** Returns the team's active launch, or `null`. */
  async readActive(teamName: string): Promise<OpenCodeLaunchTransaction | null> {
    checkNonEmptyString(teamName, 'teamName');
    return newestActive(await readStoreData(this.store), teamName);
  }

  /** Returns the newest launch of a run, or `null`. */
  async read(teamName: string, runId: string): Promise<OpenCodeLaunchTransaction | null> {
    checkTeamAndRun(teamName, runId);
    return newestOfRun(await readStoreData(this.store), teamName, runId);
  }

  /**
   * Finishes a launch; `unchanged`, with its status kept, when it is finished already.
   *
   * @param i `updatedAt` defaults to the clock
   * @throws {HoldfastError} for an unknown run: `HF_RUNTIME_TRANSACTION_STALE` when another run of the team is active (named in
   *   the message and in the property `activeRunId`), else `HF_RUNTIME_TRANSACTION_NOT_FOUND`
   */
  async finish(i: {
    teamName: string;
    runId: string;
    status: OpenCodeLaunchFinishedStatus;
    updatedAt?: string;
  }): Promise<'finished' | 'unchanged'> {
    const { teamName, runId, status, updatedAt } = checkPlainObject(i, 'input');
    checkTeamAndRun(teamName, runId);
    checkFinishedStatus(status, 'status');
    if (updatedAt !== undefined) checkNonEmptyString(updatedAt, 'updatedAt');
    let outcome: 'finished' | 'unchanged' = 'unchanged';
    await this.store.updateLocked((current) => {
      const transaction = newestOfRun(current, teamName, runId);
      if (!transaction) throw stale(current, teamName, runId) ?? notFound(teamName, runId);
      if (transaction.status !== 'active') return current;
      outcome = 'finished';
      transaction.status = status;
      transaction.updatedAt = updatedAt ?? isoTime(this.clock, 'clock');
      return current;
    });
    return outcome;
  }

  /** Returns all transactions of all teams, in the order in which they were begun. */
  async list(): Promise<OpenCodeLaunchTransaction[]> {
    return readStoreData(this.store);
  }

  /** Waits for calls in flight; later calls reject with `HF_CLOSED`. The file's store is closed with it. Twice is harmless. */
  close(): Promise<void> {
    return this.store.close();
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function newestOfRun(all: OpenCodeLaunchTransaction[], teamName: string, runId: string): OpenCodeLaunchTransaction | null {
  return newest(all, (one) => one.teamName === teamName && one.runId === runId);
}

function newestActive(all: OpenCodeLaunchTransaction[], teamName: string): OpenCodeLaunchTransaction | null {
  return newest(all, (one) => one.teamName === teamName && one.status === 'active');
}

/** Returns the last match: transactions are appended, so the newest stands last. */
function newest(
  all: OpenCodeLaunchTransaction[],
  matches: (one: OpenCodeLaunchTransaction) => boolean,
): OpenCodeLaunchTransaction | null {
  return all.filter(matches).pop() ?? null;
}

function hasSameCheckpoint(
  transaction: OpenCodeLaunchTransaction,
  name: OpenCodeLaunchCheckpointName,
  memberName: string | null,
  evidenceHash: string | undefined,
): boolean {
  return transaction.checkpoints.some(
    (one) => one.name === name &&
      one.memberName === memberName &&
      (evidenceHash === undefined || one.evidenceHash === evidenceHash),
  );
}

/** Drops what the limits say; the order stays. */
function retained(
  all: OpenCodeLaunchTransaction[],
  { maxFinished = Infinity, maxAgeMs = Infinity }: OpenCodeLaunchTransactionRetention,
  clock: () => Date,
): OpenCodeLaunchTransaction[] {
  // Without an age limit the clock is not asked: a caller's clock may count its calls.
  const oldestMs = maxAgeMs === Infinity ? -Infinity : Date.parse(isoTime(clock, 'clock')) - maxAgeMs;
  const newerFinished = new Map<string, number>();
  const kept = [...all].reverse().filter((one) => {
    if (one.status === 'active') return true;
    const newer = newerFinished.get(one.teamName) ?? 0;
    newerFinished.set(one.teamName, newer + 1);
    // A time that cannot be read parses as NaN, which is not below any limit.
    return newer < maxFinished && !(Date.parse(one.updatedAt) < oldestMs);
  });
  return kept.reverse();
}

function checkRetention(retention: OpenCodeLaunchTransactionRetention): OpenCodeLaunchTransactionRetention {
  const { maxFinished, maxAgeMs } = checkPlainObject(retention, 'retention');
  if (maxFinished !== undefined && !(Number.isSafeInteger(maxFinished) && maxFinished >= 0)) {
    throw invalidArgument('maxFinished', 'an integer of 0 or more', maxFinished);
  }
  if (maxAgeMs !== undefined) checkFiniteNumber(maxAgeMs, 'maxAgeMs');
  return { maxFinished, maxAgeMs };
}

function checkTeamAndRun(teamName: unknown, runId: unknown): void {
  checkNonEmptyString(teamName, 'teamName');
  checkNonEmptyString(runId, 'runId');
}

/** Returns a copy: the keys of the format, in its order. */
function checkedCheckpoint(input: OpenCodeLaunchCheckpoint): OpenCodeLaunchCheckpoint {
  const { name, teamName, runId, memberName, runtimeSessionId, hostKey, evidenceHash, createdAt, diagnostics } =
    checkPlainObject(input, 'checkpoint');
  checkCheckpointName(name, 'checkpoint.name');
  checkNonEmptyString(teamName, 'checkpoint.teamName');
  checkNonEmptyString(runId, 'checkpoint.runId');
  checkStringOrNull(memberName, 'checkpoint.memberName');
  checkStringOrNull(runtimeSessionId, 'checkpoint.runtimeSessionId');
  checkStringOrNull(hostKey, 'checkpoint.hostKey');
  checkNonEmptyString(evidenceHash, 'checkpoint.evidenceHash');
  checkNonEmptyString(createdAt, 'checkpoint.createdAt');
  checkArray(diagnostics, 'checkpoint.diagnostics');
  return {
    name,
    teamName,
    runId,
    memberName,
    runtimeSessionId,
    hostKey,
    evidenceHash,
    createdAt,
    diagnostics: Array.from(diagnostics, (line, index) => checkString(line, `checkpoint.diagnostics[${index}]`)),
  };
}

function notFound(teamName: string, runId: string): HoldfastError {
  return new HoldfastError(`OpenCode launch transaction not found: ${runId}`, {
    hfCode: 'HF_RUNTIME_TRANSACTION_NOT_FOUND',
    fields: { teamName, runId },
  });
}

function stale(all: OpenCodeLaunchTransaction[], teamName: string, runId: string): HoldfastError | null {
  const active = newestActive(all, teamName);
  if (!active) return null;
  return new HoldfastError(`OpenCode launch transaction ${runId} is stale; active run is ${active.runId}`, {
    hfCode: 'HF_RUNTIME_TRANSACTION_STALE',
    fields: { teamName, runId, activeRunId: active.runId },
  });
}
