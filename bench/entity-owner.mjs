// Who keeps the states of the measured entities: a Map, or a table as an application has it.
import pg from 'pg';

let schemas = 0;

export function statesInMemory() {
  const states = new Map();
  return {
    read: async (ids) => {
      const found = {};
      for (const id of ids) if (states.has(id)) found[id] = states.get(id);
      return found;
    },
    write: async (id, state) => {
      states.set(id, state);
      return state;
    },
    close: async () => {},
  };
}

/** A table `states` in a schema of its own, with what the statements `also` make. The pool is for all that lives in that schema. */
export async function statesInPostgres(url, also = []) {
  const schema = `bench_states_${process.pid}_${schemas++}`;
  const admin = new pg.Client({ connectionString: url });
  await admin.connect();
  const pool = new pg.Pool({ connectionString: url, options: `-c search_path=${schema}`, max: 10 });
  const ddl = [`CREATE SCHEMA ${schema}`, `SET search_path = ${schema}`, 'CREATE TABLE states (id text PRIMARY KEY, state jsonb NOT NULL)'];
  for (const sql of [...ddl, ...also]) await admin.query(sql);
  const upsert = 'INSERT INTO states VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET state = excluded.state';
  return {
    pool,
    read: async (ids) => {
      const { rows } = await pool.query('SELECT id, state FROM states WHERE id = ANY($1)', [ids]);
      return Object.fromEntries(rows.map(({ id, state }) => [id, state]));
    },
    write: async (id, state) => {
      await pool.query(upsert, [id, state]);
      return state;
    },
    close: async () => {
      await pool.end();
      await admin.end();
      await dropSchema(url, schema);
    },
  };
}

/** Removes a schema with all that is in it. */
export async function dropSchema(url, schema) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(`DROP SCHEMA IF EXISTS ${schema} CASCADE`);
  await client.end();
}
