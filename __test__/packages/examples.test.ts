// @pool forks: what counts happens in processes of its own.
// The example programs, as processes of their own.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { expect, test } from 'vitest';

import { names, tempDir } from './support';

test('examples/packages/install.mjs: a set, a program, an update of one package, the way back', () => {
  const folder = path.join(tempDir(), 'data');
  const program = path.resolve(__dirname, '../../examples/packages/install.mjs');
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, folder], { encoding: 'utf8', env: { ...process.env, NO_COLOR: '1' } });
  expect({ status, stderr }, stdout).toEqual({ status: 0, stderr: '' });
  const lines = stdout.replace(/\(\d+ KB\)/g, '(KB)').replace(/^(pulled {4})(?:[^,\n]+, )+(?=zod)/gm, '$1…, ');
  expect(lines.split('\n')).toEqual([
    'published 17 blobs',
    'delta     17 of 17 packages are missing',
    expect.stringMatching(/^pulled {4}…, zod@3\.\S+ \(KB\)$/),
    expect.stringMatching(/^program {3}\{"port":8080\} by zod 3\./),
    'published 1 blob',
    'delta     1 of 17 packages are missing',
    expect.stringMatching(/^pulled {4}zod@4\.\S+ \(KB\)$/),
    expect.stringMatching(/^program {3}\{"port":8080\} by zod 4\./),
    'nothing to do',
    'rolled back',
    expect.stringMatching(/^program .* by zod 3\./),
    '',
  ]);
  expect(names(path.join(folder, 'host/trees'))).toHaveLength(2);
});
