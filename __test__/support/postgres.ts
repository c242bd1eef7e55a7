/** Real Postgres for tests: the server of the run, a schema of one's own in it, or a whole server that may be killed. */
import { Client } from 'pg';
import { afterAll, inject, onTestFinished } from 'vitest';

import { startPostgres, type PostgresServer } from '../../scripts/postgres.mjs';
import './postgres-setup';

/** The server of this run, as a superuser: the embedded one, or what `DATABASE_URL` names. */
export function postgresUrl(): string {
  return inject('postgresUrl');
}

/** Runs one statement (or several, without parameters) on a connection of its own; its rows. */
export async function query<Row = Record<string, unknown>>(text: string, values?: unknown[], url: string = postgresUrl()): Promise<Row[]> {
  const client = new Client({ connectionString: url });
  // A server that is killed cuts idle connections too, which `pg` reports as an event.
  client.on('error', () => {});
  await client.connect();
  try {
    return (await client.query(text, values)).rows as Row[];
  } finally {
    await client.end();
  }
}

/** An empty schema in the server of the run. */
export interface FreshSchema {
  readonly schema: string;
  /** The server's URL with `search_path` set to the schema, by the `options` parameter. */
  readonly url: string;
  /** Removes the schema with all that is in it; at the end of the file it is removed anyway. */
  drop(): Promise<void>;
}

/** Makes a schema that no other test uses. */
export async function freshSchema(): Promise<FreshSchema> {
  const schema = `hf_${crypto.randomUUID().replaceAll('-', '')}`;
  await query(`CREATE SCHEMA ${schema}`);
  leftovers.add(schema);
  const url = new URL(postgresUrl());
  url.searchParams.set('options', `-c search_path=${schema}`);
  const drop = async (): Promise<void> => {
    if (leftovers.delete(schema)) await query(`SET client_min_messages = warning; DROP SCHEMA ${schema} CASCADE`);
  };
  // `+` for a space is a matter of web forms; neither tokio-postgres nor libpq reads it so.
  return { schema, url: url.href.replaceAll('+', '%20'), drop };
}
const leftovers = new Set<string>();
afterAll(async () => {
  const schemas = [...leftovers];
  leftovers.clear();
  if (schemas.length > 0) await query(`SET client_min_messages = warning; DROP SCHEMA IF EXISTS ${schemas.join(', ')} CASCADE`);
});

/**
 * Starts a server that belongs to the calling test: `kill()` is SIGKILL, `start()` brings it back on the same port and data.
 * It is stopped when the test ends. `DATABASE_URL` does not change it: nobody's own server is killed here.
 */
export async function restartablePostgres(...flags: string[]): Promise<PostgresServer> {
  const server = await startPostgres({ flags });
  onTestFinished(() => server.stop());
  return server;
}
