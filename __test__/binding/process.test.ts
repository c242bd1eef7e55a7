// @pool forks: what counts happens in processes of its own.
/** The process and its workers may end at any moment, with any number of calls in flight. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { withFileLock } from 'holdfast';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-process-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  out: string;
  err: string;
}

/** Runs a fixture. One that hangs is killed after 20 seconds, which shows as `SIGKILL`. */
function run(fixture: string, ...args: string[]): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join(__dirname, 'fixtures', fixture), ...args], {
      timeout: 20_000,
      killSignal: 'SIGKILL',
    });
    let out = '';
    let err = '';
    child.stdout.on('data', (chunk) => (out += chunk));
    child.stderr.on('data', (chunk) => (err += chunk));
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, out, err }));
  });
}

describe('the end of the process', { timeout: 60_000 }, () => {
  it('waits for a pending call and comes by itself afterwards', async () => {
    expect(await run('flight.cjs', 'idle', '0', directory)).toEqual({ code: 0, signal: null, out: 'settled missing', err: '' });
  });

  it('waits for all of many', async () => {
    expect(await run('flight.cjs', 'natural', '0', directory)).toEqual({ code: 0, signal: null, out: 'all settled', err: '' });
  });

  it.each(['0', '1', '5', '20'])('may be process.exit() with calls in flight, after %s ms', async (delay) => {
    for (let round = 0; round < 5; round++) {
      expect(await run('flight.cjs', 'exit', delay, directory)).toEqual({ code: 7, signal: null, out: '', err: '' });
    }
  });

  it.each(['0', '5'])('may be an uncaught error with calls in flight, after %s ms', async (delay) => {
    for (let round = 0; round < 5; round++) {
      const { code, signal, err } = await run('flight.cjs', 'throw', delay, directory);
      expect({ code, signal }).toEqual({ code: 1, signal: null });
      expect(err).toContain('on purpose');
    }
  });

  it('leaves nothing that stops the next process', async () => {
    await run('flight.cjs', 'exit', '5', directory);
    expect(await run('flight.cjs', 'natural', '0', directory)).toMatchObject({ code: 0, out: 'all settled' });
    expect(readdirSync(directory).filter((name) => name.endsWith('.lock'))).toEqual([]);
  });
});

describe('the end of a worker', { timeout: 60_000 }, () => {
  it.each(['yes', 'no'])(
    'may come at any time: 3 x 20 are terminated with calls in flight and locks held (addon in the main thread: %s)',
    async (loadInMain) => {
      const { code, signal, out, err } = await run('churn.cjs', '3', '20', loadInMain, directory);
      expect({ code, signal, err }).toEqual({ code: 0, signal: null, err: '' });
      expect(JSON.parse(out)).toEqual({ errors: 0, locks: [] });
      // The locks are free for others, too.
      await withFileLock(join(directory, 'held-1'), async () => {}, { acquireTimeoutMs: 0 });
    },
  );
});
