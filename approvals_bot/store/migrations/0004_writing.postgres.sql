-- Writing: each function is one whole piece of work. All begin by locking the run's row, so that whoever else writes to
-- this run waits for his turn; SQLite needs no such locks, there everybody waits for everybody.

CREATE TYPE standing AS (seq bigint, epoch bigint, ended_at bigint, lease_until bigint, last_at bigint);

CREATE FUNCTION locked(run text) RETURNS standing LANGUAGE sql AS $$
  SELECT seq, epoch, ended_at, lease_until,
    (SELECT at FROM events WHERE run_id = runs.id AND events.seq = runs.seq)
  FROM runs WHERE id = run FOR UPDATE
$$;

CREATE FUNCTION event_json(run text, wanted text) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_array(seq, type, at, data) FROM events WHERE run_id = run AND key = wanted
$$;

-- Appends what was decided and brings the run's row up to date. The caller has locked and compared. With a lease, the
-- run is claimed by this.
CREATE FUNCTION decide(batch jsonb, last_at bigint, lease jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
  run text := batch ->> 'run';
  now bigint := greatest((batch ->> 'at')::bigint, last_at);
  new_seq bigint := (batch ->> 'expected')::bigint + jsonb_array_length(batch -> 'events');
  lost jsonb := add_events(run, (batch ->> 'expected')::bigint, now, batch -> 'events');
BEGIN
  IF batch ? 'view' THEN
    UPDATE runs SET view = batch ->> 'view', waiting_for = ARRAY(SELECT jsonb_array_elements_text(batch -> 'waiting_for'))
    WHERE id = run;
  END IF;
  IF batch ? 'ending' THEN
    PERFORM end_run(run, batch ->> 'ending', new_seq, now, (batch ->> 'epoch')::bigint);
  ELSIF (batch ->> 'release')::boolean THEN
    UPDATE runs SET seq = new_seq, status = CASE WHEN batch ? 'stalled' THEN 'stalled' ELSE 'running' END,
      stalled = batch ->> 'stalled', epoch = (batch ->> 'epoch')::bigint, owner = NULL, lease_until = NULL,
      wake_at = CASE WHEN lost <> '{}' THEN now ELSE (batch ->> 'wake_at')::bigint END  -- who lost doesn't know it yet
    WHERE id = run;
  ELSIF lease IS NOT NULL THEN
    UPDATE runs SET seq = new_seq, status = 'running', stalled = NULL, epoch = (batch ->> 'epoch')::bigint,
      owner = lease ->> 'owner', lease_until = (lease ->> 'until')::bigint,
      wake_at = least(wake_at, (lease ->> 'at')::bigint)
    WHERE id = run;
  ELSE
    UPDATE runs SET seq = new_seq, status = 'running', stalled = NULL WHERE id = run;
  END IF;
  RETURN json_build_array(now, lost);
END $$;

CREATE FUNCTION claim_one(run text, lease jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
  found_run runs;
BEGIN
  UPDATE runs SET owner = lease ->> 'owner', lease_until = (lease ->> 'until')::bigint, epoch = epoch + 1
  WHERE id = run AND ended_at IS NULL AND (lease_until IS NULL OR lease_until <= (lease ->> 'at')::bigint)
  RETURNING * INTO found_run;
  RETURN CASE WHEN FOUND THEN json_build_array(run_json(found_run), log_json(run, 0)) END;
END $$;

-- The due runs that nobody holds, the earliest first. Whatever somebody else is just writing to is left to him.
CREATE FUNCTION claim_due(lease jsonb, most bigint) RETURNS json LANGUAGE sql AS $$
  WITH due AS (
    SELECT id FROM runs
    WHERE wake_at <= (lease ->> 'at')::bigint AND (lease_until IS NULL OR lease_until <= (lease ->> 'at')::bigint)
    ORDER BY wake_at LIMIT most FOR UPDATE SKIP LOCKED
  ), claimed AS (
    UPDATE runs SET owner = lease ->> 'owner', lease_until = (lease ->> 'until')::bigint, epoch = epoch + 1
    FROM due WHERE runs.id = due.id RETURNING runs.*
  )
  SELECT coalesce(json_agg(json_build_array(run_json(ROW(claimed.*)::runs), log_json(claimed.id, 0))), '[]'::json) FROM claimed
$$;
