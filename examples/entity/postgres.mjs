// Incidents of a backend that keeps them in Postgres. holdfast keeps their history in the same database, in tables of its own, which it
// makes on first use. Run as many of these processes as you like.
//
//   DATABASE_URL=postgres://… node examples/entity/postgres.mjs
//   node scripts/postgres.mjs node examples/entity/postgres.mjs      with a throw-away server
import { createChangeEmitter, createEntityRegistry, createEntityStore, createRunSecretRegistry } from 'holdfast/entity';
import { Pool } from 'pg';
import * as z from 'zod';

const connectionString = process.env.DATABASE_URL;
if (!connectionString) throw new Error('set DATABASE_URL to the database to use');

// ── the backend's own state, in its own table ──

const pool = new Pool({ connectionString });
await pool.query('CREATE TABLE IF NOT EXISTS incidents (id text PRIMARY KEY, status text NOT NULL, note text)');

async function save(id, status, note) {
  const upsert = `INSERT INTO incidents (id, status, note) VALUES ($1, $2, $3)
    ON CONFLICT (id) DO UPDATE SET status = excluded.status, note = excluded.note RETURNING status, note`;
  return (await pool.query(upsert, [id, status, note])).rows[0];
}

// ── making it reactive ──

const emitter = createChangeEmitter();
const registry = createEntityRegistry({ secretRegistry: createRunSecretRegistry(), emitter, logger: console });
const incident = registry.defineEntity({
  kind: 'incident',
  state: z.object({ status: z.enum(['open', 'resolved']), note: z.string().nullable() }),
  // One query for any number of ids.
  read: async (ids) => {
    const { rows } = await pool.query('SELECT id, status, note FROM incidents WHERE id = ANY($1)', [ids]);
    return Object.fromEntries(rows.map(({ id, ...state }) => [id, state]));
  },
});

// Before `ready()`: it delivers what a process that died could not. A change can come twice, then with the same `changeId`.
await emitter.wire(async ({ kind, id, next, changedFields, actor }) => {
  const what = next === null ? 'removed' : changedFields.map((field) => `${field} = ${next[field]}`).join(', ');
  console.log(`event    ${kind} ${id}: ${what} (by ${actor.name})`);
});

const store = createEntityStore({ connectionString }, { logger: console });
registry.setStore({ store });
await store.ready();

// ── using it ──

const ada = { type: 'user', id: 'u-1', name: 'Ada' };
await incident.mutate({ id: '7', opts: { actor: ada }, apply: () => save('7', 'open', null) });
await incident.mutate({ id: '7', opts: { actor: ada }, apply: () => save('7', 'resolved', 'fixed by deploy 12') });
await incident.mutate({ id: '8', opts: { actor: ada }, apply: () => save('8', 'open', 'a false alarm') });
await incident.remove({ id: '8', opts: { actor: ada }, apply: () => pool.query("DELETE FROM incidents WHERE id = '8'") });

const since = await incident.inStateSince('7', 'status');
const count = await incident.transitionCount({ id: '7', field: 'status', windowMs: 3_600_000 });
console.log(`since    ${since.toISOString()}`);
console.log(`changes  ${count} of the status in the last hour`);

const { rows } = await store.history({ kind: 'incident', entityId: '7', field: 'status' });
console.log(`history  ${rows.reverse().map(({ fromValue, toValue }) => `${fromValue} -> ${toValue}`).join(', ')}`);

await store.close();
await pool.end();
