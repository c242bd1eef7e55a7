// Archives: what an enemy packs is refused before a byte is written, what we pack is the same everywhere. Numbers: acceptance checks.
import { randomBytes } from 'node:crypto';
import { chmodSync, lstatSync, mkdirSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';

import { PackageStoreError, blobSha256, packDir, toUint8Array, unpackInto, verifyBlobSha256 } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { contents, mode, names, pax, rejection, start, tar, tempDir, tgz, type TarEntry } from './support';

const good: TarEntry[] = [
  { path: 'p/', mode: 0o755 },
  { path: 'p/one.txt', body: 'one' },
  { path: 'p/sub/two.txt', body: 'two' },
];
const unsafe = 'refusing to extract unsafe archive entry: ';

/** Unpacks what must be refused: with which error, and nothing written. */
async function refused(bytes: Uint8Array, more: object = {}): Promise<Error & { code?: string }> {
  const targetDir = tempDir();
  writeFileSync(join(targetDir, 'mine'), 'mine');
  const error = await rejection(unpackInto({ targetDir, bytes, ...more }));
  expect(error).toBeInstanceOf(PackageStoreError);
  expect(contents(targetDir)).toEqual({ mine: 'mine' });
  return error;
}

describe('hostile archives', () => {
  test('check 10: bytes that are no archive', async () => {
    for (const bytes of [new Uint8Array([1, 2, 3, 4]), new Uint8Array(), new Uint8Array(5000), randomBytes(3000)]) {
      const error = await refused(bytes);
      expect(error.message).toMatch(/tar extract failed/i);
      expect(error.code).toBe('HF_PKG_ARCHIVE');
    }
  });

  test.each([
    ['../escape', 'parent-directory traversal in "../escape"'],
    ['p/../../escape', 'parent-directory traversal in "p/../../escape"'],
    ['p/..', 'parent-directory traversal in "p/.."'],
    ['/tmp/x', 'absolute path "/tmp/x"'],
    [' /tmp/x', 'absolute path " /tmp/x"'],
    ['a\\..\\b', 'parent-directory traversal in "a\\..\\b"'],
    ['C:\\evil', 'absolute path "C:\\evil"'],
    ['c:/evil', 'absolute path "c:/evil"'],
    ['C:evil', ''],
    ['\\\\srv\\x', ''],
    ['\\root', ''],
  ])('check 11: the path %j', async (path, message) => {
    const error = await refused(tgz([...good, { path, body: 'x' }]));
    expect(error.message).toMatch(/unsafe archive entry/i);
    expect(error.code).toBe('HF_PKG_UNSAFE_ENTRY');
    if (message !== '') expect(error.message).toBe(unsafe + message);
  });

  test('check 12: links of both kinds, and whatever else is no file', async () => {
    const symbolic = await refused(tgz([...good, { path: 'evil', type: '2', link: '/etc' }]));
    expect(symbolic.message).toBe(`${unsafe}link entry (type "l") in "evil -> /etc"`);
    const hard = await refused(tgz([...good, { path: 'evil', type: '1', link: 'p/one.txt' }]));
    expect(hard.message).toBe(`${unsafe}link entry (type "h") in "evil -> p/one.txt"`);
    for (const type of ['3', '4', '6', '7', 'S', 'D', 'V', 'M', 'Z']) {
      const error = await refused(tgz([...good, { path: 'evil', type }]));
      expect([error.code, error.message.includes('evil')], type).toEqual(['HF_PKG_UNSAFE_ENTRY', true]);
      if ('3467'.includes(type)) expect(error.message).toContain('non-regular entry');
    }
  });

  test.each<[string, TarEntry[], RegExp]>([
    ['a PAX path that leaves', [pax({ path: '../out' }), { path: 'p/ok', body: 'x' }], /parent-directory traversal in "..\/out"/],
    ['an absolute PAX path', [pax({ path: '/etc/x' }), { path: 'p/ok', body: 'x' }], /absolute path "\/etc\/x"/],
    ['a GNU long name that leaves', [{ path: '././@LongLink', type: 'L', body: '../out\0' }, { path: 'p/ok', body: 'x' }], /parent-directory traversal/],
    ['a GNU long link', [{ path: '././@LongLink', type: 'K', body: '/etc\0' }, { path: 'p/ok', type: '2', link: 'x' }], /link entry/],
    ['a file twice', [{ path: 'p/x', body: '1' }, { path: 'p/x', body: '2' }], /duplicate path "p\/x"/],
    ['a file twice, once through a dot', [{ path: 'p/x', body: '1' }, { path: 'p/./x', body: '2' }], /duplicate path/],
    ['a file that is a folder, too', [{ path: 'p/x', body: '1' }, { path: 'p/x/y', body: '2' }], /duplicate path/],
    ['a folder that is a file, too', [{ path: 'p/x/y', body: '1' }, { path: 'p/x', body: '2' }], /duplicate path/],
    ['a file at the root itself', [{ path: '.', type: '0', body: '1' }], /invalid name/],
    ['a name of nothing', [{ path: '', type: '0', body: '1' }], /invalid name/],
    ['a PAX name with NUL', [pax({ path: 'p/a\0b' }), { path: 'p/ok', body: 'x' }], /invalid name|tar extract failed/],
  ])('%s', async (_, entries, message) => {
    const error = await refused(tgz([...good, ...entries]));
    expect(error.message).toMatch(message);
  });

  test('names that are not UTF-8', async () => {
    const bytes = tar([{ path: 'p/Q', body: 'x' }]);
    bytes[2] = 0xff;
    let sum = 0;
    for (let at = 0; at < 512; at++) sum += at >= 148 && at < 156 ? 32 : bytes[at]!;
    bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
    expect((await refused(gzipSync(bytes))).message).toContain(`${unsafe}invalid name`);
  });

  test('truncated, damaged, and with something behind its end', async () => {
    const body = randomBytes(40_000).toString('hex');
    const whole = tgz([...good, { path: 'p/big', body }]);
    const flipped = (at: number): Uint8Array => Uint8Array.from(whole, (byte, index) => (index === at ? byte ^ 1 : byte));
    const cases: [string, Uint8Array][] = [
      ['half', whole.slice(0, whole.length >> 1)],
      ['without its last byte', whole.slice(0, -1)],
      ['without its trailer', whole.slice(0, -8)],
      ['with a bad CRC', flipped(whole.length - 6)],
      ['with a bad length', flipped(whole.length - 2)],
      ['with a bad body', flipped(whole.length >> 1)],
      ['with garbage behind it', Buffer.concat([whole, Buffer.from('garbage')])],
      ['with a bad header sum', gzipSync(tar(good).fill('9', 148, 154))],
      ['that claims more than there is', gzipSync(tar([{ path: 'p/x', body: 'x', size: 1_000_000 }]))],
      ['that ends within a header', gzipSync(tar(good, false).subarray(0, 700))],
    ];
    for (const [what, bytes] of cases) expect([what, (await refused(bytes)).code]).toEqual([what, 'HF_PKG_ARCHIVE']);
  });

  test('concatenated gzip members are one stream', async () => {
    const bytes = tar(good);
    const targetDir = tempDir();
    await unpackInto({ targetDir, bytes: Buffer.concat([gzipSync(bytes.subarray(0, 900)), gzipSync(bytes.subarray(900))]) });
    expect(contents(targetDir)).toEqual({ 'p/one.txt': 'one', 'p/sub/two.txt': 'two' });
  });

  test('check 14: bombs are stopped by what they really hold', async () => {
    const zeros = Buffer.alloc(200 * 1_048_576);
    const bomb = gzipSync(tar([{ path: 'p/zeros', body: zeros }]), { level: 1 });
    const error = await refused(bomb, { limits: { maxTotalBytes: 64 * 1_048_576 } });
    expect(error.message).toMatch(/refusing to extract unsafe archive entry: limit \S+ exceeded at "p\/zeros"/);
    expect((await refused(bomb, { limits: { maxEntryBytes: 1000 } })).code).toBe('HF_PKG_UNSAFE_ENTRY');
    const many = tgz(Array.from({ length: 500 }, (_, at) => ({ path: `p/${at}`, body: '' })));
    expect((await refused(many, { limits: { maxEntries: 499 } })).message).toContain('exceeded at "p/499"');
    const deep = tgz([{ path: `${'d/'.repeat(40)}f`, body: 'x' }]);
    expect((await refused(deep, { limits: { maxDepth: 20 } })).message).toContain('limit');
    expect((await refused(deep, { limits: { maxPathBytes: 30 } })).message).toContain('limit');
    const targetDir = tempDir();
    await unpackInto({ targetDir, bytes: many, limits: { maxEntries: 500 } });
    expect(names(join(targetDir, 'p'))).toHaveLength(500);
  });

  test('check 13: links planted in the target are removed, never followed', async () => {
    const targetDir = tempDir();
    const outside = tempDir();
    writeFileSync(join(outside, 'f'), 'outside');
    mkdirSync(join(targetDir, 'p'));
    symlinkSync(outside, join(targetDir, 'link'));
    symlinkSync(join(outside, 'f'), join(targetDir, 'p/file'));
    await unpackInto({
      targetDir,
      bytes: tgz([
        { path: 'link/f', body: 'inside' },
        { path: 'p/file', body: 'inside' },
      ]),
    });
    expect(contents(outside)).toEqual({ f: 'outside' });
    expect(lstatSync(join(targetDir, 'link')).isDirectory()).toBe(true);
    expect(contents(targetDir)).toEqual({ 'link/f': 'inside', 'p/file': 'inside' });
  });

  test('check 15: neither owners nor special bits are taken over', async () => {
    const targetDir = tempDir();
    await unpackInto({
      targetDir,
      bytes: tgz([
        { path: 'p/', mode: 0o1777 },
        { path: 'p/suid', body: 'x', mode: 0o4755, uid: 12345 },
        { path: 'p/plain', body: 'x', mode: 0o600, uid: 12345 },
      ]),
    });
    expect(['p', 'p/suid', 'p/plain'].map((name) => mode(join(targetDir, name)))).toEqual([0o755, 0o755, 0o644]);
    expect(lstatSync(join(targetDir, 'p/suid')).uid).toBe(process.getuid?.() ?? 0);
  });

  test('what was there is merged into and replaced, and the rest stays', async () => {
    const targetDir = join(tempDir(), 'not/yet');
    await unpackInto({ targetDir, bytes: tgz(good) });
    writeFileSync(join(targetDir, 'p/mine'), 'mine');
    await unpackInto({ targetDir, bytes: tgz([{ path: 'p/one.txt', body: 'ONE' }]) });
    expect(contents(targetDir)).toEqual({ 'p/mine': 'mine', 'p/one.txt': 'ONE', 'p/sub/two.txt': 'two' });
  });

  test('memory does not grow with what is unpacked', async () => {
    const folder = tempDir();
    const archive = join(folder, 'a.tgz');
    // 400 MB that differ from block to block, in an archive of some 2 MB.
    const pattern = Buffer.alloc(1 << 20).fill('holdfast unpacks a piece at a time ');
    const body = Buffer.concat(Array.from({ length: 400 }, () => pattern));
    const bytes = gzipSync(tar([{ path: 'p/large', body }]), { level: 1 });
    writeFileSync(archive, bytes);
    writeFileSync(`${archive}.small`, tgz(good));
    const child = start('memory-child.mjs', archive, join(folder, 'target'));
    const grew = Number((await child.line('grew')).split(' ')[1]);
    expect(statSync(join(folder, 'target/p/large')).size).toBe(body.length);
    // The blob is copied once, to be safe from its owner's hands.
    expect(grew - bytes.length).toBeLessThan(32 << 20);
    expect(grew).toBeGreaterThan(0);
  });

  test('a signal stops it, with its reason', async () => {
    const reason = new Error('enough');
    expect(await rejection(unpackInto({ targetDir: tempDir(), bytes: tgz(good), signal: AbortSignal.abort(reason) }))).toBe(reason);
  });

  test('whatever is done to a good archive, the process lives, and nothing is written outside', async () => {
    const whole = tar([...good, pax({ path: 'p/long' }), { path: 'p/x', body: 'x'.repeat(700) }]);
    const base = tempDir();
    let seed = 42;
    const random = (below: number): number => (seed = (seed * 1_103_515_245 + 12_345) & 0x7fff_ffff) % below;
    for (let round = 0; round < 400; round++) {
      const bytes = Buffer.from(whole);
      for (let change = random(6); change >= 0; change--) bytes[random(bytes.length)] = random(256);
      // Every other time the header sums are right, so that more than the sum is looked at.
      if (round % 2 === 0) repair(bytes);
      await unpackInto({ targetDir: join(base, 'target'), bytes: gzipSync(bytes, { level: 1 }) }).catch((error: unknown) => {
        expect(error).toBeInstanceOf(Error);
        expect((error as { code: string }).code).toMatch(/^(HF_PKG_ARCHIVE|HF_PKG_UNSAFE_ENTRY|E[A-Z]+)$/);
      });
      expect(names(base).filter((name) => name !== 'target')).toEqual([]);
    }
  });
});

function repair(bytes: Buffer): void {
  for (let at = 0; at + 512 <= bytes.length; at += 512) {
    if (bytes.toString('latin1', at + 257, at + 262) !== 'ustar') continue;
    let sum = 0;
    for (let index = 0; index < 512; index++) sum += index >= 148 && index < 156 ? 32 : bytes[at + index]!;
    bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, at + 148);
  }
}

describe('packing', () => {
  test('check 18: equal content gives equal bytes, whatever the times', async () => {
    const pack = async (time: number): Promise<Uint8Array> => {
      const parentDir = tempDir();
      // Made in another order, with other times and other modes of the same meaning.
      const files = ['z', 'a', 'm/n'];
      for (const file of time > 0 ? files : files.reverse()) {
        mkdirSync(join(parentDir, 'p/m'), { recursive: true });
        writeFileSync(join(parentDir, 'p', file), file);
        utimesSync(join(parentDir, 'p', file), time, time);
      }
      chmodSync(join(parentDir, 'p/a'), time > 0 ? 0o700 : 0o755);
      return packDir({ parentDir, entryName: 'p' });
    };
    const [first, second] = [await pack(0), await pack(1_700_000_000)];
    expect(Buffer.compare(first, second)).toBe(0);
    expect(blobSha256(first)).toBe(blobSha256(second));
  });

  test('what is packed comes out again: modes, empty folders, long names, scopes', async () => {
    const parentDir = tempDir();
    const long = `${'long-name/'.repeat(14)}${'x'.repeat(120)}.js`;
    const root = join(parentDir, '@scope/name@1.0.0');
    for (const [file, bits] of [['run.sh', 0o755], ['ünïcode ✓.txt', 0o644], [long, 0o644]] as const) {
      mkdirSync(join(root, file, '..'), { recursive: true });
      writeFileSync(join(root, file), file);
      chmodSync(join(root, file), bits);
    }
    mkdirSync(join(root, 'empty'));
    const bytes = await packDir({ parentDir, entryName: '@scope/name@1.0.0' });
    const targetDir = tempDir();
    await unpackInto({ targetDir, bytes });
    expect(contents(targetDir)).toEqual(contents(parentDir));
    expect(mode(join(targetDir, '@scope/name@1.0.0/run.sh'))).toBe(0o755);
    expect(names(join(targetDir, '@scope/name@1.0.0'))).toContain('empty');
    expect(gunzipSync(bytes).length % 512).toBe(0);
  });

  test('a link is stored and never followed, or refused; what is packed so is refused by whoever unpacks', async () => {
    const parentDir = tempDir();
    mkdirSync(join(parentDir, 'p'));
    symlinkSync('/etc/passwd', join(parentDir, 'p/link'));
    const bytes = await packDir({ parentDir, entryName: 'p' });
    expect(gunzipSync(bytes).includes('root:')).toBe(false);
    expect((await refused(bytes)).message).toContain('link entry (type "l") in "p/link -> /etc/passwd"');
    const error = await rejection(packDir({ parentDir, entryName: 'p', links: 'reject' }));
    expect([error.code, error.message.startsWith('tar failed: ')]).toEqual(['HF_PKG_PACK', true]);
  });

  test('names that leave the folder, and folders that are not there', async () => {
    const parentDir = tempDir();
    for (const entryName of ['missing', '..', '../x', '/etc', 'a/b/c', '.']) {
      const error = await rejection(packDir({ parentDir, entryName }));
      expect([entryName, error.code]).toEqual([entryName, 'HF_PKG_PACK']);
      expect(error.message).toMatch(/^tar failed: /);
    }
  });
});

describe('bytes', () => {
  test('views are not copies', () => {
    const bytes = new Uint8Array([1, 2, 3]);
    expect(toUint8Array(bytes)).toBe(bytes);
    const view = toUint8Array(bytes.buffer);
    view[0] = 9;
    expect(bytes[0]).toBe(9);
  });

  test('hashes are those of the bytes, of slices too', () => {
    const large = new Uint8Array([9, 97, 98, 99, 9]);
    const abc = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad';
    expect(blobSha256(large.subarray(1, 4))).toBe(abc);
    expect(blobSha256(large.slice(1, 4).buffer)).toBe(abc);
    expect(verifyBlobSha256({ entry: {}, bytes: large })).toEqual({ ok: true });
    expect(verifyBlobSha256({ entry: { blobSha256: abc }, bytes: large.subarray(1, 4) })).toEqual({ ok: true });
    expect(verifyBlobSha256({ entry: { blobSha256: abc }, bytes: large })).toEqual({ ok: false, expected: abc, actual: blobSha256(large) });
  });
});
