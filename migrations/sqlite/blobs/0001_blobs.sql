-- One row per blob. `sha256` is the lower-case hex hash of `data`, looked at by every read; `created_at` is epoch milliseconds.
CREATE TABLE blobs (
  integrity TEXT PRIMARY KEY,
  data BLOB NOT NULL,
  sha256 TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  created_at INTEGER NOT NULL
);
