// The floor of an embedded log: better-sqlite3 on the main thread, one transaction per change, WAL with synchronous=FULL. It keeps
// the changed fields and nothing else: no schema, intent, event or order.
import path from 'node:path';
import Database from 'better-sqlite3';

export async function openEntity({ target, dir }) {
  if (target !== 'file') return null;
  const db = new Database(path.join(dir, 'log.db'));
  db.exec(`
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE log(id TEXT, field TEXT, at INTEGER, seq INTEGER, value TEXT, PRIMARY KEY(id, field, at, seq)) WITHOUT ROWID;
    CREATE INDEX by_value ON log(id, field, value, at);
  `);
  const insert = db.prepare('INSERT INTO log VALUES(?,?,?,?,?)');
  const since = db.prepare('SELECT max(at) FROM log WHERE id = ? AND field = ? AND value = ?').pluck();
  const count = db.prepare('SELECT count(*) FROM log WHERE id = ? AND field = ? AND at >= 0').pluck();
  const states = new Map();
  let seq = 0;
  const textOf = (value) => (typeof value === 'string' ? value : JSON.stringify(value));
  const change = db.transaction((id, next) => {
    const prev = states.get(id) ?? {};
    for (const field in next) {
      const value = textOf(next[field]);
      if (value !== textOf(prev[field])) insert.run(id, field, Date.now(), seq++, value);
    }
  });
  const fill = db.transaction((id, field, rows, values) => {
    for (let i = 0; i < rows; i++) insert.run(id, field, Date.now(), seq++, values(i));
  });
  return {
    mutate: async (id, next) => {
      change.immediate(id, next);
      states.set(id, next);
      return next;
    },
    fill: async (id, field, rows, values = (i) => `s${i % 2}`) => {
      fill(id, field, rows, values);
      states.set(id, { [field]: values(rows - 1) });
    },
    inStateSince: async (id, field) => since.get(id, field, states.get(id)[field]),
    transitionCount: async (id, field) => count.get(id, field),
    close: async () => db.close(),
  };
}
