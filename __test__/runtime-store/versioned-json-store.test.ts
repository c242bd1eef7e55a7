/** R1 to R10, E9, W15, W16, A11 to A15: one versioned JSON file. */
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { VersionedJsonStore, VersionedJsonStoreError, type VersionedJsonStoreOptions } from 'holdfast';
import { beforeEach, describe, expect, it } from 'vitest';

import { leftovers, mtimeOf, NOW, readJson, rejection, tempDir, tree } from './support';

let dir: string;
let filePath: string;
let now: Date;
beforeEach(() => {
  dir = tempDir();
  filePath = join(dir, 'store.json');
  now = new Date(NOW);
});

type Data = Record<string, unknown>;
const open = <T = Data>(more: Partial<VersionedJsonStoreOptions<T>> = {}) =>
  new VersionedJsonStore<T>({
    filePath,
    schemaVersion: 1,
    defaultData: () => ({}) as T,
    validate: (value) => value as T,
    clock: () => now,
    ...more,
  });
const envelope = (data: unknown, schemaVersion = 1) => JSON.stringify({ schemaVersion, updatedAt: 'then', data });
const tick = () => {
  now = new Date(now.getTime() + 1000);
};

describe('reading', () => {
  it('R1: a missing file gives the validated default, and creates nothing', async () => {
    const store = open<Data>({ defaultData: () => ({ made: 'default' }), validate: (value) => ({ ...(value as Data), checked: true }) });
    expect(await store.read()).toEqual({ ok: true, status: 'missing', data: { made: 'default', checked: true }, envelope: null });
    expect(readdirSync(dir)).toEqual([]);
  });

  it('R1: what defaultData or validate throw for a missing file passes unchanged, and so do I/O errors', async () => {
    const bang = new Error('bang');
    const thrower = () => {
      throw bang;
    };
    expect(await rejection(open({ defaultData: thrower }).read())).toBe(bang);
    expect(await rejection(open({ validate: thrower }).read())).toBe(bang);
    mkdirSync(filePath);
    expect(await rejection(open().read())).toMatchObject({ code: 'EISDIR', hfCode: 'HF_IO' });
    expect(await rejection(open().updateLocked((data) => data))).toMatchObject({ code: 'EISDIR', hfCode: 'HF_IO' });
    expect(leftovers(dir)).toEqual([]);
  });

  it.each([
    ['{bad', 'invalid_json', /^Invalid JSON in versioned store .*store\.json: .+/],
    ['\uFEFF{}', 'invalid_json', /^Invalid JSON in versioned store/],
    ['', 'invalid_json', /^Invalid JSON in versioned store/],
    ['[]', 'invalid_envelope', /^Versioned store .*store\.json must contain a JSON object$/],
    ['null', 'invalid_envelope', /must contain a JSON object$/],
    ['{"schemaVersion":0,"updatedAt":"x","data":1}', 'invalid_envelope', /has invalid schemaVersion$/],
    ['{"schemaVersion":1.5,"updatedAt":"x","data":1}', 'invalid_envelope', /has invalid schemaVersion$/],
    ['{"schemaVersion":"1","updatedAt":"x","data":1}', 'invalid_envelope', /has invalid schemaVersion$/],
    ['{"schemaVersion":1,"updatedAt":" ","data":1}', 'invalid_envelope', /has invalid updatedAt$/],
    ['{"schemaVersion":1,"updatedAt":3,"data":1}', 'invalid_envelope', /has invalid updatedAt$/],
    ['{"schemaVersion":1,"updatedAt":"x"}', 'invalid_envelope', /is missing data$/],
    ['{"schemaVersion":9,"updatedAt":"x"}', 'invalid_envelope', /is missing data$/],
    ['{"schemaVersion":9,"updatedAt":"x","data":1}', 'future_schema', /^Future schema 9 in .*store\.json; supported 1$/],
  ])('R2, R3, R5: %j is %s, copied aside and left in place', async (text, reason, message) => {
    writeFileSync(filePath, text);
    const result = await open().read();
    expect(result).toMatchObject({ ok: false, reason, message: expect.stringMatching(message) });
    expect(readdirSync(dir).sort()).toEqual(['store.json', `store.json.${reason}.2026-04-21T12-00-00-000Z.quarantine`]);
    expect(result).toMatchObject({ quarantinePath: join(dir, `store.json.${reason}.2026-04-21T12-00-00-000Z.quarantine`) });
    expect(readFileSync(filePath, 'utf8')).toBe(text);
    const error = await rejection(open().updateLocked(() => ({ overwritten: true })));
    expect(error).toBeInstanceOf(VersionedJsonStoreError);
    expect(error).toMatchObject({ name: 'VersionedJsonStoreError', reason, message: expect.stringMatching(message), quarantinePath: expect.any(String) });
    expect(readFileSync(filePath, 'utf8')).toBe(text);
  });

  it('R2: data that validate rejects is invalid_data, with its message', async () => {
    writeFileSync(filePath, envelope({ a: 1 }));
    const validate = () => {
      throw new Error('no good');
    };
    expect(await open({ validate }).read()).toMatchObject({ ok: false, reason: 'invalid_data', message: `Invalid data in versioned store ${filePath}: no good` });
  });

  it('R3: data may be null, and other keys are ignored', async () => {
    writeFileSync(filePath, '{"extra":1,"schemaVersion":1,"updatedAt":"x","data":null}');
    expect(await open().read()).toEqual({ ok: true, status: 'loaded', data: null, envelope: { schemaVersion: 1, updatedAt: 'x', data: null } });
  });

  it('R5: quarantineDir is made, and a copy that cannot be made gives quarantinePath null', async () => {
    writeFileSync(filePath, '{bad');
    const quarantineDir = join(dir, 'deep', 'aside');
    expect(await open({ quarantineDir }).read()).toMatchObject({ quarantinePath: join(quarantineDir, 'store.json.invalid_json.2026-04-21T12-00-00-000Z.quarantine') });
    const blocked = join(dir, 'file');
    writeFileSync(blocked, '');
    expect(await open({ quarantineDir: blocked }).read()).toMatchObject({ ok: false, quarantinePath: null });
  });

  it('A13, W16: five reads with a ticking clock leave one copy with identical bytes', async () => {
    writeFileSync(filePath, '{bad-json');
    const store = open({ clock: () => (tick(), now) });
    for (let i = 0; i < 5; i++) expect(await store.read()).toMatchObject({ ok: false, reason: 'invalid_json' });
    const copies = readdirSync(dir).filter((name) => name.endsWith('.quarantine'));
    expect(copies).toHaveLength(1);
    expect(copies[0]).toMatch(/^store\.json\.invalid_json\.2026-04-21T12-00-0\d-000Z\.quarantine$/);
    expect(readFileSync(join(dir, copies[0]!), 'utf8')).toBe('{bad-json');
    expect(await rejection(store.updateLocked((data) => data))).toBeInstanceOf(VersionedJsonStoreError);
    expect(readFileSync(filePath, 'utf8')).toBe('{bad-json');
    writeFileSync(filePath, '{worse');
    await store.read();
    expect(readdirSync(dir).filter((name) => name.endsWith('.quarantine'))).toHaveLength(2);
  });

  it('E10, W16: the copy has the raw bytes, also where they are not UTF-8', async () => {
    const bytes = Buffer.from([0x7b, 0xff, 0xfe, 0x00, 0x80]);
    writeFileSync(filePath, bytes);
    const result = await open().read();
    expect(result.ok).toBe(false);
    if (!result.ok) expect(readFileSync(result.quarantinePath!)).toEqual(bytes);
  });
});

describe('updating', () => {
  it('R9, R10, A11: a missing file is created by any updater, folders and layout included', async () => {
    filePath = join(dir, 'a', 'b', 'store.json');
    const result = await open({ defaultData: () => ({ v: 1 }) }).updateLocked((data) => data);
    expect(result).toEqual({ changed: true, data: { v: 1 }, envelope: { schemaVersion: 1, updatedAt: NOW, data: { v: 1 } } });
    expect(readFileSync(filePath, 'utf8')).toBe(`{\n  "schemaVersion": 1,\n  "updatedAt": "${NOW}",\n  "data": {\n    "v": 1\n  }\n}\n`);
    expect(readdirSync(join(dir, 'a', 'b'))).toEqual(['store.json']);
  });

  it('R8, A11: equal data in another key order writes nothing', async () => {
    await open().updateLocked(() => ({ a: 1, b: { c: [1, 2], d: 2 } }));
    const before = tree(dir);
    const mtime = mtimeOf(filePath);
    tick();
    const result = await open().updateLocked(() => ({ b: { d: 2, c: [1, 2], e: undefined }, a: 1 }));
    expect(result).toMatchObject({ changed: false, envelope: { updatedAt: NOW, schemaVersion: 1 } });
    expect(result.data).toEqual({ a: 1, b: { c: [1, 2], d: 2 } });
    expect(tree(dir)).toEqual(before);
    expect(mtimeOf(filePath)).toBe(mtime);
    expect((await open().updateLocked(() => ({ a: 1, b: { c: [2, 1], d: 2 } }))).changed).toBe(true);
    expect((await open().updateLocked(() => ({ a: 1, b: { c: [2, 1], d: null } }))).changed).toBe(true);
  });

  it('R7: the updater gets a deep copy that it may change', async () => {
    const kept = { list: [1] };
    const store = open<typeof kept>({ defaultData: () => kept });
    await store.updateLocked((data) => {
      data.list.push(2);
      return data;
    });
    expect(kept).toEqual({ list: [1] });
    expect(readJson(filePath).data).toEqual({ list: [1, 2] });
  });

  it('A12, R7: the same error object comes back from an updater that throws or rejects, late or early, and from validate', async () => {
    const bang = new Error('bang');
    const late = async () => {
      await new Promise((resolve) => setTimeout(resolve, 10));
      throw bang;
    };
    const sync = () => {
      throw bang;
    };
    expect(await rejection(open().updateLocked(late))).toBe(bang);
    expect(await rejection(open().updateLocked(sync))).toBe(bang);
    expect(await rejection(open().updateLocked(() => Promise.reject(undefined)))).toBe(undefined);
    expect(readdirSync(dir)).toEqual([]);
    await open().updateLocked(() => ({ good: true }));
    const before = tree(dir);
    const validate = (value: unknown) => ((value as Data).bad ? sync() : (value as Data));
    expect(await rejection(open({ validate }).updateLocked(() => ({ bad: true })))).toBe(bang);
    expect(tree(dir)).toEqual(before);
    expect(await open().updateLocked(() => ({ next: true }))).toMatchObject({ changed: true });
  });

  it('A14: a future version is not written; an older one loads, and the next change writes the own version', async () => {
    writeFileSync(filePath, envelope({ v: 1 }, 2));
    expect(await rejection(open().updateLocked(() => ({ v: 2 })))).toMatchObject({ reason: 'future_schema', hfCode: 'HF_FORMAT_TOO_NEW' });
    expect(readFileSync(filePath, 'utf8')).toBe(envelope({ v: 1 }, 2));
    writeFileSync(filePath, envelope({ v: 1 }, 1));
    const store = open({ schemaVersion: 3 });
    expect(await store.read()).toMatchObject({ ok: true, envelope: { schemaVersion: 1 } });
    expect(await store.updateLocked((data) => data)).toMatchObject({ changed: false, envelope: { schemaVersion: 3, updatedAt: 'then' } });
    expect(readJson(filePath).schemaVersion).toBe(1);
    await store.updateLocked(() => ({ v: 2 }));
    expect(readJson(filePath)).toEqual({ schemaVersion: 3, updatedAt: NOW, data: { v: 2 } });
  });

  it('A15, W15: a change of a revived date is seen, and one under an own __proto__ key', async () => {
    const validate = (value: unknown) => ({ at: new Date((value as { at: string }).at) });
    const store = open<{ at: Date }>({ defaultData: () => ({ at: new Date(0) }), validate });
    await store.updateLocked((data) => data);
    expect((await store.updateLocked(() => ({ at: new Date(5) }))).changed).toBe(true);
    expect(readJson(filePath).data).toEqual({ at: new Date(5).toISOString() });
    expect((await store.updateLocked(() => ({ at: new Date(5) }))).changed).toBe(false);
    await open().updateLocked(() => JSON.parse('{"__proto__":{"x":1}}'));
    expect((await open().updateLocked(() => JSON.parse('{"__proto__":{"x":2}}'))).changed).toBe(true);
    expect(readFileSync(filePath, 'utf8')).toContain('"x": 2');
  });

  it('E9: the engine of the caller decides the text: integer keys, -0, 1e21, lone surrogates, toJSON', async () => {
    const data = { b: 1, 10: 'x', 2: 'y', neg: -0, big: 1e21, lone: '\ud800', json: { toJSON: () => 'made' }, gone: undefined };
    await open().updateLocked(() => data);
    expect(readFileSync(filePath, 'utf8')).toBe(`${JSON.stringify({ schemaVersion: 1, updatedAt: NOW, data }, null, 2)}\n`);
  });

  it('loses no update: 20 stores of one file, 10 updates each', async () => {
    await Promise.all(
      Array.from({ length: 20 }, async () => {
        const store = open<{ n: number }>({ defaultData: () => ({ n: 0 }), durability: 'process' });
        for (let i = 0; i < 10; i++) await store.updateLocked(({ n }) => ({ n: n + 1 }));
      }),
    );
    expect(readJson(filePath).data).toEqual({ n: 200 });
    expect(readdirSync(dir)).toEqual(['store.json']);
  });

  it('maxFileBytes refuses before anything changes, and counts bytes', async () => {
    await open().updateLocked(() => ({ v: 'ok' }));
    const before = tree(dir);
    const store = open({ maxFileBytes: 200 });
    expect(await rejection(store.updateLocked(() => ({ v: 'ü'.repeat(80) })))).toMatchObject({ hfCode: 'HF_RUNTIME_FILE_TOO_LARGE' });
    expect(tree(dir)).toEqual(before);
    expect((await store.updateLocked(() => ({ v: 'u'.repeat(80) }))).changed).toBe(true);
  });

  it('C2: an update leaves no name beside its file', async () => {
    for (let i = 0; i < 3; i++) await open().updateLocked(() => ({ i }));
    expect(readdirSync(dir)).toEqual(['store.json']);
  });

  it('W20: keeps the mode of the file, and writes through a symlink', async () => {
    await open().updateLocked(() => ({ v: 1 }));
    chmodSync(filePath, 0o600);
    await open().updateLocked(() => ({ v: 2 }));
    expect(statSync(filePath).mode & 0o777).toBe(0o600);
    const link = join(dir, 'link.json');
    symlinkSync('store.json', link);
    await open({ filePath: link }).updateLocked(() => ({ v: 3 }));
    expect(readJson(filePath).data).toEqual({ v: 3 });
    expect(tree(dir)['link.json']).toBe('not looked at');
  });

  it('works again when the folder was removed between two calls', async () => {
    filePath = join(dir, 'sub', 'store.json');
    const store = open();
    await store.updateLocked(() => ({ v: 1 }));
    rmSync(join(dir, 'sub'), { recursive: true });
    expect(await store.read()).toMatchObject({ status: 'missing' });
    await store.updateLocked(() => ({ v: 2 }));
    expect(existsSync(filePath)).toBe(true);
  });
});
