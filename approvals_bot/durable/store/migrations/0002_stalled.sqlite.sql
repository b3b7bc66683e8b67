-- Runs that the code of their process does not fit are asked for every few seconds; there are hardly ever any.
CREATE INDEX runs_stalled ON runs (created_at DESC, id DESC) WHERE stalled IS NOT NULL;
