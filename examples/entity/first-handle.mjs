import * as entity from 'holdfast/entity';
import * as z from 'zod';

const incidents = new Map(); // what you have already: a table, a map
const emitter = entity.createChangeEmitter();
const registry = entity.createEntityRegistry({ secretRegistry: entity.createRunSecretRegistry(), emitter });
const incident = registry.defineEntity({
  kind: 'incident',
  state: z.object({ status: z.string() }),
  read: async (ids) => Object.fromEntries(ids.filter((id) => incidents.has(id)).map((id) => [id, incidents.get(id)])),
});
await emitter.wire(async ({ id, prev, next }) => console.log(id, prev?.status, '->', next?.status));
const store = entity.createEntityStore({ path: 'data/entities.db' }); // or { connectionString }, or your drizzle object
registry.setStore({ store });

for (const status of ['open', 'resolved']) {
  await incident.mutate({ id: '7', apply: async () => (incidents.set('7', { status }), { status }) });
}
console.log(await incident.transitionCount({ id: '7', field: 'status', windowMs: 3_600_000 })); // it is on the disk
await store.close();
