/** Blob stores of holdfast's own. */
import { resolve } from 'node:path';
import { checkNonEmptyString, checkOneOf } from '../check';
import { call, callSync, native } from '../native';
import { checkFolder, checkInput, checkSwitch, checkText, checkTextOrUndefined } from './arguments';
import { checkBytes } from './blobs';
import type { NativeBlobStore, PostgresBlobStoreOptions, S3BlobStoreOptions, SqliteBlobStoreOptions } from './types';

/** Blobs as files of a folder. `put` is one rename-like step: a killed process leaves the whole blob, or none. */
export function createFileBlobStore(options: { root: string; id?: string }): NativeBlobStore {
  checkFolder(checkText(checkInput(options, 'options').root, 'root'), 'root');
  return over(options.id ?? 'fs', { kind: 'file', root: resolve(options.root) });
}

/** Blobs in one SQLite file, which processes may share. */
export function createSqliteBlobStore(options: SqliteBlobStoreOptions): NativeBlobStore {
  const { path, id = 'sqlite', networkFileSystem = 'refuse' } = checkInput(options, 'options');
  checkFolder(checkText(path, 'path'), 'path');
  checkOneOf(networkFileSystem, 'networkFileSystem', ['refuse', 'allow']);
  return over(id, { kind: 'sqlite', path: resolve(path), networkFileSystem });
}

/** Blobs in a table of PostgreSQL. */
export function createPostgresBlobStore(options: PostgresBlobStoreOptions): NativeBlobStore {
  const { connectionString, id = 'postgres', table, encoding = 'bytea' } = checkInput(options, 'options');
  checkNonEmptyString(connectionString, 'connectionString');
  checkTextOrUndefined(table, 'table');
  checkOneOf(encoding, 'encoding', ['bytea', 'base64-text']);
  return over(id, { kind: 'postgres', connection: { connectionString }, table, base64Text: encoding === 'base64-text' });
}

/** Blobs as objects of a bucket of S3, or of a service that speaks its protocol. */
export function createS3BlobStore(options: S3BlobStoreOptions): NativeBlobStore {
  const { id = 's3', bucket, accessKeyId, secretAccessKey, region, endpoint, forcePathStyle, prefix } = checkInput(options, 'options');
  for (const [name, value] of Object.entries({ bucket, accessKeyId, secretAccessKey })) checkNonEmptyString(value, name);
  for (const [name, value] of Object.entries({ region, endpoint, prefix })) checkTextOrUndefined(value, name);
  checkSwitch(forcePathStyle, 'forcePathStyle');
  return over(id, { kind: 's3', bucket, accessKeyId, secretAccessKey, region, endpoint, forcePathStyle, prefix });
}

function over(id: string, config: object): NativeBlobStore {
  checkNonEmptyString(id, 'id');
  const blobs = callSync(() => new native.PackagesBlobs(JSON.stringify(config)));
  const close = (): Promise<void> => call(blobs.close());
  return {
    id,
    put: async (input) => {
      await call(blobs.put(keyOf(input), checkBytes(input.bytes, 'bytes')));
    },
    get: async (input) => (await call(blobs.get(keyOf(input)))) ?? undefined,
    has: async (input) => call(blobs.has(keyOf(input))),
    delete: async (input) => call(blobs.delete(keyOf(input))),
    list: () => call(blobs.list()),
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** A key with half a character in it would be kept under another one, the same for all such keys. */
function keyOf(input: { integrity: string }): string {
  return checkText(checkInput(input).integrity, 'integrity');
}
