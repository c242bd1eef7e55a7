// What is read off a drizzle object: its connection, whatever way it was made, and the proof that two connections look at one place.
import { drizzle } from 'drizzle-orm/node-postgres';
import { sql } from 'drizzle-orm';
import { Client, Pool } from 'pg';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { assertUsable, parseFacts, placeDifference, probeText, probeThroughDrizzle } from '../../src-js/entity/drizzle-probe';
import {
  deriveConnection,
  executorOf,
  hasPool,
  isDrizzle,
  isEnded,
  type DerivedConnection,
  type DrizzleDatabase,
} from '../../src-js/entity/drizzle-target';
import { deriveTls } from '../../src-js/tls';
import { freshSchema, postgresUrl, query } from '../support/postgres';

const asDatabase = (db: unknown): DrizzleDatabase => db as DrizzleDatabase;
const open: { end(): Promise<void> }[] = [];
function ending<T extends { end(): Promise<void> }>(one: T): T {
  open.push(one);
  return one;
}
afterEach(async () => {
  for (const each of open.splice(0)) await each.end();
});
beforeEach(() => {
  for (const name of Object.keys(process.env)) if (name.startsWith('PG')) vi.stubEnv(name, undefined);
});
afterEach(() => vi.unstubAllEnvs());

function connectionOf(db: unknown): DerivedConnection {
  const derived = deriveConnection(asDatabase(db));
  if ('delegate' in derived) throw new Error(`delegated: ${derived.delegate}`);
  return derived.connection;
}

function delegated(db: unknown): string {
  const derived = deriveConnection(asDatabase(db));
  if ('connection' in derived) throw new Error('not delegated');
  return derived.delegate;
}

const URL_TEXT = 'postgres://ann:se%20cret@db.example:6543/shop?options=-c%20search_path%3Dx&application_name=app';
const FIELDS = { user: 'ann', password: 'se cret', host: 'db.example', port: 6543, database: 'shop', options: '-c search_path=x', application_name: 'app' };
const EXPECTED = {
  host: 'db.example',
  port: 6543,
  user: 'ann',
  password: 'se cret',
  passwordSource: null,
  database: 'shop',
  options: '-c search_path=x',
  applicationName: 'app',
  idleTimeoutMs: 10_000,
  ssl: false,
};

describe('the connection of a drizzle object', () => {
  test.each<[string, () => unknown, number]>([
    ['drizzle(pool)', () => drizzle(ending(new Pool(FIELDS))), 2],
    ['drizzle({ client: pool })', () => drizzle({ client: ending(new Pool(FIELDS)) }), 2],
    ['drizzle(pool, { schema })', () => drizzle(ending(new Pool({ connectionString: URL_TEXT })), { schema: {} }), 2],
    ['drizzle(url)', () => drizzle(URL_TEXT), 2],
    ['drizzle({ connection: url })', () => drizzle({ connection: URL_TEXT }), 2],
    ['drizzle({ connection: fields })', () => drizzle({ connection: FIELDS }), 2],
    ['drizzle(client)', () => drizzle(new Client(FIELDS)), 1],
    ['drizzle({ client })', () => drizzle({ client: new Client(URL_TEXT) }), 1],
  ])('%s', (_, make, poolSize) => {
    const db = make();
    expect(isDrizzle(db)).toBe(true);
    expect(connectionOf(db)).toEqual({ ...EXPECTED, poolSize });
    expect(hasPool(asDatabase(db))).toBe(poolSize === 2);
  });

  test('drizzle.mock() and drivers other than pg are not taken apart', () => {
    expect(delegated(drizzle.mock())).toMatch(/does not use a pool or a client of `pg`/);
    expect(delegated({ transaction: () => {}, execute: () => {} })).toMatch(/does not use a pool/);
    for (const other of [null, undefined, 7, {}, { path: 'x' }, { transaction: 1 }]) expect(isDrizzle(other)).toBe(false);
  });

  test('pool size, idle time and connect timeout follow the pool', () => {
    expect(connectionOf(drizzle(ending(new Pool({ ...FIELDS, max: 1, idleTimeoutMillis: 0, connectionTimeoutMillis: 1500 }))))).toMatchObject({
      poolSize: 1,
      idleTimeoutMs: 0,
      connectTimeoutMs: 1500,
    });
  });

  test('the options of the URL beat those of the field, and the settings that pg sends go with them', () => {
    const pool = ending(new Pool({ connectionString: URL_TEXT, options: '-c TimeZone=UTC', statement_timeout: 1000, lock_timeout: 0, idle_in_transaction_session_timeout: 3000 }));
    expect(connectionOf(drizzle(pool)).options).toBe('-c search_path=x -c statement_timeout=1000 -c idle_in_transaction_session_timeout=3000');
  });

  test('what neither URL nor fields say comes from the environment', () => {
    for (const [name, value] of Object.entries({ PGHOST: 'env.example', PGPORT: '7654', PGUSER: 'env', PGPASSWORD: 'env-password', PGDATABASE: 'env-db', PGAPPNAME: 'env-app' })) {
      vi.stubEnv(name, value);
    }
    expect(connectionOf(drizzle(ending(new Pool())))).toMatchObject({
      host: 'env.example',
      port: 7654,
      user: 'env',
      password: 'env-password',
      database: 'env-db',
      applicationName: 'env-app',
    });
  });

  test('a Unix socket is a host, without TLS', () => {
    expect(connectionOf(drizzle(ending(new Pool({ ...FIELDS, host: '/var/run/postgresql', ssl: true }))))).toMatchObject({ host: '/var/run/postgresql', ssl: false });
  });

  test('a password that is not there is null, for the password file to be looked at', () => {
    expect(connectionOf(drizzle(ending(new Pool({ ...FIELDS, password: undefined }))))).toMatchObject({ password: null, passwordSource: null });
  });

  test('a password function is asked for each connection, with the parameters, and its error is its own', async () => {
    let asked = 0;
    const pool = ending(new Pool({ ...FIELDS, password: async (): Promise<string> => `token ${++asked}` }));
    const { password, passwordSource } = connectionOf(drizzle(pool));
    expect(password).toBeNull();
    expect([await passwordSource!(), await passwordSource!()]).toEqual(['token 1', 'token 2']);
    const error = new Error('vault');
    const failing = connectionOf(drizzle(ending(new Pool({ ...FIELDS, password: () => Promise.reject(error) }))));
    await expect(failing.passwordSource!()).rejects.toBe(error);
    const odd = connectionOf(drizzle(ending(new Pool({ ...FIELDS, password: (() => 7) as never }))));
    await expect(odd.passwordSource!()).rejects.toThrow('Password must be a string');
    const none = connectionOf(drizzle(ending(new Pool({ ...FIELDS, password: (() => undefined) as never }))));
    expect(await none.passwordSource!()).toBe('');
  });

  test('what only pg can honour is delegated, and the reason holds no secret', () => {
    const reasons = [
      delegated(drizzle(ending(new Pool({ ...FIELDS, stream: () => undefined as never })))),
      delegated(drizzle(ending(new Pool({ ...FIELDS, onConnect: () => {} } as never)))),
      delegated(drizzle(ending(new Pool({ ...FIELDS, ssl: { checkServerIdentity: () => undefined } })))),
      delegated(drizzle(ending(new Pool({ ...FIELDS, replication: 'database' } as never)))),
      delegated(drizzle(ending(new Pool({ ...FIELDS, enableChannelBinding: true })))),
      delegated(drizzle(ending(new Pool({ connectionString: 'postgres://h:bad-secret@@@:x' })))),
    ];
    expect(reasons).toEqual([
      'the pool has the option `stream`',
      'the pool has the option `onConnect`',
      '`ssl` has the option `checkServerIdentity`',
      'it is a replication connection',
      'the pool has the option `enableChannelBinding`',
      'a client could not be made from the options of the pool',
    ]);
  });

  test('an ended pool is noticed', async () => {
    const pool = new Pool(FIELDS);
    const db = asDatabase(drizzle(pool));
    expect(isEnded(db)).toBe(false);
    await pool.end();
    expect(isEnded(db)).toBe(true);
    expect(isEnded(asDatabase(drizzle.mock()))).toBe(false);
  });
});

describe('ssl', () => {
  const PEM = '-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n';
  test.each<[string, unknown, unknown]>([
    ['undefined', undefined, false],
    ['null', null, false],
    ['false', false, false],
    ['true', true, true],
    ['{}', {}, true],
    ['rejectUnauthorized: true', { rejectUnauthorized: true }, true],
    ['rejectUnauthorized: false', { rejectUnauthorized: false }, { rejectUnauthorized: false }],
    ['servername', { servername: 'db.example' }, { rejectUnauthorized: true, servername: 'db.example' }],
    ['ca text', { ca: PEM }, { ca: [PEM], rejectUnauthorized: true }],
    ['ca buffers', { ca: [Buffer.from(PEM), PEM] }, { ca: [PEM, PEM], rejectUnauthorized: true }],
    ['a client certificate', { cert: PEM, key: PEM }, { cert: PEM, key: PEM, rejectUnauthorized: true }],
    ['a hidden key', Object.defineProperty({ cert: PEM }, 'key', { value: PEM, enumerable: false }), { cert: PEM, key: PEM, rejectUnauthorized: true }],
    ['options that are undefined', { ca: undefined, checkServerIdentity: undefined }, true],
    ['checkServerIdentity', { checkServerIdentity: () => undefined }, '`ssl` has the option `checkServerIdentity`'],
    ['pfx', { pfx: Buffer.from('x') }, '`ssl` has the option `pfx`'],
    ['an encrypted key', { key: '-----BEGIN ENCRYPTED PRIVATE KEY-----' }, 'the key of `ssl` is encrypted'],
    ['no PEM', { ca: 'c2VjcmV0' }, '`ca`, `cert` or `key` of `ssl` is not PEM text'],
    ['a text', 'verify-full', '`ssl` is neither a boolean nor an object'],
  ])('%s', (_, given, expected) => expect(deriveTls(given)).toEqual(expected));

  test.each<[string, unknown]>([
    ['sslmode=disable', false],
    ['sslmode=no-verify', { rejectUnauthorized: false }],
    ['sslmode=verify-full', true],
    ['ssl=true', true],
  ])('%s in the URL', (parameter, expected) => {
    expect(connectionOf(drizzle(ending(new Pool({ connectionString: `postgres://a:b@h/d?${parameter}` })))).ssl).toEqual(expected);
  });
});

describe('the executor of a transaction', () => {
  test('runs in drizzle transactions and on pg clients, and refuses what is no transaction', async () => {
    const pool = ending(new Pool({ connectionString: postgresUrl() }));
    const db = drizzle(pool);
    const TXID = `SELECT pg_current_xact_id()::text AS id, $1::text AS given`;
    await db.transaction(async (tx) => {
      const run = executorOf(tx);
      const [first] = await run(TXID, ['x']);
      const { rows } = await tx.execute(sql`SELECT pg_current_xact_id()::text AS id`);
      expect(first).toEqual({ id: rows[0]!.id, given: 'x' });
    });
    const client = await pool.connect();
    expect(await executorOf(client)('SELECT $1::text AS given', ['y'])).toEqual([{ given: 'y' }]);
    client.release();
    for (const wrong of [db, pool, undefined, null, 'tx', {}, { session: {} }]) {
      expect(() => executorOf(wrong)).toThrow(expect.objectContaining({ name: 'TypeError', hfCode: 'HF_ENTITY_STORE_INPUT_INVALID' }) as Error);
    }
  });
});

describe('the probe', () => {
  const SEVEN = `CREATE TABLE entity_transitions (id text PRIMARY KEY, kind text NOT NULL, entity_id text NOT NULL, field text NOT NULL,
    from_value text, to_value text NOT NULL, transitioned_at timestamp(3) NOT NULL DEFAULT now())`;

  test('finds the table by the search_path, and a second connection proves that it is the same', async () => {
    const place = await freshSchema();
    await query(`${SEVEN}; CREATE INDEX ON entity_transitions (md5(to_value)); CREATE TABLE entity_changes (n int)`, undefined, place.url);
    const facts = await probeThroughDrizzle(asDatabase(drizzle(ending(new Pool({ connectionString: place.url })))));
    expect(facts).toMatchObject({ schema: place.schema, idUnique: true, md5Index: true, companions: ['entity_changes'] });
    expect(facts.columns).toEqual({
      id: 'text',
      kind: 'text',
      entity_id: 'text',
      field: 'text',
      from_value: 'text',
      to_value: 'text',
      transitioned_at: 'timestamp without time zone',
    });
    assertUsable(facts);
    const ask = async (schema: string, url = postgresUrl()) => parseFacts((await query<{ facts: string }>(probeText(schema), [], url))[0]!.facts);
    expect(placeDifference(facts, await ask(place.schema))).toBeNull();
    expect(await ask(place.schema)).toEqual(facts);

    const other = await freshSchema();
    await query(SEVEN, [], other.url);
    expect(placeDifference(facts, await ask(other.schema))).toBe('it is another table');
    expect(placeDifference(facts, await ask('no such "schema" \\\' here'))).toBe('it is another table');
    const template = new URL(postgresUrl());
    template.pathname = '/template1';
    expect(placeDifference(facts, await ask(place.schema, template.href))).toBe('it is another database');
    expect(placeDifference(facts, { ...facts, serverStart: '1' })).toBe('it is another server');
    expect(placeDifference(facts, { ...facts, user: 'somebody' })).toBe('it is another role');
  });

  test("looks where the wrapper's transactions look, which is not where the pool does", async () => {
    const own = await freshSchema();
    const pooled = await freshSchema();
    for (const place of [own, pooled]) await query(SEVEN, [], place.url);
    const db = drizzle(ending(new Pool({ connectionString: pooled.url })));
    const wrapped = {
      $client: db.$client,
      execute: db.execute.bind(db),
      transaction: <R>(work: (tx: unknown) => Promise<R>) =>
        db.transaction(async (tx) => {
          await tx.execute(sql.raw(`SET LOCAL search_path = ${own.schema}`));
          return work(tx);
        }),
    };
    const facts = await probeThroughDrizzle(asDatabase(wrapped));
    expect(facts.schema).toBe(own.schema);
    // The native side resolves the qualified name, so that it is pinned to the schema of the wrapper.
    const url = new URL(pooled.url);
    const native = parseFacts((await query<{ facts: string }>(probeText(facts.schema), [], url.href))[0]!.facts);
    expect(placeDifference(facts, native)).toBeNull();
    const unqualified = parseFacts((await query<{ facts: string }>(probeText(), [], url.href))[0]!.facts);
    expect(placeDifference(facts, unqualified)).toBe('it is another table');
  });

  test('does not depend on how the application reads types, and says that there is no table', async () => {
    const place = await freshSchema();
    const types = { getTypeParser: () => (text: string) => text } as never;
    const facts = await probeThroughDrizzle(asDatabase(drizzle(ending(new Pool({ connectionString: place.url, types })))));
    expect(facts).toMatchObject({ tableOid: null, schema: null, columns: {}, idUnique: false, md5Index: false, companions: [] });
    expect(() => assertUsable(facts)).toThrow(expect.objectContaining({ hfCode: 'HF_ENTITY_TABLE_MISSING' }) as Error);
  });

  // The planner made one look at all indexes of the database of an EXISTS, which failed whenever somebody had just dropped one.
  test('asks only for the indexes of the table', async () => {
    const plan = await query<Record<string, string>>(`EXPLAIN VERBOSE ${probeText()}`);
    const filters = plan.map((row) => row['QUERY PLAN']!).filter((line) => line.includes('Filter:'));
    expect(filters.join('\n')).toContain('indpred');
    expect(filters.join('\n')).not.toContain('pg_get_indexdef');
  });

  test('a driver without query() on its transactions is refused', async () => {
    const foreign = { transaction: (work: (tx: unknown) => unknown) => work({ execute: () => [], session: { client: {} } }), execute: () => [] };
    await expect(probeThroughDrizzle(asDatabase(foreign))).rejects.toMatchObject({ hfCode: 'HF_ENTITY_STORE_INPUT_INVALID' });
    const silent = { transaction: (work: (tx: unknown) => unknown) => work({ execute: () => 7, session: { client: { query: () => 7 } } }), execute: () => 7 };
    await expect(probeThroughDrizzle(asDatabase(silent))).rejects.toBeInstanceOf(TypeError);
  });
});
