/**
 * What the database says about the place where a drizzle object's transactions end up. One query text, so that the same question can be
 * asked on another connection: equal answers prove that both look at the same table of the same running server.
 */
import { builtinError, HoldfastError } from '../errors';
import { executorOf, whileOpen, type DrizzleDatabase } from './drizzle-target';

/** The table that the application owns. */
export const TRANSITIONS_TABLE = 'entity_transitions';

/** What one probe found. */
export interface PlaceFacts {
  readonly database: string;
  readonly databaseOid: string;
  /** When the server started, microseconds since 1970: tells servers apart, copies of one included. */
  readonly serverStart: string;
  /** The role whose rights and policies apply. */
  readonly user: string;
  /** `null`: there is no such table. */
  readonly tableOid: string | null;
  readonly schema: string | null;
  /** The table's columns with their types as Postgres spells them, without precision: `timestamp without time zone`. */
  readonly columns: Readonly<Record<string, string>>;
  /** Whether the table refuses a second row with the same id. */
  readonly idUnique: boolean;
  /** Whether an index on `md5(to_value)` exists. */
  readonly md5Index: boolean;
  /** Which of the further tables exist beside it: `entity_changes`, `entity_intents`, `entity_meta`. */
  readonly companions: readonly string[];
}

/**
 * The query; its one row has one column `facts`, JSON text. It has no parameters and changes nothing.
 *
 * @param schema Where to look; `null` = wherever the `search_path` leads
 */
export function probeText(schema: string | null = null): string {
  const table = schema === null ? TRANSITIONS_TABLE : `${quoteName(schema)}.${TRANSITIONS_TABLE}`;
  // Everything as one text: the application may have changed how its driver reads numbers, times and arrays.
  // An aggregate, not EXISTS, around pg_get_indexdef(): that would ask for every index of the database, and fail for one just dropped.
  return `SELECT json_build_object(
  'database', current_database(),
  'databaseOid', (SELECT oid::text FROM pg_database WHERE datname = current_database()),
  'serverStart', (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text,
  'user', current_user,
  'tableOid', c.oid::text,
  'schema', n.nspname,
  'columns', coalesce((SELECT json_object_agg(a.attname, format_type(a.atttypid, NULL)) FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '{}'),
  'idUnique', EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = 'id'
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum),
  'md5Index', (SELECT coalesce(bool_or(pg_get_indexdef(i.indexrelid) LIKE '%md5(to_value)%'), false) FROM pg_index i
    WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL),
  'companions', (SELECT coalesce(json_agg(o.relname ORDER BY o.relname), '[]') FROM pg_class o
    WHERE o.relnamespace = c.relnamespace AND o.relname IN ('entity_changes', 'entity_intents', 'entity_meta') AND o.relkind IN ('r', 'p'))
)::text AS facts
FROM (SELECT to_regclass(${quoteText(table)})::oid AS oid) AS found
LEFT JOIN pg_class c ON c.oid = found.oid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace`;
}

/** Reads the answer to {@link probeText}. */
export function parseFacts(text: string): PlaceFacts {
  return JSON.parse(text) as PlaceFacts;
}

/**
 * Asks through the drizzle object, in a transaction of it, because a wrapper may change the `search_path` of transactions only.
 *
 * @throws {TypeError} `HF_ENTITY_STORE_INPUT_INVALID`: its driver gives transactions no `session.client.query(text, values)`
 */
export async function probeThroughDrizzle(db: DrizzleDatabase): Promise<PlaceFacts> {
  const answer = await whileOpen(db, () =>
    db.transaction(async (tx) => {
      executorOf(tx);
      return tx.execute(probeText());
    }),
  );
  const rows: unknown = Array.isArray(answer) ? answer : (answer as { rows?: unknown } | null)?.rows;
  const facts = Array.isArray(rows) ? (rows[0] as { facts?: unknown } | undefined)?.facts : undefined;
  if (typeof facts === 'string') return parseFacts(facts);
  throw builtinError(TypeError, 'the drizzle object does not answer a query with rows; a database of drizzle-orm over `pg` is expected', {
    hfCode: 'HF_ENTITY_STORE_INPUT_INVALID',
  });
}

/** Why two probes are not of the same place, or `null` if they are. The reason names no values. */
export function placeDifference(drizzle: PlaceFacts, native: PlaceFacts): string | null {
  if (drizzle.serverStart !== native.serverStart) return 'it is another server';
  if (drizzle.databaseOid !== native.databaseOid || drizzle.database !== native.database) return 'it is another database';
  if (drizzle.tableOid !== native.tableOid || drizzle.schema !== native.schema) return 'it is another table';
  return drizzle.user === native.user ? null : 'it is another role';
}

const TEXTS = ['kind', 'entity_id', 'field', 'from_value', 'to_value'];

/**
 * Makes sure that the table is there and can be used as it is.
 *
 * @throws {HoldfastError} `HF_ENTITY_TABLE_MISSING`
 */
export function assertUsable(facts: PlaceFacts): asserts facts is PlaceFacts & { readonly tableOid: string; readonly schema: string } {
  if (facts.tableOid === null) throw tableMissing();
  const missing = ['id', ...TEXTS, 'transitioned_at'].filter((name) => !Object.hasOwn(facts.columns, name));
  if (missing.length > 0) throw tableMissing(`relation "${TRANSITIONS_TABLE}" has no column ${missing.map((name) => `"${name}"`).join(', ')}`, '42703');
  const time = facts.columns.transitioned_at as string;
  if (!time.startsWith('timestamp')) {
    throw tableMissing(`column "transitioned_at" of relation "${TRANSITIONS_TABLE}" is ${time}, not a timestamp`, '42804');
  }
}

/** Why only the delegate, whose statements follow the table, can write to it; `null` = the engine can, too. */
export function oddTable({ columns, idUnique }: PlaceFacts): string | null {
  if (!idUnique) return 'the column "id" of "entity_transitions" is not unique';
  return columns.id === 'uuid' ? 'the column "id" of "entity_transitions" is a uuid' : null;
}

/** The error of a table that is not there (yet); its cause has the SQLSTATE. */
export function tableMissing(message = `relation "${TRANSITIONS_TABLE}" does not exist`, sqlState = '42P01'): HoldfastError {
  return new HoldfastError(message, {
    hfCode: 'HF_ENTITY_TABLE_MISSING',
    cause: Object.assign(new Error(message), { code: sqlState }),
  });
}

/** An SQL identifier. */
export function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** An SQL text literal, whatever `standard_conforming_strings` says. */
function quoteText(text: string): string {
  const quoted = `'${text.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`;
  return text.includes('\\') ? `E${quoted}` : quoted;
}
