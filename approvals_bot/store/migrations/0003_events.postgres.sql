-- Adding to a log. An event comes as [type, key, data], a `hook_created` also with its hook; data is JSON as text.

-- Opens a hook. Gives the run that has its token already; NULL: the token is ours.
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
    END IF;  -- the owner has let go of it in between: it is free again
  END LOOP;
END $$;

-- Appends events after `after`. Gives who has the token of each hook that could not be opened, by the event's place.
CREATE FUNCTION add_events(run text, after bigint, now bigint, given jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  event jsonb;
  place bigint;
  owner text;
  lost jsonb := '{}';
BEGIN
  FOR event, place IN
    SELECT e, n FROM jsonb_array_elements(given) WITH ORDINALITY AS each (e, n)
    WHERE e ->> 0 IN ('hook_created', 'hook_disposed') ORDER BY n
  LOOP
    IF event ->> 0 = 'hook_disposed' THEN
      UPDATE hooks SET is_live = false WHERE run_id = run AND number = (event -> 3 ->> 'number')::bigint;
    ELSE
      owner := open_hook(run, now, event -> 3);
      IF owner IS NOT NULL THEN
        lost := lost || jsonb_build_object(place::text, owner);
      END IF;
    END IF;
  END LOOP;
  INSERT INTO events (run_id, seq, type, at, key, data)
  SELECT run, after + n, CASE WHEN lost ? n::text THEN 'hook_conflict' ELSE e ->> 0 END, now, e ->> 1,
    CASE WHEN lost ? n::text
      THEN left(e -> 3 ->> 'lost', -1) || ',"owner":' || to_json(lost ->> n::text) || '}' ELSE e ->> 2 END
  FROM jsonb_array_elements(given) WITH ORDINALITY AS each (e, n);
  RETURN lost;
END $$;

-- Ends a run: its status, and its tokens are free.
CREATE FUNCTION end_run(run text, to_status text, to_seq bigint, now bigint, new_epoch bigint) RETURNS void
LANGUAGE sql AS $$
  UPDATE runs SET seq = to_seq, status = to_status, ended_at = now, stalled = NULL, epoch = coalesce(new_epoch, epoch),
    wake_at = NULL, owner = NULL, lease_until = NULL
  WHERE id = run;
  UPDATE hooks SET is_live = false WHERE run_id = run AND is_live;
$$;
