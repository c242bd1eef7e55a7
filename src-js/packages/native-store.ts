/** One store root in the addon, with its log lines and progress. */
import { resolve } from 'node:path';
import { callSync, call, native } from '../native';
import { checkFolder, checkLogger } from './arguments';
import { quietLogger } from './support';
import type { PackagesLogger } from './types';

type Inner = InstanceType<typeof native.PackagesStore>;

/** How often the facade looks how far a build is, in milliseconds. */
const LOOK_MS = 100;

/** How far the building of a tree is. */
export interface LinkProgress {
  packages: number;
  packagesTotal: number;
  files: number;
  filesTotal: number;
  bytes: number;
  bytesTotal: number;
}

export class NativePackages {
  readonly inner: Inner;
  private readonly logger: PackagesLogger | undefined;

  constructor(
    storeRoot: string,
    options: object,
    logger: PackagesLogger | undefined,
  ) {
    this.logger = quietLogger(checkLogger(logger));
    this.inner = callSync(() => new native.PackagesStore(resolve(checkFolder(storeRoot, 'storeRoot')), JSON.stringify(options)));
  }

  /** Runs a call; what it logs and how far it is goes to the caller meanwhile, and at its end. `onProgress` must not throw. */
  async run<T>(start: (inner: Inner) => Promise<T>, onProgress?: (progress: LinkProgress) => void): Promise<T> {
    const timer = onProgress && setInterval(() => this.tell(onProgress), LOOK_MS);
    timer?.unref?.();
    try {
      return await call(start(this.inner));
    } finally {
      clearInterval(timer);
      this.tell(onProgress);
    }
  }

  private tell(onProgress: ((progress: LinkProgress) => void) | undefined): void {
    const text = this.inner.told();
    if (text == null) return;
    const { lines, progress } = JSON.parse(text) as { lines: ['debug' | 'error', string][]; progress: LinkProgress | null };
    for (const [level, line] of lines) this.logger?.[level](line);
    if (progress !== null) onProgress?.(progress);
  }
}
