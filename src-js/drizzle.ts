/**
 * The tables of the entity module for applications that migrate with drizzle. `entityTransitions` is what `createEntityStore(db)` needs.
 * For `durability: 'outbox'` or `'journal'` take `durableEntityTransitions`, `entityChanges` and `entityIntents` instead. Export what
 * you use from the application's schema file, so that drizzle-kit sees it.
 */
import { randomUUID } from 'node:crypto';

import { sql } from 'drizzle-orm';
import { bigint, boolean, customType, index, json, pgTable, text, timestamp, uniqueIndex } from 'drizzle-orm/pg-core';

/** `<changeId>.<number of the field>`; rows that the application adds get a UUID. */
const id = () =>
  text('id')
    .primaryKey()
    .$defaultFn(() => randomUUID());

/** What every row says. Made anew for each table, as drizzle wants it. */
const transition = () => ({
  kind: text('kind').notNull(),
  entityId: text('entity_id').notNull(),
  field: text('field').notNull(),
  /** `null` = the entity did not exist before. */
  fromValue: text('from_value'),
  toValue: text('to_value').notNull(),
});

/**
 * The transition log: one row per changed field, the same table as the original's. Its times are UTC. Columns may be added; holdfast fills
 * `change_id text` and `masked boolean` if they are there, and breaks ties of one time by `seq`.
 */
export const entityTransitions = pgTable(
  'entity_transitions',
  { id: id(), ...transition(), transitionedAt: timestamp('transitioned_at').defaultNow().notNull() },
  (t) => [index('entity_transitions_lookup_idx').on(t.kind, t.entityId, t.field, t.transitionedAt)],
);

const bytea = customType<{ data: Buffer }>({ dataType: () => 'bytea' });

/**
 * The transition log with all columns of holdfast: the table that `durability: 'outbox'` and `'journal'` need, in the place of
 * {@link entityTransitions}. Programs that know only the first seven columns can go on writing to it.
 *
 * Its times have a zone. Where the table exists with `timestamp`, write the change of type into the migration yourself, because the rows
 * are UTC whatever the session's zone is: `ALTER COLUMN transitioned_at TYPE timestamptz USING transitioned_at AT TIME ZONE 'UTC'`.
 */
export const durableEntityTransitions = pgTable(
  'entity_transitions',
  {
    id: id(),
    ...transition(),
    transitionedAt: timestamp('transitioned_at', { withTimezone: true })
      .default(sql`clock_timestamp()`)
      .notNull(),
    /** By which a value is found again; `null` in rows of other programs. */
    toKey: bytea('to_key'),
    /** Whether secrets were masked in `toValue`. */
    masked: boolean('masked').notNull().default(false),
    /** The change that wrote the row; `null` in rows of other programs. */
    changeId: text('change_id'),
    /** Numbers the rows of one field of one entity; `null` in rows of other programs. */
    ordinal: bigint('ordinal', { mode: 'number' }),
    seq: bigint('seq', { mode: 'bigint' }).generatedAlwaysAsIdentity(),
  },
  (t) => [
    index('entity_transitions_lookup_idx').on(t.kind, t.entityId, t.field, t.transitionedAt),
    index('entity_transitions_value_idx').on(t.kind, t.entityId, t.field, t.toKey, t.transitionedAt),
    uniqueIndex('entity_transitions_ordinal_idx').on(t.kind, t.entityId, t.field, t.ordinal),
    index('entity_transitions_seq_idx').on(t.seq),
    index('entity_transitions_masked_idx').on(t.kind, t.entityId).where(sql`masked`),
    index('entity_transitions_foreign_idx')
      .on(t.kind, t.entityId, t.field, sql`md5(to_value)`, t.transitionedAt)
      .where(sql`ordinal IS NULL`),
  ],
);

/** The outbox and change log: one row per change, with its event until some time after that is delivered. */
export const entityChanges = pgTable(
  'entity_changes',
  {
    seq: bigint('seq', { mode: 'bigint' }).generatedAlwaysAsIdentity(),
    changeId: text('change_id').primaryKey(),
    kind: text('kind').notNull(),
    entityId: text('entity_id').notNull(),
    /** `mutate` or `remove`. */
    op: text('op').notNull(),
    /** Who made the change. */
    actor: json('actor').notNull(),
    /** The event, masked. Not `jsonb`, which refuses some texts and sorts the keys. */
    payload: json('payload').notNull(),
    /** The store object that delivers it: each has a UUID of its own. */
    owner: text('owner').notNull(),
    createdAt: timestamp('created_at', { withTimezone: true }).notNull(),
    deliveredAt: timestamp('delivered_at', { withTimezone: true }),
    /** Whether `payload` still has the event. */
    held: boolean('held').notNull().default(true),
  },
  (t) => [
    index('entity_changes_pending_idx').on(t.kind, t.seq).where(sql`delivered_at IS NULL`),
    index('entity_changes_held_idx').on(t.createdAt).where(sql`held`),
  ],
);

/** The journal: one row per write that has begun and is not recorded yet. */
export const entityIntents = pgTable(
  'entity_intents',
  {
    changeId: text('change_id').primaryKey(),
    kind: text('kind').notNull(),
    entityId: text('entity_id').notNull(),
    /** `mutate` or `remove`. */
    op: text('op').notNull(),
    /** The state before, masked; `null` = the entity did not exist. */
    prev: json('prev'),
    /** What was masked in `prev`. */
    marks: text('marks'),
    /** Who makes the change. */
    actor: json('actor').notNull(),
    runId: text('run_id'),
    /** The store object that writes: each has a UUID of its own. */
    owner: text('owner').notNull(),
    createdAt: timestamp('created_at', { withTimezone: true }).notNull(),
  },
  (t) => [index('entity_intents_owner_idx').on(t.kind, t.owner)],
);

/** Facts about the tables, such as the version of their shape. Nothing needs it where the application migrates. */
export const entityMeta = pgTable('entity_meta', {
  key: text('key').primaryKey(),
  value: text('value').notNull(),
});
