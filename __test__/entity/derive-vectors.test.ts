// The derivation of a change (R14 to R17, R20, R31, R35, R36). The engine's own derivation is held to the same vectors.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { deriveChange, type ChangeInput, type DerivedChange } from '../../src-js/entity/derive';
import { compileSecrets } from '../../src-js/entity/mask';
import { snapshotState } from '../../src-js/entity/snapshot';

interface Vector {
  name: string;
  /** JSON texts, or null for an entity that does not exist. */
  prev: string | null;
  next: string | null;
  known: string[] | null;
  secrets: string[];
  expect: DerivedChange | null;
}

const vectors = JSON.parse(readFileSync(path.join(__dirname, '../vectors/entity-derive.json'), 'utf8')) as Vector[];

type State = Record<string, unknown>;

function derive(prev: State | null, next: State | null, secrets: string[] = [], more: Partial<ChangeInput> = {}): DerivedChange | null {
  const { isEmpty, maskDeep, maskText } = compileSecrets(secrets);
  return deriveChange({ prev, next, compat: 'holdfast', ...(isEmpty ? {} : { mask: maskDeep, maskText }), ...more });
}

const parsed = (text: string | null): State | null => (text === null ? null : (JSON.parse(text) as State));

describe('vectors', () => {
  it('are there', () => {
    expect(vectors.length).toBeGreaterThan(90);
    expect(new Set(vectors.map(({ name }) => name)).size).toBe(vectors.length);
  });

  it.each(vectors)('$name', ({ prev, next, known, secrets, expect: expected }) => {
    const change = derive(parsed(prev), parsed(next), secrets, { known: known && new Set(known) });
    // As text, so that the order of keys counts, and that -0 is 0.
    expect(JSON.stringify(change)).toBe(JSON.stringify(expected));
    const ofSnapshots = derive(snapshotState(parsed(prev)), snapshotState(parsed(next)), secrets, { known: known && new Set(known) });
    expect(JSON.stringify(ofSnapshots)).toBe(JSON.stringify(expected));
  });
});

describe('values that are no JSON', () => {
  it('keeps undefined in delta, and has a row for it', () => {
    const change = derive({ a: 1 }, { a: undefined });
    expect(change?.delta).toStrictEqual({ a: undefined });
    expect(change?.rows).toEqual([{ field: 'a', fromValue: '1', toValue: 'null', canonical: 'null', masked: false }]);
  });

  it('sees Dates, Maps and bigints change', () => {
    const prev = { at: new Date(0), map: new Map([['a', 1]]), n: 1n, same: new Set([1, 2]) };
    const next = { at: new Date(1), map: new Map([['a', 2]]), n: 2n, same: new Set([2, 1]) };
    const change = derive(prev, next);
    expect(change?.rows.map(({ field, toValue, canonical }) => [field, toValue, canonical])).toEqual([
      ['at', '"1970-01-01T00:00:00.001Z"', '"1970-01-01T00:00:00.001Z"'],
      ['map', '{}', '{"$map":[["a",2]]}'],
      ['n', '2', '"2"'],
    ]);
  });

  it('masks inside Maps and in what toJSON says', () => {
    const change = derive(null, { map: new Map([['k', 's3cr3t']]), url: new URL('https://s3cr3t@x.org/') }, ['s3cr3t']);
    expect(change?.rows.map(({ canonical }) => canonical)).toEqual(['{"$map":[["k","****"]]}', '"https://****@x.org/"']);
    // The field's text of a Map is {} either way.
    expect(change?.rows.map(({ masked }) => masked)).toEqual([false, true]);
    expect(change?.delta).toEqual({ map: new Map([['k', '****']]), url: 'https://****@x.org/' });
  });

  it('leaves the states alone', () => {
    const prev = Object.freeze({ token: Object.freeze(['s3cr3t']), s3cr3t: 1 });
    const next = Object.freeze({ token: Object.freeze(['other']), s3cr3t: 1 });
    const change = derive(prev, next, ['s3cr3t']);
    expect(change?.prev).toEqual({ token: ['****'], '****': 1 });
    expect(prev).toEqual({ token: ['s3cr3t'], s3cr3t: 1 });
  });

  it('has a change for a cyclic field, once it is a snapshot', () => {
    const next: State = { n: 1 };
    next['self'] = next;
    const change = derive({ n: 1 }, snapshotState(next));
    expect(change?.rows).toEqual([
      { field: 'self', fromValue: 'null', toValue: '[unserializable]', canonical: '"[unserializable]"', masked: false },
    ]);
    expect(derive(snapshotState(next), snapshotState(next))).toBeNull();
  });

  it('masks with the functions of a registry that somebody wrote', () => {
    const mask = (value: unknown): unknown => (value === 'x' ? 'M' : value);
    const change = derive({ a: 'y' }, { a: 'x' }, [], { mask, maskText: (text) => text.toUpperCase() });
    expect(change).toEqual({
      changedFields: ['A'],
      delta: { A: 'M' },
      prev: { A: 'y' },
      next: { A: 'M' },
      rows: [{ field: 'A', fromValue: 'y', toValue: 'M', canonical: '"M"', masked: true }],
    });
  });
});

describe("compat 'original'", () => {
  const original = (prev: State | null, next: State | null, secrets: string[] = [], more: Partial<ChangeInput> = {}): DerivedChange | null =>
    derive(prev, next, secrets, { compat: 'original', ...more });

  it('does not see existence, dates, or a rotation of secrets', () => {
    expect(original(null, {})).toBeNull();
    expect(original({ a: null }, null)).toBeNull();
    expect(original({ at: new Date(0) }, { at: new Date(1) })).toBeNull();
    expect(original({ t: 's3cr3t-1' }, { t: 's3cr3t-2' }, ['s3cr3t-1', 's3cr3t-2'])).toBeNull();
  });

  it('does not ignore unknown fields', () => {
    expect(original({ a: 1, updatedAt: 1 }, { a: 1 }, [], { known: new Set(['a']) })?.changedFields).toEqual(['updatedAt']);
  });

  it('hands the states themselves on when nothing is masked', () => {
    const prev = { a: 1 };
    const next = { a: 2 };
    const change = original(prev, next);
    expect(change?.prev).toBe(prev);
    expect(change?.next).toBe(next);
  });

  it('masks values and names, and derives from what is left', () => {
    expect(original({ 'key-s3cr3t': 1, b: 'x' }, { 'key-s3cr3t': 2, b: 's3cr3t' }, ['s3cr3t'])).toEqual({
      changedFields: ['b', 'key-****'],
      delta: { b: '****', 'key-****': 2 },
      prev: { b: 'x', 'key-****': 1 },
      next: { b: '****', 'key-****': 2 },
      rows: [
        { field: 'b', fromValue: 'x', toValue: '****', canonical: '"****"', masked: true },
        { field: 'key-****', fromValue: '1', toValue: '2', canonical: '2', masked: false },
      ],
    });
  });

  it('has a tombstone without delta and rows', () => {
    expect(original({ b: 1, a: 2, c: null }, null)).toEqual({ changedFields: ['a', 'b'], delta: {}, prev: { b: 1, a: 2, c: null }, next: null, rows: [] });
  });
});
