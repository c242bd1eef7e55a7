// @pool forks: what counts happens in processes of its own.
// The example program, as a process of its own: two workers are killed, and the conversation is as if they had not been.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';

import { tempDir } from './support';

test('examples/session-graph/agent.mjs: two workers are killed, in a thought and in a commit; nothing is doubled, nothing is lost', () => {
  const program = path.resolve(__dirname, '../../examples/session-graph/agent.mjs');
  const scratch = tempDir();
  const env = { ...process.env, TMPDIR: scratch, NO_COLOR: '1', FORCE_COLOR: undefined };
  const { status, stdout, stderr } = spawnSync(process.execPath, [program], { encoding: 'utf8', env, timeout: 50_000 });
  expect({ status, stderr }, stdout).toEqual({ status: 0, stderr: '' });
  expect(stdout.split('\n')).toEqual([
    '4 messages came, one of them twice; 3 wait',
    '  worker-1 has "hello", fencing token 1',
    '  worker-1 committed revision 1',
    '  worker-1 has "what is 19 + 23?", fencing token 2',
    '  kill -9 for worker-1',
    '  worker-2 has "what is 19 + 23?", fencing token 3',
    '  worker-2 committed revision 2',
    '  worker-2 has "thank you", fencing token 4',
    '  kill -9 for worker-2',
    '  the supervisor sent the turn again: revision 3',
    'the conversation',
    '  user: hello',
    '  agent: you said: hello',
    '  user: what is 19 + 23?',
    '  agent: 42',
    '  user: thank you',
    '  agent: you said: thank you',
    '3 turns, 30 tokens in, 15 out; 0 messages wait',
    'the file is sound',
    '',
  ]);
  expect(readdirSync(scratch), 'what the program made is removed').toEqual([]);
});
