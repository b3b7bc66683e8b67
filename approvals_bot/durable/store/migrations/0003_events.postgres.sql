-- Adding to a log. An event comes as [type, key, data], where data is JSON as text. What opens or closes a hook has a
-- fourth item: the hook.

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

-- Appends events after `after`. Gives who has the token of each hook that could not be opened, by the event's number.
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
      IF event ->> 0 = 'hook_disposed' THEN
        UPDATE hooks SET is_live = false WHERE run_id = run AND number = (event -> 3 ->> 'number')::bigint;
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
