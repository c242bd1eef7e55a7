// lmdb-js: one write transaction per batch, flushed to the disk before it returns.
import path from 'node:path';
import { open } from 'lmdb';

export function openBatchStore(dir) {
  const db = open({ path: path.join(dir, 'store.mdb'), encoding: 'json', overlappingSync: false });
  let batch = 0;
  const commit = (writes) =>
    db.transactionSync(() => {
      batch++;
      for (const { name, data } of writes) db.putSync(['store', name], data);
      db.putSync(['receipt', batch], writes.map(({ name }) => name));
    });
  return { writeBatch: commit, close: () => db.close() };
}
