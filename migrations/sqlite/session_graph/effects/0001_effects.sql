-- What a runtime did besides thinking, so that it is not done twice. Times are milliseconds since 1970. What is large stands last in its
-- row: who does not ask for it reads none of its pages.
CREATE TABLE runtime_effect_replay (
  -- ["<type>","<session>","<id>"], null without a session: no two scopes share one.
  scope_id TEXT NOT NULL,
  replay_key TEXT NOT NULL,
  envelope_hash TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('in_progress', 'completed', 'failed')),
  -- Who does it; NULL and 0 when it is done, 0 alone when it was given up.
  lease_owner_id TEXT,
  lease_token TEXT,
  lease_expires_at_ms INTEGER NOT NULL DEFAULT 0,
  -- When a sleep is over.
  due_at_ms INTEGER,
  created_at_ms INTEGER NOT NULL,
  updated_at_ms INTEGER NOT NULL,
  -- NULL where a completed effect had none.
  outcome_json TEXT,
  error_json TEXT,
  PRIMARY KEY (scope_id, replay_key)
) STRICT;
-- What is old enough to be forgotten.
CREATE INDEX runtime_effect_replay_age ON runtime_effect_replay (updated_at_ms);
