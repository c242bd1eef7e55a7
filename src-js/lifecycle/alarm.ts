/** Waiting that something else can cut short. */

/** Waits for a time, a ring or the end, whichever comes first. A ring while nobody waits cuts the next wait short. */
export class Alarm {
  readonly #keepAlive: boolean;
  #isOver = false;
  #rang = false;
  #wake: (() => void) | undefined;
  #giveUp: (() => void) | undefined;

  /** @param keepAlive Whether waiting keeps the process alive. */
  constructor(keepAlive: boolean) {
    this.#keepAlive = keepAlive;
  }

  ring(): void {
    this.#rang = true;
    this.#wake?.();
  }

  end(): void {
    this.#isOver = true;
    this.#wake?.();
    this.#giveUp?.();
  }

  /** Settles as `running` does, or resolves to `otherwise` at the end. One call at a time. */
  async unlessOver<T>(running: Promise<T>, otherwise: T): Promise<T> {
    try {
      return await new Promise<T>((resolve, reject) => {
        this.#giveUp = () => resolve(otherwise);
        running.then(resolve, reject);
        if (this.#isOver) resolve(otherwise);
      });
    } finally {
      this.#giveUp = undefined;
    }
  }

  /** Waits at most `ms` milliseconds. */
  async wait(ms: number): Promise<void> {
    if (!this.#rang && !this.#isOver) {
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        timer = setTimeout(resolve, ms);
        if (!this.#keepAlive) timer.unref();
      });
      clearTimeout(timer);
      this.#wake = undefined;
    }
    this.#rang = false;
  }

  /** Lets the event loop turn once. */
  breathe(): Promise<void> {
    return new Promise((resolve) => setImmediate(resolve));
  }
}
