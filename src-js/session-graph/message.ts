/** Commits and checkpoints as commands of the addon. */
import { isRecord } from '../check';
import { bad, checkBytes, checkCount, checkId, checkIds, checkInteger, checkList, checkObject, checkPrintable, checkWord, given, print } from './arguments';
import type { GraphCommitDelta, RuntimeCommit } from './commit-types';
import { CommitTooLargeError } from './errors';
import type { QueuedWorkCompletion } from './queue-types';
import type { HydratedSessionCheckpoint, JsonValue, SessionNodeRecord, TokenLedgerEntry } from './value-types';

/** A command, and the bytes of the execution state. */
export interface Message {
  text: string;
  bytes: Uint8Array[];
}

const COMMIT = [
  'sessionId', 'expectedHeadRevision', 'config', 'agentFrames', 'currentAgentFrameId', 'graph', 'checkpoint', 'turnCommit', 'usageDeltas',
  'completedQueueClaims', 'committedAttachmentIds', 'retainedBlobRefs',
] as const satisfies (keyof RuntimeCommit)[];
const CHECKPOINT = [
  'turnState', 'toolState', 'toolStateRef', 'pluginSnapshot', 'pluginSnapshotRef', 'pluginSnapshotRevision', 'executionState', 'executionStateRef',
] as const satisfies (keyof HydratedSessionCheckpoint)[];

/** Prints a commit. */
export function commitMessage(commit: RuntimeCommit): Message {
  checkObject(commit, 'commit', COMMIT);
  const { expectedHeadRevision: expected, turnCommit } = commit;
  const { checkpoint, bytes } = checkpointOf(commit.checkpoint, 'commit.checkpoint');
  const text = print(
    {
      do: 'commit',
      sessionId: checkId(commit.sessionId, 'commit.sessionId'),
      expectedHeadRevision: expected === undefined || expected === null ? null : checkCount(expected, 'commit.expectedHeadRevision'),
      config: given(commit.config, 'commit.config'),
      agentFrames: checkList(commit.agentFrames, 'commit.agentFrames'),
      currentAgentFrameId: given(commit.currentAgentFrameId, 'commit.currentAgentFrameId'),
      ...deltaOf(commit.graph),
      checkpoint,
      turn: turnCommit === undefined || turnCommit === null ? null : stampOf(turnCommit),
      usage: usageOf(commit.usageDeltas ?? [], 'commit.usageDeltas'),
      completions: checkList(commit.completedQueueClaims ?? [], 'commit.completedQueueClaims').map(completion),
      attachments: checkIds(commit.committedAttachmentIds ?? [], 'commit.committedAttachmentIds'),
      retained: checkIds(commit.retainedBlobRefs ?? [], 'commit.retainedBlobRefs'),
    },
    'commit',
  );
  return { text, bytes };
}

/** Refuses a commit that is larger than it may be. */
export function checkLimits(commit: RuntimeCommit, { text, bytes }: Message, limits: { maxBytes: number; maxNodes: number }): void {
  const { graph } = commit;
  const nodes = graph.type === 'append' ? graph.nodes.length : graph.type === 'replaceFull' ? graph.graph.nodes.length : 0;
  if (nodes > limits.maxNodes) throw tooLarge('nodes', limits.maxNodes, nodes);
  const state = bytes[0]?.byteLength ?? 0;
  // Counting bytes reads all of the text: only where it could matter.
  if (text.length * 3 + state <= limits.maxBytes) return;
  const size = Buffer.byteLength(text) + state;
  if (size > limits.maxBytes) throw tooLarge('bytes', limits.maxBytes, size);
}

function tooLarge(limit: 'bytes' | 'nodes', max: number, actual: number): Error {
  const message = `the commit has ${actual} ${limit}, and commitLimits allow ${max}; nothing was written: send it in parts, or raise the limit`;
  return new CommitTooLargeError(message, { fields: { limit, max, actual } });
}

/** Prints a checkpoint. */
export function checkpointMessage(given: HydratedSessionCheckpoint): Message {
  const { checkpoint, bytes } = checkpointOf(given, 'checkpoint');
  return { text: print({ do: 'putCheckpoint', checkpoint }, 'checkpoint'), bytes };
}

/** A part of a checkpoint, or none; what prints as `null` would be none without a word. */
function part(value: JsonValue | null | undefined, argument: string): JsonValue | undefined {
  if (value === undefined || value === null) return undefined;
  const isOdd = typeof value === 'number' || typeof (value as { toJSON?: unknown }).toJSON === 'function';
  if (isOdd && print(value, argument) === 'null') throw bad(argument, 'what JSON can say', value);
  return checkPrintable(value, argument);
}

/** Nodes whose payloads are given. */
function nodesOf(nodes: readonly SessionNodeRecord[], argument: string): readonly SessionNodeRecord[] {
  // What is no node at all is refused by the addon.
  for (const [index, node] of checkList(nodes, argument).entries()) {
    if (isRecord(node)) checkPrintable(node.payload, `${argument}[${index}].payload`);
  }
  return nodes;
}

function checkpointOf(checkpoint: HydratedSessionCheckpoint, argument: string): { checkpoint: object; bytes: Uint8Array[] } {
  checkObject(checkpoint, argument, CHECKPOINT);
  const { executionState, pluginSnapshotRevision: revision } = checkpoint;
  const ref = (name: 'toolStateRef' | 'pluginSnapshotRef' | 'executionStateRef'): string | undefined => {
    const value = checkpoint[name] as string | null | undefined;
    return value === undefined || value === null ? undefined : checkId(value, `${argument}.${name}`);
  };
  const isThere = executionState !== undefined && (executionState as unknown) !== null;
  return {
    bytes: isThere ? [checkBytes(executionState, `${argument}.executionState`)] : [],
    checkpoint: {
      turnState: given(checkpoint.turnState, `${argument}.turnState`),
      toolState: part(checkpoint.toolState, `${argument}.toolState`),
      toolStateRef: ref('toolStateRef'),
      pluginSnapshot: part(checkpoint.pluginSnapshot, `${argument}.pluginSnapshot`),
      pluginSnapshotRef: ref('pluginSnapshotRef'),
      pluginSnapshotRevision:
        revision === undefined || (revision as unknown) === null ? undefined : checkCount(revision, `${argument}.pluginSnapshotRevision`),
      executionStateRef: ref('executionStateRef'),
    },
  };
}

function deltaOf(graph: GraphCommitDelta): object {
  checkObject(graph, 'commit.graph');
  // The nodes' own ids are checked by the addon, where all of them are read anyway.
  switch (graph.type) {
    case 'unchanged':
      checkObject(graph, 'commit.graph', ['type', 'leafNodeId']);
      return { delta: 'unchanged', leafNodeId: leafOf(graph.leafNodeId, 'commit.graph.leafNodeId') };
    case 'append':
      checkObject(graph, 'commit.graph', ['type', 'nodes', 'leafNodeId']);
      return {
        delta: 'append',
        nodes: nodesOf(graph.nodes, 'commit.graph.nodes'),
        leafNodeId: leafOf(graph.leafNodeId, 'commit.graph.leafNodeId'),
      };
    case 'replaceFull':
      checkObject(graph, 'commit.graph', ['type', 'graph']);
      checkObject(graph.graph, 'commit.graph.graph', ['nodes', 'leafNodeId']);
      return {
        delta: 'replaceFull',
        nodes: nodesOf(graph.graph.nodes, 'commit.graph.graph.nodes'),
        leafNodeId: leafOf(graph.graph.leafNodeId, 'commit.graph.graph.leafNodeId'),
      };
    default:
      return { delta: checkWord((graph as { type?: unknown }).type, 'commit.graph.type', ['unchanged', 'append', 'replaceFull']) };
  }
}

function leafOf(value: string | null | undefined, argument: string): string | null {
  return value === null || value === undefined ? null : checkId(value, argument);
}

function stampOf(stamp: NonNullable<RuntimeCommit['turnCommit']>): object {
  checkObject(stamp, 'commit.turnCommit', ['sessionId', 'turnId', 'turnCommitHash']);
  const hash = stamp.turnCommitHash as string | null | undefined;
  return {
    sessionId: checkId(stamp.sessionId, 'commit.turnCommit.sessionId'),
    turnId: checkId(stamp.turnId, 'commit.turnCommit.turnId'),
    hash: hash === undefined || hash === null ? undefined : checkId(hash, 'commit.turnCommit.turnCommitHash'),
  };
}

function completion(value: QueuedWorkCompletion, index: number): QueuedWorkCompletion {
  const argument = `commit.completedQueueClaims[${index}]`;
  checkObject(value, argument);
  return {
    sessionId: checkId(value.sessionId, `${argument}.sessionId`),
    claimId: checkId(value.claimId, `${argument}.claimId`),
    leaseToken: checkId(value.leaseToken, `${argument}.leaseToken`),
    batchIds: checkIds(value.batchIds, `${argument}.batchIds`),
  };
}

/** Requires entries of a ledger. */
export function usageOf(entries: readonly TokenLedgerEntry[], argument: string): TokenLedgerEntry[] {
  return checkList(entries, argument).map((entry, index) => {
    const at = `${argument}[${index}]`;
    checkObject(entry, at);
    const usage = checkObject(entry.usage, `${at}.usage`);
    return {
      source: checkId(entry.source, `${at}.source`),
      model: checkId(entry.model, `${at}.model`),
      usage: {
        inputTokens: checkInteger(usage.inputTokens, `${at}.usage.inputTokens`),
        outputTokens: checkInteger(usage.outputTokens, `${at}.usage.outputTokens`),
        cachedInputTokens: checkInteger(usage.cachedInputTokens, `${at}.usage.cachedInputTokens`),
        reasoningTokens: checkInteger(usage.reasoningTokens, `${at}.usage.reasoningTokens`),
      },
    };
  });
}
