/** The hash that makes two sendings of one turn the same. */
import { checkFunctionOrUndefined } from '../check';
import { checkList, checkObject } from './arguments';
import { asGraphError } from './errors';
import { commitMessage } from './message';
import { hashOf } from './native-store';
import type { RuntimeCommit } from './commit-types';
import type { JsonValue, SessionNodeRecord } from './value-types';

/**
 * Computes the hash of a commit: over all that it decides, and nothing that may differ between two sendings. Left out are the turn's stamp, the
 * expected revision, ids and times of nodes, the leaf, ids and tokens of claims, and which stored node an appended one hangs from (that it is a
 * stored one counts). Completed batches, attachments and `retainedBlobRefs` count in any order.
 *
 * A part of the checkpoint may be given as a value or by its reference. `toolState` and `pluginSnapshot` are hashed as the text that is stored,
 * so there the order of an object's keys counts, unlike everywhere else: build them the same way in each try.
 *
 * @param commit The commit.
 * @param options `scrubPayload` rewrites each node's payload before it is hashed, for payloads with times or random ids in them.
 * @returns 64 hex digits.
 * @throws {InvalidArgumentError} `HF_INVALID_ARGUMENT`: the commit could not be committed.
 */
export function turnCommitHash(commit: RuntimeCommit, options: { scrubPayload?: (payload: JsonValue) => JsonValue } = {}): string {
  checkObject(options, 'options');
  let scrub: ((payload: JsonValue) => JsonValue) | undefined;
  try {
    scrub = checkFunctionOrUndefined(options.scrubPayload, 'options.scrubPayload');
  } catch (error) {
    throw asGraphError(error);
  }
  const { text, bytes } = commitMessage(scrub === undefined ? commit : scrubbed(commit, scrub));
  return hashOf(text, bytes[0]);
}

function scrubbed(commit: RuntimeCommit, scrub: (payload: JsonValue) => JsonValue): RuntimeCommit {
  const rewrite = (node: SessionNodeRecord): SessionNodeRecord => ({ ...checkObject(node, 'commit.graph.nodes'), payload: scrub(node.payload) });
  const graph = checkObject(checkObject(commit, 'commit').graph, 'commit.graph');
  const full = (inner: { nodes: readonly SessionNodeRecord[] }): readonly SessionNodeRecord[] =>
    checkList(checkObject(inner, 'commit.graph.graph').nodes, 'commit.graph.graph.nodes');
  switch (graph.type) {
    case 'append':
      return { ...commit, graph: { ...graph, nodes: checkList(graph.nodes, 'commit.graph.nodes').map(rewrite) } };
    case 'replaceFull':
      return { ...commit, graph: { ...graph, graph: { ...graph.graph, nodes: full(graph.graph).map(rewrite) } } };
    default:
      return commit;
  }
}
