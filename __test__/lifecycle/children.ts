/** Processes that work on session stores, for tests that kill them. */
import { spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { OpenSessionStoreOptions } from 'holdfast';
import { afterEach } from 'vitest';

import { freshSchema } from '../support/postgres';
import { tempDir } from './support';

const children: ChildProcess[] = [];

afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

export interface Child {
  process: ChildProcess;
  lines: string[];
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null; err: string }>;
  send(text: string): void;
  kill(): Promise<void>;
  /** The rest of the first line that begins with `start`; rejects if the child ends without. */
  line(start: string): Promise<string>;
}

/** Where a store is, for processes. */
export type SharedPlace = Pick<OpenSessionStoreOptions, 'dataDir' | 'connectionString' | 'schema'>;

/** Every back end that processes can share. */
export const SHARED: { name: string; make: () => Promise<SharedPlace> }[] = [
  { name: 'SQLite', make: async () => ({ dataDir: join(tempDir(), 'made', 'by', 'them') }) },
  {
    name: 'PostgreSQL',
    make: async () => {
      const { url, schema } = await freshSchema();
      return { connectionString: url, schema };
    },
  },
];

const fixture = fileURLToPath(new URL('./fixtures/lifecycle-child.mjs', import.meta.url));

/** Starts `fixtures/lifecycle-child.mjs` on the runtime that runs the tests. It is killed after 45 seconds, or at the end of the test. */
export function start(place: OpenSessionStoreOptions, ...args: string[]): Child {
  const child = spawn(process.execPath, [fixture, JSON.stringify(place), ...args], { timeout: 45_000, killSignal: 'SIGKILL' });
  children.push(child);
  const lines: string[] = [];
  let [err, rest, over] = ['', '', false];
  const looks = new Set<() => void>();
  const notify = (): void => looks.forEach((look) => look());
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    const parts = (rest + chunk).split('\n');
    rest = parts.pop() ?? '';
    lines.push(...parts);
    notify();
  });
  child.stderr.on('data', (chunk) => (err += chunk));
  child.stdin.on('error', () => {});
  const ended = new Promise<Awaited<Child['ended']>>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      over = true;
      resolve({ code, signal, err });
      notify();
    });
  });
  return {
    process: child,
    lines,
    ended,
    send: (text) => void child.stdin.write(`${text}\n`),
    kill: async () => {
      child.kill('SIGKILL');
      await ended;
    },
    line: (begin) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const found = lines.find((line) => line.startsWith(begin));
          if (found === undefined && !over) return;
          looks.delete(look);
          if (found !== undefined) resolve(found.slice(begin.length).trim());
          else reject(new Error(`the child ended without printing ${begin}: ${lines.slice(-20).join('\n').slice(0, 4000)}${err}`));
        };
        looks.add(look);
        look();
      }),
  };
}

/** Runs the child to its end; what it printed after `start`, as JSON. */
export async function ask<T>(place: OpenSessionStoreOptions, start_: string, ...args: string[]): Promise<T> {
  const child = start(place, ...args);
  const answer = JSON.parse(await child.line(start_)) as T;
  const { code, err } = await child.ended;
  if (code !== 0) throw new Error(`the child ended with ${code}: ${err}`);
  return answer;
}
