// Programs decide by class, code and fields; so these must be the same wherever the error was made.
import { readFileSync } from 'node:fs';
import { createContext, runInContext } from 'node:vm';
import {
  ERROR_CODES,
  HoldfastError,
  RuntimeStaleEvidenceError,
  RuntimeStoreBatchPendingError,
  RuntimeStorePathError,
  VersionedJsonStoreError,
} from 'holdfast';
import { describe, expect, it } from 'vitest';
// A second copy of the module beside the package's own: what a bundler or a test runner makes of it.
import * as secondCopy from '../../src-js/errors';

const { fromFailure, isFailure } = secondCopy;

describe('error codes', () => {
  it('are those of the engine, in its order', () => {
    const source = readFileSync(new URL('../../src/error.rs', import.meta.url), 'utf8');
    const codes = Array.from(source.matchAll(/= "(HF_[A-Z_]+)",/g), (match) => match[1]);
    expect(codes.length).toBeGreaterThan(20);
    expect([...ERROR_CODES]).toEqual(codes);
  });
});

describe('error classes', () => {
  const made: [string, HoldfastError, string, object][] = [
    ['HoldfastError', new HoldfastError('m', { hfCode: 'HF_BUSY' }), 'HF_BUSY', {}],
    [
      'VersionedJsonStoreError',
      new VersionedJsonStoreError('m', 'invalid_json', '/q'),
      'HF_RUNTIME_INVALID_JSON',
      { reason: 'invalid_json', quarantinePath: '/q' },
    ],
    [
      'RuntimeStaleEvidenceError',
      new RuntimeStaleEvidenceError('m', 'run_mismatch', 'heartbeat', null),
      'HF_RUNTIME_STALE_EVIDENCE',
      { reason: 'run_mismatch', evidenceKind: 'heartbeat', runId: null },
    ],
    ['RuntimeStorePathError', new RuntimeStorePathError('m', '../x'), 'HF_RUNTIME_PATH_ESCAPES', { relativePath: '../x' }],
    [
      'RuntimeStoreBatchPendingError',
      new RuntimeStoreBatchPendingError('m', 'batch-1', 'unknown'),
      'HF_RUNTIME_BATCH_PENDING',
      { batchId: 'batch-1', outcome: 'unknown' },
    ],
  ];

  it.each(made)('%s has name, message, codes and fields', (name, error, hfCode, fields) => {
    expect(error).toBeInstanceOf(Error);
    expect(error).toBeInstanceOf(HoldfastError);
    expect(error).toMatchObject({ message: 'm', code: hfCode, hfCode, ...fields });
    expect(error.name).toBe(name);
    expect(String(error)).toBe(`${name}: m`);
    expect(error.stack).toContain('errors.test');
    expect(Object.keys(error).sort()).toEqual(['code', 'hfCode', ...Object.keys(fields)].sort());
  });

  it.each(made)('%s is an instance of its own class and of no sibling', (name, error) => {
    const classes = { VersionedJsonStoreError, RuntimeStaleEvidenceError, RuntimeStorePathError, RuntimeStoreBatchPendingError };
    for (const [other, errorClass] of Object.entries(classes)) expect(error instanceof errorClass).toBe(other === name);
  });

  it.each([
    ['invalid_json', 'HF_RUNTIME_INVALID_JSON'],
    ['invalid_envelope', 'HF_RUNTIME_INVALID_ENVELOPE'],
    ['invalid_data', 'HF_RUNTIME_INVALID_DATA'],
    ['future_schema', 'HF_FORMAT_TOO_NEW'],
  ] as const)('the reason %s has the code %s', (reason, hfCode) => {
    expect(new VersionedJsonStoreError('m', reason, null)).toMatchObject({ hfCode, code: hfCode, reason, quarantinePath: null });
  });

  it('keeps cause and fields, and no field hides a property of the error', () => {
    const cause = new TypeError('inner');
    const error = new HoldfastError('m', {
      hfCode: 'HF_IO',
      code: 'EACCES',
      cause,
      fields: { path: '/x', errno: -13, message: 'other', name: 'Other', code: 'other', stack: 'other', toString: 1 },
    });
    expect(error).toMatchObject({ message: 'm', code: 'EACCES', hfCode: 'HF_IO', path: '/x', errno: -13 });
    expect(error.cause).toBe(cause);
    expect(String(error)).toBe('HoldfastError: m');
    expect('cause' in new HoldfastError('m', { hfCode: 'HF_IO' })).toBe(false);
    expect(Object.hasOwn(new HoldfastError('m', { hfCode: 'HF_IO', cause: undefined }), 'cause')).toBe(true);
  });
});

describe('instanceof', () => {
  it('works between two copies of the package, both ways', () => {
    const theirs = new secondCopy.RuntimeStorePathError('m', '../x');
    expect(secondCopy.RuntimeStorePathError === RuntimeStorePathError).toBe(false);
    expect(theirs instanceof RuntimeStorePathError).toBe(true);
    expect(theirs instanceof HoldfastError).toBe(true);
    expect(theirs instanceof VersionedJsonStoreError).toBe(false);
    expect(new RuntimeStorePathError('m', '../x') instanceof secondCopy.HoldfastError).toBe(true);
  });

  it('leaves a subclass of the caller its own meaning', () => {
    class OwnError extends HoldfastError {}
    const own = new OwnError('m', { hfCode: 'HF_IO' });
    expect(own instanceof OwnError).toBe(true);
    expect(own instanceof HoldfastError).toBe(true);
    expect(new HoldfastError('m', { hfCode: 'HF_IO' }) instanceof OwnError).toBe(false);
    expect(own instanceof VersionedJsonStoreError).toBe(false);
  });

  it('is false for everything else', () => {
    const foreign = runInContext('new Error("m")', createContext({})) as unknown;
    for (const value of [null, undefined, 'HoldfastError', 1, {}, new Error('m'), foreign, HoldfastError, { name: 'HoldfastError' }]) {
      expect((value as object) instanceof HoldfastError).toBe(false);
    }
  });
});

describe('failures of the addon', () => {
  const failure = (className: string, hfCode: string, fields: Record<string, unknown> = {}, code = hfCode): secondCopy.Failure => ({
    class: className,
    code,
    hfCode,
    message: 'what happened',
    fields,
  });

  it('become the class that they name, with its fields', () => {
    const store = fromFailure(failure('VersionedJsonStoreError', 'HF_FORMAT_TOO_NEW', { reason: 'future_schema', quarantinePath: null }));
    expect(store).toBeInstanceOf(VersionedJsonStoreError);
    expect(store).toMatchObject({ message: 'what happened', reason: 'future_schema', quarantinePath: null, hfCode: 'HF_FORMAT_TOO_NEW' });

    const path = fromFailure(failure('RuntimeStorePathError', 'HF_RUNTIME_PATH_ESCAPES', { relativePath: '../x', path: '/dir' }));
    expect(path).toBeInstanceOf(RuntimeStorePathError);
    expect(path).toMatchObject({ relativePath: '../x', path: '/dir', code: 'HF_RUNTIME_PATH_ESCAPES' });

    const pending = fromFailure(failure('RuntimeStoreBatchPendingError', 'HF_RUNTIME_BATCH_PENDING', { batchId: 'b', outcome: 'unknown' }));
    expect(pending).toBeInstanceOf(RuntimeStoreBatchPendingError);
    expect(pending).toMatchObject({ batchId: 'b', outcome: 'unknown' });
    expect(fromFailure(failure('RuntimeStoreBatchPendingError', 'HF_RUNTIME_BATCH_PENDING', { batchId: 'b' }))).toMatchObject({
      outcome: undefined,
    });
  });

  it("keep Node's code beside the stable one", () => {
    const error = fromFailure(failure('HoldfastError', 'HF_DISK_FULL', { path: '/x', syscall: 'write', errno: -28 }, 'ENOSPC'));
    expect(error).toMatchObject({ name: 'HoldfastError', code: 'ENOSPC', hfCode: 'HF_DISK_FULL', path: '/x', syscall: 'write', errno: -28 });
  });

  it('of a newer addon still give an error', () => {
    const error = fromFailure(failure('SomethingNewError', 'HF_SOMETHING_NEW', { detail: 1 }));
    expect(error).toBeInstanceOf(HoldfastError);
    expect(error).toMatchObject({ name: 'HoldfastError', hfCode: 'HF_SOMETHING_NEW', code: 'HF_SOMETHING_NEW', detail: 1 });
  });

  it('are told apart from results', () => {
    expect(isFailure(failure('HoldfastError', 'HF_IO'))).toBe(true);
    const whole = failure('HoldfastError', 'HF_IO');
    for (const key of Object.keys(whole)) expect(isFailure({ ...whole, [key]: undefined })).toBe(false);
    for (const value of [null, undefined, 'text', 1, true, [], {}, new Error('m'), { code: 'HF_IO', message: 'm' }]) {
      expect(isFailure(value)).toBe(false);
    }
  });
});
