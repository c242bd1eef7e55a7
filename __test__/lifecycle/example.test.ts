// @pool forks: what counts happens in processes of its own.
// The example program, as a process of its own: a supervisor and an agent are killed, and nothing is lost.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';

import { tempDir } from './support';

test('examples/lifecycle/supervise.mjs: a supervisor and an agent are killed; the next one adopts, finds the dead, restores', () => {
  const program = path.resolve(__dirname, '../../examples/lifecycle/supervise.mjs');
  const scratch = tempDir();
  const env = { ...process.env, TMPDIR: scratch, NO_COLOR: '1', FORCE_COLOR: undefined };
  const { status, stdout, stderr } = spawnSync(process.execPath, [program], { encoding: 'utf8', env, timeout: 50_000 });
  expect({ status, stderr }, stdout).toEqual({ status: 0, stderr: '' });
  expect(stdout.split('\n')).toEqual([
    'first supervisor',
    '  demo-1 is spawning',
    '  demo-2 is spawning',
    '  demo-3 is spawning',
    '  the dashboard has seen 6 changes',
    '  kill -9 for the supervisor, and for one agent',
    'second supervisor',
    '  page about demo-2: Agent process exited unexpectedly.',
    '  adopted demo-1, demo-3; lost demo-2',
    '  demo-2 is spawning again',
    '  demo-1 is killed',
    '  demo-2 is spawning',
    '  demo-3 is spawning',
    '  the dashboard hears: session_updated demo-2 terminated runtime_lost',
    '  the dashboard hears: session_updated demo-2 not_started',
    '  the dashboard hears: session_updated demo-1 terminated manually_killed',
    '',
  ]);
  expect(readdirSync(scratch), 'workspaces and state are removed, so agents that are left would end, too').toEqual([]);
});
