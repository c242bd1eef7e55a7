/**
 * One Postgres server for the whole run of the suite, whatever the pool or runtime; `DATABASE_URL` names another one.
 * It starts in about a second, and its folder is gone after the run, also after a killed one.
 */
import type { TestProject } from 'vitest/node';

import { startPostgres } from '../../scripts/postgres.mjs';

declare module 'vitest' {
  export interface ProvidedContext {
    postgresUrl: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const given = process.env.DATABASE_URL;
  const server = given ? null : await startPostgres();
  project.provide('postgresUrl', given || server!.url);
  return async () => server?.stop();
}
