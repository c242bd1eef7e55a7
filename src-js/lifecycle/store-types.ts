/** The session store: how it is opened, and what it does. */
import type { Logger } from '../logging';
import type { AnyChangeEvent, ChangeConsumer, ChangeEvent, ChangeSource, ChangeSubscription, FollowChangesOptions } from './change-types';
import type { NotificationCounts, NotificationFilter, SessionNotification } from './inbox-types';
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
import type { TimelineEntry } from './timeline-types';
import type { CheckStatus, MergeEnds, ProjectId, SessionId, TimeInput } from './word-types';

/** How much of the change log is kept. Rows that a named consumer has not confirmed stay, whatever the limits say, unless `hard`. */
export interface ChangeLogRetention {
  /** Milliseconds. Default 7 days. */
  maxAgeMs?: number;
  /** Rows. Default 100,000. */
  maxRows?: number;
  /** Whether the limits hold against consumers that have not confirmed too; those get an error that names what they missed. Default `false`. */
  hard?: boolean;
  /** Milliseconds that a notification is kept after it was resolved. Default 30 days. It goes with a batch of changes, and is not counted. */
  notificationsMaxAgeMs?: number;
}

/** Where a session store is, and how it works. Exactly one of `dataDir`, `path` and `connectionString`. */
export interface OpenSessionStoreOptions {
  /** The folder of `sessions.db`; created when missing. */
  dataDir?: string;
  /** The database file, or `:memory:`. */
  path?: string;
  /** A PostgreSQL database. */
  connectionString?: string;
  /** PostgreSQL only: the schema of the tables, created when missing. Default `holdfast_lifecycle`. */
  schema?: string;
  /** PostgreSQL only: connections at a time. Default 4. */
  poolSize?: number;
  /** PostgreSQL only: TLS, as `pg` takes it. Default: what `connectionString` says. */
  ssl?: boolean | { rejectUnauthorized?: boolean; ca?: string | string[]; cert?: string; key?: string };
  /**
   * SQLite only. `full` (default): a write is on disk when its promise resolves. `normal`: it survives a crash of the process, but the last
   * ones may be lost in a power cut. PostgreSQL is as durable as its server (`synchronous_commit`).
   */
  durability?: 'full' | 'normal';
  /** How long to wait for others that write, in milliseconds; then a call rejects with `HF_BUSY`. Default 5000. */
  busyTimeoutMs?: number;
  /** SQLite only: connections that read at a time. Default 8. */
  maxReaders?: number;
  /**
   * SQLite only. What a file on NFS, SMB and the like leads to, where several hosts that write destroy it: `refuse` (the default) rejects with
   * `HF_INVALID_ARGUMENT`, `allow` takes it, for one host alone.
   */
  networkFileSystem?: 'refuse' | 'allow';
  /** How much of the change log is kept; `false` = all of it. */
  retention?: ChangeLogRetention | false;
  /** Further names of harnesses. */
  harnesses?: string[];
  /** Where "now" comes from. Default: the system. */
  clock?: () => Date;
  /** Gets lines about what nobody waits for. */
  logger?: Logger;
  /**
   * `true` makes the change log tell of more, from now on and whoever writes: {@link InvalidationEvent}, and `session_updated` also when branch,
   * agentSessionId, displayName or pinned change. That is kept in the store: opening it without this option leaves it as it is, and reads the same log.
   * Default: what the store was made to tell.
   */
  invalidation?: boolean;
}

/** What a session store holds. */
export interface SessionStoreStats {
  projects: number;
  sessions: number;
  /** Sessions that have not ended. */
  running: number;
  /** The highest seq that was ever given; 0 if there was none. */
  head: number;
  /** The first seq that is still there; 0 if none is. */
  oldest: number;
  /** How many seqs are from the one to the other. */
  changes: number;
  /** Named consumers, and how many changes each has not confirmed. */
  consumers: { name: string; ackedSeq: number; updatedAt: Date; lag: number }[];
  /** Bytes of the write-ahead log. Not with PostgreSQL. */
  walBytes?: number;
  /** Times that a reader kept the log from being written back, so that it grew. Not with PostgreSQL. */
  checkpointsHeld?: number;
  /** How many transactions this store has committed since it was opened. Not with PostgreSQL, as the next three. */
  commits?: number;
  /** How many calls that write it has run: more of them than `commits` shared a transaction. */
  jobs?: number;
  /** The most calls that shared one. */
  largestBatch?: number;
  /** Calls that wait to write now. */
  queued?: number;
}

/** What looking through the database found. */
export interface SessionStoreCheck {
  /** Whether all is well. */
  sound: boolean;
  /** What is not, one line each. */
  problems: string[];
}

/**
 * The durable truth about sessions. Every method that changes something is one transaction: all of it happens with its rows in the
 * change log, or nothing, and it is on disk when the promise resolves (see `durability`). A read that begins after that sees it, from any handle
 * of any process.
 *
 * Every method may reject with `HF_CLOSED`, `HF_BUSY` (others held the database for longer than `busyTimeoutMs`), `HF_DISK_FULL`,
 * `HF_CORRUPT` or `HF_IO`, and with `HF_INVALID_ARGUMENT` before anything was touched. `get…` of what does not exist resolves to `null`, a
 * list of nothing to `[]`.
 */
export interface SessionStore<E extends AnyChangeEvent = ChangeEvent> extends ChangeSource<E>, AsyncDisposable {
  /** The database file, `:memory:`, or for PostgreSQL the schema. */
  readonly path: string;
  readonly schemaVersion: number;

  /**
   * Ends what reads from the store (pollers, {@link changes}), and calls of the managers that wait for a port: those reject with `HF_CLOSED`. Waits
   * for transactions that have begun; a PostgreSQL server that keeps silent is given up after five seconds, and calls under way reject. Twice is
   * harmless.
   */
  close(): Promise<void>;

  /** A project, archived or not. */
  getProject(id: ProjectId): Promise<Project | null>;
  /** The active projects, by id. */
  listProjects(): Promise<Project[]>;
  /** Stores a project. On an id that exists everything but `registeredAt` is replaced. */
  upsertProject(project: ProjectInput): Promise<void>;
  /** Archives a project: it leaves {@link listProjects}; its sessions stay. `at` defaults to now. */
  archiveProject(id: ProjectId, at?: TimeInput): Promise<void>;
  /**
   * Stores how managers react to the sessions of a project, in place of what was stored; `null` = as they please. It counts from the next
   * transaction of any manager on, for what it says: the rest is as the manager's own policy says. Of `messages`, each key counts by itself.
   *
   * @throws {ConstraintError} `HF_LIFECYCLE_CONSTRAINT`: no such project
   */
  setReactionPolicy(projectId: ProjectId, policy: ReactionPolicy | null): Promise<void>;
  /** What {@link setReactionPolicy} has stored, as far as this version knows it; `null` if nothing is stored. */
  reactionPolicy(projectId: ProjectId): Promise<ReactionPolicy | null>;

  /**
   * Stores a new session under the next number of its project.
   *
   * @throws {ConstraintError} `HF_LIFECYCLE_CONSTRAINT`: no such project, or a value that the format does not have
   */
  createSession(session: NewSession): Promise<SessionRecord>;
  /**
   * Writes everything about a session that can change, `updatedAt` included, and counts its revision up.
   *
   * @throws {StaleRecordError} `HF_LIFECYCLE_STALE_RECORD`: the revision is no longer `expectedRevision`; nothing was written
   * @throws {SessionNotFoundError} `HF_LIFECYCLE_SESSION_NOT_FOUND`
   */
  updateSession(session: SessionRecord, options?: { expectedRevision?: number }): Promise<void>;
  /**
   * Takes over the fields of `patch` that are not empty; emits no event.
   *
   * @throws {SessionNotFoundError} `HF_LIFECYCLE_SESSION_NOT_FOUND`
   */
  patchSessionMetadata(id: SessionId, patch: Partial<SessionMetadata>): Promise<SessionRecord>;
  /**
   * Sets what people see of a session; what is left out stays. No manager touches it.
   *
   * @throws {SessionNotFoundError} `HF_LIFECYCLE_SESSION_NOT_FOUND`
   */
  setSessionDisplay(id: SessionId, display: SessionDisplay): Promise<SessionRecord>;
  getSession(id: SessionId): Promise<SessionRecord | null>;
  /** The sessions of a project, by number. */
  listSessions(projectId: ProjectId): Promise<SessionRecord[]>;
  /** All sessions, by project and number. */
  listAllSessions(): Promise<SessionRecord[]>;
  /** Removes a session with its pull requests; its rows in the change log stay. `false` if there was none. Its number is not given again. */
  deleteSession(id: SessionId): Promise<boolean>;

  /**
   * Says which merged pull request ends this session, whatever the policies say; `null` = as they say. It is no part of the record: its revision
   * stays, and so does `updatedAt`.
   *
   * @throws {SessionNotFoundError} `HF_LIFECYCLE_SESSION_NOT_FOUND`
   */
  setMergeEnds(id: SessionId, mergeEnds: MergeEnds | null): Promise<void>;
  /** What {@link setMergeEnds}, or the spawn, has said; `null` if nothing was said. */
  mergeEnds(id: SessionId): Promise<MergeEnds | null>;

  /** Stores a pull request. On an address that exists everything is replaced, the session too. */
  upsertPr(pr: PrRowInput): Promise<void>;
  getPr(url: string): Promise<PrRow | null>;
  /** The pull requests of a session, newest first. */
  listPrsBySession(id: SessionId): Promise<PrRow[]>;
  /** Removes a pull request with its checks and comments; emits no event. `false` if there was none. */
  deletePr(url: string): Promise<boolean>;
  /** What is known of the pull request that counts: the newest open one, or the worst if the project's policy says so; else the newest. */
  prFactsForSession(id: SessionId): Promise<PrFacts>;
  /** Stores a pull request, adds or changes `checks`, and makes `comments` the whole set of its comments: one transaction. */
  writePrObservation(pr: PrRowInput, checks: PrCheckInput[], comments: PrCommentInput[]): Promise<void>;
  /** How the last runs of a check went, newest first. */
  recentCheckStatuses(prUrl: string, name: string, limit: number): Promise<CheckStatus[]>;
  /** Adds or changes a check. */
  recordCheck(check: PrCheckInput): Promise<void>;
  /** The checks of a pull request, by name and time. */
  listChecks(prUrl: string): Promise<PrCheck[]>;
  /** Makes `comments` the whole set of a pull request's comments. */
  replacePrComments(prUrl: string, comments: PrCommentInput[]): Promise<void>;
  /** The comments of a pull request, by time and id. */
  listPrComments(prUrl: string): Promise<PrComment[]>;

  /** As {@link readChangeLogAfter}, of one project. */
  readChangeLogAfterForProject(projectId: ProjectId, after: number, limit?: number): Promise<E[]>;
  /** The first seq that is still there; 0 if none is. */
  oldestChangeLogSeq(): Promise<number>;
  /** Deletes rows of the change log beyond the limits, but none that a named consumer has not confirmed, unless `hard`. Resolves to how many. */
  pruneChangeLog(limits: ChangeLogRetention): Promise<number>;
  /** A reader of the log whose place the store remembers under `name`. */
  consumer(name: string): ChangeConsumer<E>;
  /**
   * Every event after a seq, from the log first and then as it happens, without gap or duplicate: what an SSE endpoint with `Last-Event-ID`
   * needs. It reads no faster than its reader, so it needs no buffer. It ends with its signal, with `break`, and when the store is closed.
   *
   * @throws {ChangeLogTruncatedError} from `next()`, `HF_LIFECYCLE_CHANGE_LOG_TRUNCATED`: events after `after` were pruned
   *
   * @example
   * ```ts
   * for await (const event of store.changes({ after: lastEventId, projectId, signal })) response.write(toSse(event));
   * ```
   */
  changes(options?: FollowChangesOptions): ChangeSubscription<E>;

  /**
   * What happened to one session, and why: what is kept of it in the change log, and the decisions about it (the newest 256 at least), each after
   * the change that it made. Reads the log of its project: for looking into what happened, not for serving. Decisions go with their session.
   */
  sessionTimeline(id: SessionId): Promise<TimelineEntry<E>[]>;

  /**
   * What people were, or should have been, told: newest first.
   *
   * @example
   * ```ts
   * for (const { sessionId, message } of await store.notifications({ unresolved: true })) console.log(sessionId, message);
   * ```
   */
  notifications(filter?: NotificationFilter): Promise<SessionNotification[]>;
  /** Counts for a badge, of a project or of all. */
  notificationCounts(projectId?: ProjectId): Promise<NotificationCounts>;
  /** Notes that somebody saw them; resolves to how many nobody had seen before. Ids that do not exist are skipped. `at` defaults to now. */
  markNotificationsSeen(ids: readonly number[], at?: TimeInput): Promise<number>;
  /** Notes that somebody settled it, cause or not. `false` if it was resolved already, or does not exist. */
  resolveNotification(id: number): Promise<boolean>;
  /**
   * Copies the database to a new file while it is in use; the file appears whole or not at all. Not with PostgreSQL, which has tools of its own.
   *
   * @throws {InvalidArgumentError} `HF_INVALID_ARGUMENT`: there is a file already; nothing of it was touched
   */
  backup(path: string): Promise<void>;
  /** Looks the whole database through. Takes as long as reading it does. */
  check(): Promise<SessionStoreCheck>;
  /** Counts what is there. */
  stats(): Promise<SessionStoreStats>;
}
