/**
 * The inside of a store over a drizzle object that keeps events: handles may be bound, and programs may listen, before it is known where
 * the log is. Everything that needs the log waits for `open`; what was said before that is passed on then.
 */
import { HoldfastError } from '../errors';
import { quietLogger } from './logging';
import { storeClosed, type Listener, type Log, type Participant, type StoreInternals } from './store-core';
import type { EntityChanged, EntityDurability, Logger } from './types';

interface Listening {
  readonly listener: Listener;
  readonly ended: (() => void) | undefined;
  /** Ends it, wherever it listens. */
  stop: () => void;
}

export class LateInternals implements StoreInternals {
  readonly log: Log;
  private core: StoreInternals | null = null;
  /** What handles defined, in the order of their numbers. */
  private readonly kinds: Parameters<Log['defineKind']>[] = [];
  private readonly participants = new Set<Participant>();
  private readonly heard = new Set<Listening>();
  private isClosed = false;
  readonly logger: Logger | undefined;

  /**
   * @param open Finds the log, opens it and calls {@link settle}; rejects if the store cannot be used
   * @param assertUsable Throws if the store can be used no more
   */
  constructor(
    readonly durability: EntityDurability,
    logger: Logger | undefined,
    private readonly open: () => Promise<unknown>,
    private readonly assertUsable: () => void,
  ) {
    this.logger = quietLogger(logger);
    this.log = this.lateLog();
  }

  get counters(): StoreInternals['counters'] {
    return this.core?.counters ?? { redelivered: 0, recovered: 0 };
  }

  now(): number {
    return this.core?.now() ?? Date.now();
  }

  /** The log is found: from now on everything goes there. */
  settle(core: StoreInternals): void {
    // The numbers that handles have are those of a log that nobody has used.
    this.kinds.forEach(([name, known], number) => {
      if (core.log.defineKind(name, known) !== number) throw new Error('the log of an entity store was in use before its handles');
    });
    this.core = core;
    for (const participant of this.participants) core.join(participant);
    for (const each of this.heard) each.stop = core.listen(each.listener, each.ended);
    this.participants.clear();
    this.heard.clear();
  }

  opened(participant: Participant): Promise<void> | undefined {
    if (this.isClosed) return Promise.reject(storeClosed());
    this.assertUsable();
    return this.core === null ? this.openFor(participant) : this.core.opened(participant);
  }

  join(participant: Participant): void {
    if (this.core === null) this.participants.add(participant);
    else this.core.join(participant);
  }

  get isEnded(): boolean {
    return this.core?.isEnded ?? this.isClosed;
  }

  enter(): void {
    if (this.isClosed) throw storeClosed();
    this.assertUsable();
    // Whoever enters has waited for the store to be open.
    (this.core as StoreInternals).enter();
  }

  leave(): void {
    (this.core as StoreInternals).leave();
  }

  publish(event: () => EntityChanged): void {
    this.core?.publish(event);
  }

  listen(listener: Listener, ended?: () => void): () => void {
    if (this.isClosed) throw storeClosed();
    this.assertUsable();
    if (this.core !== null) return this.core.listen(listener, ended);
    const each: Listening = { listener, ended, stop: () => void this.heard.delete(each) };
    this.heard.add(each);
    return () => each.stop();
  }

  listening(): Promise<void> | undefined {
    if (this.core !== null) return this.core.listening();
    // Whoever uses the store is told why it cannot be opened; the next use tries again.
    return this.open().then(
      () => this.core?.listening(),
      () => {},
    );
  }

  /** The store is closed, perhaps without ever having been opened. */
  end(): void {
    this.isClosed = true;
    for (const { ended } of this.heard) ended?.();
    this.heard.clear();
    for (const participant of this.participants) participant.stop();
    this.participants.clear();
  }

  private async openFor(participant: Participant): Promise<void> {
    await this.open();
    await this.core?.opened(participant);
  }

  /** A log that takes the kinds of handles at once, and is another one as soon as there is one. */
  private lateLog(): Log {
    const bound = new Map<PropertyKey, unknown>();
    const defineKind: Log['defineKind'] = (name, known) =>
      this.core === null ? this.kinds.push([name, known]) - 1 : this.core.log.defineKind(name, known);
    return new Proxy({} as Log, {
      get: (_, name) => {
        if (name === 'defineKind') return defineKind;
        if (this.core === null) throw new HoldfastError('the entity store is not open yet; await ready() first', { hfCode: 'HF_BUSY' });
        let method = bound.get(name);
        if (method === undefined) {
          const log = this.core.log as unknown as Record<PropertyKey, (...args: unknown[]) => unknown>;
          bound.set(name, (method = log[name]?.bind(log)));
        }
        return method;
      },
    });
  }
}
