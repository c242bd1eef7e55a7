CREATE TABLE entity_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
INSERT INTO entity_meta (key, value) VALUES ('schema_version', '1');

-- One row per changed field. `ordinal` numbers the rows of one (kind, entity_id, field) in the order of their times, without
-- gaps, so that "how many since" is a difference and not a scan.
CREATE TABLE entity_transitions (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  entity_id TEXT NOT NULL,
  field TEXT NOT NULL,
  from_value TEXT,
  to_value TEXT NOT NULL,
  to_key BLOB NOT NULL,
  masked INTEGER NOT NULL DEFAULT 0,
  change_id TEXT,
  transitioned_at INTEGER NOT NULL,
  ordinal INTEGER NOT NULL
) STRICT;
CREATE INDEX entity_transitions_lookup_idx ON entity_transitions (kind, entity_id, field, transitioned_at);
CREATE INDEX entity_transitions_value_idx ON entity_transitions (kind, entity_id, field, to_key, transitioned_at);
-- Which entities have ever had something to hide.
CREATE INDEX entity_transitions_masked_idx ON entity_transitions (kind, entity_id) WHERE masked = 1;

-- Outbox and change log. Once a change is delivered its payload is emptied; what stays says who changed what, and when.
CREATE TABLE entity_changes (
  seq INTEGER PRIMARY KEY,
  change_id TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  entity_id TEXT NOT NULL,
  op TEXT NOT NULL,
  actor TEXT NOT NULL,
  payload TEXT NOT NULL,
  owner TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  delivered_at INTEGER
) STRICT;
CREATE INDEX entity_changes_pending_idx ON entity_changes (kind, seq) WHERE delivered_at IS NULL;

-- Journal: written before the owner's write begins, deleted together with the append of its rows.
CREATE TABLE entity_intents (
  change_id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  entity_id TEXT NOT NULL,
  op TEXT NOT NULL,
  prev TEXT,
  -- Of a masked "prev": two characters per member, by which an unchanged one is recognized.
  marks TEXT,
  actor TEXT NOT NULL,
  run_id TEXT,
  owner TEXT NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
