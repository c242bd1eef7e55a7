// Incidents of a small backend, which keeps them in a JSON file of its own. holdfast keeps their history in a SQLite file beside it.
//
//   node examples/entity/embedded.mjs [FOLDER]     run it twice: the history goes on
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { atomicWriteAsync } from 'holdfast';
import { createChangeEmitter, createEntityRegistry, createEntityStore, createRunSecretRegistry } from 'holdfast/entity';
import * as z from 'zod';

const folder = process.argv[2] ?? 'data';
mkdirSync(folder, { recursive: true });

// ── the backend's own state: holdfast never stores it, it only asks for it ──

const file = path.join(folder, 'incidents.json');
const incidents = new Map(existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : []);

async function save(id, incident) {
  if (incident === null) incidents.delete(id);
  else incidents.set(id, incident);
  await atomicWriteAsync(file, JSON.stringify([...incidents]), { durability: 'strict', syncDirectory: true });
  return incident;
}

// ── making it reactive ──

const emitter = createChangeEmitter();
const registry = createEntityRegistry({ secretRegistry: createRunSecretRegistry(), emitter, logger: console });
const incident = registry.defineEntity({
  kind: 'incident',
  state: z.object({ status: z.enum(['open', 'resolved']), note: z.string().nullable() }),
  read: async (ids) => Object.fromEntries(ids.filter((id) => incidents.has(id)).map((id) => [id, incidents.get(id)])),
});

// Before `ready()`: it delivers what an earlier process could not. A change can come twice, then with the same `changeId`.
await emitter.wire(async ({ kind, id, next, changedFields, actor }) => {
  const what = next === null ? 'removed' : changedFields.map((field) => `${field} = ${next[field]}`).join(', ');
  console.log(`event    ${kind} ${id}: ${what} (by ${actor.name})`);
});

const store = createEntityStore({ path: path.join(folder, 'entities.db') }, { logger: console });
registry.setStore({ store });
await store.ready();

// ── using it ──

const ada = { type: 'user', id: 'u-1', name: 'Ada' };
await incident.mutate({ id: '7', opts: { actor: ada }, apply: () => save('7', { status: 'open', note: null }) });
await incident.mutate({ id: '7', opts: { actor: ada }, apply: () => save('7', { status: 'resolved', note: 'fixed by deploy 12' }) });
await incident.mutate({ id: '8', opts: { actor: ada }, apply: () => save('8', { status: 'open', note: 'a false alarm' }) });
await incident.remove({ id: '8', opts: { actor: ada }, apply: () => save('8', null) });

const since = await incident.inStateSince('7', 'status');
const count = await incident.transitionCount({ id: '7', field: 'status', windowMs: 3_600_000 });
console.log(`since    ${since.toISOString()}`);
console.log(`changes  ${count} of the status in the last hour`);

const { rows } = await store.history({ kind: 'incident', entityId: '7', field: 'status' });
console.log(`history  ${rows.reverse().map(({ fromValue, toValue }) => `${fromValue} -> ${toValue}`).join(', ')}`);

await store.close();
