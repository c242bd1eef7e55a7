/**
 * What callers hand to handles, registries and stores, checked before anything is asked or run. A refusal is a `TypeError` with
 * `HF_INVALID_ARGUMENT`. It says of what type a value was, never what it was: ids, run ids and actors may be personal.
 */
import { types } from 'node:util';
import { isBlank, isRecord } from '../check';
import { builtinError, type HoldfastError } from '../errors';
import { noteFailure } from './failures';
import { isPlainJson } from './snapshot';
import type { EntityCompat } from './types';

/** Where a value was handed in: the method, and the kind whose handle it is of. */
interface Asked {
  readonly kind: string;
  readonly compat?: EntityCompat;
}

/** Makes the error of a bad argument. `hint` says what to do about it. */
export function refuse(argument: string, expected: string, value: unknown, { where = '', hint = '', kind }: { where?: string; hint?: string; kind?: string } = {}): HoldfastError {
  const received = typeName(value);
  const message = `${where}${argument} must be ${expected}, got ${received}${hint && `; ${hint}`}`;
  return builtinError(TypeError, message, { hfCode: 'HF_INVALID_ARGUMENT', fields: { argument, expected, received, ...(kind !== undefined && { kind }) } });
}

// ── handles ──

/**
 * Why a `mutate` or `remove` is refused; `null` = it is not. With compat `original` only what cannot be looked into is.
 *
 * @returns an error of which `getEntityFailure` knows that nothing was run
 */
export function refusedWrite(input: unknown, method: string, { kind, compat }: Asked): HoldfastError | null {
  if (typeof input !== 'object' || input === null) return notRun(refuse('its argument', 'an object { id, apply }', input, of(method, kind)));
  if (compat === 'original') return null;
  const { id, apply, opts } = input as { id: unknown; apply: unknown; opts: unknown };
  if (typeof id !== 'string') return notRun(refuse('id', 'a string', id, of(method, kind)));
  if (typeof apply !== 'function') {
    return notRun(refuse('apply', 'a function', apply, { ...of(method, kind), hint: 'pass the write itself, `apply: () => save(...)`, not what it returns' }));
  }
  return opts === undefined || opts === null ? null : refusedOpts(opts, method, kind);
}

/** Why the inputs of `mutateMany` are refused: none is run then. */
export function refusedWrites(inputs: unknown, method: string, asked: Asked): HoldfastError | null {
  if (!Array.isArray(inputs)) return notRun(refuse('its argument', 'an array of { id, apply }', inputs, of(method, asked.kind)));
  for (let i = 0; i < inputs.length; i++) {
    const refused = refusedWrite(inputs[i], `${method}, input ${i},`, asked);
    if (refused !== null) return refused;
  }
  return null;
}

function refusedOpts(opts: unknown, method: string, kind: string): HoldfastError | null {
  if (typeof opts !== 'object') return notRun(refuse('opts', 'an object', opts, of(method, kind)));
  const { actor, runId } = opts as { actor: unknown; runId: unknown };
  if (runId !== undefined && runId !== null && typeof runId !== 'string') return notRun(refuse('opts.runId', 'a string', runId, of(method, kind)));
  if (actor === undefined || (isRecord(actor) && (isPlainJson(actor) || hasText(actor)))) return null;
  return notRun(refuse('opts.actor', 'an object { type, id, name } that JSON can hold', actor, of(method, kind)));
}

/** Refuses an id that is no string, for queries of a handle. */
export function checkId(id: unknown, method: string, { kind, compat }: Asked): void {
  if (typeof id !== 'string' && compat !== 'original') throw refuse('id', 'a string', id, of(method, kind));
}

/** Refuses a field whose name is no string, for queries of a handle. */
export function checkField(field: unknown, method: string, { kind, compat }: Asked): void {
  if (typeof field !== 'string' && compat !== 'original') throw refuse('field', 'a string', field, of(method, kind));
}

/** Refuses what is no array of ids. */
export function checkIds(ids: unknown, method: string, { kind, compat }: Asked): void {
  if (compat === 'original') return;
  if (!Array.isArray(ids)) throw refuse('ids', 'an array of strings', ids, of(method, kind));
  for (let i = 0; i < ids.length; i++) if (typeof ids[i] !== 'string') throw refuse(`ids[${i}]`, 'a string', ids[i], of(method, kind));
}

/** Refuses what cannot be looked into, where named arguments are expected. */
export function checkNamed(args: unknown, expected: string, where: string): void {
  if (typeof args !== 'object' || args === null) throw refuse('its argument', `an object ${expected}`, args, { where: `${where}: ` });
}

// ── queries of a store ──

/** Refuses a query that does not say whose history it is about; `field`: it must name one. */
export function checkWhose(query: unknown, method: string, { field }: { field: 'required' | 'optional' }): void {
  const where = `${method}: `;
  checkNamed(query, field === 'required' ? '{ kind, entityId, field, … }' : '{ kind, entityId, … }', method);
  const asked = query as Record<string, unknown>;
  for (const name of ['kind', 'entityId']) if (typeof asked[name] !== 'string') throw refuse(name, 'a string', asked[name], { where });
  if (typeof asked.field !== 'string' && (field === 'required' || asked.field !== undefined)) throw refuse('field', 'a string', asked.field, { where });
}

/** Refuses what is no valid Date; `undefined` too, unless it is `optional`. */
export function checkDate(value: unknown, argument: string, method: string, need: 'required' | 'optional' = 'required'): void {
  if (value === undefined && need === 'optional') return;
  if (types.isDate(value) && !Number.isNaN(value.getTime())) return;
  const hint = typeof value === 'string' || typeof value === 'number' ? 'use new Date(...)' : '';
  throw refuse(argument, 'a valid Date', value, { where: `${method}: `, hint });
}

/** Refuses a page that is asked for in the wrong way. */
export function checkHistoryQuery(query: unknown): void {
  checkWhose(query, 'history', { field: 'optional' });
  const { from, to, cursor } = query as Record<string, unknown>;
  checkDate(from, 'from', 'history', 'optional');
  checkDate(to, 'to', 'history', 'optional');
  if (cursor !== undefined && typeof cursor !== 'string') {
    throw refuse('cursor', 'the cursor of an earlier page', cursor, { where: 'history: ', hint: 'leave it out for the first page' });
  }
}

/** Refuses a time that has no beginning. */
export function checkTimeInState(query: unknown): void {
  checkWhose(query, 'timeInState', { field: 'required' });
  const { from, to } = query as Record<string, unknown>;
  checkDate(from, 'from', 'timeInState');
  checkDate(to, 'to', 'timeInState', 'optional');
}

/** Refuses a question about flapping that has no numbers. */
export function checkFlapping(query: unknown): void {
  checkWhose(query, 'isFlapping', { field: 'required' });
  const { count, windowMs } = query as Record<string, unknown>;
  if (!Number.isInteger(count) || (count as number) < 1) throw refuse('count', 'a whole number, 1 or more', count, { where: 'isFlapping: ' });
  if (typeof windowMs !== 'number' || Number.isNaN(windowMs)) throw refuse('windowMs', 'a number of milliseconds', windowMs, { where: 'isFlapping: ' });
}

/** What a program's clock says, in milliseconds. */
export function clockMs(time: unknown): number {
  const ms = types.isDate(time) ? time.getTime() : NaN;
  if (Number.isNaN(ms)) throw refuse('what options.clock returns', 'a valid Date', time, { hint: 'pass a function like () => new Date()' });
  return ms;
}

// ── what registries, handles and stores are made of ──

/** Refuses what is no emitter. */
export function checkEmitter(emitter: unknown, where: string): void {
  if (hasMethods(emitter, ['emit'])) return;
  throw refuse('emitter', 'a ChangeEmitter', emitter, { where: `${where}: `, hint: 'make one with createChangeEmitter()' });
}

/** Refuses what is no registry of secrets. The original asks for `maskDeep` only. */
export function checkSecretRegistry(secrets: unknown, where: string, compat: EntityCompat): void {
  if (hasMethods(secrets, compat === 'original' ? ['maskDeep'] : ['maskDeep', 'maskText'])) return;
  throw refuse('secretRegistry', 'a RunSecretRegistry', secrets, { where: `${where}: `, hint: 'make one with createRunSecretRegistry()' });
}

/** Refuses a store that lacks a function; with compat `original` only what is no store at all. */
export function checkStore(store: unknown, where: string, compat: EntityCompat): void {
  const needed = ['runInTransaction', 'appendTransitions', 'inStateSince', 'transitionCount'];
  if (isRecord(store) && !types.isPromise(store) && (compat === 'original' || hasMethods(store, needed))) return;
  const lacks = isRecord(store) && !types.isPromise(store) ? needed.filter((name) => !hasMethods(store, [name])) : [];
  const hint = types.isPromise(store)
    ? 'did you forget await?'
    : lacks.length > 0 && lacks.length < needed.length
      ? `it lacks ${lacks.join(', ')}`
      : 'make one with createEntityStore(), or pass an object with the four functions of EntityStore';
  throw refuse('store', `an EntityStore`, store, { where, hint });
}

/** Refuses a logger that lacks one of the four functions; `undefined` = none. */
export function checkLogger(logger: unknown, argument: string, where = '', needed: readonly string[] = ['debug', 'info', 'warn', 'error']): void {
  if (logger === undefined || hasMethods(logger, needed)) return;
  throw refuse(argument, `a logger with the functions ${needed.join(', ')}`, logger, { where, hint: 'console is one' });
}

/** Refuses names that an object of options does not have, and says which one may have been meant. */
export function checkNames(options: object, known: readonly string[], argument: string): void {
  for (const name of Object.keys(options)) {
    if (known.includes(name)) continue;
    const near = nearest(name, known);
    const message = `${argument} has no option ${JSON.stringify(name)}; ${near === null ? `it has ${known.join(', ')}` : `did you mean ${near}?`}`;
    const fields = { argument: `${argument}.${name}`, expected: known.join(', '), received: name };
    throw builtinError(TypeError, message, { hfCode: 'HF_INVALID_ARGUMENT', fields });
  }
}

/** The name that one is most probably a misspelling of; `null` when none is near. */
function nearest(name: string, known: readonly string[]): string | null {
  const ranked = known.map((candidate) => ({ candidate, far: distance(name.toLowerCase(), candidate.toLowerCase()) }));
  const best = ranked.reduce((a, b) => (b.far < a.far ? b : a));
  return best.far <= Math.max(2, best.candidate.length / 2.5) ? best.candidate : null;
}

/** In how many insertions, deletions and replacements one name becomes the other. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min((row[j] as number) + 1, (next[j - 1] as number) + 1, (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length] as number;
}

function hasMethods(value: unknown, names: readonly string[]): boolean {
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null) return false;
  return names.every((name) => typeof (value as Record<string, unknown>)[name] === 'function');
}

function hasText(value: object): boolean {
  try {
    return JSON.stringify(value)?.startsWith('{') ?? false;
  } catch {
    return false;
  }
}

function of(method: string, kind: string): { where: string; kind: string } {
  return { where: `${method} of kind "${kind}": `, kind };
}

function notRun(error: HoldfastError): HoldfastError {
  return noteFailure(error, { stage: 'read', applied: false, pending: false });
}

/** Of what type a value is; what it is is not told. */
function typeName(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return 'an array';
  if (types.isPromise(value)) return 'a Promise';
  if (types.isDate(value)) return Number.isNaN(value.getTime()) ? 'an invalid Date' : 'a Date';
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value);
  if (typeof value === 'string') return isBlank(value) ? 'a blank string' : 'a string';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}
