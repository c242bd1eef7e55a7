/** The facade's side of the boundary: failure objects become errors, signals become tokens, a missing addon is explained. */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HoldfastError, RuntimeStorePathError } from 'holdfast';
import { describe, expect, it } from 'vitest';

// Internals, which the package does not export, as the build made them.
const root = join(__dirname, '..', '..');
const load = createRequire(join(root, 'package.json'));
const { call, callSync } = load('./dist/native.js') as typeof import('../../src-js/native');
const { withSignal } = load('./dist/signal.js') as typeof import('../../src-js/signal');

const failure = {
  class: 'RuntimeStorePathError',
  code: 'HF_RUNTIME_PATH_ESCAPES',
  hfCode: 'HF_RUNTIME_PATH_ESCAPES',
  message: 'outside',
  fields: { relativePath: '../x' },
};

function throws(value: unknown): never {
  throw value;
}

describe('call', () => {
  it('rethrows a failure as its class, from the frame of the caller', async () => {
    async function theCaller(): Promise<never> {
      return await call(Promise.resolve().then((): never => throws(failure)));
    }
    const error = await theCaller().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(RuntimeStorePathError);
    expect(error).toBeInstanceOf(HoldfastError);
    expect(error).toMatchObject({ name: 'RuntimeStorePathError', message: 'outside', hfCode: failure.hfCode, relativePath: '../x' });
    expect((error as Error).stack).toMatch(/^RuntimeStorePathError: outside\n/);
    expect((error as Error).stack).toContain('theCaller');
    expect((error as Error).stack).not.toMatch(/dist.native/);
  });

  it('passes results and other rejections', async () => {
    const other = new TypeError('other');
    await expect(call(Promise.resolve(5))).resolves.toBe(5);
    await expect(call(Promise.reject(other))).rejects.toBe(other);
    await expect(call(Promise.reject(null))).rejects.toBeNull();
  });
});

describe('callSync', () => {
  it('rethrows a failure as its class, from the frame of the caller', () => {
    function theCaller(): unknown {
      // Not a tail call: Bun's engine drops the frames of those.
      const result: unknown = callSync(() => throws(failure));
      return result;
    }
    try {
      theCaller();
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(RuntimeStorePathError);
      expect((error as Error).stack).toMatch(/^RuntimeStorePathError: outside\n\s+at theCaller /);
    }
  });

  it('passes results and other errors', () => {
    const other = new TypeError('other');
    expect(callSync(() => 5)).toBe(5);
    expect(() => callSync(() => throws(other))).toThrow(other);
  });
});

describe('withSignal', () => {
  it('rejects with the reason of a signal that has aborted, and starts nothing', async () => {
    const reason = { why: 'before' };
    let started = false;
    const start = async (): Promise<void> => void (started = true);
    await expect(withSignal(AbortSignal.abort(reason), start)).rejects.toBe(reason);
    expect(started).toBe(false);
  });

  it('rejects with the reason when the work gives up after the abort', async () => {
    const controller = new AbortController();
    const reason = { why: 'during' };
    const work = withSignal(controller.signal, async () => {
      await new Promise((resolve) => controller.signal.addEventListener('abort', resolve));
      throw new Error('cancelled');
    });
    controller.abort(reason);
    await expect(work).rejects.toBe(reason);
  });

  it('keeps a result that came in spite of the abort, and an error without one', async () => {
    const controller = new AbortController();
    const kept = withSignal(controller.signal, async () => {
      controller.abort();
      return 'done';
    });
    await expect(kept).resolves.toBe('done');
    const error = new Error('own');
    await expect(withSignal(new AbortController().signal, () => Promise.reject(error))).rejects.toBe(error);
    await expect(withSignal(undefined, () => Promise.resolve(1))).resolves.toBe(1);
  });

  it('leaves no listener on a signal that lives on', async () => {
    const { signal } = new AbortController();
    let listeners = 0;
    const { addEventListener, removeEventListener } = signal;
    signal.addEventListener = (...args: Parameters<typeof addEventListener>) => {
      listeners += 1;
      addEventListener.apply(signal, args);
    };
    signal.removeEventListener = (...args: Parameters<typeof removeEventListener>) => {
      listeners -= 1;
      removeEventListener.apply(signal, args);
    };
    await withSignal(signal, () => Promise.resolve());
    await withSignal(signal, () => Promise.reject(new Error('own'))).catch(() => undefined);
    expect(listeners).toBe(0);
  });
});

describe('a package without its addon', () => {
  /** Loads a copy of the package with `loader` in place of the generated one and returns the error's message. */
  function messageOf(loader: string | undefined, version?: string): string {
    const copy = mkdtempSync(join(tmpdir(), 'holdfast-load-'));
    try {
      cpSync(join(root, 'dist'), join(copy, 'dist'), { recursive: true });
      writeFileSync(join(copy, 'package.json'), JSON.stringify({ name: 'holdfast', version: version ?? '0.0.0' }));
      if (loader !== undefined) writeFileSync(join(copy, 'native.cjs'), loader);
      const script = "try { require('./dist/native.js') } catch (error) { console.log(error.code + '\\n' + error.message) }";
      return execFileSync(process.execPath, ['-e', script], { cwd: copy, encoding: 'utf8' });
    } finally {
      rmSync(copy, { recursive: true, force: true });
    }
  }

  it('says where it runs, what was tried and what to do', () => {
    const message = messageOf("throw new Error('all failed', { cause: new Error('last', { cause: new Error('first\\nmore') }) })");
    expect(message).toMatch(/^ERR_DLOPEN_FAILED\nholdfast could not load its native addon\./);
    expect(message).toContain(`${process.platform} ${process.arch}`);
    expect(message).toContain(process.version);
    expect(message).toContain('Tried:\n  - first\n  - last\n');
    expect(message).toContain('npm install --include=optional');
    expect(message).toContain('npm run build');
  });

  it('says so when the loader itself is missing', () => {
    expect(messageOf(undefined)).toContain("Cannot find module '../native.cjs'");
  });

  it('refuses a binary of another version', () => {
    const message = messageOf("exports.version = () => '9.9.9'", '1.2.3');
    expect(message).toContain('a binary of version 9.9.9 was found, but this package is version 1.2.3');
  });
});
