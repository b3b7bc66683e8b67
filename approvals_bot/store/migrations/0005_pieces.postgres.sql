-- The pieces of work that a store's calls are made of, and how many of them share one commit.
-- Each gives {"answer": …} and, for the other replicas, "tell": true if they have something to do or to hear.

CREATE FUNCTION create_run(piece jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
  run text := piece ->> 'run';
  now bigint := (piece ->> 'at')::bigint;
  follows jsonb := piece -> 'then';
  known text;
  claimed json;
BEGIN
  INSERT INTO runs (id, workflow, code, version, status, created_at, idempotency_key, attributes, labels, seq, wake_at)
  VALUES (run, piece ->> 'workflow', piece ->> 'code', piece ->> 'version', 'pending', now, piece ->> 'idempotency_key',
    piece ->> 'attributes', ARRAY(SELECT jsonb_array_elements_text(piece -> 'labels')), 1, now)
  ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    SELECT id INTO known FROM runs WHERE id = run OR idempotency_key = piece ->> 'idempotency_key';
    RETURN json_build_object('answer', json_build_object(
      'run', known, 'data', (SELECT data FROM events WHERE run_id = known AND seq = 1)));
  END IF;
  PERFORM add_events(run, 0, now, piece -> 'events');
  IF follows IS NOT NULL THEN
    RETURN json_build_object('answer', json_build_object('then', decide(follows, now, piece -> 'lease')),
      'tell', (follows ->> 'tell')::boolean);
  END IF;
  IF piece ? 'lease' THEN
    claimed := claim_one(run, piece -> 'lease');
  END IF;
  RETURN json_build_object('answer', json_build_object('claimed', claimed), 'tell', claimed IS NULL);
END $$;

CREATE FUNCTION append_batch(batch jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
  stands standing := locked(batch ->> 'run');
BEGIN
  IF stands.epoch IS DISTINCT FROM (batch ->> 'epoch')::bigint OR stands.ended_at IS NOT NULL THEN
    RETURN json_build_object('answer', 'fenced');
  ELSIF stands.seq <> (batch ->> 'expected')::bigint THEN
    RETURN json_build_object('answer', 'stale');
  END IF;
  RETURN json_build_object('answer', decide(batch, stands.last_at, NULL), 'tell', (batch ->> 'tell')::boolean);
END $$;

CREATE FUNCTION record_facts(piece jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
  run text := piece ->> 'run';
  stands standing := locked(run);
  given_at bigint := (piece ->> 'at')::bigint;
  now bigint := greatest(given_at, stands.last_at);
  new jsonb;
  ending text;
  known json;
BEGIN
  SELECT coalesce(json_agg(event_json(run, f ->> 1) ORDER BY n), '[]'::json) INTO known
  FROM jsonb_array_elements(piece -> 'events') WITH ORDINALITY AS each (f, n)
  WHERE EXISTS (SELECT FROM events WHERE run_id = run AND key = f ->> 1);
  SELECT jsonb_agg(f ORDER BY n), min(substr(f ->> 0, 5)) FILTER (WHERE f ->> 1 = 'end') INTO new, ending
  FROM jsonb_array_elements(piece -> 'events') WITH ORDINALITY AS each (f, n)
  WHERE NOT EXISTS (SELECT FROM events WHERE run_id = run AND key = f ->> 1);
  IF stands.seq IS NULL OR stands.ended_at IS NOT NULL OR new IS NULL THEN
    RETURN json_build_object('answer', json_build_object('known', known));
  END IF;
  PERFORM add_events(run, stands.seq, now, new);
  IF ending IS NOT NULL THEN
    PERFORM end_run(run, ending, stands.seq + jsonb_array_length(new), now, NULL);
  ELSE
    UPDATE runs SET seq = seq + jsonb_array_length(new), wake_at = least(wake_at, given_at) WHERE id = run;
  END IF;
  RETURN json_build_object('answer', json_build_object('known', known, 'added', log_json(run, stands.seq)), 'tell', true);
END $$;

CREATE FUNCTION receive_payload(piece jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
  lease jsonb := piece -> 'lease';
  follows jsonb := piece -> 'then';
  hook hooks;
  stands standing;
  given_at bigint := (piece ->> 'at')::bigint;
  now bigint;
  fact jsonb;
  claimed json;
  is_free boolean;
BEGIN
  SELECT * INTO hook FROM hooks WHERE id = piece ->> 'hook';
  IF NOT FOUND THEN
    RETURN json_build_object('answer', NULL);
  END IF;
  stands := locked(hook.run_id);
  SELECT * INTO hook FROM hooks WHERE id = piece ->> 'hook';  -- as it is now that nobody else writes
  now := greatest(given_at, stands.last_at);
  fact := jsonb_build_array('hook_received', hook.number || '.received.' || (piece ->> 'resume_id'),
    '{"id":' || hook.number || ',' || substr(piece ->> 'data', 2));
  IF NOT hook.is_live OR EXISTS (SELECT FROM events WHERE run_id = hook.run_id AND key = fact ->> 1) THEN
    IF hook.is_live AND lease IS NOT NULL THEN
      claimed := claim_one(hook.run_id, lease);
    END IF;
    RETURN json_build_object('answer', json_build_object(
      'event', event_json(hook.run_id, fact ->> 1), 'claimed', claimed));
  END IF;
  PERFORM add_events(hook.run_id, stands.seq, now, jsonb_build_array(fact));
  is_free := lease IS NOT NULL AND (stands.lease_until IS NULL OR stands.lease_until <= given_at);
  IF is_free AND (follows ->> 'expected')::bigint = stands.seq + 1 AND (follows ->> 'epoch')::bigint = stands.epoch + 1 THEN
    RETURN json_build_object('answer', json_build_object(
        'event', event_json(hook.run_id, fact ->> 1), 'then', decide(follows, now, lease)),
      'tell', (follows ->> 'tell')::boolean, 'run', hook.run_id);
  END IF;
  UPDATE runs SET seq = stands.seq + 1, wake_at = least(wake_at, given_at) WHERE id = hook.run_id;
  IF is_free THEN
    claimed := claim_one(hook.run_id, lease);
  END IF;
  RETURN json_build_object('answer', json_build_object(
      'event', event_json(hook.run_id, fact ->> 1), 'claimed', claimed), 'tell', claimed IS NULL, 'run', hook.run_id);
END $$;

CREATE FUNCTION renew_leases(piece jsonb) RETURNS json LANGUAGE sql AS $$
  UPDATE runs SET lease_until = (piece ->> 'until')::bigint
  FROM jsonb_array_elements(piece -> 'claims') AS each (claim)
  WHERE id = claim ->> 0 AND epoch = (claim ->> 1)::bigint AND owner IS NOT NULL;
  SELECT json_build_object('answer', NULL)
$$;

CREATE FUNCTION do_piece(piece jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
  claimed json;
BEGIN
  CASE piece ->> 'do'
    WHEN 'append' THEN RETURN append_batch(piece);
    WHEN 'create' THEN RETURN create_run(piece);
    WHEN 'receive' THEN RETURN receive_payload(piece);
    WHEN 'record' THEN RETURN record_facts(piece);
    WHEN 'renew' THEN RETURN renew_leases(piece);
    WHEN 'claim' THEN
      claimed := claim_one(piece ->> 'run', piece -> 'lease');
      RETURN json_build_object('answer', CASE WHEN claimed IS NULL THEN '[]' ELSE json_build_array(claimed) END);
    WHEN 'claim_due' THEN
      RETURN json_build_object('answer', claim_due(piece -> 'lease', (piece ->> 'limit')::bigint));
  END CASE;
END $$;

-- Does pieces of work in one commit, all of them or none. Whoever needs rows of several runs locks them in the order of
-- their ids, so that no two replicas wait for each other. Other replicas hear of it in one message: "sender id id …".
CREATE FUNCTION together(pieces jsonb, sender text) RETURNS TABLE (answer json) LANGUAGE plpgsql AS $$
DECLARE
  piece jsonb;
  done json;
  told text := '';
BEGIN
  IF jsonb_array_length(pieces) > 1 OR pieces -> 0 ? 'claims' THEN
    PERFORM FROM runs WHERE id = ANY (ARRAY(
      SELECT p ->> 'run' FROM jsonb_array_elements(pieces) AS each (p)
      UNION ALL SELECT claim ->> 0 FROM jsonb_array_elements(pieces) AS each (p), jsonb_array_elements(p -> 'claims') AS held (claim)
      UNION ALL SELECT run_id FROM jsonb_array_elements(pieces) AS each (p) JOIN hooks ON id = p ->> 'hook'))
    ORDER BY id FOR UPDATE;
  END IF;
  FOR piece IN SELECT p FROM jsonb_array_elements(pieces) WITH ORDINALITY AS each (p, n) ORDER BY n LOOP
    done := do_piece(piece);
    answer := done -> 'answer';
    RETURN NEXT;
    IF (done ->> 'tell')::boolean THEN
      told := told || ' ' || coalesce(done ->> 'run', piece ->> 'run');
    END IF;
  END LOOP;
  IF told <> '' THEN
    PERFORM pg_notify('approvals_bot', CASE WHEN length(told) < 7500 THEN sender || told ELSE sender || ' *' END);
  END IF;
END $$;
