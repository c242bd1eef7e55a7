/** What is stored of a session. */

/** Whatever JSON can say. */
export type JsonValue = null | boolean | number | string | JsonValue[] | { [key: string]: JsonValue };

/** The name of a blob. Opaque; today `blake3:` and 64 hex digits. */
export type BlobRef = string;

/** What a resolved write survives: nothing, a killed process, or a power cut. */
export type DurabilityTier = 'inline' | 'processCrash' | 'durable';

/** A node. Only its id and its parent's are interpreted; all else comes back as it went in. */
export interface SessionNodeRecord {
  /** Unique in the store. */
  nodeId: string;
  /** The parent, which may be missing. None: a root. */
  parentNodeId?: string | null;
  agentFrameId?: string | null;
  causedBy?: JsonValue;
  timestamp: string;
  payload: JsonValue;
}

/** All nodes, and which one the conversation stands at. */
export interface SessionGraph {
  nodes: SessionNodeRecord[];
  leafNodeId: string | null;
}

/** The manifest of a checkpoint: what belongs to it, by reference. */
export interface SessionCheckpoint {
  turnState: JsonValue;
  toolStateRef?: BlobRef;
  pluginSnapshotRef?: BlobRef;
  pluginSnapshotRevision?: number;
  executionStateRef?: BlobRef;
}

/** A manifest with what it names. When it is stored, a value wins over a reference. */
export interface HydratedSessionCheckpoint extends SessionCheckpoint {
  toolState?: JsonValue;
  pluginSnapshot?: JsonValue;
  executionState?: Uint8Array;
}

/** A checkpoint that is stored. */
export interface StoredSessionCheckpoint {
  checkpointRef: BlobRef;
  manifest: SessionCheckpoint;
}

/** Counts of tokens. */
export interface TokenUsage {
  inputTokens: number;
  outputTokens: number;
  cachedInputTokens: number;
  reasoningTokens: number;
}

/** What somebody used of a model. */
export interface TokenLedgerEntry {
  source: string;
  model: string;
  usage: TokenUsage;
}

/** What a list of sessions shows of one. */
export interface SessionMeta {
  sessionId: string;
  sessionName: string;
  createdAt: string;
  model: string;
  cwd?: string | null;
  /** Default `{ type: 'root' }`. */
  relation?: JsonValue;
  /** What else a list of sessions shows, such as the last message; small, because lists read all of them. */
  summary?: JsonValue;
}
