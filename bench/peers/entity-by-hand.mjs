// What a backend writes itself over drizzle and pg: read, apply, validate, compare as JSON, then BEGIN, INSERT of the changed
// fields, COMMIT, then tell the subscribers. No intent, no outbox, no order: a crash between the steps loses history and event.
import { randomUUID } from 'node:crypto';
import { drizzle } from 'drizzle-orm/node-postgres';
import { index, pgTable, text, timestamp } from 'drizzle-orm/pg-core';
import pg from 'pg';
import { z } from 'zod';
import { statesInMemory, statesInPostgres } from '../entity-owner.mjs';

const columns = {
  id: text('id').primaryKey(),
  kind: text('kind').notNull(),
  entityId: text('entity_id').notNull(),
  field: text('field').notNull(),
  fromValue: text('from_value'),
  toValue: text('to_value').notNull(),
  at: timestamp('transitioned_at').notNull().defaultNow(),
};
const log = pgTable('entity_transitions', columns, (table) => [index('lookup').on(table.kind, table.entityId, table.field, table.at)]);
const ddl = [
  `CREATE TABLE entity_transitions (id text PRIMARY KEY, kind text NOT NULL, entity_id text NOT NULL, field text NOT NULL, from_value text,
    to_value text NOT NULL, transitioned_at timestamp NOT NULL DEFAULT now())`,
  'CREATE INDEX lookup ON entity_transitions (kind, entity_id, field, transitioned_at)',
];
const schema = z.looseObject({});
const stable = (value) =>
  typeof value !== 'object' || value === null
    ? (JSON.stringify(value) ?? 'null')
    : Array.isArray(value)
      ? `[${value.map(stable).join(',')}]`
      : `{${Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${stable(value[key])}`).join(',')}}`;
const plain = (value) => (typeof value === 'string' ? value : stable(value));

export async function openEntity({ target, url }) {
  if (target !== 'postgres' && target !== 'postgres log') return null;
  const database = await statesInPostgres(url, ddl);
  const owner = target === 'postgres' ? database : statesInMemory();
  const db = drizzle(database.pool);
  let sent = 0;
  const subscriber = async () => void sent++;
  return {
    async mutate(id, state) {
      const prev = (await owner.read([id]))[id] ?? null;
      const next = schema.parse(await owner.write(id, state));
      const fields = [...new Set([...Object.keys(prev ?? {}), ...Object.keys(next)])];
      const changed = fields.filter((field) => stable(prev?.[field] ?? null) !== stable(next[field] ?? null));
      if (changed.length === 0) return next;
      const row = (field) => {
        return { id: randomUUID(), kind: 'bench', entityId: id, field, fromValue: prev && plain(prev[field]), toValue: plain(next[field]) };
      };
      await db.transaction((tx) => tx.insert(log).values(changed.sort().map(row)));
      const delta = Object.fromEntries(changed.map((field) => [field, next[field]]));
      await subscriber({ kind: 'bench', id, prev, next, changedFields: changed, delta, occurredAt: new Date().toISOString() });
      return next;
    },
    sent: () => sent,
    close: () => database.close(),
  };
}
