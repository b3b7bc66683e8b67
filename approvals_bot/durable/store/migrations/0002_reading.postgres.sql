-- Reading. One statement answers any number of questions, in one consistent look: a round trip costs more than most of
-- the answers. Each answer is JSON, its rows are arrays in the order of RunRow, Event and HookRow.
--
-- Here and below: a function in LANGUAGE sql is either one expression, which becomes part of the statement that calls
-- it, or it is parsed and planned anew in each call, which costs more than most of our statements. PL/pgSQL keeps plans.

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
    run.id, run.workflow, run.code, run.version, run.status, run.created_at, run.ended_at, run.attributes, run.seq,
    run.view, run.stalled, run.wake_at, run.epoch, ending(run.id, run.seq, run.ended_at))
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

CREATE FUNCTION answer(question jsonb) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN
  CASE question ->> 'ask'
    WHEN 'read' THEN
      RETURN (
        SELECT json_build_array(run_json(runs),
          CASE WHEN seq > (question ->> 'after')::bigint THEN log_json(id, (question ->> 'after')::bigint) ELSE '[]' END)
        FROM runs WHERE id = question ->> 'run');
    WHEN 'hook' THEN
      RETURN (SELECT hook_json(hooks) FROM hooks WHERE id = question ->> 'hook');
    WHEN 'token' THEN
      RETURN (SELECT hook_json(hooks) FROM hooks WHERE token = question ->> 'token' AND is_live);
    WHEN 'look' THEN
      RETURN (
        SELECT json_build_array(
          hook_json(hooks), run_json(runs), CASE WHEN seq <= (question ->> 'most')::bigint THEN log_json(run_id, 0) END)
        FROM hooks JOIN runs ON runs.id = run_id
        WHERE hooks.id = coalesce(
          question ->> 'hook', (SELECT id FROM hooks WHERE token = question ->> 'token' AND is_live)));
    WHEN 'next_wake' THEN
      RETURN to_json(next_wake(question ->> 'owner', (question ->> 'at')::bigint));
  END CASE;
END $$;

CREATE FUNCTION answers(questions jsonb) RETURNS TABLE (answer json) LANGUAGE sql STABLE AS $$
  SELECT answer(question) FROM jsonb_array_elements(questions) WITH ORDINALITY AS asked (question, n) ORDER BY n
$$;
