// The rules for manifests and receipts. A Rust test runs the same vectors against the engine's validators.
import { readFileSync } from 'node:fs';
import {
  createDefaultRuntimeStoreManifest,
  HoldfastError,
  OPENCODE_RUNTIME_STORE_MANIFEST_SCHEMA_VERSION,
  OPENCODE_RUNTIME_STORE_RECEIPT_SCHEMA_VERSION,
  validateRuntimeStoreManifest,
  validateRuntimeStoreWriteBatches,
} from 'holdfast';
import { describe, expect, it } from 'vitest';
import { caught } from './caught';

interface Vector {
  name: string;
  kind: 'manifest' | 'batches';
  value: unknown;
  ok: boolean;
  message?: string;
}

const vectors = JSON.parse(
  readFileSync(new URL('../vectors/runtime-store-validation.json', import.meta.url), 'utf8'),
) as Vector[];

const KINDS = {
  manifest: { validate: validateRuntimeStoreManifest, hfCode: 'HF_RUNTIME_INVALID_MANIFEST' },
  batches: { validate: validateRuntimeStoreWriteBatches, hfCode: 'HF_RUNTIME_INVALID_RECEIPTS' },
} as const;

const KEYS = [
  'schemaVersion',
  'teamName',
  'activeRunId',
  'activeCapabilitySnapshotId',
  'activeBehaviorFingerprint',
  'highWatermark',
  'lastCommittedBatchId',
  'lastPreparingBatchId',
  'entries',
  'lastRecoveryPlanId',
  'updatedAt',
];

const find = (name: string): unknown => {
  const vector = vectors.find((candidate) => candidate.name === name);
  if (!vector) throw new Error(`no vector ${name}`);
  return structuredClone(vector.value);
};

describe('vectors', () => {
  it('cover both kinds, good and bad', () => {
    for (const kind of ['manifest', 'batches']) {
      for (const ok of [true, false]) expect(vectors.filter((v) => v.kind === kind && v.ok === ok).length).toBeGreaterThan(20);
    }
  });

  it.each(vectors.filter((vector) => vector.ok))('accepted: $name', ({ kind, value }) => {
    const before = structuredClone(value);
    const result = KINDS[kind].validate(value);
    expect(value).toEqual(before);
    if (kind === 'batches') expect(result).toBe(value);
    else expect(result).toEqual(Object.fromEntries(KEYS.map((key) => [key, (value as Record<string, unknown>)[key]])));
  });

  it.each(vectors.filter((vector) => !vector.ok))('refused: $name', ({ kind, value, message }) => {
    const error = caught(() => KINDS[kind].validate(value));
    expect(error).toBeInstanceOf(HoldfastError);
    expect(error).toMatchObject({ message, hfCode: KINDS[kind].hfCode, code: KINDS[kind].hfCode });
  });
});

describe('validateRuntimeStoreManifest', () => {
  it('rebuilds the manifest in key order, drops unknown keys, keeps the entries as they are', () => {
    for (const name of ['unknown keys in manifest and entry', 'keys in another order']) {
      const value = find(name) as { entries: object[] };
      const manifest = validateRuntimeStoreManifest(value);
      expect(Object.keys(manifest)).toEqual(KEYS);
      expect(manifest.entries).toBe(value.entries);
      expect(manifest.entries[0]).toBe(value.entries[0]);
    }
    const kept = validateRuntimeStoreManifest(find('unknown keys in manifest and entry'));
    expect(kept.entries[0]).toHaveProperty('hfNote', { a: [1] });
  });

  it('refuses what only JavaScript can hold', () => {
    const manifest = find('a full manifest') as Record<string, unknown>;
    const [entry] = manifest.entries as object[];
    for (const value of [undefined, () => 1, Symbol('m')]) {
      expect(() => validateRuntimeStoreManifest(value)).toThrow('Runtime store manifest must be an object');
    }
    for (const highWatermark of [NaN, Infinity, 1n]) {
      expect(() => validateRuntimeStoreManifest({ ...manifest, highWatermark })).toThrow('Runtime store manifest envelope is invalid');
    }
    for (const bad of [{ ...entry, mtimeMs: NaN }, { ...entry, fileSize: -Infinity }, { ...entry, schemaVersion: 1n }, undefined]) {
      expect(() => validateRuntimeStoreManifest({ ...manifest, entries: [bad] })).toThrow('Invalid runtime store manifest entry at index 0');
    }
    // The hole is the case.
    expect(() => validateRuntimeStoreManifest({ ...manifest, entries: [, entry] })).toThrow('Invalid runtime store manifest entry at index 0');
  });
});

describe('validateRuntimeStoreWriteBatches', () => {
  it('refuses holes', () => {
    const [batch] = find('a full batch') as { receipts: object[] }[];
    const holes = new Array<unknown>(1);
    expect(() => validateRuntimeStoreWriteBatches(holes)).toThrow('Invalid runtime store write batch at index 0');
    expect(() => validateRuntimeStoreWriteBatches([{ ...batch, receipts: holes }])).toThrow('Invalid runtime store write batch at index 0');
  });
});

describe('own schema names', () => {
  const manifest = (): Record<string, unknown> => find('a full manifest') as Record<string, unknown>;
  const withName = (schemaName: string): unknown => {
    const value = manifest();
    const entries = value.entries as object[];
    return { ...value, entries: [...entries, { ...entries[0], schemaName }] };
  };

  it('are legal where the options say so, and the built-in ones stay legal', () => {
    expect(() => validateRuntimeStoreManifest(withName('shop.cart'))).toThrow('Invalid runtime store manifest entry at index 1');
    for (const allowedSchemaNames of [['shop.cart'], new Set(['shop.cart']), ['shop.stock', 'shop.cart'].values()]) {
      expect(validateRuntimeStoreManifest(withName('shop.cart'), { allowedSchemaNames }).entries).toHaveLength(2);
    }
    expect(() => validateRuntimeStoreManifest(withName('shop.cart'), { allowedSchemaNames: ['shop.stock'] })).toThrow('index 1');

    const batches = find('a full batch') as { receipts: object[] }[];
    batches[0].receipts = [{ ...batches[0].receipts[0], schemaName: 'shop.cart' }];
    expect(() => validateRuntimeStoreWriteBatches(batches)).toThrow('Invalid runtime store write batch at index 0');
    expect(validateRuntimeStoreWriteBatches(batches, { allowedSchemaNames: ['shop.cart'] })).toBe(batches);
  });

  it('must be strings that are not blank, in an iterable', () => {
    for (const allowedSchemaNames of ['shop.cart', 1, {}, () => [], [''], [' '], [1]]) {
      const error = caught(() => validateRuntimeStoreManifest(manifest(), { allowedSchemaNames: allowedSchemaNames as never }));
      expect(error).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT', message: expect.stringContaining('allowedSchemaNames') as string });
    }
    for (const options of [undefined, {}, { allowedSchemaNames: undefined }]) {
      expect(validateRuntimeStoreManifest(manifest(), options).teamName).toBe('team-a');
    }
  });
});

describe('createDefaultRuntimeStoreManifest', () => {
  it('makes a manifest that is valid and empty', () => {
    const manifest = createDefaultRuntimeStoreManifest('team-a', '2026-04-21T12:00:00.000Z');
    expect(manifest).toEqual(find('a new manifest'));
    expect(Object.keys(manifest)).toEqual(KEYS);
    expect(validateRuntimeStoreManifest(manifest)).toEqual(manifest);
    expect(createDefaultRuntimeStoreManifest('team-a', 'x').entries).not.toBe(manifest.entries);
  });

  it('refuses bad arguments by name', () => {
    for (const bad of [undefined, null, 1, '', ' ', {}, new Date()]) {
      expect(caught(() => createDefaultRuntimeStoreManifest(bad as string, 'x'))).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT', argument: 'teamName' });
      expect(caught(() => createDefaultRuntimeStoreManifest('team-a', bad as string))).toMatchObject({ argument: 'updatedAt' });
    }
  });

  it('has the versions of the original format', () => {
    expect([OPENCODE_RUNTIME_STORE_MANIFEST_SCHEMA_VERSION, OPENCODE_RUNTIME_STORE_RECEIPT_SCHEMA_VERSION]).toEqual([1, 1]);
  });
});
