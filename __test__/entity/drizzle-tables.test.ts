// `holdfast/drizzle`: the tables as drizzle sees them, which is another copy of drizzle-orm than the one that a program imports.
import { getTableName, is, eq, Table } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { getTableConfig } from 'drizzle-orm/pg-core';
import { createEntityStore } from 'holdfast';
import { durableEntityTransitions, entityChanges, entityIntents, entityMeta, entityTransitions } from 'holdfast/drizzle';
import { readFileSync } from 'node:fs';
import { Pool } from 'pg';
import { describe, expect, onTestFinished, test } from 'vitest';

import { createDelegate } from '../../src-js/entity/delegate-store';
import type { DrizzleDatabase } from '../../src-js/entity/drizzle-target';
import { freshSchema, query, type FreshSchema } from '../support/postgres';
import { createTables } from './drizzle-ddl';

const columnsOf = (table: Parameters<typeof getTableConfig>[0]): Record<string, string> =>
  Object.fromEntries(
    getTableConfig(table).columns.map((column) => [column.name, `${column.getSQLType()}${column.notNull ? ' NOT NULL' : ''}${column.primary ? ' PRIMARY KEY' : ''}`]),
  );

describe('the tables', () => {
  test("the transition log is the original's", () => {
    expect(is(entityTransitions, Table)).toBe(true);
    expect(getTableName(entityTransitions)).toBe('entity_transitions');
    expect(columnsOf(entityTransitions)).toEqual({
      id: 'text NOT NULL PRIMARY KEY',
      kind: 'text NOT NULL',
      entity_id: 'text NOT NULL',
      field: 'text NOT NULL',
      from_value: 'text',
      to_value: 'text NOT NULL',
      transitioned_at: 'timestamp NOT NULL',
    });
    const [index] = getTableConfig(entityTransitions).indexes;
    expect(index!.config.name).toBe('entity_transitions_lookup_idx');
    expect(index!.config.columns.map((column) => (column as { name?: string }).name)).toEqual(['kind', 'entity_id', 'field', 'transitioned_at']);
  });

  test('the others are those that a store of holdfast makes for itself, column by column, index by index', async () => {
    const own = await freshSchema();
    const ddl = readFileSync(new URL('../../migrations/postgres/entity/0001_transition_log.sql', import.meta.url), 'utf8');
    await query(ddl.replaceAll('{schema}', own.schema), undefined, own.url);
    const drizzled = await freshSchema();
    await createTables(drizzled, [durableEntityTransitions, entityChanges, entityIntents, entityMeta]);
    expect(await shapeOf(drizzled)).toEqual(await shapeOf(own));
  });

  test.each([
    ['native', 'timestamp', [entityTransitions]],
    ['delegate', 'timestamp', [entityTransitions]],
    ['native', 'timestamptz', [durableEntityTransitions]],
    ['delegate', 'timestamptz', [durableEntityTransitions]],
  ] as const)('made from the definitions, the %s driver works on %s', async (driver, _, tables) => {
    const place = await freshSchema();
    await createTables(place, tables);
    const pool = new Pool({ connectionString: place.url });
    onTestFinished(() => pool.end());
    const store = createEntityStore(drizzle(pool), { driver, retention: { maxRowsPerField: 1 } });
    onTestFinished(() => store.close());
    const key = { kind: 'incident', entityId: '7' };
    for (const [fromValue, toValue] of [[null, 'open'], ['open', 'done']] as const) {
      await store.runInTransaction((tx) => store.appendTransitions({ tx, ...key, transitions: [{ field: 'status', fromValue, toValue }] }));
    }
    const field = { ...key, field: 'status' };
    const since = await store.inStateSince({ ...field, currentValue: 'done' });
    expect(Math.abs(since!.getTime() - Date.now())).toBeLessThan(5_000);
    expect(await store.transitionCount({ ...field, windowMs: 60_000, now: new Date() })).toBe(2);
    expect((await store.history(key)).rows.map(({ fromValue, toValue }) => [fromValue, toValue])).toEqual([['open', 'done'], [null, 'open']]);
    expect(await store.isFlapping({ ...field, count: 2, windowMs: 60_000 })).toBe(true);
    expect(await store.prune()).toEqual({ deleted: 1 });
    const rows = await query<{ to_value: string; change_id?: string | null }>('SELECT * FROM entity_transitions', [], place.url);
    expect(rows).toMatchObject([{ to_value: 'done', ...(tables[0] === durableEntityTransitions && { change_id: expect.any(String), masked: false }) }]);
  });

  test("rows of the store and rows of drizzle are each other's", async () => {
    const place = await freshSchema();
    const { name, columns } = getTableConfig(entityTransitions);
    const lines = columns.map((column) => `${column.name} ${column.getSQLType()}${column.notNull ? ' NOT NULL' : ''}${column.primary ? ' PRIMARY KEY' : ''}`);
    await query(`CREATE TABLE ${name} (${lines.join(', ').replace('timestamp NOT NULL', 'timestamp NOT NULL DEFAULT now()')})`, [], place.url);
    const pool = new Pool({ connectionString: place.url });
    onTestFinished(() => pool.end());
    const db = drizzle({ client: pool, schema: { entityTransitions } });
    const store = createDelegate(db as unknown as DrizzleDatabase);
    await store.runInTransaction((tx) =>
      store.appendTransitions({ tx, kind: 'incident', entityId: '7', transitions: [{ field: 'status', fromValue: null, toValue: 'open' }] }),
    );
    const [row] = await db.select().from(entityTransitions).where(eq(entityTransitions.entityId, '7'));
    expect(row).toMatchObject({ kind: 'incident', field: 'status', fromValue: null, toValue: 'open' });
    // drizzle reads a zone-less time as UTC: so it was written.
    expect(Math.abs(row!.transitionedAt.getTime() - Date.now())).toBeLessThan(5_000);
    await db.insert(entityTransitions).values({ kind: 'incident', entityId: '7', field: 'status', fromValue: 'open', toValue: 'done', transitionedAt: new Date() });
    expect(await store.inStateSince({ kind: 'incident', entityId: '7', field: 'status', currentValue: 'done' })).toBeInstanceOf(Date);
    expect((await db.query.entityTransitions.findMany()).map((each) => each.toValue).sort()).toEqual(['done', 'open']);
  });
});

/** Columns, constraints and indexes of a schema, as the server sees them. */
async function shapeOf({ schema, url }: FreshSchema): Promise<unknown> {
  const columns = await query(
    `SELECT c.relname AS table, a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required, a.attidentity AS identity,
       pg_get_expr(d.adbin, d.adrelid) AS default
     FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, 2`,
    [schema],
    url,
  );
  const indexes = await query<{ def: string }>('SELECT pg_get_indexdef(indexrelid) AS def FROM pg_index JOIN pg_class c ON c.oid = indrelid WHERE relnamespace = $1::regnamespace ORDER BY 1', [schema], url);
  return { columns, indexes: indexes.map(({ def }) => def.replaceAll(`${schema}.`, '')).sort() };
}
