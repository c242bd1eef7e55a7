// Another process that commits: node lifecycle-child.mjs <dataDir> <count>. Prints when each commit resolved, in ms since 1970.
import { setTimeout as sleep } from 'node:timers/promises';
import { openSessionStore } from '../dist/lifecycle.mjs';

const [dir, count] = process.argv.slice(2);
const store = await openSessionStore(dir);
const committed = [];
for (let i = 0; i < Number(count); i++) {
  await store.createSession({ projectId: 'bench' });
  committed.push(Date.now());
  await sleep(5 + ((i * 37) % 61));
}
await store.close();
process.stdout.write(JSON.stringify(committed));
