/**
 * Records of callers as the engine reads them: plain, with times in milliseconds, and without what else callers keep in them. Of the
 * types, only what would not survive the way as text is checked here; which words there are is the engine's to say.
 */
import { checkArray, checkOneOf, checkString, invalidArgument, isRecord } from '../check';
import { checkId } from './arguments';
import type { PrObservation, ProbeInput, SpawnOutcome } from './observation-types';
import type { NewSession, PrCheckInput, PrCommentInput, PrRowInput, ProjectInput, SessionMetadata, SessionRecord } from './record-types';
import { checkTime } from './time';

type Plain = Record<string, unknown>;
/** What a field must be. */
type Check = (value: unknown, argument: string) => unknown;

/** Half a surrogate pair, as a cut log tail may end with, is in no text that a database holds. */
const text: Check = (value, argument) => checkString(value, argument).toWellFormed();
const time: Check = checkTime;
const timeOrNull: Check = (value, argument) => (value === null ? null : checkTime(value, argument));

const flag: Check = (value, argument) => {
  if (typeof value !== 'boolean') throw invalidArgument(argument, 'a boolean', value);
  return value;
};

const integer: Check = (value, argument) => {
  if (typeof value !== 'number' || !Number.isSafeInteger(value)) throw invalidArgument(argument, 'an integer', value);
  return value;
};

const METADATA = { branch: text, workspacePath: text, runtimeHandleId: text, runtimeName: text, agentSessionId: text, prompt: text };
const ACTIVITY = { state: text, lastActivityAt: timeOrNull, source: text };
const DETECTING = { attempts: integer, startedAt: time, evidenceHash: text };
const LIFECYCLE = {
  state: text,
  terminationReason: text,
  isAlive: flag,
  harness: text,
  activity: nested(ACTIVITY),
  detecting: ((value, argument) => (value === null ? null : picked(value, DETECTING, argument, Object.keys(DETECTING)))) as Check,
};
const SESSION = { projectId: checkId, issueId: text, kind: text, lifecycle: nested(LIFECYCLE), metadata: nested(METADATA), createdAt: time, updatedAt: time, displayName: text, pinned: flag };
const RECORD = { id: checkId, num: integer, revision: integer, ...SESSION };
const PROJECT = { id: checkId, path: text, repoOriginUrl: text, displayName: text, registeredAt: time, archivedAt: timeOrNull };
const PR = { url: checkId, sessionId: checkId, number: integer, state: text, reviewDecision: text, ciState: text, mergeability: text, updatedAt: time, headBranch: text, baseBranch: text };
const CHECK = { prUrl: checkId, name: text, commitHash: text, status: text, url: text, logTail: text, createdAt: time };
const COMMENT = { prUrl: checkId, commentId: text, author: text, file: text, line: integer, body: text, resolved: flag, createdAt: time };
const FACTS = {
  exists: flag,
  url: text,
  number: integer,
  draft: flag,
  merged: flag,
  closed: flag,
  ci: text,
  review: text,
  mergeability: text,
  reviewComments: flag,
  stacked: flag,
};

const HANDLE = { id: text, runtimeName: text };
const OUTCOME = {
  branch: text,
  workspacePath: text,
  runtimeHandle: ((value, argument) => picked(value, HANDLE, argument, Object.keys(HANDLE))) as Check,
  agentSessionId: text,
  prompt: text,
  launchId: text,
  expect: ((value, argument) => checkOneOf(value, argument, ['spawning', 'terminal'])) as Check,
};
const own = ({ prUrl: _, ...fields }: Readonly<Record<string, Check>>): Record<string, Check> => fields;
const OBSERVATION = {
  url: checkId,
  number: integer,
  draft: flag,
  merged: flag,
  closed: flag,
  ci: text,
  review: text,
  mergeability: text,
  headBranch: text,
  baseBranch: text,
  checks: every(own(CHECK), ['name', 'commitHash']),
  comments: every(own(COMMENT), ['commentId']),
};

const PROBE = {
  runtimeAlive: flag,
  runtimeFailed: flag,
  process: text,
  processFailed: flag,
  recentActivity: flag,
  killRequested: flag,
  killReason: text,
  prior: LIFECYCLE.detecting,
  now: time,
};

export const projectInput = (value: ProjectInput): Plain => picked(value, PROJECT, 'project', ['id', 'path']);
export const newSession = (value: NewSession): Plain => picked(value, SESSION, 'session', ['projectId']);
export const sessionRecord = (value: SessionRecord): Plain => picked(value, RECORD, 'session', ['id', 'lifecycle', 'metadata', 'updatedAt']);
export const metadataPatch = (value: Partial<SessionMetadata>): Plain => picked(value, METADATA, 'patch', []);
export const prInput = (value: PrRowInput): Plain => picked(value, PR, 'pr', ['url', 'sessionId']);
export const checkInput = (value: PrCheckInput, argument = 'check'): Plain => picked(value, CHECK, argument, ['prUrl', 'name', 'commitHash']);
export const commentInput = (value: PrCommentInput, argument: string): Plain => picked(value, COMMENT, argument, ['prUrl', 'commentId']);
export const lifecycleInput = (value: unknown, argument: string): Plain => picked(value, LIFECYCLE, argument, ['state']);
export const detectingInput = (value: unknown, argument: string): unknown => LIFECYCLE.detecting(value, argument);
export const factsInput = (value: unknown, argument: string): Plain => picked(value, FACTS, argument, ['exists']);
export const probeInput = (value: ProbeInput): Plain => picked(value, PROBE, 'input', ['now']);

/** A pull request's observation. */
export function observationInput(value: PrObservation): Plain {
  const plain = picked(value, OBSERVATION, 'observation', ['url']);
  return { fetched: true, number: 0, ...plain };
}

/** What came out of a start. */
export function outcomeInput(value: SpawnOutcome): Plain & { expect?: unknown } {
  return picked(value, OUTCOME, 'outcome', []);
}

/** An array of records. */
export function listOf<T>(values: readonly T[], argument: string, one: (value: T, argument: string) => Plain): Plain[] {
  return Array.from(checkArray(values, argument), (value, index) => one(value, `${argument}[${index}]`));
}

function nested(fields: Readonly<Record<string, Check>>): Check {
  return (value, argument) => picked(value, fields, argument, []);
}

function every(fields: Readonly<Record<string, Check>>, required: readonly string[]): Check {
  return (value, argument) => listOf(value as readonly unknown[], argument, (element, name) => picked(element, fields, name, required));
}

/** The known fields of `value`, checked. `undefined` counts as left out. */
function picked(value: unknown, fields: Readonly<Record<string, Check>>, argument: string, required: readonly string[]): Plain {
  if (!isRecord(value)) throw invalidArgument(argument, 'an object', value);
  const plain: Plain = {};
  for (const [name, check] of Object.entries(fields)) {
    const field = value[name];
    if (field !== undefined) plain[name] = check(field, `${argument}.${name}`);
    else if (required.includes(name)) throw invalidArgument(`${argument}.${name}`, 'set', undefined);
  }
  return plain;
}
