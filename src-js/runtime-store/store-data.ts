import { isBlank } from '../check';
import { VersionedJsonStoreError } from '../errors';
import type { VersionedJsonStore } from './versioned-json-store';

/**
 * Reads a store's data; content that cannot be used becomes an error.
 *
 * @throws {VersionedJsonStoreError} when the file's content is refused
 * @internal
 */
export async function readStoreData<T>(store: VersionedJsonStore<T>): Promise<T> {
  const result = await store.read();
  if (!result.ok) throw new VersionedJsonStoreError(result.message, result.reason, result.quarantinePath);
  return result.data;
}

/**
 * Tells whether `value`, from a file, can stand for an id or a time.
 *
 * @internal
 */
export function isFilledString(value: unknown): value is string {
  return typeof value === 'string' && !isBlank(value);
}

/**
 * Tells whether `value`, from a file, is a string or `null`.
 *
 * @internal
 */
export function isStringOrNull(value: unknown): value is string | null {
  return value === null || typeof value === 'string';
}
