/** Small things that the files of this module share. */
import { HoldfastError } from '../errors';
import { messageOf, quietLoggers } from '../logging';
import type { PackagesLogger } from './types';

export { messageOf } from '../logging';

const quiet = quietLoggers(['debug', 'error']);

/** The same logger, but a line that it cannot write is left out. What callers hand over goes through it at every entry. */
export function quietLogger(logger: PackagesLogger | undefined): PackagesLogger | undefined {
  return quiet(logger);
}

/** Whether a file or a disk refused: no transport is to blame, and nobody is helped by another error around it. */
export function isDiskFailure(error: unknown): error is HoldfastError {
  return error instanceof HoldfastError && error.syscall !== undefined;
}

/** Throws the signal's reason once it is aborted. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  signal?.throwIfAborted();
}

/** Settles as `running` does, or rejects with the signal's reason as soon as it is aborted; `running` goes on unheard then. */
export async function untilAborted<T>(running: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return running;
  // Nobody waits for it any more once the signal has aborted.
  running.catch(() => {});
  signal.throwIfAborted();
  let abort = (): void => {};
  const aborted = new Promise<never>((_, reject) => (abort = () => reject(signal.reason)));
  signal.addEventListener('abort', abort, { once: true });
  try {
    return await Promise.race([running, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

/** Runs what must not change the outcome any more: its failure is logged as `<what> failed: …`. */
export async function survive(run: () => unknown, what: string, logger: PackagesLogger | undefined): Promise<void> {
  try {
    await run();
  } catch (error) {
    logger?.error(`${what} failed: ${messageOf(error)}`);
  }
}

/** Bytes as megabytes of 2^20, for people. */
export function megabytes(bytes: number): string {
  return `${(bytes / 1_048_576).toFixed(1)}MB`;
}
