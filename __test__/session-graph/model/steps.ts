/** Random calls of a store, each with what the model says that comes of it. One seed makes the same calls again. */
import {
  completionOf,
  type BlobRef,
  type GraphCommitDelta,
  type HydratedSessionCheckpoint,
  type QueuedWorkBatch,
  type QueuedWorkBatchDraft,
  type QueuedWorkClaim,
  type QueuedWorkCompletion,
  type RuntimeCommit,
  type SessionGraphStore,
  type SessionNodeRecord,
  type TokenLedgerEntry,
} from 'holdfast';
import { expect } from 'vitest';

import { claimIdOf, type Blob, type Model, type Outcome, type Prepared, type View, type Work } from './model';

/** One call. */
export interface Step {
  method: keyof SessionGraphStore;
  args: unknown[];
  outcome: Outcome;
  /** Looks at an answer that holds what only the store knows, and puts that into `outcome.after`. */
  accept?: (answer: unknown) => void;
  /** Puts in what can be seen of a call that landed without an answer. */
  found?: (seen: View) => void;
  /** Batches of which nobody can say who holds them, if it is not known whether the call landed. */
  blurs?: Work[];
  /** Whether nothing shows that the call landed, though it may have. */
  isHidden?: boolean;
}

/** Numbers below a bound, from a seed. */
export function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
const MISSING = `blake3:${'0'.repeat(64)}`;
export const ARTIFACTS = ['module:a', 'module:b'];
const LONG = 600_000;

/** Makes steps. `calculator` is a store that only computes references. */
export class Steps {
  model: Model;
  /** Every reference that was ever made. */
  readonly refs = new Set<BlobRef>();
  /** Claims that somebody may still use, whatever became of them. */
  claims: QueuedWorkClaim[] = [];
  #lastSeq = 0;
  #lastFencing = 0;
  #made = 0;
  #stamped: RuntimeCommit[] = [];

  constructor(
    model: Model,
    readonly calculator: SessionGraphStore,
    readonly pick: (below: number) => number,
  ) {
    this.model = model;
  }

  /** From now on nobody uses a claim of these batches. */
  blur(works: readonly Work[]): void {
    const ids = works.map(({ batch }) => batch.batchId);
    this.claims = this.claims.filter((claim) => !claim.batches.some(({ batchId }) => ids.includes(batchId)));
  }

  async next(): Promise<Step> {
    const { pick } = this;
    const kinds: [number, () => Step | Promise<Step>][] = [
      [14, () => this.commit()],
      [3, () => this.resend()],
      [8, () => this.enqueue()],
      [6, () => this.claim()],
      [2, () => this.claimByIds()],
      [3, () => this.renew()],
      [2, () => this.abandon()],
      [3, () => this.cancel()],
      [3, () => this.tombstone()],
      [2, () => this.#changing('vacuum', [{ reclaimSpace: pick(2) === 0 }], (after) => ({ removedNodeCount: after.vacuum() }))],
      [2, () => this.#changing('gcUnreachable', [{}], (after) => after.collect())],
      [1, () => this.youngCollection()],
      [3, () => this.putBlob()],
      [2, () => this.putCheckpoint()],
      [2, () => this.putArtifact()],
      [2, () => this.appendUsage()],
      [5, () => this.attachment()],
      [1, () => this.saveMeta()],
      [2, () => this.path()],
    ];
    let at = pick(kinds.reduce((sum, [weight]) => sum + weight, 0));
    const [, make] = kinds.find(([weight]) => (at -= weight) < 0)!;
    return make();
  }

  #changing(method: Step['method'], args: unknown[], change: (after: Model) => unknown): Step {
    const after = this.model.clone();
    return { method, args, outcome: { after, value: change(after) } };
  }

  #one<T>(list: readonly T[]): T {
    return list[this.pick(list.length)]!;
  }

  #some<T>(list: readonly T[], most: number): T[] {
    return list.length === 0 ? [] : Array.from({ length: this.pick(most + 1) }, () => this.#one(list));
  }

  #session(): string {
    return this.pick(8) === 0 ? 'other' : 'root';
  }

  async #blob(bytes: Uint8Array, names: BlobRef[] = []): Promise<[BlobRef, Blob]> {
    const ref = await this.calculator.putBlob(bytes);
    this.refs.add(ref);
    return [ref, { bytes: base64(bytes), names }];
  }

  /** Works out references and blobs of a checkpoint. */
  async #prepare(checkpoint: HydratedSessionCheckpoint): Promise<Prepared> {
    const blobs = new Map<BlobRef, Blob>();
    const part = async (value: Uint8Array | undefined, given: BlobRef | undefined): Promise<BlobRef | undefined> => {
      if (value === undefined) return given;
      const [ref, blob] = await this.#blob(value);
      blobs.set(ref, blob);
      return ref;
    };
    const text = (value: unknown): Uint8Array | undefined => (value == null ? undefined : Buffer.from(JSON.stringify(value)));
    const executionStateRef = await part(checkpoint.executionState, checkpoint.executionStateRef);
    const pluginSnapshotRef = await part(text(checkpoint.pluginSnapshot), checkpoint.pluginSnapshotRef);
    const toolStateRef = await part(text(checkpoint.toolState), checkpoint.toolStateRef);
    const { pluginSnapshotRevision, turnState } = checkpoint;
    const members = { executionStateRef, pluginSnapshotRef, pluginSnapshotRevision, toolStateRef, turnState };
    const manifest = JSON.parse(JSON.stringify(members)) as Prepared['manifest'];
    const names = [executionStateRef, pluginSnapshotRef, toolStateRef].filter((ref) => ref !== undefined);
    const [checkpointRef, blob] = await this.#blob(Buffer.from(JSON.stringify({ ...members, v: 1 })), names);
    return { checkpointRef, manifest, blobs: blobs.set(checkpointRef, blob) };
  }

  async #checkpoint(): Promise<HydratedSessionCheckpoint> {
    const { pick } = this;
    // References to values that may or may not be stored at the moment.
    const [known] = await this.#blob(Buffer.from(JSON.stringify({ tool: pick(4) })));
    const ref = pick(12) === 0 ? MISSING : known;
    return {
      turnState: { turnIndex: pick(6) },
      ...(pick(2) === 0 && { toolState: { tool: pick(4) } }),
      ...(pick(5) === 0 && { toolStateRef: ref }),
      ...(pick(4) === 0 && { pluginSnapshot: [{ plugin: pick(3) }], pluginSnapshotRevision: pick(3) }),
      ...(pick(4) === 0 && { executionState: new Uint8Array([pick(4), 0, 255]) }),
      ...(pick(9) === 0 && { executionStateRef: ref }),
    };
  }

  #nodes(most: number): SessionNodeRecord[] {
    const { pick } = this;
    return Array.from({ length: pick(most + 1) }, () => ({
      nodeId: `n${pick(14)}`,
      ...(pick(4) > 0 && { parentNodeId: pick(5) === 0 ? null : `n${pick(14)}` }),
      timestamp: `t${++this.#made}`,
      payload: pick(3) === 0 ? [this.#made, '日\u0000', null] : { of: this.#made },
    }));
  }

  #fresh(): SessionNodeRecord[] {
    const known = this.model.nodes.map(({ node }) => node.nodeId);
    const free = Array.from({ length: 14 }, (_, n) => `n${n}`).filter((id) => !known.includes(id));
    return free.slice(0, this.pick(3)).map((nodeId, index) => {
      const parentNodeId = index > 0 ? free[index - 1]! : known.length > 0 ? this.#one(known) : null;
      return { nodeId, parentNodeId, timestamp: `t${++this.#made}`, payload: this.#made };
    });
  }

  #delta(): GraphCommitDelta {
    const { pick } = this;
    const stored = this.model.nodes.map(({ node }) => node);
    const leafOf = (nodes: SessionNodeRecord[]): string | null => {
      if (pick(6) === 0) return pick(2) === 0 ? null : `n${pick(14)}`;
      return nodes.length > 0 ? this.#one(nodes).nodeId : null;
    };
    switch (pick(6)) {
      case 0:
        return { type: 'unchanged', leafNodeId: leafOf(stored) };
      case 1: {
        // Runtimes write nearly the same graph again.
        const nodes = [...stored.slice(0, pick(stored.length + 1)), ...(pick(2) === 0 ? this.#nodes(3) : [])];
        return { type: 'replaceFull', graph: { nodes, leafNodeId: leafOf(nodes) } };
      }
      default: {
        const nodes = pick(4) === 0 ? this.#nodes(3) : this.#fresh();
        return { type: 'append', nodes, leafNodeId: leafOf([...stored, ...nodes]) };
      }
    }
  }

  #usage(): TokenLedgerEntry[] {
    const entries = this.#some(['turn', 'observer'], 2);
    return entries.map((source) => {
      const used = this.pick(3);
      const usage = { inputTokens: used, outputTokens: 0, cachedInputTokens: this.pick(3), reasoningTokens: used * this.pick(2) };
      return { source, model: `m${this.pick(2)}`, usage };
    });
  }

  #completions(): QueuedWorkCompletion[] {
    const { pick } = this;
    if (this.claims.length === 0 || pick(2) === 0) return [];
    const completion = completionOf(this.#one(this.claims));
    switch (pick(8)) {
      case 0:
        return [{ ...completion, leaseToken: 'invented' }];
      case 1:
        return [{ ...completion, batchIds: [...completion.batchIds, 'qwb:invented'] }];
      case 2:
        return [{ ...completion, batchIds: completion.batchIds.slice(1) }];
      case 3:
        return [completion, completion];
      default:
        return [completion];
    }
  }

  async commit(): Promise<Step> {
    const { pick, model } = this;
    const revision = model.head?.revision ?? 0;
    const sessionId = pick(25) === 0 ? 'other' : 'root';
    const retained = this.#some([...this.refs], 2);
    const commit: RuntimeCommit = {
      sessionId,
      expectedHeadRevision: [undefined, null, revision, revision, revision, revision + 1][pick(6)],
      config: { model: `m${pick(3)}` },
      agentFrames: this.#some([{ frame: 1 }, 'two', null], 2),
      currentAgentFrameId: pick(2) === 0 ? '' : 'frame',
      graph: this.#delta(),
      checkpoint: await this.#checkpoint(),
      usageDeltas: this.#usage(),
      completedQueueClaims: this.#completions(),
      committedAttachmentIds: this.#some(['a', 'b', 'c'], 1),
      retainedBlobRefs: retained.filter((ref) => model.blobs.has(ref) || pick(8) === 0),
    };
    if (pick(2) === 0) {
      const given = pick(5) === 0 && { turnCommitHash: `given ${pick(2)}` };
      commit.turnCommit = { sessionId: pick(20) === 0 ? 'other' : sessionId, turnId: `t${pick(12)}`, ...given };
      this.#stamped.push(commit);
    }
    return this.#committing(commit);
  }

  async #committing(commit: RuntimeCommit): Promise<Step> {
    const outcome = this.model.commit(commit, await this.#prepare(commit.checkpoint));
    return { method: 'commitRuntimeState', args: [commit], outcome };
  }

  /** A turn that was sent before: as it was, with what may differ, or with what may not. */
  async resend(): Promise<Step> {
    const { pick } = this;
    if (this.#stamped.length === 0) return this.commit();
    const commit = structuredClone(this.#one(this.#stamped));
    const kind = pick(3);
    if (kind === 1) commit.config = { other: true };
    if (kind === 2) {
      commit.expectedHeadRevision = 77;
      const nodes = commit.graph.type === 'append' ? commit.graph.nodes : [];
      const renamed = new Map(nodes.map(({ nodeId }, index) => [nodeId, `again${index}`]));
      for (const node of nodes) {
        node.nodeId = renamed.get(node.nodeId)!;
        if (node.parentNodeId != null) node.parentNodeId = renamed.get(node.parentNodeId) ?? node.parentNodeId;
        node.timestamp = 'later';
      }
    }
    return this.#committing(commit);
  }

  enqueue(): Step {
    const { pick } = this;
    const draft: QueuedWorkBatchDraft = {
      sessionId: this.#session(),
      payloads: Array.from({ length: pick(3) }, () => ({ work: ++this.#made })),
      deliveryPolicy: pick(4) === 0 ? 'afterCurrentTurnCommit' : 'earliestSafeBoundary',
      slotPolicy: pick(4) === 0 ? 'exclusive' : 'join',
      mergeKey: this.#one(['never', 'payloadDefault', 'payloadDefault', { group: 'g' }] as const),
      ...(pick(3) === 0 && { sourceKey: `k${pick(3)}` }),
      ...(pick(5) === 0 && { availableAtMs: Date.now() + (pick(2) === 0 ? LONG : -1000) }),
    };
    const after = this.model.clone();
    const known = draft.sourceKey === undefined ? undefined : after.queue.find(({ batch }) => batch.sessionId === draft.sessionId && batch.sourceKey === draft.sourceKey);
    if (known) return { method: 'enqueueQueuedWork', args: [draft], outcome: { after, value: known.batch } };
    const put = (batch: QueuedWorkBatch): void => {
      const { payloads, ...rest } = { sourceKey: null, availableAtMs: 0, ...draft };
      const items = payloads.map((payload, index) => ({ itemId: `${batch.batchId}:item:${index}`, payload }));
      expect(batch).toEqual({ ...rest, batchId: batch.batchId, enqueueSeq: batch.enqueueSeq, enqueuedAtMs: batch.enqueuedAtMs, items });
      expect(batch.batchId).toMatch(/^qwb:[0-9a-f]{32}$/);
      expect(batch.enqueueSeq).toBeGreaterThan(this.#lastSeq);
      expect(Math.abs(batch.enqueuedAtMs - Date.now())).toBeLessThan(60_000);
      this.#lastSeq = batch.enqueueSeq;
      after.queue.push({ batch, claim: null });
    };
    const found = (seen: View): void => {
      const ids = new Set(after.queue.map(({ batch }) => batch.batchId));
      const fresh = seen.queue.flat().find((batch) => !ids.has(batch.batchId));
      if (fresh) put(fresh);
    };
    return { method: 'enqueueQueuedWork', args: [draft], outcome: { after }, accept: (answer) => put(answer as QueuedWorkBatch), found };
  }

  #claiming(method: 'claimReadyQueuedWork' | 'claimReadyQueuedWorkByBatchIds', wanted: object, sessionId: string, take: (model: Model, boundary: 'idle' | 'activeTurnCheckpoint') => Work[]): Step {
    const { pick } = this;
    const boundary = pick(4) === 0 ? 'activeTurnCheckpoint' : 'idle';
    const leaseTtlMs = pick(2) === 0 ? 0 : LONG;
    const args = [{ sessionId, ownerId: `o${pick(2)}`, leaseTtlMs, boundary, ...wanted }];
    const after = this.model.clone();
    const taken = take(after, boundary);
    if (taken.length === 0) return { method, args, outcome: { after, value: null } };
    const accept = (answer: unknown): void => {
      const claim = answer as QueuedWorkClaim;
      expect(claim).toMatchObject({ sessionId, ownerId: args[0]!.ownerId, batches: taken.map(({ batch }) => batch) });
      expect(claim.fencingToken).toBeGreaterThan(this.#lastFencing);
      expect(claim.claimId).toBe(`qwc:${taken[0]!.batch.enqueueSeq}:${claim.fencingToken}`);
      expect(claim.leaseToken).toMatch(/^[0-9a-f]{32}$/);
      expect(claim.expiresAtEpochMs - claim.claimedAtEpochMs).toBe(leaseTtlMs);
      this.#lastFencing = claim.fencingToken;
      for (const work of taken) work.claim = { id: claimIdOf(claim), isLive: leaseTtlMs > 0 };
      this.claims.push(claim);
    };
    const found = (): void => {
      for (const work of taken) work.claim = { id: 'lost', isLive: leaseTtlMs > 0 };
    };
    return { method, args, outcome: { after }, accept, found, blurs: taken };
  }

  claim(): Step {
    const sessionId = this.#session();
    const maxBatches = this.pick(4);
    return this.#claiming('claimReadyQueuedWork', { maxBatches }, sessionId, (model, boundary) => model.ready(sessionId, boundary, maxBatches));
  }

  claimByIds(): Step {
    const sessionId = this.#session();
    const next = this.model.ready(sessionId, 'idle', 1 + this.pick(2)).map(({ batch }) => batch.batchId);
    const batchIds = this.pick(3) === 0 ? next.reverse().concat(this.#some(['qwb:invented'], 1)) : next;
    return this.#claiming('claimReadyQueuedWorkByBatchIds', { batchIds }, sessionId, (model, boundary) => {
      const taken = model.ready(sessionId, boundary, batchIds.length);
      return JSON.stringify(taken.map(({ batch }) => batch.batchId)) === JSON.stringify(batchIds) ? taken : [];
    });
  }

  renew(): Step {
    if (this.claims.length === 0) return this.enqueue();
    const claim = this.#one(this.claims);
    const leaseTtlMs = this.pick(2) === 0 ? 0 : LONG;
    const after = this.model.clone();
    const args = [claim, leaseTtlMs];
    if (!after.holds(claim)) return { method: 'renewQueuedWorkClaim', args, outcome: { after, errors: ['QueuedWorkClaimExpiredError'] } };
    const held = after.carriers(claim.sessionId, claimIdOf(claim));
    for (const work of held) work.claim!.isLive = leaseTtlMs > 0;
    const accept = (answer: unknown): void => {
      const { expiresAtEpochMs, ...rest } = answer as QueuedWorkClaim;
      expect({ ...rest, expiresAtEpochMs: claim.expiresAtEpochMs }).toEqual(claim);
      expect(Math.abs(expiresAtEpochMs - leaseTtlMs - Date.now())).toBeLessThan(60_000);
    };
    return { method: 'renewQueuedWorkClaim', args, outcome: { after }, accept, found: () => {} };
  }

  abandon(): Step {
    if (this.claims.length === 0) return this.enqueue();
    const claim = this.#one(this.claims);
    const after = this.model.clone();
    const held = after.carriers(claim.sessionId, claimIdOf(claim));
    for (const work of held) work.claim = null;
    return { method: 'abandonQueuedWorkClaim', args: [claim], outcome: { after, value: undefined }, blurs: held };
  }

  cancel(): Step {
    const sessionId = this.#session();
    const work = this.model.queue.length > 0 && this.pick(8) > 0 ? this.#one(this.model.queue) : undefined;
    const id = work?.batch.batchId ?? 'qwb:invented';
    const fits = work !== undefined && work.batch.sessionId === sessionId && !work.claim?.isLive;
    return this.#changing('cancelQueuedWorkBatch', [sessionId, id], (after) => {
      if (fits) after.queue = after.queue.filter(({ batch }) => batch.batchId !== id);
      return fits ? work.batch : null;
    });
  }

  tombstone(): Step {
    const ids = this.#some(Array.from({ length: 16 }, (_, n) => `n${n}`), 2);
    return this.#changing('tombstoneNodes', [ids], (after) => {
      for (const each of after.nodes) each.hidden ||= ids.includes(each.node.nodeId);
    });
  }

  youngCollection(): Step {
    // Everything is younger than that, so nothing goes; the rest of the report is as ever.
    return this.#changing('gcUnreachable', [{ minBlobAgeMs: LONG }], (after) => ({ ...after.clone().collect(), deletedBlobCount: 0, freedBytes: 0 }));
  }

  async putBlob(): Promise<Step> {
    const bytes = Buffer.from(this.pick(4) === 0 ? JSON.stringify({ tool: this.pick(4) }) : `blob ${this.pick(8)}`);
    const [ref, blob] = await this.#blob(bytes);
    const kind = this.pick(2) === 0;
    const args = kind ? [{ kind: 'module', hints: ['compressible'] }, new Uint8Array(bytes)] : [new Uint8Array(bytes)];
    return this.#changing(kind ? 'putArtifactBlob' : 'putBlob', args, (after) => {
      if (!after.blobs.has(ref)) after.blobs.set(ref, blob);
      return ref;
    });
  }

  async putCheckpoint(): Promise<Step> {
    const checkpoint = await this.#checkpoint();
    const { checkpointRef, manifest, blobs } = await this.#prepare(checkpoint);
    const { toolState, executionState, toolStateRef, executionStateRef } = checkpoint;
    const given = [toolState === undefined && toolStateRef, executionState === undefined && executionStateRef];
    if (given.some((ref) => ref && !this.model.blobs.has(ref))) {
      return { method: 'putCheckpoint', args: [checkpoint], outcome: { after: this.model, errors: ['MissingBlobError'] } };
    }
    return this.#changing('putCheckpoint', [checkpoint], (after) => {
      for (const [ref, blob] of blobs) if (!after.blobs.has(ref)) after.blobs.set(ref, blob);
      return { checkpointRef, manifest };
    });
  }

  async putArtifact(): Promise<Step> {
    const bytes = Buffer.from(`blob ${this.pick(8)}`);
    const [ref, blob] = await this.#blob(bytes);
    const name = this.#one(ARTIFACTS);
    return this.#changing('putNamedArtifact', [name, new Uint8Array(bytes)], (after) => {
      if (!after.blobs.has(ref)) after.blobs.set(ref, blob);
      after.artifacts.set(name, ref);
      return ref;
    });
  }

  appendUsage(): Step {
    const entries = this.#usage();
    return this.#changing('appendUsageDeltas', [entries], (after) => void after.usage.push(...entries));
  }

  attachment(): Step {
    const { pick } = this;
    const [sessionId, attachmentId] = [this.#session(), this.#one(['a', 'b', 'c'])];
    switch (pick(4)) {
      case 0:
        return this.#changing('commitRefs', [sessionId, [attachmentId, 'nobody']], (after) => after.commitRefs(sessionId, [attachmentId]));
      case 1: {
        const onlyIfUncommitted = pick(2) === 0;
        const every = pick(2) === 0;
        const fits = [...this.model.attachments].filter(
          ([, entry]) => entry.attachmentId === attachmentId && (every || entry.sessionId === sessionId) && !(onlyIfUncommitted && entry.isCommitted),
        );
        const step = this.#changing('forget', [attachmentId, { onlyIfUncommitted, ...(!every && { sessionId }) }], (after) => {
          for (const [key] of fits) after.attachments.delete(key);
          return fits.length > 0;
        });
        return { ...step, isHidden: fits.some(([, entry]) => entry.isCommitted) };
      }
      default: {
        const intent = { attachmentId, sessionId, canonicalUri: `file:///${++this.#made}`, intentAtEpochMs: pick(4) };
        return this.#changing('recordIntent', [intent], (after) => {
          const key = `${sessionId} ${attachmentId}`;
          if (!after.attachments.has(key)) after.attachments.set(key, { ...intent, isCommitted: false });
        });
      }
    }
  }

  saveMeta(): Step {
    const meta = { sessionId: 'root', sessionName: `name ${++this.#made}`, createdAt: 't', model: 'm' };
    return this.#changing('saveSessionMeta', [meta], (after) => {
      after.meta = { ...meta, cwd: null, relation: { type: 'root' } };
    });
  }

  /** A path to any leaf; the head's stays what it is. */
  path(): Step {
    const leafNodeId = `n${this.pick(16)}`;
    const value = this.model.head && expect.objectContaining({ graph: { nodes: this.model.path(leafNodeId), leafNodeId } });
    return { method: 'loadSession', args: [{ scope: 'activePath', leafNodeId }], outcome: { after: this.model, value } };
  }
}
