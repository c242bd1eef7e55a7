// The floor: better-sqlite3 on the main thread, a lean schema, one transaction per call, WAL with synchronous=FULL. Changes are told
// right after the commit. It decides nothing: no reactions, no budgets, no other processes.
import path from 'node:path';
import Database from 'better-sqlite3';

export async function openLifecycle(dir) {
  const db = new Database(path.join(dir, 'lifecycle.db'));
  db.exec(`
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE session(id INTEGER PRIMARY KEY, state TEXT, alive INTEGER);
    CREATE TABLE pr(id INTEGER, number INTEGER, ci TEXT, PRIMARY KEY(id, number)) WITHOUT ROWID;
    CREATE TABLE run(id INTEGER, number INTEGER, name TEXT, hash TEXT, status TEXT, log TEXT, PRIMARY KEY(id, number, name, hash)) WITHOUT ROWID;
    CREATE TABLE comment(id INTEGER, number INTEGER, comment TEXT, body TEXT, PRIMARY KEY(id, number, comment)) WITHOUT ROWID;
    CREATE TABLE change(seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, payload TEXT);
  `);
  const sql = (text) => db.prepare(text);
  const insert = sql("INSERT INTO session(state, alive) VALUES('not_started', 0)");
  const start = sql('UPDATE session SET alive = 1 WHERE id = ?');
  const remove = sql('DELETE FROM session WHERE id = ?');
  const getPr = sql('SELECT ci FROM pr WHERE id = ? AND number = ?').pluck();
  const putPr = sql('INSERT INTO pr VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET ci = excluded.ci');
  const getRun = sql('SELECT status FROM run WHERE id = ? AND number = ? AND name = ? AND hash = ?').pluck();
  const putRun = sql('INSERT INTO run VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET status = excluded.status, log = excluded.log');
  const getComment = sql('SELECT body FROM comment WHERE id = ? AND number = ? AND comment = ?').pluck();
  const putComment = sql('INSERT INTO comment VALUES(?, ?, ?, ?) ON CONFLICT DO UPDATE SET body = excluded.body');
  const log = sql('INSERT INTO change(kind, payload) VALUES(?, ?)');
  const listeners = new Set();
  let changes = [];
  const note = (kind, payload) => changes.push({ seq: Number(log.run(kind, JSON.stringify(payload)).lastInsertRowid), kind });
  const transaction = (run) => {
    const inside = db.transaction(run);
    return async (...args) => {
      changes = [];
      const result = inside.immediate(...args);
      const told = changes;
      for (const event of told) for (const listener of listeners) listener(event);
      return result;
    };
  };
  const create = transaction(() => {
    const id = Number(insert.run().lastInsertRowid);
    note('session_created', { id });
    return id;
  });
  const started = transaction((id) => {
    start.run(id);
    note('session_updated', { id });
  });
  return {
    spawn: async () => {
      const id = await create();
      await started(id);
      return id;
    },
    observe: transaction((id, { number, ci, checks, comments }) => {
      if (getPr.get(id, number) !== ci) {
        putPr.run(id, number, ci);
        note('pr_updated', { id, ci });
      }
      for (const { name, commit, status, log: text } of checks) {
        if (getRun.get(id, number, name, commit) === status) continue;
        putRun.run(id, number, name, commit, status, text);
        note('pr_check_recorded', { id, name, status });
      }
      for (const { id: comment, body } of comments) if (getComment.get(id, number, comment) !== body) putComment.run(id, number, comment, body);
    }),
    onChange: async (listener) => {
      listeners.add(listener);
      return async () => void listeners.delete(listener);
    },
    remove: transaction((id) => {
      remove.run(id);
      note('session_deleted', { id });
    }),
    close: async () => void db.close(),
  };
}
