/**
 * The tables of the entity module for applications that migrate with drizzle. `entityTransitions` is what `createEntityStore(db)` needs;
 * the others are for `durability: 'outbox'` or `'journal'`. Export them from the application's schema file, so that drizzle-kit sees them.
 */
import { randomUUID } from 'node:crypto';

import { sql } from 'drizzle-orm';
import { bigint, index, jsonb, pgTable, text, timestamp, unique } from 'drizzle-orm/pg-core';

/**
 * The transition log: one row per changed field, the same table as the original's. Its times are UTC. Columns may be added; holdfast fills
 * `change_id text` and `masked boolean` if they are there, and breaks ties of one time by `seq`.
 */
export const entityTransitions = pgTable(
  'entity_transitions',
  {
    /** `<changeId>.<number of the field>`. */
    id: text('id')
      .primaryKey()
      .$defaultFn(() => randomUUID()),
    kind: text('kind').notNull(),
    entityId: text('entity_id').notNull(),
    field: text('field').notNull(),
    /** `null` = the entity did not exist before. */
    fromValue: text('from_value'),
    toValue: text('to_value').notNull(),
    transitionedAt: timestamp('transitioned_at').defaultNow().notNull(),
  },
  (t) => [index('entity_transitions_lookup_idx').on(t.kind, t.entityId, t.field, t.transitionedAt)],
);

/** The outbox and change log: one row per change, with its event until that is delivered. */
export const entityChanges = pgTable(
  'entity_changes',
  {
    seq: bigint('seq', { mode: 'bigint' }).generatedAlwaysAsIdentity().primaryKey(),
    changeId: text('change_id').notNull(),
    kind: text('kind').notNull(),
    entityId: text('entity_id').notNull(),
    /** `mutate` or `remove`. */
    op: text('op').notNull(),
    /** JSON text of who made the change. */
    actor: text('actor').notNull(),
    /** The event, masked. */
    payload: jsonb('payload').notNull(),
    /** The process that delivers it, and its start. */
    owner: text('owner').notNull(),
    createdAt: timestamp('created_at', { withTimezone: true }).defaultNow().notNull(),
    deliveredAt: timestamp('delivered_at', { withTimezone: true }),
  },
  (t) => [
    unique('entity_changes_change_id_key').on(t.changeId),
    index('entity_changes_pending_idx').on(t.kind, t.seq).where(sql`${t.deliveredAt} IS NULL`),
  ],
);

/** The journal: one row per write that has begun and is not recorded yet. */
export const entityIntents = pgTable('entity_intents', {
  changeId: text('change_id').primaryKey(),
  kind: text('kind').notNull(),
  entityId: text('entity_id').notNull(),
  /** `mutate` or `remove`. */
  op: text('op').notNull(),
  /** JSON text of the state before, masked; `null` = the entity did not exist. */
  prev: text('prev'),
  /** JSON text of who makes the change. */
  actor: text('actor').notNull(),
  runId: text('run_id'),
  /** The process that writes, and its start. */
  owner: text('owner').notNull(),
  createdAt: timestamp('created_at', { withTimezone: true }).defaultNow().notNull(),
});

/** Facts about the tables, such as the version of their shape. */
export const entityMeta = pgTable('entity_meta', {
  key: text('key').primaryKey(),
  value: text('value').notNull(),
});
