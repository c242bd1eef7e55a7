/** The numbers that the rules of this module are made of. */
import type { PrFacts } from './record-types';

/** The facts of a session without a pull request. */
export const NO_PR: PrFacts = Object.freeze({
  exists: false,
  url: '',
  number: 0,
  draft: false,
  merged: false,
  closed: false,
  ci: 'unknown',
  review: 'none',
  mergeability: 'unknown',
  reviewComments: false,
});

/** After so many probes in a row that say the same unclear thing, a session is stuck. */
export const DETECTING_MAX_ATTEMPTS = 3;
/** After so many milliseconds in quarantine, a session is stuck. */
export const DETECTING_MAX_DURATION_MS = 300_000;
/** An agent that was heard within so many milliseconds is not taken for dead. */
export const RECENT_ACTIVITY_WINDOW_MS = 60_000;
/** After so many failed runs of a check in a row, a person is told instead of the agent. */
export const CI_BRAKE_RUNS = 3;
/** The agent is told of so many different reviews; then a person is. */
export const REVIEW_MAX_NUDGES = 3;
/** So many milliseconds after a nudge that did not help, a person is told. */
export const ESCALATE_AFTER_MS = 900_000;
/** An agent that was not heard for so many milliseconds after the start of its runtime is shown as `no_signal`. */
export const NO_SIGNAL_AFTER_MS = 90_000;
/** How often a {@link CdcPoller} looks, in milliseconds. */
export const DEFAULT_POLL_INTERVAL_MS = 100;
/** How many events a {@link CdcPoller} reads at a time. */
export const DEFAULT_POLL_BATCH = 512;
