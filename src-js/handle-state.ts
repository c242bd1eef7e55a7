/** How handles end: `close()` waits for what is in flight, then every call is refused. */
import { HoldfastError } from './errors';

/** The open, closed or poisoned state of one handle. */
export class HandleState {
  readonly #what: string;
  readonly #running = new Set<Promise<unknown>>();
  #closed: Promise<void> | undefined;
  #poisonedBy: unknown;

  /** @param what Names the handle in errors. */
  constructor(what: string) {
    this.#what = what;
  }

  /** Runs a call that may write: refused when closed, or after a failed sync. */
  write<T>(run: () => Promise<T>): Promise<T> {
    if (this.#poisonedBy !== undefined) {
      const message = `a sync of ${this.#what} failed earlier, so what is on disk is not known; make a new handle, which reads the truth from the disk`;
      return Promise.reject(new HoldfastError(message, { hfCode: 'HF_POISONED', cause: this.#poisonedBy }));
    }
    return this.read(run);
  }

  /** Runs a call that only reads: refused when closed. */
  async read<T>(run: () => Promise<T>): Promise<T> {
    if (this.#closed !== undefined) {
      throw new HoldfastError(`${this.#what} is closed; make a new handle`, { hfCode: 'HF_CLOSED' });
    }
    const running = run();
    this.#running.add(running);
    try {
      return await running;
    } catch (error) {
      if ((error as { syncFailed?: unknown } | null)?.syncFailed === true) this.#poisonedBy ??= error;
      throw error;
    } finally {
      this.#running.delete(running);
    }
  }

  /** Refuses new calls and waits for those in flight. Twice is harmless. */
  close(): Promise<void> {
    this.#closed ??= Promise.allSettled([...this.#running]).then(() => undefined);
    return this.#closed;
  }
}
