-- The pieces of work that a store's calls are made of, and how many of them share one commit.

-- What a piece gives: its answer, and the run that other replicas have something to do for, or to hear of.
CREATE TYPE outcome AS (answer json, told text);

CREATE FUNCTION create_run(piece jsonb) RETURNS outcome LANGUAGE plpgsql AS $$
DECLARE
  run text := piece ->> 'run';
  now bigint := (piece ->> 'at')::bigint;
  created jsonb := piece -> 'events';
  lease jsonb := piece -> 'lease';
  follows jsonb := piece -> 'then';
  lost jsonb;
  known json;
BEGIN
  -- The row is written as it is going to stand, unless what follows lets go of the run again: an UPDATE costs as much.
  INSERT INTO runs (id, workflow, code, version, status, created_at, idempotency_key, attributes, labels, seq, wake_at,
    owner, lease_until, epoch)
  VALUES (run, piece ->> 'workflow', piece ->> 'code', piece ->> 'version',
    CASE WHEN follows IS NULL THEN 'pending' ELSE 'running' END, now, piece ->> 'idempotency_key',
    piece ->> 'attributes', ARRAY(SELECT jsonb_array_elements_text(piece -> 'labels')),
    1 + coalesce(jsonb_array_length(follows -> 'events'), 0), now,
    lease ->> 'owner', (lease ->> 'until')::bigint, CASE WHEN lease IS NULL THEN 0 ELSE 1 END)
  ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    SELECT json_build_object('run', id, 'data', (SELECT data FROM events WHERE run_id = id AND seq = 1)) INTO known
    FROM runs WHERE id = run OR idempotency_key = piece ->> 'idempotency_key';
    RETURN ROW(known, NULL)::outcome;
  ELSIF follows IS NULL THEN
    lost := add_events(run, 0, now, created);
    RETURN ROW(json_build_object('claimed', lease IS NOT NULL), CASE WHEN lease IS NULL THEN run END)::outcome;
  ELSIF (follows ->> 'release')::boolean OR follows ? 'ending' OR follows ? 'view' THEN
    RETURN ROW(json_build_object('then', decide(follows, now, created, lease)), follows ->> 'tell')::outcome;
  END IF;
  lost := add_events(run, 0, now, created || (follows -> 'events'));
  RETURN ROW(json_build_object('then', json_build_array(now, lost)), follows ->> 'tell')::outcome;
END $$;

CREATE FUNCTION append_batch(batch jsonb) RETURNS outcome LANGUAGE plpgsql AS $$
DECLARE
  stands record;
BEGIN
  SELECT seq, epoch, ended_at, (SELECT at FROM events WHERE run_id = runs.id AND events.seq = runs.seq) AS last_at
  INTO stands FROM runs WHERE id = batch ->> 'run';
  IF stands.epoch IS DISTINCT FROM (batch ->> 'epoch')::bigint OR stands.ended_at IS NOT NULL THEN
    RETURN ROW('"fenced"'::json, NULL)::outcome;
  ELSIF stands.seq <> (batch ->> 'expected')::bigint THEN
    RETURN ROW('"stale"'::json, NULL)::outcome;
  END IF;
  RETURN ROW(decide(batch, greatest((batch ->> 'at')::bigint, stands.last_at), '[]', NULL), batch ->> 'tell')::outcome;
END $$;

CREATE FUNCTION record_facts(piece jsonb) RETURNS outcome LANGUAGE plpgsql AS $$
DECLARE
  run text := piece ->> 'run';
  given_at bigint := (piece ->> 'at')::bigint;
  stands record;
  now bigint;
  fact jsonb;
  event json;
  known json[] := '{}';
  new jsonb := '[]';
  lost jsonb;
BEGIN
  SELECT seq, ended_at, (SELECT at FROM events WHERE run_id = runs.id AND events.seq = runs.seq) AS last_at
  INTO stands FROM runs WHERE id = run;
  FOR place IN 0 .. jsonb_array_length(piece -> 'events') - 1 LOOP
    fact := piece -> 'events' -> place;
    SELECT json_build_array(seq, type, at, data) INTO event FROM events WHERE run_id = run AND key = fact ->> 1;
    IF FOUND THEN
      known := known || event;
    ELSE
      new := new || jsonb_build_array(fact);
    END IF;
  END LOOP;
  IF stands.seq IS NULL OR stands.ended_at IS NOT NULL OR new = '[]' THEN
    RETURN ROW(json_build_object('known', to_json(known)), NULL)::outcome;
  END IF;
  now := greatest(given_at, stands.last_at);
  lost := add_events(run, stands.seq, now, new);
  IF piece ? 'ending' THEN
    UPDATE runs SET seq = seq + jsonb_array_length(new), status = piece ->> 'ending', ended_at = now, stalled = NULL,
      wake_at = NULL, owner = NULL, lease_until = NULL
    WHERE id = run;
    UPDATE hooks SET is_live = false WHERE run_id = run AND is_live;
  ELSE
    UPDATE runs SET seq = seq + jsonb_array_length(new), wake_at = least(wake_at, given_at) WHERE id = run;
  END IF;
  RETURN ROW(json_build_object('known', to_json(known), 'added', log_json(run, stands.seq)), run)::outcome;
END $$;

CREATE FUNCTION receive_payload(piece jsonb) RETURNS outcome LANGUAGE plpgsql AS $$
DECLARE
  lease jsonb := piece -> 'lease';
  follows jsonb := piece -> 'then';
  given_at bigint := (piece ->> 'at')::bigint;
  stands record;
  now bigint;
  data_of text;
  fact jsonb;
  event json;
  claimed json;
  lost jsonb;
  is_free boolean;
BEGIN
  SELECT run_id, number, is_live, seq, epoch, lease_until,
    (SELECT at FROM events WHERE run_id = runs.id AND events.seq = runs.seq) AS last_at,
    (SELECT json_build_array(seq, type, at, data) FROM events WHERE run_id = runs.id
      AND key = number || '.received.' || (piece ->> 'resume_id')) AS known
  INTO stands FROM hooks JOIN runs ON runs.id = run_id WHERE hooks.id = piece ->> 'hook';
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  is_free := lease IS NOT NULL AND (stands.lease_until IS NULL OR stands.lease_until <= given_at);
  IF NOT stands.is_live OR stands.known IS NOT NULL THEN
    IF stands.is_live AND is_free THEN
      claimed := claim_one(stands.run_id, lease);
    END IF;
    RETURN ROW(json_build_object('event', stands.known, 'claimed', claimed), NULL)::outcome;
  END IF;
  now := greatest(given_at, stands.last_at);
  data_of := '{"id":' || stands.number || ',' || substr(piece ->> 'data', 2);
  event := json_build_array(stands.seq + 1, 'hook_received', now, data_of);
  fact := jsonb_build_array(jsonb_build_array(
    'hook_received', stands.number || '.received.' || (piece ->> 'resume_id'), data_of));
  IF is_free AND (follows ->> 'expected')::bigint = stands.seq + 1 AND (follows ->> 'epoch')::bigint = stands.epoch + 1 THEN
    RETURN ROW(json_build_object('event', event, 'then', decide(follows, now, fact, lease)), follows ->> 'tell')::outcome;
  END IF;
  lost := add_events(stands.run_id, stands.seq, now, fact);
  UPDATE runs SET seq = stands.seq + 1, wake_at = least(wake_at, given_at) WHERE id = stands.run_id;
  IF is_free THEN
    claimed := claim_one(stands.run_id, lease);
  END IF;
  RETURN ROW(json_build_object('event', event, 'claimed', claimed), CASE WHEN claimed IS NULL THEN stands.run_id END)::outcome;
END $$;

CREATE FUNCTION renew_leases(piece jsonb) RETURNS outcome LANGUAGE plpgsql AS $$
BEGIN
  UPDATE runs SET lease_until = (piece ->> 'until')::bigint
  FROM jsonb_array_elements(piece -> 'claims') AS each (claim)
  WHERE id = claim ->> 0 AND epoch = (claim ->> 1)::bigint AND owner IS NOT NULL;
  RETURN NULL;
END $$;

CREATE FUNCTION do_piece(piece jsonb) RETURNS outcome LANGUAGE plpgsql AS $$
BEGIN
  CASE piece ->> 'do'
    WHEN 'append' THEN RETURN append_batch(piece);
    WHEN 'create' THEN RETURN create_run(piece);
    WHEN 'receive' THEN RETURN receive_payload(piece);
    WHEN 'record' THEN RETURN record_facts(piece);
    WHEN 'renew' THEN RETURN renew_leases(piece);
    WHEN 'claim' THEN RETURN ROW(json_build_array(claim_one(piece ->> 'run', piece -> 'lease')), NULL)::outcome;
    WHEN 'claim_due' THEN RETURN ROW(claim_due(piece -> 'lease', (piece ->> 'limit')::bigint), NULL)::outcome;
  END CASE;
END $$;

-- Does pieces of work in one commit, all of them or none. First of all it locks the runs that they are about, in the
-- order of their ids: so no two replicas wait for each other, and none of the pieces ever waits for a run. Other
-- replicas hear of what was done in one message: "sender id id …".
CREATE FUNCTION together(pieces jsonb, sender text) RETURNS TABLE (answer json) LANGUAGE plpgsql AS $$
DECLARE
  piece jsonb;
  done outcome;
  said text := '';
BEGIN
  PERFORM FROM runs WHERE id = ANY (ARRAY(
    SELECT coalesce(p ->> 'run', (SELECT run_id FROM hooks WHERE id = p ->> 'hook'))
    FROM jsonb_array_elements(pieces) AS each (p)
    UNION ALL
    SELECT claim ->> 0 FROM jsonb_array_elements(pieces) AS each (p), jsonb_array_elements(p -> 'claims') AS held (claim)))
  ORDER BY id FOR UPDATE;
  FOR piece IN SELECT p FROM jsonb_array_elements(pieces) WITH ORDINALITY AS each (p, n) ORDER BY n LOOP
    done := do_piece(piece);
    answer := done.answer;
    RETURN NEXT;
    IF done.told IS NOT NULL THEN
      said := said || ' ' || done.told;
    END IF;
  END LOOP;
  IF said <> '' THEN
    PERFORM pg_notify('approvals_bot', CASE WHEN length(said) < 7500 THEN sender || said ELSE sender || ' *' END);
  END IF;
END $$;
