/** Records changes in a store that the program brought: exactly one transaction with one append, derived on this thread. */
import { randomUUID } from 'node:crypto';
import { nameChange } from './change-name';
import { builtinError } from '../errors';
import { SYSTEM_ACTOR } from './change-schema';
import { deriveChange } from './derive';
import type { ChangeStart, RecordedChange, Recorder, RecordingContext, SendableChange, State } from './recording';
import { snapshotState } from './snapshot';
import type { EntityChanged, EntityStore, TransitionAppend } from './types';

export class PlainRecorder implements Recorder {
  readonly keepsEvents = false;
  readonly noteRetry = (): void => {};

  constructor(
    readonly store: EntityStore,
    readonly context: RecordingContext,
  ) {}

  ready(): undefined {
    return undefined;
  }

  readonly isEnded = false;

  enter(): void {}

  leave(): void {}

  lock(): Promise<never> {
    const message = 'serialize: "database" needs a store over { connectionString }: holdfast keeps its locks there, on a connection of its own';
    return Promise.reject(builtinError(TypeError, message, { hfCode: 'HF_ENTITY_STORE_INPUT_INVALID' }));
  }

  start(start: ChangeStart): RecordedChange {
    return new PlainChange(this, start);
  }
}

class PlainChange implements RecordedChange {
  readonly begun = undefined;
  private readonly prev: State | null;
  /** The state after, while nothing is derived yet; `undefined` before and after that. */
  private next: State | null | undefined;
  private transitions: TransitionAppend[] = [];
  private change: SendableChange | null = null;
  /** What was said of this change already: both of its states may have the same to say. */
  private readonly warned = new Set<string>();

  constructor(
    private readonly recorder: PlainRecorder,
    private readonly start: ChangeStart,
  ) {
    const { prev } = start;
    this.prev = prev === null || recorder.context.compat === 'original' ? prev : this.copy(prev);
  }

  take(next: State | null): void {
    this.next = next === null || this.recorder.context.compat === 'original' ? next : this.copy(next);
  }

  append(): Promise<SendableChange | null> {
    return this.appendAgain();
  }

  async appendAgain(): Promise<SendableChange | null> {
    // A secret registry of the program may throw, and work at the next try.
    if (this.next !== undefined) this.derive(this.next);
    this.next = undefined;
    if (this.transitions.length > 0) {
      const { store, context } = this.recorder;
      const { transitions } = this;
      await store.runInTransaction((tx) => store.appendTransitions({ tx, kind: context.kind, entityId: this.start.id, transitions }));
    }
    return this.change;
  }

  discard(): void {}

  private copy(state: State): State {
    return snapshotState(state, this.warn) as State;
  }

  private readonly warn = (message: string): void => {
    if (this.warned.has(message)) return;
    this.warned.add(message);
    this.recorder.context.logger?.warn(message);
  };

  private derive(next: State | null): void {
    const { context } = this.recorder;
    const runId = this.start.opts?.runId;
    const derived = deriveChange({
      prev: this.prev,
      next,
      known: context.schema.known,
      compat: context.compat,
      mask: runId ? (value: unknown) => context.secrets.maskDeep(runId, value) : undefined,
      maskText: runId ? (text: string) => context.secrets.maskText(runId, text) : undefined,
      warn: this.warn,
    });
    if (derived === null) return;
    this.transitions = derived.rows.map(({ field, fromValue, toValue }) => ({ field, fromValue, toValue }));
    const changeId = randomUUID();
    // A failed append may have been committed: the next try must be known for the same change.
    nameChange(this.transitions, { changeId, masked: derived.rows.map(({ masked }) => masked) });
    const { id, opts } = this.start;
    let event: EntityChanged | undefined;
    this.change = {
      changedFields: derived.changedFields,
      event: () =>
        (event ??= {
          kind: context.kind,
          id,
          prev: derived.prev,
          next: derived.next,
          delta: derived.delta,
          changedFields: derived.changedFields,
          actor: opts?.actor ?? { ...SYSTEM_ACTOR },
          // At the moment of sending, not of recording.
          occurredAt: new Date().toISOString(),
          changeId,
        }),
      delivered: () => {},
    };
  }
}
