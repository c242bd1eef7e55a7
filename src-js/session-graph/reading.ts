/** What the addon answers, as values. Nodes come in slices, so that no large session holds the event loop up. */
import { breathe } from '../breathe';
import { RecordDecodeError } from './errors';
import type { Reply } from './native-store';
import type { IntegrityProblem, PersistedSessionRead } from './commit-types';
import type { NodeAt } from './upkeep-types';
import type { HydratedSessionCheckpoint, JsonValue, SessionCheckpoint, SessionNodeRecord, TokenLedgerEntry } from './value-types';

interface Header {
  sessionId: string;
  headRevision: number;
  config: JsonValue;
  agentFrames: JsonValue[];
  currentAgentFrameId: string;
  leafNodeId: string | null;
  checkpointRef: string;
  manifest: SessionCheckpoint | null;
  components: Component[];
  tokenLedger: TokenLedgerEntry[];
  /** Bytes of each JSON array of nodes in the last part. */
  slabs: number[];
  problems: IntegrityProblem[];
}

type Component = 'toolState' | 'pluginSnapshot' | 'executionState';

/** Thrown where stored nodes are no JSON: the addon knows which. */
export class DamagedNodes extends Error {}

/** Makes a session of an answer. */
export async function sessionOf({ text, parts }: Reply, tolerant: boolean): Promise<PersistedSessionRead | null> {
  const header = JSON.parse(text) as Header | null;
  if (header === null) return null;
  const { sessionId, headRevision, config, agentFrames, currentAgentFrameId, leafNodeId, checkpointRef, tokenLedger } = header;
  const checkpoint = header.manifest === null ? null : hydrated(header.manifest, header.components, parts);
  const nodes = await nodesOf(parts[header.components.length], header.slabs);
  return {
    sessionId,
    headRevision,
    config,
    agentFrames,
    currentAgentFrameId,
    graph: { nodes, leafNodeId },
    checkpointRef,
    checkpoint,
    tokenLedger,
    ...(tolerant && { problems: header.problems }),
  };
}

/** Makes a checkpoint of an answer. */
export function checkpointOfReply({ text, parts }: Reply): HydratedSessionCheckpoint | null {
  const header = JSON.parse(text) as { manifest: SessionCheckpoint; components: Component[] } | null;
  return header === null ? null : hydrated(header.manifest, header.components, parts);
}

/** Nodes on a page, at most. */
const PAGE = 512;

/** Asks for page after page. */
export async function* nodesOfPages(
  read: (after: number, limit: number) => Promise<Reply>,
  after: number,
  limit: number,
): AsyncGenerator<NodeAt, void> {
  let [at, left, more] = [after, limit, true];
  while (more && left > 0) {
    const { text, parts } = await read(at, Math.min(PAGE, left));
    const page = JSON.parse(text) as { seqs: number[]; slabs: number[]; more: boolean };
    const nodes = await nodesOf(parts[0], page.slabs);
    for (const [index, node] of nodes.entries()) yield { seq: page.seqs[index] as number, node };
    at = page.seqs.at(-1) ?? at;
    left -= nodes.length;
    more = page.more;
  }
}

function hydrated(manifest: SessionCheckpoint, components: Component[], parts: Uint8Array[]): HydratedSessionCheckpoint {
  const checkpoint: HydratedSessionCheckpoint = { ...manifest };
  for (const [index, name] of components.entries()) {
    const part = parts[index];
    if (part === undefined) continue;
    if (name === 'executionState') checkpoint.executionState = part;
    else checkpoint[name] = parse(view(part).toString('utf8'), name);
  }
  return checkpoint;
}

function parse(text: string, component: string): JsonValue {
  try {
    return JSON.parse(text) as JsonValue;
  } catch (cause) {
    throw new RecordDecodeError(`the blob of ${component} is no JSON`, { cause, fields: { table: 'blobs', key: component } });
  }
}

async function nodesOf(part: Uint8Array | undefined, slabs: number[]): Promise<SessionNodeRecord[]> {
  const nodes: SessionNodeRecord[] = [];
  if (part === undefined) return nodes;
  const bytes = view(part);
  let [at, since] = [0, 0];
  for (const length of slabs) {
    let slab: SessionNodeRecord[];
    try {
      slab = JSON.parse(bytes.toString('utf8', at, at + length)) as SessionNodeRecord[];
    } catch (cause) {
      throw new DamagedNodes('stored nodes are no JSON', { cause });
    }
    for (const node of slab) nodes.push(node);
    at += length;
    since += length;
    const pause = breathe(since);
    if (pause !== undefined && at < bytes.length) {
      await pause;
      since = 0;
    }
  }
  return nodes;
}

function view(part: Uint8Array): Buffer {
  return Buffer.from(part.buffer, part.byteOffset, part.byteLength);
}
