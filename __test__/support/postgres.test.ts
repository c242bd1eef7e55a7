// @pool forks: what counts happens in processes of its own.
// The server that the other tests rely on: it is real, keeps what was committed through a kill, and turns nothing down.
import { Client } from 'pg';
import { describe, expect, test } from 'vitest';

import { freshSchema, postgresUrl, query, restartablePostgres } from './postgres';

describe('the Postgres of the suite', () => {
  test('is there, and syncs', async () => {
    expect(await query(`SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS commit`)).toEqual([
      { fsync: 'on', commit: 'on' },
    ]);
  });

  test('gives schemas of their own, found by search_path, and drops them', async () => {
    const first = await freshSchema();
    const second = await freshSchema();
    await query('CREATE TABLE thing (n int)', [], first.url);
    expect(await query(`SELECT to_regclass('thing')::text AS name`, [], first.url)).toEqual([{ name: 'thing' }]);
    expect(await query(`SELECT to_regclass('thing')::text AS name`, [], second.url)).toEqual([{ name: null }]);
    await first.drop();
    expect(await query('SELECT FROM pg_namespace WHERE nspname = $1', [first.schema])).toEqual([]);
    await expect(first.drop()).resolves.toBeUndefined();
  });

  test('has servers that can be killed and started again', async () => {
    const server = await restartablePostgres('-c', 'max_connections=7');
    await query('CREATE TABLE kept AS SELECT 1 AS n', [], server.url);
    const open = new Client({ connectionString: server.url });
    await open.connect();
    const cut = new Promise<Error>((resolve) => open.on('error', resolve));
    const before = server.pid();
    await server.kill();
    expect(await cut).toBeInstanceOf(Error);
    await expect(query('SELECT 1', [], server.url)).rejects.toThrow();
    await server.start();
    expect(server.pid()).not.toBe(before);
    expect(await query(`SELECT n, current_setting('max_connections') AS max FROM kept`, [], server.url)).toEqual([{ n: 1, max: '7' }]);
    expect(server.url).not.toBe(postgresUrl());
  });
});
