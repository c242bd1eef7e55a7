/** What the engine answers, as the public records: its milliseconds become dates, in place. */
import type { AnyChangeEvent } from './change-types';
import { StoreCorruptError } from './errors';
import type { LifecycleDecision } from './observation-types';
import type { Detecting, PrCheck, PrComment, PrRow, Project, SessionRecord } from './record-types';
import type { SessionDecision } from './timeline-types';

/** From this many characters on, reading an answer in one go would hold up the event loop. */
const SLICE = 256 * 1024;

const date = (ms: unknown): Date => new Date(ms as number);
const dateOrNull = (ms: unknown): Date | null => (ms === null ? null : date(ms));

export function reviveProject(project: Project): Project {
  project.registeredAt = date(project.registeredAt);
  project.archivedAt = dateOrNull(project.archivedAt);
  return project;
}

export function reviveSession<S extends SessionRecord>(session: S): S {
  session.createdAt = date(session.createdAt);
  session.updatedAt = date(session.updatedAt);
  session.launchedAt = dateOrNull(session.launchedAt);
  const { activity, detecting } = session.lifecycle;
  activity.lastActivityAt = dateOrNull(activity.lastActivityAt);
  reviveDetecting(detecting);
  return session;
}

function reviveDetecting(detecting: Detecting | null): void {
  if (detecting !== null) detecting.startedAt = date(detecting.startedAt);
}

export function reviveDecision(decision: LifecycleDecision): LifecycleDecision {
  reviveDetecting(decision.detecting);
  return decision;
}

export function revivePr(pr: PrRow): PrRow {
  pr.updatedAt = date(pr.updatedAt);
  return pr;
}

export function reviveCreated<T extends PrCheck | PrComment | AnyChangeEvent | SessionDecision>(record: T): T {
  record.createdAt = date(record.createdAt);
  return record;
}

/** Reads one record, or `null`. */
export function one<T>(text: string, revive: (value: T) => T): T | null {
  const value = JSON.parse(text) as T | null;
  return value === null ? null : revive(value);
}

/**
 * Reads an array. The engine writes one element per line, so a large one is read in slices, between which the event loop turns: nothing in
 * JSON itself has a line feed.
 */
export async function many<T>(text: string, revive: (value: T) => T): Promise<T[]> {
  if (text.length <= SLICE) return elements<T>(text).map(revive);
  const all: T[] = [];
  for (let start = text.indexOf('[') + 1; start > 0 && start < text.length; ) {
    const found = text.indexOf(',\n', start + SLICE);
    const end = found < 0 ? text.lastIndexOf(']') : found;
    for (const value of elements<T>(`[${text.slice(start, end)}]`)) all.push(revive(value));
    if (found < 0) break;
    start = found + 1;
    await new Promise((resolve) => setImmediate(resolve));
  }
  return all;
}

/** What the log holds is passed on as it is stored: damage to it is found here. The error quotes none of it. */
function elements<T>(text: string): T[] {
  try {
    return JSON.parse(text) as T[];
  } catch {
    throw new StoreCorruptError('a row of the session store holds no JSON where it should: the database is damaged; restore it from a backup');
  }
}
