-- What several pieces of work have in common. Whoever calls these has locked the run's row; SQLite needs no such locks,
-- there everybody waits for everybody.

-- Appends what was decided, after what comes `before` it, and brings the run's row up to date, in one UPDATE: each
-- makes new entries in all of its indexes. The caller has compared. With a lease, the run is claimed by this.
CREATE FUNCTION decide(batch jsonb, now bigint, before jsonb, lease jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
  run text := batch ->> 'run';
  expected bigint := (batch ->> 'expected')::bigint;
  new_seq bigint := expected + jsonb_array_length(batch -> 'events');
  new_view text := batch ->> 'view';
  whom text[];
  lost jsonb := add_events(run, expected - jsonb_array_length(before), now, before || (batch -> 'events'));
BEGIN
  IF new_view IS NOT NULL THEN
    whom := ARRAY(SELECT jsonb_array_elements_text(batch -> 'waiting_for'));
  END IF;
  IF batch ? 'ending' THEN
    UPDATE runs SET seq = new_seq, status = batch ->> 'ending', ended_at = now, stalled = NULL,
      view = coalesce(new_view, view), waiting_for = coalesce(whom, waiting_for), epoch = (batch ->> 'epoch')::bigint,
      wake_at = NULL, owner = NULL, lease_until = NULL
    WHERE id = run;
    UPDATE hooks SET is_live = false WHERE run_id = run AND is_live;
  ELSIF (batch ->> 'release')::boolean THEN
    UPDATE runs SET seq = new_seq, status = CASE WHEN batch ? 'stalled' THEN 'stalled' ELSE 'running' END,
      stalled = batch ->> 'stalled', view = coalesce(new_view, view), waiting_for = coalesce(whom, waiting_for),
      epoch = (batch ->> 'epoch')::bigint, owner = NULL, lease_until = NULL,
      wake_at = CASE WHEN lost <> '{}' THEN now ELSE (batch ->> 'wake_at')::bigint END  -- who lost doesn't know it yet
    WHERE id = run;
  ELSIF lease IS NOT NULL THEN
    UPDATE runs SET seq = new_seq, status = 'running', stalled = NULL, view = coalesce(new_view, view),
      waiting_for = coalesce(whom, waiting_for), epoch = (batch ->> 'epoch')::bigint,
      owner = lease ->> 'owner', lease_until = (lease ->> 'until')::bigint,
      wake_at = least(wake_at, (lease ->> 'at')::bigint)
    WHERE id = run;
  ELSE
    UPDATE runs SET seq = new_seq, status = 'running', stalled = NULL, view = coalesce(new_view, view),
      waiting_for = coalesce(whom, waiting_for)
    WHERE id = run;
  END IF;
  RETURN json_build_array(now, lost);
END $$;

CREATE FUNCTION claim_one(run text, lease jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
  claimed json;
BEGIN
  UPDATE runs SET owner = lease ->> 'owner', lease_until = (lease ->> 'until')::bigint, epoch = epoch + 1
  WHERE id = run AND ended_at IS NULL AND (lease_until IS NULL OR lease_until <= (lease ->> 'at')::bigint)
  RETURNING json_build_array(run_json(runs), log_json(id, 0)) INTO claimed;
  RETURN claimed;
END $$;

-- The due runs that nobody holds, the earliest first. Whatever somebody else is just writing to is left to him.
CREATE FUNCTION claim_due(lease jsonb, most bigint) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
  claimed json;
BEGIN
  WITH due AS (
    SELECT id FROM runs
    WHERE wake_at <= (lease ->> 'at')::bigint AND (lease_until IS NULL OR lease_until <= (lease ->> 'at')::bigint)
    ORDER BY wake_at LIMIT most FOR UPDATE SKIP LOCKED
  ), taken AS (
    UPDATE runs SET owner = lease ->> 'owner', lease_until = (lease ->> 'until')::bigint, epoch = epoch + 1
    FROM due WHERE runs.id = due.id RETURNING json_build_array(run_json(runs), log_json(runs.id, 0)) AS run
  )
  SELECT coalesce(json_agg(run), '[]'::json) INTO claimed FROM taken;
  RETURN claimed;
END $$;
