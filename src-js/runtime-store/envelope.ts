/** The envelope of a versioned JSON file. */
import { isBlank, isRecord } from '../check';
import type { VersionedJsonStoreFailureReason } from '../errors';

/** A checked envelope, or what is wrong with it. */
export type OpenedEnvelope =
  | { ok: true; schemaVersion: number; updatedAt: string; data: unknown }
  | { ok: false; reason: VersionedJsonStoreFailureReason; message: string };

/** Parses a file's text and checks its envelope, in the order of the format. `supported` is the highest version understood. */
export function openEnvelope(text: string, filePath: string, supported: number): OpenedEnvelope {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { ok: false, reason: 'invalid_json', message: `Invalid JSON in versioned store ${filePath}: ${(error as Error).message}` };
  }
  const bad = (what: string): OpenedEnvelope => ({ ok: false, reason: 'invalid_envelope', message: `Versioned store ${filePath} ${what}` });
  if (!isRecord(value)) return bad('must contain a JSON object');
  const { schemaVersion, updatedAt } = value;
  if (typeof schemaVersion !== 'number' || !Number.isInteger(schemaVersion) || schemaVersion < 1) return bad('has invalid schemaVersion');
  if (typeof updatedAt !== 'string' || isBlank(updatedAt)) return bad('has invalid updatedAt');
  if (!Object.hasOwn(value, 'data')) return bad('is missing data');
  if (schemaVersion > supported) {
    return { ok: false, reason: 'future_schema', message: `Future schema ${schemaVersion} in ${filePath}; supported ${supported}` };
  }
  return { ok: true, schemaVersion, updatedAt, data: value.data };
}
