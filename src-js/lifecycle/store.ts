/** The public side of a session store: arguments to commands, answers to records. */
import { isAbsolute, resolve } from 'node:path';
import { checkArray, checkNonEmptyString, checkOneOf, checkPath, checkPlainObject } from '../check';
import { HoldfastError } from '../errors';
import { checkCount, checkId, checkSignal, guarded } from './arguments';
import type { AnyChangeEvent, ChangeConsumer, ChangeSubscription, FollowChangesOptions } from './change-types';
import { DEFAULT_POLL_BATCH } from './constants';
import { withMessage } from './errors';
import { FollowedChanges } from './follow';
import { checkIds, displayCommand, notificationsQuery, reviveNotification } from './inbox';
import type { NotificationCounts, NotificationFilter, SessionNotification } from './inbox-types';
import { checkInput, commentInput, listOf, metadataPatch, newSession, prInput, projectInput, sessionRecord } from './inputs';
import { registerCore, type Command, type StoreCore } from './native-store';
import { checkPolicy } from './policy';
import type { ReactionPolicy } from './policy-types';
import type {
  NewSession,
  PrCheck,
  PrCheckInput,
  PrComment,
  PrCommentInput,
  PrFacts,
  PrRow,
  PrRowInput,
  Project,
  ProjectInput,
  SessionDisplay,
  SessionMetadata,
  SessionRecord,
} from './record-types';
import { checkRetention } from './retention';
import { many, one, reviveCreated, revivePr, reviveProject, reviveSession } from './revive';
import type { ChangeLogRetention, SessionStore, SessionStoreCheck, SessionStoreStats } from './store-types';
import { checkTime } from './time';
import type { TimelineEntry } from './timeline-types';
import type { CheckStatus, MergeEnds, ProjectId, SessionId, TimeInput } from './word-types';
import { MERGE_ENDS } from './words';

/** A session store over an opened core. */
export class NativeSessionStore<E extends AnyChangeEvent> implements SessionStore<E> {
  readonly #core: StoreCore;

  constructor(core: StoreCore) {
    this.#core = core;
    registerCore(this, core);
  }

  get path(): string {
    return this.#core.path;
  }

  get schemaVersion(): number {
    return this.#core.schemaVersion;
  }

  close(): Promise<void> {
    return this.#core.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  // ── projects ──

  async getProject(id: ProjectId): Promise<Project | null> {
    return one(await this.#read(() => ({ do: 'project', id: checkId(id, 'id') })), reviveProject);
  }

  async listProjects(): Promise<Project[]> {
    return many(await this.#read(() => ({ do: 'projects' })), reviveProject);
  }

  async upsertProject(project: ProjectInput): Promise<void> {
    await this.#write((now) => ({ do: 'upsertProject', project: projectInput(project), now }));
  }

  async archiveProject(id: ProjectId, at?: TimeInput): Promise<void> {
    await this.#write((now) => ({ do: 'archiveProject', id: checkId(id, 'id'), at: at === undefined ? now : checkTime(at, 'at') }));
  }

  async setReactionPolicy(projectId: ProjectId, policy: ReactionPolicy | null): Promise<void> {
    const checked = guarded(() => (policy === null ? null : checkPolicy(checkPlainObject(policy, 'policy'), 'policy')));
    await this.#write(() => ({ do: 'setReactionPolicy', projectId: checkId(projectId, 'projectId'), policy: checked }));
  }

  async reactionPolicy(projectId: ProjectId): Promise<ReactionPolicy | null> {
    return JSON.parse(await this.#read(() => ({ do: 'reactionPolicy', projectId: checkId(projectId, 'projectId') }))) as ReactionPolicy | null;
  }

  // ── sessions ──

  async createSession(session: NewSession): Promise<SessionRecord> {
    return reviveSession(JSON.parse(await this.#write((now) => ({ do: 'createSession', session: newSession(session), now }))) as SessionRecord);
  }

  async updateSession(session: SessionRecord, options: { expectedRevision?: number } = {}): Promise<void> {
    let id = '';
    const write = this.#write((now) => {
      const { expectedRevision } = checkPlainObject(options, 'options');
      if (expectedRevision !== undefined) checkCount(expectedRevision, 'options.expectedRevision');
      const record = sessionRecord(session);
      id = record.id as string;
      return { do: 'updateSession', session: record, expectedRevision, now };
    });
    await this.#found(write, 'updateSession', () => id);
  }

  async patchSessionMetadata(id: SessionId, patch: Partial<SessionMetadata>): Promise<SessionRecord> {
    const write = this.#write((now) => ({ do: 'patchMetadata', id: checkId(id, 'id'), patch: metadataPatch(patch), now }));
    return reviveSession(JSON.parse(await this.#found(write, 'patchSessionMetadata', () => id)) as SessionRecord);
  }

  async setSessionDisplay(id: SessionId, display: SessionDisplay): Promise<SessionRecord> {
    const write = this.#write((now) => displayCommand(id, display, now));
    return reviveSession(JSON.parse(await this.#found(write, 'setSessionDisplay', () => id)) as SessionRecord);
  }

  async getSession(id: SessionId): Promise<SessionRecord | null> {
    return one<SessionRecord>(await this.#read(() => ({ do: 'session', id: checkId(id, 'id') })), reviveSession);
  }

  async listSessions(projectId: ProjectId): Promise<SessionRecord[]> {
    return many<SessionRecord>(await this.#read(() => ({ do: 'sessions', projectId: checkId(projectId, 'projectId') })), reviveSession);
  }

  async listAllSessions(): Promise<SessionRecord[]> {
    return many<SessionRecord>(await this.#read(() => ({ do: 'allSessions' })), reviveSession);
  }

  async deleteSession(id: SessionId): Promise<boolean> {
    return JSON.parse(await this.#write((now) => ({ do: 'deleteSession', id: checkId(id, 'id'), now }))) as boolean;
  }

  async setMergeEnds(id: SessionId, mergeEnds: MergeEnds | null): Promise<void> {
    const ends = guarded(() => (mergeEnds === null ? null : checkOneOf(mergeEnds, 'mergeEnds', MERGE_ENDS)));
    await this.#found(this.#write(() => ({ do: 'setMergeEnds', id: checkId(id, 'id'), mergeEnds: ends })), 'setMergeEnds', () => id);
  }

  async mergeEnds(id: SessionId): Promise<MergeEnds | null> {
    return JSON.parse(await this.#read(() => ({ do: 'mergeEnds', id: checkId(id, 'id') }))) as MergeEnds | null;
  }

  // ── pull requests ──

  async upsertPr(pr: PrRowInput): Promise<void> {
    await this.#write((now) => ({ do: 'upsertPr', pr: prInput(pr), now }));
  }

  async getPr(url: string): Promise<PrRow | null> {
    return one(await this.#read(() => ({ do: 'pr', url: checkId(url, 'url') })), revivePr);
  }

  async listPrsBySession(id: SessionId): Promise<PrRow[]> {
    return many(await this.#read(() => ({ do: 'prsOfSession', id: checkId(id, 'id') })), revivePr);
  }

  async deletePr(url: string): Promise<boolean> {
    return JSON.parse(await this.#write(() => ({ do: 'deletePr', url: checkId(url, 'url') }))) as boolean;
  }

  async prFactsForSession(id: SessionId): Promise<PrFacts> {
    return JSON.parse(await this.#read(() => ({ do: 'prFacts', id: checkId(id, 'id') }))) as PrFacts;
  }

  async writePrObservation(pr: PrRowInput, checks: PrCheckInput[], comments: PrCommentInput[]): Promise<void> {
    await this.#write((now) => ({
      do: 'writePrObservation',
      pr: prInput(pr),
      checks: listOf(checks, 'checks', checkInput),
      comments: listOf(comments, 'comments', commentInput),
      now,
    }));
  }

  async recentCheckStatuses(prUrl: string, name: string, limit: number): Promise<CheckStatus[]> {
    const read = this.#read(() => ({
      do: 'recentChecks',
      url: checkId(prUrl, 'prUrl'),
      name: checkId(name, 'name'),
      limit: checkCount(limit, 'limit'),
    }));
    return JSON.parse(await read) as CheckStatus[];
  }

  async recordCheck(check: PrCheckInput): Promise<void> {
    await this.#write((now) => ({ do: 'recordCheck', check: checkInput(check), now }));
  }

  async listChecks(prUrl: string): Promise<PrCheck[]> {
    return many<PrCheck>(await this.#read(() => ({ do: 'checks', url: checkId(prUrl, 'prUrl') })), reviveCreated);
  }

  async replacePrComments(prUrl: string, comments: PrCommentInput[]): Promise<void> {
    await this.#write((now) => {
      checkArray(comments, 'comments');
      return { do: 'replacePrComments', prUrl: checkId(prUrl, 'prUrl'), comments: listOf(comments, 'comments', commentInput), now };
    });
  }

  async listPrComments(prUrl: string): Promise<PrComment[]> {
    return many<PrComment>(await this.#read(() => ({ do: 'comments', url: checkId(prUrl, 'prUrl') })), reviveCreated);
  }

  // ── change log ──

  readChangeLogAfter(after: number, limit: number = DEFAULT_POLL_BATCH): Promise<E[]> {
    return this.#changes(after, limit);
  }

  async readChangeLogAfterForProject(projectId: ProjectId, after: number, limit: number = DEFAULT_POLL_BATCH): Promise<E[]> {
    return this.#changes(after, limit, guarded(() => checkId(projectId, 'projectId')));
  }

  async maxChangeLogSeq(): Promise<number> {
    return JSON.parse(await this.#read(() => ({ do: 'head' }))) as number;
  }

  async oldestChangeLogSeq(): Promise<number> {
    return JSON.parse(await this.#read(() => ({ do: 'oldest' }))) as number;
  }

  async pruneChangeLog(limits: ChangeLogRetention): Promise<number> {
    return JSON.parse(await this.#write((now) => ({ do: 'prune', ...checkRetention(limits, 'limits'), now }))) as number;
  }

  consumer(name: string): ChangeConsumer<E> {
    guarded(() => checkId(checkNonEmptyString(name, 'name'), 'name'));
    return {
      read: async (limit = DEFAULT_POLL_BATCH) => {
        const read = this.#read(() => ({ do: 'consume', consumer: name, limit: checkCount(limit, 'limit') }));
        return many(await read, reviveCreated<E>);
      },
      ack: async (seq) => {
        await this.#write((now) => ({ do: 'ack', consumer: name, seq: checkCount(seq, 'seq'), now }));
      },
      offset: async () => JSON.parse(await this.#read(() => ({ do: 'offset', consumer: name }))) as number,
      delete: async () => {
        await this.#write(() => ({ do: 'deleteConsumer', consumer: name }));
      },
    };
  }

  changes(options: FollowChangesOptions = {}): ChangeSubscription<E> {
    const checked = guarded(() => {
      const { after = 0, projectId, signal } = checkPlainObject(options, 'options');
      if (projectId !== undefined) checkId(projectId, 'options.projectId');
      return { after: checkCount(after, 'options.after'), projectId, signal: checkSignal(signal, 'options.signal') };
    });
    return new FollowedChanges(this, this.#core, checked);
  }

  // ── operation ──

  async backup(path: string): Promise<void> {
    const checked = guarded(() => checkPath(path, 'path'));
    await this.#core.backup(isAbsolute(checked) ? checked : resolve(checked));
  }

  async check(): Promise<SessionStoreCheck> {
    const problems = JSON.parse(await this.#read(() => ({ do: 'check' }))) as string[];
    return { sound: problems.length === 0, problems };
  }

  async stats(): Promise<SessionStoreStats> {
    const stats = JSON.parse(await this.#read(() => ({ do: 'stats' }))) as SessionStoreStats;
    for (const consumer of stats.consumers) consumer.updatedAt = new Date(consumer.updatedAt);
    return stats;
  }

  async sessionTimeline(id: SessionId): Promise<TimelineEntry<E>[]> {
    return many(await this.#read(() => ({ do: 'timeline', id: checkId(id, 'id') })), reviveCreated<TimelineEntry<E>>);
  }

  // ── inbox ──

  async notifications(filter: NotificationFilter = {}): Promise<SessionNotification[]> {
    return many(await this.#read(() => notificationsQuery(filter)), reviveNotification);
  }

  async notificationCounts(projectId?: ProjectId): Promise<NotificationCounts> {
    const read = this.#read(() => ({ do: 'notificationCounts', projectId: projectId === undefined ? undefined : checkId(projectId, 'projectId') }));
    return JSON.parse(await read) as NotificationCounts;
  }

  async markNotificationsSeen(ids: readonly number[], at?: TimeInput): Promise<number> {
    const write = this.#write((now) => ({ do: 'seeNotifications', ids: checkIds(ids), at: at === undefined ? now : checkTime(at, 'at') }));
    return JSON.parse(await write) as number;
  }

  async resolveNotification(id: number): Promise<boolean> {
    return JSON.parse(await this.#write((now) => ({ do: 'resolveNotification', id: checkCount(id, 'id'), now }))) as boolean;
  }

  async #changes(after: number, limit: number, projectId?: ProjectId): Promise<E[]> {
    const read = this.#read(() => ({ do: 'changes', after: checkCount(after, 'after'), limit: checkCount(limit, 'limit'), projectId }));
    return many(await read, reviveCreated<E>);
  }

  async #read(build: () => Command): Promise<string> {
    return this.#core.read(guarded(build));
  }

  async #write(build: (now: number) => Command): Promise<string> {
    return this.#core.write(guarded(() => build(this.#core.now())));
  }

  /** Says which operation did not find the session. */
  async #found<T>(running: Promise<T>, op: string, idOf: () => SessionId): Promise<T> {
    try {
      return await running;
    } catch (error) {
      if (!(error instanceof HoldfastError) || error.hfCode !== 'HF_LIFECYCLE_SESSION_NOT_FOUND') throw error;
      const id = idOf();
      throw withMessage(error, `${op} ${id}: session: not found`, { op, sessionId: id });
    }
  }
}
