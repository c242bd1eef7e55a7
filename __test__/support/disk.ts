/** Small disks of their own, filled to the last page, for tests of what a full disk does. They need Linux, root and the right to mount. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const mounted: string[] = [];
export const mount = (...args: string[]): Buffer => execFileSync('mount', args, { stdio: 'pipe' });

/** For after each test, once nothing is open there any more. */
export function unmountDisks(): void {
  for (const dir of mounted.splice(0)) {
    execFileSync('umount', ['-l', dir], { stdio: 'pipe' });
    rmSync(dir, { recursive: true, force: true });
  }
}

export const isRoot = process.getuid?.() === 0;

/** A disk of two megabytes. */
export function smallDisk(): string {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-mount-'));
  try {
    mount('-t', 'tmpfs', '-o', 'size=2m', 'holdfast-test', dir);
  } catch (error) {
    rmSync(dir, { recursive: true, force: true });
    throw error;
  }
  mounted.push(dir);
  return dir;
}

export const canMount = ((): boolean => {
  if (process.platform !== 'linux' || !isRoot) return false;
  try {
    smallDisk();
    unmountDisks();
    return true;
  } catch {
    return false;
  }
})();
if (!canMount) console.warn('SKIPPED: tests of full and read-only disks need Linux, root and the right to mount a tmpfs');

/** Fills the disk at `dir` and gives `pages` pages of 4 KiB back. */
export function fill(dir: string, pages: number): void {
  const filler = join(dir, 'filler');
  mkdirSync(filler, { recursive: true });
  for (const size of [65536, 4096]) {
    for (let i = 0; ; i++) {
      try {
        writeFileSync(join(filler, `${size}-${i}`), Buffer.alloc(size));
      } catch {
        rmSync(join(filler, `${size}-${i}`), { force: true });
        break;
      }
    }
  }
  for (let i = 0; i < pages; i++) rmSync(join(filler, `4096-${i}`), { force: true });
}

/** Takes the filling away. */
export const empty = (dir: string): void => rmSync(join(dir, 'filler'), { recursive: true, force: true });
