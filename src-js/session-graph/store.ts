/** `SessionGraphStore`: one session in one file. */
import { bad, checkBooleanOf, checkCount, checkId, checkIds, checkList, checkObject, checkSignal, checkText, checkWord, print } from './arguments';
import { coreOf, put, question } from './base-store';
import type { PersistedSessionRead, RuntimeCommit, RuntimeCommitResult, SessionReadScope } from './commit-types';
import { UnsupportedReadScopeError } from './errors';
import { checkLimits, checkpointMessage, commitMessage, usageOf } from './message';
import { GraphCore } from './native-store';
import { configOf, postgresConfigOf } from './options';
import { preflightOf, type PreflightReport } from './preflight';
import { DamagedNodes, checkpointOfReply, sessionOf } from './reading';
import type {
  AttachmentIntent,
  AttachmentManifestEntry,
  BlobArtifactDescriptor,
  PostgresSessionGraphOptions,
  SessionGraphStoreOptions,
} from './store-types';
import type {
  BlobRef,
  HydratedSessionCheckpoint,
  SessionMeta,
  SessionNodeRecord,
  StoredSessionCheckpoint,
  TokenLedgerEntry,
} from './value-types';
import { SessionGraphUpkeep } from './upkeep-store';

const KINDS = ['genericBlob', 'checkpointManifest', 'toolState', 'pluginSessionSnapshot', 'executionStateSnapshot', 'module'] as const;
const HINTS = ['compressible', 'inlinePreferred', 'largePayload'] as const;
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
export class SessionGraphStore extends SessionGraphUpkeep {
  /** @internal */
  constructor(make: symbol, core: GraphCore) {
    if (make !== MAKE) throw new TypeError('use SessionGraphStore.open(), .memory(), .openReadOnly() or .connect()');
    super(core);
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
   * Says whether a file can be opened by this version, and whether what is in it can be read; opens nothing for writing, and changes nothing.
   * For a look before a start that would otherwise fail again and again.
   *
   * @param opts `deep`: compares each blob with its hash and looks at each node; default yes. Without it, too, SQLite checks all of the file.
   */
  static async preflight(path: string, opts: { deep?: boolean; signal?: AbortSignal } = {}): Promise<PreflightReport> {
    checkObject(opts, 'opts', ['deep', 'signal']);
    const deep = opts.deep === undefined || checkBooleanOf(opts.deep, 'opts.deep');
    return preflightOf(() => SessionGraphStore.peek(path), deep, checkSignal(opts.signal, 'opts.signal'));
  }

  /** Opens a file for a look that leaves nothing beside it. @internal */
  static async peek(path: string): Promise<SessionGraphStore> {
    return opened(new GraphCore({ ...configOf('readOnly', path, {}), peeks: true }));
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

  /**
   * Applies all of a turn, or nothing of it. With a `turnCommit` it can be sent again when nobody knows whether it landed.
   *
   * @returns The new revision, and the checkpoint as it was stored.
   * @throws {CommitTooLargeError} It is larger than `commitLimits` of the options allow.
   * @throws {HeadRevisionConflictError} Somebody else committed first.
   * @throws {RuntimeTurnCommitConflictError} The turn was committed with other contents.
   * @throws {QueuedWorkClaimExpiredError} Completed work belongs to somebody else by now.
   * @throws {NodeIdCollisionError} {@link UnknownLeafError}, {@link GraphCycleError}, {@link MissingBlobError},
   *   {@link SessionBindingMismatchError}: the commit does not fit what is stored.
   */
  async commitRuntimeState(commit: RuntimeCommit): Promise<RuntimeCommitResult> {
    coreOf(this).requireWritable('commitRuntimeState');
    const message = commitMessage(commit);
    checkLimits(commit, message, coreOf(this).config.commitLimits);
    return JSON.parse(await coreOf(this).write(message.text, message.bytes)) as RuntimeCommitResult;
  }

  /**
   * Reads the session as it is at one moment; `null` before the first commit.
   *
   * @param scope Everything, or the path to a leaf.
   * @param opts `tolerant` skips what is damaged, and lists it in `problems`. An abort of `signal` rejects at once with its reason.
   */
  async loadSession(scope: SessionReadScope, opts: { tolerant?: boolean; signal?: AbortSignal } = {}): Promise<PersistedSessionRead | null> {
    const name = (scope as { scope?: unknown } | null | undefined)?.scope;
    if (name !== 'fullGraph' && name !== 'activePath') {
      const shown = typeof name === 'string' ? name : String(JSON.stringify(scope));
      throw new UnsupportedReadScopeError(`store does not support read scope ${shown}`, { fields: { scope: name } });
    }
    if (scope.scope === 'activePath') checkObject(scope, 'scope', ['scope', 'leafNodeId']);
    checkObject(opts, 'opts', ['tolerant', 'signal']);
    const leaf = 'leafNodeId' in scope ? scope.leafNodeId : null;
    const tolerant = checkBooleanOf(opts.tolerant, 'opts.tolerant');
    const path = name === 'activePath';
    const leafNodeId = leaf === undefined || leaf === null ? null : checkId(leaf, 'scope.leafNodeId');
    const load = { do: 'load', path, leafNodeId, tolerant };
    try {
      return await sessionOf(await coreOf(this).read(JSON.stringify({ ...load, checked: false }), opts.signal), tolerant);
    } catch (error) {
      if (!(error instanceof DamagedNodes)) throw error;
      // Once more, slowly: this time the addon names the row.
      return sessionOf(await coreOf(this).read(JSON.stringify({ ...load, checked: true }), opts.signal), tolerant);
    }
  }

  /** Reads one node; `null` for an unknown and a tombstoned one. */
  async loadNode(nodeId: string): Promise<SessionNodeRecord | null> {
    return question<SessionNodeRecord | null>(this, { do: 'node', key: checkId(nodeId, 'nodeId') });
  }

  /** Replaces what a list of sessions shows of this one. */
  async saveSessionMeta(meta: SessionMeta): Promise<void> {
    coreOf(this).requireWritable('saveSessionMeta');
    await this.#saveMeta(meta, true);
  }

  /** Stores a description unless there is one. @internal */
  static async saveFirstMeta(store: SessionGraphStore, meta: SessionMeta): Promise<void> {
    await store.#saveMeta(meta, false);
  }

  async #saveMeta(meta: SessionMeta, replaces: boolean): Promise<void> {
    checkObject(meta, 'meta');
    const { cwd, relation, summary } = meta;
    const checked = {
      sessionId: checkId(meta.sessionId, 'meta.sessionId'),
      sessionName: checkText(meta.sessionName, 'meta.sessionName'),
      createdAt: checkText(meta.createdAt, 'meta.createdAt'),
      model: checkText(meta.model, 'meta.model'),
      cwd: cwd === undefined || cwd === null ? null : checkText(cwd, 'meta.cwd'),
      relation,
      summary,
    };
    await coreOf(this).write(print({ do: 'saveMeta', meta: checked, replaces }, 'meta'));
  }

  /** Reads what a list of sessions shows of this one; `null` if nothing was saved. */
  async loadSessionMeta(): Promise<SessionMeta | null> {
    return question<SessionMeta | null>(this, { do: 'meta' });
  }

  /** Stores bytes under their hash, never compressed. A collection removes them unless something keeps them. */
  async putBlob(content: Uint8Array): Promise<BlobRef> {
    coreOf(this).requireWritable('putBlob');
    return put(this, { do: 'putBlob', kind: null, compressible: false }, content);
  }

  /** Stores bytes whose kind is known; they are compressed where the descriptor, their size and the store's profile allow it. */
  async putArtifactBlob(descriptor: BlobArtifactDescriptor, content: Uint8Array): Promise<BlobRef> {
    coreOf(this).requireWritable('putArtifactBlob');
    const { kind, hints = [] } = checkObject(descriptor, 'descriptor', ['kind', 'hints']);
    for (const [index, hint] of checkList(hints, 'descriptor.hints').entries()) checkWord(hint, `descriptor.hints[${index}]`, HINTS);
    if (!KINDS.includes(kind)) throw bad('descriptor.kind', `one of ${KINDS.join(', ')}`, kind);
    return put(this, { do: 'putBlob', kind, compressible: hints.includes('compressible') }, content);
  }

  /** Reads a blob and compares it with its hash; `null` if there is none. */
  async getBlob(ref: BlobRef): Promise<Uint8Array | null> {
    const { parts } = await coreOf(this).read(JSON.stringify({ do: 'blob', key: checkId(ref, 'ref') }));
    return parts[0] ?? null;
  }

  /** Stores a checkpoint by itself; a commit or a name must keep it from being collected. */
  async putCheckpoint(checkpoint: HydratedSessionCheckpoint): Promise<StoredSessionCheckpoint> {
    coreOf(this).requireWritable('putCheckpoint');
    const { text, bytes } = checkpointMessage(checkpoint);
    return JSON.parse(await coreOf(this).write(text, bytes)) as StoredSessionCheckpoint;
  }

  /** Reads a checkpoint and all that it names; `null` for an unknown reference. */
  async getCheckpoint(ref: BlobRef): Promise<HydratedSessionCheckpoint | null> {
    return checkpointOfReply(await coreOf(this).read(JSON.stringify({ do: 'checkpoint', key: checkId(ref, 'ref') })));
  }

  /** Stores bytes under a name, which keeps them; what had the name before loses it. */
  async putNamedArtifact(name: string, content: Uint8Array): Promise<BlobRef> {
    coreOf(this).requireWritable('putNamedArtifact');
    return put(this, { do: 'putArtifact', name: checkId(name, 'name') }, content);
  }

  /** Reads the bytes of a name; `null` if there is none. */
  async getNamedArtifact(name: string): Promise<Uint8Array | null> {
    const { parts } = await coreOf(this).read(JSON.stringify({ do: 'artifact', key: checkId(name, 'name') }));
    return parts[0] ?? null;
  }

  /** Adds entries to the ledger. */
  async appendUsageDeltas(entries: TokenLedgerEntry[]): Promise<void> {
    coreOf(this).requireWritable('appendUsageDeltas');
    const checked = usageOf(entries, 'entries');
    if (checked.length > 0) await coreOf(this).write(print({ do: 'appendUsage', entries: checked }, 'entries'));
  }

  /** All entries, in the order in which they were appended. */
  async loadUsageDeltas(): Promise<TokenLedgerEntry[]> {
    return question<TokenLedgerEntry[]>(this, { do: 'usageDeltas' });
  }

  /** The sums by source and model, in the order of their first entries. Entries that used nothing are left out. */
  async tokenLedger(): Promise<TokenLedgerEntry[]> {
    return question<TokenLedgerEntry[]>(this, { do: 'ledger' });
  }

  /** Hides nodes from every read; unknown ids are ignored. */
  async tombstoneNodes(nodeIds: string[]): Promise<void> {
    coreOf(this).requireWritable('tombstoneNodes');
    const ids = checkIds(nodeIds, 'nodeIds');
    if (ids.length > 0) await coreOf(this).write(JSON.stringify({ do: 'tombstone', ids }));
  }

  /** Announces an attachment, before its bytes are written elsewhere. The first announcement counts. */
  async recordIntent(intent: AttachmentIntent): Promise<void> {
    coreOf(this).requireWritable('recordIntent');
    checkObject(intent, 'intent');
    const command = {
      do: 'recordIntent',
      attachmentId: checkId(intent.attachmentId, 'intent.attachmentId'),
      sessionId: checkId(intent.sessionId, 'intent.sessionId'),
      canonicalUri: checkText(intent.canonicalUri, 'intent.canonicalUri'),
      intentAtEpochMs: checkCount(intent.intentAtEpochMs, 'intent.intentAtEpochMs'),
    };
    await coreOf(this).write(JSON.stringify(command));
  }

  /** Marks attachments of a session as committed; unknown ids are ignored. */
  async commitRefs(sessionId: string, attachmentIds: string[]): Promise<void> {
    coreOf(this).requireWritable('commitRefs');
    const command = { do: 'commitRefs', sessionId: checkId(sessionId, 'sessionId'), attachmentIds: checkIds(attachmentIds, 'attachmentIds') };
    await coreOf(this).write(JSON.stringify(command));
  }

  /** Attachments that were announced until then and never committed: candidates for removal. */
  async listUncommitted(olderThanEpochMs: number): Promise<AttachmentManifestEntry[]> {
    return question<AttachmentManifestEntry[]>(this, { do: 'uncommitted', until: checkCount(olderThanEpochMs, 'olderThanEpochMs') });
  }

  /**
   * Forgets an attachment, in all sessions or in one; tells whether there was one. With `onlyIfUncommitted`, remove bytes only after it said
   * true: then they were never committed.
   */
  async forget(attachmentId: string, opts: { sessionId?: string; onlyIfUncommitted?: boolean } = {}): Promise<boolean> {
    coreOf(this).requireWritable('forget');
    checkObject(opts, 'opts', ['sessionId', 'onlyIfUncommitted']);
    const command = {
      do: 'forget',
      attachmentId: checkId(attachmentId, 'attachmentId'),
      sessionId: opts.sessionId === undefined ? null : checkId(opts.sessionId, 'opts.sessionId'),
      onlyIfUncommitted: checkBooleanOf(opts.onlyIfUncommitted, 'opts.onlyIfUncommitted'),
    };
    return (await coreOf(this).write(JSON.stringify(command))) === 'true';
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
