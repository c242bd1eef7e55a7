/** Calls of the caller's own code: they may throw at once, answer without a promise, or never settle. */
import { HoldfastError } from '../errors';
import { PortError, StoreClosedError, withMessage } from './errors';
import { messageOf } from './logging';
import type { StoreCore } from './native-store';

/** What ends the waiting for a port. */
export interface Ends {
  /** The store: calls that wait when it is closed reject with `HF_CLOSED`. */
  readonly core: StoreCore;
  /** The caller's signal. */
  readonly signal?: AbortSignal;
}

/** Waiting was given up; the port still runs. */
class GivenUp extends Error {
  constructor(readonly reason: unknown) {
    super(messageOf(reason));
  }
}

/**
 * Calls a port and waits for it, at most until the signal aborts or the store is closed. `late` gets what it answers after that: there is
 * something that nobody else knows of.
 */
export async function callPort<T>(run: () => T | PromiseLike<T>, { core, signal }: Ends, late?: (value: T) => void): Promise<T> {
  if (core.closed) throw core.closedError();
  if (signal?.aborted) throw new GivenUp(signal.reason);
  let giveUp!: (reason: unknown) => void;
  const ended = new Promise<never>((_, reject) => (giveUp = reject));
  const abort = (): void => giveUp(new GivenUp(signal?.reason));
  signal?.addEventListener('abort', abort, { once: true });
  const unclose = core.onClose(() => giveUp(core.closedError()));
  let isHeard = true;
  const running = (async () => run())();
  running.then((value) => isHeard || late?.(value)).catch(() => {});
  try {
    return await Promise.race([running, ended]);
  } finally {
    isHeard = false;
    signal?.removeEventListener('abort', abort);
    unclose();
  }
}

/** Waits, at most until the signal aborts or the store is closed, which rejects; tells whether all of the time has passed. */
export async function pause(ms: number, ends: Ends): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  try {
    await callPort(() => new Promise<void>((resolve) => (timer = setTimeout(resolve, ms))), ends);
    return true;
  } catch (error) {
    if (error instanceof GivenUp) return false;
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** Which part of which operation on which session. */
export interface Place {
  readonly op: string;
  /** Missing before the session has an id. */
  readonly id?: string;
  readonly step?: string;
}

/** `spawn mer-1: workspace: ` */
function prefix({ op, id, step }: Place): string {
  return [id === undefined ? op : `${op} ${id}`, ...(step === undefined ? [] : [step])].map((part) => `${part}: `).join('');
}

function fieldsOf({ op, id, step }: Place): Record<string, unknown> {
  return { op, ...(id !== undefined && { sessionId: id }), ...(step !== undefined && { step }) };
}

/** Calls a port as {@link callPort} does; what it throws becomes a `PortError` that says where. */
export async function portStep<T>(place: Place, run: () => T | PromiseLike<T>, ends: Ends, late?: (value: T) => void): Promise<T> {
  try {
    return await callPort(run, ends, late);
  } catch (error) {
    throw portError(place, error, ends.core);
  }
}

function portError(place: Place, error: unknown, core: StoreCore): Error {
  // A port that uses the store may throw the same error; what counts is that this store is closed.
  if (error instanceof StoreClosedError && core.closed) return withMessage(error, prefix(place) + error.message, fieldsOf(place));
  const cause = error instanceof GivenUp ? error.reason : error;
  return new PortError(prefix(place) + messageOf(cause), { cause, fields: fieldsOf(place) });
}

/** Runs a step that is the store's or a manager's; its errors keep their class and code, and say where. */
export async function ownStep<T>(place: Place, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw placed(place, error);
  }
}

/** The same failure, saying where. What is no error of holdfast, say of a manager that somebody has derived, becomes a `PortError`. */
export function placed(place: Place, error: unknown): Error {
  if (error instanceof GivenUp) return new PortError(prefix(place) + error.message, { cause: error.reason, fields: fieldsOf(place) });
  if (!(error instanceof HoldfastError)) return new PortError(prefix(place) + messageOf(error), { cause: error, fields: fieldsOf(place) });
  const text = OWN_WORDS[error.hfCode] ?? error.message;
  return withMessage(error, prefix(place) + text, fieldsOf(place));
}

/** What is said of a session in the same words wherever it is found. */
const OWN_WORDS: Partial<Record<string, string>> = {
  HF_LIFECYCLE_SESSION_TERMINATED: 'session: terminated',
};
