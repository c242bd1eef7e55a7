// Derivers: the union of their names, in order, whatever one of them does (R42, A33).
import { expect, test } from 'vitest';
import { createChangeDeriverRegistry } from '../../src-js/entity/derivers';
import type { EntityChangeDeriver, EntityChanged } from '../../src-js/entity/types';

const change = (kind: string): EntityChanged => ({
  kind,
  id: '1',
  prev: null,
  next: {},
  delta: {},
  changedFields: [],
  actor: { type: 'system', id: 'system' },
  occurredAt: '2026-01-01T00:00:00.000Z',
});

test('has own enumerable members, which work without the object', () => {
  const registry = createChangeDeriverRegistry();
  expect(Object.keys(registry)).toEqual(['register', 'derive', 'payload', 'kinds']);
  const { register, derive, payload, kinds } = registry;
  register({ kind: 'pod', derive: () => ['pod.changed'], toPayload: ({ id }) => ({ id }) });
  expect([derive(change('pod')), payload(change('pod')), kinds()]).toEqual([['pod.changed'], { id: '1' }, ['pod']]);
});

test('joins the names of a kind in the order of registration, each once', () => {
  const registry = createChangeDeriverRegistry();
  registry.register({ kind: 'pod', derive: () => ['b', 'a', 'b'] });
  registry.register({ kind: 'other', derive: () => ['x'] });
  registry.register({ kind: 'pod', derive: ({ id }) => ['a', `c${id}`] });
  expect(registry.derive(change('pod'))).toEqual(['b', 'a', 'c1']);
  expect(registry.derive(change('unknown'))).toEqual([]);
  expect(registry.derive(change('constructor'))).toEqual([]);
  expect(registry.kinds()).toEqual(['pod', 'other']);
});

test('skips a deriver that throws or gives no array, and names that are none', async () => {
  const registry = createChangeDeriverRegistry();
  const bad: unknown[] = [
    () => {
      throw new Error('mine');
    },
    () => 'text',
    () => undefined,
    () => new Set(['set']),
    () => Promise.reject(new Error('mine')),
    () => ['', 7, null, undefined, 'good'],
  ];
  for (const derive of bad) registry.register({ kind: 'pod', derive: derive as EntityChangeDeriver });
  expect(registry.derive(change('pod'))).toEqual(['good']);
  // The rejection of the asynchronous one would end the test run here.
  await new Promise((resolve) => setImmediate(resolve));
});

test('the same function twice counts once', () => {
  const registry = createChangeDeriverRegistry();
  let calls = 0;
  const derive = () => [`${++calls}`];
  registry.register({ kind: 'pod', derive });
  registry.register({ kind: 'pod', derive });
  expect(registry.derive(change('pod'))).toEqual(['1']);
});

test('a kind has one payload mapper', () => {
  const registry = createChangeDeriverRegistry();
  const toPayload = () => ({ mine: true });
  registry.register({ kind: 'pod', derive: () => ['a'] });
  expect(registry.payload(change('pod'))).toBeUndefined();
  registry.register({ kind: 'pod', derive: () => ['b'], toPayload });
  registry.register({ kind: 'pod', derive: () => ['c'], toPayload });
  registry.register({ kind: 'pod', derive: () => ['d'] });
  expect(() => registry.register({ kind: 'pod', derive: () => ['never'], toPayload: () => ({}) })).toThrow(
    expect.objectContaining({
      message: 'registerChangeDeriver: a payload mapper is already registered for kind "pod"',
      hfCode: 'HF_ENTITY_DERIVER_CONFLICT',
      kind: 'pod',
    }) as Error,
  );
  expect(registry.payload(change('pod'))).toEqual({ mine: true });
  expect(registry.derive(change('pod'))).toEqual(['a', 'b', 'c', 'd']);
});

test('what the mapper throws comes through', () => {
  const registry = createChangeDeriverRegistry();
  const thrown = new Error('mine');
  const toPayload = () => {
    throw thrown;
  };
  registry.register({ kind: 'pod', derive: () => [], toPayload });
  expect(() => registry.payload(change('pod'))).toThrow(thrown);
});

test.each(['', ' ', undefined, 7])('refuses the kind %j', (kind) => {
  const registry = createChangeDeriverRegistry();
  expect(() => registry.register({ kind: kind as string, derive: () => [] })).toThrow(
    expect.objectContaining({
      message: 'registerChangeDeriver: `kind` must be a non-empty string',
      hfCode: 'HF_ENTITY_DERIVER_INVALID',
    }) as Error,
  );
  expect(registry.kinds()).toEqual([]);
});

test('refuses what is no function', () => {
  const registry = createChangeDeriverRegistry();
  expect(() => registry.register({ kind: 'pod', derive: 'x' as never })).toThrow(/^derive must be a function/);
  expect(() => registry.register({ kind: 'pod', derive: () => [], toPayload: 'x' as never })).toThrow(/^toPayload must be a function/);
  expect(registry.kinds()).toEqual([]);
});
