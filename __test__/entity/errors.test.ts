// Errors of the entity module are what their class says: real TypeErrors and RangeErrors with the codes of holdfast.
import { describe, expect, test } from 'vitest';
import { EntityValidationError, HoldfastError, builtinError, fromFailure } from '../../src-js/errors';

describe.each([TypeError, RangeError])('%o', (errorClass) => {
  test('made here has codes, fields and cause, and both classes', () => {
    const cause = new Error('below');
    const hfCode = 'HF_ENTITY_READ_INVALID';
    const error = builtinError(errorClass, 'bad', { hfCode, cause, fields: { kind: 'K', name: 'never' } });
    expect(error).toBeInstanceOf(errorClass);
    expect(error).toBeInstanceOf(HoldfastError);
    expect(error).not.toBeInstanceOf(EntityValidationError);
    expect(error).toMatchObject({ message: 'bad', name: errorClass.name, code: hfCode, hfCode, kind: 'K', cause });
    expect(error.stack).toMatch(/errors\.test/);
    expect(error.stack!.split('\n')[1]).not.toContain('builtinError');
  });

  test('comes from the addon, too', () => {
    const hfCode = 'HF_ENTITY_WINDOW_INVALID';
    const error = fromFailure({ class: errorClass.name, code: hfCode, hfCode, message: 'bad', fields: { kind: 'K' } });
    expect(error).toBeInstanceOf(errorClass);
    expect(error).toBeInstanceOf(HoldfastError);
    expect(error).toMatchObject({ message: 'bad', code: hfCode, hfCode, kind: 'K' });
  });
});

test('an ordinary TypeError is not one of holdfast', () => {
  expect(new TypeError('bad')).not.toBeInstanceOf(HoldfastError);
});

describe('EntityValidationError', () => {
  test('has the message of the first issue', () => {
    const issues = [{ message: 'too small' }, { message: 'too late' }];
    const error = new EntityValidationError(issues);
    const hfCode = 'HF_ENTITY_VALIDATION';
    expect(error).toMatchObject({ name: 'EntityValidationError', message: 'too small', hfCode, code: hfCode });
    expect(error.issues).toBe(issues);
    expect(error).toBeInstanceOf(HoldfastError);
  });

  test.each([[[]], [[null]], [[{}]], [[{ message: '' }]], [[{ message: 7 }]]])('has one of its own for %j', (issues) => {
    expect(new EntityValidationError(issues as never).message).toBe('the schema refused the value');
  });
});
