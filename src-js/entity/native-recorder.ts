/**
 * Records changes in a store of holdfast's own. The states cross into the addon as text, each once; everything that is derived from
 * them (diff, masking, rows, event) is made there, off this thread.
 */
import { HoldfastError } from '../errors';
import { call, callSync, native } from '../native';
import { SYSTEM_ACTOR } from './change-schema';
import { stableStringify } from './canonical';
import { define } from './copy';
import { deriveChange } from './derive';
import { UNSERIALIZABLE, serializeFieldValue } from './field-text';
import { DEFAULT_MASK_TOKEN } from './mask';
import type { OrphanIntent, Participant, StoreInternals } from './store-core';
import type { ChangeStart, RecordedChange, Recorder, RecordingContext, SendableChange, State } from './recording';
import { secretsOfRun } from './run-secrets';
import { isPlainJson, snapshotState } from './snapshot';
import type { Actor, EntityChanged, EntityStore } from './types';

type Log = InstanceType<typeof native.EntityLog>;
type Secrets = InstanceType<typeof native.EntitySecrets>;

/** Numbers of the changes that are under way, unique in this environment. */
let lastToken = 0;
function nextToken(): number {
  lastToken = (lastToken + 1) >>> 0;
  return lastToken;
}

/** The numbers of the kinds of each log: handles for one kind and the same fields share one, because a log keeps its kinds for ever. */
const kindNumbers = new WeakMap<Log, Map<string, number>>();
function kindNumber(log: Log, kind: string, known: ReadonlySet<string> | null): number {
  const fields = known === null ? undefined : [...known].sort();
  const name = JSON.stringify([kind, fields]);
  let numbers = kindNumbers.get(log);
  if (numbers === undefined) kindNumbers.set(log, (numbers = new Map()));
  let number = numbers.get(name);
  if (number === undefined) numbers.set(name, (number = log.defineKind(kind, fields)));
  return number;
}

/** The secrets of each run, compiled, until the run learns another one. */
const compiled = new WeakMap<object, Secrets>();

export class NativeRecorder implements Recorder {
  readonly keepsEvents: boolean;
  readonly journal: boolean;
  readonly log: Log;
  readonly kindNumber: number;
  readonly noteRetry = (): void => void this.internals.counters.redelivered++;
  /** Set by the handle. */
  participant: Participant | null = null;

  constructor(
    readonly store: EntityStore,
    readonly internals: StoreInternals,
    readonly context: RecordingContext,
  ) {
    this.log = internals.log;
    this.keepsEvents = internals.durability !== 'after-commit';
    this.journal = internals.durability === 'journal';
    this.kindNumber = kindNumber(this.log, context.kind, context.schema.known);
  }

  ready(): Promise<void> | undefined {
    return this.participant === null ? undefined : this.internals.opened(this.participant);
  }

  get isEnded(): boolean {
    return this.internals.isEnded;
  }

  enter(): void {
    this.internals.enter();
  }

  leave(): void {
    this.internals.leave();
  }

  async lock(id: string): Promise<() => void> {
    const guard = await call(this.log.lockEntity(this.context.kind, id));
    return () => this.log.releaseEntity(guard);
  }

  start(start: ChangeStart): RecordedChange {
    return new NativeChange(this, start);
  }

  /** A change whose process died between its intent and its append. */
  adopt(intent: OrphanIntent): RecordedChange {
    const token = nextToken();
    const now = this.internals.now();
    callSync(() => this.log.adopt(token, this.kindNumber, JSON.stringify(intent), now));
    const opts = { actor: JSON.parse(intent.actor) as Actor };
    const start = { id: intent.entityId, removal: intent.op === 'remove', prev: null, opts };
    return new NativeChange(this, start, { token, prevText: intent.prev ?? undefined });
  }
}

class NativeChange implements RecordedChange {
  readonly begun: Promise<void> | undefined;
  private readonly token: number;
  /** The state before, by value, where text does not mean the same. */
  private readonly prev: State | null = null;
  private readonly prevText: string | undefined;
  /** Taken over from a dead process: what of `prevText` was masked only the engine can tell. */
  private readonly isAdopted: boolean;
  private nextText: string | undefined;
  /** The state after, where it has to be derived here and is not yet; `undefined` before and after that. */
  private next: State | null | undefined;
  private derived: ReturnType<typeof deriveChange> | undefined;
  /** The text of the derived `prev`, as the engine got it. */
  private derivedPrevText: string | null = null;
  /** When the outcome was handed over to the engine, which keeps it from then on; `null` before that. */
  private occurredAt: string | null = null;

  constructor(
    private readonly recorder: NativeRecorder,
    private readonly start: ChangeStart,
    adopted?: { token: number; prevText: string | undefined },
  ) {
    const { log, kindNumber, journal, context, internals } = recorder;
    this.isAdopted = adopted !== undefined;
    if (adopted !== undefined) {
      this.token = adopted.token;
      this.prevText = adopted.prevText;
      return;
    }
    this.token = nextToken();
    const { id, removal, prev, opts } = start;
    const runId = opts?.runId ? opts.runId : undefined;
    const known = runId === undefined ? undefined : secretsOfRun(context.secrets, runId);
    const foreign = runId !== undefined && known === undefined;
    if (prev !== null) {
      if (context.compat === 'original') {
        // The original compares and sends the very object that `read` returned, whatever becomes of it.
        this.prev = prev;
        this.prevText = textOf(prev);
      } else if (isPlainJson(prev)) {
        this.prevText = JSON.stringify(prev);
        // Only a registry's own code can mask for a registry that is not ours; that needs the objects.
        if (foreign) this.prev = JSON.parse(this.prevText) as State;
      } else {
        this.prev = snapshotState(prev, (message) => context.logger?.warn(message)) as State;
        this.prevText = textOf(this.prev);
      }
    }
    const actor = opts?.actor === undefined ? undefined : JSON.stringify(opts.actor);
    // What is stored of the intent must not hold a secret either.
    const prevForLog = foreign && this.prevText !== undefined ? textOf(context.secrets.maskDeep(runId, this.prev)) : this.prevText;
    const now = internals.now();
    callSync(() => log.stage(this.token, kindNumber, id, removal, prevForLog, actor, runId, known && compile(known), now, journal));
    if (journal) this.begun = this.begin();
  }

  private async begin(): Promise<void> {
    try {
      await call(this.recorder.log.begin(this.token));
    } catch (error) {
      this.discard();
      throw error;
    }
  }

  take(next: State | null): void {
    const { context } = this.recorder;
    const runId = this.start.opts?.runId;
    const isOriginal = context.compat === 'original';
    const foreign = runId && secretsOfRun(context.secrets, runId) === undefined;
    const isPlain = next === null || isPlainJson(next);
    const warn = (message: string): void => context.logger?.warn(message);
    if (this.isAdopted || (!isOriginal && this.prev === null && isPlain && !foreign)) {
      if (next !== null) this.nextText = isPlain ? JSON.stringify(next) : textOf(snapshotState(next, warn));
    } else {
      this.next = next === null || isOriginal ? next : (snapshotState(next, warn) as State);
    }
  }

  async append(): Promise<SendableChange | null> {
    const { log, internals } = this.recorder;
    // A clock or a secret registry of the program may throw, and work at the next try: nothing is handed over then.
    const now = internals.now();
    const occurredAt = new Date().toISOString();
    if (this.next !== undefined) return this.appendDerived(this.next, occurredAt, now);
    if (this.nextText !== undefined && this.nextText === this.prevText) {
      this.discard();
      return null;
    }
    const appending = log.append(this.token, this.nextText, occurredAt, now);
    this.occurredAt = occurredAt;
    return this.sendable(await this.guard(appending), occurredAt);
  }

  async appendAgain(): Promise<SendableChange | null> {
    if (this.occurredAt === null) return this.append();
    return this.sendable(await this.guard(this.recorder.log.appendAgain(this.token)), this.occurredAt);
  }

  discard(): void {
    this.recorder.log.forget(this.token);
  }

  private async appendDerived(next: State | null, occurredAt: string, now: number): Promise<SendableChange | null> {
    const { log, context } = this.recorder;
    const runId = this.start.opts?.runId;
    const derived = deriveChange({
      prev: this.prev ?? (this.prevText === undefined ? null : (JSON.parse(this.prevText) as State)),
      next,
      known: context.schema.known,
      compat: context.compat,
      mask: runId ? (value: unknown) => context.secrets.maskDeep(runId, value) : undefined,
      maskText: runId ? (text: string) => context.secrets.maskText(runId, text) : undefined,
    });
    if (derived === null) {
      this.discard();
      return null;
    }
    const prevText = derived.prev === null ? null : textOf(derived.prev);
    const text = JSON.stringify({
      changedFields: derived.changedFields.map((field) => field.toWellFormed()),
      // The databases hold no lone surrogates.
      rows: derived.rows.map((row) => {
        return { ...row, field: row.field.toWellFormed(), fromValue: row.fromValue?.toWellFormed() ?? null, toValue: row.toValue.toWellFormed() };
      }),
      prev: prevText,
      next: derived.next === null ? null : textOf(derived.next),
      delta: textOf(derived.delta),
    });
    const appending = log.appendDerived(this.token, text, occurredAt, now);
    this.occurredAt = occurredAt;
    this.next = undefined;
    this.derived = derived;
    this.derivedPrevText = prevText;
    return this.sendable(await this.guard(appending), occurredAt);
  }

  private async guard(appending: Promise<string | null>): Promise<string | null> {
    try {
      return await call(appending);
    } catch (error) {
      throw appendFailed(error, this.recorder.context.kind);
    }
  }

  private sendable(text: string | null, occurredAt: string): SendableChange | null {
    if (text === null) return null;
    const [changeId, fields, deltaText, maskedPrev, maskedNext, gaps] = text.split('\n') as [string, string, string, string, string, string];
    const { context, log, internals } = this.recorder;
    const { id, opts } = this.start;
    if (gaps !== '') {
      internals.logger?.warn(
        `entity history of ${context.kind}:${id} has a gap: the last recorded value is not the one before this change; ` +
          'history was lost, or another process wrote at the same time',
      );
    }
    const changedFields = JSON.parse(fields) as string[];
    const derived = this.derived;
    let event: EntityChanged | undefined;
    const make = (): EntityChanged => {
      const base = { kind: context.kind, id };
      const rest = { changedFields, actor: opts?.actor ?? { ...SYSTEM_ACTOR }, occurredAt, changeId };
      if (derived) {
        const isShown = maskedPrev === '' || maskedPrev === this.derivedPrevText || derived.prev === null;
        const prev = isShown ? derived.prev : hiddenAs(derived.prev as State, JSON.parse(maskedPrev) as State);
        return { ...base, prev, next: derived.next, delta: derived.delta, ...rest };
      }
      return lazyEvent(base, maskedPrev || this.prevText, maskedNext || this.nextText, deltaText, rest);
    };
    const sendable = { changedFields, event: () => (event ??= make()), delivered: () => log.delivered(changeId) };
    internals.publish(sendable.event);
    return sendable;
  }
}

/**
 * An event whose states are parsed when somebody looks at them: most subscribers look at the id and the changed fields only.
 * To a program it is a plain object with own properties.
 */
function lazyEvent(
  base: { kind: string; id: string },
  prevText: string | undefined,
  nextText: string | undefined,
  deltaText: string,
  rest: Pick<EntityChanged, 'changedFields' | 'actor' | 'occurredAt' | 'changeId'>,
): EntityChanged {
  let prev: State | null | undefined;
  let next: State | null | undefined;
  let delta: State | undefined;
  const parse = (text: string | undefined): State | null => (text === undefined ? null : (JSON.parse(text) as State));
  return {
    kind: base.kind,
    id: base.id,
    get prev() {
      return prev === undefined ? (prev = parse(prevText)) : prev;
    },
    set prev(value) {
      prev = value;
    },
    get next() {
      return next === undefined ? (next = parse(nextText)) : next;
    },
    set next(value) {
      next = value;
    },
    get delta() {
      return (delta ??= parse(deltaText) as State);
    },
    set delta(value) {
      delta = value;
    },
    changedFields: rest.changedFields,
    actor: rest.actor,
    occurredAt: rest.occurredAt,
    changeId: rest.changeId as string,
  };
}

/** A state with what the history hides of it: `shown` has another value there. */
function hiddenAs(state: State, shown: State): State {
  const hidden = { ...state };
  for (const [field, value] of Object.entries(shown)) {
    if (stableStringify(readable(state[field])) !== stableStringify(value)) define(hidden, field, value);
  }
  return hidden;
}

function compile(known: { values: readonly string[] }): Secrets {
  let secrets = compiled.get(known.values);
  if (secrets === undefined) {
    secrets = new native.EntitySecrets(JSON.stringify(known.values), DEFAULT_MASK_TOKEN);
    compiled.set(known.values, secrets);
  }
  return secrets;
}

/** JSON text of a state that `JSON.stringify` would refuse or misread. */
function textOf(value: unknown): string {
  try {
    return stableStringify(value);
  } catch {
    // A cycle, or deeper than any text may be: each field on its own, so that the others keep theirs.
    const fields = Object.entries(value as State).map(([key, field]) => [key, readable(field)] as const);
    return JSON.stringify(Object.fromEntries(fields));
  }
}

function readable(field: unknown): unknown {
  try {
    return JSON.parse(stableStringify(field)) as unknown;
  } catch {
    const text = serializeFieldValue(field);
    return text === UNSERIALIZABLE ? text : null;
  }
}

function appendFailed(error: unknown, kind: string): unknown {
  if (!(error instanceof HoldfastError) || error.hfCode === 'HF_CLOSED' || error.hfCode === 'HF_PANIC') return error;
  const failed = new HoldfastError(`the history of a change of kind "${kind}" could not be appended: ${error.message}`, {
    hfCode: 'HF_ENTITY_APPEND_FAILED',
    cause: error,
  });
  return failed;
}
