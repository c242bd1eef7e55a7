/** Commits, and what a session looks like when it is read. */
import type { QueuedWorkCompletion } from './queue-types';
import type { BlobRef, HydratedSessionCheckpoint, JsonValue, SessionCheckpoint, SessionGraph, SessionNodeRecord, TokenLedgerEntry } from './value-types';

/** What a commit does to the graph. */
export type GraphCommitDelta =
  /** No nodes; the leaf may move. */
  | { type: 'unchanged'; leafNodeId: string | null }
  /** Adds nodes at the end. */
  | { type: 'append'; nodes: SessionNodeRecord[]; leafNodeId: string | null }
  /** Makes these nodes all there are. */
  | { type: 'replaceFull'; graph: SessionGraph };

/** All that one turn changes. It happens whole or not at all. */
export interface RuntimeCommit {
  /** The first commit binds the store to it. */
  sessionId: string;
  /** The revision that the commit builds on; 0 = none yet. `null` or left out: whatever there is. */
  expectedHeadRevision?: number | null;
  /** Stored and returned, never interpreted; so are the next two. */
  config: JsonValue;
  agentFrames: JsonValue[];
  currentAgentFrameId: string;
  graph: GraphCommitDelta;
  checkpoint: HydratedSessionCheckpoint;
  /** Makes the commit one that can be sent again: the second time it answers what it answered the first time. */
  turnCommit?: RuntimeTurnCommitStamp | null;
  usageDeltas?: TokenLedgerEntry[];
  /** Claimed work that is done with this commit. */
  completedQueueClaims?: QueuedWorkCompletion[];
  /** Attachments whose bytes are in place. */
  committedAttachmentIds?: string[];
  /** References that stand in opaque JSON: this head keeps their blobs. */
  retainedBlobRefs?: BlobRef[];
}

/** What identifies a turn. */
export interface RuntimeTurnCommitStamp {
  sessionId: string;
  turnId: string;
  /** What {@link turnCommitHash} computes, unless the caller has a hash of its own. */
  turnCommitHash?: string;
}

/** The answer to a commit. */
export interface RuntimeCommitResult {
  headRevision: number;
  checkpointRef: BlobRef;
  manifest: SessionCheckpoint;
}

/** What is read: everything, or the path from a root to a leaf (default: the head's). */
export type SessionReadScope = { scope: 'fullGraph' } | { scope: 'activePath'; leafNodeId?: string | null };

/** A session, as it is at one moment. */
export interface PersistedSessionRead {
  sessionId: string;
  headRevision: number;
  config: JsonValue;
  agentFrames: JsonValue[];
  currentAgentFrameId: string;
  graph: SessionGraph;
  checkpointRef: BlobRef | null;
  checkpoint: HydratedSessionCheckpoint | null;
  tokenLedger: TokenLedgerEntry[];
  /** What was skipped; only with `tolerant`. */
  problems?: IntegrityProblem[];
}

/** Something that is not as it must be. */
export interface IntegrityProblem {
  kind: 'head' | 'node' | 'blob' | 'manifest' | 'usage' | 'queue';
  /** Which one: an id, a reference, a number. */
  key: string;
  detail: string;
}
