/**
 * A session store as plain lists and maps: what the answers of a real one must be. Nothing here is shared with the code under test but the
 * names of errors; references (hashes) are computed beforehand.
 */
import type {
  AttachmentIntent,
  BlobRef,
  QueuedWorkBatch,
  QueuedWorkClaim,
  RuntimeCommit,
  RuntimeCommitResult,
  SessionCheckpoint,
  SessionMeta,
  SessionNodeRecord,
  TokenLedgerEntry,
} from 'holdfast';

/** A stored blob: its bytes in base64; for a manifest what it names. */
export interface Blob {
  bytes: string;
  names: BlobRef[];
}

/** A batch, and who holds it. `lost`: somebody may, who never heard of it. */
export interface Work {
  batch: QueuedWorkBatch;
  claim: { id: string; isLive: boolean } | null;
}

interface Head {
  sessionId: string;
  revision: number;
  commit: RuntimeCommit;
  leaf: string | null;
  checkpointRef: BlobRef;
}

/** What a call answers (or the errors that it may fail with), and what is stored after it. */
export interface Outcome {
  after: Model;
  errors?: string[];
  /** What must be answered; without it, `check` looks at the answer. */
  value?: unknown;
}

/** A checkpoint with its references, and the blobs that it brings. */
export interface Prepared {
  checkpointRef: BlobRef;
  manifest: SessionCheckpoint;
  blobs: Map<BlobRef, Blob>;
}

export const claimIdOf = (claim: QueuedWorkClaim): string => `${claim.claimId} ${claim.leaseToken}`;

export class Model {
  head: Head | null = null;
  nodes: { node: SessionNodeRecord; hidden: boolean }[] = [];
  blobs = new Map<BlobRef, Blob>();
  artifacts = new Map<string, BlobRef>();
  usage: TokenLedgerEntry[] = [];
  turns = new Map<string, { hash: string; result: RuntimeCommitResult }>();
  queue: Work[] = [];
  attachments = new Map<string, AttachmentIntent & { isCommitted: boolean }>();
  meta: SessionMeta | null = null;

  clone(): Model {
    return Object.assign(new Model(), structuredClone({ ...this }));
  }

  /** What is wrong with a commit, in the order in which it is looked at; else what it changes and answers. */
  commit(commit: RuntimeCommit, prepared: Prepared): Outcome {
    const refuse = (...errors: string[]): Outcome => ({ after: this, errors });
    if (this.head !== null && this.head.sessionId !== commit.sessionId) return refuse('SessionBindingMismatchError');
    const stamp = commit.turnCommit;
    const hash = stamp ? (stamp.turnCommitHash ?? fingerprint(commit, prepared)) : '';
    if (stamp) {
      const known = this.turns.get(stamp.turnId);
      if (stamp.sessionId !== commit.sessionId) return refuse('RuntimeTurnCommitConflictError');
      if (known) return known.hash === hash ? { after: this, value: known.result } : refuse('RuntimeTurnCommitConflictError');
    }
    const revision = this.head?.revision ?? 0;
    const expected = commit.expectedHeadRevision ?? revision;
    if (expected !== revision) return refuse('HeadRevisionConflictError');
    for (const { sessionId, claimId, leaseToken, batchIds } of commit.completedQueueClaims ?? []) {
      const held = this.carriers(sessionId, `${claimId} ${leaseToken}`).map(({ batch }) => batch.batchId);
      if (sessionId !== commit.sessionId || held.length === 0 || !same(held, batchIds)) return refuse('QueuedWorkClaimExpiredError');
    }
    const after = this.clone();
    const wrong = after.applyGraph(commit.graph, this.head);
    if (wrong.length > 0) return refuse(...wrong);
    const { toolState, pluginSnapshot, executionState, ...refs } = commit.checkpoint;
    const given = [toolState == null && refs.toolStateRef, pluginSnapshot == null && refs.pluginSnapshotRef, !executionState && refs.executionStateRef];
    if (given.some((ref) => ref && !this.blobs.has(ref))) return refuse('MissingBlobError');
    for (const [ref, blob] of prepared.blobs) if (!after.blobs.has(ref)) after.blobs.set(ref, blob);
    if ((commit.retainedBlobRefs ?? []).some((ref) => !after.blobs.has(ref))) return refuse('MissingBlobError');

    after.usage.push(...(commit.usageDeltas ?? []));
    const leaf = commit.graph.type === 'replaceFull' ? commit.graph.graph.leafNodeId : commit.graph.leafNodeId;
    const { checkpointRef, manifest } = prepared;
    after.head = { sessionId: commit.sessionId, revision: revision + 1, commit, leaf, checkpointRef };
    const done = (commit.completedQueueClaims ?? []).map(({ claimId, leaseToken }) => `${claimId} ${leaseToken}`);
    after.queue = after.queue.filter(({ batch, claim }) => batch.sessionId !== commit.sessionId || claim === null || !done.includes(claim.id));
    after.commitRefs(commit.sessionId, commit.committedAttachmentIds ?? []);
    const result = { headRevision: revision + 1, checkpointRef, manifest };
    if (stamp) after.turns.set(stamp.turnId, { hash, result });
    return { after, value: result };
  }

  /** Applies a delta; returns what is wrong with it. */
  private applyGraph(graph: RuntimeCommit['graph'], head: Model['head']): string[] {
    const isReplaced = graph.type === 'replaceFull';
    const [added, leaf] = isReplaced ? [graph.graph.nodes, graph.graph.leafNodeId] : [graph.type === 'append' ? graph.nodes : [], graph.leafNodeId];
    if (isReplaced) this.nodes = [];
    const known = new Set(this.nodes.map(({ node }) => node.nodeId));
    let collides = false;
    for (const node of added) {
      collides ||= known.has(node.nodeId);
      known.add(node.nodeId);
      this.nodes.push({ node, hidden: false });
    }
    // Which of the two is found first is nobody's business.
    if (collides) return ['NodeIdCollisionError', ...(added.some((node) => node.parentNodeId === node.nodeId) ? ['GraphCycleError'] : [])];
    if (this.hasCycle()) return ['GraphCycleError'];
    // The head's leaf may stay where it is, also when it was removed.
    const stays = graph.type === 'unchanged' && head !== null && head.leaf === leaf;
    return leaf !== null && !known.has(leaf) && !stays ? ['UnknownLeafError'] : [];
  }

  private hasCycle(): boolean {
    const parents = new Map(this.nodes.map(({ node }) => [node.nodeId, node.parentNodeId ?? null]));
    return [...parents.keys()].some((start) => {
      let at: string | null | undefined = start;
      // The nodes, one parent that is not stored, and the end.
      for (let steps = 0; steps <= parents.size + 1; steps++) {
        if (at === null || at === undefined) return false;
        at = parents.get(at);
      }
      return true;
    });
  }

  /** The nodes from a root to `leaf`. */
  path(leaf: string | null): SessionNodeRecord[] {
    const visible = new Map(this.nodes.filter(({ hidden }) => !hidden).map(({ node }) => [node.nodeId, node]));
    const path: SessionNodeRecord[] = [];
    for (let at = leaf === null ? undefined : visible.get(leaf); at; at = visible.get(at.parentNodeId ?? '')) path.unshift(at);
    return path;
  }

  vacuum(): number {
    const before = this.nodes.length;
    this.nodes = this.nodes.filter(({ hidden }) => !hidden);
    return before - this.nodes.length;
  }

  /** Removes what nobody keeps; the report. */
  collect(): object {
    const roots = new Set([...(this.head ? [this.head.checkpointRef, ...(this.head.commit.retainedBlobRefs ?? [])] : []), ...this.artifacts.values()]);
    const live = new Set([...roots].flatMap((ref) => [ref, ...this.blobs.get(ref)!.names]));
    const dead = [...this.blobs].filter(([ref]) => !live.has(ref));
    for (const [ref] of dead) this.blobs.delete(ref);
    const freedBytes = dead.reduce((sum, [, { bytes }]) => sum + sizeOf(bytes), 0);
    return { rootCount: roots.size, retainedBlobCount: live.size, deletedBlobCount: dead.length, freedBytes };
  }

  ledger(): TokenLedgerEntry[] {
    const sums = new Map<string, TokenLedgerEntry>();
    for (const { source, model, usage } of this.usage) {
      if (usage.inputTokens + usage.outputTokens + usage.reasoningTokens === 0) continue;
      const key = `${source} ${model}`;
      const sum = sums.get(key) ?? { source, model, usage: { inputTokens: 0, outputTokens: 0, cachedInputTokens: 0, reasoningTokens: 0 } };
      for (const name of Object.keys(usage) as (keyof typeof usage)[]) sum.usage[name] += usage[name];
      sums.set(key, sum);
    }
    return [...sums.values()];
  }

  /** The batches that carry a claim. */
  carriers(sessionId: string, id: string): Work[] {
    return this.queue.filter(({ batch, claim }) => batch.sessionId === sessionId && claim?.id === id);
  }

  /** Whether a claim still owns all that it took. */
  holds(claim: QueuedWorkClaim): boolean {
    const held = this.carriers(claim.sessionId, claimIdOf(claim)).map(({ batch }) => batch.batchId);
    return same(held, claim.batches.map(({ batchId }) => batchId));
  }

  /** The batches that a claim would take. Future ones are never ready here, all others always are. */
  ready(sessionId: string, boundary: string, most: number): Work[] {
    const ready = this.queue.filter(({ batch, claim }) => batch.sessionId === sessionId && !claim?.isLive && batch.availableAtMs <= Date.now());
    const first = ready[0]?.batch;
    if (first === undefined || most === 0) return [];
    if (boundary === 'activeTurnCheckpoint' && first.deliveryPolicy !== 'earliestSafeBoundary') return [];
    if (first.slotPolicy === 'exclusive' || first.mergeKey === 'never') return ready.slice(0, 1);
    const goesOn = ({ batch }: Work): boolean =>
      batch.slotPolicy === 'join' && batch.deliveryPolicy === first.deliveryPolicy && JSON.stringify(batch.mergeKey) === JSON.stringify(first.mergeKey);
    const end = ready.findIndex((work) => !goesOn(work));
    return ready.slice(0, Math.min(most, end === -1 ? ready.length : end));
  }

  commitRefs(sessionId: string, ids: string[]): void {
    for (const id of ids) {
      const entry = this.attachments.get(`${sessionId} ${id}`);
      if (entry) entry.isCommitted = true;
    }
  }

  /** What {@link observe} must see. */
  view(refs: readonly BlobRef[], artifacts: readonly string[]): View {
    const head = this.head;
    const rest = head && {
      sessionId: head.sessionId,
      headRevision: head.revision,
      config: head.commit.config,
      agentFrames: head.commit.agentFrames,
      currentAgentFrameId: head.commit.currentAgentFrameId,
      checkpointRef: head.checkpointRef,
      checkpoint: this.hydrated(head.checkpointRef),
      tokenLedger: this.ledger(),
    };
    const session = (nodes: SessionNodeRecord[]): unknown => rest && { ...rest, graph: { nodes, leafNodeId: head!.leaf } };
    const hidden = this.nodes.filter((node) => node.hidden).length;
    const list = (sessionId: string, pending: boolean): QueuedWorkBatch[] =>
      this.queue.filter(({ batch, claim }) => batch.sessionId === sessionId && !(pending && claim?.isLive)).map(({ batch }) => batch);
    const bytesOf = (ref: BlobRef | undefined): string | null => (ref === undefined ? null : (this.blobs.get(ref)?.bytes ?? null));
    const uncommitted = [...this.attachments.values()].filter((entry) => !entry.isCommitted);
    const key = (entry: AttachmentIntent): string => `${String(entry.intentAtEpochMs).padStart(6)} ${entry.attachmentId} ${entry.sessionId}`;
    return {
      full: session(this.nodes.filter((node) => !node.hidden).map(({ node }) => node)),
      path: session(this.path(head?.leaf ?? null)),
      usage: this.usage,
      ledger: this.ledger(),
      queue: ['root', 'other'].flatMap((id) => [list(id, false), list(id, true)]),
      uncommitted: uncommitted
        .sort((a, b) => (key(a) < key(b) ? -1 : 1))
        .map(({ isCommitted: _, ...intent }) => ({ ...intent, committedAtEpochMs: null })),
      meta: this.meta,
      stats: {
        headRevision: head?.revision ?? 0,
        liveNodes: this.nodes.length - hidden,
        tombstonedNodes: hidden,
        blobBytes: [...this.blobs.values()].reduce((sum, { bytes }) => sum + sizeOf(bytes), 0),
        queuedBatches: this.queue.length,
      },
      artifacts: artifacts.map((name) => bytesOf(this.artifacts.get(name))),
      blobs: refs.map(bytesOf),
      problems: [],
    };
  }

  private hydrated(ref: BlobRef): unknown {
    const text = (of: BlobRef): string => Buffer.from(this.blobs.get(of)!.bytes, 'base64').toString();
    const { v: _, ...manifest } = JSON.parse(text(ref)) as SessionCheckpoint & { v: number };
    return {
      ...manifest,
      ...(manifest.toolStateRef && { toolState: JSON.parse(text(manifest.toolStateRef)) as unknown }),
      ...(manifest.pluginSnapshotRef && { pluginSnapshot: JSON.parse(text(manifest.pluginSnapshotRef)) as unknown }),
      ...(manifest.executionStateRef && { executionState: `base64 ${this.blobs.get(manifest.executionStateRef)!.bytes}` }),
    };
  }
}

/** All that can be seen of a store. */
export interface View {
  full: unknown;
  path: unknown;
  usage: unknown;
  ledger: unknown;
  queue: QueuedWorkBatch[][];
  uncommitted: unknown;
  meta: unknown;
  stats: unknown;
  artifacts: (string | null)[];
  blobs: (string | null)[];
  problems: unknown;
}

export const sizeOf = (base64: string): number => Buffer.from(base64, 'base64').length;

const same = (a: string[], b: string[]): boolean => JSON.stringify([...a].sort()) === JSON.stringify([...b].sort());

/** What two sendings of one turn have in common (R29). */
function fingerprint(commit: RuntimeCommit, { manifest }: Prepared): string {
  const { graph } = commit;
  const nodes = graph.type === 'append' ? graph.nodes : graph.type === 'replaceFull' ? graph.graph.nodes : [];
  const places = new Map(nodes.map((node, index) => [node.nodeId, index]));
  return JSON.stringify([
    commit.config,
    commit.agentFrames,
    commit.currentAgentFrameId,
    graph.type,
    nodes.map(({ parentNodeId: parent, payload }) => [parent == null ? null : (places.get(parent) ?? '^'), payload]),
    manifest,
    commit.usageDeltas ?? [],
    (commit.completedQueueClaims ?? []).flatMap(({ batchIds }) => batchIds).sort(),
    [...(commit.committedAttachmentIds ?? [])].sort(),
    [...(commit.retainedBlobRefs ?? [])].sort(),
  ]);
}
