-- The tables of the embedded store, with the same names and the same texts. Times are UTC, always 24 characters
-- (2026-05-31T12:00:00.000Z), so that their order is the order of their texts; texts are compared by their bytes. Constraints are
-- named after what they protect.
CREATE TABLE {schema}.projects (
  id TEXT COLLATE "C" NOT NULL CONSTRAINT "projects.id.key" PRIMARY KEY,
  path TEXT COLLATE "C" NOT NULL,
  repo_origin_url TEXT COLLATE "C" NOT NULL DEFAULT '',
  display_name TEXT COLLATE "C" NOT NULL DEFAULT '',
  registered_at TEXT COLLATE "C" NOT NULL CONSTRAINT "projects.registered_at"
    CHECK (registered_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  archived_at TEXT COLLATE "C" CONSTRAINT "projects.archived_at"
    CHECK (archived_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  -- The last number that was given to a session; never goes back, so that no number is used again.
  last_session_num BIGINT NOT NULL DEFAULT 0
);

-- `prompt` is last: who does not ask for it reads none of its pages.
CREATE TABLE {schema}.sessions (
  id TEXT COLLATE "C" NOT NULL CONSTRAINT "sessions.id.key" PRIMARY KEY,
  project_id TEXT COLLATE "C" NOT NULL CONSTRAINT "sessions.project_id" REFERENCES {schema}.projects (id),
  num BIGINT NOT NULL CONSTRAINT "sessions.num" CHECK (num >= 1),
  issue_id TEXT COLLATE "C" NOT NULL DEFAULT '',
  kind TEXT COLLATE "C" NOT NULL DEFAULT 'worker' CONSTRAINT "sessions.kind" CHECK (kind IN ('worker', 'orchestrator')),
  harness TEXT COLLATE "C" NOT NULL DEFAULT '',
  session_state TEXT COLLATE "C" NOT NULL CONSTRAINT "sessions.session_state" CHECK (session_state IN
    ('not_started', 'working', 'idle', 'needs_input', 'stuck', 'detecting', 'done', 'terminated')),
  termination_reason TEXT COLLATE "C" NOT NULL DEFAULT '' CONSTRAINT "sessions.termination_reason" CHECK (termination_reason IN
    ('', 'manually_killed', 'runtime_lost', 'agent_process_exited', 'probe_failure', 'error_in_process', 'auto_cleanup', 'pr_merged')
    AND (termination_reason = '' OR session_state = 'terminated')),
  is_alive BIGINT NOT NULL DEFAULT 0 CONSTRAINT "sessions.is_alive" CHECK (is_alive IN (0, 1)),
  activity_state TEXT COLLATE "C" NOT NULL DEFAULT 'idle' CONSTRAINT "sessions.activity_state" CHECK (activity_state IN
    ('active', 'ready', 'idle', 'waiting_input', 'blocked', 'exited')),
  activity_last_at TEXT COLLATE "C" CONSTRAINT "sessions.activity_last_at"
    CHECK (activity_last_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  activity_source TEXT COLLATE "C" NOT NULL DEFAULT 'none' CONSTRAINT "sessions.activity_source" CHECK (activity_source IN
    ('native', 'terminal', 'hook', 'runtime', 'none')),
  detecting_attempts BIGINT,
  detecting_started_at TEXT COLLATE "C" CONSTRAINT "sessions.detecting_started_at"
    CHECK (detecting_started_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  detecting_evidence_hash TEXT COLLATE "C",
  branch TEXT COLLATE "C" NOT NULL DEFAULT '',
  workspace_path TEXT COLLATE "C" NOT NULL DEFAULT '',
  runtime_handle_id TEXT COLLATE "C" NOT NULL DEFAULT '',
  runtime_name TEXT COLLATE "C" NOT NULL DEFAULT '',
  agent_session_id TEXT COLLATE "C" NOT NULL DEFAULT '',
  workspace_freed_at TEXT COLLATE "C" CONSTRAINT "sessions.workspace_freed_at"
    CHECK (workspace_freed_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  -- Since when its runtime is known to be gone: somebody else may have its handle by now.
  runtime_freed_at TEXT COLLATE "C" CONSTRAINT "sessions.runtime_freed_at"
    CHECK (runtime_freed_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  -- When it was stopped in order to be resumed.
  stopped_at TEXT COLLATE "C" CONSTRAINT "sessions.stopped_at"
    CHECK (stopped_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  -- Which start of its runtime counts: made before the start, so what an earlier one still tells can be known as old.
  launch_id TEXT COLLATE "C" NOT NULL DEFAULT '',
  -- When that one came up.
  launched_at TEXT COLLATE "C" CONSTRAINT "sessions.launched_at"
    CHECK (launched_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  -- Which merge ends this very session; '' = as the policy says. No check: there may be more words.
  merge_ends TEXT COLLATE "C" NOT NULL DEFAULT '',
  revision BIGINT NOT NULL DEFAULT 0,
  created_at TEXT COLLATE "C" NOT NULL CONSTRAINT "sessions.created_at"
    CHECK (created_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  updated_at TEXT COLLATE "C" NOT NULL CONSTRAINT "sessions.updated_at"
    CHECK (updated_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  -- For people; no decision looks at these two.
  display_name TEXT COLLATE "C" NOT NULL DEFAULT '',
  pinned BIGINT NOT NULL DEFAULT 0 CONSTRAINT "sessions.pinned" CHECK (pinned IN (0, 1)),
  prompt TEXT COLLATE "C" NOT NULL DEFAULT '',
  CONSTRAINT "sessions.detecting_attempts" CHECK (
    (detecting_attempts IS NULL) = (detecting_started_at IS NULL)
    AND (detecting_attempts IS NULL) = (detecting_evidence_hash IS NULL)
    AND (detecting_attempts IS NULL OR session_state = 'detecting')),
  CONSTRAINT "sessions.id" CHECK (id = project_id || '-' || num),
  -- Also what finds the sessions of a project, in order.
  CONSTRAINT "sessions.num.key" UNIQUE (project_id, num)
);
-- What runs: few, whatever the length of the history.
CREATE INDEX sessions_running_idx ON {schema}.sessions (project_id, num) WHERE session_state NOT IN ('done', 'terminated');
-- What has ended and may still have a workspace: few as well, once those are given back.
CREATE INDEX sessions_reclaimable_idx ON {schema}.sessions (project_id, num)
  WHERE session_state IN ('done', 'terminated') AND workspace_path <> '' AND workspace_freed_at IS NULL;
-- What waits to be resumed.
CREATE INDEX sessions_stopped_idx ON {schema}.sessions (project_id, num) WHERE stopped_at IS NOT NULL;

CREATE TABLE {schema}.pr (
  url TEXT COLLATE "C" NOT NULL CONSTRAINT "pr.url.key" PRIMARY KEY,
  session_id TEXT COLLATE "C" NOT NULL CONSTRAINT "pr.session_id" REFERENCES {schema}.sessions (id) ON DELETE CASCADE,
  number BIGINT NOT NULL DEFAULT 0,
  pr_state TEXT COLLATE "C" NOT NULL DEFAULT 'open' CONSTRAINT "pr.pr_state" CHECK (pr_state IN ('draft', 'open', 'merged', 'closed')),
  review_decision TEXT COLLATE "C" NOT NULL DEFAULT 'none' CONSTRAINT "pr.review_decision" CHECK (review_decision IN
    ('none', 'approved', 'changes_requested', 'review_required')),
  ci_state TEXT COLLATE "C" NOT NULL DEFAULT 'unknown' CONSTRAINT "pr.ci_state" CHECK (ci_state IN
    ('unknown', 'pending', 'passing', 'failing')),
  mergeability TEXT COLLATE "C" NOT NULL DEFAULT 'unknown' CONSTRAINT "pr.mergeability" CHECK (mergeability IN
    ('unknown', 'mergeable', 'conflicting', 'blocked', 'unstable')),
  updated_at TEXT COLLATE "C" NOT NULL CONSTRAINT "pr.updated_at"
    CHECK (updated_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  head_branch TEXT COLLATE "C" NOT NULL DEFAULT '',
  base_branch TEXT COLLATE "C" NOT NULL DEFAULT '',
  -- Counts the replacements of its comments that changed anything, and when the last of them was.
  comments_revision BIGINT NOT NULL DEFAULT 0,
  comments_at TEXT COLLATE "C" CONSTRAINT "pr.comments_at"
    CHECK (comments_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$')
);
CREATE INDEX pr_session_idx ON {schema}.pr (session_id);

CREATE TABLE {schema}.pr_checks (
  pr_url TEXT COLLATE "C" NOT NULL CONSTRAINT "pr_checks.pr_url" REFERENCES {schema}.pr (url) ON DELETE CASCADE,
  name TEXT COLLATE "C" NOT NULL,
  commit_hash TEXT COLLATE "C" NOT NULL,
  status TEXT COLLATE "C" NOT NULL DEFAULT 'unknown' CONSTRAINT "pr_checks.status" CHECK (status IN
    ('unknown', 'queued', 'in_progress', 'passed', 'failed', 'skipped', 'cancelled')),
  url TEXT COLLATE "C" NOT NULL DEFAULT '',
  -- First sight.
  created_at TEXT COLLATE "C" NOT NULL CONSTRAINT "pr_checks.created_at"
    CHECK (created_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  -- Last write.
  observed_at TEXT COLLATE "C" NOT NULL CONSTRAINT "pr_checks.observed_at"
    CHECK (observed_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  log_tail TEXT COLLATE "C" NOT NULL DEFAULT '',
  -- The order of insertion, as SQLite has it by itself.
  rowid BIGINT GENERATED ALWAYS AS IDENTITY,
  CONSTRAINT "pr_checks.commit_hash.key" PRIMARY KEY (pr_url, name, commit_hash)
);
CREATE INDEX pr_checks_recent_idx ON {schema}.pr_checks (pr_url, name, created_at, rowid);

CREATE TABLE {schema}.pr_comment (
  pr_url TEXT COLLATE "C" NOT NULL CONSTRAINT "pr_comment.pr_url" REFERENCES {schema}.pr (url) ON DELETE CASCADE,
  comment_id TEXT COLLATE "C" NOT NULL,
  author TEXT COLLATE "C" NOT NULL DEFAULT '',
  file TEXT COLLATE "C" NOT NULL DEFAULT '',
  line BIGINT NOT NULL DEFAULT 0,
  resolved BIGINT NOT NULL DEFAULT 0 CONSTRAINT "pr_comment.resolved" CHECK (resolved IN (0, 1)),
  created_at TEXT COLLATE "C" NOT NULL CONSTRAINT "pr_comment.created_at"
    CHECK (created_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  body TEXT COLLATE "C" NOT NULL DEFAULT '',
  CONSTRAINT "pr_comment.comment_id.key" PRIMARY KEY (pr_url, comment_id)
);

-- Append-only but for retention. `seq` is never used again, also when the newest rows are gone. `event_type` has no check: a new one
-- must not rebuild the log. `session_id` refers to nothing: a session may be gone, what was told of it stays.
CREATE TABLE {schema}.change_log (
  seq BIGINT GENERATED ALWAYS AS IDENTITY CONSTRAINT "change_log.seq.key" PRIMARY KEY,
  project_id TEXT COLLATE "C" NOT NULL CONSTRAINT "change_log.project_id" REFERENCES {schema}.projects (id),
  session_id TEXT COLLATE "C",
  event_type TEXT COLLATE "C" NOT NULL,
  payload TEXT COLLATE "C" NOT NULL CONSTRAINT "change_log.payload" CHECK (payload::json IS NOT NULL),
  created_at TEXT COLLATE "C" NOT NULL
);
CREATE INDEX change_log_project_idx ON {schema}.change_log (project_id, seq);

-- One row: the newest change that retention removed. So the head survives an empty log, and a reader can be told what it missed.
CREATE TABLE {schema}.change_log_floor (
  id BIGINT NOT NULL CONSTRAINT "change_log_floor.id.key" PRIMARY KEY CONSTRAINT "change_log_floor.id" CHECK (id = 1),
  pruned_seq BIGINT NOT NULL
);
INSERT INTO {schema}.change_log_floor (id, pruned_seq) VALUES (1, 0);

-- Numbers are given out under a lock that is held until the transaction is visible, and the triggers that do it run at COMMIT: so the
-- order of numbers is the order of commits, and nobody who has seen one ever finds a smaller one later.
CREATE FUNCTION {schema}.log_change(schema_name text, project text, session text, kind text, payload text, at text) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
  PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('holdfast change log of ' || schema_name, 7465746));
  INSERT INTO {schema}.change_log (project_id, session_id, event_type, payload, created_at)
  VALUES (project, session, kind, payload, at);
  PERFORM pg_catalog.pg_notify('holdfast_lifecycle_' || pg_catalog.left(pg_catalog.md5(schema_name), 16), '');
END $body$;

CREATE FUNCTION {schema}.session_changed() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF TG_OP = 'DELETE' THEN
    PERFORM {schema}.log_change(TG_TABLE_SCHEMA, OLD.project_id, OLD.id, TG_ARGV[0],
      '{"id":' || pg_catalog.to_json(OLD.id::text) || '}',
      pg_catalog.to_char(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'));
  ELSE
    PERFORM {schema}.log_change(TG_TABLE_SCHEMA, NEW.project_id, NEW.id, TG_ARGV[0],
      '{"id":' || pg_catalog.to_json(NEW.id::text) || ',"state":' || pg_catalog.to_json(NEW.session_state::text)
      || ',"terminationReason":' || pg_catalog.to_json(NEW.termination_reason::text) || ',"isAlive":' || NEW.is_alive
      || ',"activity":' || pg_catalog.to_json(NEW.activity_state::text) || '}', NEW.updated_at);
  END IF;
  RETURN NULL;
END $body$;

CREATE FUNCTION {schema}.pr_changed() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  PERFORM {schema}.log_change(TG_TABLE_SCHEMA, s.project_id, s.id, TG_ARGV[0],
    '{"url":' || pg_catalog.to_json(NEW.url::text) || ',"session":' || pg_catalog.to_json(NEW.session_id::text)
    || ',"state":' || pg_catalog.to_json(NEW.pr_state::text) || ',"ci":' || pg_catalog.to_json(NEW.ci_state::text)
    || ',"review":' || pg_catalog.to_json(NEW.review_decision::text)
    || ',"mergeability":' || pg_catalog.to_json(NEW.mergeability::text) || '}', NEW.updated_at)
  FROM {schema}.sessions s WHERE s.id = NEW.session_id;
  RETURN NULL;
END $body$;

CREATE FUNCTION {schema}.pr_check_changed() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  PERFORM {schema}.log_change(TG_TABLE_SCHEMA, s.project_id, s.id, TG_ARGV[0],
    '{"pr":' || pg_catalog.to_json(NEW.pr_url::text) || ',"name":' || pg_catalog.to_json(NEW.name::text)
    || ',"commit":' || pg_catalog.to_json(NEW.commit_hash::text) || ',"status":' || pg_catalog.to_json(NEW.status::text)
    || '}', NEW.observed_at)
  FROM {schema}.pr p JOIN {schema}.sessions s ON s.id = p.session_id WHERE p.url = NEW.pr_url;
  RETURN NULL;
END $body$;

CREATE CONSTRAINT TRIGGER sessions_cdc_insert AFTER INSERT ON {schema}.sessions DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION {schema}.session_changed('session_created');
CREATE CONSTRAINT TRIGGER sessions_cdc_update AFTER UPDATE ON {schema}.sessions DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (OLD.session_state IS DISTINCT FROM NEW.session_state
    OR OLD.termination_reason IS DISTINCT FROM NEW.termination_reason OR OLD.is_alive IS DISTINCT FROM NEW.is_alive
    OR OLD.activity_state IS DISTINCT FROM NEW.activity_state)
  EXECUTE FUNCTION {schema}.session_changed('session_updated');
CREATE CONSTRAINT TRIGGER sessions_cdc_delete AFTER DELETE ON {schema}.sessions DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION {schema}.session_changed('session_deleted');
CREATE CONSTRAINT TRIGGER pr_cdc_insert AFTER INSERT ON {schema}.pr DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION {schema}.pr_changed('pr_created');
CREATE CONSTRAINT TRIGGER pr_cdc_update AFTER UPDATE ON {schema}.pr DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (OLD.pr_state IS DISTINCT FROM NEW.pr_state OR OLD.ci_state IS DISTINCT FROM NEW.ci_state
    OR OLD.review_decision IS DISTINCT FROM NEW.review_decision OR OLD.mergeability IS DISTINCT FROM NEW.mergeability
    OR OLD.session_id IS DISTINCT FROM NEW.session_id)
  EXECUTE FUNCTION {schema}.pr_changed('pr_updated');
CREATE CONSTRAINT TRIGGER pr_checks_cdc_insert AFTER INSERT ON {schema}.pr_checks DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION {schema}.pr_check_changed('pr_check_recorded');
CREATE CONSTRAINT TRIGGER pr_checks_cdc_update AFTER UPDATE ON {schema}.pr_checks DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION {schema}.pr_check_changed('pr_check_recorded');

-- What was tried about a session, and what still has to be delivered. `reaction` has no check: more of them will come.
CREATE TABLE {schema}.reaction_state (
  session_id TEXT COLLATE "C" NOT NULL CONSTRAINT "reaction_state.session_id" REFERENCES {schema}.sessions (id) ON DELETE CASCADE,
  reaction TEXT COLLATE "C" NOT NULL,
  attempts BIGINT NOT NULL DEFAULT 0,
  first_at TEXT COLLATE "C" CONSTRAINT "reaction_state.first_at"
    CHECK (first_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  last_signature TEXT COLLATE "C",
  escalated BIGINT NOT NULL DEFAULT 0 CONSTRAINT "reaction_state.escalated" CHECK (escalated IN (0, 1)),
  is_current BIGINT NOT NULL DEFAULT 0 CONSTRAINT "reaction_state.is_current" CHECK (is_current IN (0, 1)),
  pending TEXT COLLATE "C" NOT NULL DEFAULT 'none' CONSTRAINT "reaction_state.pending" CHECK (pending IN
    ('none', 'nudge', 'escalate', 'notify')),
  pending_message TEXT COLLATE "C" NOT NULL DEFAULT '',
  lease_until TEXT COLLATE "C" CONSTRAINT "reaction_state.lease_until"
    CHECK (lease_until ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  -- The call for a person is in `notification`.
  is_noted BIGINT NOT NULL DEFAULT 0 CONSTRAINT "reaction_state.is_noted" CHECK (is_noted IN (0, 1)),
  CONSTRAINT "reaction_state.reaction.key" PRIMARY KEY (session_id, reaction)
);
-- What `tick` looks at: what waits to be delivered, and what may have to be escalated.
CREATE INDEX reaction_state_due_idx ON {schema}.reaction_state (first_at)
  WHERE pending <> 'none' OR (escalated = 0 AND reaction IN ('merge-conflicts', 'agent-idle'));

-- How far each consumer of the change log has come; what it has not confirmed is kept for it.
CREATE TABLE {schema}.consumer_offset (
  name TEXT COLLATE "C" NOT NULL CONSTRAINT "consumer_offset.name.key" PRIMARY KEY,
  acked_seq BIGINT NOT NULL CONSTRAINT "consumer_offset.acked_seq" CHECK (acked_seq >= 0),
  updated_at TEXT COLLATE "C" NOT NULL CONSTRAINT "consumer_offset.updated_at"
    CHECK (updated_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$')
);

-- What is under way, and whose it is, so that somebody else can finish or undo it after a crash.
CREATE TABLE {schema}.session_operation (
  id TEXT COLLATE "C" NOT NULL CONSTRAINT "session_operation.id.key" PRIMARY KEY,
  session_id TEXT COLLATE "C" NOT NULL CONSTRAINT "session_operation.session_id" REFERENCES {schema}.sessions (id) ON DELETE CASCADE,
  kind TEXT COLLATE "C" NOT NULL CONSTRAINT "session_operation.kind" CHECK (kind IN ('spawn', 'kill', 'restore', 'cleanup', 'stop')),
  step TEXT COLLATE "C" NOT NULL DEFAULT '',
  -- The start of the runtime that a restore is at, and what its agent was heard to do before the restore was through.
  launch_id TEXT COLLATE "C",
  early_activity TEXT COLLATE "C",
  owner TEXT COLLATE "C" NOT NULL,
  started_at TEXT COLLATE "C" NOT NULL CONSTRAINT "session_operation.started_at"
    CHECK (started_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  updated_at TEXT COLLATE "C" NOT NULL CONSTRAINT "session_operation.updated_at"
    CHECK (updated_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$')
);
CREATE INDEX session_operation_session_idx ON {schema}.session_operation (session_id);

-- The session that a caller's key stands for: a creation that is tried again finds the first.
CREATE TABLE {schema}.session_key (
  project_id TEXT COLLATE "C" NOT NULL CONSTRAINT "session_key.project_id" REFERENCES {schema}.projects (id),
  key TEXT COLLATE "C" NOT NULL,
  session_id TEXT COLLATE "C" NOT NULL CONSTRAINT "session_key.session_id" REFERENCES {schema}.sessions (id) ON DELETE CASCADE,
  CONSTRAINT "session_key.key.key" PRIMARY KEY (project_id, key)
);
CREATE INDEX session_key_session_idx ON {schema}.session_key (session_id);

-- What a project wants otherwise about reactions. `escalate_after_ms` is the member `escalateAfterMs` of the policy, for what looks
-- through all sessions; NULL = the policy has none.
CREATE TABLE {schema}.reaction_policy (
  project_id TEXT COLLATE "C" NOT NULL CONSTRAINT "reaction_policy.project_id.key" PRIMARY KEY
    CONSTRAINT "reaction_policy.project_id" REFERENCES {schema}.projects (id),
  policy TEXT COLLATE "C" NOT NULL CONSTRAINT "reaction_policy.policy" CHECK (policy::json IS NOT NULL),
  escalate_after_ms BIGINT
);

-- Why a session is what it is: one row per transition, in its transaction. `seq` counts per session; `log_seq` is the newest change when it was
-- made: its own, if it made one. Of a session the newest 256 are kept, or some more.
CREATE TABLE {schema}.session_decision (
  session_id TEXT COLLATE "C" NOT NULL CONSTRAINT "session_decision.session_id" REFERENCES {schema}.sessions (id) ON DELETE CASCADE,
  seq BIGINT NOT NULL,
  log_seq BIGINT NOT NULL,
  at TEXT COLLATE "C" NOT NULL CONSTRAINT "session_decision.at"
    CHECK (at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  cause TEXT COLLATE "C" NOT NULL,
  from_state TEXT COLLATE "C" NOT NULL,
  to_state TEXT COLLATE "C" NOT NULL,
  termination_reason TEXT COLLATE "C" NOT NULL DEFAULT '',
  is_alive BIGINT NOT NULL CONSTRAINT "session_decision.is_alive" CHECK (is_alive IN (0, 1)),
  detecting_attempts BIGINT,
  evidence TEXT COLLATE "C" NOT NULL,
  CONSTRAINT "session_decision.seq.key" PRIMARY KEY (session_id, seq)
);

-- What people were, or should have been, told. That somebody saw it and that its cause is gone are two facts. One that asks for nothing is made
-- resolved.
CREATE TABLE {schema}.notification (
  id BIGINT GENERATED ALWAYS AS IDENTITY CONSTRAINT "notification.id.key" PRIMARY KEY,
  project_id TEXT COLLATE "C" NOT NULL CONSTRAINT "notification.project_id" REFERENCES {schema}.projects (id),
  session_id TEXT COLLATE "C" NOT NULL CONSTRAINT "notification.session_id" REFERENCES {schema}.sessions (id) ON DELETE CASCADE,
  reaction TEXT COLLATE "C" NOT NULL,
  event_type TEXT COLLATE "C" NOT NULL,
  priority TEXT COLLATE "C" NOT NULL CONSTRAINT "notification.priority" CHECK (priority IN ('urgent', 'action', 'info')),
  message TEXT COLLATE "C" NOT NULL,
  count BIGINT NOT NULL DEFAULT 1,
  first_at TEXT COLLATE "C" NOT NULL CONSTRAINT "notification.first_at"
    CHECK (first_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  last_at TEXT COLLATE "C" NOT NULL CONSTRAINT "notification.last_at"
    CHECK (last_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  seen_at TEXT COLLATE "C" CONSTRAINT "notification.seen_at"
    CHECK (seen_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$'),
  resolved_at TEXT COLLATE "C" CONSTRAINT "notification.resolved_at"
    CHECK (resolved_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$')
);
-- As long as one is not resolved, the same adds to it.
CREATE UNIQUE INDEX notification_open_idx ON {schema}.notification (session_id, reaction) WHERE resolved_at IS NULL;
CREATE INDEX notification_session_idx ON {schema}.notification (session_id, id);
CREATE INDEX notification_project_idx ON {schema}.notification (project_id, id);
CREATE INDEX notification_seen_idx ON {schema}.notification (seen_at, id);
CREATE INDEX notification_resolved_idx ON {schema}.notification (resolved_at, id);

-- What was switched on for this store, by its name. A row `invalidation` makes the triggers below speak.
CREATE TABLE {schema}.store_feature (name TEXT COLLATE "C" NOT NULL CONSTRAINT "store_feature.name.key" PRIMARY KEY);

-- At COMMIT, after the trigger that wrote the change of the same transaction.
CREATE FUNCTION {schema}.place_decision() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  UPDATE {schema}.session_decision SET log_seq = coalesce((SELECT pg_catalog.max(c.seq) FROM {schema}.change_log c),
    (SELECT f.pruned_seq FROM {schema}.change_log_floor f))
  WHERE session_id = NEW.session_id AND seq = NEW.seq;
  RETURN NULL;
END $body$;
CREATE CONSTRAINT TRIGGER session_decision_place AFTER INSERT ON {schema}.session_decision DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION {schema}.place_decision();

-- Before the session goes: its pull requests and notifications tell of their end first.
CREATE FUNCTION {schema}.session_leaves() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  DELETE FROM {schema}.pr WHERE session_id = OLD.id;
  DELETE FROM {schema}.notification WHERE session_id = OLD.id;
  RETURN OLD;
END $body$;
CREATE TRIGGER sessions_leave BEFORE DELETE ON {schema}.sessions FOR EACH ROW EXECUTE FUNCTION {schema}.session_leaves();

CREATE FUNCTION {schema}.invalidates() RETURNS boolean LANGUAGE sql STABLE AS
  $body$ SELECT EXISTS (SELECT 1 FROM {schema}.store_feature WHERE name = 'invalidation') $body$;

CREATE FUNCTION {schema}.session_invalidated() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF {schema}.invalidates() THEN
    PERFORM {schema}.log_change(TG_TABLE_SCHEMA, NEW.project_id, NEW.id, 'session_updated',
      '{"id":' || pg_catalog.to_json(NEW.id::text) || ',"state":' || pg_catalog.to_json(NEW.session_state::text)
      || ',"terminationReason":' || pg_catalog.to_json(NEW.termination_reason::text) || ',"isAlive":' || NEW.is_alive
      || ',"activity":' || pg_catalog.to_json(NEW.activity_state::text) || '}', NEW.updated_at);
  END IF;
  RETURN NULL;
END $body$;

-- At COMMIT the session may be gone: its project is in its id (see "sessions.id").
CREATE FUNCTION {schema}.pr_invalidated() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF NOT {schema}.invalidates() THEN
    RETURN NULL;
  END IF;
  IF TG_OP = 'DELETE' THEN
    PERFORM {schema}.log_change(TG_TABLE_SCHEMA, pg_catalog.regexp_replace(OLD.session_id, '-[0-9]+$', ''), OLD.session_id, TG_ARGV[0],
      '{"url":' || pg_catalog.to_json(OLD.url::text) || ',"session":' || pg_catalog.to_json(OLD.session_id::text) || '}',
      pg_catalog.to_char(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'));
  ELSE
    PERFORM {schema}.log_change(TG_TABLE_SCHEMA, pg_catalog.regexp_replace(NEW.session_id, '-[0-9]+$', ''), NEW.session_id, TG_ARGV[0],
      '{"url":' || pg_catalog.to_json(NEW.url::text) || ',"session":' || pg_catalog.to_json(NEW.session_id::text) || '}',
      coalesce(NEW.comments_at, NEW.updated_at));
  END IF;
  RETURN NULL;
END $body$;

CREATE FUNCTION {schema}.log_notification(schema_name text, n {schema}.notification, resolved boolean, at text) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
  PERFORM {schema}.log_change(schema_name, n.project_id, n.session_id, 'notification_changed',
    '{"id":' || n.id || ',"session":' || pg_catalog.to_json(n.session_id::text) || ',"reaction":' || pg_catalog.to_json(n.reaction::text)
    || ',"seen":' || (n.seen_at IS NOT NULL)::int || ',"resolved":' || resolved::int || '}', at);
END $body$;

CREATE FUNCTION {schema}.notification_invalidated() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF NOT {schema}.invalidates() THEN
    RETURN NULL;
  END IF;
  CASE TG_OP
    WHEN 'DELETE' THEN
      PERFORM {schema}.log_notification(TG_TABLE_SCHEMA, OLD, true,
        pg_catalog.to_char(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'));
    WHEN 'INSERT' THEN
      PERFORM {schema}.log_notification(TG_TABLE_SCHEMA, NEW, NEW.resolved_at IS NOT NULL, NEW.last_at);
    ELSE
      PERFORM {schema}.log_notification(TG_TABLE_SCHEMA, NEW, NEW.resolved_at IS NOT NULL,
        CASE WHEN OLD.resolved_at IS DISTINCT FROM NEW.resolved_at THEN coalesce(NEW.resolved_at, NEW.last_at)
          WHEN OLD.count IS DISTINCT FROM NEW.count THEN NEW.last_at ELSE coalesce(NEW.seen_at, NEW.last_at) END);
  END CASE;
  RETURN NULL;
END $body$;

CREATE CONSTRAINT TRIGGER sessions_invalidate AFTER UPDATE ON {schema}.sessions DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN ((OLD.branch IS DISTINCT FROM NEW.branch OR OLD.agent_session_id IS DISTINCT FROM NEW.agent_session_id
      OR OLD.display_name IS DISTINCT FROM NEW.display_name OR OLD.pinned IS DISTINCT FROM NEW.pinned)
    AND OLD.session_state IS NOT DISTINCT FROM NEW.session_state
    AND OLD.termination_reason IS NOT DISTINCT FROM NEW.termination_reason
    AND OLD.is_alive IS NOT DISTINCT FROM NEW.is_alive AND OLD.activity_state IS NOT DISTINCT FROM NEW.activity_state)
  EXECUTE FUNCTION {schema}.session_invalidated();
CREATE CONSTRAINT TRIGGER pr_invalidate_delete AFTER DELETE ON {schema}.pr DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION {schema}.pr_invalidated('pr_deleted');
CREATE CONSTRAINT TRIGGER pr_invalidate_comments AFTER UPDATE ON {schema}.pr DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (OLD.comments_revision IS DISTINCT FROM NEW.comments_revision)
  EXECUTE FUNCTION {schema}.pr_invalidated('pr_comments_replaced');
CREATE CONSTRAINT TRIGGER notification_invalidate_insert AFTER INSERT ON {schema}.notification DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION {schema}.notification_invalidated();
CREATE CONSTRAINT TRIGGER notification_invalidate_update AFTER UPDATE ON {schema}.notification DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (OLD.seen_at IS DISTINCT FROM NEW.seen_at OR OLD.resolved_at IS DISTINCT FROM NEW.resolved_at
    OR OLD.count IS DISTINCT FROM NEW.count)
  EXECUTE FUNCTION {schema}.notification_invalidated();
CREATE CONSTRAINT TRIGGER notification_invalidate_delete AFTER DELETE ON {schema}.notification DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (OLD.resolved_at IS NULL) EXECUTE FUNCTION {schema}.notification_invalidated();
