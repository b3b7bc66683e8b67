"""Bugs to plant into PostgreSQL's functions, each as small as a slip: function, what is right, and what is wrong."""

from __future__ import annotations

from tests.support.simulation.play import play
from tests.support.simulation.postgres_store import PostgresDatabase

Slip = tuple[str, str, str]

SLIPS: dict[str, tuple[Slip, ...]] = {
    "lets_zombies_write": (
        ("append_batch", "state.epoch IS DISTINCT FROM (batch ->> 'epoch')::bigint OR state", "state"),
    ),
    "claims_in_the_same_epoch": (
        ("claim_one", "epoch = epoch + 1", "epoch = greatest(epoch, 1)"),
        ("claim_due", "epoch = epoch + 1", "epoch = greatest(epoch, 1)"),
    ),
    "forgets_to_wake": (("receive_payload", "wake_at = least(wake_at, given_at)", "wake_at = wake_at"),),
    "forgets_when_to_wake": (("decide", "(batch ->> 'wake_at')::bigint END", "NULL END"),),
    "takes_payloads_after_the_end": (("receive_payload", "IF NOT state.is_live OR state.known", "IF state.known"),),
    "keeps_the_tokens_of_the_dead": (
        ("decide", "WHERE run_id = run AND is_live", "WHERE false"),
        ("record_facts", "WHERE run_id = run AND is_live", "WHERE false"),
    ),
    "never_frees_a_lease": (("decide", "owner = NULL, lease_until = NULL", "lease_until = 9000000000000000"),),
    "keeps_the_first_view": (("decide", "view = coalesce(new_view, view)", "view = coalesce(view, new_view)"),),
}


def seeds_to_find(name: str, most: int, database: PostgresDatabase) -> tuple[int, BaseException | None]:
    """Plant it into this database, and play until it is found: after how many seeds, and what showed it. None: `most`
    were not enough."""
    for slip in SLIPS[name]:
        database.plant(*slip)
    for played in play(range(1, most), database):
        if played.found is not None:
            return played.seed, played.found
    return most, None
