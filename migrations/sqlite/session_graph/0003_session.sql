-- One session: its graph, checkpoint, usage, waiting work. Times are milliseconds since 1970. What is large stands last in its row: who
-- does not ask for it reads none of its pages.

-- Counters that are kept in the transaction that changes what they count.
CREATE TABLE store_info (
  singleton INTEGER PRIMARY KEY NOT NULL CHECK (singleton = 1),
  -- The last fencing token that was given out; never goes back.
  next_fencing INTEGER NOT NULL DEFAULT 0,
  live_nodes INTEGER NOT NULL DEFAULT 0,
  tombstoned_nodes INTEGER NOT NULL DEFAULT 0,
  -- Of all blobs, as stored.
  blob_bytes INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO store_info (singleton) VALUES (1);

CREATE TABLE session_head (
  singleton INTEGER PRIMARY KEY NOT NULL CHECK (singleton = 1),
  session_id TEXT NOT NULL,
  head_revision INTEGER NOT NULL,
  leaf_node_id TEXT,
  checkpoint_ref TEXT NOT NULL,
  -- { config, agentFrames, currentAgentFrameId, retainedBlobRefs }
  head_json TEXT NOT NULL
) STRICT;

-- The links, apart from the payloads: walks and counts read few pages.
CREATE TABLE graph_nodes (
  seq INTEGER PRIMARY KEY NOT NULL,
  node_id TEXT NOT NULL UNIQUE,
  tombstoned INTEGER NOT NULL DEFAULT 0 CHECK (tombstoned IN (0, 1)),
  parent_node_id TEXT,
  -- NULL while the parent is not stored.
  parent_seq INTEGER
) STRICT;
CREATE INDEX graph_nodes_dangling ON graph_nodes (parent_node_id) WHERE parent_seq IS NULL AND parent_node_id IS NOT NULL;
CREATE INDEX graph_nodes_tombstoned ON graph_nodes (seq) WHERE tombstoned = 1;

CREATE TABLE graph_bodies (
  seq INTEGER PRIMARY KEY NOT NULL,
  node_json TEXT NOT NULL
) STRICT;

-- In the order in which they came: what a commit stores is written side by side. Found by a number, so that the index is small and new
-- hashes, which fall anywhere, touch few pages.
CREATE TABLE blobs (
  seq INTEGER PRIMARY KEY NOT NULL,
  -- The first 15 hex digits of the hash as a number. Not unique; hashes are.
  prefix INTEGER NOT NULL,
  hash TEXT NOT NULL,
  kind TEXT NOT NULL,
  -- 0: content as it is; 1: its zlib stream.
  codec INTEGER NOT NULL CHECK (codec IN (0, 1)),
  raw_len INTEGER NOT NULL,
  created_at_ms INTEGER NOT NULL,
  content BLOB NOT NULL
) STRICT;
CREATE INDEX blobs_prefix ON blobs (prefix);

CREATE TABLE usage_deltas (
  seq INTEGER PRIMARY KEY NOT NULL,
  source TEXT NOT NULL,
  model TEXT NOT NULL,
  input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  cached_input_tokens INTEGER NOT NULL,
  reasoning_tokens INTEGER NOT NULL
) STRICT;

-- The sums of the above, without rows that used nothing.
CREATE TABLE usage_totals (
  source TEXT NOT NULL,
  model TEXT NOT NULL,
  first_seq INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  cached_input_tokens INTEGER NOT NULL,
  reasoning_tokens INTEGER NOT NULL,
  PRIMARY KEY (source, model)
) STRICT, WITHOUT ROWID;

CREATE TABLE session_meta (
  singleton INTEGER PRIMARY KEY NOT NULL CHECK (singleton = 1),
  session_id TEXT NOT NULL,
  session_name TEXT NOT NULL,
  created_at TEXT NOT NULL,
  model TEXT NOT NULL,
  cwd TEXT,
  relation_json TEXT,
  -- What else a list of sessions shows; the host's own.
  summary_json TEXT
) STRICT;

CREATE TABLE runtime_turn_commits (
  session_id TEXT NOT NULL,
  turn_id TEXT NOT NULL,
  turn_commit_hash TEXT NOT NULL,
  result_json TEXT NOT NULL,
  committed_at_ms INTEGER NOT NULL,
  PRIMARY KEY (session_id, turn_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE queued_work_batches (
  enqueue_seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
  batch_id TEXT NOT NULL UNIQUE,
  session_id TEXT NOT NULL,
  source_key TEXT,
  delivery_policy TEXT NOT NULL CHECK (delivery_policy IN ('earliest_safe_boundary', 'after_current_turn_commit')),
  slot_policy TEXT NOT NULL CHECK (slot_policy IN ('join', 'exclusive')),
  merge_key_json TEXT NOT NULL,
  available_at_ms INTEGER NOT NULL,
  enqueued_at_ms INTEGER NOT NULL,
  claim_id TEXT,
  claim_owner_id TEXT,
  claim_token TEXT,
  claim_fencing_token INTEGER NOT NULL DEFAULT 0,
  claim_claimed_at_ms INTEGER NOT NULL DEFAULT 0,
  claim_expires_at_ms INTEGER NOT NULL DEFAULT 0,
  -- Claims so far, without those that were given back uncounted.
  attempts INTEGER NOT NULL DEFAULT 0,
  -- NULL: any number.
  max_attempts INTEGER,
  -- 1 from the last claim that is allowed: nobody else gets it.
  last_attempt INTEGER NOT NULL DEFAULT 0 CHECK (last_attempt IN (0, 1)),
  -- How long its end is remembered; NULL: not at all.
  retain_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX queued_work_source ON queued_work_batches (session_id, source_key) WHERE source_key IS NOT NULL;
-- Each finds the next batch to be claimed without walking over others: those that can go at once, those with a time, those whose lease
-- may have lapsed.
CREATE INDEX queued_work_ready ON queued_work_batches (session_id, enqueue_seq) WHERE claim_token IS NULL AND available_at_ms = 0
  AND last_attempt = 0;
CREATE INDEX queued_work_timed ON queued_work_batches (session_id, available_at_ms, enqueue_seq)
  WHERE claim_token IS NULL AND available_at_ms > 0 AND last_attempt = 0;
CREATE INDEX queued_work_claimed ON queued_work_batches (session_id, claim_expires_at_ms)
  WHERE claim_token IS NOT NULL AND last_attempt = 0;
CREATE INDEX queued_work_last ON queued_work_batches (session_id, enqueue_seq) WHERE last_attempt = 1;
CREATE INDEX queued_work_claim ON queued_work_batches (session_id, claim_id, claim_token) WHERE claim_token IS NOT NULL;

CREATE TABLE queued_work_items (
  batch_id TEXT NOT NULL REFERENCES queued_work_batches (batch_id) ON DELETE CASCADE,
  item_index INTEGER NOT NULL,
  item_id TEXT NOT NULL,
  payload_json TEXT NOT NULL,
  PRIMARY KEY (batch_id, item_index)
) STRICT, WITHOUT ROWID;

-- Ends of batches that asked to be remembered, for a while.
CREATE TABLE queued_work_finished (
  batch_id TEXT PRIMARY KEY NOT NULL,
  session_id TEXT NOT NULL,
  source_key TEXT,
  outcome TEXT NOT NULL CHECK (outcome IN ('completed', 'cancelled')),
  attempts INTEGER NOT NULL,
  finished_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  -- The batch without its items.
  batch_json TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX queued_work_finished_key ON queued_work_finished (session_id, source_key, expires_at_ms) WHERE source_key IS NOT NULL;
CREATE INDEX queued_work_finished_end ON queued_work_finished (expires_at_ms);

CREATE TABLE attachment_manifest (
  session_id TEXT NOT NULL,
  attachment_id TEXT NOT NULL,
  canonical_uri TEXT NOT NULL,
  intent_at_ms INTEGER NOT NULL,
  committed_at_ms INTEGER,
  PRIMARY KEY (session_id, attachment_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX attachment_manifest_by_id ON attachment_manifest (attachment_id);
CREATE INDEX attachment_manifest_uncommitted ON attachment_manifest (intent_at_ms, attachment_id) WHERE committed_at_ms IS NULL;

CREATE TABLE artifact_refs (
  artifact_ref TEXT PRIMARY KEY NOT NULL,
  blob_ref TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Checkpoints that are kept though the head moved on.
CREATE TABLE checkpoint_pins (
  pin_name TEXT PRIMARY KEY NOT NULL,
  checkpoint_ref TEXT NOT NULL,
  node_id TEXT,
  -- NULL where a checkpoint was named, not the head pinned.
  head_revision INTEGER,
  pinned_at_ms INTEGER NOT NULL,
  -- Blobs that are kept with it: an array of references.
  retained_json TEXT NOT NULL,
  -- The text of the head that was pinned.
  head_json TEXT
) STRICT, WITHOUT ROWID;
