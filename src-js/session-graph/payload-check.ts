/** The caller's own check of the payloads of processes, and the lines in which events wait for it. */
import { AsyncLocalStorage } from 'node:async_hooks';
import { ProcessRegistryError, StoreClosedError } from './errors';
import type { ProcessRegistryOptions } from './process-types';
import type { SideCore } from './side-core';
import type { JsonValue } from './value-types';

type Validate = NonNullable<ProcessRegistryOptions['validatePayload']>;

/** An event that is checked before it is written. */
export interface Checked {
  /** Of the process. */
  id: string;
  eventType: string;
  /** The command that writes it, as text: an object. */
  text: string;
  /** `{ payload }` as text: every validator gets a value of its own. */
  payloadText: string;
}

/**
 * Lets a validator see payloads, and writes what it was asked about. Events of one process go out one after the other, in the order of the calls;
 * nothing else waits for a validator.
 */
export class PayloadCheck {
  readonly #core: SideCore;
  readonly #validate: Validate;
  /** Of each process with events that wait: the last one. */
  readonly #lines = new Map<string, Promise<void>>();
  /** Ends the waits for validators that were asked. */
  readonly #waiting = new Set<(reason: Error) => void>();
  /** In a validator: whether it is still to answer. */
  readonly #inside = new AsyncLocalStorage<{ asked: boolean }>();
  #isClosed = false;

  constructor(core: SideCore, validate: Validate) {
    this.#core = core;
    this.#validate = validate;
  }

  /** Writes an event once the validator has seen its payload, where its type has a schema; the answer as text. */
  write(event: Checked): Promise<string> {
    if (this.#inside.getStore()?.asked === true) {
      const message = `process \`${event.id}\` event \`${event.eventType}\`: validatePayload cannot append events or complete processes of its own store, which would wait for it; do that after it has answered`;
      return Promise.reject(new ProcessRegistryError(message, { fields: { processId: event.id, eventType: event.eventType } }));
    }
    return this.#inLine(event.id, () => this.#checked(event));
  }

  /** Ends the waits for validators: what they were asked about is not written. */
  close(): void {
    this.#isClosed = true;
    for (const reject of this.#waiting) reject(closed());
  }

  async #checked({ id, eventType, text, payloadText }: Checked): Promise<string> {
    // Asked among the writes: the registration may be one of them.
    const [schema] = JSON.parse(await this.#core.write(JSON.stringify({ do: 'schema', id, eventType }))) as [JsonValue?];
    if (schema === undefined) return this.#core.write(text);
    const refusal = await this.#verdict(schema, (JSON.parse(payloadText) as { payload: JsonValue }).payload);
    // The addon tells of it in its turn: an event that is stored already is not refused any more.
    return this.#core.write(`${text.slice(0, -1)},"verdict":${JSON.stringify({ validated: true, refusal })}}`);
  }

  /** What the validator has against a payload; rejects when the store is closed before it has answered. */
  #verdict(schema: JsonValue, payload: JsonValue): Promise<string | undefined> {
    if (this.#isClosed) return Promise.reject(closed());
    const state = { asked: true };
    const ask = async (): Promise<string | undefined> => {
      try {
        return (await this.#validate(schema, payload)) ?? undefined;
      } catch (error) {
        return error instanceof Error ? error.message : String(error);
      }
    };
    return new Promise((resolve, reject) => {
      this.#waiting.add(reject);
      void this.#inside.run(state, ask).then((refusal) => {
        // What it left running may write: nobody waits for it any more.
        state.asked = false;
        this.#waiting.delete(reject);
        resolve(refusal);
      });
    });
  }

  /** Runs after the events of the same process that were called before, whatever became of them; at once if there are none. */
  #inLine<T>(id: string, run: () => Promise<T>): Promise<T> {
    const before = this.#lines.get(id);
    const running = before === undefined ? run() : before.then(run);
    const over = running.then(
      () => {},
      () => {},
    );
    this.#lines.set(id, over);
    void over.then(() => {
      if (this.#lines.get(id) === over) this.#lines.delete(id);
    });
    return running;
  }
}

function closed(): Error {
  return new StoreClosedError('the store was closed before validatePayload had answered; the event was not written: wait for events before closing');
}
