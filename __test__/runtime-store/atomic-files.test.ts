/** R16 to R22, A21, A22, W10, W20, W21: files that are replaced whole or not at all. */
import { chmodSync, existsSync, linkSync, mkdirSync, readFileSync, readdirSync, readlinkSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import {
  atomicCreateAsync,
  atomicWriteAsync,
  atomicWriteSync,
  cleanupAtomicCreateTempLinks,
  renamePathWithRetry,
  renamePathWithRetrySync,
  syncDirectoryDurably,
  unlinkPathDurably,
} from 'holdfast';
import { beforeEach, describe, expect, it } from 'vitest';

import { rejection, tempDir, tree } from './support';

let dir: string;
let target: string;
beforeEach(() => {
  dir = tempDir();
  target = join(dir, 'file.txt');
});

const modeOf = (path: string) => statSync(path).mode & 0o7777;
const text = () => readFileSync(target, 'utf8');
const FULL = { durability: 'strict', syncDirectory: true } as const;
/** Both forms of the write, under one signature. */
const writers: [string, (path: string, data: string | Buffer, options?: { mode?: number }) => Promise<void>][] = [
  ['atomicWriteAsync', atomicWriteAsync],
  ['atomicWriteAsync, strict and synced', (path, data, options) => atomicWriteAsync(path, data, { ...options, ...FULL })],
  ['atomicWriteSync', async (path, data, options) => atomicWriteSync(path, data, options)],
];

describe.each(writers)('%s', (_, write) => {
  it('R16: makes folders, writes strings as UTF-8 and bytes as they are, and leaves nothing else', async () => {
    target = join(dir, 'a', 'b', 'file.txt');
    await write(target, 'grüße 🌍\n');
    expect(text()).toBe('grüße 🌍\n');
    const bytes = Buffer.from([0, 255, 128, 10]);
    await write(target, bytes);
    expect(readFileSync(target)).toEqual(bytes);
    await write(target, '');
    expect(text()).toBe('');
    expect(readdirSync(join(dir, 'a', 'b'))).toEqual(['file.txt']);
  });

  it('takes a view into a larger buffer, and what a later change of it does not reach', async () => {
    const whole = Buffer.from('0123456789');
    const writing = write(target, whole.subarray(2, 5));
    await writing;
    whole.fill('x');
    expect(text()).toBe('234');
  });

  it('A21, W20: keeps the mode without `mode`, and sets it with', async () => {
    await write(target, 'one');
    chmodSync(target, 0o600);
    await write(target, 'two');
    expect(modeOf(target)).toBe(0o600);
    await write(target, 'three', { mode: 0o640 });
    expect(modeOf(target)).toBe(0o640);
    expect(text()).toBe('three');
  });

  it('W21: a mode without the right to write is no obstacle', async () => {
    await write(target, 'one', { mode: 0o400 });
    expect(modeOf(target)).toBe(0o400);
    await write(target, 'two');
    expect(text()).toBe('two');
    expect(modeOf(target)).toBe(0o400);
  });

  it('W20: follows a symlink, also one to a file that is not there yet', async () => {
    const link = join(dir, 'link.txt');
    symlinkSync('file.txt', link);
    await write(link, 'through');
    expect(readlinkSync(link)).toBe('file.txt');
    expect(text()).toBe('through');
    await write(link, 'again');
    expect(text()).toBe('again');
  });

  it('R16: an error removes the temporary file and leaves everything as it was', async () => {
    mkdirSync(target);
    writeFileSync(join(target, 'inside'), 'x');
    const before = tree(dir);
    expect(await rejection(write(target, 'new'))).toMatchObject({ code: expect.stringMatching(/EISDIR|ENOTEMPTY|EEXIST/), hfCode: 'HF_IO', path: expect.any(String) });
    expect(tree(dir)).toEqual(before);
    writeFileSync(join(dir, 'plain'), '');
    expect(await rejection(write(join(dir, 'plain', 'x'), 'new'))).toMatchObject({ code: expect.stringMatching(/ENOTDIR|EEXIST/) });
    expect(readdirSync(dir).sort()).toEqual(['file.txt', 'plain']);
  });

  it('never shows a mixture to readers', async () => {
    const a = 'a'.repeat(200_000);
    const b = 'b'.repeat(100_000);
    await write(target, a);
    let over = false;
    const reading = (async () => {
      for (let reads = 0; !over || reads < 5; reads++) {
        expect([a, b].includes(text())).toBe(true);
        await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    for (let i = 0; i < 20; i++) await write(target, i % 2 ? a : b);
    over = true;
    await reading;
  });
});

describe('beforeCommit', () => {
  it('R19: runs before the publish, when the new bytes are complete beside the target', async () => {
    writeFileSync(target, 'old');
    let seen: string[] = [];
    await atomicWriteAsync(target, 'new', {
      beforeCommit: async () => {
        expect(text()).toBe('old');
        seen = readdirSync(dir).filter((name) => name.startsWith('.tmp.')).map((name) => readFileSync(join(dir, name), 'utf8'));
      },
    });
    expect(seen).toEqual(['new']);
    expect(text()).toBe('new');
  });

  it('A22: one that rejects (or throws) leaves the target and no temporary file, with the same error', async () => {
    writeFileSync(target, 'old');
    const bang = new Error('bang');
    expect(await rejection(atomicWriteAsync(target, 'new', { beforeCommit: () => Promise.reject(bang) }))).toBe(bang);
    expect(await rejection(atomicWriteAsync(target, 'new', { beforeCommit: () => { throw bang; } }))).toBe(bang);
    expect(tree(dir)).toEqual({ 'file.txt': 'old' });
  });

  it('R18, R19: runs once where the publish fails for good', async () => {
    mkdirSync(target);
    writeFileSync(join(target, 'inside'), '');
    let calls = 0;
    await rejection(atomicWriteAsync(target, 'new', { beforeCommit: async () => void calls++ }));
    expect(calls).toBe(1);
  });
});

describe('atomicCreateAsync', () => {
  it('R21: creates, and says what', async () => {
    target = join(dir, 'sub', 'file.txt');
    const made = await atomicCreateAsync(target, 'new', { mode: 0o640 });
    const { dev, ino, nlink } = statSync(target);
    expect(made).toEqual({ dev, ino });
    expect({ nlink, mode: modeOf(target), text: text() }).toEqual({ nlink: 1, mode: 0o640, text: 'new' });
    expect(readdirSync(join(dir, 'sub'))).toEqual(['file.txt']);
  });

  it('A22: an existing target gives EEXIST, stays, and no temporary file is left', async () => {
    writeFileSync(target, 'old');
    expect(await rejection(atomicCreateAsync(target, 'new'))).toMatchObject({ code: 'EEXIST', hfCode: 'HF_IO' });
    symlinkSync('nowhere', join(dir, 'dangling'));
    expect(await rejection(atomicCreateAsync(join(dir, 'dangling'), 'new'))).toMatchObject({ code: 'EEXIST' });
    expect(tree(dir)).toEqual({ 'file.txt': 'old', dangling: 'not looked at' });
  });

  it('lets exactly one of many win', async () => {
    const results = await Promise.allSettled(Array.from({ length: 20 }, (_, i) => atomicCreateAsync(target, `w${i}`)));
    const winners = results.flatMap((result, i) => (result.status === 'fulfilled' ? [i] : []));
    expect(winners).toHaveLength(1);
    expect(text()).toBe(`w${winners[0]}`);
    expect(readdirSync(dir)).toEqual(['file.txt']);
  });

  it('R22: cleanup removes links of its naming to the same file, and nothing else', async () => {
    writeFileSync(target, 'x');
    const link = (name: string) => linkSync(target, join(dir, name));
    link('.review-create.0a1b-2c.tmp');
    link('.review-create.xyz!.tmp');
    link('other.txt');
    writeFileSync(join(dir, '.review-create.abcd.tmp'), 'another file');
    await cleanupAtomicCreateTempLinks(target);
    expect(readdirSync(dir).sort()).toEqual(['.review-create.abcd.tmp', '.review-create.xyz!.tmp', 'file.txt', 'other.txt']);
  });

  it('R22: cleanup touches nothing where the target has one link, and names a missing target', async () => {
    writeFileSync(target, 'x');
    writeFileSync(join(dir, '.review-create.abcd.tmp'), 'y');
    await cleanupAtomicCreateTempLinks(target);
    expect(readdirSync(dir)).toHaveLength(2);
  });
});

describe('rename, unlink, sync', () => {
  it('R22: renames files and folders over what may be replaced', async () => {
    writeFileSync(target, 'new');
    writeFileSync(join(dir, 'dest'), 'old');
    await renamePathWithRetry(target, join(dir, 'dest'), { syncDirectories: true, durability: 'strict' });
    expect(tree(dir)).toEqual({ dest: 'new' });
    mkdirSync(join(dir, 'sub'));
    renamePathWithRetrySync(join(dir, 'sub'), join(dir, 'sub2'));
    await renamePathWithRetry(join(dir, 'dest'), join(dir, 'sub2', 'dest'), { syncDirectories: true });
    expect(tree(dir)).toEqual({ 'sub2/': '', 'sub2/dest': 'new' });
  });

  it('R18: errors that do not pass by themselves come at once', async () => {
    const began = Date.now();
    expect(await rejection(renamePathWithRetry(join(dir, 'none'), target))).toMatchObject({ code: 'ENOENT', hfCode: 'HF_IO', syscall: 'rename' });
    expect(() => renamePathWithRetrySync(join(dir, 'none'), target)).toThrow(expect.objectContaining({ code: 'ENOENT' }));
    expect(await rejection(unlinkPathDurably(target))).toMatchObject({ code: 'ENOENT' });
    expect(await rejection(syncDirectoryDurably(join(dir, 'none')))).toMatchObject({ code: 'ENOENT' });
    expect(Date.now() - began).toBeLessThan(2500);
  });

  it('unlinkPathDurably removes, syncDirectoryDurably changes nothing', async () => {
    writeFileSync(target, 'x');
    await syncDirectoryDurably(dir);
    expect(text()).toBe('x');
    await unlinkPathDurably(target);
    expect(existsSync(target)).toBe(false);
  });
});
