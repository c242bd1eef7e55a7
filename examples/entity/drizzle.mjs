// Incidents of a backend that works with drizzle. It hands holdfast the database object that it has; the history goes to the table
// `entity_transitions`, which belongs to the application's own migrations.
//
//   DATABASE_URL=postgres://… node examples/entity/drizzle.mjs
//   node scripts/postgres.mjs node examples/entity/drizzle.mjs       with a throw-away server
import { eq, inArray, sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { pgTable, text } from 'drizzle-orm/pg-core';
import { entityTransitions } from 'holdfast/drizzle';
import { createChangeEmitter, createEntityHandle, createEntityRegistry, createEntityStore, createRunSecretRegistry } from 'holdfast/entity';
import { Pool } from 'pg';
import * as z from 'zod';

const connectionString = process.env.DATABASE_URL;
if (!connectionString) throw new Error('set DATABASE_URL to the database to use');

// ── the application's schema; export `entityTransitions` from it, and drizzle-kit writes its migration ──

const incidents = pgTable('incidents', { id: text('id').primaryKey(), status: text('status').notNull(), note: text('note') });
const pool = new Pool({ connectionString });
const db = drizzle(pool, { schema: { incidents, entityTransitions } });

// What drizzle-kit would have generated; holdfast makes no table in this mode.
await db.execute(sql`CREATE TABLE IF NOT EXISTS incidents (id text PRIMARY KEY, status text NOT NULL, note text)`);
await db.execute(sql`CREATE TABLE IF NOT EXISTS entity_transitions (
  id text PRIMARY KEY NOT NULL, kind text NOT NULL, entity_id text NOT NULL, field text NOT NULL,
  from_value text, to_value text NOT NULL, transitioned_at timestamp DEFAULT now() NOT NULL)`);
await db.execute(sql`CREATE INDEX IF NOT EXISTS entity_transitions_lookup_idx
  ON entity_transitions (kind, entity_id, field, transitioned_at)`);

// `on` is the database, or a transaction of it.
async function save(on, id, state) {
  await on.insert(incidents).values({ id, ...state }).onConflictDoUpdate({ target: incidents.id, set: state });
  return state;
}

async function readIncidents(on, ids) {
  const rows = await on.select().from(incidents).where(inArray(incidents.id, [...ids]));
  return Object.fromEntries(rows.map(({ id, ...state }) => [id, state]));
}

// ── making it reactive ──

const emitter = createChangeEmitter();
const secretRegistry = createRunSecretRegistry();
const registry = createEntityRegistry({ secretRegistry, emitter, logger: console });
const state = z.object({ status: z.enum(['open', 'resolved']), note: z.string().nullable() });
const incident = registry.defineEntity({ kind: 'incident', state, read: (ids) => readIncidents(db, ids) });
await emitter.wire(async ({ kind, id, next, changedFields, actor }) => {
  const what = next === null ? 'removed' : changedFields.map((field) => `${field} = ${next[field]}`).join(', ');
  console.log(`event    ${kind} ${id}: ${what} (by ${actor.name})`);
});

const store = createEntityStore(db, { logger: console });
registry.setStore({ store });
await store.ready();

// ── using it ──

const ada = { type: 'user', id: 'u-1', name: 'Ada' };
await incident.mutate({ id: '7', opts: { actor: ada }, apply: () => save(db, '7', { status: 'open', note: null }) });
await incident.mutate({ id: '7', opts: { actor: ada }, apply: () => save(db, '7', { status: 'resolved', note: 'fixed by deploy 12' }) });
await incident.remove({ id: '8', opts: { actor: ada }, apply: () => db.delete(incidents).where(eq(incidents.id, '8')) });

// State and history in one transaction: both are committed, or neither. The events wait until that has happened.
const later = createChangeEmitter();
await db.transaction(async (tx) => {
  const inside = store.withTransaction(tx);
  const handle = createEntityHandle({ kind: 'incident', schema: state, store: inside, emitter: later, secretRegistry, read: (ids) => readIncidents(tx, ids) });
  await handle.mutate({ id: '8', opts: { actor: ada }, apply: () => save(tx, '8', { status: 'open', note: null }) });
});
await later.wire((change) => emitter.emit(change));

const since = await incident.inStateSince('7', 'status');
const count = await incident.transitionCount({ id: '7', field: 'status', windowMs: 3_600_000 });
console.log(`since    ${since.toISOString()}`);
console.log(`changes  ${count} of the status in the last hour`);

const { rows } = await store.history({ kind: 'incident', entityId: '7', field: 'status' });
console.log(`history  ${rows.reverse().map(({ fromValue, toValue }) => `${fromValue} -> ${toValue}`).join(', ')}`);

await store.close();
await pool.end();
