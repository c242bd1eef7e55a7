-- Times are UTC, always 24 characters (2026-05-31T12:00:00.000Z), so that their order is the order of their texts. Checks are named
-- after what they protect, because that name is all that SQLite tells of a broken one.
CREATE TABLE projects (
  id TEXT PRIMARY KEY NOT NULL,
  path TEXT NOT NULL,
  repo_origin_url TEXT NOT NULL DEFAULT '',
  display_name TEXT NOT NULL DEFAULT '',
  registered_at TEXT NOT NULL CONSTRAINT "projects.registered_at"
    CHECK (registered_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  archived_at TEXT CONSTRAINT "projects.archived_at"
    CHECK (archived_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  -- The last number that was given to a session; never goes back, so that no number is used again.
  last_session_num INTEGER NOT NULL DEFAULT 0
) STRICT;

-- `prompt` is last: who does not ask for it reads none of its pages.
CREATE TABLE sessions (
  id TEXT PRIMARY KEY NOT NULL,
  project_id TEXT NOT NULL REFERENCES projects (id),
  num INTEGER NOT NULL CONSTRAINT "sessions.num" CHECK (num >= 1),
  issue_id TEXT NOT NULL DEFAULT '',
  kind TEXT NOT NULL DEFAULT 'worker' CONSTRAINT "sessions.kind" CHECK (kind IN ('worker', 'orchestrator')),
  harness TEXT NOT NULL DEFAULT '',
  session_state TEXT NOT NULL CONSTRAINT "sessions.session_state" CHECK (session_state IN
    ('not_started', 'working', 'idle', 'needs_input', 'stuck', 'detecting', 'done', 'terminated')),
  termination_reason TEXT NOT NULL DEFAULT '' CONSTRAINT "sessions.termination_reason" CHECK (termination_reason IN
    ('', 'manually_killed', 'runtime_lost', 'agent_process_exited', 'probe_failure', 'error_in_process', 'auto_cleanup', 'pr_merged')
    AND (termination_reason = '' OR session_state = 'terminated')),
  is_alive INTEGER NOT NULL DEFAULT 0 CONSTRAINT "sessions.is_alive" CHECK (is_alive IN (0, 1)),
  activity_state TEXT NOT NULL DEFAULT 'idle' CONSTRAINT "sessions.activity_state" CHECK (activity_state IN
    ('active', 'ready', 'idle', 'waiting_input', 'blocked', 'exited')),
  activity_last_at TEXT CONSTRAINT "sessions.activity_last_at"
    CHECK (activity_last_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  activity_source TEXT NOT NULL DEFAULT 'none' CONSTRAINT "sessions.activity_source" CHECK (activity_source IN
    ('native', 'terminal', 'hook', 'runtime', 'none')),
  detecting_attempts INTEGER,
  detecting_started_at TEXT CONSTRAINT "sessions.detecting_started_at"
    CHECK (detecting_started_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  detecting_evidence_hash TEXT,
  branch TEXT NOT NULL DEFAULT '',
  workspace_path TEXT NOT NULL DEFAULT '',
  runtime_handle_id TEXT NOT NULL DEFAULT '',
  runtime_name TEXT NOT NULL DEFAULT '',
  agent_session_id TEXT NOT NULL DEFAULT '',
  workspace_freed_at TEXT CONSTRAINT "sessions.workspace_freed_at"
    CHECK (workspace_freed_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  -- Since when its runtime is known to be gone: somebody else may have its handle by now.
  runtime_freed_at TEXT CONSTRAINT "sessions.runtime_freed_at"
    CHECK (runtime_freed_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  -- When it was stopped in order to be resumed.
  stopped_at TEXT CONSTRAINT "sessions.stopped_at"
    CHECK (stopped_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  -- Which start of its runtime counts: made before the start, so what an earlier one still tells can be known as old.
  launch_id TEXT NOT NULL DEFAULT '',
  -- When that one came up.
  launched_at TEXT CONSTRAINT "sessions.launched_at"
    CHECK (launched_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  -- Which merge ends this very session; '' = as the policy says. No check: there may be more words.
  merge_ends TEXT NOT NULL DEFAULT '',
  revision INTEGER NOT NULL DEFAULT 0,
  created_at TEXT NOT NULL CONSTRAINT "sessions.created_at"
    CHECK (created_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  updated_at TEXT NOT NULL CONSTRAINT "sessions.updated_at"
    CHECK (updated_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  -- For people; no decision looks at these two.
  display_name TEXT NOT NULL DEFAULT '',
  pinned INTEGER NOT NULL DEFAULT 0 CONSTRAINT "sessions.pinned" CHECK (pinned IN (0, 1)),
  prompt TEXT NOT NULL DEFAULT '',
  CONSTRAINT "sessions.detecting_attempts" CHECK (
    (detecting_attempts IS NULL) = (detecting_started_at IS NULL)
    AND (detecting_attempts IS NULL) = (detecting_evidence_hash IS NULL)
    AND (detecting_attempts IS NULL OR session_state = 'detecting')),
  CONSTRAINT "sessions.id" CHECK (id = project_id || '-' || num),
  -- Also what finds the sessions of a project, in order.
  CONSTRAINT "sessions.project_id" UNIQUE (project_id, num)
) STRICT;
-- What runs: few, whatever the length of the history.
CREATE INDEX sessions_running_idx ON sessions (project_id, num) WHERE session_state NOT IN ('done', 'terminated');
-- What has ended and may still have a workspace: few as well, once those are given back.
CREATE INDEX sessions_reclaimable_idx ON sessions (project_id, num)
  WHERE session_state IN ('done', 'terminated') AND workspace_path <> '' AND workspace_freed_at IS NULL;
-- What waits to be resumed.
CREATE INDEX sessions_stopped_idx ON sessions (project_id, num) WHERE stopped_at IS NOT NULL;

CREATE TABLE pr (
  url TEXT PRIMARY KEY NOT NULL,
  session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  number INTEGER NOT NULL DEFAULT 0,
  pr_state TEXT NOT NULL DEFAULT 'open' CONSTRAINT "pr.pr_state" CHECK (pr_state IN ('draft', 'open', 'merged', 'closed')),
  review_decision TEXT NOT NULL DEFAULT 'none' CONSTRAINT "pr.review_decision" CHECK (review_decision IN
    ('none', 'approved', 'changes_requested', 'review_required')),
  ci_state TEXT NOT NULL DEFAULT 'unknown' CONSTRAINT "pr.ci_state" CHECK (ci_state IN
    ('unknown', 'pending', 'passing', 'failing')),
  mergeability TEXT NOT NULL DEFAULT 'unknown' CONSTRAINT "pr.mergeability" CHECK (mergeability IN
    ('unknown', 'mergeable', 'conflicting', 'blocked', 'unstable')),
  updated_at TEXT NOT NULL CONSTRAINT "pr.updated_at"
    CHECK (updated_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  head_branch TEXT NOT NULL DEFAULT '',
  base_branch TEXT NOT NULL DEFAULT '',
  -- Counts the replacements of its comments that changed anything, and when the last of them was.
  comments_revision INTEGER NOT NULL DEFAULT 0,
  comments_at TEXT CONSTRAINT "pr.comments_at"
    CHECK (comments_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z')
) STRICT;
CREATE INDEX pr_session_idx ON pr (session_id);

CREATE TABLE pr_checks (
  pr_url TEXT NOT NULL REFERENCES pr (url) ON DELETE CASCADE,
  name TEXT NOT NULL,
  commit_hash TEXT NOT NULL,
  status TEXT NOT NULL DEFAULT 'unknown' CONSTRAINT "pr_checks.status" CHECK (status IN
    ('unknown', 'queued', 'in_progress', 'passed', 'failed', 'skipped', 'cancelled')),
  url TEXT NOT NULL DEFAULT '',
  -- First sight.
  created_at TEXT NOT NULL CONSTRAINT "pr_checks.created_at"
    CHECK (created_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  -- Last write.
  observed_at TEXT NOT NULL CONSTRAINT "pr_checks.observed_at"
    CHECK (observed_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  log_tail TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (pr_url, name, commit_hash)
) STRICT;
CREATE INDEX pr_checks_recent_idx ON pr_checks (pr_url, name, created_at);

CREATE TABLE pr_comment (
  pr_url TEXT NOT NULL REFERENCES pr (url) ON DELETE CASCADE,
  comment_id TEXT NOT NULL,
  author TEXT NOT NULL DEFAULT '',
  file TEXT NOT NULL DEFAULT '',
  line INTEGER NOT NULL DEFAULT 0,
  resolved INTEGER NOT NULL DEFAULT 0 CONSTRAINT "pr_comment.resolved" CHECK (resolved IN (0, 1)),
  created_at TEXT NOT NULL CONSTRAINT "pr_comment.created_at"
    CHECK (created_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  body TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (pr_url, comment_id)
) STRICT;

-- Append-only but for retention. `seq` is never used again, also when the newest rows are gone. `event_type` has no check: a new one
-- must not rebuild the log. `session_id` refers to nothing: a session may be gone, what was told of it stays.
CREATE TABLE change_log (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  project_id TEXT NOT NULL REFERENCES projects (id),
  session_id TEXT,
  event_type TEXT NOT NULL,
  payload TEXT NOT NULL CONSTRAINT "change_log.payload" CHECK (json_valid(payload)),
  created_at TEXT NOT NULL
) STRICT;
CREATE INDEX change_log_project_idx ON change_log (project_id, seq);

-- One row: the newest change that retention removed. So the head survives an empty log, and a reader can be told what it missed.
CREATE TABLE change_log_floor (
  id INTEGER PRIMARY KEY NOT NULL CONSTRAINT "change_log_floor.id" CHECK (id = 1),
  pruned_seq INTEGER NOT NULL
) STRICT;
INSERT INTO change_log_floor (id, pruned_seq) VALUES (1, 0);

CREATE TRIGGER sessions_cdc_insert AFTER INSERT ON sessions BEGIN
  INSERT INTO change_log (project_id, session_id, event_type, payload, created_at)
  VALUES (NEW.project_id, NEW.id, 'session_created', json_object('id', NEW.id, 'state', NEW.session_state,
    'terminationReason', NEW.termination_reason, 'isAlive', NEW.is_alive, 'activity', NEW.activity_state), NEW.updated_at);
END;
CREATE TRIGGER sessions_cdc_update AFTER UPDATE ON sessions
WHEN OLD.session_state IS NOT NEW.session_state OR OLD.termination_reason IS NOT NEW.termination_reason
  OR OLD.is_alive IS NOT NEW.is_alive OR OLD.activity_state IS NOT NEW.activity_state
BEGIN
  INSERT INTO change_log (project_id, session_id, event_type, payload, created_at)
  VALUES (NEW.project_id, NEW.id, 'session_updated', json_object('id', NEW.id, 'state', NEW.session_state,
    'terminationReason', NEW.termination_reason, 'isAlive', NEW.is_alive, 'activity', NEW.activity_state), NEW.updated_at);
END;
CREATE TRIGGER sessions_cdc_delete AFTER DELETE ON sessions BEGIN
  INSERT INTO change_log (project_id, session_id, event_type, payload, created_at)
  VALUES (OLD.project_id, OLD.id, 'session_deleted', json_object('id', OLD.id), strftime('%Y-%m-%dT%H:%M:%fZ', 'now'));
END;
CREATE TRIGGER pr_cdc_insert AFTER INSERT ON pr BEGIN
  INSERT INTO change_log (project_id, session_id, event_type, payload, created_at)
  SELECT s.project_id, s.id, 'pr_created', json_object('url', NEW.url, 'session', NEW.session_id, 'state', NEW.pr_state,
    'ci', NEW.ci_state, 'review', NEW.review_decision, 'mergeability', NEW.mergeability), NEW.updated_at
  FROM sessions s WHERE s.id = NEW.session_id;
END;
CREATE TRIGGER pr_cdc_update AFTER UPDATE ON pr
WHEN OLD.pr_state IS NOT NEW.pr_state OR OLD.ci_state IS NOT NEW.ci_state OR OLD.review_decision IS NOT NEW.review_decision
  OR OLD.mergeability IS NOT NEW.mergeability OR OLD.session_id IS NOT NEW.session_id
BEGIN
  INSERT INTO change_log (project_id, session_id, event_type, payload, created_at)
  SELECT s.project_id, s.id, 'pr_updated', json_object('url', NEW.url, 'session', NEW.session_id, 'state', NEW.pr_state,
    'ci', NEW.ci_state, 'review', NEW.review_decision, 'mergeability', NEW.mergeability), NEW.updated_at
  FROM sessions s WHERE s.id = NEW.session_id;
END;
CREATE TRIGGER pr_checks_cdc_insert AFTER INSERT ON pr_checks BEGIN
  INSERT INTO change_log (project_id, session_id, event_type, payload, created_at)
  SELECT s.project_id, s.id, 'pr_check_recorded', json_object('pr', NEW.pr_url, 'name', NEW.name, 'commit', NEW.commit_hash,
    'status', NEW.status), NEW.observed_at
  FROM pr p JOIN sessions s ON s.id = p.session_id WHERE p.url = NEW.pr_url;
END;
CREATE TRIGGER pr_checks_cdc_update AFTER UPDATE ON pr_checks WHEN OLD.status IS NOT NEW.status BEGIN
  INSERT INTO change_log (project_id, session_id, event_type, payload, created_at)
  SELECT s.project_id, s.id, 'pr_check_recorded', json_object('pr', NEW.pr_url, 'name', NEW.name, 'commit', NEW.commit_hash,
    'status', NEW.status), NEW.observed_at
  FROM pr p JOIN sessions s ON s.id = p.session_id WHERE p.url = NEW.pr_url;
END;

-- What was tried about a session, and what still has to be delivered. `reaction` has no check: more of them will come.
CREATE TABLE reaction_state (
  session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  reaction TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  first_at TEXT CONSTRAINT "reaction_state.first_at"
    CHECK (first_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  last_signature TEXT,
  escalated INTEGER NOT NULL DEFAULT 0 CONSTRAINT "reaction_state.escalated" CHECK (escalated IN (0, 1)),
  is_current INTEGER NOT NULL DEFAULT 0 CONSTRAINT "reaction_state.is_current" CHECK (is_current IN (0, 1)),
  pending TEXT NOT NULL DEFAULT 'none' CONSTRAINT "reaction_state.pending" CHECK (pending IN
    ('none', 'nudge', 'escalate', 'notify')),
  pending_message TEXT NOT NULL DEFAULT '',
  lease_until TEXT CONSTRAINT "reaction_state.lease_until"
    CHECK (lease_until GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  -- The call for a person is in `notification`.
  is_noted INTEGER NOT NULL DEFAULT 0 CONSTRAINT "reaction_state.is_noted" CHECK (is_noted IN (0, 1)),
  PRIMARY KEY (session_id, reaction)
) STRICT, WITHOUT ROWID;
-- What `tick` looks at: what waits to be delivered, and what may have to be escalated.
CREATE INDEX reaction_state_due_idx ON reaction_state (first_at)
  WHERE pending <> 'none' OR (escalated = 0 AND reaction IN ('merge-conflicts', 'agent-idle'));

-- How far each consumer of the change log has come; what it has not confirmed is kept for it.
CREATE TABLE consumer_offset (
  name TEXT PRIMARY KEY NOT NULL,
  acked_seq INTEGER NOT NULL CONSTRAINT "consumer_offset.acked_seq" CHECK (acked_seq >= 0),
  updated_at TEXT NOT NULL CONSTRAINT "consumer_offset.updated_at"
    CHECK (updated_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z')
) STRICT, WITHOUT ROWID;

-- What is under way, and whose it is, so that somebody else can finish or undo it after a crash.
CREATE TABLE session_operation (
  id TEXT PRIMARY KEY NOT NULL,
  session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  kind TEXT NOT NULL CONSTRAINT "session_operation.kind" CHECK (kind IN ('spawn', 'kill', 'restore', 'cleanup', 'stop')),
  step TEXT NOT NULL DEFAULT '',
  -- The start of the runtime that a restore is at, and what its agent was heard to do before the restore was through.
  launch_id TEXT,
  early_activity TEXT,
  owner TEXT NOT NULL,
  started_at TEXT NOT NULL CONSTRAINT "session_operation.started_at"
    CHECK (started_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  updated_at TEXT NOT NULL CONSTRAINT "session_operation.updated_at"
    CHECK (updated_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z')
) STRICT;
CREATE INDEX session_operation_session_idx ON session_operation (session_id);

-- The session that a caller's key stands for: a creation that is tried again finds the first.
CREATE TABLE session_key (
  project_id TEXT NOT NULL REFERENCES projects (id),
  key TEXT NOT NULL,
  session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  PRIMARY KEY (project_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX session_key_session_idx ON session_key (session_id);

-- What a project wants otherwise about reactions. `escalate_after_ms` is the member `escalateAfterMs` of the policy, for what looks
-- through all sessions; NULL = the policy has none.
CREATE TABLE reaction_policy (
  project_id TEXT PRIMARY KEY NOT NULL REFERENCES projects (id),
  policy TEXT NOT NULL CONSTRAINT "reaction_policy.policy" CHECK (json_valid(policy)),
  escalate_after_ms INTEGER
) STRICT, WITHOUT ROWID;

-- Why a session is what it is: one row per transition, in its transaction. `seq` counts per session; `log_seq` is the newest change when it was
-- made: its own, if it made one. Of a session the newest 256 are kept, or some more.
CREATE TABLE session_decision (
  session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  seq INTEGER NOT NULL,
  log_seq INTEGER NOT NULL,
  at TEXT NOT NULL CONSTRAINT "session_decision.at"
    CHECK (at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  cause TEXT NOT NULL,
  from_state TEXT NOT NULL,
  to_state TEXT NOT NULL,
  termination_reason TEXT NOT NULL DEFAULT '',
  is_alive INTEGER NOT NULL CONSTRAINT "session_decision.is_alive" CHECK (is_alive IN (0, 1)),
  detecting_attempts INTEGER,
  evidence TEXT NOT NULL,
  PRIMARY KEY (session_id, seq)
) STRICT, WITHOUT ROWID;

-- What people were, or should have been, told. That somebody saw it and that its cause is gone are two facts. One that asks for nothing is made
-- resolved.
CREATE TABLE notification (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  project_id TEXT NOT NULL REFERENCES projects (id),
  session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  reaction TEXT NOT NULL,
  event_type TEXT NOT NULL,
  priority TEXT NOT NULL CONSTRAINT "notification.priority" CHECK (priority IN ('urgent', 'action', 'info')),
  message TEXT NOT NULL,
  count INTEGER NOT NULL DEFAULT 1,
  first_at TEXT NOT NULL CONSTRAINT "notification.first_at"
    CHECK (first_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  last_at TEXT NOT NULL CONSTRAINT "notification.last_at"
    CHECK (last_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  seen_at TEXT CONSTRAINT "notification.seen_at"
    CHECK (seen_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  resolved_at TEXT CONSTRAINT "notification.resolved_at"
    CHECK (resolved_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z')
) STRICT;
-- As long as one is not resolved, the same adds to it.
CREATE UNIQUE INDEX notification_open_idx ON notification (session_id, reaction) WHERE resolved_at IS NULL;
CREATE INDEX notification_session_idx ON notification (session_id, id);
CREATE INDEX notification_project_idx ON notification (project_id, id);
CREATE INDEX notification_seen_idx ON notification (seen_at, id);
CREATE INDEX notification_resolved_idx ON notification (resolved_at, id);

-- What was switched on for this store, by its name. A row `invalidation` makes the triggers below speak.
CREATE TABLE store_feature (name TEXT PRIMARY KEY NOT NULL) STRICT, WITHOUT ROWID;

-- Before the session goes: its pull requests and notifications tell of their end first, and can still be found to be its own.
CREATE TRIGGER sessions_leave BEFORE DELETE ON sessions BEGIN
  DELETE FROM pr WHERE session_id = OLD.id;
  DELETE FROM notification WHERE session_id = OLD.id;
END;
CREATE TRIGGER sessions_invalidate AFTER UPDATE ON sessions
WHEN (OLD.branch IS NOT NEW.branch OR OLD.agent_session_id IS NOT NEW.agent_session_id
    OR OLD.display_name IS NOT NEW.display_name OR OLD.pinned IS NOT NEW.pinned)
  AND OLD.session_state IS NEW.session_state AND OLD.termination_reason IS NEW.termination_reason
  AND OLD.is_alive IS NEW.is_alive AND OLD.activity_state IS NEW.activity_state
  AND EXISTS (SELECT 1 FROM store_feature WHERE name = 'invalidation')
BEGIN
  INSERT INTO change_log (project_id, session_id, event_type, payload, created_at)
  VALUES (NEW.project_id, NEW.id, 'session_updated', json_object('id', NEW.id, 'state', NEW.session_state,
    'terminationReason', NEW.termination_reason, 'isAlive', NEW.is_alive, 'activity', NEW.activity_state), NEW.updated_at);
END;
CREATE TRIGGER pr_invalidate_delete AFTER DELETE ON pr WHEN EXISTS (SELECT 1 FROM store_feature WHERE name = 'invalidation') BEGIN
  INSERT INTO change_log (project_id, session_id, event_type, payload, created_at)
  SELECT s.project_id, s.id, 'pr_deleted', json_object('url', OLD.url, 'session', OLD.session_id),
    strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
  FROM sessions s WHERE s.id = OLD.session_id;
END;
CREATE TRIGGER pr_invalidate_comments AFTER UPDATE ON pr
WHEN OLD.comments_revision IS NOT NEW.comments_revision AND EXISTS (SELECT 1 FROM store_feature WHERE name = 'invalidation')
BEGIN
  INSERT INTO change_log (project_id, session_id, event_type, payload, created_at)
  SELECT s.project_id, s.id, 'pr_comments_replaced', json_object('url', NEW.url, 'session', NEW.session_id),
    coalesce(NEW.comments_at, NEW.updated_at)
  FROM sessions s WHERE s.id = NEW.session_id;
END;
CREATE TRIGGER notification_invalidate_insert AFTER INSERT ON notification
WHEN EXISTS (SELECT 1 FROM store_feature WHERE name = 'invalidation') BEGIN
  INSERT INTO change_log (project_id, session_id, event_type, payload, created_at)
  VALUES (NEW.project_id, NEW.session_id, 'notification_changed', json_object('id', NEW.id, 'session', NEW.session_id,
    'reaction', NEW.reaction, 'seen', NEW.seen_at IS NOT NULL, 'resolved', NEW.resolved_at IS NOT NULL), NEW.last_at);
END;
CREATE TRIGGER notification_invalidate_update AFTER UPDATE ON notification
WHEN (OLD.seen_at IS NOT NEW.seen_at OR OLD.resolved_at IS NOT NEW.resolved_at OR OLD.count IS NOT NEW.count)
  AND EXISTS (SELECT 1 FROM store_feature WHERE name = 'invalidation')
BEGIN
  INSERT INTO change_log (project_id, session_id, event_type, payload, created_at)
  VALUES (NEW.project_id, NEW.session_id, 'notification_changed', json_object('id', NEW.id, 'session', NEW.session_id,
    'reaction', NEW.reaction, 'seen', NEW.seen_at IS NOT NULL, 'resolved', NEW.resolved_at IS NOT NULL),
    CASE WHEN OLD.resolved_at IS NOT NEW.resolved_at THEN coalesce(NEW.resolved_at, NEW.last_at)
      WHEN OLD.count IS NOT NEW.count THEN NEW.last_at ELSE coalesce(NEW.seen_at, NEW.last_at) END);
END;
CREATE TRIGGER notification_invalidate_delete AFTER DELETE ON notification
WHEN OLD.resolved_at IS NULL AND EXISTS (SELECT 1 FROM store_feature WHERE name = 'invalidation')
BEGIN
  INSERT INTO change_log (project_id, session_id, event_type, payload, created_at)
  VALUES (OLD.project_id, OLD.session_id, 'notification_changed', json_object('id', OLD.id, 'session', OLD.session_id,
    'reaction', OLD.reaction, 'seen', OLD.seen_at IS NOT NULL, 'resolved', 1), strftime('%Y-%m-%dT%H:%M:%fZ', 'now'));
END;
