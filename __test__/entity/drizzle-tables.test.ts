// `holdfast/drizzle`: the tables as drizzle sees them, which is another copy of drizzle-orm than the one that a program imports.
import { getTableName, is, eq, Table } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { getTableConfig } from 'drizzle-orm/pg-core';
import { entityChanges, entityIntents, entityMeta, entityTransitions } from 'holdfast/drizzle';
import { Pool } from 'pg';
import { describe, expect, onTestFinished, test } from 'vitest';

import { createDelegate } from '../../src-js/entity/delegate-store';
import type { DrizzleDatabase } from '../../src-js/entity/drizzle-target';
import { freshSchema, query } from '../support/postgres';

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

  test('the others have zoned times, and an identity for the order', () => {
    expect(columnsOf(entityChanges)).toMatchObject({
      seq: 'bigint NOT NULL PRIMARY KEY',
      payload: 'jsonb NOT NULL',
      created_at: 'timestamp with time zone NOT NULL',
      delivered_at: 'timestamp with time zone',
    });
    expect(columnsOf(entityIntents)).toMatchObject({ change_id: 'text NOT NULL PRIMARY KEY', prev: 'text', run_id: 'text' });
    expect(columnsOf(entityMeta)).toEqual({ key: 'text NOT NULL PRIMARY KEY', value: 'text NOT NULL' });
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
