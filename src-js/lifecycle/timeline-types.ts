/** What happened to a session, and why. */
import type { ChangeEvent } from './change-types';
import type { ProjectId, SessionId, SessionState, TerminationReason } from './word-types';

/** What a decision was about. More may come. */
export type DecisionCause = 'probe' | 'activity' | 'pr' | 'spawn' | 'restore' | 'kill' | 'update' | (string & {});

/** Why a session became what it is. One per change of state, reason or liveness, and per step of a quarantine. */
export interface SessionDecision {
  type: 'decision';
  /** The newest change when it was made: its own, if it made one. */
  seq: number;
  projectId: ProjectId;
  sessionId: SessionId;
  /** By the clock of who made it. */
  createdAt: Date;
  payload: {
    cause: DecisionCause;
    from: SessionState;
    to: SessionState;
    terminationReason: TerminationReason;
    /** Whether it counts as alive after it. */
    isAlive: boolean;
    /** Equal unclear probes so far; `null` outside of a quarantine. */
    detectingAttempts: number | null;
    /** What it was decided on, short and for machines: `hook waiting_input`, `killed: manually_killed`. No prompt, handle or path. */
    evidence: string;
  };
}

/** A row of a session's timeline; `type` tells which. */
export type TimelineEntry<E = ChangeEvent> = E | SessionDecision;
