-- Every change is one small transaction that is synced, so what counts is how many pages it touches. Texts without a bound come
-- last in a row: who wants only what stands before them reads no overflow pages.
CREATE TABLE entity_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
INSERT INTO entity_meta (key, value) VALUES ('schema_version', '1');

-- One row per changed field. A row's id is its change's, a dot, and its position. `ordinal` numbers the rows of one (kind,
-- entity_id, field) in the order of their times, without gaps, so that "how many since" is a difference and not a scan.
CREATE TABLE entity_transitions (
  seq INTEGER PRIMARY KEY,
  change_id TEXT NOT NULL,
  position INTEGER NOT NULL,
  kind TEXT NOT NULL,
  entity_id TEXT NOT NULL,
  field TEXT NOT NULL,
  to_key BLOB NOT NULL,
  masked INTEGER NOT NULL DEFAULT 0,
  transitioned_at INTEGER NOT NULL,
  ordinal INTEGER NOT NULL,
  -- Of rows that a caller made: they can come a second time.
  plain INTEGER NOT NULL DEFAULT 0,
  to_value TEXT NOT NULL,
  from_value TEXT
) STRICT;
CREATE INDEX entity_transitions_lookup_idx ON entity_transitions (kind, entity_id, field, transitioned_at);
CREATE INDEX entity_transitions_value_idx ON entity_transitions (kind, entity_id, field, to_key, transitioned_at);
CREATE UNIQUE INDEX entity_transitions_plain_idx ON entity_transitions (change_id, position) WHERE plain = 1;
-- Which entities have ever had something to hide.
CREATE INDEX entity_transitions_masked_idx ON entity_transitions (kind, entity_id) WHERE masked = 1;

-- Outbox and change log. Once a change is delivered its payload is emptied; what stays says who changed what, and when.
CREATE TABLE entity_changes (
  seq INTEGER PRIMARY KEY,
  change_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  entity_id TEXT NOT NULL,
  op TEXT NOT NULL,
  owner TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  delivered_at INTEGER,
  actor TEXT NOT NULL,
  payload TEXT NOT NULL
) STRICT;
-- Holds only what waits, normally next to nothing, and all that says whether it concerns somebody.
CREATE INDEX entity_changes_pending_idx ON entity_changes (change_id, kind, owner) WHERE delivered_at IS NULL;

-- Journal: written before the owner's write begins, deleted together with the append of its rows. `slot` is made from the change's
-- id: so the table needs no index, and a state of some size fits into one page.
CREATE TABLE entity_intents (
  slot INTEGER PRIMARY KEY,
  change_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  entity_id TEXT NOT NULL,
  op TEXT NOT NULL,
  run_id TEXT,
  owner TEXT NOT NULL,
  -- Microseconds, each value once per process: the order in which the changes began.
  created_at INTEGER NOT NULL,
  -- Of a masked "prev": two characters per member, by which an unchanged one is recognized.
  marks TEXT,
  actor TEXT NOT NULL,
  prev TEXT
) STRICT;
