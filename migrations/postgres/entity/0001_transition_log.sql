CREATE TABLE IF NOT EXISTS {schema}.entity_meta (key text PRIMARY KEY, value text NOT NULL);
INSERT INTO {schema}.entity_meta (key, value) VALUES ('schema_version', '1') ON CONFLICT (key) DO NOTHING;

-- A table that another program made is kept: it gets the columns that it lacks, all nullable or defaulted, so that writers that know
-- only the first seven keep working.
CREATE TABLE IF NOT EXISTS {schema}.entity_transitions (
  id text PRIMARY KEY NOT NULL,
  kind text NOT NULL,
  entity_id text NOT NULL,
  field text NOT NULL,
  from_value text,
  to_value text NOT NULL,
  transitioned_at timestamptz DEFAULT clock_timestamp() NOT NULL
);
ALTER TABLE {schema}.entity_transitions ADD COLUMN IF NOT EXISTS to_key bytea;
ALTER TABLE {schema}.entity_transitions ADD COLUMN IF NOT EXISTS masked boolean NOT NULL DEFAULT false;
ALTER TABLE {schema}.entity_transitions ADD COLUMN IF NOT EXISTS change_id text;
-- Numbers the rows of one (kind, entity_id, field) without gaps: "how many since" is a difference, not a scan.
ALTER TABLE {schema}.entity_transitions ADD COLUMN IF NOT EXISTS ordinal bigint;
ALTER TABLE {schema}.entity_transitions ADD COLUMN IF NOT EXISTS seq bigint GENERATED ALWAYS AS IDENTITY;
CREATE INDEX IF NOT EXISTS entity_transitions_lookup_idx ON {schema}.entity_transitions (kind, entity_id, field, transitioned_at);
CREATE INDEX IF NOT EXISTS entity_transitions_value_idx ON {schema}.entity_transitions (kind, entity_id, field, to_key, transitioned_at);
CREATE UNIQUE INDEX IF NOT EXISTS entity_transitions_ordinal_idx ON {schema}.entity_transitions (kind, entity_id, field, ordinal);
CREATE INDEX IF NOT EXISTS entity_transitions_seq_idx ON {schema}.entity_transitions (seq);
-- Which entities have ever had something to hide.
CREATE INDEX IF NOT EXISTS entity_transitions_masked_idx ON {schema}.entity_transitions (kind, entity_id) WHERE masked;
CREATE INDEX IF NOT EXISTS entity_transitions_foreign_idx
  ON {schema}.entity_transitions (kind, entity_id, field, md5(to_value), transitioned_at) WHERE ordinal IS NULL;

-- Outbox and change log. `payload` is json, not jsonb: the event's text is kept as it is, with the order of its keys and what jsonb
-- refuses (an escaped U+0000, lone surrogates). It is emptied some time after the delivery; what stays says who changed what.
CREATE TABLE IF NOT EXISTS {schema}.entity_changes (
  seq bigint GENERATED ALWAYS AS IDENTITY,
  change_id text PRIMARY KEY,
  kind text NOT NULL,
  entity_id text NOT NULL,
  op text NOT NULL,
  actor json NOT NULL,
  payload json NOT NULL,
  owner text NOT NULL,
  created_at timestamptz NOT NULL,
  delivered_at timestamptz,
  held boolean NOT NULL DEFAULT true
);
CREATE INDEX IF NOT EXISTS entity_changes_pending_idx ON {schema}.entity_changes (kind, seq) WHERE delivered_at IS NULL;
CREATE INDEX IF NOT EXISTS entity_changes_held_idx ON {schema}.entity_changes (created_at) WHERE held;

-- Journal: written before the owner's write begins, deleted together with the append of its rows.
CREATE TABLE IF NOT EXISTS {schema}.entity_intents (
  change_id text PRIMARY KEY,
  kind text NOT NULL,
  entity_id text NOT NULL,
  op text NOT NULL,
  prev json,
  -- Of a masked "prev": two characters per member, by which an unchanged one is recognized.
  marks text,
  actor json NOT NULL,
  run_id text,
  owner text NOT NULL,
  created_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS entity_intents_owner_idx ON {schema}.entity_intents (kind, owner);
