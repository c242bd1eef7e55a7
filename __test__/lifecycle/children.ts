/** Processes that work on session stores, for tests that kill them. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { OpenSessionStoreOptions } from 'holdfast';
import { afterEach } from 'vitest';

import { killChildren, startChild, type Child } from '../support/child';
import { freshSchema } from '../support/postgres';
import { tempDir } from './support';

afterEach(killChildren);

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

/** Starts `fixtures/lifecycle-child.mjs` on the runtime that runs the tests. It is killed after 45 seconds, or at the end of the test. What
 * `line` resolves to is the rest of the line. */
export function start(place: OpenSessionStoreOptions, ...args: string[]): Child {
  const child = startChild(fixture, JSON.stringify(place), ...args);
  return { ...child, line: async (begin) => (await child.line(begin)).slice(begin.length).trim() };
}

/** Runs the child to its end; what it printed after `start`, as JSON. */
export async function ask<T>(place: OpenSessionStoreOptions, start_: string, ...args: string[]): Promise<T> {
  const child = start(place, ...args);
  const answer = JSON.parse(await child.line(start_)) as T;
  const { code, err } = await child.ended;
  if (code !== 0) throw new Error(`the child ended with ${code}: ${err}`);
  return answer;
}
