/** The records of the session store, as they are read and as they are handed in. In texts `''` means "unset". */
import type {
  ActivitySource,
  ActivityState,
  AgentHarness,
  CheckStatus,
  CiState,
  Mergeability,
  PrState,
  ProjectId,
  ReviewDecision,
  SessionId,
  SessionKind,
  SessionState,
  SessionStatus,
  TerminationReason,
  TimeInput,
} from './word-types';

/** A project. */
export interface Project {
  id: ProjectId;
  /** Where its repository is checked out. */
  path: string;
  /** Where its repository comes from. */
  repoOriginUrl: string;
  /** For people. */
  displayName: string;
  /** When it was first seen; kept by every later write. */
  registeredAt: Date;
  /** When it was archived; `null` = active. */
  archivedAt: Date | null;
}

/** A project to be stored. What is left out is `''`, or for `registeredAt` now; without `archivedAt` the project is active (again). */
export interface ProjectInput {
  id: ProjectId;
  path: string;
  repoOriginUrl?: string;
  displayName?: string;
  registeredAt?: TimeInput;
  archivedAt?: TimeInput | null;
}

/** What an agent was last heard to do. */
export interface Activity {
  state: ActivityState;
  /** When that was heard; `null` = never. */
  lastActivityAt: Date | null;
  source: ActivitySource;
}

/** The memory of a quarantine: what keeps one bad probe from being taken for death. */
export interface Detecting {
  /** How many probes in a row said the same. */
  attempts: number;
  /** When the quarantine began. */
  startedAt: Date;
  /** What they said, as {@link hashEvidence} of it. */
  evidenceHash: string;
}

/** The truth about a session; everything that is shown is derived from it. */
export interface Lifecycle {
  state: SessionState;
  terminationReason: TerminationReason;
  /** Whether its process was last seen alive. */
  isAlive: boolean;
  harness: AgentHarness;
  activity: Activity;
  /** Set in quarantine only. */
  detecting: Detecting | null;
}

/** What is needed to find, tear down and resume a session. It never gets into the change log, an error message or a log line. */
export interface SessionMetadata {
  /** Git branch. */
  branch: string;
  /** The session's folder. */
  workspacePath: string;
  /** The runtime's name of the session. */
  runtimeHandleId: string;
  /** Which runtime it is in. */
  runtimeName: string;
  /** The agent's own name of the conversation, to resume it by. */
  agentSessionId: string;
  /** What the agent was told first. */
  prompt: string;
}

/** A session as it is stored. */
export interface SessionRecord {
  id: SessionId;
  projectId: ProjectId;
  /** 1, 2, 3 … in its project. */
  num: number;
  /** What it works on. */
  issueId: string;
  kind: SessionKind;
  lifecycle: Lifecycle;
  metadata: SessionMetadata;
  /** Grows by 1 with every write. */
  revision: number;
  createdAt: Date;
  updatedAt: Date;
  /** What people call it; `''` = nothing. No manager reads or writes it. */
  displayName: string;
  /** Whether people want it on top. No manager reads or writes it. */
  pinned: boolean;
  /** Names the start of its runtime that counts; `''` before the first. Made by {@link SessionManager}; `updateSession` leaves it as it is. */
  launchId: string;
  /** When its runtime last came up; `null` = never. `updateSession` leaves it as it is. */
  launchedAt: Date | null;
}

/** What people see of a session and no decision looks at. */
export type SessionDisplay = Partial<Pick<SessionRecord, 'displayName' | 'pinned'>>;

/** A session with what a person is shown. */
export interface Session extends SessionRecord {
  status: SessionStatus;
}

/** An {@link Activity} to be stored. Left out: `idle`, `null`, `none`. */
export interface ActivityInput {
  state?: ActivityState;
  lastActivityAt?: TimeInput | null;
  source?: ActivitySource;
}

/** A {@link Detecting} to be stored, or to go on from. */
export interface DetectingInput {
  attempts: number;
  startedAt: TimeInput;
  evidenceHash: string;
}

/** A {@link Lifecycle} to be stored. Left out: `not_started`, `''`, `false`, `''`, idle and never heard, `null`. */
export interface LifecycleInput {
  state?: SessionState;
  terminationReason?: TerminationReason;
  isAlive?: boolean;
  harness?: AgentHarness;
  activity?: ActivityInput;
  detecting?: DetectingInput | null;
}

/** A {@link SessionRecord} to be stored. Times that are left out are now, metadata that are left out are `''`. */
export interface SessionRecordInput {
  id: SessionId;
  projectId: ProjectId;
  num: number;
  issueId?: string;
  kind?: SessionKind;
  lifecycle?: LifecycleInput;
  metadata?: Partial<SessionMetadata>;
  revision: number;
  createdAt?: TimeInput;
  updatedAt?: TimeInput;
  displayName?: string;
  pinned?: boolean;
}

/** A session that does not exist yet: the store gives it its id. */
export type NewSession = Omit<SessionRecordInput, 'id' | 'num' | 'revision'>;

/** What is known of the pull request that counts for a session: its newest open one (or its worst, {@link ReactionPolicy.severalPrs}), else its newest. */
export interface PrFacts {
  /** Whether there is one; if not, the rest says nothing. */
  exists: boolean;
  url: string;
  number: number;
  draft: boolean;
  merged: boolean;
  closed: boolean;
  ci: CiState;
  review: ReviewDecision;
  mergeability: Mergeability;
  /** Whether it has a comment that is not resolved. */
  reviewComments: boolean;
  /** Set if it goes to the branch of another open pull request of the session: its conflicts are not its own then, until that one is merged. */
  stacked?: boolean;
}

/** A pull request. */
export interface PrRow {
  /** Its address, which names it. */
  url: string;
  /** The session that it belongs to. */
  sessionId: SessionId;
  number: number;
  state: PrState;
  reviewDecision: ReviewDecision;
  ciState: CiState;
  mergeability: Mergeability;
  updatedAt: Date;
  /** Its branch; `''` = unknown. */
  headBranch: string;
  /** The branch that it goes to; `''` = unknown. */
  baseBranch: string;
}

/** A pull request to be stored. Left out, or `''`: 0, `open`, `none`, `unknown`, `unknown`, now, `''`, `''`. */
export interface PrRowInput {
  url: string;
  sessionId: SessionId;
  number?: number;
  state?: PrState | '';
  reviewDecision?: ReviewDecision | '';
  ciState?: CiState | '';
  mergeability?: Mergeability | '';
  updatedAt?: TimeInput;
  headBranch?: string;
  baseBranch?: string;
}

/** A run of a check on a commit. Seeing it again changes the row; another commit is another row, which is another attempt. */
export interface PrCheck {
  prUrl: string;
  name: string;
  commitHash: string;
  status: CheckStatus;
  /** Where to read more. */
  url: string;
  /** The end of its output. */
  logTail: string;
  /** When the run was first seen; kept by every later write. */
  createdAt: Date;
}

/** A check to be stored. Left out: `unknown`, `''`, `''`, now. */
export interface PrCheckInput {
  prUrl: string;
  name: string;
  commitHash: string;
  status?: CheckStatus;
  url?: string;
  logTail?: string;
  createdAt?: TimeInput;
}

/** A comment of a reviewer. */
export interface PrComment {
  prUrl: string;
  /** Its name within the pull request. */
  commentId: string;
  author: string;
  file: string;
  line: number;
  body: string;
  /** Whether it is settled. */
  resolved: boolean;
  createdAt: Date;
}

/** A comment to be stored. Left out: `''`, `''`, 0, `''`, `false`, now. */
export interface PrCommentInput {
  prUrl: string;
  commentId: string;
  author?: string;
  file?: string;
  line?: number;
  body?: string;
  resolved?: boolean;
  createdAt?: TimeInput;
}
