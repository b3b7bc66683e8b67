-- A run is its events. The other tables are indexes of them: they can be rebuilt from the log and the code, but for the
-- audit. Times are whole microseconds since 1970 (UTC): exact, and they sort. JSON is ASCII text, so that NUL and lone
-- surrogates in people's input pass through either database unharmed.

CREATE TABLE runs (
  id              TEXT PRIMARY KEY,
  workflow        TEXT NOT NULL,              -- the name it is listed under
  code            TEXT NOT NULL,              -- the name its body is registered under
  version         TEXT,
  kind            TEXT NOT NULL,              -- what its workflow says that its runs are
  status          TEXT NOT NULL,              -- pending running completed failed cancelled stalled
  created_at      INTEGER NOT NULL,
  ended_at        INTEGER,
  idempotency_key TEXT UNIQUE,
  attributes      TEXT NOT NULL DEFAULT '{}', -- what it was given at its start
  seq             INTEGER NOT NULL,           -- number of the last event
  view            TEXT,                       -- what its author published last
  parts           TEXT,                       -- what it consists of for its readers: an array
  indexed         TEXT,                       -- a digest of the projection's attributes: whether they have changed
  stalled         TEXT,                       -- why it can't go on with this code
  wake_at         INTEGER,                    -- when there is work to do; NULL: not before somebody resumes it
  owner           TEXT,                       -- who works on it now …
  lease_until     INTEGER,                    -- … and until when, unless renewed
  epoch           INTEGER NOT NULL DEFAULT 0  -- grows with every claim: fences off an owner that has lost its lease
) STRICT;

-- The one thing that is asked all the time: what is due? Runs that wait for people aren't in it at all.
CREATE INDEX runs_due ON runs (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX runs_held ON runs (owner) WHERE owner IS NOT NULL;

-- Lists are pages over an index, so each ends with what pages are ordered by. Nearly all runs are completed some day:
-- they are listed along the index of all, and the others' keeps no place for them.
CREATE INDEX runs_listed ON runs (created_at, id);
CREATE INDEX runs_of_workflow ON runs (workflow, created_at, id);
CREATE INDEX runs_of_status ON runs (status, created_at, id) WHERE status <> 'completed';

-- What runs are found by, with any number of values to a name: what they were given at their start, and what their
-- projections say, under names that begin with $. Ended runs stay in it, out of the way of who asks for open ones.
CREATE TABLE attributes (
  name       TEXT NOT NULL,
  value      TEXT NOT NULL,
  created_at INTEGER NOT NULL,                -- of the run
  run_id     TEXT NOT NULL REFERENCES runs (id),
  is_open    INTEGER NOT NULL,                -- whether the run has not ended
  PRIMARY KEY (name, value, created_at, run_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX attributes_open ON attributes (name, value, created_at, run_id) WHERE is_open = 1;
CREATE INDEX attributes_of_run ON attributes (run_id);

CREATE TABLE events (
  run_id TEXT NOT NULL REFERENCES runs (id),
  seq    INTEGER NOT NULL,                    -- from 1, without gaps
  type   TEXT NOT NULL,
  at     INTEGER NOT NULL,
  key    TEXT NOT NULL,                       -- a second event with this key is the same one, told twice
  data   TEXT NOT NULL,
  PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX events_once ON events (run_id, key);

CREATE TABLE hooks (
  id         TEXT PRIMARY KEY,
  run_id     TEXT NOT NULL REFERENCES runs (id),
  number     INTEGER NOT NULL,                -- the command's number in its run
  token      TEXT NOT NULL,
  is_webhook INTEGER NOT NULL,
  has_schema INTEGER NOT NULL,
  answer     TEXT,
  metadata   TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  generation INTEGER NOT NULL DEFAULT 1,      -- links of an older generation are revoked
  is_live    INTEGER NOT NULL DEFAULT 1
) STRICT;
-- Uniqueness by constraint only: of any number of concurrent creators exactly one gets the token.
CREATE UNIQUE INDEX hooks_live ON hooks (token) WHERE is_live = 1;
CREATE INDEX hooks_of_run ON hooks (run_id);

-- What happened that is in no run's log: refused clicks on ended requests, forged links. Each line's hash covers the
-- line before it, so that nothing can be changed, taken out or put in unseen.
CREATE TABLE audit (
  seq    INTEGER PRIMARY KEY,
  at     INTEGER NOT NULL,
  what   TEXT NOT NULL,
  who    TEXT,
  run_id TEXT,
  data   TEXT NOT NULL,
  hash   TEXT NOT NULL
) STRICT;
