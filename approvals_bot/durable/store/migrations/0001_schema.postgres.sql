-- The same tables as SQLite's, whose file explains them. The differences, and their reasons:
--   * BIGINT: PostgreSQL's INTEGER has 32 bits, too few for microseconds.
--   * JSON is text: jsonb refuses NUL and lone surrogates, which people's input may contain.
--   * No REFERENCES: a call that adds an event or a hook has locked the run's row; checking it again for each row would
--     cost as much as writing it.
--   * Text that isn't JSON (tokens, keys) has NUL, lone surrogates and backslashes as \u escapes (store/encoding.py).

CREATE TABLE installation (
  one BIGINT PRIMARY KEY CHECK (one = 1),
  id  TEXT NOT NULL
);
INSERT INTO installation VALUES (1, replace(gen_random_uuid()::text, '-', ''));

CREATE TABLE runs (
  id              TEXT PRIMARY KEY,
  workflow        TEXT NOT NULL,
  code            TEXT NOT NULL,
  version         TEXT,
  kind            TEXT NOT NULL DEFAULT 'workflow',
  status          TEXT NOT NULL,
  created_at      BIGINT NOT NULL,
  ended_at        BIGINT,
  idempotency_key TEXT COLLATE "C",
  attributes      TEXT NOT NULL DEFAULT '{}',
  seq             BIGINT NOT NULL,
  view            TEXT,
  parts           TEXT,
  indexed         TEXT,
  stalled         TEXT,
  next_run        TEXT,
  parent          TEXT,
  parent_number   BIGINT,
  on_parent_close TEXT,
  wake_at         BIGINT,
  owner           TEXT,
  lease_until     BIGINT,
  epoch           BIGINT NOT NULL DEFAULT 0,
  unread          TEXT,
  received        BIGINT NOT NULL DEFAULT 0,
  sealed          BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
-- Each run's row is updated a few times, and the indexes of due and of held runs are small and busy. Early vacuuming
-- keeps them small. A change of wake_at, owner or lease_until makes new entries in all indexes of runs (35 µs against
-- 13). A narrow table for these columns would cost as much: two more statements whenever a run starts or stops waiting.

CREATE UNIQUE INDEX runs_idempotent ON runs (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX runs_due ON runs (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX runs_held ON runs (lease_until) WHERE owner IS NOT NULL;
CREATE INDEX runs_of_parent ON runs (parent, parent_number) WHERE parent IS NOT NULL;
-- Statistics may be missing or old, and then PostgreSQL would read a list of a workflow's failed runs along the index of
-- all failed runs. COLLATE makes an index unusable for lists that have one of their own: a list says which it means.
CREATE INDEX runs_of_status ON runs (status, created_at, id);
CREATE INDEX runs_of_workflow ON runs (workflow, status COLLATE "C", created_at, id);
CREATE INDEX runs_ended ON runs (ended_at, id) WHERE ended_at IS NOT NULL;
CREATE INDEX runs_unsealed ON runs (ended_at) WHERE ended_at IS NOT NULL AND sealed >= 0;

-- A table as in SQLite, not an array with a GIN index: such an index has no order, so each page would read and sort all
-- matching runs.
CREATE TABLE attributes (
  run_id     TEXT NOT NULL,
  name       TEXT NOT NULL,
  value      TEXT NOT NULL,
  workflow   TEXT NOT NULL,
  status     TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (run_id, name, value)
);
CREATE INDEX attributes_of_status ON attributes (name, value, status, created_at, run_id);
CREATE INDEX attributes_of_workflow ON attributes (name, value, workflow, status COLLATE "C", created_at, run_id);
-- Ranges of values are compared byte by byte; and so that no other index can serve them, see above.
CREATE INDEX attributes_by_value ON attributes (name, status, value COLLATE "C", run_id)
  WHERE substr(name, 1, 1) <> '$';
CREATE INDEX attributes_of_workflow_by_value ON attributes (name, workflow, status COLLATE "C", value COLLATE "C", run_id)
  WHERE substr(name, 1, 1) <> '$';

-- SQLite's store does this itself: there, a trigger would cost as much as two indexes. Here it is cheap.
CREATE FUNCTION follow_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE attributes SET status = new.status WHERE run_id = new.id;
  RETURN NULL;
END $$;
CREATE TRIGGER runs_status AFTER UPDATE OF status ON runs FOR EACH ROW
WHEN (old.status <> new.status AND (new.indexed IS NOT NULL OR new.attributes <> '{}'))
EXECUTE FUNCTION follow_status();

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

CREATE TABLE chain (
  run_id TEXT NOT NULL,
  seq    BIGINT NOT NULL,
  salt   TEXT NOT NULL,
  hash   TEXT NOT NULL,
  PRIMARY KEY (run_id, seq)
);

-- The hash of an event, as in store/chain.py: of the hash before, which is `first` where the state is empty.
CREATE FUNCTION link_event(state text, first text, seq bigint, type text, at bigint, key text, sealed text) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN encode(
    sha256(convert_to(concat_ws(E'\n', coalesce(state, first), seq, type, at, key, sealed), 'UTF8')), 'hex');
END $$;
CREATE AGGREGATE linked(first text, seq bigint, type text, at bigint, key text, sealed text) (
  sfunc = link_event, stype = text
);

-- One place for all functions that add events. A copy brings the links along.
CREATE FUNCTION chain_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO chain (run_id, seq, salt, hash)
  SELECT run_id, seq, salt,
    linked(
      CASE seq WHEN 1 THEN run_id ELSE coalesce(
        (SELECT hash FROM chain WHERE chain.run_id = salted.run_id AND chain.seq = salted.seq - 1), '') END,
      seq, type, at, key, encode(sha256(convert_to(salt || data, 'UTF8')), 'hex')
    ) OVER (PARTITION BY run_id ORDER BY seq)
  FROM (SELECT *, replace(gen_random_uuid()::text, '-', '') AS salt FROM added) AS salted;
  RETURN NULL;
END $$;
CREATE TRIGGER events_chained AFTER INSERT ON events REFERENCING NEW TABLE AS added FOR EACH STATEMENT
WHEN (current_setting('approvals_bot.copying', true) IS DISTINCT FROM 'on')
EXECUTE FUNCTION chain_events();

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
CREATE INDEX hooks_ended ON hooks (token, created_at) WHERE NOT is_live;

CREATE TABLE taken (
  hook_id   TEXT NOT NULL,
  resume_id TEXT NOT NULL,
  run_id    TEXT NOT NULL,
  seq       BIGINT NOT NULL,
  PRIMARY KEY (hook_id, resume_id)
);

CREATE TABLE audit (
  seq    BIGINT PRIMARY KEY,
  at     BIGINT NOT NULL,
  what   TEXT NOT NULL,
  who    TEXT,
  run_id TEXT,
  data   TEXT NOT NULL,
  hash   TEXT NOT NULL
);
CREATE INDEX audit_of_who ON audit (who, seq) WHERE who IS NOT NULL;
CREATE INDEX audit_of_what ON audit (what, seq);
CREATE INDEX audit_of_run ON audit (run_id, seq) WHERE run_id IS NOT NULL;

CREATE TABLE owed_lines (
  id     TEXT PRIMARY KEY,
  run_id TEXT NOT NULL,
  seq    BIGINT NOT NULL,
  at     BIGINT NOT NULL,
  about  TEXT NOT NULL
);
CREATE INDEX owed_lines_by_age ON owed_lines (at);

CREATE TABLE schedules (
  name    TEXT PRIMARY KEY,
  version BIGINT NOT NULL,
  state   TEXT NOT NULL
);

CREATE TABLE counters (
  name    TEXT PRIMARY KEY,
  version BIGINT NOT NULL,
  state   TEXT NOT NULL,
  until   BIGINT NOT NULL
);
CREATE INDEX counters_over ON counters (until);

-- What stays of a run that was deleted long after its end: how it ended, and what answers its key and its links
-- (store/retention.py).
CREATE TABLE stubs (
  run_id    TEXT PRIMARY KEY,
  workflow  TEXT NOT NULL,
  kind      TEXT NOT NULL,
  outcome   TEXT NOT NULL,
  ended_at  BIGINT NOT NULL,
  seq       BIGINT NOT NULL,                -- of its last event, and …
  head      TEXT NOT NULL,                   -- … the hash of that
  key       TEXT,                            -- SHA-256 of its idempotency key
  input     TEXT,                            -- SHA-256 of what came with the key
  key_until BIGINT                           -- from then on, the key is free
);
CREATE INDEX stubs_of_key ON stubs (key) WHERE key IS NOT NULL;
CREATE INDEX stubs_ended ON stubs (ended_at);

CREATE TABLE stub_hooks (
  hook_id TEXT PRIMARY KEY,
  run_id  TEXT NOT NULL
);
CREATE INDEX hooks_of_stub ON stub_hooks (run_id);

CREATE TABLE replicas (
  id            TEXT PRIMARY KEY,
  version       TEXT NOT NULL,
  since         BIGINT NOT NULL,
  seen_at       BIGINT NOT NULL,
  schema        BIGINT NOT NULL,
  key_ids       TEXT NOT NULL,
  signs_with    TEXT NOT NULL,
  config_digest TEXT NOT NULL
);

CREATE TABLE sessions (
  id         TEXT PRIMARY KEY,
  person     TEXT NOT NULL,
  method     TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  seen_at    BIGINT NOT NULL,
  browser    TEXT NOT NULL,
  until      BIGINT NOT NULL,
  proved     BIGINT NOT NULL
);
CREATE INDEX sessions_of_person ON sessions (person, created_at);
CREATE INDEX sessions_over ON sessions (until);

CREATE TABLE personal (
  person     TEXT PRIMARY KEY,
  settings   TEXT NOT NULL,
  changed_at BIGINT NOT NULL
);
CREATE INDEX personal_changed ON personal (changed_at);

CREATE TABLE documents (
  kind     TEXT NOT NULL,
  id       TEXT NOT NULL,
  name     TEXT,
  document TEXT NOT NULL,
  change   BIGINT NOT NULL,
  PRIMARY KEY (kind, id)
);
CREATE UNIQUE INDEX documents_changed ON documents (change);
CREATE UNIQUE INDEX documents_named ON documents (kind, name) WHERE name IS NOT NULL;

-- One write at a time, so that changes are seen in the order of their numbers. -1: another document has the name.
CREATE FUNCTION put_document(of_kind text, of_id text, new_name text, content text, expected bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
  next bigint;
BEGIN
  LOCK TABLE documents IN SHARE ROW EXCLUSIVE MODE;
  IF EXISTS (SELECT 1 FROM documents WHERE kind = of_kind AND name = new_name AND id <> of_id) THEN
    RETURN -1;
  END IF;
  SELECT coalesce(max(change), 0) + 1 INTO next FROM documents;
  IF expected = 0 THEN
    INSERT INTO documents VALUES (of_kind, of_id, new_name, content, next) ON CONFLICT DO NOTHING;
  ELSE
    UPDATE documents SET name = new_name, document = content, change = next
    WHERE kind = of_kind AND id = of_id AND change = expected AND document <> '';
  END IF;
  RETURN CASE WHEN FOUND THEN next END;
END $$;

CREATE TABLE files (
  id         TEXT PRIMARY KEY,
  owner      TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  until      BIGINT,
  described  TEXT NOT NULL
);
CREATE INDEX files_over ON files (until) WHERE until IS NOT NULL;
CREATE INDEX files_unclaimed ON files (owner, until) WHERE until IS NOT NULL;

CREATE TABLE file_parts (
  file_id TEXT NOT NULL,
  number  BIGINT NOT NULL,
  content BYTEA NOT NULL,
  PRIMARY KEY (file_id, number)
);

-- Reading. One statement answers any number of queries from one consistent snapshot, because a round trip costs more
-- than most answers. Each answer is JSON; its rows are arrays in the order of RunRecord, Event and HookRow.
--
-- Here and below: a function in LANGUAGE sql is either a single expression, which is inlined into the statement that
-- calls it, or it is parsed and planned again in each call, which costs more than most of our statements. PL/pgSQL
-- keeps its plans.

CREATE FUNCTION log_json(wanted text, after bigint) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (
    SELECT coalesce(json_agg(json_build_array(seq, type, at, data) ORDER BY seq), '[]'::json)
    FROM events WHERE run_id = wanted AND seq > after);
END $$;

CREATE FUNCTION ending(wanted text, last bigint, ended_at bigint) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF ended_at IS NULL THEN
    RETURN NULL;
  END IF;
  RETURN (SELECT data FROM events WHERE run_id = wanted AND seq = last);
END $$;

CREATE FUNCTION run_json(run runs) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_array(
    run.id, run.workflow, run.code, run.version, run.kind, run.status, run.created_at, run.ended_at, run.attributes,
    run.seq, run.view, run.parts, run.stalled, run.wake_at, run.epoch, ending(run.id, run.seq, run.ended_at),
    run.next_run, run.received, run.unread, run.parent, run.parent_number, run.on_parent_close)
$$;

CREATE FUNCTION hook_json(hook hooks) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_array(
    hook.id, hook.run_id, hook.number, hook.token, hook.is_webhook, hook.has_schema, hook.answer, hook.metadata,
    hook.created_at, hook.generation, hook.is_live)
$$;

-- When there is something to claim: see next_wake in the store's protocol.
CREATE FUNCTION next_wake(for_owner text, now bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN least(
    (SELECT wake_at FROM runs
      WHERE wake_at IS NOT NULL AND (lease_until IS NULL OR lease_until <= now) ORDER BY wake_at LIMIT 1),
    (SELECT lease_until FROM runs
      WHERE owner IS NOT NULL AND owner <> for_owner AND lease_until > now ORDER BY lease_until LIMIT 1));
END $$;

-- The hook that had this token, took this resume_id and is no longer live.
CREATE FUNCTION hook_that_took(query jsonb) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (
    SELECT id FROM (
      SELECT id, run_id, number, created_at FROM hooks
      WHERE token = query ->> 'token' AND NOT is_live ORDER BY created_at DESC LIMIT (query ->> 'ended')::bigint) AS ended
    WHERE EXISTS (
      SELECT FROM events WHERE run_id = ended.run_id AND key = number || '.received.' || (query ->> 'resume_id') OFFSET 0)
      OR EXISTS (SELECT FROM taken WHERE hook_id = ended.id AND resume_id = query ->> 'resume_id' OFFSET 0)
    LIMIT 1);
END $$;

-- The run that goes on in the place of this one.
CREATE FUNCTION last_run(run text) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
  following text;
BEGIN
  LOOP
    SELECT next_run INTO following FROM runs WHERE id = run AND status IN ('reset', 'continued');
    IF following IS NULL THEN
      RETURN run;
    END IF;
    run := following;
  END LOOP;
END $$;

CREATE FUNCTION answer(query jsonb) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN
  CASE query ->> 'query'
    WHEN 'read' THEN
      RETURN (
        SELECT json_build_array(run_json(runs),
          CASE WHEN seq > (query ->> 'after')::bigint THEN log_json(id, (query ->> 'after')::bigint) ELSE '[]' END)
        FROM runs WHERE id = query ->> 'run');
    WHEN 'taken' THEN
      RETURN coalesce(
        (SELECT json_build_array(events.run_id, json_build_array(seq, type, at, data))
         FROM hooks JOIN events ON events.run_id = hooks.run_id AND key = number || '.received.' || (query ->> 'resume_id')
         WHERE id = query ->> 'hook'),
        (SELECT json_build_array(run_id, json_build_array(seq, type, at, data)) FROM taken JOIN events USING (run_id, seq)
         WHERE hook_id = query ->> 'hook' AND resume_id = query ->> 'resume_id'));
    WHEN 'hook' THEN
      RETURN (SELECT hook_json(hooks) FROM hooks WHERE id = query ->> 'hook');
    WHEN 'token' THEN
      RETURN (SELECT hook_json(hooks) FROM hooks WHERE token = query ->> 'token' AND is_live);
    WHEN 'look' THEN
      RETURN (
        SELECT json_build_array(
          hook_json(hooks), run_json(runs), CASE WHEN seq <= (query ->> 'most')::bigint THEN log_json(run_id, 0) END)
        FROM hooks JOIN runs ON runs.id = run_id
        WHERE hooks.id = coalesce(
          query ->> 'hook', CASE WHEN query ? 'resume_id' THEN hook_that_took(query) END,
          (SELECT id FROM hooks WHERE token = query ->> 'token' AND is_live)));
    WHEN 'last' THEN
      RETURN to_json(last_run(query ->> 'run'));
    WHEN 'next_wake' THEN
      RETURN to_json(next_wake(query ->> 'owner', (query ->> 'at')::bigint));
  END CASE;
END $$;

CREATE FUNCTION answers(queries jsonb) RETURNS TABLE (answer json) LANGUAGE sql STABLE AS $$
  SELECT answer(query) FROM jsonb_array_elements(queries) WITH ORDINALITY AS given (query, n) ORDER BY n
$$;

-- Adding to a log. An event comes as [type, key, data], where data is JSON as text. An event that opens or closes a
-- hook has a fourth item: the hook.

-- Opens a hook. Returns NULL, or the run that already has its token.
CREATE FUNCTION open_hook(run text, at bigint, hook jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  owner text;
BEGIN
  LOOP
    INSERT INTO hooks (id, run_id, number, token, is_webhook, has_schema, answer, metadata, created_at)
    VALUES (hook ->> 'id', run, (hook ->> 'number')::bigint, hook ->> 'token', (hook ->> 'is_webhook')::boolean,
      (hook ->> 'has_schema')::boolean, hook ->> 'answer', hook ->> 'metadata', at)
    ON CONFLICT (token) WHERE is_live DO NOTHING;
    IF FOUND THEN
      RETURN NULL;
    END IF;
    SELECT run_id INTO owner FROM hooks WHERE token = hook ->> 'token' AND is_live;
    IF FOUND THEN
      RETURN owner;
    END IF;  -- the owner has freed the token in between: try again
  END LOOP;
END $$;

-- Appends events after `after`. Returns the owner of the token of each hook that couldn't be opened, by event number.
CREATE FUNCTION add_events(run text, after bigint, now bigint, given jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  event jsonb;
  place integer;
  owner text;
  lost jsonb := '{}';
BEGIN
  IF given @? '$[*][3]' THEN
    FOR place, event IN
      SELECT n - 1, e FROM jsonb_array_elements(given) WITH ORDINALITY AS each (e, n)
      WHERE e -> 3 IS NOT NULL ORDER BY n
    LOOP
      IF event -> 3 ? 'closed' THEN
        UPDATE hooks SET is_live = false
        WHERE run_id = run AND number IN (SELECT n::bigint FROM jsonb_array_elements_text(event -> 3 -> 'closed') AS n);
        CONTINUE;
      ELSIF event -> 3 ? 'adopts' THEN  -- the run has had this hook since before its body
        UPDATE hooks SET has_schema = (event -> 3 ->> 'has_schema')::boolean, metadata = event -> 3 ->> 'metadata',
          created_at = now
        WHERE id = event -> 3 ->> 'id';
        CONTINUE;
      END IF;
      owner := open_hook(run, now, event -> 3);
      IF owner IS NOT NULL THEN
        lost := lost || jsonb_build_object((after + place + 1)::text, owner);
        given := jsonb_set(given, ARRAY[place::text], jsonb_build_array('hook_conflict', event -> 1,
          left(event -> 3 ->> 'lost', -1) || ',"owner":' || to_json(owner) || '}'));
      END IF;
    END LOOP;
  END IF;
  INSERT INTO events (run_id, seq, type, at, key, data)
  SELECT run, after + n, e ->> 0, now, e ->> 1, e ->> 2 FROM jsonb_array_elements(given) WITH ORDINALITY AS each (e, n);
  RETURN lost;
END $$;

-- Brings the rows of `attributes` in line with the run's projection, writing only the differences. `was` is the digest of
-- the projection before.
CREATE FUNCTION index_run(run text, was text, batch jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF was IS NOT DISTINCT FROM batch ->> 'indexed' THEN
    RETURN;
  END IF;
  DELETE FROM attributes USING runs WHERE run_id = run AND id = run AND starts_with(name, '$')
    AND (name, value, attributes.created_at) NOT IN (
      SELECT pair ->> 0, pair ->> 1, coalesce(nullif((pair ->> 2)::bigint, 0), runs.created_at)
      FROM jsonb_array_elements(batch -> 'pairs') AS each (pair));
  PERFORM add_pairs(run, batch -> 'pairs');
END $$;

-- The run's own attributes, in its row and in `attributes`, if they have changed.
CREATE FUNCTION set_own(run text, batch jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  UPDATE runs SET attributes = batch ->> 'own' WHERE id = run AND attributes <> batch ->> 'own';
  IF NOT FOUND THEN
    RETURN;
  END IF;
  DELETE FROM attributes WHERE run_id = run AND NOT starts_with(name, '$') AND (name, value) NOT IN (
    SELECT pair ->> 0, pair ->> 1 FROM jsonb_array_elements(batch -> 'own_pairs') AS each (pair));
  PERFORM add_pairs(run, batch -> 'own_pairs');
END $$;

CREATE FUNCTION add_pairs(run text, pairs jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO attributes (run_id, name, value, workflow, status, created_at)
  SELECT id, pair ->> 0, pair ->> 1, workflow, status, coalesce(nullif((pair ->> 2)::bigint, 0), created_at)
  FROM runs, jsonb_array_elements(pairs) AS each (pair)
  WHERE id = run
  ON CONFLICT DO NOTHING;
END $$;

-- Creates the run that takes the place of an ended one, and gives it what that has: hooks, parent, open children, and the
-- idempotency key. `epoch` is the old run's. The new one's is higher, so whatever was planned for the old run doesn't
-- fit it. The parent is read here: another run may have taken its place since the old run was read. Hooks come as [id, number, whether it is open, token], events of the new log as [seq, type, at, key, data].
CREATE FUNCTION succeed(old text, successor jsonb, now bigint, epoch_before bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  new text := successor ->> 'run';
  idempotency text;
BEGIN
  SELECT idempotency_key INTO idempotency FROM runs WHERE id = successor ->> 'holder';
  UPDATE runs SET idempotency_key = NULL WHERE id = successor ->> 'holder' AND idempotency_key IS NOT NULL;
  UPDATE runs SET next_run = new WHERE id = old;
  INSERT INTO runs (id, workflow, code, version, kind, status, created_at, idempotency_key, attributes, seq, view, parts,
    parent, parent_number, on_parent_close, wake_at, epoch, unread, received)
  SELECT new, successor ->> 'workflow', successor ->> 'code', successor ->> 'version', successor ->> 'kind', 'pending',
    now, idempotency, successor ->> 'attributes', jsonb_array_length(successor -> 'log'), successor ->> 'view',
    successor ->> 'parts', parent, parent_number, on_parent_close, now, epoch_before + 1, successor ->> 'unread',
    (SELECT coalesce(sum(length(e ->> 4)), 0)
     FROM jsonb_array_elements(successor -> 'log') AS each (e) WHERE e ->> 1 = 'hook_received')
  FROM runs WHERE id = old;
  IF successor ? 'pairs' THEN
    PERFORM add_pairs(new, successor -> 'pairs');
  END IF;
  INSERT INTO events (run_id, seq, type, at, key, data)
  SELECT new, (e ->> 0)::bigint, e ->> 1, (e ->> 2)::bigint, e ->> 3, e ->> 4
  FROM jsonb_array_elements(successor -> 'log') AS each (e);
  -- What a hook has taken in the run that it leaves, so the next run knows a repeat of it. An earlier run may have taken one
  -- as well. That is the first, by which a repeat is answered.
  INSERT INTO taken (hook_id, resume_id, run_id, seq)
  SELECT hooks.id, substr(key, length(hooks.number || '.received.') + 1), run_id, seq
  FROM hooks JOIN events USING (run_id)
  WHERE hooks.id IN (SELECT hook ->> 0 FROM jsonb_array_elements(successor -> 'hooks') AS each (hook))
    AND type = 'hook_received' AND split_part(key, '.', 1) = hooks.number::text
  ON CONFLICT DO NOTHING;
  UPDATE hooks SET run_id = new, number = (hook -> 1)::bigint, is_live = (hook -> 2)::boolean
  FROM jsonb_array_elements(successor -> 'hooks') AS each (hook) WHERE id = hook ->> 0;
  UPDATE runs SET parent = new, parent_number = (child -> 1)::bigint
  FROM jsonb_array_elements(successor -> 'children') AS each (child)
  WHERE id = last_run(child ->> 0);  -- a child may have been reset or have continued
  PERFORM report_to_parent(last_run(child ->> 0), now)  -- one that ended after its parent couldn't be reported then
  FROM jsonb_array_elements(successor -> 'children') AS each (child);
END $$;

-- What a run's writes do to its parent and its children, in the transaction of that write (store/sqlite_relatives.py).
-- Those that return a text return the runs that they have written to, for NOTIFY.

CREATE FUNCTION create_children(parent_run text, now bigint, children jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO runs (id, workflow, code, version, kind, status, created_at, attributes, seq, parent, parent_number,
    on_parent_close, wake_at)
  SELECT c ->> 'run', c ->> 'workflow', c ->> 'code', c ->> 'version', c ->> 'kind', 'pending', now, c ->> 'attributes', 1,
    parent_run, (c ->> 'parent_number')::bigint, c ->> 'on_parent_close', now
  FROM jsonb_array_elements(children) AS each (c);
  INSERT INTO events (run_id, seq, type, at, key, data)
  SELECT c ->> 'run', 1, 'run_created', now, 'run_created', c ->> 'data' FROM jsonb_array_elements(children) AS each (c);
  PERFORM add_pairs(c ->> 'run', c -> 'pairs') FROM jsonb_array_elements(children) AS each (c) WHERE c ? 'pairs';
END $$;

-- Reports to a run's parent how the run has ended. A run that was reset or has continued isn't reported. The ending's data is
-- spliced in as text.
CREATE FUNCTION report_to_parent(run text, now bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  child record;
  above record;
BEGIN
  SELECT id, parent, parent_number, status, seq INTO child FROM runs
  WHERE id = run AND parent IS NOT NULL AND status IN ('completed', 'failed', 'cancelled');
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  PERFORM FROM runs WHERE id = child.parent FOR UPDATE;  -- locked before, unless it has become the parent since then
  SELECT id, seq, (SELECT at FROM events WHERE run_id = runs.id AND events.seq = runs.seq) AS last_at INTO above
  FROM runs WHERE id = child.parent AND ended_at IS NULL;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  INSERT INTO events (run_id, seq, type, at, key, data)
  SELECT above.id, above.seq + 1, 'child_ended', greatest(now, above.last_at), child.parent_number || '.done',
    '{"id":' || child.parent_number || ',"run_id":' || to_json(child.id) || ',"status":' || to_json(child.status) || ','
    || substr(data, 2)
  FROM events WHERE run_id = child.id AND seq = child.seq
  ON CONFLICT (run_id, key) DO NOTHING;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  UPDATE runs SET seq = seq + 1, wake_at = least(wake_at, now) WHERE id = above.id;
  RETURN above.id;
END $$;

-- Asks the open children of a run to cancel, or the one with this number, with these data. Those that go on without it are left.
CREATE FUNCTION ask_children(run text, only_number bigint, request text, now bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  asked text;
BEGIN
  PERFORM FROM runs WHERE parent = run AND (only_number IS NULL OR parent_number = only_number) AND ended_at IS NULL
    AND on_parent_close = 'cancel' ORDER BY id FOR UPDATE;
  WITH written AS (
    INSERT INTO events (run_id, seq, type, at, key, data)
    SELECT id, seq + 1, 'cancel_requested',
      greatest(now, (SELECT at FROM events WHERE run_id = runs.id AND events.seq = runs.seq)), 'cancel',
      request
    FROM runs WHERE parent = run AND (only_number IS NULL OR parent_number = only_number) AND ended_at IS NULL
      AND on_parent_close = 'cancel'
    ON CONFLICT (run_id, key) DO NOTHING
    RETURNING run_id
  ), woken AS (
    UPDATE runs SET seq = seq + 1, wake_at = least(wake_at, now) FROM written WHERE id = run_id RETURNING id
  )
  SELECT string_agg(id, ' ') INTO asked FROM woken;
  RETURN asked;
END $$;

-- The run's row has ended already.
CREATE FUNCTION end_relatives(run text, request text, now bigint) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  RETURN concat_ws(' ', report_to_parent(run, now), ask_children(run, NULL, request, now));
END $$;

-- The runs that the end of a run writes to. A batch locks them before it executes its calls.
CREATE FUNCTION relatives_of(run text) RETURNS SETOF text LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN QUERY SELECT parent FROM runs WHERE id = run AND parent IS NOT NULL;
  RETURN QUERY SELECT id FROM runs WHERE parent = run AND ended_at IS NULL;
END $$;

-- Parts of several calls. Their callers have locked the run's row. (SQLite needs no such locks: it has one writer.)

-- Appends the facts `before` and the decisions of a batch, and updates the run's row in a single UPDATE, since each
-- UPDATE makes new entries in all of its indexes. With a lease, this claims the run. The caller has compared the epoch
-- and the length, in this transaction. Returns the time, the tokens that were lost, and the runs to notify of.
CREATE FUNCTION decide(batch jsonb, now bigint, before jsonb, lease jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
  run text := batch ->> 'run';
  expected bigint := (batch ->> 'expected')::bigint;
  new_seq bigint := expected + jsonb_array_length(batch -> 'events');
  new_view text := batch ->> 'view';
  new_parts text := batch ->> 'parts';
  new_unread text := batch ->> 'unread';
  more bigint := CASE WHEN before -> 0 ->> 0 = 'hook_received' THEN length(before -> 0 ->> 2) ELSE 0 END;
  was_indexed text;
  lost jsonb := add_events(run, expected - jsonb_array_length(before), now, before || (batch -> 'events'));
  changed text := batch ->> 'notify';
BEGIN
  IF batch ? 'children' THEN
    PERFORM create_children(run, now, batch -> 'children');
    SELECT concat_ws(' ', changed, string_agg(ask_children(run, each::bigint, batch ->> 'cancel_request', now), ' ')) INTO changed
    FROM jsonb_array_elements_text(batch -> 'gives_up') AS given (each);
  END IF;
  IF batch ? 'indexed' THEN
    SELECT indexed INTO was_indexed FROM runs WHERE id = run;
  END IF;
  IF batch ? 'keeps_unread' THEN
    SELECT unread INTO new_unread FROM runs WHERE id = run;
  END IF;
  IF batch ? 'ending' THEN
    UPDATE runs SET seq = new_seq, status = batch ->> 'ending', ended_at = now, stalled = NULL,
      unread = new_unread, received = received + more, view = coalesce(new_view, view), parts = coalesce(new_parts, parts),
      indexed = coalesce(batch ->> 'indexed', indexed), epoch = (batch ->> 'epoch')::bigint,
      wake_at = NULL, owner = NULL, lease_until = NULL
    WHERE id = run;
    IF batch ? 'successor' THEN
      PERFORM succeed(run, batch -> 'successor', now, (batch ->> 'epoch')::bigint);
    END IF;
    UPDATE hooks SET is_live = false WHERE run_id = run AND is_live;
    changed := concat_ws(' ', changed, end_relatives(run, batch ->> 'end_request', now));
  ELSIF (batch ->> 'release')::boolean THEN
    UPDATE runs SET seq = new_seq, status = CASE WHEN batch ? 'stalled' THEN 'stalled' ELSE 'running' END,
      stalled = batch ->> 'stalled', unread = new_unread, received = received + more, view = coalesce(new_view, view), parts = coalesce(new_parts, parts),
      indexed = coalesce(batch ->> 'indexed', indexed),
      epoch = (batch ->> 'epoch')::bigint, owner = NULL, lease_until = NULL,
      wake_at = CASE WHEN lost <> '{}' THEN now ELSE (batch ->> 'wake_at')::bigint END  -- a lost token needs a replay
    WHERE id = run;
  ELSIF lease IS NOT NULL THEN
    UPDATE runs SET seq = new_seq, status = 'running', stalled = NULL, unread = new_unread, received = received + more, view = coalesce(new_view, view),
      parts = coalesce(new_parts, parts), indexed = coalesce(batch ->> 'indexed', indexed), epoch = (batch ->> 'epoch')::bigint,
      owner = lease ->> 'owner', lease_until = (lease ->> 'until')::bigint,
      wake_at = least(wake_at, (lease ->> 'at')::bigint)
    WHERE id = run;
  ELSE
    UPDATE runs SET seq = new_seq, status = 'running', stalled = NULL, unread = new_unread, received = received + more, view = coalesce(new_view, view),
      parts = coalesce(new_parts, parts), indexed = coalesce(batch ->> 'indexed', indexed)
    WHERE id = run;
  END IF;
  IF batch ? 'indexed' THEN
    PERFORM index_run(run, was_indexed, batch);
  END IF;
  IF batch ? 'own' THEN
    PERFORM set_own(run, batch);
  END IF;
  RETURN json_build_array(now, lost, changed);
END $$;

-- A claim raises the epoch in the statement that takes the lease, and reads the log in that same statement. So no
-- append with an older epoch can come between the log that the new owner has read and its decisions.
CREATE FUNCTION claim_one(run text, lease jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
  claimed json;
BEGIN
  UPDATE runs SET owner = lease ->> 'owner', lease_until = (lease ->> 'until')::bigint, epoch = epoch + 1,
    wake_at = least(wake_at, (lease ->> 'at')::bigint)
  WHERE id = run AND ended_at IS NULL AND (lease_until IS NULL OR lease_until <= (lease ->> 'at')::bigint)
  RETURNING json_build_array(run_json(runs), log_json(id, 0)) INTO claimed;
  RETURN claimed;
END $$;

-- Claims the due runs that nobody holds, the earliest first. Runs that another replica is writing to are left to it.
CREATE FUNCTION claim_due(lease jsonb, most bigint) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
  claimed json;
BEGIN
  WITH due AS (
    SELECT id, owner FROM runs
    WHERE wake_at <= (lease ->> 'at')::bigint AND (lease_until IS NULL OR lease_until <= (lease ->> 'at')::bigint)
    ORDER BY wake_at LIMIT most FOR UPDATE SKIP LOCKED
  ), taken AS (
    UPDATE runs SET owner = lease ->> 'owner', lease_until = (lease ->> 'until')::bigint, epoch = epoch + 1
    FROM due WHERE runs.id = due.id
    RETURNING json_build_array(run_json(runs), log_json(runs.id, 0), due.owner IS NOT NULL) AS run
  )
  SELECT coalesce(json_agg(run), '[]'::json) INTO claimed FROM taken;
  RETURN claimed;
END $$;

-- Notes that the audit owes the line of an event, if the call says so.
CREATE FUNCTION owe(args jsonb, run text, event bigint, now bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF args ? 'owes' THEN
    INSERT INTO owed_lines VALUES (args -> 'owes' ->> 0, run, event, now, args -> 'owes' ->> 1) ON CONFLICT DO NOTHING;
  END IF;
END $$;

-- The store's calls that write, and the batch that executes many of them in one commit.

-- The outcome of a call: its answer, and the run that other replicas must be notified of.
CREATE TYPE outcome AS (answer json, changed text);

CREATE FUNCTION create_run(args jsonb) RETURNS outcome LANGUAGE plpgsql AS $$
DECLARE
  run text := args ->> 'run';
  now bigint := (args ->> 'at')::bigint;
  created jsonb := args -> 'events';
  lease jsonb := args -> 'lease';
  planned jsonb := args -> 'then';
  lost jsonb;
  known json;
  decided json;
BEGIN
  -- Insert the row in its final state, unless the planned batch releases the run: an UPDATE would cost as much again.
  INSERT INTO runs (id, workflow, code, version, kind, status, created_at, idempotency_key, attributes, seq, wake_at,
    owner, lease_until, epoch)
  VALUES (run, args ->> 'workflow', args ->> 'code', args ->> 'version', args ->> 'kind',
    CASE WHEN planned IS NULL THEN 'pending' ELSE 'running' END, now, args ->> 'idempotency_key',
    args ->> 'attributes', jsonb_array_length(created) + coalesce(jsonb_array_length(planned -> 'events'), 0),
    (args ->> 'wake_at')::bigint, lease ->> 'owner', (lease ->> 'until')::bigint, CASE WHEN lease IS NULL THEN 0 ELSE 1 END)
  ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    SELECT json_build_object('run', id, 'data', (SELECT data FROM events WHERE run_id = id AND seq = 1)) INTO known
    FROM runs WHERE id = run OR idempotency_key = args ->> 'idempotency_key';
    RETURN ROW(known, NULL)::outcome;
  END IF;
  PERFORM owe(args, run, 1, now);
  IF args ? 'pairs' THEN
    PERFORM add_pairs(run, args -> 'pairs');
  END IF;
  IF planned IS NULL THEN
    lost := add_events(run, 0, now, created);
    RETURN ROW(json_build_object('claimed', lease IS NOT NULL), CASE WHEN lease IS NULL THEN run END)::outcome;
  ELSIF (planned ->> 'release')::boolean OR planned ?| '{ending,view,parts,indexed,own,children}' THEN
    decided := decide(planned, now, created, lease);
    RETURN ROW(json_build_object('then', decided), decided ->> 2)::outcome;
  END IF;
  lost := add_events(run, 0, now, created || (planned -> 'events'));
  RETURN ROW(json_build_object('then', json_build_array(now, lost, NULL)), planned ->> 'notify')::outcome;
END $$;

-- Creates a run that has hooks before its body does anything, and perhaps the payload that it is started with. Returns
-- {token, owner}, with nothing written, if a token is taken. The look for a hook that took the payload before comes after
-- the token was claimed: whichever run had it until then has ended visibly.
CREATE FUNCTION create_with_hooks(args jsonb) RETURNS outcome LANGUAGE plpgsql AS $$
DECLARE
  run text := args ->> 'run';
  hook jsonb;
  owner text;
  refused outcome;
  done outcome;
BEGIN
  IF EXISTS (SELECT FROM runs WHERE id = run OR idempotency_key = args ->> 'idempotency_key') THEN
    RETURN create_run(args);
  END IF;
  BEGIN
    FOR hook IN SELECT h FROM jsonb_array_elements(args -> 'hooks') WITH ORDINALITY AS each (h, n) ORDER BY n LOOP
      owner := open_hook(run, (args ->> 'at')::bigint, hook);
      IF owner IS NULL AND args ? 'payload' THEN
        SELECT run_id INTO owner FROM hooks WHERE id = hook_that_took(args -> 'payload');
      END IF;
      IF owner IS NOT NULL THEN
        refused := ROW(json_build_object('token', hook ->> 'token', 'owner', owner), NULL)::outcome;
        RAISE EXCEPTION USING ERRCODE = 'AB001';
      END IF;
    END LOOP;
    done := create_run(args);
    IF (done).answer -> 'run' IS NOT NULL THEN  -- another replica has created it in between
      refused := done;
      RAISE EXCEPTION USING ERRCODE = 'AB001';
    END IF;
  EXCEPTION WHEN SQLSTATE 'AB001' THEN
    RETURN refused;
  END;
  IF args ? 'payload' THEN
    UPDATE runs SET received = length(args -> 'payload' ->> 'data'), unread = args -> 'payload' ->> 'unread'
    WHERE id = run;
  END IF;
  RETURN done;
END $$;

CREATE FUNCTION append_batch(batch jsonb) RETURNS outcome LANGUAGE plpgsql AS $$
DECLARE
  state record;
  decided json;
BEGIN
  SELECT seq, epoch, ended_at, (SELECT at FROM events WHERE run_id = runs.id AND events.seq = runs.seq) AS last_at
  INTO state FROM runs WHERE id = batch ->> 'run';
  -- Compare the epoch before the length: an owner that has lost its lease must learn that and stop, not read again.
  IF state.epoch IS DISTINCT FROM (batch ->> 'epoch')::bigint OR state.ended_at IS NOT NULL THEN
    RETURN ROW('"fenced"'::json, NULL)::outcome;
  ELSIF state.seq <> (batch ->> 'expected')::bigint THEN
    RETURN ROW('"stale"'::json, NULL)::outcome;
  END IF;
  decided := decide(batch, greatest((batch ->> 'at')::bigint, state.last_at), '[]', NULL);
  RETURN ROW(decided, decided ->> 2)::outcome;
END $$;

CREATE FUNCTION record_facts(args jsonb) RETURNS outcome LANGUAGE plpgsql AS $$
DECLARE
  run text := args ->> 'run';
  given_at bigint := (args ->> 'at')::bigint;
  state record;
  now bigint;
  fact jsonb;
  event json;
  known json[] := '{}';
  new jsonb := '[]';
  lost jsonb;
  changed text := run;
BEGIN
  SELECT seq, ended_at, (SELECT at FROM events WHERE run_id = runs.id AND events.seq = runs.seq) AS last_at
  INTO state FROM runs WHERE id = run;
  FOR place IN 0 .. jsonb_array_length(args -> 'events') - 1 LOOP
    fact := args -> 'events' -> place;
    SELECT json_build_array(seq, type, at, data) INTO event FROM events WHERE run_id = run AND key = fact ->> 1;
    IF FOUND THEN
      known := known || event;
    ELSE
      new := new || jsonb_build_array(fact);
    END IF;
  END LOOP;
  IF state.seq IS NULL OR state.ended_at IS NOT NULL OR (new = '[]' AND cardinality(known) > 0) THEN
    RETURN ROW(json_build_object('known', to_json(known)), NULL)::outcome;
  END IF;
  now := greatest(given_at, state.last_at);
  lost := add_events(run, state.seq, now, new);
  IF args ? 'ending' THEN
    UPDATE runs SET seq = seq + jsonb_array_length(new), status = args ->> 'ending', ended_at = now, stalled = NULL,
      wake_at = NULL, owner = NULL, lease_until = NULL
    WHERE id = run;
    UPDATE hooks SET is_live = false WHERE run_id = run AND is_live;
    changed := concat_ws(' ', run, end_relatives(run, args ->> 'end_request', now));
  ELSE
    UPDATE runs SET seq = seq + jsonb_array_length(new), wake_at = least(wake_at, given_at) WHERE id = run;
  END IF;
  PERFORM owe(args, run, state.seq + jsonb_array_length(new), given_at);
  RETURN ROW(json_build_object('known', to_json(known), 'added', log_json(run, state.seq)), changed)::outcome;
END $$;

CREATE FUNCTION receive_payload(args jsonb) RETURNS outcome LANGUAGE plpgsql AS $$
DECLARE
  lease jsonb := args -> 'lease';
  planned jsonb := args -> 'then';
  given_at bigint := (args ->> 'at')::bigint;
  state record;
  now bigint;
  data_of text;
  fact jsonb;
  event json;
  claimed json;
  lost jsonb;
  is_free boolean;
  begins_later boolean;  -- a payload doesn't make a run begin that was started for a later time
  unread_of bigint;
  decided json;
BEGIN
  SELECT run_id, number, is_live, seq, status, wake_at, epoch, lease_until, unread, received,
    (SELECT at FROM events WHERE run_id = runs.id AND events.seq = runs.seq) AS last_at,
    EXISTS (SELECT FROM taken WHERE hook_id = hooks.id) AS has_taken,
    (SELECT json_build_array(seq, type, at, data) FROM events WHERE run_id = runs.id
      AND key = number || '.received.' || (args ->> 'resume_id')) AS known
  INTO state FROM hooks JOIN runs ON runs.id = run_id WHERE hooks.id = args ->> 'hook';
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  IF state.has_taken AND state.known IS NULL THEN
    SELECT json_build_object('event', json_build_array(seq, type, at, data), 'run', run_id) INTO event
    FROM taken JOIN events USING (run_id, seq) WHERE hook_id = args ->> 'hook' AND resume_id = args ->> 'resume_id';
    IF FOUND THEN
      RETURN ROW(event, NULL)::outcome;
    END IF;
  END IF;
  begins_later := state.status = 'pending' AND coalesce(state.wake_at > given_at, false);
  is_free := lease IS NOT NULL AND (state.lease_until IS NULL OR state.lease_until <= given_at) AND NOT begins_later;
  IF NOT state.is_live OR state.known IS NOT NULL THEN
    IF state.is_live AND is_free THEN
      claimed := claim_one(state.run_id, lease);
    END IF;
    RETURN ROW(json_build_object('event', state.known, 'claimed', claimed, 'run', state.run_id), NULL)::outcome;
  END IF;
  now := greatest(given_at, state.last_at);
  data_of := '{"id":' || state.number || ',' || substr(args ->> 'data', 2);
  event := json_build_array(state.seq + 1, 'hook_received', now, data_of);
  unread_of := CASE WHEN state.unread IS NULL THEN 0
    ELSE coalesce((state.unread::jsonb ->> state.number::text)::bigint, 0) END;
  IF unread_of >= (args ->> 'max_unread')::bigint OR state.received + length(data_of) > (args ->> 'max_received')::bigint
    OR state.seq >= (args ->> 'max_receiving')::bigint
  THEN
    RETURN ROW(json_build_object('full', json_build_array(unread_of, state.received + length(data_of), state.seq)),
      NULL)::outcome;
  END IF;
  PERFORM owe(args, state.run_id, state.seq + 1, now);
  fact := jsonb_build_array(jsonb_build_array(
    'hook_received', state.number || '.received.' || (args ->> 'resume_id'), data_of));
  IF is_free AND (planned ->> 'expected')::bigint = state.seq + 1 AND (planned ->> 'epoch')::bigint = state.epoch + 1 THEN
    decided := decide(planned, now, fact, lease);
    RETURN ROW(json_build_object('event', event, 'then', decided, 'size', state.received + length(data_of)),
      decided ->> 2)::outcome;
  END IF;
  lost := add_events(state.run_id, state.seq, now, fact);
  UPDATE runs SET seq = state.seq + 1, received = received + length(data_of),
    wake_at = CASE WHEN begins_later THEN wake_at ELSE least(wake_at, given_at) END,
    unread = (coalesce(unread, '{}')::jsonb || jsonb_build_object(state.number::text, unread_of + 1))::text
  WHERE id = state.run_id;
  IF is_free THEN
    claimed := claim_one(state.run_id, lease);
  END IF;
  RETURN ROW(json_build_object('event', event, 'claimed', claimed, 'run', state.run_id,
      'size', state.received + length(data_of), 'kept', unread_of + 1),
    CASE WHEN claimed IS NULL THEN state.run_id END)::outcome;
END $$;

CREATE FUNCTION reset_run(args jsonb) RETURNS outcome LANGUAGE plpgsql AS $$
DECLARE
  old text := args ->> 'run';
  new text := args -> 'successor' ->> 'run';
  given_at bigint := (args ->> 'at')::bigint;
  state record;
  token_taken record;
  lost jsonb;
  changed text := old || ' ' || new;
BEGIN
  IF EXISTS (SELECT FROM runs WHERE id = new) THEN  -- the first answer was lost
    RETURN ROW('{"events": []}'::json, NULL)::outcome;
  END IF;
  SELECT seq, epoch, ended_at, next_run, (SELECT at FROM events WHERE run_id = runs.id AND events.seq = runs.seq) AS last_at
  INTO state FROM runs WHERE id = old;
  IF state.seq IS DISTINCT FROM (args ->> 'expected')::bigint OR state.next_run IS DISTINCT FROM args ->> 'next_run' THEN
    RETURN ROW('"stale"'::json, NULL)::outcome;
  END IF;
  SELECT token, run_id INTO token_taken FROM hooks
  WHERE is_live AND run_id <> old AND token IN (
    SELECT hook ->> 3 FROM jsonb_array_elements(args -> 'successor' -> 'hooks') AS each (hook) WHERE (hook -> 2)::boolean)
  LIMIT 1;
  IF FOUND THEN
    RETURN ROW(json_build_object('token', token_taken.token, 'owner', token_taken.run_id), NULL)::outcome;
  END IF;
  BEGIN
    IF state.ended_at IS NULL THEN
      lost := add_events(old, state.seq, greatest(given_at, state.last_at), args -> 'end');
      DELETE FROM attributes WHERE run_id = old AND starts_with(name, '$');  -- it is found by those of the new run now
      UPDATE runs SET seq = seq + 1, status = 'reset', ended_at = greatest(given_at, state.last_at), stalled = NULL,
        indexed = NULL, wake_at = NULL, owner = NULL, lease_until = NULL
      WHERE id = old;
    END IF;
    PERFORM succeed(old, args -> 'successor', given_at, state.epoch);
    PERFORM owe(args, new, 1, given_at);
    UPDATE hooks SET is_live = false WHERE run_id = old AND is_live;
    changed := concat_ws(' ', changed, end_relatives(old, args ->> 'end_request', given_at));
  EXCEPTION WHEN unique_violation THEN  -- somebody has taken a token since the look above; look again
    RETURN ROW('"stale"'::json, NULL)::outcome;
  END;
  RETURN ROW(json_build_object('events', log_json(old, state.seq)), changed)::outcome;
END $$;

CREATE FUNCTION renew_leases(args jsonb) RETURNS outcome LANGUAGE plpgsql AS $$
BEGIN
  UPDATE runs SET lease_until = (args ->> 'until')::bigint
  FROM jsonb_array_elements(args -> 'claims') AS each (claim)
  WHERE id = claim ->> 0 AND epoch = (claim ->> 1)::bigint AND owner IS NOT NULL;
  RETURN NULL;
END $$;

CREATE FUNCTION execute_call(args jsonb) RETURNS outcome LANGUAGE plpgsql AS $$
BEGIN
  CASE args ->> 'call'
    WHEN 'append' THEN RETURN append_batch(args);
    WHEN 'create' THEN RETURN create_run(args);
    WHEN 'create_with_hooks' THEN RETURN create_with_hooks(args);
    WHEN 'receive' THEN RETURN receive_payload(args);
    WHEN 'record' THEN RETURN record_facts(args);
    WHEN 'renew' THEN RETURN renew_leases(args);
    WHEN 'reset' THEN RETURN reset_run(args);
    WHEN 'claim' THEN RETURN ROW(json_build_array(claim_one(args ->> 'run', args -> 'lease')), NULL)::outcome;
    WHEN 'claim_due' THEN RETURN ROW(claim_due(args -> 'lease', (args ->> 'limit')::bigint), NULL)::outcome;
  END CASE;
END $$;

-- The runs that a batch writes to: those it names, those that its hooks belong to, and the parents and children of runs
-- that may end.
CREATE FUNCTION runs_of(calls jsonb) RETURNS text[] LANGUAGE sql STABLE AS $$
  WITH named AS (
    SELECT c, coalesce(c ->> 'run', (SELECT run_id FROM hooks WHERE id = c ->> 'hook')) AS run
    FROM jsonb_array_elements(calls) AS each (c)
  ), needed AS (
    SELECT run FROM named
    UNION
    SELECT relative FROM named, relatives_of(run) AS related (relative) WHERE c ? 'writes_to_relatives'
    UNION
    SELECT claim ->> 0 FROM named, jsonb_array_elements(c -> 'claims') AS held (claim)
  )
  SELECT coalesce(array_agg(run), '{}') FROM needed WHERE run IS NOT NULL
$$;

-- Executes a batch of calls in one commit, all of them or none. It first locks all its runs, in the order of their ids.
-- So no two replicas wait for each other, and no call waits for a run once the first has been executed. While it waited
-- for a lock, a run may have handed its hooks and children to the next one: then it locks that one, too. NOTIFY sends
-- one message to the other replicas, at the commit: "sender id id …".
CREATE FUNCTION execute_batch(calls jsonb, sender text) RETURNS TABLE (answer json) LANGUAGE plpgsql AS $$
DECLARE
  args jsonb;
  done outcome;
  changed text := '';
  needed text[] := runs_of(calls);
  locked text[] := '{}';
BEGIN
  WHILE NOT needed <@ locked LOOP
    PERFORM FROM runs WHERE id = ANY (needed) ORDER BY id FOR UPDATE;
    locked := locked || needed;
    needed := runs_of(calls);
  END LOOP;
  FOR args IN SELECT c FROM jsonb_array_elements(calls) WITH ORDINALITY AS each (c, n) ORDER BY n LOOP
    done := execute_call(args);
    answer := done.answer;
    RETURN NEXT;
    IF done.changed <> '' THEN
      changed := changed || ' ' || done.changed;
    END IF;
  END LOOP;
  IF changed <> '' THEN
    PERFORM pg_notify('approvals_bot', CASE WHEN length(changed) < 7500 THEN sender || changed ELSE sender || ' *' END);
  END IF;
END $$;
