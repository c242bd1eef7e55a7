// What the history answers: A20 to A22, R25 to R28, W10, W11, W14, W15, pages, times in a state, retention.
import { type EntityStoreOptions, type NativeEntityStore } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { historyOf, openStore, rejection, tempDir, until, world } from './support';

const T0 = Date.parse('2026-01-01T00:00:00.000Z');
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const STATUS = { kind: 'pod', entityId: '1', field: 'status' };

const TARGETS: { name: string; make: (options?: EntityStoreOptions) => NativeEntityStore }[] = [
  { name: 'memory', make: (options) => openStore({ memory: true }, options) },
  { name: 'a file', make: (options) => openStore({ path: `${tempDir()}/e.db` }, options) },
];

describe.each(TARGETS)('on $name', ({ make }) => {
  function timed(options: EntityStoreOptions = {}) {
    let now = T0;
    const store = make({ clock: () => new Date(now), ...options });
    const at = (ms: number): void => void (now = ms);
    const count = (windowMs: number, of = now) => store.transitionCount({ ...STATUS, windowMs, now: new Date(of) });
    return { store, at, count, ...world({ store }) };
  }

  test('A20, R25, R26: since when it is what it is; unknown fields and absent entities have no answer', async () => {
    const { put, at, handle } = timed();
    await put('1', { status: 'online' });
    at(T0 + HOUR);
    await put('1', { status: 'offline' });
    expect(await handle.inStateSince('1', 'status')).toEqual(new Date(T0 + HOUR));
    at(T0 + HOUR + MINUTE);
    expect(await handle.inStateForMs('1', 'status')).toBe(MINUTE);
    expect(await handle.inStateSince('1', 'unknown')).toBeNull();
    expect(await handle.inStateSince('2', 'status')).toBeNull();
    expect([await handle.inStateForMs('1', 'unknown'), await handle.inStateForMs('2', 'status')]).toEqual([0, 0]);
  });

  test('R25: it is the latest entry into the current value, whatever came after; a time in the future is 0 ms ago', async () => {
    const { put, at, handle, owner } = timed();
    for (const [minute, status] of [[0, 'a'], [1, 'b'], [2, 'a'], [3, 'c']] as const) {
      at(T0 + minute * MINUTE);
      await put('1', { status });
    }
    owner.set('1', { status: 'a' });
    expect(await handle.inStateSince('1', 'status')).toEqual(new Date(T0 + 2 * MINUTE));
    owner.set('1', { status: 'never' });
    expect(await handle.inStateSince('1', 'status')).toBeNull();
    at(T0 + HOUR);
    await put('1', { status: 'soon' });
    at(T0);
    expect(await handle.inStateForMs('1', 'status')).toBe(0);
  });

  test('R20, R25: a removal has no rows, and a re-creation starts anew', async () => {
    const { put, drop, at, handle, count } = timed();
    await put('1', { status: 'a' });
    at(T0 + MINUTE);
    await drop('1');
    expect(await handle.inStateSince('1', 'status')).toBeNull();
    expect(await count(HOUR)).toBe(1);
    at(T0 + 2 * MINUTE);
    await put('1', { status: 'a' });
    expect(await handle.inStateSince('1', 'status')).toEqual(new Date(T0 + 2 * MINUTE));
    expect(await count(HOUR)).toBe(2);
  });

  test('A21, R27: the window is inclusive, has no end, and may be anything but NaN', async () => {
    const { put, count, handle, store } = timed();
    await put('1', { status: 'a' });
    expect(await count(1000, T0 + 1000)).toBe(1);
    expect(await count(999, T0 + 1000)).toBe(0);
    expect(await count(1000.9, T0 + 1001)).toBe(1);
    expect(await count(0, T0)).toBe(1);
    expect(await count(0, T0 - HOUR)).toBe(1);
    expect(await count(-1, T0)).toBe(0);
    expect(await count(-HOUR, T0 - HOUR)).toBe(1);
    expect(await count(Infinity)).toBe(1);
    expect(await count(-Infinity)).toBe(0);
    expect(await count(Number.MAX_VALUE)).toBe(1);
    expect(await handle.transitionCount({ id: '1', field: 'status', windowMs: Infinity })).toBe(1);
    for (const windowMs of [NaN, '5' as never, undefined as never]) {
      const errors = [rejection(handle.transitionCount({ id: '1', field: 'status', windowMs })), rejection(count(windowMs))];
      for (const error of await Promise.all(errors)) {
        expect(error).toBeInstanceOf(RangeError);
        expect(error).toMatchObject({ hfCode: 'HF_ENTITY_WINDOW_INVALID', message: 'transitionCount: windowMs must be a number' });
      }
    }
    expect(await store.transitionCount({ ...STATUS, field: 'x', windowMs: Infinity, now: new Date() })).toBe(0);
  });

  test('A22: counts flips', async () => {
    const { put, at, count } = timed();
    for (const minute of [0, 1, 2]) {
      at(T0 + minute * MINUTE);
      await put('1', { status: `s${minute}` });
    }
    expect(await count(10 * MINUTE)).toBe(3);
    at(T0 + HOUR + 2 * MINUTE - 30_000);
    await put('1', { status: 'x' });
    expect(await count(5 * MINUTE, T0 + HOUR + 2 * MINUTE)).toBe(1);
  });

  test('R28: rows of one change have one time; times of an entity increase although the clock stands still or goes back', async () => {
    const { put, at, store, handle } = timed();
    await put('1', { status: 'a', b: 1, c: 1 });
    await put('1', { status: 'b', b: 2, c: 1 });
    at(T0 - HOUR);
    await put('1', { status: 'a', b: 2, c: 1 });
    await put('2', { status: 'a' });
    expect((await historyOf(store, '1')).slice(-3)).toEqual(['b: 1 -> 2', 'status: a -> b', 'status: b -> a']);
    const { rows } = await store.history({ kind: 'pod', entityId: '1' });
    expect(rows.map((row) => row.at.getTime())).toEqual(Array(6).fill(T0));
    expect(await handle.inStateSince('2', 'status')).toEqual(new Date(T0 - HOUR));
    expect(await store.transitionCount({ ...STATUS, windowMs: 0, now: new Date(T0) })).toBe(3);
  });

  test('W10: of a masked field, the latest row says since when', async () => {
    const { put, at, handle, secrets, owner } = timed();
    secrets.register('r', ['s3cr3t-value']);
    await put('1', { token: 'public' });
    at(T0 + MINUTE);
    await put('1', { token: 's3cr3t-value' }, { runId: 'r' });
    expect(owner.get('1')).toEqual({ token: 's3cr3t-value' });
    expect(await handle.inStateSince('1', 'token')).toEqual(new Date(T0 + MINUTE));
  });

  test('W11: what was recorded masked stays masked in the next change without its run', async () => {
    const { put, store, secrets, events } = timed();
    secrets.register('r', ['s3cr3t-value']);
    await put('1', { token: 's3cr3t-value', n: 1 }, { runId: 'r' });
    await put('1', { token: 'rotated', n: 1 });
    expect(events[1]!.prev).toEqual({ token: '****', n: 1 });
    expect(await historyOf(store, '1')).toEqual(['n: null -> 1', 'token: null -> ****', 'token: **** -> rotated']);
    await put('1', { token: 'again', n: 1 });
    expect(events[2]!.prev).toEqual({ token: 'rotated', n: 1 });
  });

  test('W14, W15, R30: values match by what they are: key order, long texts, numbers and their texts, dates, odd characters', async () => {
    const { put, at, handle, owner } = timed();
    const values: [written: unknown, read: unknown][] = [
      [{ a: 1, b: [{ x: 1, y: 2 }] }, { b: [{ y: 2, x: 1 }], a: 1 }],
      ['x'.repeat(300_000), 'x'.repeat(300_000)],
      [42, '42'],
      ['true', true],
      [new Date(5), new Date(5).toISOString()],
      ['a\0b', 'a\0b'],
      ['\ud800 alone', '\ud800 alone'],
      ['', ''],
      [1e21, 1e21],
      [10n, '10'],
    ];
    for (const [index, [written, read]] of values.entries()) {
      at(T0 + index * MINUTE);
      await put('1', { v: written });
      owner.set('1', { v: read });
      expect.soft(await handle.inStateSince('1', 'v'), `value ${index}`).toEqual(new Date(T0 + index * MINUTE));
    }
    at(T0 + HOUR);
    await put('1', { v: null });
    owner.set('1', {});
    expect(await handle.inStateSince('1', 'v')).toEqual(new Date(T0 + HOUR));
  });

  test('a field\'s own history is not another\'s: ids and names with separators, quotes and NUL', async () => {
    const { put, handle } = timed();
    for (const [id, field] of [['a', 'b:c'], ['a:b', 'c'], ["x'; --", '"'], ['\0', '\0'], ['', '']] as const) {
      await put(id, { [field]: 1 });
      await put(id, { [field]: 2 });
      expect.soft(await handle.transitionCount({ id, field, windowMs: Infinity }), `${id} ${field}`).toBe(2);
    }
  });

  test('pages of the history are newest first, follow one another, and stay within their bounds', async () => {
    const { put, at, store } = timed();
    for (let n = 0; n < 25; n++) {
      at(T0 + Math.floor(n / 3) * MINUTE);
      await put('1', { n, even: n % 2 });
    }
    const found: string[] = [];
    const sizes: number[] = [];
    let cursor: string | undefined;
    do {
      const page = await store.history({ kind: 'pod', entityId: '1', limit: 7, cursor });
      found.push(...page.rows.map((row) => `${row.field}=${row.toValue}`));
      sizes.push(page.rows.length);
      cursor = page.cursor ?? undefined;
      // What arrives meanwhile is not on the later pages.
      if (sizes.length === 1) await put('1', { n: 99, even: 0 });
    } while (cursor !== undefined);
    const all = Array.from({ length: 25 }, (_, n) => [`even=${n % 2}`, `n=${n}`]).flat().reverse();
    expect(found).toEqual(all);
    expect(sizes.slice(0, -1)).toEqual(Array(7).fill(7));
    const within = await store.history({ kind: 'pod', entityId: '1', field: 'n', from: new Date(T0 + MINUTE), to: new Date(T0 + 2 * MINUTE) });
    expect(within.rows.map((row) => row.toValue)).toEqual(['5', '4', '3']);
    expect(within.cursor).toBeNull();
    expect(within.rows[0]).toEqual({ id: `${within.rows[0]!.changeId}.1`, field: 'n', fromValue: '4', toValue: '5', masked: false, changeId: expect.any(String), at: new Date(T0 + MINUTE) });
    for (const bad of [{ limit: 0 }, { limit: 10_001 }, { limit: 1.5 }, { cursor: "1.1'" }, { cursor: '' }]) {
      expect(await rejection(store.history({ kind: 'pod', entityId: '1', ...bad }))).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
    }
  });

  test('F7: for how long a field had which value, and whether it flaps', async () => {
    const { put, at, store } = timed();
    const times = (from: number, to?: number) =>
      store.timeInState({ ...STATUS, from: new Date(T0 + from * MINUTE), to: to === undefined ? undefined : new Date(T0 + to * MINUTE) });
    for (const [minute, status] of [[0, 'a'], [10, 'b'], [15, 'a']] as const) {
      at(T0 + minute * MINUTE);
      await put('1', { status });
    }
    expect(await times(0, 20)).toEqual([{ value: 'a', ms: 15 * MINUTE }, { value: 'b', ms: 5 * MINUTE }]);
    expect(await times(5, 12)).toEqual([{ value: 'a', ms: 5 * MINUTE }, { value: 'b', ms: 2 * MINUTE }]);
    expect(await times(-5, 5)).toEqual([{ value: 'a', ms: 5 * MINUTE }]);
    expect(await times(11, 12)).toEqual([{ value: 'b', ms: MINUTE }]);
    expect(await times(-9, -5)).toEqual([]);
    at(T0 + 16 * MINUTE);
    expect(await times(14)).toEqual([{ value: 'b', ms: MINUTE }, { value: 'a', ms: MINUTE }]);
    expect(await store.isFlapping({ ...STATUS, count: 2, windowMs: 6 * MINUTE })).toBe(true);
    expect(await store.isFlapping({ ...STATUS, count: 3, windowMs: 6 * MINUTE })).toBe(false);
    expect(await rejection(store.isFlapping({ ...STATUS, count: 0, windowMs: 1 }))).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
  });

  test('W13: retention by age keeps the newest row of every field, in more than one batch', async () => {
    const { put, at, store, handle, count } = timed({ retention: { maxAgeMs: HOUR } });
    await put('quiet', { status: 'only' });
    await Promise.all(Array.from({ length: 2600 }, (_, n) => put('1', { status: `s${n}`, still: 1 })));
    at(T0 + 2 * HOUR);
    await put('1', { status: 'young', still: 1 });
    expect(await store.prune()).toEqual({ deleted: 2600 });
    expect(await historyOf(store, '1')).toEqual(['still: null -> 1', 'status: s2599 -> young']);
    expect(await historyOf(store, 'quiet')).toEqual(['status: null -> only']);
    expect(await handle.inStateSince('quiet', 'status')).toEqual(new Date(T0));
    expect(await count(Infinity)).toBe(1);
    expect(await store.prune(new Date(T0 + 100 * HOUR))).toEqual({ deleted: 0 });
  });

  test('W13: retention by number, by itself', async () => {
    const { put, store, count } = timed({ retention: { maxRowsPerField: 2, everyMs: 20 } });
    for (let n = 0; n < 10; n++) await put('1', { status: `s${n}`, other: n });
    await until(async () => (await count(Infinity)) === 2);
    expect((await historyOf(store, '1')).sort()).toEqual(['other: 7 -> 8', 'other: 8 -> 9', 'status: s7 -> s8', 'status: s8 -> s9']);
  });

  test('what a field was before its entity was removed and made anew is no gap', async () => {
    const { put, drop, store, lines } = timed();
    await put('1', { n: 1, note: 'hello' });
    await drop('1');
    await put('1', { n: 2 });
    await put('1', { n: 2, note: 'again' });
    expect((await historyOf(store, '1')).slice(2)).toEqual(['n: null -> 2', 'note: null -> again']);
    expect((await store.stats()).gaps).toBe(0);
    expect(lines.filter((line) => line.includes('gap'))).toEqual([]);
  });

  test('stats count rows and gaps', async () => {
    const { put, store, owner, lines } = timed();
    await put('1', { a: 1, b: 1 });
    expect(await store.stats()).toMatchObject({ appended: 2, gaps: 0, recovered: 0, redelivered: 0, clockSkewMs: null });
    owner.set('1', { a: 5, b: 1 });
    await put('1', { a: 6, b: 1 });
    expect(await store.stats()).toMatchObject({ appended: 3, gaps: 1 });
    expect(lines.filter((line) => /pod:1 has a gap/.test(line)).length + (await store.stats()).gaps).toBeGreaterThan(0);
  });
});
