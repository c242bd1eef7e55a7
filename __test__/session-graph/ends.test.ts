// @pool forks: what counts happens in processes of its own.
/** Processes and threads that end with calls in flight: what was told is there, the exit code is theirs, and nobody crashes. */
import { expect, test } from 'vitest';

import { startChild } from '../support/child';
import { newFile, open } from './support';

const program = `${__dirname}/fixtures/ends-child.mjs`;

/** Runs the child to its end, and looks at what it left. */
async function run(how: string, ms: number) {
  const path = newFile();
  const child = startChild(program, how, String(ms), path);
  const { code, signal, err } = await child.ended;
  const store = await open(path);
  const session = await store.loadSession({ scope: 'fullGraph' });
  const there = new Set(session?.graph.nodes.map(({ nodeId }) => nodeId));
  const told = child.lines.filter((line) => line.startsWith('done ')).map((line) => line.slice(5));
  expect(told.filter((id) => !there.has(id)), 'told, and gone').toEqual([]);
  expect(there.size).toBe(session?.headRevision ?? 0);
  expect(await store.verify({ deep: true })).toEqual([]);
  expect(child.lines.filter((line) => line.startsWith('failed')).filter((line) => !line.includes('closed'))).toEqual([]);
  return { code, signal, err, told: told.length, lines: child.lines, store };
}

test.each([0, 30, 90])('process.exit %i ms after the first call', async (ms) => {
  const { code, signal, err, told } = await run('exit', ms);
  expect({ code, signal, err }).toEqual({ code: 7, signal: null, err: '' });
  if (ms === 90) expect(told).toBeGreaterThan(0);
});

test('an uncaught exception', async () => {
  const { code, signal, err } = await run('throw', 40);
  expect({ code, signal }).toEqual({ code: 1, signal: null });
  expect(err).toContain('on purpose');
});

test.each([3, 23])('threads that are ended in the middle of calls, each %i ms later than the one before', async (ms) => {
  const { code, signal, err, told, lines, store } = await run('terminate', ms);
  expect({ code, signal, err }).toEqual({ code: 0, signal: null, err: '' });
  expect(lines.at(-1)).toBe('terminated');
  expect(told).toBeGreaterThan(0);
  expect((await store.tokenLedger())[0]?.usage.inputTokens).toBe(6);
});

test('a store that is open and idle keeps no process', async () => {
  const { code, lines, store } = await run('idle', 0);
  expect([code, lines]).toEqual([0, ['idle']]);
  expect(await store.getNamedArtifact('a')).toEqual(new Uint8Array([1]));
});
