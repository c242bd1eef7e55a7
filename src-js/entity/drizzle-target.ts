/**
 * What a drizzle object gives away: whether it is one, how to connect where it connects to, and the executor of its
 * transactions. Nothing here does I/O or loads drizzle-orm or `pg`: both are looked at by shape (drizzle-orm 0.45, pg 8).
 */
import { builtinError, HoldfastError } from '../errors';
import { deriveTls, type DerivedTls } from '../tls';

/** Runs one statement with positional parameters; its rows. */
export type Execute = (text: string, values: ReadonlyArray<unknown>) => Promise<ReadonlyArray<Record<string, unknown>>>;

/** A drizzle database, as far as it is looked at. */
export interface DrizzleDatabase {
  transaction<R>(run: (tx: DrizzleTransaction) => Promise<R>): Promise<R>;
  execute(query: string): PromiseLike<unknown>;
  $client?: unknown;
}

/** A drizzle transaction, as far as it is looked at. */
export interface DrizzleTransaction {
  execute(query: string): PromiseLike<unknown>;
  session?: { client?: unknown };
}

/** How to reach the database of a drizzle object, in the native engine's terms. Plain data, but for `passwordSource`. */
export interface DerivedConnection {
  /** Host name, address, or the folder of a Unix socket. */
  host: string;
  port: number;
  user: string;
  database: string;
  /** `null`: there is none; `PGPASSWORD` was looked at already, and the password file is what remains. */
  password: string | null;
  /**
   * Asked before each new connection, in the place of `password`; rejects with what the application's function throws. The engine cannot
   * ask JavaScript each time it connects, and an answer that is kept may expire: such an object is left to the delegate.
   */
  passwordSource: (() => Promise<string>) | null;
  /** Startup options of the session. */
  options?: string;
  applicationName?: string;
  /** Most connections. */
  poolSize: number;
  /** An idle connection is closed after this time; 0 keeps it. */
  idleTimeoutMs: number;
  connectTimeoutMs?: number;
  ssl: DerivedTls;
}

/** A connection, or why there cannot be a native one; the reason names no values. */
export type Derivation = { connection: DerivedConnection } | { delegate: string };

/** Whether `createEntityStore` was given a drizzle object: it goes before every other shape. */
export function isDrizzle(target: unknown): target is DrizzleDatabase {
  return isObject(target) && typeof target.transaction === 'function';
}

/** Whether the pool behind a drizzle object was ended; a single client counts as well. */
export function isEnded(db: DrizzleDatabase): boolean {
  const client = db.$client;
  return isObject(client) && (client.ended === true || client.ending === true || client._ending === true);
}

/** How often a call that waits looks whether its pool has ended, in milliseconds. */
const LOOK_MS = 50;

/** Runs what may wait for a connection of the object. A pool that ends never answers those who wait for one: they reject here. */
export async function whileOpen<R>(db: DrizzleDatabase, run: () => Promise<R>): Promise<R> {
  const pool = db.$client;
  if (!isObject(pool) || typeof pool.ended !== 'boolean') return run();
  let look: ReturnType<typeof setInterval> | undefined;
  const ended = new Promise<never>((_, reject) => {
    // It counts as ended when it has got back all connections: whoever has one is through.
    look = setInterval(() => pool.ended === true && reject(poolEnded()), LOOK_MS);
    look.unref?.();
  });
  try {
    return await Promise.race([run(), ended]);
  } finally {
    clearInterval(look);
  }
}

/** What a call on an ended pool rejects with; the words are those of `pg`. */
export function poolEnded(): HoldfastError {
  return new HoldfastError('Cannot use a pool after calling end on the pool', { hfCode: 'HF_CLOSED' });
}

/** Whether each transaction of the object has a connection of its own, so that they may run side by side. */
export function hasPool(db: DrizzleDatabase): boolean {
  return !isClient(db.$client);
}

/** Takes the connection of a drizzle object over `pg` apart, as `pg` itself would make it. Opens nothing. */
export function deriveConnection(db: DrizzleDatabase): Derivation {
  const client = db.$client;
  if (isPool(client)) {
    const odd = oddOption(client.options);
    if (odd !== null) return { delegate: odd };
    let sample: unknown;
    try {
      // The only way to see what `pg` makes of URL, fields and environment together; it opens no socket.
      sample = new client.Client(client.options);
    } catch {
      return { delegate: 'a client could not be made from the options of the pool' };
    }
    if (!isClient(sample)) return { delegate: 'the clients of the pool do not say how they connect' };
    const max = typeof client.options.max === 'number' && client.options.max >= 1 ? Math.floor(client.options.max) : 2;
    return fromParameters(sample.connectionParameters, { poolSize: Math.min(2, max), options: client.options });
  }
  if (isClient(client)) return fromParameters(client.connectionParameters, { poolSize: 1, options: {} });
  return { delegate: 'the drizzle object does not use a pool or a client of `pg`' };
}

/**
 * The executor of a transaction that somebody opened: drizzle's, or a `pg` client in one.
 *
 * @throws {TypeError} `HF_ENTITY_STORE_INPUT_INVALID`: it is neither, or it is a whole database or pool, whose statements would not be in
 * one transaction
 */
export function executorOf(tx: unknown): Execute {
  const client = isObject(tx) && isObject(tx.session) ? tx.session.client : tx;
  const whole = isObject(tx) && (tx.$client !== undefined || isPool(client));
  if (whole || !canQuery(client)) {
    const wanted = 'a drizzle transaction over `pg` (the argument of `db.transaction(async (tx) => …)`) or a `pg` client in a transaction';
    const message = `expected ${wanted}${whole ? ', not a database or a pool' : ''}`;
    throw builtinError(TypeError, message, { hfCode: 'HF_ENTITY_STORE_INPUT_INVALID' });
  }
  return async (text, values) => {
    const result = await client.query(text, values);
    return isObject(result) && Array.isArray(result.rows) ? result.rows : [];
  };
}

// ---------- pg by shape ----------

interface PgPool {
  options: Record<string, unknown>;
  Client: new (options: unknown) => unknown;
}

interface PgClient {
  connectionParameters: Record<string, unknown>;
}

type Dictionary = Record<string, unknown>;

function isObject(value: unknown): value is Dictionary {
  return (typeof value === 'object' && value !== null) || typeof value === 'function';
}

function isPool(value: unknown): value is PgPool & Dictionary {
  return isObject(value) && isObject(value.options) && typeof value.Client === 'function';
}

function isClient(value: unknown): value is PgClient & Dictionary {
  return isObject(value) && isObject(value.connectionParameters);
}

function canQuery(value: unknown): value is { query(text: string, values: ReadonlyArray<unknown>): Promise<unknown> } {
  return isObject(value) && typeof value.query === 'function';
}

/** An option that only the application's own driver can honour, or `null`. */
function oddOption(options: Dictionary): string | null {
  for (const name of ['stream', 'connection', 'onConnect', 'verify']) {
    if (options[name] !== undefined && options[name] !== null) return `the pool has the option \`${name}\``;
  }
  return options.enableChannelBinding === true ? 'the pool has the option `enableChannelBinding`' : null;
}

/** Settings that `pg` sends when it connects; the engine gets them as part of `options`. */
const STARTUP_SETTINGS = ['statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout'] as const;

function fromParameters(parameters: Dictionary, from: { poolSize: number; options: Dictionary }): Derivation {
  const { host, port, user, database, password } = parameters;
  if (typeof host !== 'string' || host === '' || typeof port !== 'number' || !(port > 0 && port < 65_536)) {
    return { delegate: 'host and port of the connection are not known' };
  }
  if (typeof user !== 'string' || typeof database !== 'string') return { delegate: 'user and database of the connection are not known' };
  if (parameters.replication) return { delegate: 'it is a replication connection' };
  if (parameters.sslnegotiation === 'direct') return { delegate: '`sslnegotiation: "direct"` is used' };
  const ssl = deriveTls(parameters.ssl);
  if (typeof ssl === 'string') return { delegate: ssl };

  const settings = STARTUP_SETTINGS.flatMap((name) => {
    const value = Number(parameters[name]);
    return parameters[name] && Number.isInteger(value) ? [`-c ${name}=${value}`] : [];
  });
  const options = [...(typeof parameters.options === 'string' ? [parameters.options] : []), ...settings].join(' ');
  const applicationName = parameters.application_name || parameters.fallback_application_name;
  const timeout = from.options.connectionTimeoutMillis;
  const idle = from.options.idleTimeoutMillis;
  return {
    connection: {
      host,
      port,
      user,
      database,
      password: typeof password === 'string' ? password : null,
      passwordSource: typeof password === 'function' ? () => askPassword(password, parameters) : null,
      ...(options && { options }),
      ...(typeof applicationName === 'string' && { applicationName }),
      poolSize: from.poolSize,
      idleTimeoutMs: typeof idle === 'number' && idle >= 0 ? idle : 10_000,
      ...(typeof timeout === 'number' && timeout > 0 && { connectTimeoutMs: timeout }),
      // A Unix socket is not encrypted, whatever was asked for.
      ssl: host.startsWith('/') ? false : ssl,
    },
  };
}

/** Asks the application's password function as `pg` does: with the parameters, and `undefined` is no password. */
async function askPassword(ask: unknown, parameters: Dictionary): Promise<string> {
  const answer: unknown = await (ask as (parameters: Dictionary) => unknown)(parameters);
  if (answer !== undefined && typeof answer !== 'string') throw new TypeError('Password must be a string');
  return answer ?? '';
}
