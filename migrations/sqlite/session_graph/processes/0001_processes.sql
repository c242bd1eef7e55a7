-- Processes of a runtime, and what becomes of them. Times are milliseconds since 1970.

CREATE TABLE processes (
  process_id TEXT PRIMARY KEY NOT NULL,
  -- Over what was registered: the same process registered again is the same.
  registration_hash TEXT NOT NULL,
  owner_scope_id TEXT NOT NULL,
  host_profile_id TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  updated_at_ms INTEGER NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('running', 'completed', 'failed', 'cancelled')),
  external_ref_json TEXT,
  -- Of a process that has ended.
  await_output_json TEXT,
  -- { id, input, eventTypes, provenance }
  record_json TEXT NOT NULL
) STRICT;
CREATE INDEX processes_running ON processes (created_at_ms, process_id) WHERE status = 'running';
CREATE INDEX processes_ended ON processes (updated_at_ms) WHERE status <> 'running';

CREATE TABLE process_events (
  process_id TEXT NOT NULL REFERENCES processes (process_id) ON DELETE CASCADE,
  -- 1, 2, 3 ... per process.
  sequence INTEGER NOT NULL,
  event_type TEXT NOT NULL,
  -- Over type and payload.
  payload_hash TEXT NOT NULL,
  -- The replay key, if there is one.
  idempotency_key TEXT,
  occurred_at_ms INTEGER NOT NULL,
  event_json TEXT NOT NULL,
  -- The delivery of its wake, if it wakes somebody.
  wake_json TEXT,
  PRIMARY KEY (process_id, sequence)
) STRICT;
CREATE UNIQUE INDEX process_events_key ON process_events (process_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX process_events_type ON process_events (process_id, event_type, sequence);
CREATE INDEX process_events_wakes ON process_events (process_id, sequence) WHERE wake_json IS NOT NULL;

-- Wakes that somebody took note of.
CREATE TABLE process_wake_acks (
  process_id TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  PRIMARY KEY (process_id, sequence),
  FOREIGN KEY (process_id, sequence) REFERENCES process_events (process_id, sequence) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- Who may deal with which process.
CREATE TABLE process_handle_grants (
  scope_id TEXT NOT NULL,
  process_id TEXT NOT NULL REFERENCES processes (process_id) ON DELETE CASCADE,
  session_id TEXT NOT NULL,
  descriptor_json TEXT NOT NULL,
  PRIMARY KEY (scope_id, process_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX process_handle_grants_by_process ON process_handle_grants (process_id, session_id, scope_id);
CREATE INDEX process_handle_grants_by_session ON process_handle_grants (session_id, process_id);

-- Who runs which process. The row stays when the lease is given back: its fencing token never goes back.
CREATE TABLE process_leases (
  process_id TEXT PRIMARY KEY NOT NULL REFERENCES processes (process_id) ON DELETE CASCADE,
  owner_id TEXT,
  lease_token TEXT,
  fencing_token INTEGER NOT NULL,
  claimed_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
