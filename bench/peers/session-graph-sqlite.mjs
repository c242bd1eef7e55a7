// By hand: better-sqlite3 on the main thread, the same idea of tables, one transaction per call, WAL with synchronous=FULL. Links and
// bodies in one table, no counters, no checks of cycles, leases or damage. A collection is one DELETE.
import { createHash } from 'node:crypto';
import path from 'node:path';
import Database from 'better-sqlite3';

const sha = (bytes) => createHash('sha256').update(bytes).digest('hex');

export async function openGraph(dir) {
  const file = path.join(dir, 'session.db');
  const db = new Database(file);
  db.exec(`
    PRAGMA auto_vacuum = INCREMENTAL;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS head(one INTEGER PRIMARY KEY, revision INTEGER, leaf TEXT, checkpoint TEXT, head TEXT);
    CREATE TABLE IF NOT EXISTS node(seq INTEGER PRIMARY KEY, id TEXT UNIQUE, parent TEXT, body TEXT);
    CREATE TABLE IF NOT EXISTS blob(hash TEXT PRIMARY KEY, content BLOB, at INTEGER) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS usage(seq INTEGER PRIMARY KEY, source TEXT, model TEXT, tokens INTEGER);
    CREATE TABLE IF NOT EXISTS queue(seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, session TEXT, body TEXT, token TEXT, until INTEGER NOT NULL DEFAULT 0);
    CREATE INDEX IF NOT EXISTS queue_free ON queue(session, seq) WHERE token IS NULL;
    INSERT OR IGNORE INTO head VALUES(1, 0, NULL, NULL, '{}');
  `);
  const sql = (text) => db.prepare(text);
  const head = sql('SELECT revision, leaf, checkpoint, head FROM head');
  const setHead = sql('UPDATE head SET revision = ?, leaf = ?, checkpoint = ?');
  const insert = sql('INSERT INTO node(id, parent, body) VALUES(?, ?, ?)');
  const put = sql('INSERT INTO blob VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET at = excluded.at');
  const getBlob = sql('SELECT content FROM blob WHERE hash = ?').pluck();
  const all = sql('SELECT body FROM node ORDER BY seq').pluck();
  const walk = sql(`WITH RECURSIVE walk(seq, parent, depth) AS (
      SELECT seq, parent, 0 FROM node WHERE id = ? UNION ALL SELECT n.seq, n.parent, depth + 1 FROM walk w JOIN node n ON n.id = w.parent)
    SELECT n.body FROM walk w JOIN node n ON n.seq = w.seq ORDER BY w.depth DESC`).pluck();
  const enqueue = sql('INSERT INTO queue(id, session, body) VALUES(?, ?, ?)');
  const next = sql('SELECT seq, body FROM queue WHERE session = ? AND token IS NULL ORDER BY seq LIMIT 1');
  const take = sql('UPDATE queue SET token = ?, until = ? WHERE seq = ?');
  const renew = sql('UPDATE queue SET until = ? WHERE seq = ? AND token = ?');
  const sweep = sql("DELETE FROM blob WHERE hash NOT IN (SELECT value FROM json_each(?))");
  const use = sql("INSERT INTO usage(source, model, tokens) VALUES('turn', 'm', 1)");
  const ledger = sql('SELECT source, model, sum(tokens) FROM usage GROUP BY source, model');
  let turn = Date.now() * 1000;
  const commit = db.transaction((nodes, revision) => {
    if (head.get().revision !== revision) throw new Error('head revision conflict');
    const at = Date.now();
    for (const node of nodes) insert.run(node.nodeId, node.parentNodeId, JSON.stringify(node));
    turn++;
    const parts = [`{"generation":${turn}}`, '{"plugins":{}}', `exec-${turn}-${'y'.repeat(1000)}`].map((content) => {
      const hash = sha(content);
      put.run(hash, Buffer.from(content), at);
      return hash;
    });
    const manifest = JSON.stringify({ turn, parts });
    const hash = sha(manifest);
    put.run(hash, Buffer.from(manifest), at);
    setHead.run(revision + 1, nodes.at(-1).nodeId, hash);
    return revision + 1;
  });
  const claim = db.transaction(() => {
    const row = next.get('bench');
    if (!row) return null;
    const token = sha(`${row.seq}:${Math.random()}`);
    take.run(token, Date.now() + 600_000, row.seq);
    return { seq: row.seq, token, payload: JSON.parse(row.body) };
  });
  const add = (i) => enqueue.run(sha(`${i}:${Math.random()}`), 'bench', JSON.stringify({ text: `work ${i}` }));
  const many = db.transaction((count, each) => {
    for (let i = 0; i < count; i++) each(i);
  });
  const load = (bodies) => {
    const { checkpoint } = head.get();
    for (const part of JSON.parse(getBlob.get(checkpoint)).parts) getBlob.get(part);
    ledger.all();
    return bodies.map((body) => JSON.parse(body)).length;
  };
  return {
    file,
    commit: async (nodes, revision) => commit.immediate(nodes, revision),
    path: async (leaf) => load(walk.all(leaf ?? head.get().leaf)),
    full: async () => load(all.all()),
    enqueue: async (i) => void add(i),
    enqueueMany: async (count) => many.immediate(count, add),
    claim: async () => claim.immediate(),
    renew: async ({ seq, token }) => void renew.run(Date.now() + 600_000, seq, token),
    usage: async (count) => many.immediate(count, () => use.run()),
    orphan: async (count) =>
      many.immediate(count, (i) => {
        const content = `orphan-${i}-${'z'.repeat(1500)}`;
        put.run(sha(content), Buffer.from(content), 0);
      }),
    gc: async () => {
      const { checkpoint } = head.get();
      return sweep.run(JSON.stringify([checkpoint, ...JSON.parse(getBlob.get(checkpoint)).parts])).changes;
    },
    shrink: async () => void db.pragma('incremental_vacuum'),
    close: async () => void db.close(),
  };
}
