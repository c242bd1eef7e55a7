// Times of callers: what is no time is refused before anything happens (R6).
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';

import { checkTime } from '../../src-js/lifecycle/time';

const iso = (value: unknown): string => new Date(checkTime(value, 'at')).toISOString();

describe('times', () => {
  test.each([
    ['2026-05-31T12:00:00Z', '2026-05-31T12:00:00.000Z'],
    ['2026-05-31t12:00:00.5z', '2026-05-31T12:00:00.500Z'],
    ['2026-05-31 12:00:00.123999+02:00', '2026-05-31T10:00:00.123Z'],
    ['2026-05-31T12:00:00-05:30', '2026-05-31T17:30:00.000Z'],
    ['0000-01-01T00:00:00Z', '0000-01-01T00:00:00.000Z'],
    ['0099-12-31T00:00:00Z', '0099-12-31T00:00:00.000Z'],
    ['2024-02-29T23:59:59.9999Z', '2024-02-29T23:59:59.999Z'],
    [0, '1970-01-01T00:00:00.000Z'],
    [1.9, '1970-01-01T00:00:00.001Z'],
    [-0.5, '1969-12-31T23:59:59.999Z'],
    [new Date(5), '1970-01-01T00:00:00.005Z'],
    [runInNewContext('new Date(6)'), '1970-01-01T00:00:00.006Z'],
  ])('%s is %s', (value, expected) => {
    expect(iso(value)).toBe(expected);
  });

  test.each([
    '2026-02-30T00:00:00Z',
    '2025-02-29T00:00:00Z',
    '2026-13-01T00:00:00Z',
    '2026-01-01T24:00:00Z',
    '2026-01-01T00:60:00Z',
    '2026-01-01T00:00:60Z',
    '2026-01-01T00:00:00',
    '2026-01-01',
    '2026-01-01T00:00:00+24:00',
    '0000-01-01T00:00:00+00:01',
    '9999-12-31T23:59:59-00:01',
    'yesterday',
    '',
    NaN,
    Infinity,
    -62_167_219_200_001,
    253_402_300_800_000,
    new Date(NaN),
    null,
    true,
    {},
    5n,
  ])('%s is refused', (value) => {
    expect(() => checkTime(value, 'at')).toThrow(/^at must be a Date, milliseconds since the epoch or an RFC 3339 text/);
  });
});
