-- Who wants to hear of what, what happened, and who was told. Times are milliseconds since 1970.
CREATE TABLE host_event_info (
  singleton INTEGER PRIMARY KEY NOT NULL CHECK (singleton = 1),
  -- The last number of a subscription; never goes back.
  last_subscription INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO host_event_info (singleton) VALUES (1);

CREATE TABLE subscriptions (
  number INTEGER PRIMARY KEY NOT NULL,
  subscription_id TEXT NOT NULL UNIQUE,
  session_id TEXT NOT NULL,
  handle TEXT NOT NULL,
  name TEXT,
  source_type TEXT NOT NULL,
  source_key TEXT NOT NULL,
  enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
  created_at_ms INTEGER NOT NULL,
  updated_at_ms INTEGER NOT NULL,
  -- { source, target }
  record_json TEXT NOT NULL,
  UNIQUE (session_id, handle)
) STRICT;
CREATE INDEX subscriptions_enabled ON subscriptions (source_type, source_key) WHERE enabled = 1;
-- What is old enough to be forgotten.
CREATE INDEX subscriptions_cancelled ON subscriptions (updated_at_ms) WHERE enabled = 0;

CREATE TABLE occurrences (
  occurrence_id TEXT PRIMARY KEY NOT NULL,
  idempotency_key TEXT NOT NULL UNIQUE,
  source_type TEXT NOT NULL,
  source_key TEXT NOT NULL,
  request_hash TEXT NOT NULL,
  occurred_at_ms INTEGER NOT NULL,
  -- When its deliveries were reserved for the first time; NULL until then.
  reserved_at_ms INTEGER,
  -- { payload, source }, of these what was given
  record_json TEXT NOT NULL
) STRICT;
-- What is old enough to be forgotten.
CREATE INDEX occurrences_age ON occurrences (occurred_at_ms);

CREATE TABLE deliveries (
  occurrence_id TEXT NOT NULL REFERENCES occurrences (occurrence_id) ON DELETE CASCADE,
  subscription_id TEXT NOT NULL REFERENCES subscriptions (subscription_id) ON DELETE CASCADE,
  process_id TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL CHECK (state IN ('reserved', 'started')),
  created_at_ms INTEGER NOT NULL,
  started_at_ms INTEGER,
  PRIMARY KEY (occurrence_id, subscription_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_of_subscription ON deliveries (subscription_id);
CREATE INDEX deliveries_unstarted ON deliveries (created_at_ms) WHERE state = 'reserved';
