/** What all methods of a store rest on. */
import { checkBytes } from './arguments';
import type { GraphCore } from './native-store';
import type { BlobRef, DurabilityTier } from './value-types';

/** The store in the addon, for the modules that have its methods. */
export let coreOf: (store: SessionGraphBase) => GraphCore;

/** An open store: where it is, what it survives, and its end. */
export abstract class SessionGraphBase implements AsyncDisposable {
  readonly #core: GraphCore;

  /** @internal */
  constructor(core: GraphCore) {
    this.#core = core;
  }

  static {
    coreOf = (store) => store.#core;
  }

  /** Where the file is, with links followed; `null` in memory and in PostgreSQL. */
  get path(): string | null {
    return this.#core.path;
  }

  /** Whether it was opened by `openReadOnly`. */
  get readOnly(): boolean {
    return this.#core.config.readOnly;
  }

  /** The version of the file. */
  get schemaVersion(): number {
    return this.#core.schemaVersion;
  }

  /** What a resolved write survives; `inline` for what cannot be written or is in memory. */
  durabilityTier(): DurabilityTier {
    const { path, readOnly, synchronous, postgres } = this.#core.config;
    if (postgres !== undefined) return 'durable';
    if (path === null || readOnly) return 'inline';
    return synchronous === 'full' ? 'durable' : 'processCrash';
  }

  /** Finishes what was called, then closes the file. Later calls reject with {@link StoreClosedError}; closing again is fine. */
  close(): Promise<void> {
    return this.#core.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

}

/** Asks what only reads. */
export async function question<T>(store: SessionGraphBase, command: object, signal?: AbortSignal): Promise<T> {
  const { text } = await coreOf(store).read(JSON.stringify(command), signal);
  return JSON.parse(text) as T;
}

/** Lets a command write bytes; returns their reference. */
export async function put(store: SessionGraphBase, command: object, content: Uint8Array): Promise<BlobRef> {
  return JSON.parse(await coreOf(store).write(JSON.stringify(command), [checkBytes(content, 'content')])) as BlobRef;
}
