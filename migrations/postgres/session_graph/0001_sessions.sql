-- The tables of the embedded store, once for all sessions of the schema: each row belongs to the store `store_no`. A transaction names
-- its store by the setting `holdfast.store`; the views show that store alone, under the names of the embedded tables, and what is
-- inserted through them is its own. So the statements of both back ends are the same.
CREATE TABLE {schema}.stores (
  store_no BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  -- What the store is opened by.
  store_key TEXT COLLATE "C" NOT NULL UNIQUE,
  created_at_ms BIGINT NOT NULL
);

CREATE TABLE {schema}.all_store_info (
  store_no BIGINT NOT NULL DEFAULT current_setting('holdfast.store')::bigint
    REFERENCES {schema}.stores (store_no) ON DELETE CASCADE,
  singleton BIGINT NOT NULL CHECK (singleton = 1),
  live_nodes BIGINT NOT NULL DEFAULT 0,
  tombstoned_nodes BIGINT NOT NULL DEFAULT 0,
  blob_bytes BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (store_no)
);
CREATE VIEW {schema}.store_info AS SELECT singleton, live_nodes, tombstoned_nodes, blob_bytes
  FROM {schema}.all_store_info WHERE store_no = current_setting('holdfast.store')::bigint;

CREATE TABLE {schema}.all_session_head (
  store_no BIGINT NOT NULL DEFAULT current_setting('holdfast.store')::bigint
    REFERENCES {schema}.stores (store_no) ON DELETE CASCADE,
  singleton BIGINT NOT NULL CHECK (singleton = 1),
  session_id TEXT COLLATE "C" NOT NULL,
  head_revision BIGINT NOT NULL,
  leaf_node_id TEXT COLLATE "C",
  checkpoint_ref TEXT COLLATE "C" NOT NULL,
  head_json TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (store_no)
);
CREATE VIEW {schema}.session_head AS SELECT singleton, session_id, head_revision, leaf_node_id, checkpoint_ref, head_json
  FROM {schema}.all_session_head WHERE store_no = current_setting('holdfast.store')::bigint;

CREATE TABLE {schema}.all_graph_nodes (
  store_no BIGINT NOT NULL DEFAULT current_setting('holdfast.store')::bigint
    REFERENCES {schema}.stores (store_no) ON DELETE CASCADE,
  seq BIGINT NOT NULL,
  node_id TEXT COLLATE "C" NOT NULL,
  tombstoned BIGINT NOT NULL DEFAULT 0 CHECK (tombstoned IN (0, 1)),
  parent_node_id TEXT COLLATE "C",
  parent_seq BIGINT,
  PRIMARY KEY (store_no, seq),
  UNIQUE (store_no, node_id)
);
CREATE VIEW {schema}.graph_nodes AS SELECT seq, node_id, tombstoned, parent_node_id, parent_seq
  FROM {schema}.all_graph_nodes WHERE store_no = current_setting('holdfast.store')::bigint;

CREATE TABLE {schema}.all_graph_bodies (
  store_no BIGINT NOT NULL DEFAULT current_setting('holdfast.store')::bigint
    REFERENCES {schema}.stores (store_no) ON DELETE CASCADE,
  seq BIGINT NOT NULL,
  node_json TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (store_no, seq)
);
CREATE VIEW {schema}.graph_bodies AS SELECT seq, node_json
  FROM {schema}.all_graph_bodies WHERE store_no = current_setting('holdfast.store')::bigint;

CREATE TABLE {schema}.all_blobs (
  store_no BIGINT NOT NULL DEFAULT current_setting('holdfast.store')::bigint
    REFERENCES {schema}.stores (store_no) ON DELETE CASCADE,
  hash TEXT COLLATE "C" NOT NULL,
  kind TEXT COLLATE "C" NOT NULL,
  codec BIGINT NOT NULL CHECK (codec IN (0, 1)),
  raw_len BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  content BYTEA NOT NULL,
  PRIMARY KEY (store_no, hash)
);
CREATE VIEW {schema}.blobs AS SELECT hash, kind, codec, raw_len, created_at_ms, content
  FROM {schema}.all_blobs WHERE store_no = current_setting('holdfast.store')::bigint;

CREATE TABLE {schema}.all_usage_deltas (
  store_no BIGINT NOT NULL DEFAULT current_setting('holdfast.store')::bigint
    REFERENCES {schema}.stores (store_no) ON DELETE CASCADE,
  seq BIGINT NOT NULL,
  source TEXT COLLATE "C" NOT NULL,
  model TEXT COLLATE "C" NOT NULL,
  input_tokens BIGINT NOT NULL,
  output_tokens BIGINT NOT NULL,
  cached_input_tokens BIGINT NOT NULL,
  reasoning_tokens BIGINT NOT NULL,
  PRIMARY KEY (store_no, seq)
);
CREATE VIEW {schema}.usage_deltas AS SELECT seq, source, model, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens
  FROM {schema}.all_usage_deltas WHERE store_no = current_setting('holdfast.store')::bigint;

CREATE TABLE {schema}.all_usage_totals (
  store_no BIGINT NOT NULL DEFAULT current_setting('holdfast.store')::bigint
    REFERENCES {schema}.stores (store_no) ON DELETE CASCADE,
  source TEXT COLLATE "C" NOT NULL,
  model TEXT COLLATE "C" NOT NULL,
  first_seq BIGINT NOT NULL,
  input_tokens BIGINT NOT NULL CHECK (input_tokens BETWEEN -9007199254740991 AND 9007199254740991),
  output_tokens BIGINT NOT NULL CHECK (output_tokens BETWEEN -9007199254740991 AND 9007199254740991),
  cached_input_tokens BIGINT NOT NULL CHECK (cached_input_tokens BETWEEN -9007199254740991 AND 9007199254740991),
  reasoning_tokens BIGINT NOT NULL CHECK (reasoning_tokens BETWEEN -9007199254740991 AND 9007199254740991),
  PRIMARY KEY (store_no, source, model)
);
CREATE VIEW {schema}.usage_totals AS SELECT source, model, first_seq, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens
  FROM {schema}.all_usage_totals WHERE store_no = current_setting('holdfast.store')::bigint;

CREATE TABLE {schema}.all_session_meta (
  store_no BIGINT NOT NULL DEFAULT current_setting('holdfast.store')::bigint
    REFERENCES {schema}.stores (store_no) ON DELETE CASCADE,
  singleton BIGINT NOT NULL CHECK (singleton = 1),
  session_id TEXT COLLATE "C" NOT NULL,
  session_name TEXT COLLATE "C" NOT NULL,
  created_at TEXT COLLATE "C" NOT NULL,
  model TEXT COLLATE "C" NOT NULL,
  cwd TEXT COLLATE "C",
  relation_json TEXT COLLATE "C",
  summary_json TEXT COLLATE "C",
  PRIMARY KEY (store_no)
);
CREATE VIEW {schema}.session_meta AS SELECT singleton, session_id, session_name, created_at, model, cwd, relation_json, summary_json
  FROM {schema}.all_session_meta WHERE store_no = current_setting('holdfast.store')::bigint;

CREATE TABLE {schema}.all_runtime_turn_commits (
  store_no BIGINT NOT NULL DEFAULT current_setting('holdfast.store')::bigint
    REFERENCES {schema}.stores (store_no) ON DELETE CASCADE,
  session_id TEXT COLLATE "C" NOT NULL,
  turn_id TEXT COLLATE "C" NOT NULL,
  turn_commit_hash TEXT COLLATE "C" NOT NULL,
  result_json TEXT COLLATE "C" NOT NULL,
  committed_at_ms BIGINT NOT NULL,
  PRIMARY KEY (store_no, session_id, turn_id)
);
CREATE VIEW {schema}.runtime_turn_commits AS SELECT session_id, turn_id, turn_commit_hash, result_json, committed_at_ms
  FROM {schema}.all_runtime_turn_commits WHERE store_no = current_setting('holdfast.store')::bigint;

CREATE TABLE {schema}.all_queued_work_batches (
  store_no BIGINT NOT NULL DEFAULT current_setting('holdfast.store')::bigint
    REFERENCES {schema}.stores (store_no) ON DELETE CASCADE,
  enqueue_seq BIGINT GENERATED BY DEFAULT AS IDENTITY,
  batch_id TEXT COLLATE "C" NOT NULL UNIQUE,
  session_id TEXT COLLATE "C" NOT NULL,
  source_key TEXT COLLATE "C",
  delivery_policy TEXT COLLATE "C" NOT NULL CHECK (delivery_policy IN ('earliest_safe_boundary', 'after_current_turn_commit')),
  slot_policy TEXT COLLATE "C" NOT NULL CHECK (slot_policy IN ('join', 'exclusive')),
  merge_key_json TEXT COLLATE "C" NOT NULL,
  available_at_ms BIGINT NOT NULL,
  enqueued_at_ms BIGINT NOT NULL,
  claim_id TEXT COLLATE "C",
  claim_owner_id TEXT COLLATE "C",
  claim_token TEXT COLLATE "C",
  claim_fencing_token BIGINT NOT NULL DEFAULT 0,
  claim_claimed_at_ms BIGINT NOT NULL DEFAULT 0,
  claim_expires_at_ms BIGINT NOT NULL DEFAULT 0,
  attempts BIGINT NOT NULL DEFAULT 0,
  max_attempts BIGINT,
  last_attempt BIGINT NOT NULL DEFAULT 0 CHECK (last_attempt IN (0, 1)),
  retain_ms BIGINT,
  PRIMARY KEY (store_no, enqueue_seq),
  UNIQUE (store_no, session_id, source_key)
);
CREATE VIEW {schema}.queued_work_batches AS SELECT enqueue_seq, batch_id, session_id, source_key, delivery_policy, slot_policy, merge_key_json, available_at_ms,
  enqueued_at_ms, claim_id, claim_owner_id, claim_token, claim_fencing_token, claim_claimed_at_ms, claim_expires_at_ms,
  attempts, max_attempts, last_attempt, retain_ms
  FROM {schema}.all_queued_work_batches WHERE store_no = current_setting('holdfast.store')::bigint;

CREATE TABLE {schema}.all_queued_work_items (
  store_no BIGINT NOT NULL DEFAULT current_setting('holdfast.store')::bigint
    REFERENCES {schema}.stores (store_no) ON DELETE CASCADE,
  batch_id TEXT COLLATE "C" NOT NULL REFERENCES {schema}.all_queued_work_batches (batch_id) ON DELETE CASCADE,
  item_index BIGINT NOT NULL,
  item_id TEXT COLLATE "C" NOT NULL,
  payload_json TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (batch_id, item_index)
);
CREATE VIEW {schema}.queued_work_items AS SELECT batch_id, item_index, item_id, payload_json
  FROM {schema}.all_queued_work_items WHERE store_no = current_setting('holdfast.store')::bigint;

CREATE TABLE {schema}.all_queued_work_finished (
  store_no BIGINT NOT NULL DEFAULT current_setting('holdfast.store')::bigint
    REFERENCES {schema}.stores (store_no) ON DELETE CASCADE,
  batch_id TEXT COLLATE "C" NOT NULL,
  session_id TEXT COLLATE "C" NOT NULL,
  source_key TEXT COLLATE "C",
  outcome TEXT COLLATE "C" NOT NULL CHECK (outcome IN ('completed', 'cancelled')),
  attempts BIGINT NOT NULL,
  finished_at_ms BIGINT NOT NULL,
  expires_at_ms BIGINT NOT NULL,
  batch_json TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (store_no, batch_id)
);
CREATE VIEW {schema}.queued_work_finished AS SELECT batch_id, session_id, source_key, outcome, attempts, finished_at_ms, expires_at_ms,
  batch_json FROM {schema}.all_queued_work_finished WHERE store_no = current_setting('holdfast.store')::bigint;

CREATE TABLE {schema}.all_attachment_manifest (
  store_no BIGINT NOT NULL DEFAULT current_setting('holdfast.store')::bigint
    REFERENCES {schema}.stores (store_no) ON DELETE CASCADE,
  session_id TEXT COLLATE "C" NOT NULL,
  attachment_id TEXT COLLATE "C" NOT NULL,
  canonical_uri TEXT COLLATE "C" NOT NULL,
  intent_at_ms BIGINT NOT NULL,
  committed_at_ms BIGINT,
  PRIMARY KEY (store_no, session_id, attachment_id)
);
CREATE VIEW {schema}.attachment_manifest AS SELECT session_id, attachment_id, canonical_uri, intent_at_ms, committed_at_ms
  FROM {schema}.all_attachment_manifest WHERE store_no = current_setting('holdfast.store')::bigint;

CREATE TABLE {schema}.all_artifact_refs (
  store_no BIGINT NOT NULL DEFAULT current_setting('holdfast.store')::bigint
    REFERENCES {schema}.stores (store_no) ON DELETE CASCADE,
  artifact_ref TEXT COLLATE "C" NOT NULL,
  blob_ref TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (store_no, artifact_ref)
);
CREATE VIEW {schema}.artifact_refs AS SELECT artifact_ref, blob_ref
  FROM {schema}.all_artifact_refs WHERE store_no = current_setting('holdfast.store')::bigint;

CREATE TABLE {schema}.all_checkpoint_pins (
  store_no BIGINT NOT NULL DEFAULT current_setting('holdfast.store')::bigint
    REFERENCES {schema}.stores (store_no) ON DELETE CASCADE,
  pin_name TEXT COLLATE "C" NOT NULL,
  checkpoint_ref TEXT COLLATE "C" NOT NULL,
  node_id TEXT COLLATE "C",
  head_revision BIGINT,
  pinned_at_ms BIGINT NOT NULL,
  retained_json TEXT COLLATE "C" NOT NULL,
  head_json TEXT COLLATE "C",
  PRIMARY KEY (store_no, pin_name)
);
CREATE VIEW {schema}.checkpoint_pins AS SELECT pin_name, checkpoint_ref, node_id, head_revision, pinned_at_ms, retained_json, head_json
  FROM {schema}.all_checkpoint_pins WHERE store_no = current_setting('holdfast.store')::bigint;

CREATE INDEX graph_nodes_dangling ON {schema}.all_graph_nodes
  (store_no, parent_node_id) WHERE parent_seq IS NULL AND parent_node_id IS NOT NULL;
CREATE INDEX graph_nodes_tombstoned ON {schema}.all_graph_nodes
  (store_no, seq) WHERE tombstoned = 1;
CREATE INDEX queued_work_ready ON {schema}.all_queued_work_batches
  (store_no, session_id, enqueue_seq) WHERE claim_token IS NULL AND available_at_ms = 0 AND last_attempt = 0;
CREATE INDEX queued_work_timed ON {schema}.all_queued_work_batches
  (store_no, session_id, available_at_ms, enqueue_seq) WHERE claim_token IS NULL AND available_at_ms > 0 AND last_attempt = 0;
CREATE INDEX queued_work_claimed ON {schema}.all_queued_work_batches
  (store_no, session_id, claim_expires_at_ms) WHERE claim_token IS NOT NULL AND last_attempt = 0;
CREATE INDEX queued_work_last ON {schema}.all_queued_work_batches
  (store_no, session_id, enqueue_seq) WHERE last_attempt = 1;
CREATE INDEX queued_work_claim ON {schema}.all_queued_work_batches
  (store_no, session_id, claim_id, claim_token) WHERE claim_token IS NOT NULL;
CREATE INDEX queued_work_finished_key ON {schema}.all_queued_work_finished
  (store_no, session_id, source_key, expires_at_ms) WHERE source_key IS NOT NULL;
CREATE INDEX queued_work_finished_end ON {schema}.all_queued_work_finished
  (store_no, expires_at_ms);
CREATE INDEX attachment_manifest_by_id ON {schema}.all_attachment_manifest
  (store_no, attachment_id);
CREATE INDEX attachment_manifest_uncommitted ON {schema}.all_attachment_manifest
  (store_no, intent_at_ms, attachment_id) WHERE committed_at_ms IS NULL;

-- Fencing tokens, for all stores: a row with a counter would be held until a commit.
CREATE SEQUENCE {schema}.claim_fencing;

-- Takes the batches that a claim gets. Returns all that it decided by, with the one that ended the choice: those that carry `token` are
-- claimed. The numbers of all are in the setting `holdfast.looked` until the transaction ends. Choosing is done by one at a time per store, here
-- alone: nobody waits for a round trip or a commit of another. `wanted_ids`: exactly these, or none. `damaged`: what is not there.
CREATE FUNCTION {schema}.claim_work(of_session TEXT, at_turn BIGINT, wanted BIGINT, of_owner TEXT, token TEXT, ttl_ms BIGINT,
  wanted_ids TEXT[], damaged BIGINT[]) RETURNS SETOF {schema}.queued_work_batches LANGUAGE plpgsql AS $body$
DECLARE
  turn BIGINT := hashtextextended(current_schema() || ' session graph claims', current_setting('holdfast.store')::bigint);
  now_ms BIGINT;
  fencing BIGINT;
  head RECORD;
  each RECORD;
  page BIGINT[];
  page_size INT;
  behind BIGINT;
  taken BIGINT[];
  taken_ids TEXT[];
  looked BIGINT[];
  locked BIGINT;
BEGIN
  -- Of the session, not of the transaction: it must not last until the commit. Whatever happens, it is given back below.
  PERFORM pg_advisory_lock(turn);
  <<choosing>> LOOP
    now_ms := (extract(epoch FROM clock_timestamp()) * 1000)::bigint;
    taken := '{}';
    taken_ids := '{}';
    looked := '{}';
    behind := 0;
    page_size := 1;
    BEGIN
      <<pages>> LOOP
        page := ARRAY(
          SELECT a.enqueue_seq FROM (
            (SELECT b.enqueue_seq FROM {schema}.queued_work_batches b
              WHERE b.session_id = of_session AND b.claim_token IS NULL AND b.available_at_ms = 0 AND b.last_attempt = 0
                AND b.enqueue_seq > behind AND b.enqueue_seq <> ALL (damaged)
              ORDER BY b.enqueue_seq LIMIT page_size)
            UNION ALL
            (SELECT b.enqueue_seq FROM {schema}.queued_work_batches b
              WHERE b.session_id = of_session AND b.claim_token IS NULL AND b.available_at_ms > 0 AND b.available_at_ms <= now_ms
                AND b.last_attempt = 0 AND b.enqueue_seq > behind AND b.enqueue_seq <> ALL (damaged)
              ORDER BY b.enqueue_seq LIMIT page_size)
            UNION ALL
            (SELECT b.enqueue_seq FROM {schema}.queued_work_batches b
              WHERE b.session_id = of_session AND b.claim_token IS NOT NULL AND b.claim_expires_at_ms <= now_ms
                AND b.available_at_ms <= now_ms AND b.last_attempt = 0 AND b.enqueue_seq > behind
                AND b.enqueue_seq <> ALL (damaged)
              ORDER BY b.enqueue_seq LIMIT page_size)
          ) AS a ORDER BY a.enqueue_seq LIMIT page_size);
        EXIT pages WHEN cardinality(page) = 0;
        FOR each IN
          SELECT b.enqueue_seq, b.batch_id, b.delivery_policy, b.slot_policy, b.merge_key_json FROM {schema}.queued_work_batches b
          WHERE b.enqueue_seq = ANY (page) AND b.available_at_ms <= now_ms AND b.last_attempt = 0
            AND (b.claim_token IS NULL OR b.claim_expires_at_ms <= now_ms)
          ORDER BY b.enqueue_seq FOR UPDATE SKIP LOCKED
        LOOP
          looked := looked || each.enqueue_seq;
          IF cardinality(taken) = 0 THEN
            EXIT pages WHEN at_turn = 1 AND each.delivery_policy <> 'earliest_safe_boundary';
            head := each;
          ELSE
            EXIT pages WHEN each.slot_policy <> 'join' OR each.merge_key_json <> head.merge_key_json
              OR each.delivery_policy <> head.delivery_policy;
          END IF;
          taken := taken || each.enqueue_seq;
          taken_ids := taken_ids || each.batch_id;
          EXIT pages WHEN cardinality(taken) >= wanted OR head.slot_policy <> 'join' OR head.merge_key_json = '"never"';
        END LOOP;
        EXIT pages WHEN cardinality(page) < page_size;
        behind := page[page_size];
        page_size := least(page_size * 4, 64);
      END LOOP;
      -- Undoes the block: what was only looked at must not stay locked, or the next who chooses would leave it out.
      RAISE EXCEPTION USING ERRCODE = 'HF000';
    EXCEPTION WHEN SQLSTATE 'HF000' THEN
      NULL;
    END;
    IF wanted_ids IS NOT NULL AND wanted_ids <> taken_ids THEN
      taken := '{}';
    END IF;
    EXIT choosing WHEN cardinality(taken) = 0;
    BEGIN
      PERFORM FROM {schema}.queued_work_batches b
        WHERE b.enqueue_seq = ANY (taken) AND b.last_attempt = 0 AND (b.claim_token IS NULL OR b.claim_expires_at_ms <= now_ms)
        ORDER BY b.enqueue_seq FOR UPDATE SKIP LOCKED;
      GET DIAGNOSTICS locked = ROW_COUNT;
      IF locked < cardinality(taken) THEN
        -- Somebody cancelled or completed one of them just now.
        RAISE EXCEPTION USING ERRCODE = 'HF000';
      END IF;
      fencing := nextval('claim_fencing');
      UPDATE {schema}.queued_work_batches SET claim_id = 'qwc:' || taken[1] || ':' || fencing, claim_owner_id = of_owner,
        claim_token = token, claim_fencing_token = fencing, claim_claimed_at_ms = now_ms,
        claim_expires_at_ms = least(now_ms + ttl_ms, 9007199254740991), attempts = attempts + 1,
        last_attempt = CASE WHEN attempts + 1 >= max_attempts THEN 1 ELSE 0 END
        WHERE enqueue_seq = ANY (taken);
      EXIT choosing;
    EXCEPTION WHEN SQLSTATE 'HF000' THEN
      NULL;
    END;
  END LOOP;
  PERFORM pg_advisory_unlock(turn);
  PERFORM set_config('holdfast.looked', looked::text, true);
  RETURN QUERY SELECT * FROM {schema}.queued_work_batches b WHERE b.enqueue_seq = ANY (looked) ORDER BY b.enqueue_seq;
EXCEPTION WHEN OTHERS OR query_canceled THEN
  PERFORM pg_advisory_unlock(turn);
  RAISE;
END
$body$;

-- Removes the work of a claim that still has so many batches; refuses with HF001 otherwise.
CREATE FUNCTION {schema}.complete_work(of_session TEXT, of_claim TEXT, of_token TEXT, expected BIGINT) RETURNS VOID
LANGUAGE plpgsql AS $body$
DECLARE
  removed BIGINT;
BEGIN
  PERFORM FROM {schema}.queued_work_batches
    WHERE session_id = of_session AND claim_id = of_claim AND claim_token = of_token ORDER BY enqueue_seq FOR UPDATE;
  DELETE FROM {schema}.queued_work_batches WHERE session_id = of_session AND claim_id = of_claim AND claim_token = of_token;
  GET DIAGNOSTICS removed = ROW_COUNT;
  IF removed <> expected THEN
    RAISE EXCEPTION 'the claim holds % batches, not %', removed, expected USING ERRCODE = 'HF001';
  END IF;
END
$body$;
