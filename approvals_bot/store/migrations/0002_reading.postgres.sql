-- Reading. One statement answers any number of questions, in one consistent look: a round trip costs more than most of
-- the answers. Each answer is JSON, its rows are arrays in the order of RunRow, Event and HookRow.

CREATE FUNCTION run_json(run runs) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_array(
    run.id, run.workflow, run.code, run.version, run.status, run.created_at, run.ended_at, run.attributes, run.seq,
    run.view, run.stalled, run.wake_at, run.epoch,
    CASE WHEN run.ended_at IS NOT NULL
      THEN (SELECT data FROM events WHERE run_id = run.id AND events.seq = run.seq) END)
$$;

CREATE FUNCTION log_json(wanted text, after bigint) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT coalesce(json_agg(json_build_array(seq, type, at, data) ORDER BY seq), '[]'::json)
  FROM events WHERE run_id = wanted AND seq > after
$$;

CREATE FUNCTION hook_json(hook hooks) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_array(
    hook.id, hook.run_id, hook.number, hook.token, hook.is_webhook, hook.has_schema, hook.answer, hook.metadata,
    hook.created_at, hook.generation, hook.is_live)
$$;

-- When there is something to claim: see next_wake in the store's protocol.
CREATE FUNCTION next_wake(for_owner text, now bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT min(at) FROM (
    (SELECT wake_at AS at FROM runs
      WHERE wake_at IS NOT NULL AND (lease_until IS NULL OR lease_until <= now) ORDER BY wake_at LIMIT 1)
    UNION ALL
    (SELECT lease_until FROM runs
      WHERE owner IS NOT NULL AND owner <> for_owner AND lease_until > now ORDER BY lease_until LIMIT 1)
  ) AS times
$$;

CREATE FUNCTION answer(question jsonb) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
  run runs;
  hook hooks;
BEGIN
  CASE question ->> 'ask'
    WHEN 'read' THEN
      SELECT * INTO run FROM runs WHERE id = question ->> 'run';
      RETURN CASE WHEN FOUND THEN json_build_array(run_json(run), log_json(run.id, (question ->> 'after')::bigint)) END;
    WHEN 'hook' THEN
      SELECT * INTO hook FROM hooks WHERE id = question ->> 'hook';
      RETURN CASE WHEN FOUND THEN hook_json(hook) END;
    WHEN 'token' THEN
      SELECT * INTO hook FROM hooks WHERE token = question ->> 'token' AND is_live;
      RETURN CASE WHEN FOUND THEN hook_json(hook) END;
    WHEN 'look' THEN
      SELECT * INTO hook FROM hooks WHERE token = question ->> 'token' AND is_live;
      IF NOT FOUND THEN
        RETURN NULL;
      END IF;
      SELECT * INTO run FROM runs WHERE id = hook.run_id;
      RETURN json_build_array(
        hook_json(hook), run_json(run),
        CASE WHEN run.seq <= (question ->> 'most')::bigint THEN log_json(run.id, 0) END);
    WHEN 'next_wake' THEN
      RETURN to_json(next_wake(question ->> 'owner', (question ->> 'at')::bigint));
  END CASE;
END $$;

CREATE FUNCTION answers(questions jsonb) RETURNS TABLE (answer json) LANGUAGE sql STABLE AS $$
  SELECT answer(question) FROM jsonb_array_elements(questions) WITH ORDINALITY AS asked (question, n) ORDER BY n
$$;
