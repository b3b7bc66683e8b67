-- A run is its events. The other tables, except the audit, are indexes that can be rebuilt from the log and the code.
-- Times are whole microseconds since 1970 (UTC): exact and sortable. JSON is ASCII text, so NUL and lone surrogates in
-- people's input pass through either database unchanged.

-- Which installation the database belongs to. Every signed token is bound to it, so a link of one installation is
-- forged in another one, even under the same signing key. Copies and restored backups keep it by default.
CREATE TABLE installation (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  id  TEXT NOT NULL
) STRICT;
INSERT INTO installation VALUES (1, lower(hex(randomblob(16))));

CREATE TABLE runs (
  id              TEXT PRIMARY KEY,
  workflow        TEXT NOT NULL,              -- the name it is listed under
  code            TEXT NOT NULL,              -- the name its body is registered under
  version         TEXT,
  kind            TEXT NOT NULL DEFAULT 'workflow', -- its workflow's word for its runs
  status          TEXT NOT NULL,              -- pending running completed failed cancelled reset continued stalled
  created_at      INTEGER NOT NULL,
  ended_at        INTEGER,
  idempotency_key TEXT,
  attributes      TEXT NOT NULL DEFAULT '{}', -- its own: given at its start or set by its body
  seq             INTEGER NOT NULL,           -- number of the last event
  view            TEXT,                       -- the value that its author published last
  parts           TEXT,                       -- what it consists of, from its projection: an array
  indexed         TEXT,                       -- digest of the projection's attributes: shows whether they have changed
  stalled         TEXT,                       -- why it can't continue with this code
  next_run        TEXT,                       -- the run in its place: it continued as that, or a reset made it
  parent          TEXT,                       -- the run that has started it as its child …
  parent_number   INTEGER,                    -- … the number of that command there …
  on_parent_close TEXT,                       -- … and what becomes of it at the parent's end: cancel abandon
  wake_at         INTEGER,                    -- when it is due; NULL: not before somebody resumes it
  owner           TEXT,                       -- the process that works on it …
  lease_until     INTEGER,                    -- … and until when, unless renewed
  epoch           INTEGER NOT NULL DEFAULT 0, -- raised by every claim: fences an owner that has lost its lease
  unread          TEXT,                       -- payloads that its body hasn't taken, by hook; NULL: none
  received        INTEGER NOT NULL DEFAULT 0, -- characters of all its payloads
  sealed          INTEGER NOT NULL DEFAULT 0  -- how much of its log the audit vouches for; -1: all, it has ended
) STRICT;

-- For the query that runs all the time: which runs are due? Runs that wait for people aren't in this index.
CREATE INDEX runs_due ON runs (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX runs_held ON runs (owner) WHERE owner IS NOT NULL;
-- A key has one run, and callers look for those of one key, or of all keys that begin alike.
CREATE UNIQUE INDEX runs_idempotent ON runs (idempotency_key) WHERE idempotency_key IS NOT NULL;
-- For the end of a run: which children has it? Runs that are no child aren't in this index.
CREATE INDEX runs_of_parent ON runs (parent, parent_number) WHERE parent IS NOT NULL;

-- Lists are pages over an index. Each index begins with what a list asks for and then has the order of a page. A list of
-- several statuses reads a page of each and merges them (store/lists.py), so no index is needed without the status.
CREATE INDEX runs_of_status ON runs (status, created_at, id);
CREATE INDEX runs_of_workflow ON runs (workflow, status, created_at, id);
CREATE INDEX runs_ended ON runs (ended_at, id) WHERE ended_at IS NOT NULL;
CREATE INDEX runs_unsealed ON runs (ended_at) WHERE ended_at IS NOT NULL AND sealed >= 0;

-- The attributes that runs are found by: the runs' own, whose values have a kind and an order (store/encoding.py), and
-- those of the projections, whose names start with $ and have any number of values. The other columns are the run's, but
-- for `created_at` of what the projection gives another place in the lists by it.
CREATE TABLE attributes (
  run_id     TEXT NOT NULL REFERENCES runs (id),
  name       TEXT NOT NULL,
  value      TEXT NOT NULL,
  workflow   TEXT NOT NULL,
  status     TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (run_id, name, value)
) STRICT, WITHOUT ROWID;
CREATE INDEX attributes_of_status ON attributes (name, value, status, created_at, run_id);
CREATE INDEX attributes_of_workflow ON attributes (name, value, workflow, status, created_at, run_id);
-- For lists by a range of values, which have the order of the values.
CREATE INDEX attributes_by_value ON attributes (name, status, value, run_id) WHERE substr(name, 1, 1) <> '$';
CREATE INDEX attributes_of_workflow_by_value ON attributes (name, workflow, status, value, run_id)
  WHERE substr(name, 1, 1) <> '$';

CREATE TABLE events (
  run_id TEXT NOT NULL REFERENCES runs (id),
  seq    INTEGER NOT NULL,                    -- from 1, without gaps
  type   TEXT NOT NULL,
  at     INTEGER NOT NULL,
  key    TEXT NOT NULL,                       -- a second event with this key is the same one, written twice
  data   TEXT NOT NULL,
  PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX events_once ON events (run_id, key);

-- The chain of each log: an event's hash covers the hash of the event before (store/chain.py). It is a table of its own,
-- because reading a log doesn't need it.
CREATE TABLE chain (
  run_id TEXT NOT NULL,
  seq    INTEGER NOT NULL,
  salt   TEXT NOT NULL,
  hash   TEXT NOT NULL,
  PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID;

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
-- The constraint alone decides: of any number of concurrent creators, exactly one gets the token.
CREATE UNIQUE INDEX hooks_live ON hooks (token) WHERE is_live = 1;
CREATE INDEX hooks_of_run ON hooks (run_id);
-- A repeated resume_id is answered as the first time, also after the hook's end: which hooks had this token?
CREATE INDEX hooks_ended ON hooks (token, created_at) WHERE is_live = 0;

-- Payloads that a hook took in a run that was reset or has continued. The hook is the next run's now, and a repeated
-- resume_id is answered as the first time, also if a reset has dropped the payload.
CREATE TABLE taken (
  hook_id   TEXT NOT NULL,
  resume_id TEXT NOT NULL,
  run_id    TEXT NOT NULL,
  seq       INTEGER NOT NULL,                 -- of the payload in the log of that run
  PRIMARY KEY (hook_id, resume_id)
) STRICT, WITHOUT ROWID;

-- What people and programs did, and the head of each log's chain. Each line's hash covers the hash of the line before,
-- under a key that isn't in the database. `data` has the actor and the salt, too (store/audit.py).
CREATE TABLE audit (
  seq    INTEGER PRIMARY KEY,
  at     INTEGER NOT NULL,
  what   TEXT NOT NULL,
  who    TEXT,
  run_id TEXT,
  data   TEXT NOT NULL,
  hash   TEXT NOT NULL
) STRICT;
CREATE INDEX audit_of_who ON audit (who, seq) WHERE who IS NOT NULL;
CREATE INDEX audit_of_what ON audit (what, seq);
CREATE INDEX audit_of_run ON audit (run_id, seq) WHERE run_id IS NOT NULL;

-- The lines that the audit owes: of acts that are in a log. Each is written with its act, in one transaction, and goes when
-- its line comes. So no process that dies in between leaves an act without a line.
CREATE TABLE owed_lines (
  id     TEXT PRIMARY KEY,                    -- random
  run_id TEXT NOT NULL,
  seq    INTEGER NOT NULL,                    -- of the event that is the act
  at     INTEGER NOT NULL,
  about  TEXT NOT NULL                        -- what is known of the line: an object
) STRICT, WITHOUT ROWID;
CREATE INDEX owed_lines_by_age ON owed_lines (at);

-- What has become of the times of each schedule. A write names the version that it was decided from, so of several
-- processes one decides on a time.
CREATE TABLE schedules (
  name    TEXT PRIMARY KEY,                   -- the workflow's name, a slash and the schedule's id
  version INTEGER NOT NULL,                   -- counts the writes
  state   TEXT NOT NULL                       -- see engine/schedules.py
) STRICT, WITHOUT ROWID;

-- What several processes count together, such as the calls of an agent's session. Written like the states of schedules.
CREATE TABLE counters (
  name    TEXT PRIMARY KEY,
  version INTEGER NOT NULL,
  state   TEXT NOT NULL,
  until   INTEGER NOT NULL                    -- from then on, nobody needs it
) STRICT, WITHOUT ROWID;
CREATE INDEX counters_over ON counters (until);

-- What stays of a run that was deleted long after its end: how it ended, and what answers its key and its links
-- (store/retention.py).
CREATE TABLE stubs (
  run_id    TEXT PRIMARY KEY,
  workflow  TEXT NOT NULL,
  kind      TEXT NOT NULL,
  outcome   TEXT NOT NULL,
  ended_at  INTEGER NOT NULL,
  seq       INTEGER NOT NULL,                -- of its last event, and …
  head      TEXT NOT NULL,                   -- … the hash of that
  key       TEXT,                            -- SHA-256 of its idempotency key
  input     TEXT,                            -- SHA-256 of what came with the key
  key_until INTEGER                           -- from then on, the key is free
) STRICT, WITHOUT ROWID;
CREATE INDEX stubs_of_key ON stubs (key) WHERE key IS NOT NULL;
CREATE INDEX stubs_ended ON stubs (ended_at);

CREATE TABLE stub_hooks (
  hook_id TEXT PRIMARY KEY,
  run_id  TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX hooks_of_stub ON stub_hooks (run_id);

-- The processes that serve this installation, and the signing keys that each accepts. Never copied.
CREATE TABLE replicas (
  id            TEXT PRIMARY KEY,
  version       TEXT NOT NULL,
  since         INTEGER NOT NULL,
  seen_at       INTEGER NOT NULL,             -- silent for 30 seconds, it is gone
  schema        INTEGER NOT NULL,
  key_ids       TEXT NOT NULL,                -- an array, in its order
  signs_with    TEXT NOT NULL,                -- one of them
  config_digest TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- People who have signed in to the pages. A browser holds 32 random bytes, this table their SHA-256. Never copied.
CREATE TABLE sessions (
  id         TEXT PRIMARY KEY,
  person     TEXT NOT NULL,
  method     TEXT NOT NULL,                   -- how they signed in
  created_at INTEGER NOT NULL,
  seen_at    INTEGER NOT NULL,                -- written at most once a minute
  browser    TEXT NOT NULL,
  until      INTEGER NOT NULL,                -- from then on, the row may be deleted
  proved     INTEGER NOT NULL                 -- whether they proved who they are for it, and no provider remembered
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_of_person ON sessions (person, created_at);
CREATE INDEX sessions_over ON sessions (until);

-- What people set themselves: their time zone, when they are away, whether pages take keys. Read when it has changed.
CREATE TABLE personal (
  person     TEXT PRIMARY KEY,
  settings   TEXT NOT NULL,                   -- an object
  changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX personal_changed ON personal (changed_at);

-- Documents that another program keeps here. Each change has a number of its own, greater than all before it.
CREATE TABLE documents (
  kind     TEXT NOT NULL,
  id       TEXT NOT NULL,
  name     TEXT,                              -- unique in its kind; NULL: it has none
  document TEXT NOT NULL,                     -- an object; '': it was deleted
  change   INTEGER NOT NULL,
  PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX documents_changed ON documents (change);
CREATE UNIQUE INDEX documents_named ON documents (kind, name) WHERE name IS NOT NULL;

-- Files that people attach to requests, whose fields have their ids. A file is whole once it is described.
CREATE TABLE files (
  id         TEXT PRIMARY KEY,
  owner      TEXT NOT NULL,                   -- the app or person who uploaded it
  created_at INTEGER NOT NULL,
  until      INTEGER,                         -- from then on, the file may be deleted; NULL: a request has it
  described  TEXT NOT NULL                    -- its name, size, hash and type as JSON; '' until all its parts are there
) STRICT, WITHOUT ROWID;
CREATE INDEX files_over ON files (until) WHERE until IS NOT NULL;
CREATE INDEX files_unclaimed ON files (owner, until) WHERE until IS NOT NULL;

-- Their content. It is read in the order of the parts.
CREATE TABLE file_parts (
  file_id TEXT NOT NULL,
  number  INTEGER NOT NULL,                   -- from 0, without gaps
  content BLOB NOT NULL,
  PRIMARY KEY (file_id, number)
) STRICT;

-- Which WAL belongs to this file (store/main_file.py). Never copied. It comes after all indexes, so that VACUUM, which puts
-- the tables before them, gives it another page: a vacuumed copy isn't this file.
CREATE TABLE file_stamp (
  one   INTEGER PRIMARY KEY CHECK (one = 1),
  stamp TEXT NOT NULL
) STRICT;
INSERT INTO file_stamp VALUES (1, 'main file ' || lower(hex(randomblob(16))) || ' after ' || lower(hex(randomblob(16))));
