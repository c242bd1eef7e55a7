/** Changes as an async iterator. */
import { builtinError } from '../errors';
import type { EntityChanged, EntityChanges, EntityChangesOptions } from './types';

/** Changes that wait for a slow reader; beyond that the stream fails rather than skip one in silence. */
const WAITING_LIMIT = 10_000;

type Result = IteratorResult<EntityChanged, undefined>;

/** Keeps the process alive until the result is called: somebody waits for what another process will do. */
export function keepAlive(needed: boolean): () => void {
  if (!needed) return () => {};
  const timer = setInterval(() => {}, 2 ** 30);
  return () => clearInterval(timer);
}

export class EntityChangeStream implements EntityChanges {
  private readonly waiting: EntityChanged[] = [];
  private readonly readers: { resolve(result: Result): void; reject(error: unknown): void }[] = [];
  private failure: Error | null = null;
  private ended = false;
  private readonly stop: () => void;
  private readonly abort = (): void => this.end();
  private readonly signal: AbortSignal | undefined;

  constructor(
    listen: (listener: (change: EntityChanged) => void, ended: () => void) => () => void,
    { kind, signal }: EntityChangesOptions,
    /** Whether changes can come that nothing in this process causes. */
    private readonly hearsOthers: boolean,
  ) {
    this.signal = signal;
    this.stop = listen(
      (change) => {
        if (kind === undefined || change.kind === kind) this.put(change);
      },
      () => this.end(),
    );
    if (signal?.aborted) this.end();
    else signal?.addEventListener('abort', this.abort, { once: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<Result> {
    const value = this.waiting.shift();
    if (value !== undefined) return { done: false, value };
    if (this.failure !== null) throw this.failure;
    if (this.ended) return { done: true, value: undefined };
    const stay = keepAlive(this.hearsOthers);
    return new Promise<Result>((resolve, reject) => this.readers.push({ resolve, reject })).finally(stay);
  }

  async return(): Promise<Result> {
    this.waiting.length = 0;
    this.end();
    return { done: true, value: undefined };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  private put(change: EntityChanged): void {
    const reader = this.readers.shift();
    if (reader) {
      reader.resolve({ done: false, value: change });
    } else if (this.waiting.length < WAITING_LIMIT) {
      this.waiting.push(change);
    } else {
      const message = `the reader of entity changes is ${WAITING_LIMIT} changes behind; read faster, or begin anew and read the current states`;
      this.failure = builtinError(RangeError, message, { hfCode: 'HF_BUSY' });
      this.end();
    }
  }

  private end(): void {
    if (this.ended) return;
    this.ended = true;
    this.stop();
    this.signal?.removeEventListener('abort', this.abort);
    for (const reader of this.readers.splice(0)) reader.resolve({ done: true, value: undefined });
  }
}
