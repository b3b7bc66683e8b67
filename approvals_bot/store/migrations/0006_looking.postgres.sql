-- Looking at a hook and its run by the hook's id, too: who holds a link knows no token.

CREATE OR REPLACE FUNCTION answer(question jsonb) RETURNS json LANGUAGE plpgsql STABLE AS $$
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
      IF question ? 'hook' THEN
        SELECT * INTO hook FROM hooks WHERE id = question ->> 'hook';
      ELSE
        SELECT * INTO hook FROM hooks WHERE token = question ->> 'token' AND is_live;
      END IF;
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
