-- The same tables as SQLite's, where each is explained. What differs, and why:
--   * BIGINT: PostgreSQL's INTEGER has 32 bits, too few for microseconds.
--   * `waiting_for` and `labels` repeat what is in `view` and `attributes`, for lists. SQLite looks into the JSON itself;
--     PostgreSQL's jsonb refuses NUL and lone surrogates, which may be in any text of people, so JSON stays text here.
--   * No REFERENCES: whoever adds an event or a hook has locked the run's row; checking it again for each row would cost
--     as much as writing it.
--   * Texts that are no JSON (tokens, keys) have NUL, lone surrogates and the backslash as \u escapes: see store/texts.py.

CREATE TABLE runs (
  id              TEXT PRIMARY KEY,
  workflow        TEXT NOT NULL,
  code            TEXT NOT NULL,
  version         TEXT,
  status          TEXT NOT NULL,
  created_at      BIGINT NOT NULL,
  ended_at        BIGINT,
  idempotency_key TEXT,
  attributes      TEXT NOT NULL DEFAULT '{}',
  labels          TEXT[] NOT NULL DEFAULT '{}',  -- each attribute as JSON: ["name","value"]
  seq             BIGINT NOT NULL,
  view            TEXT,
  waiting_for     TEXT[] NOT NULL DEFAULT '{}',  -- the view's list of that name
  stalled         TEXT,
  wake_at         BIGINT,
  owner           TEXT,
  lease_until     BIGINT,
  epoch           BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
-- Every run's row is written a few times and the indexes of the due and the held are small and busy: vacuumed early,
-- they stay small. A change of wake_at, owner or lease_until makes new entries in all indexes of runs (35 µs against 13).
-- In a narrow table of their own they cost as much: two more statements for each time that a run begins or ends to wait.

CREATE UNIQUE INDEX runs_idempotent ON runs (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX runs_due ON runs (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX runs_held ON runs (lease_until) WHERE owner IS NOT NULL;
CREATE INDEX runs_listed ON runs (created_at DESC, id DESC);
CREATE INDEX runs_of_workflow ON runs (workflow, created_at DESC, id DESC);
CREATE INDEX runs_waiting_for ON runs USING gin (waiting_for) WHERE ended_at IS NULL AND waiting_for <> '{}';
CREATE INDEX runs_labelled ON runs USING gin (labels) WHERE labels <> '{}';
CREATE INDEX runs_stalled ON runs (created_at DESC, id DESC) WHERE status = 'stalled';

CREATE TABLE events (
  run_id TEXT NOT NULL,
  seq    BIGINT NOT NULL,
  type   TEXT NOT NULL,
  at     BIGINT NOT NULL,
  key    TEXT NOT NULL,
  data   TEXT NOT NULL,
  PRIMARY KEY (run_id, seq)
);
CREATE UNIQUE INDEX events_once ON events (run_id, key);

CREATE TABLE hooks (
  id         TEXT PRIMARY KEY,
  run_id     TEXT NOT NULL,
  number     BIGINT NOT NULL,
  token      TEXT NOT NULL,
  is_webhook BOOLEAN NOT NULL,
  has_schema BOOLEAN NOT NULL,
  answer     TEXT,
  metadata   TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  generation BIGINT NOT NULL DEFAULT 1,
  is_live    BOOLEAN NOT NULL DEFAULT true
);
CREATE UNIQUE INDEX hooks_live ON hooks (token) WHERE is_live;
CREATE INDEX hooks_of_run ON hooks (run_id);

CREATE TABLE audit (
  seq    BIGINT PRIMARY KEY,
  at     BIGINT NOT NULL,
  what   TEXT NOT NULL,
  who    TEXT,
  run_id TEXT,
  data   TEXT NOT NULL,
  hash   TEXT NOT NULL
);
