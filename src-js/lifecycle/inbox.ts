/** The inbox: arguments to commands, answers to records. */
import { checkArray, checkBooleanOrUndefined, checkPlainObject, checkString, invalidArgument } from '../check';
import { checkCount, checkId } from './arguments';
import type { NotificationFilter, SessionNotification } from './inbox-types';
import type { Command } from './native-store';
import type { SessionDisplay } from './record-types';

/** So many a page has at most. */
const MOST = 1000;
const FILTER = ['projectId', 'sessionId', 'unresolved', 'unseen', 'limit', 'before'] as const satisfies (keyof NotificationFilter)[];
const DISPLAY = ['displayName', 'pinned'] as const satisfies (keyof SessionDisplay)[];

export function notificationsQuery(filter: NotificationFilter): Command {
  // A filter that is misspelt would show everything.
  checkOnly(checkPlainObject(filter, 'filter'), 'filter', FILTER);
  const { projectId, sessionId, unresolved, unseen, limit, before } = filter;
  if (projectId !== undefined) checkId(projectId, 'filter.projectId');
  if (sessionId !== undefined) checkId(sessionId, 'filter.sessionId');
  checkBooleanOrUndefined(unresolved, 'filter.unresolved');
  checkBooleanOrUndefined(unseen, 'filter.unseen');
  if (limit !== undefined && checkCount(limit, 'filter.limit') > MOST) throw invalidArgument('filter.limit', `an integer from 0 to ${MOST}`, limit);
  if (before !== undefined) checkCount(before, 'filter.before');
  return { do: 'notifications', projectId, sessionId, unresolved, unseen, limit, before };
}

export function checkIds(ids: readonly number[]): number[] {
  return Array.from(checkArray(ids, 'ids'), (id, index) => checkCount(id, `ids[${index}]`));
}

export function displayCommand(id: string, display: SessionDisplay, now: number): Command {
  checkOnly(checkPlainObject(display, 'display'), 'display', DISPLAY);
  const { displayName, pinned } = display;
  checkBooleanOrUndefined(pinned, 'display.pinned');
  const name = displayName === undefined ? undefined : checkString(displayName, 'display.displayName').toWellFormed();
  return { do: 'setDisplay', id: checkId(id, 'id'), displayName: name, pinned, now };
}

function checkOnly(value: object, argument: string, known: readonly string[]): void {
  const unknown = Object.keys(value).find((name) => !known.includes(name));
  if (unknown !== undefined) throw invalidArgument(argument, `an object with no other properties than ${known.join(', ')}`, unknown);
}

export function reviveNotification(note: SessionNotification): SessionNotification {
  note.firstAt = new Date(note.firstAt);
  note.lastAt = new Date(note.lastAt);
  note.seenAt = note.seenAt && new Date(note.seenAt);
  note.resolvedAt = note.resolvedAt && new Date(note.resolvedAt);
  return note;
}
