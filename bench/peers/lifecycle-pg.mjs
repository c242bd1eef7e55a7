// The floor on PostgreSQL: `pg` with a pool, a lean schema, one transaction per call, sets of rows in one statement each, LISTEN/NOTIFY for
// the changes. It decides nothing: no reactions, no budgets, and its changes come in no certain order.
import pg from 'pg';

export async function openLifecycle({ connectionString, schema }) {
  const pool = new pg.Pool({ connectionString, max: 10, options: `-c search_path=${schema}` });
  await pool.query(`
    CREATE SCHEMA ${schema};
    CREATE TABLE session(id bigserial PRIMARY KEY, state text, alive boolean);
    CREATE TABLE pr(id bigint, number int, ci text, PRIMARY KEY(id, number));
    CREATE TABLE run(id bigint, number int, name text, hash text, status text, log text, PRIMARY KEY(id, number, name, hash));
    CREATE TABLE comment(id bigint, number int, comment text, body text, PRIMARY KEY(id, number, comment));
    CREATE TABLE change(seq bigserial PRIMARY KEY, kind text, payload text);
  `);
  const named = (name, text) => (client, values) => client.query({ name, text, values });
  const create = named('create', "INSERT INTO session(state, alive) VALUES('not_started', false) RETURNING id");
  const start = named('start', 'UPDATE session SET alive = true WHERE id = $1');
  const remove = named('remove', 'DELETE FROM session WHERE id = $1');
  const getPr = named('get-pr', 'SELECT ci FROM pr WHERE id = $1 AND number = $2');
  const putPr = named('put-pr', 'INSERT INTO pr VALUES($1, $2, $3) ON CONFLICT (id, number) DO UPDATE SET ci = excluded.ci');
  const getRuns = named('get-runs', 'SELECT name, hash, status FROM run WHERE id = $1 AND number = $2');
  const putRuns = named(
    'put-runs',
    `INSERT INTO run SELECT $1, $2, * FROM unnest($3::text[], $4::text[], $5::text[], $6::text[])
     ON CONFLICT (id, number, name, hash) DO UPDATE SET status = excluded.status, log = excluded.log`,
  );
  const getComments = named('get-comments', 'SELECT comment, body FROM comment WHERE id = $1 AND number = $2');
  const putComments = named(
    'put-comments',
    `INSERT INTO comment SELECT $1, $2, * FROM unnest($3::text[], $4::text[])
     ON CONFLICT (id, number, comment) DO UPDATE SET body = excluded.body`,
  );
  const log = named(
    'log',
    `WITH told AS (INSERT INTO change(kind, payload) SELECT * FROM unnest($1::text[], $2::text[]) RETURNING seq, kind)
     SELECT pg_notify('${schema}', seq || ' ' || kind) FROM told`,
  );
  const transaction = (run) => async (...args) => {
    const client = await pool.connect();
    try {
      await client.query('BEGIN');
      const changes = [];
      const result = await run(client, (kind, payload) => changes.push([kind, JSON.stringify(payload)]), ...args);
      if (changes.length > 0) await log(client, [changes.map(([kind]) => kind), changes.map(([, payload]) => payload)]);
      await client.query('COMMIT');
      return result;
    } catch (error) {
      await client.query('ROLLBACK');
      throw error;
    } finally {
      client.release();
    }
  };
  const created = transaction(async (client, note) => {
    const { id } = (await create(client, [])).rows[0];
    note('session_created', { id });
    return id;
  });
  const started = transaction(async (client, note, id) => {
    await start(client, [id]);
    note('session_updated', { id });
  });
  const listening = [];
  return {
    spawn: async () => {
      const id = await created();
      await started(id);
      return id;
    },
    observe: transaction(async (client, note, id, { number, ci, checks, comments }) => {
      const found = (await getPr(client, [id, number])).rows[0];
      if (found?.ci !== ci) {
        await putPr(client, [id, number, ci]);
        note('pr_updated', { id, ci });
      }
      const known = new Map((await getRuns(client, [id, number])).rows.map((row) => [`${row.name}@${row.hash}`, row.status]));
      const runs = checks.filter(({ name, commit, status }) => known.get(`${name}@${commit}`) !== status);
      if (runs.length > 0) {
        const column = (key) => runs.map((run) => run[key]);
        await putRuns(client, [id, number, column('name'), column('commit'), column('status'), column('log')]);
        for (const { name, status } of runs) note('pr_check_recorded', { id, name, status });
      }
      const bodies = new Map((await getComments(client, [id, number])).rows.map((row) => [row.comment, row.body]));
      const said = comments.filter((comment) => bodies.get(comment.id) !== comment.body);
      if (said.length > 0) await putComments(client, [id, number, said.map((comment) => comment.id), said.map(({ body }) => body)]);
    }),
    onChange: async (listener) => {
      const client = new pg.Client({ connectionString });
      await client.connect();
      client.on('notification', ({ payload }) => {
        const [seq, kind] = payload.split(' ');
        listener({ seq: Number(seq), kind });
      });
      await client.query(`LISTEN ${schema}`);
      listening.push(client);
      return async () => {};
    },
    remove: transaction(async (client, note, id) => {
      await remove(client, [id]);
      note('session_deleted', { id });
    }),
    close: async () => {
      for (const client of listening) await client.end();
      await pool.query(`DROP SCHEMA ${schema} CASCADE`);
      await pool.end();
    },
  };
}
