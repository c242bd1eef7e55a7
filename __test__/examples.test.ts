// @pool forks: what counts happens in processes of its own.
// Every example runs as it stands, and the demo keeps what it promises: kills, repairs, and nothing lost.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const root = path.resolve(__dirname, '..');
const folder = path.join(root, 'examples/runtime-store');

describe('examples', () => {
  let scratch: string;

  beforeAll(() => {
    scratch = mkdtempSync(path.join(tmpdir(), 'holdfast-examples-'));
  });

  afterAll(() => rmSync(scratch, { recursive: true, force: true }));

  function run(name: string, ...args: string[]) {
    const env = { ...process.env, TMPDIR: scratch, NO_COLOR: undefined, FORCE_COLOR: undefined };
    return spawnSync(process.execPath, [path.join(folder, name), ...args], { cwd: scratch, encoding: 'utf8', env });
  }

  test('the demo kills, recovers and loses nothing', () => {
    const { status, stdout, stderr } = run('demo.mjs', '--seconds', '2', '--seed', '7');
    expect({ status, stderr }, stdout).toEqual({ status: 0, stderr: '' });
    expect(stdout).toContain('--seed 7');
    expect(stdout, 'no colours where nobody sees them').not.toContain('\x1b');
    expect(stdout.match(/^ +\d+\.\d s +kills +\d+ /gm)?.length).toBeGreaterThanOrEqual(1);

    // How many kills fit depends on the machine; three come in any case, the third at a named step.
    const figure = (name: string): number => Number(new RegExp(`^ {2}${name} +([\\d,.]+)`, 'm').exec(stdout)?.[1]?.replaceAll(',', '') ?? NaN);
    expect(figure('kills')).toBeGreaterThanOrEqual(3);
    expect(figure('batches acknowledged')).toBeGreaterThan(1);
    expect(figure('batches found')).toBeGreaterThanOrEqual(figure('batches acknowledged'));
    expect(figure('lost')).toBe(0);
    expect(figure('inconsistent')).toBe(0);
    expect(figure('roll-forwards')).toBeGreaterThanOrEqual(0);
    expect(figure('roll-backs')).toBeGreaterThanOrEqual(0);
    expect(figure('recovery time p50')).toBeGreaterThan(0);
    expect(figure('recovery time p99')).toBeGreaterThanOrEqual(figure('recovery time p50'));
    expect(readdirSync(scratch)).toEqual([]);
  });

  test('the table of the demo is aligned', () => {
    const lines = run('demo.mjs', '--seconds', '0.2', '--seed', '1').stdout.split('\n');
    const rows = lines.filter((line) => /^ {2}(kills|batches|lost|inconsistent|roll-|recovery time)/.test(line));
    expect(rows).toHaveLength(9);
    expect(new Set(rows.map((row) => /^ {2}\S+( \S+)* {2,}[\d,.]+( ms)?/.exec(row)?.[0].length)).size).toBe(1);
  });

  test('the demo refuses options that mean nothing', () => {
    for (const args of [['--seconds', 'soon'], ['--seconds', '0'], ['--seed', 'x']]) {
      const { status, stderr } = run('demo.mjs', ...args);
      expect(status).toBe(2);
      expect(stderr).toContain('usage:');
    }
  });

  test("the first program is the README's", () => {
    const printed = readFileSync(path.join(root, 'README.md'), 'utf8').split('```js first-program.mjs\n')[1]?.split('```')[0];
    expect(readFileSync(path.join(folder, 'first-program.mjs'), 'utf8')).toBe(printed);
    const { status, stdout, stderr } = run('first-program.mjs');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toContain('committed');
  });

  test('a damaged store is put aside and rebuilt', () => {
    const { status, stdout, stderr } = run('rebuild.mjs');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout.split('\n')).toEqual([
      'asked for opencode.sessionStore: quarantined, the bad bytes are in opencode-sessions.json.invalid_json.<time>.quarantine',
      'before: degraded, none, rebuild_from_provider',
      'steps:  quarantine, rebuild',
      'after:  none, none, none',
      '',
    ]);
  });
});
