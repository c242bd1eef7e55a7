// better-sqlite3: one transaction per batch, WAL with synchronous=FULL, durable when writeBatch returns.
import { createHash } from 'node:crypto';
import path from 'node:path';
import Database from 'better-sqlite3';

export function openBatchStore(dir) {
  const db = new Database(path.join(dir, 'store.db'));
  db.exec(`
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE store(name TEXT PRIMARY KEY, raw TEXT, hash TEXT, batch INTEGER);
    CREATE TABLE receipt(id INTEGER PRIMARY KEY, batch INTEGER, name TEXT, hash TEXT, at TEXT);
  `);
  const upsert = db.prepare(
    'INSERT INTO store VALUES(?,?,?,?) ON CONFLICT(name) DO UPDATE SET raw=excluded.raw, hash=excluded.hash, batch=excluded.batch',
  );
  const receipt = db.prepare('INSERT INTO receipt(batch, name, hash, at) VALUES(?,?,?,?)');
  let batch = 0;
  const commit = db.transaction((writes) => {
    batch++;
    for (const { name, data } of writes) {
      const raw = JSON.stringify(data);
      const hash = createHash('sha256').update(raw).digest('hex');
      upsert.run(name, raw, hash, batch);
      receipt.run(batch, name, hash, new Date().toISOString());
    }
  });
  return { writeBatch: (writes) => commit(writes), close: () => db.close() };
}
