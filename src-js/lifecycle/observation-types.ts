/** What observers report, and what is decided from it. */
import type { Detecting, DetectingInput, PrCheckInput, PrCommentInput } from './record-types';
import type { RuntimeHandle } from './port-types';
import type {
  ActivitySource,
  ActivityState,
  CiState,
  Mergeability,
  ProbeResult,
  ProcessLiveness,
  ReviewDecision,
  SessionState,
  TerminationReason,
  TimeInput,
} from './word-types';

/** What a probe of a runtime, and of the process in it, found. */
export interface RuntimeFacts {
  runtime: ProbeResult;
  process: ProbeResult;
  /** When. Default: now. */
  observedAt?: TimeInput;
  /** Which start of the runtime was looked at. If another one counts by now, nothing is changed. Default: whichever counts. */
  launchId?: string;
}

/** What an agent was heard to do. */
export interface ActivitySignal {
  /** `false`: the signal says nothing, and changes nothing. */
  valid: boolean;
  state: ActivityState;
  /** When. Default: now. Older than what is stored: dropped; in the future: now. */
  timestamp?: TimeInput;
  /** Who told. Default `none`. */
  source?: ActivitySource;
  /** Which start of the runtime it comes from, as the agent's environment has it. If another one counts by now, nothing is changed. Default: whichever counts. */
  launchId?: string;
}

/** What was found about a pull request. */
export interface PrObservation {
  /** `false`: it could not be looked at, which changes nothing, whatever else is set. */
  fetched: boolean;
  url: string;
  number: number;
  draft?: boolean;
  merged?: boolean;
  closed?: boolean;
  ci?: CiState;
  review?: ReviewDecision;
  mergeability?: Mergeability;
  /** Its branch, and the branch that it goes to; of a fork with its owner (`owner:branch`). Default `''` = unknown. */
  headBranch?: string;
  baseBranch?: string;
  /** The checks as they are now. */
  checks?: Omit<PrCheckInput, 'prUrl'>[];
  /** All comments as they are now. */
  comments?: Omit<PrCommentInput, 'prUrl'>[];
}

/** What came out of starting a session. Fields that are left out or empty keep what is stored. */
export interface SpawnOutcome {
  branch?: string;
  workspacePath?: string;
  runtimeHandle?: RuntimeHandle;
  agentSessionId?: string;
  prompt?: string;
  /** Which start this is about; if another one counts by now, `HF_LIFECYCLE_SESSION_BUSY`. Default: whichever counts. */
  launchId?: string;
  /**
   * What the session must be: `spawning` = not ended (a kill meanwhile wins, with `HF_LIFECYCLE_SESSION_TERMINATED`), `terminal` = ended (else
   * `HF_LIFECYCLE_SESSION_BUSY`). Default: either.
   */
  expect?: 'spawning' | 'terminal';
}

/** What {@link resolveProbeDecision} decides from. Booleans that are left out are `false`. */
export interface ProbeInput {
  runtimeAlive?: boolean;
  /** Whether the runtime could not be probed. */
  runtimeFailed?: boolean;
  /** Default `indeterminate`. */
  process?: ProcessLiveness;
  /** Whether the process could not be probed. */
  processFailed?: boolean;
  /** Whether the agent was heard within the window. */
  recentActivity?: boolean;
  killRequested?: boolean;
  /** Default `manually_killed`. */
  killReason?: TerminationReason;
  /** The memory of a quarantine that goes on. */
  prior?: DetectingInput | null;
  now: TimeInput;
}

/** What tells whether an agent has been silent for too long since the start of its runtime. */
export interface SilenceInput {
  /** `SessionRecord.launchedAt`. */
  launchedAt: TimeInput | null;
  now: TimeInput;
  /** Default {@link NO_SIGNAL_AFTER_MS}. */
  noSignalAfterMs?: number;
}

/** What was decided about a session, and from what. */
export interface LifecycleDecision {
  state: SessionState;
  terminationReason: TerminationReason;
  isAlive: boolean;
  detecting: Detecting | null;
  /** The facts as text; its hash tells whether two probes said the same. */
  evidence: string;
}
