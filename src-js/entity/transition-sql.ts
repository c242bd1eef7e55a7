/**
 * The statements of the delegate, for a transition table as the application made it: which columns it has and of which types decides
 * the text. All of them name the schema, take text parameters only where a driver could disagree about types, and answer with text.
 */
import { quoteName, TRANSITIONS_TABLE, type PlaceFacts } from './drizzle-probe';

/** One row to append. Texts are as Postgres can hold them ({@link pgText}). */
export interface TransitionRow {
  /** `<changeId>.<n>`: a second append of it changes nothing. */
  id: string;
  changeId: string;
  kind: string;
  entityId: string;
  field: string;
  fromValue: string | null;
  toValue: string;
  masked: boolean;
}

/** A statement with its parameters. */
export type Statement = readonly [text: string, values: readonly unknown[]];

/** Postgres refuses U+0000; lone surrogates become U+FFFD in the driver's UTF-8 already. */
export function pgText(text: string): string {
  return text.includes('\0') ? text.replaceAll('\0', '\uFFFD') : text;
}

/** Which field of which entity. */
export interface FieldKey {
  kind: string;
  entityId: string;
  field: string;
}

/** The statements for one table. */
export class TransitionSql {
  readonly #table: string;
  readonly #facts: PlaceFacts;
  /** Whether the time column has a zone. Without one it holds UTC. */
  readonly #zoned: boolean;
  /** What orders rows of one time. */
  readonly #tie: 'seq' | 'id';
  /** What names the row `t` for good, as text. */
  readonly #tieType: 'bigint' | 'text' | 'uuid';

  constructor(facts: PlaceFacts & { schema: string }) {
    this.#facts = facts;
    this.#table = `${quoteName(facts.schema)}.${TRANSITIONS_TABLE}`;
    this.#zoned = facts.columns.transitioned_at === 'timestamp with time zone';
    this.#tie = this.#has('seq') ? 'seq' : 'id';
    this.#tieType = this.#tie === 'seq' ? 'bigint' : facts.columns.id === 'uuid' ? 'uuid' : 'text';
  }

  #has(column: string): boolean {
    return Object.hasOwn(this.#facts.columns, column);
  }

  /** The order of rows, newest first. */
  get #newestFirst(): string {
    return `t.transitioned_at DESC, t.${this.#tie} DESC`;
  }

  /** Whether the row is masked, as text. */
  get #masked(): string {
    return this.#has('masked') ? 'coalesce(t.masked, false)::text' : `'false'`;
  }

  /** An instant as the type of the time column: `unit`s since 1970, in a parameter. */
  #instant(parameter: string, unit: 'millisecond' | 'microsecond'): string {
    return `(${this.#zoned ? 'timestamptz' : 'timestamp'} 'epoch' + ${parameter}::text::float8 * interval '1 ${unit}')`;
  }

  /** A time column as whole units since 1970, rounded down, as text. */
  #since1970(column: string, factor: 1_000 | 1_000_000): string {
    // A `timestamp` has no zone, and its "epoch" none either: it is read as UTC, whatever the session's zone is.
    return `floor(extract(epoch FROM ${column}) * ${factor})::text`;
  }

  /** Appends rows, skipping those whose id is there already. All of them get one time, of the server's clock. */
  append(rows: readonly TransitionRow[]): Statement {
    const optional: [column: string, type: string, value: (row: TransitionRow) => unknown][] = [
      ['change_id', 'text', (row) => row.changeId],
      ['masked', 'bool', (row) => row.masked],
    ];
    const columns: typeof optional = [
      ['id', 'text', (row) => row.id],
      ['kind', 'text', (row) => row.kind],
      ['entity_id', 'text', (row) => row.entityId],
      ['field', 'text', (row) => row.field],
      ['from_value', 'text', (row) => row.fromValue],
      ['to_value', 'text', (row) => row.toValue],
      ...optional.filter(([column]) => this.#has(column)),
    ];
    const names = columns.map(([column]) => column);
    const arrays = columns.map(([, type], index) => `$${index + 1}::${type}[]`);
    const values = columns.map(([, , value]) => rows.map(value));
    // An id of another type than text cannot hold ours: one that follows from it keeps a second append harmless.
    const id = this.#facts.columns.id === 'uuid' ? 'md5(r.id)::uuid' : 'r.id';
    const selected = [id, ...names.slice(1).map((name) => `r.${name}`)].join(', ');
    const now = this.#zoned ? 'clock_timestamp()' : `clock_timestamp() AT TIME ZONE 'UTC'`;
    const once = this.#facts.idUnique ? 'ON CONFLICT (id) DO NOTHING' : '';
    const unless = this.#facts.idUnique ? '' : `WHERE NOT EXISTS (SELECT FROM ${this.#table} t WHERE t.id = ${id})`;
    // Materialized: the clock is read once, not once per row.
    const text = `WITH clock AS MATERIALIZED (SELECT ${now} AS now)
INSERT INTO ${this.#table} (${names.join(', ')}, transitioned_at)
SELECT ${selected}, clock.now FROM clock, unnest(${arrays.join(', ')}) AS r(${names.join(', ')}) ${unless}
${once}`;
    return [text, values];
  }

  /** `since`: when the field last got one of these texts, as milliseconds; `masked`: whether its newest row is masked, and since when. */
  since(key: FieldKey, texts: readonly string[]): Statement {
    const equal = (column: string, value: (text: string) => string): string =>
      // One text, as usual, is compared by `=`: only that lets an index give the rows in the order of time.
      texts.length === 1 ? `${column} = ${value('$4::text')}` : `${column} = ANY (ARRAY(SELECT ${value('v')} FROM unnest($4::text[]) AS v))`;
    const hashed = this.#facts.md5Index ? ` AND ${equal('md5(t.to_value)', (text) => `md5(${text})`)}` : '';
    const at = this.#since1970('t.transitioned_at', 1_000);
    const newest = this.#has('masked')
      ? `(SELECT CASE WHEN t.masked THEN ${at} END FROM ${this.#table} t WHERE ${KEY} ORDER BY ${this.#newestFirst} LIMIT 1)`
      : 'NULL';
    const text = `SELECT ${newest} AS masked, (SELECT ${at} FROM ${this.#table} t WHERE ${KEY} AND ${equal('t.to_value', (text) => text)}${hashed}
ORDER BY ${this.#newestFirst} LIMIT 1) AS since`;
    return [text, [...keyValues(key), texts.length === 1 ? texts[0] : texts]];
  }

  /** The newest texts of a field with their times, in milliseconds, and whether they are masked. */
  newest(key: FieldKey, limit: number): Statement {
    const text = `SELECT t.to_value AS value, ${this.#since1970('t.transitioned_at', 1_000)} AS at, ${this.#masked} AS masked
FROM ${this.#table} t WHERE ${KEY}
ORDER BY ${this.#newestFirst} LIMIT ${limit}`;
    return [text, keyValues(key)];
  }

  /** How many rows there are from `sinceMs` on; `null` = all. */
  count(key: FieldKey, sinceMs: number | null): Statement {
    const bound = sinceMs === null ? '' : ` AND t.transitioned_at >= ${this.#instant('$4', 'millisecond')}`;
    const values = [...keyValues(key), ...(sinceMs === null ? [] : [String(sinceMs)])];
    return [`SELECT count(*)::text AS count FROM ${this.#table} t WHERE ${KEY}${bound}`, values];
  }

  /** A page of an entity's rows, newest first; `after` is the last row of the page before. */
  history(query: {
    kind: string;
    entityId: string;
    field: string | undefined;
    fromMs: number | undefined;
    toMs: number | undefined;
    after: { at: string; tie: string } | undefined;
    limit: number;
  }): Statement {
    const values: unknown[] = [];
    const add = (value: unknown): string => `$${values.push(value)}`;
    const where = [`t.kind = ${add(pgText(query.kind))}`, `t.entity_id = ${add(pgText(query.entityId))}`];
    if (query.field !== undefined) where.push(`t.field = ${add(pgText(query.field))}`);
    if (query.fromMs !== undefined) where.push(`t.transitioned_at >= ${this.#instant(add(String(query.fromMs)), 'millisecond')}`);
    if (query.toMs !== undefined) where.push(`t.transitioned_at < ${this.#instant(add(String(query.toMs)), 'millisecond')}`);
    if (query.after !== undefined) {
      const at = this.#instant(add(query.after.at), 'microsecond');
      where.push(`(t.transitioned_at, t.${this.#tie}) < (${at}, ${add(query.after.tie)}::text::${this.#tieType})`);
    }
    const text = `SELECT t.id::text AS id, t.field AS field, t.from_value AS from_value, t.to_value AS to_value,
${this.#masked} AS masked, ${this.#has('change_id') ? 't.change_id::text' : 'NULL'} AS change_id,
${this.#since1970('t.transitioned_at', 1_000_000)} AS at, t.${this.#tie}::text AS tie
FROM ${this.#table} t WHERE ${where.join(' AND ')} ORDER BY ${this.#newestFirst} LIMIT ${query.limit}`;
    return [text, values];
  }

  /** For how many milliseconds a field had which text between two instants, the longest first. */
  timeInState(key: FieldKey, fromMs: number, toMs: number): Statement {
    const [from, to] = [this.#instant('$4', 'millisecond'), this.#instant('$5', 'millisecond')];
    const oldestFirst = `t.transitioned_at, t.${this.#tie}`;
    const text = `WITH before AS (
  SELECT t.to_value AS value FROM ${this.#table} t WHERE ${KEY} AND t.transitioned_at < ${from} ORDER BY ${this.#newestFirst} LIMIT 1
), born AS (
  SELECT t.from_value AS value FROM ${this.#table} t WHERE ${KEY} AND NOT EXISTS (SELECT FROM before) ORDER BY ${oldestFirst} LIMIT 1
), entered AS (
  SELECT value, ${from} AS at, 0 AS place FROM (SELECT value FROM before UNION ALL SELECT value FROM born) AS first
  UNION ALL
  SELECT t.to_value, t.transitioned_at, row_number() OVER (ORDER BY ${oldestFirst})
  FROM ${this.#table} t WHERE ${KEY} AND t.transitioned_at >= ${from} AND t.transitioned_at < ${to}
), spans AS (
  SELECT value, coalesce(lead(at) OVER (ORDER BY place), ${to}) - at AS span FROM entered
)
SELECT value, (extract(epoch FROM sum(span)) * 1000)::text AS ms FROM spans WHERE value IS NOT NULL
GROUP BY value HAVING sum(span) > interval '0' ORDER BY sum(span) DESC, value`;
    return [text, [...keyValues(key), String(fromMs), String(toMs)]];
  }

  /** Deletes up to `limit` rows that are too old or too many. The newest row of every field of every entity stays. */
  prune(retention: { olderThanMs: number | null; rowsMax: number | null }, limit: number): Statement | null {
    const values: unknown[] = [];
    const rules: string[] = [];
    if (retention.olderThanMs !== null) {
      values.push(String(retention.olderThanMs));
      rules.push(`(place > 1 AND transitioned_at < ${this.#instant('$1', 'millisecond')})`);
    }
    if (retention.rowsMax !== null) rules.push(`place > ${Math.max(1, Math.floor(retention.rowsMax))}`);
    if (rules.length === 0) return null;
    const text = `WITH placed AS (
  SELECT t.ctid AS row, t.transitioned_at, row_number() OVER (PARTITION BY t.kind, t.entity_id, t.field ORDER BY ${this.#newestFirst}) AS place
  FROM ${this.#table} t
), gone AS (
  DELETE FROM ${this.#table} WHERE ctid = ANY (ARRAY(SELECT row FROM placed WHERE ${rules.join(' OR ')} LIMIT ${limit})) RETURNING 1
)
SELECT count(*)::text AS deleted FROM gone`;
    return [text, values];
  }
}

const KEY = 't.kind = $1 AND t.entity_id = $2 AND t.field = $3';

function keyValues(key: FieldKey): string[] {
  return [pgText(key.kind), pgText(key.entityId), pgText(key.field)];
}
