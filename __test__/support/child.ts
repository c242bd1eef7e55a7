/** Child processes that tests talk with, line by line, and kill. */
import { spawn, type ChildProcess } from 'node:child_process';

const children: ChildProcess[] = [];

/** Kills what still runs. For after each test, before anything is removed that a child may use. */
export function killChildren(): void {
  for (const child of children.splice(0)) child.kill('SIGKILL');
}

/** A child process, and the lines that it printed. */
export interface Child {
  process: ChildProcess;
  lines: string[];
  /** Resolves to the first line that begins with `start`, once there is one; rejects when the child ends without. */
  line(start: string): Promise<string>;
  send(text: string): void;
  kill(): Promise<void>;
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null; err: string }>;
}

/** Starts the program `file` on the runtime that runs the tests. It is killed after 45 seconds, or by {@link killChildren}. */
export function startChild(file: string, ...args: string[]): Child {
  const child = spawn(process.execPath, [file, ...args], { timeout: 45_000, killSignal: 'SIGKILL' });
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
          if (found !== undefined) resolve(found);
          else reject(new Error(`${file} ended without printing ${begin}: ${lines.slice(-20).join('\n').slice(0, 4000)}${err}`));
        };
        looks.add(look);
        look();
      }),
  };
}
