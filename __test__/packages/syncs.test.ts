// @pool forks: what counts happens in processes of its own.
// What a power cut can take: the system calls of a whole reconcile are traced, and at each step that others rely on, everything that the
// step vouches for must have been synced before. Needs Linux and strace; what the syncs are worth is the disk's matter.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';

import { makePackage, publish, tempDir, type MadePackage } from './support';

const CALLS = 'openat,openat2,write,pwrite64,copy_file_range,sendfile,fsync,fdatasync,rename,renameat,renameat2,link,linkat,symlink,symlinkat,mkdir,mkdirat';
const strace = spawnSync('strace', ['-o', '/dev/null', '-e', 'trace=fsync', 'true']).status === 0;
if (!strace) console.error('SKIPPED: the order of syncs (needs Linux, strace, and the right to trace)');

/** Files whose bytes are not on the disk yet, and paths whose names are not. */
class Unsynced {
  readonly bytes = new Set<string>();
  readonly names = new Set<string>();

  sync(path: string): void {
    this.bytes.delete(path);
    for (const name of this.names) if (name.slice(0, name.lastIndexOf('/')) === path) this.names.delete(name);
  }

  /** A folder or file gets another name, with all that is below it. */
  move(from: string, to: string): void {
    for (const set of [this.bytes, this.names]) {
      for (const path of [...set]) {
        if (path !== from && !path.startsWith(`${from}/`)) continue;
        set.delete(path);
        set.add(to + path.slice(from.length));
      }
    }
    this.names.add(to);
  }

  /** What is below a path; the path's own name does not count. */
  below(path: string): string[] {
    return [...[...this.bytes].filter((each) => each === path || each.startsWith(`${path}/`)), ...[...this.names].filter((each) => each.startsWith(`${path}/`))].sort();
  }
}

interface Step {
  from: string;
  to: string;
}

/** Goes through a trace; `look` sees each rename before it happens. */
function replay(trace: string, look: (step: Step, unsynced: Unsynced) => void): Unsynced {
  const unsynced = new Unsynced();
  const begun = new Map<string, string>();
  for (const line of trace.split('\n')) {
    const [, pid, rest] = /^(\d+) +(.*)$/.exec(line) ?? [];
    if (pid === undefined || rest === undefined) continue;
    if (rest.endsWith('<unfinished ...>')) {
      // A write counts from its beginning, everything else from its end.
      begun.set(pid, rest.slice(0, -'<unfinished ...>'.length));
      if (/^(p?write|copy|sendfile)/.test(rest)) call(begun.get(pid)!);
      continue;
    }
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(rest);
    const whole = resumed ? `${begun.get(pid) ?? ''}${resumed[1]}` : rest;
    const [, head, result] = /^(.*)\) += (-?\d+)/.exec(whole) ?? [];
    if (head !== undefined && result !== undefined && !result.startsWith('-')) call(head);
  }
  return unsynced;

  function call(text: string): void {
    const name = text.slice(0, text.indexOf('('));
    const inner = text.slice(text.indexOf('(') + 1);
    const path = (folder: string | undefined, file: string): string => (file.startsWith('/') ? file : `${folder ?? ''}/${file}`);
    const at = [...inner.matchAll(/(?:(?:\d+|AT_FDCWD)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"/g)].map(([, folder, file]) => path(folder, file!));
    const open = /^\d+<([^>]*)>/.exec(inner)?.[1];
    if (/^(p?write|copy_file|sendfile)/.test(name)) {
      const target = name === 'copy_file_range' ? /^\d+<[^>]*>, [^,]*, \d+<([^>]*)>/.exec(inner)?.[1] : open;
      if (target !== undefined) unsynced.bytes.add(target);
    } else if (name === 'fsync' || name === 'fdatasync') {
      if (open !== undefined) unsynced.sync(open);
    } else if (name.startsWith('open')) {
      if (inner.includes('O_CREAT') && at[0] !== undefined) unsynced.names.add(at[0]);
    } else if (name.startsWith('rename')) {
      const [from, to] = at as [string, string];
      look({ from, to }, unsynced);
      unsynced.move(from, to);
    } else if (name.startsWith('symlink')) {
      // The first text is what the link holds.
      const last = /(?:(?:\d+|AT_FDCWD)<([^>]*)>, )?"([^"]*)"$/.exec(inner.trim());
      if (last) unsynced.names.add(path(last[1], last[2]!));
    } else if (at.length > 0) {
      unsynced.names.add(at.at(-1)!);
    }
  }
}

describe.skipIf(!strace)('the order of syncs', () => {
  let packages: MadePackage[];
  const files = { 'index.js': 'x', 'lib/deep/er/file.js': 'y', 'cli.js': '#!/usr/bin/env node\r\n' };

  beforeAll(async () => {
    packages = [
      await makePackage('a', '1.0.0', { files, json: { bin: 'cli.js', dependencies: { b: '1' } } }),
      await makePackage('b', '2.0.0', { files }),
      await makePackage('b', '1.0.0', { files }),
      await makePackage('@scope/c', '1.0.0', { files }),
    ];
  });

  function trace(options: object, ...runs: string[]): { storeRoot: string; texts: string[] } {
    const published = publish(packages);
    const storeRoot = join(tempDir(), 'deep', 'store');
    const child = join(__dirname, 'fixtures/reconcile-child.mjs');
    const texts = runs.map((hash) => {
      const file = join(tempDir(), 'trace');
      const args = ['-f', '-y', '-qq', '-s', '4096', '-o', file, '-e', `trace=${CALLS}`, process.execPath, child, storeRoot, published, hash, JSON.stringify(options)];
      const { status, stderr } = spawnSync('strace', args, { encoding: 'utf8', timeout: 50_000 });
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      return readFileSync(file, 'utf8');
    });
    return { storeRoot, texts };
  }

  test.each(['hardlink', 'copy'])('what a step vouches for is on the disk before it (%s)', (linkMode) => {
    const { storeRoot, texts } = trace({ linkMode }, 'first', 'second');
    for (const text of texts) {
      const seen: string[] = [];
      const unsynced = replay(text, ({ from, to }, now) => {
        if (!to.startsWith(`${storeRoot}/`)) return;
        const place = to.slice(storeRoot.length + 1);
        // Only a help: a tree without a sound marker is kept, and marked again.
        if (place.endsWith('/.retired-at')) return;
        // Whatever gets a name outside of staging is complete.
        if (!place.startsWith('.hf/staging')) expect([place, now.below(from)]).toEqual([place, []]);
        if (place.startsWith('cache/.cs-integrity/')) {
          seen.push('marker');
          // Entries and their records; the folder of the markers, and other markers, vouch for nothing.
          const entries = [...now.below(`${storeRoot}/cache`), ...now.below(`${storeRoot}/.hf/index`)];
          expect(entries.filter((path) => !path.startsWith(`${storeRoot}/cache/.cs-integrity`))).toEqual([]);
        } else if (place.startsWith('trees/')) {
          seen.push('tree');
        } else if (place === 'current') {
          seen.push('current');
          expect(now.below(`${storeRoot}/trees`).filter((path) => !path.endsWith('/.retired-at'))).toEqual([]);
        }
      });
      expect(seen.filter((step) => step !== 'marker')).toEqual(['tree', 'current']);
      // At the end everything that was promised is on the disk, and so are the names of the folders above.
      // What is private and may be lost: locks, staging, the help of `.retired-at`.
      const left = [...unsynced.bytes, ...unsynced.names].filter((path) => path.startsWith(join(storeRoot, '..')));
      expect(left.filter((path) => !/\/\.hf\/(staging|lock|pins|trash|\.hf-probe)|\/\.retired-at/.test(path))).toEqual([]);
    }
    expect(texts[0]!.match(/rename.*cs-integrity/g)).toHaveLength(4);
  });

  test('without durability the same check fails', () => {
    const { storeRoot, texts } = trace({ durability: 'none' }, 'h');
    const bad: string[] = [];
    replay(texts[0]!, ({ from, to }, now) => {
      if (to === `${storeRoot}/trees/h`) bad.push(...now.below(from));
    });
    expect(bad.length).toBeGreaterThan(5);
  });
});
