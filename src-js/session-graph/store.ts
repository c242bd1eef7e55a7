/** `SessionGraphStore`: one session in one file. */
import { checkBooleanOrUndefined, checkPath } from '../check';
import { bad, checkBytes, checkCount, checkId, checkIds, checkObject, checkText, print } from './arguments';
import type { IntegrityProblem, PersistedSessionRead, RuntimeCommit, RuntimeCommitResult, SessionReadScope } from './commit-types';
import { UnsupportedReadScopeError, asGraphError } from './errors';
import { checkpointMessage, commitMessage, usageOf } from './message';
import { GraphCore } from './native-store';
import { configOf, postgresConfigOf } from './options';
import { batchIdsOf, claimCommand, enqueueCommand, heldOf } from './queue';
import type { QueuedWorkBatch, QueuedWorkBatchDraft, QueuedWorkClaim, QueuedWorkClaimRequest } from './queue-types';
import { DamagedNodes, checkpointOfReply, sessionOf } from './reading';
import type {
  AttachmentIntent,
  AttachmentManifestEntry,
  BlobArtifactDescriptor,
  GcReport,
  PostgresSessionGraphOptions,
  SessionGraphStats,
  SessionGraphStoreOptions,
} from './store-types';
import type {
  BlobRef,
  DurabilityTier,
  HydratedSessionCheckpoint,
  SessionMeta,
  SessionNodeRecord,
  StoredSessionCheckpoint,
  TokenLedgerEntry,
} from './value-types';

const KINDS = ['genericBlob', 'checkpointManifest', 'toolState', 'pluginSessionSnapshot', 'executionStateSnapshot', 'module'] as const;
/** Only the static functions make stores. */
const MAKE = Symbol('make');

/**
 * One session: its graph, its checkpoint, what it used, and the work that waits for it, in one file that any number of threads and processes
 * may use. Writes of one store apply in the order of the calls; a read sees every write that was resolved before.
 *
 * @example
 * ```ts
 * await using store = await SessionGraphStore.open('chat.db');
 * await store.commitRuntimeState({
 *   sessionId: 'root', expectedHeadRevision: 0, config: {}, agentFrames: [], currentAgentFrameId: '',
 *   graph: { type: 'append', nodes: [{ nodeId: 'n1', timestamp: new Date().toISOString(), payload: 'hello' }], leafNodeId: 'n1' },
 *   checkpoint: { turnState: { turnIndex: 1 } },
 * });
 * ```
 */
export class SessionGraphStore implements AsyncDisposable {
  readonly #core: GraphCore;

  /** @internal */
  constructor(make: symbol, core: GraphCore) {
    if (make !== MAKE) throw new TypeError('use SessionGraphStore.open(), .memory(), .openReadOnly() or .connect()');
    this.#core = core;
  }

  /**
   * Opens a file, and makes it (not its folder) when it is missing. Any number of processes may do so at once.
   *
   * @throws {UnsupportedSchemaError} It is no session database, or of a version that this build cannot use; it was not touched.
   * @throws {StoreBusyError} Others kept it to themselves for longer than `busyTimeoutMs`.
   */
  static async open(path: string, options: SessionGraphStoreOptions = {}): Promise<SessionGraphStore> {
    return opened(new GraphCore(configOf('file', path, options)));
  }

  /** Makes a private store in memory, gone when it is closed. */
  static async memory(options: SessionGraphStoreOptions = {}): Promise<SessionGraphStore> {
    return opened(new GraphCore(configOf('memory', null, options)));
  }

  /**
   * Opens a file that is neither made nor changed; what others commit is seen. Every method that writes rejects with
   * {@link ReadOnlyStoreError}.
   *
   * @throws {StoreNotFoundError} There is none.
   */
  static async openReadOnly(path: string, options: SessionGraphStoreOptions = {}): Promise<SessionGraphStore> {
    return opened(new GraphCore(configOf('readOnly', path, options)));
  }

  /**
   * Opens a store in a schema of a PostgreSQL database, for runtimes on several machines: one store per session, any number of them in one
   * schema. A resolved write is as durable as the server's `synchronous_commit` says.
   *
   * @throws {HoldfastError} `HF_UNAVAILABLE`: the server cannot be reached.
   */
  static async connect(options: PostgresSessionGraphOptions): Promise<SessionGraphStore> {
    return opened(new GraphCore(postgresConfigOf(options)));
  }

  /** Where the file is, with links followed; `null` in memory and in PostgreSQL. */
  get path(): string | null {
    return this.#core.path;
  }

  /** Whether it was opened by `openReadOnly`. */
  get readOnly(): boolean {
    return this.#core.config.readOnly;
  }

  /** The version of the file. */
  get schemaVersion(): number {
    return this.#core.schemaVersion;
  }

  /** What a resolved write survives; `inline` for what cannot be written or is in memory. */
  durabilityTier(): DurabilityTier {
    const { path, readOnly, synchronous, postgres } = this.#core.config;
    if (postgres !== undefined) return 'durable';
    if (path === null || readOnly) return 'inline';
    return synchronous === 'full' ? 'durable' : 'processCrash';
  }

  /** Finishes what was called, then closes the file. Later calls reject with {@link StoreClosedError}; closing again is fine. */
  close(): Promise<void> {
    return this.#core.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /**
   * Applies all of a turn, or nothing of it. With a `turnCommit` it can be sent again when nobody knows whether it landed.
   *
   * @returns The new revision, and the checkpoint as it was stored.
   * @throws {HeadRevisionConflictError} Somebody else committed first.
   * @throws {RuntimeTurnCommitConflictError} The turn was committed with other contents.
   * @throws {QueuedWorkClaimExpiredError} Completed work belongs to somebody else by now.
   * @throws {NodeIdCollisionError} {@link UnknownLeafError}, {@link GraphCycleError}, {@link MissingBlobError},
   *   {@link SessionBindingMismatchError}: the commit does not fit what is stored.
   */
  async commitRuntimeState(commit: RuntimeCommit): Promise<RuntimeCommitResult> {
    this.#core.requireWritable('commitRuntimeState');
    const { text, bytes } = commitMessage(commit);
    return JSON.parse(await this.#core.write(text, bytes)) as RuntimeCommitResult;
  }

  /**
   * Reads the session as it is at one moment; `null` before the first commit.
   *
   * @param scope Everything, or the path to a leaf.
   * @param opts `tolerant` skips what is damaged, and lists it in `problems`.
   */
  async loadSession(scope: SessionReadScope, opts: { tolerant?: boolean } = {}): Promise<PersistedSessionRead | null> {
    const name = (scope as { scope?: unknown } | null | undefined)?.scope;
    if (name !== 'fullGraph' && name !== 'activePath') {
      const shown = typeof name === 'string' ? name : String(JSON.stringify(scope));
      throw new UnsupportedReadScopeError(`store does not support read scope ${shown}`, { fields: { scope: name } });
    }
    const leaf = 'leafNodeId' in scope ? scope.leafNodeId : null;
    const tolerant = flag(opts.tolerant, 'opts.tolerant');
    const path = name === 'activePath';
    const leafNodeId = leaf === undefined || leaf === null ? null : checkId(leaf, 'scope.leafNodeId');
    const load = { do: 'load', path, leafNodeId, tolerant };
    try {
      return await sessionOf(await this.#core.read(JSON.stringify({ ...load, checked: false })), tolerant);
    } catch (error) {
      if (!(error instanceof DamagedNodes)) throw error;
      // Once more, slowly: this time the addon names the row.
      return sessionOf(await this.#core.read(JSON.stringify({ ...load, checked: true })), tolerant);
    }
  }

  /** Reads one node; `null` for an unknown and a tombstoned one. */
  async loadNode(nodeId: string): Promise<SessionNodeRecord | null> {
    return this.#question<SessionNodeRecord | null>({ do: 'node', key: checkId(nodeId, 'nodeId') });
  }

  /** Replaces what a list of sessions shows of this one. */
  async saveSessionMeta(meta: SessionMeta): Promise<void> {
    this.#core.requireWritable('saveSessionMeta');
    await this.#saveMeta(meta, true);
  }

  /** Stores a description unless there is one. @internal */
  static async saveFirstMeta(store: SessionGraphStore, meta: SessionMeta): Promise<void> {
    await store.#saveMeta(meta, false);
  }

  async #saveMeta(meta: SessionMeta, replaces: boolean): Promise<void> {
    checkObject(meta, 'meta');
    const { cwd, relation } = meta;
    const checked = {
      sessionId: checkId(meta.sessionId, 'meta.sessionId'),
      sessionName: checkText(meta.sessionName, 'meta.sessionName'),
      createdAt: checkText(meta.createdAt, 'meta.createdAt'),
      model: checkText(meta.model, 'meta.model'),
      cwd: cwd === undefined || cwd === null ? null : checkText(cwd, 'meta.cwd'),
      relation,
    };
    await this.#core.write(print({ do: 'saveMeta', meta: checked, replaces }, 'meta'));
  }

  /** Reads what a list of sessions shows of this one; `null` if nothing was saved. */
  async loadSessionMeta(): Promise<SessionMeta | null> {
    return this.#question<SessionMeta | null>({ do: 'meta' });
  }

  /** Stores bytes under their hash, never compressed. A collection removes them unless something keeps them. */
  async putBlob(content: Uint8Array): Promise<BlobRef> {
    this.#core.requireWritable('putBlob');
    return this.#put({ do: 'putBlob', kind: null, compressible: false }, content);
  }

  /** Stores bytes whose kind is known; they are compressed where the descriptor, their size and the store's profile allow it. */
  async putArtifactBlob(descriptor: BlobArtifactDescriptor, content: Uint8Array): Promise<BlobRef> {
    this.#core.requireWritable('putArtifactBlob');
    const { kind, hints = [] } = checkObject(descriptor, 'descriptor');
    if (!KINDS.includes(kind)) throw bad('descriptor.kind', `one of ${KINDS.join(', ')}`, kind);
    return this.#put({ do: 'putBlob', kind, compressible: hints.includes('compressible') }, content);
  }

  /** Reads a blob and compares it with its hash; `null` if there is none. */
  async getBlob(ref: BlobRef): Promise<Uint8Array | null> {
    const { parts } = await this.#core.read(JSON.stringify({ do: 'blob', key: checkId(ref, 'ref') }));
    return parts[0] ?? null;
  }

  /** Stores a checkpoint by itself; a commit or a name must keep it from being collected. */
  async putCheckpoint(checkpoint: HydratedSessionCheckpoint): Promise<StoredSessionCheckpoint> {
    this.#core.requireWritable('putCheckpoint');
    const { text, bytes } = checkpointMessage(checkpoint);
    return JSON.parse(await this.#core.write(text, bytes)) as StoredSessionCheckpoint;
  }

  /** Reads a checkpoint and all that it names; `null` for an unknown reference. */
  async getCheckpoint(ref: BlobRef): Promise<HydratedSessionCheckpoint | null> {
    return checkpointOfReply(await this.#core.read(JSON.stringify({ do: 'checkpoint', key: checkId(ref, 'ref') })));
  }

  /** Stores bytes under a name, which keeps them; what had the name before loses it. */
  async putNamedArtifact(name: string, content: Uint8Array): Promise<BlobRef> {
    this.#core.requireWritable('putNamedArtifact');
    return this.#put({ do: 'putArtifact', name: checkId(name, 'name') }, content);
  }

  /** Reads the bytes of a name; `null` if there is none. */
  async getNamedArtifact(name: string): Promise<Uint8Array | null> {
    const { parts } = await this.#core.read(JSON.stringify({ do: 'artifact', key: checkId(name, 'name') }));
    return parts[0] ?? null;
  }

  /** Adds entries to the ledger. */
  async appendUsageDeltas(entries: TokenLedgerEntry[]): Promise<void> {
    this.#core.requireWritable('appendUsageDeltas');
    const checked = usageOf(entries, 'entries');
    if (checked.length > 0) await this.#core.write(print({ do: 'appendUsage', entries: checked }, 'entries'));
  }

  /** All entries, in the order in which they were appended. */
  async loadUsageDeltas(): Promise<TokenLedgerEntry[]> {
    return this.#question<TokenLedgerEntry[]>({ do: 'usageDeltas' });
  }

  /** The sums by source and model, in the order of their first entries. Entries that used nothing are left out. */
  async tokenLedger(): Promise<TokenLedgerEntry[]> {
    return this.#question<TokenLedgerEntry[]>({ do: 'ledger' });
  }

  /** Lets work wait for its turn; a batch with the same `sourceKey` that is not done yet is returned instead. */
  async enqueueQueuedWork(draft: QueuedWorkBatchDraft): Promise<QueuedWorkBatch> {
    this.#core.requireWritable('enqueueQueuedWork');
    return JSON.parse(await this.#core.write(print(enqueueCommand(draft), 'draft'))) as QueuedWorkBatch;
  }

  /** Claims what is next: the first batch that is ready, and those that may go with it. `null` if there is nothing. */
  async claimReadyQueuedWork(req: QueuedWorkClaimRequest & { maxBatches: number }): Promise<QueuedWorkClaim | null> {
    this.#core.requireWritable('claimReadyQueuedWork');
    const command = claimCommand(req, { maxBatches: req?.maxBatches });
    return JSON.parse(await this.#core.write(print(command, 'req'))) as QueuedWorkClaim | null;
  }

  /** Claims exactly these batches if they are what is next, in this order; else `null`. */
  async claimReadyQueuedWorkByBatchIds(req: QueuedWorkClaimRequest & { batchIds: string[] }): Promise<QueuedWorkClaim | null> {
    this.#core.requireWritable('claimReadyQueuedWorkByBatchIds');
    const command = claimCommand(req, { batchIds: req?.batchIds });
    return JSON.parse(await this.#core.write(print(command, 'req'))) as QueuedWorkClaim | null;
  }

  /**
   * Lets a lease end `leaseTtlMs` from now, also one that has lapsed as long as nobody else claimed the work.
   *
   * @throws {QueuedWorkClaimExpiredError} Somebody else did.
   */
  async renewQueuedWorkClaim(claim: QueuedWorkClaim, leaseTtlMs: number): Promise<QueuedWorkClaim> {
    this.#core.requireWritable('renewQueuedWorkClaim');
    const command = { do: 'renew', ...heldOf(claim), batchIds: batchIdsOf(claim), leaseTtlMs: checkCount(leaseTtlMs, 'leaseTtlMs') };
    return { ...claim, expiresAtEpochMs: Number(await this.#core.write(JSON.stringify(command))) };
  }

  /** Gives back what still belongs to the claim. */
  async abandonQueuedWorkClaim(claim: QueuedWorkClaim): Promise<void> {
    this.#core.requireWritable('abandonQueuedWorkClaim');
    await this.#core.write(JSON.stringify({ do: 'abandon', ...heldOf(claim) }));
  }

  /** Removes and returns a batch that nobody works on; `null` for all others. */
  async cancelQueuedWorkBatch(sessionId: string, batchId: string): Promise<QueuedWorkBatch | null> {
    this.#core.requireWritable('cancelQueuedWorkBatch');
    const command = { do: 'cancel', sessionId: checkId(sessionId, 'sessionId'), batchId: checkId(batchId, 'batchId') };
    return JSON.parse(await this.#core.write(JSON.stringify(command))) as QueuedWorkBatch | null;
  }

  /** All batches of a session in their order, also those that are claimed and those of the future. */
  async listQueuedWork(sessionId: string): Promise<QueuedWorkBatch[]> {
    return this.#question<QueuedWorkBatch[]>({ do: 'queue', sessionId: checkId(sessionId, 'sessionId'), pending: false });
  }

  /** The batches of a session that nobody works on, also those of the future. */
  async listPendingQueuedWork(sessionId: string): Promise<QueuedWorkBatch[]> {
    return this.#question<QueuedWorkBatch[]>({ do: 'queue', sessionId: checkId(sessionId, 'sessionId'), pending: true });
  }

  /** Hides nodes from every read; unknown ids are ignored. */
  async tombstoneNodes(nodeIds: string[]): Promise<void> {
    this.#core.requireWritable('tombstoneNodes');
    const ids = checkIds(nodeIds, 'nodeIds');
    if (ids.length > 0) await this.#core.write(JSON.stringify({ do: 'tombstone', ids }));
  }

  /** Removes hidden nodes; `reclaimSpace` also gives free pages of the file back, piece by piece. The file shrinks when its log is written back. */
  async vacuum(opts: { reclaimSpace?: boolean } = {}): Promise<{ removedNodeCount: number }> {
    this.#core.requireWritable('vacuum');
    const reclaimSpace = flag(opts.reclaimSpace, 'opts.reclaimSpace');
    return { removedNodeCount: Number(await this.#core.write(JSON.stringify({ do: 'vacuum', reclaimSpace }))) };
  }

  /**
   * Removes blobs that neither the head nor a name keeps, in slices that let others write in between. Where it cannot be told what is alive,
   * nothing is removed and `aborted` says why.
   */
  async gcUnreachable(opts: { minBlobAgeMs?: number } = {}): Promise<GcReport> {
    this.#core.requireWritable('gcUnreachable');
    const age = opts.minBlobAgeMs;
    const minBlobAgeMs = age === undefined ? null : checkCount(age, 'opts.minBlobAgeMs');
    return JSON.parse(await this.#core.write(JSON.stringify({ do: 'gc', minBlobAgeMs }))) as GcReport;
  }

  /** Announces an attachment, before its bytes are written elsewhere. The first announcement counts. */
  async recordIntent(intent: AttachmentIntent): Promise<void> {
    this.#core.requireWritable('recordIntent');
    checkObject(intent, 'intent');
    const command = {
      do: 'recordIntent',
      attachmentId: checkId(intent.attachmentId, 'intent.attachmentId'),
      sessionId: checkId(intent.sessionId, 'intent.sessionId'),
      canonicalUri: checkText(intent.canonicalUri, 'intent.canonicalUri'),
      intentAtEpochMs: checkCount(intent.intentAtEpochMs, 'intent.intentAtEpochMs'),
    };
    await this.#core.write(JSON.stringify(command));
  }

  /** Marks attachments of a session as committed; unknown ids are ignored. */
  async commitRefs(sessionId: string, attachmentIds: string[]): Promise<void> {
    this.#core.requireWritable('commitRefs');
    const command = { do: 'commitRefs', sessionId: checkId(sessionId, 'sessionId'), attachmentIds: checkIds(attachmentIds, 'attachmentIds') };
    await this.#core.write(JSON.stringify(command));
  }

  /** Attachments that were announced until then and never committed: candidates for removal. */
  async listUncommitted(olderThanEpochMs: number): Promise<AttachmentManifestEntry[]> {
    return this.#question<AttachmentManifestEntry[]>({ do: 'uncommitted', until: checkCount(olderThanEpochMs, 'olderThanEpochMs') });
  }

  /**
   * Forgets an attachment, in all sessions or in one; tells whether there was one. With `onlyIfUncommitted`, remove bytes only after it said
   * true: then they were never committed.
   */
  async forget(attachmentId: string, opts: { sessionId?: string; onlyIfUncommitted?: boolean } = {}): Promise<boolean> {
    this.#core.requireWritable('forget');
    const command = {
      do: 'forget',
      attachmentId: checkId(attachmentId, 'attachmentId'),
      sessionId: opts.sessionId === undefined ? null : checkId(opts.sessionId, 'opts.sessionId'),
      onlyIfUncommitted: flag(opts.onlyIfUncommitted, 'opts.onlyIfUncommitted'),
    };
    return (await this.#core.write(JSON.stringify(command))) === 'true';
  }

  /**
   * Copies the store, as it is at one moment, to a file, which appears whole or not at all. Others go on writing. Never copy a live file yourself:
   * the copy would be torn.
   */
  async backup(toPath: string): Promise<void> {
    this.#core.requireWritable('backup');
    try {
      checkPath(toPath, 'toPath');
    } catch (error) {
      throw asGraphError(error);
    }
    await this.#core.backup(toPath);
  }

  /** Says what is not as it must be; nothing, if all is well. `deep` also compares each blob with its hash. Reads the whole file. */
  async verify(opts: { deep?: boolean } = {}): Promise<IntegrityProblem[]> {
    return this.#question<IntegrityProblem[]>({ do: 'verify', deep: flag(opts.deep, 'opts.deep') });
  }

  /** Figures, for those who look after the store. */
  async stats(): Promise<SessionGraphStats> {
    return this.#question<SessionGraphStats>({ do: 'stats' });
  }

  async #question<T>(command: object): Promise<T> {
    const { text } = await this.#core.read(JSON.stringify(command));
    return JSON.parse(text) as T;
  }

  async #put(command: object, content: Uint8Array): Promise<BlobRef> {
    return JSON.parse(await this.#core.write(JSON.stringify(command), [checkBytes(content, 'content')])) as BlobRef;
  }
}

async function opened(core: GraphCore): Promise<SessionGraphStore> {
  try {
    await core.open();
  } catch (error) {
    // What went wrong before is what counts.
    await core.close().catch(() => {});
    throw error;
  }
  return new SessionGraphStore(MAKE, core);
}

function flag(value: unknown, argument: string): boolean {
  try {
    return checkBooleanOrUndefined(value, argument) ?? false;
  } catch (error) {
    throw asGraphError(error);
  }
}
