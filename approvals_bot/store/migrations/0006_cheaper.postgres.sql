-- The same functions, cheaper. A function in SQL that reads a table is planned anew in each transaction that calls it;
-- one in PL/pgSQL once in a session. Names, arguments and answers are as before: replicas of the release before call them.

CREATE OR REPLACE FUNCTION log_json(wanted text, after bigint) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (SELECT coalesce(json_agg(json_build_array(seq, type, at, data) ORDER BY seq), '[]'::json)
    FROM events WHERE run_id = wanted AND seq > after);
END $$;

CREATE OR REPLACE FUNCTION event_json(run text, wanted text) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (SELECT json_build_array(seq, type, at, data) FROM events WHERE run_id = run AND key = wanted);
END $$;

CREATE OR REPLACE FUNCTION locked(run text) RETURNS standing LANGUAGE plpgsql AS $$
DECLARE
  found_run standing;
BEGIN
  SELECT seq, epoch, ended_at, lease_until, (SELECT at FROM events WHERE run_id = runs.id AND events.seq = runs.seq)
  INTO found_run FROM runs WHERE id = run FOR UPDATE;
  RETURN found_run;
END $$;

CREATE OR REPLACE FUNCTION end_run(run text, to_status text, to_seq bigint, now bigint, new_epoch bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  UPDATE runs SET seq = to_seq, status = to_status, ended_at = now, stalled = NULL, epoch = coalesce(new_epoch, epoch),
    wake_at = NULL, owner = NULL, lease_until = NULL
  WHERE id = run;
  UPDATE hooks SET is_live = false WHERE run_id = run AND is_live;
END $$;

CREATE OR REPLACE FUNCTION renew_leases(piece jsonb) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
  UPDATE runs SET lease_until = (piece ->> 'until')::bigint
  FROM jsonb_array_elements(piece -> 'claims') AS each (claim)
  WHERE id = claim ->> 0 AND epoch = (claim ->> 1)::bigint AND owner IS NOT NULL;
  RETURN json_build_object('answer', NULL);
END $$;

-- One row version for each decision, not a second one for its view: whenever a wake time or a lease changes, a new
-- version stands in every index.
CREATE OR REPLACE FUNCTION decide(batch jsonb, last_at bigint, lease jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
  run text := batch ->> 'run';
  now bigint := greatest((batch ->> 'at')::bigint, last_at);
  new_seq bigint := (batch ->> 'expected')::bigint + jsonb_array_length(batch -> 'events');
  new_epoch bigint := (batch ->> 'epoch')::bigint;
  lost jsonb := add_events(run, (batch ->> 'expected')::bigint, now, batch -> 'events');
  new_view text := batch ->> 'view';  -- NULL: unchanged
  waits text[] := CASE WHEN batch ? 'view' THEN ARRAY(SELECT jsonb_array_elements_text(batch -> 'waiting_for')) END;
BEGIN
  IF batch ? 'ending' THEN
    UPDATE runs SET seq = new_seq, view = coalesce(new_view, view), waiting_for = coalesce(waits, waiting_for),
      status = batch ->> 'ending', ended_at = now, stalled = NULL, epoch = new_epoch, wake_at = NULL, owner = NULL,
      lease_until = NULL
    WHERE id = run;
    UPDATE hooks SET is_live = false WHERE run_id = run AND is_live;
  ELSIF (batch ->> 'release')::boolean THEN
    UPDATE runs SET seq = new_seq, view = coalesce(new_view, view), waiting_for = coalesce(waits, waiting_for),
      status = CASE WHEN batch ? 'stalled' THEN 'stalled' ELSE 'running' END, stalled = batch ->> 'stalled',
      epoch = new_epoch, owner = NULL, lease_until = NULL,
      wake_at = CASE WHEN lost <> '{}' THEN now ELSE (batch ->> 'wake_at')::bigint END  -- who lost doesn't know it yet
    WHERE id = run;
  ELSIF lease IS NOT NULL THEN
    UPDATE runs SET seq = new_seq, view = coalesce(new_view, view), waiting_for = coalesce(waits, waiting_for),
      status = 'running', stalled = NULL, epoch = new_epoch, owner = lease ->> 'owner',
      lease_until = (lease ->> 'until')::bigint, wake_at = least(wake_at, (lease ->> 'at')::bigint)
    WHERE id = run;
  ELSE
    UPDATE runs SET seq = new_seq, view = coalesce(new_view, view), waiting_for = coalesce(waits, waiting_for),
      status = 'running', stalled = NULL
    WHERE id = run;
  END IF;
  RETURN json_build_array(now, lost);
END $$;
