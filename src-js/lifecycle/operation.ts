/**
 * The notes of what takes more than one transaction: made before the first step, so that after a crash `recover()` can finish it or undo
 * it. While a note stands, no other process begins something else with the session.
 */
import { randomUUID } from 'node:crypto';

import { HoldfastError } from '../errors';
import { busyError, type Adopted, type Kit } from './kit';
import { messageOf } from './logging';
import { ownStep } from './ports';
import type { SessionId } from './word-types';

export type OperationKind = Adopted['kind'];

/** What is gone of a session. */
export interface Freed {
  /** Its workspace. */
  readonly freed?: boolean;
  /** Its runtime: whoever has its handle from now on is another one. */
  readonly runtimeFreed?: boolean;
}

export class Operation {
  readonly #kit: Kit;
  readonly #kind: OperationKind;
  readonly #id: SessionId;
  readonly #token: string;

  constructor(kit: Kit, kind: OperationKind, id: SessionId, token: string) {
    this.#kit = kit;
    this.#kind = kind;
    this.#id = id;
    this.#token = token;
  }

  /** @throws {SessionBusyError} somebody else's operation is in progress */
  static async begin(kit: Kit, kind: OperationKind, id: SessionId): Promise<Operation> {
    for (const [token, left] of kit.running.unended) {
      if (left.id !== id) continue;
      await kit.core.write({ do: 'end', token, ...left.freed, now: kit.now() });
      kit.running.unended.delete(token);
    }
    try {
      const { token } = JSON.parse(await kit.core.write({ do: 'begin', id, kind, now: kit.now() })) as { token: string };
      return new Operation(kit, kind, id, token);
    } catch (error) {
      throw isBusy(error) ? busyError(kind, id) : error;
    }
  }

  /** Notes what is done next. Rejects if the operation is no longer ours: then nothing more may be done. */
  async advance(step: string, more: { launchId?: string; runtimeFreed?: boolean } = {}): Promise<void> {
    const command = { do: 'advance', token: this.#token, step, ...more };
    try {
      await ownStep({ op: this.#kind, id: this.#id, step }, () => this.#kit.core.write({ ...command, now: this.#kit.now() }));
    } catch (error) {
      throw isBusy(error) ? new LostOperation(busyError(this.#kind, this.#id)) : error;
    }
  }

  /** Notes that the runtime is started next. What is reported of an earlier start no longer counts from then on. Returns the name of this one. */
  async launch(runtimeFreed = false): Promise<string> {
    const launchId = randomUUID();
    await this.advance('runtime', { launchId, runtimeFreed });
    return launchId;
  }

  /** Notes that it is over, and what is gone by that. */
  async end(freed: Freed = {}): Promise<void> {
    const { core, now, running } = this.#kit;
    try {
      await core.write({ do: 'end', token: this.#token, ...freed, now: now() });
    } catch (error) {
      running.unended.set(this.#token, { id: this.#id, freed });
      throw error;
    }
  }

  /** As {@link end}, where what went wrong before counts. */
  async endQuietly(freed: Freed = {}): Promise<void> {
    try {
      await this.end(freed);
    } catch (error) {
      this.#kit.logger?.warn(`${this.#kind} ${this.#id}: its end could not be noted: ${messageOf(error)}`);
    }
  }
}

/** Another store took the operation over, thinking this one dead: what was begun is its to finish. */
export class LostOperation extends Error {
  constructor(readonly error: HoldfastError) {
    super(error.message);
  }
}

/** What a caller gets of whatever was thrown. */
export function outside(error: unknown): unknown {
  return error instanceof LostOperation ? error.error : error;
}

function isBusy(error: unknown): boolean {
  return error instanceof HoldfastError && error.hfCode === 'HF_LIFECYCLE_SESSION_BUSY';
}
