/** Events as an async iterator, for a reader that takes its time. */
import type { AnyChangeEvent, ChangeSubscription } from './change-types';
import { SubscriberOverflowError } from './errors';

type Result<E> = IteratorResult<E, undefined>;

const DONE: Result<never> = { done: true, value: undefined };

/** What waits between the publisher and one reader. */
export class BufferedSubscription<E extends AnyChangeEvent> implements ChangeSubscription<E> {
  #lastSeq = 0;
  readonly #waiting: E[] = [];
  /** Where in `#waiting` the next one is: shifting a long array for each event would be slow. */
  #next = 0;
  readonly #readers: { resolve(result: Result<E>): void; reject(error: unknown): void }[] = [];
  readonly #buffer: number;
  readonly #signal: AbortSignal | undefined;
  readonly #unsubscribe: () => void;
  #overflowed = false;
  #ended = false;
  readonly #abort = (): void => this.#drop();

  /** @param listen Begins the subscription; returns how to end it. */
  constructor(listen: (put: (event: E) => void) => () => void, buffer: number, signal: AbortSignal | undefined) {
    this.#buffer = buffer;
    this.#signal = signal;
    if (signal?.aborted) {
      this.#unsubscribe = () => {};
      this.#ended = true;
      return;
    }
    this.#unsubscribe = listen((event) => this.#put(event));
    signal?.addEventListener('abort', this.#abort, { once: true });
  }

  get lastSeq(): number {
    return this.#lastSeq;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<Result<E>> {
    const value = this.#waiting[this.#next];
    if (value !== undefined) {
      this.#next++;
      if (this.#next === this.#waiting.length) this.#waiting.length = this.#next = 0;
      return this.#hand(value);
    }
    if (this.#overflowed) {
      this.#overflowed = false;
      throw this.#overflow();
    }
    if (this.#ended) return DONE;
    return new Promise<Result<E>>((resolve, reject) => this.#readers.push({ resolve, reject }));
  }

  async return(): Promise<IteratorResult<E, undefined>> {
    this.#drop();
    return DONE;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#drop();
  }

  #put(event: E): void {
    const reader = this.#readers.shift();
    if (reader !== undefined) {
      reader.resolve(this.#hand(event));
    } else if (this.#waiting.length - this.#next < this.#buffer) {
      this.#waiting.push(event);
    } else {
      this.#overflowed = true;
      this.#end();
    }
  }

  #hand(value: E): Result<E> {
    this.#lastSeq = value.seq;
    return { done: false, value };
  }

  #overflow(): SubscriberOverflowError {
    const fields = { lastSeq: this.#lastSeq, buffer: this.#buffer };
    const message = `the reader is more than ${this.#buffer} changes behind; read on after seq ${this.#lastSeq} from the log, then subscribe anew`;
    return new SubscriberOverflowError(message, { fields });
  }

  /** Ends the subscription for a reader who wants no more. */
  #drop(): void {
    this.#waiting.length = this.#next = 0;
    this.#overflowed = false;
    this.#end();
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#unsubscribe();
    this.#signal?.removeEventListener('abort', this.#abort);
    for (const reader of this.#readers.splice(0)) reader.resolve(DONE);
  }
}
