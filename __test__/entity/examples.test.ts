// @pool forks: what counts happens in processes of its own.
// The example programs, as processes of their own: each runs as it stands, and a second run on the same database goes on with the history.
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';

import { freshSchema, query } from '../support/postgres';
import { tempDir } from './support';

const folder = path.resolve(__dirname, '../../examples/entity');

/** Runs an example to its end, in an empty folder. */
function start(name: string, args: string[], databaseUrl?: string) {
  const env = { ...process.env, DATABASE_URL: databaseUrl, NO_COLOR: '1', FORCE_COLOR: undefined };
  return spawnSync(process.execPath, [path.join(folder, name), ...args], { cwd: tempDir(), encoding: 'utf8', env, timeout: 50_000 });
}

/** Runs an example that must succeed, and gives its lines; the time of day is left out. */
function run(name: string, args: string[], databaseUrl?: string): string[] {
  const began = Date.now();
  const { status, stdout, stderr } = start(name, args, databaseUrl);
  expect({ status, stderr }, stdout).toEqual({ status: 0, stderr: '' });
  const since = Date.parse(/^since {4}(\S+)$/m.exec(stdout)?.[1] ?? '');
  // The server's clock may be another one than ours.
  expect(Math.abs(since - began), stdout).toBeLessThan(databaseUrl === undefined ? 50_000 : 3_600_000);
  return stdout.replace(/^since .*$/m, 'since').split('\n');
}

const resolved = 'event    incident 7: note = fixed by deploy 12, status = resolved (by Ada)';
const once = 'history  null -> open, open -> resolved';
const first = ['event    incident 7: status = open (by Ada)', resolved];
const again = ['event    incident 7: note = null, status = open (by Ada)', resolved];
const alarm = ['event    incident 8: note = a false alarm, status = open (by Ada)', 'event    incident 8: removed (by Ada)'];
const firstAnswers = ['since', 'changes  2 of the status in the last hour', once, ''];
const secondAnswers = ['since', 'changes  4 of the status in the last hour', `${once}, resolved -> open, open -> resolved`, ''];

test('examples/entity/embedded.mjs, twice on one file', () => {
  const data = path.join(tempDir(), 'new', 'data');
  expect(run('embedded.mjs', [data])).toEqual([...first, ...alarm, ...firstAnswers]);
  expect(run('embedded.mjs', [data])).toEqual([...again, ...alarm, ...secondAnswers]);
  // Nothing of either process is left beside the two files: no log to replay, no mark of an owner.
  expect(readdirSync(data).sort()).toEqual(['entities.db', 'incidents.json']);
  expect(JSON.parse(readFileSync(path.join(data, 'incidents.json'), 'utf8'))).toEqual([['7', { status: 'resolved', note: 'fixed by deploy 12' }]]);
});

test('examples/entity/postgres.mjs, twice on one database', async () => {
  const { url, schema } = await freshSchema();
  expect(run('postgres.mjs', [], url)).toEqual([...first, ...alarm, ...firstAnswers]);
  expect(run('postgres.mjs', [], url)).toEqual([...again, ...alarm, ...secondAnswers]);
  expect(await tablesOf(schema)).toEqual(['entity_changes', 'entity_intents', 'entity_meta', 'entity_transitions', 'holdfast_migrations', 'incidents']);
  expect(await query('SELECT id, status FROM incidents', [], url)).toEqual([{ id: '7', status: 'resolved' }]);
  // Two runs of four changes, all of them delivered, and no write that was begun and not ended.
  expect(await query('SELECT count(*)::int AS changes, count(delivered_at)::int AS delivered FROM entity_changes', [], url)).toEqual([{ changes: 8, delivered: 8 }]);
  expect(await query('SELECT FROM entity_intents', [], url)).toEqual([]);
});

test("examples/entity/drizzle.mjs, twice on the application's tables", async () => {
  const { url, schema } = await freshSchema();
  const created = 'event    incident 8: status = open (by Ada)';
  expect(run('drizzle.mjs', [], url)).toEqual([...first, created, ...firstAnswers]);
  expect(run('drizzle.mjs', [], url)).toEqual([...again, 'event    incident 8: removed (by Ada)', created, ...secondAnswers]);
  // No table but those that the application made, and what was written in its transaction was committed with it.
  expect(await tablesOf(schema)).toEqual(['entity_transitions', 'incidents']);
  expect(await query("SELECT from_value, to_value FROM entity_transitions WHERE entity_id = '8'", [], url)).toEqual([
    { from_value: null, to_value: 'open' },
    { from_value: null, to_value: 'open' },
  ]);
  expect(await query("SELECT status FROM incidents WHERE id = '8'", [], url)).toEqual([{ status: 'open' }]);
});

test("examples/entity/first-handle.mjs is the README's, and prints what that says", () => {
  const readme = readFileSync(path.resolve(folder, '../../README.md'), 'utf8');
  const [, program, printed] = /```js first-handle\.mjs\n([\s\S]*?)```\n\n```text\n([\s\S]*?)```/.exec(readme) ?? [];
  expect(readFileSync(path.join(folder, 'first-handle.mjs'), 'utf8')).toBe(program);
  const { status, stdout, stderr } = start('first-handle.mjs', []);
  expect({ status, stderr, stdout }).toEqual({ status: 0, stderr: '', stdout: printed });
});

test.each(['postgres.mjs', 'drizzle.mjs'])('examples/entity/%s says what it needs', (name) => {
  const { status, stderr } = start(name, []);
  expect(status).toBe(1);
  expect(stderr).toContain('set DATABASE_URL to the database to use');
});

async function tablesOf(schema: string): Promise<string[]> {
  const rows = await query<{ name: string }>('SELECT table_name::text AS name FROM information_schema.tables WHERE table_schema = $1 ORDER BY 1', [schema]);
  return rows.map(({ name }) => name);
}
