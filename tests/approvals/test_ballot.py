"""Counting votes, verdict by verdict."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from approvals_bot.approvals.acts import Rejection, Reply, Vote
from approvals_bot.approvals.ballot import (
    Missing,
    cast,
    have,
    missing,
    missing_voters,
    need,
    reset,
    seating,
    stage_status,
)
from approvals_bot.approvals.card_model import ChoiceName
from approvals_bot.approvals.request import RequestStage
from tests.support.ballots import people, seat_of, stage_of

NINE = datetime(2026, 3, 2, 9, tzinfo=UTC)
WRONG = Reply("invalid", rejections=(Rejection(("budget_code",), "required"),))
RELEASE = seat_of(0, "Release managers", 1, ("ann", "bo", "cy"))
SRE = seat_of(1, "SRE", 2, ("bo", "cy", "di"))


def play(ballot: RequestStage, *votes: tuple[str, ChoiceName] | Vote, digest: str = "") -> tuple[RequestStage, Reply]:
    """Cast these votes a minute apart. Returns the stage and the last reply."""
    reply = None
    for minute, vote in enumerate(votes):
        if not isinstance(vote, Vote):
            vote = Vote(*vote, comment="because")
        ballot, reply = cast(ballot, vote, NINE + timedelta(minutes=minute), digest)
    assert reply is not None
    return ballot, reply


def test_one_approval_decides_if_one_is_needed() -> None:
    ballot, reply = play(stage_of(RELEASE), ("ann", "approve"))
    assert (reply.verdict, reply.params["status"], reply.params["have"], reply.params["need"]) == (
        "decided",
        "filled",
        1,
        1,
    )
    assert seating(ballot) == {"ann": 0}


def test_overlapping_lists_never_deadlock() -> None:
    ballot, reply = play(stage_of(RELEASE, SRE), ("bo", "approve"), ("cy", "approve"))
    assert (reply.verdict, have(ballot), need(ballot)) == ("counted", 2, 3)
    assert missing_voters(ballot) == ("ann", "di")
    _, reply = play(ballot, ("di", "approve"))
    assert reply.params["status"] == "filled"


def test_replies_name_what_is_missing_by_seat() -> None:
    ballot, reply = play(stage_of(RELEASE, SRE), ("ann", "approve"))
    assert missing(ballot) == (Missing("SRE", 2),)
    assert reply.params["missing"] == [["SRE", 2]]
    ballot, _ = play(ballot, ("di", "approve"))
    assert missing(ballot) == (Missing("SRE", 1),)


def test_replies_wait_for_those_who_can_still_fill_a_seat() -> None:
    both = stage_of(seat_of(0, "Core", 1, ("ann", "bo")), seat_of(1, "SRE", 2, ("bo", "di")))
    ballot, reply = play(both, ("bo", "approve"))
    assert reply.params["missing"] == [["Core", 1], ["SRE", 1]]  # without Bo, SRE has only Di
    ballot, reply = play(ballot, ("di", "approve"))
    assert (reply.params["missing"], missing_voters(ballot)) == ([["Core", 1]], ("ann",))


def test_quorum_counts_people_not_clicks() -> None:
    ballot, reply = play(stage_of(SRE), ("bo", "approve"), ("bo", "approve"))
    assert (reply.verdict, have(ballot)) == ("already_voted", 1)
    assert len(ballot.votes) == 1


def test_the_last_choice_counts_while_the_request_is_open() -> None:
    ballot, reply = play(stage_of(SRE, reject=2), ("bo", "approve"), ("bo", "reject"))
    assert (reply.verdict, have(ballot)) == ("changed", 0)
    assert [vote.counts for vote in ballot.votes] == [False, True]


def test_a_vote_can_be_undone_and_cast_again() -> None:
    ballot, reply = play(stage_of(SRE), ("bo", "approve"), ("bo", "take_back"))
    assert (reply.verdict, have(ballot)) == ("taken_back", 0)
    _, reply = play(ballot, ("bo", "approve"))
    assert reply.verdict == "counted"


def test_people_without_a_vote_have_nothing_to_undo() -> None:
    assert play(stage_of(SRE), ("bo", "take_back"))[1].verdict == "invalid"
    assert play(stage_of(SRE), ("eve", "take_back"))[1].verdict == "not_an_approver"


def test_former_approvers_can_still_undo_their_vote() -> None:
    ballot, _ = play(stage_of(SRE), ("bo", "approve"))
    ballot, reply = play(replace(ballot, seats=(replace(SRE, eligible=people("cy", "di")),)), ("bo", "take_back"))
    assert (reply.verdict, have(ballot)) == ("taken_back", 0)


@pytest.mark.parametrize(
    ("reject", "votes", "expected"),
    [
        ("any", ["di"], "rejected"),
        (2, ["di"], "open"),
        (2, ["di", "bo"], "rejected"),
        (3, ["di", "bo"], "rejected"),  # with two of three against, two approvals are out of reach
        ("all", ["di"], "open"),
        ("all", ["di", "bo"], "rejected"),
    ],
)
def test_rejections_decide_by_number_or_unreachable_quorum(reject: Any, votes: list[str], expected: str) -> None:
    ballot, _ = play(stage_of(SRE, reject=reject), *((address, "reject") for address in votes))
    assert stage_status(ballot) == expected


def test_one_rejection_decides_when_all_are_needed() -> None:
    _, reply = play(stage_of(replace(SRE, need="all"), reject="all"), ("di", "reject"))
    assert (reply.verdict, reply.params["status"]) == ("decided", "rejected")


def test_a_counted_rejection_says_how_many_are_needed() -> None:
    _, reply = play(stage_of(SRE, reject=2), ("bo", "reject"))
    assert (reply.verdict, reply.params["have"], reply.params["need"]) == ("counted", 1, 2)


def test_stranger_requester_and_unknown_group_get_own_verdicts() -> None:
    ballot = stage_of(RELEASE, requesters=("eve",))
    assert play(ballot, ("mallory", "approve"))[1].verdict == "not_an_approver"
    assert play(ballot, ("eve", "approve"))[1].verdict == "own_request"
    down = replace(ballot, seats=(replace(RELEASE, known=False, unsure=("bo", "cy")),))
    assert play(down, ("mallory", "approve"))[1].verdict == "group_unknown"
    assert play(down, ("bo", "approve"))[1].verdict == "group_unknown"
    assert play(down, ("ann", "approve"))[1].verdict == "decided"
    assert play(down, ("eve", "approve"))[1].verdict == "own_request"


def test_a_known_list_counts_while_another_is_unknown() -> None:
    ballot = stage_of(RELEASE, replace(SRE, known=False, unsure=(*SRE.eligible,)))
    ballot, reply = play(ballot, ("bo", "approve"))
    assert (reply.verdict, seating(ballot)) == ("counted", {"bo": 0})


def test_an_eligible_requester_may_vote() -> None:
    _, reply = play(stage_of(RELEASE, requesters=("ann",)), ("ann", "approve"))
    assert reply.verdict == "decided"


def test_leavers_keep_their_vote_at_click_not_at_quorum() -> None:
    for recheck, expected in (("at-click", "filled"), ("at-quorum", "open")):
        ballot, _ = play(stage_of(SRE, recheck=recheck), ("bo", "approve"))
        ballot = replace(ballot, seats=(replace(SRE, eligible=people("cy", "di")),))
        ballot, _ = play(ballot, ("cy", "approve"))
        assert stage_status(ballot) == expected


def test_a_voter_moves_to_a_seat_that_was_added_later() -> None:
    """A seat added by an edit, or an escalation to a voter: overlapping lists never block each other."""
    ballot, _ = play(stage_of(RELEASE), ("bo", "approve"))
    ballot = replace(
        ballot,
        seats=(
            RELEASE,
            SRE,
        ),
    )
    ballot, reply = play(ballot, ("cy", "approve"))
    assert (reply.verdict, missing_voters(ballot)) == ("counted", ("ann", "di"))
    ballot, reply = play(ballot, ("ann", "approve"))
    assert (reply.verdict, seating(ballot)) == ("decided", {"bo": 1, "cy": 1, "ann": 0})


def test_with_at_quorum_no_vote_counts_while_a_list_is_unknown() -> None:
    ballot = stage_of(RELEASE, replace(SRE, known=False), recheck="at-quorum")
    assert play(ballot, ("ann", "approve"))[1].verdict == "group_unknown"


def test_all_means_eligible_people_and_former_voters() -> None:
    ballot, _ = play(stage_of(replace(SRE, need="all")), ("bo", "approve"))
    ballot = replace(ballot, seats=(replace(SRE, need="all", eligible=people("cy", "di", "ed")),))
    assert (have(ballot), need(ballot)) == (1, 4)


def test_a_vote_on_changed_content_is_not_counted() -> None:
    ballot = stage_of(RELEASE)
    ballot, reply = play(ballot, Vote("ann", "approve", digest="old"), digest="new")
    assert (reply.verdict, reply.params["was"], reply.params["now"], ballot.votes) == (
        "request_changed",
        "old",
        "new",
        (),
    )
    assert play(ballot, Vote("ann", "approve", digest="new"), digest="new")[1].verdict == "decided"
    assert play(ballot, Vote("ann", "approve", digest=None), digest="new")[1].verdict == "decided"


def test_a_stranger_with_an_old_digest_is_just_refused() -> None:
    assert play(stage_of(RELEASE), Vote("eve", "approve", digest="old"), digest="new")[1].verdict == ("not_an_approver")


@pytest.mark.parametrize(
    ("rule", "choice", "comment", "word"),
    [
        ("never", "reject", "", "decided"),
        ("on-reject", "approve", "", "decided"),
        ("on-reject", "reject", " \n", "invalid"),
        ("on-reject", "changes", "", "invalid"),
        ("always", "approve", "", "invalid"),
        ("always", "approve", "fine", "decided"),
        ("never", "answer", "", "invalid"),
    ],
)
def test_a_missing_comment_is_required(rule: Any, choice: ChoiceName, comment: str, word: str) -> None:
    ballot = stage_of(RELEASE, comment=rule, outcomes=("approve", "reject", "changes", "answer"))
    assert play(ballot, Vote("ann", choice, comment=comment))[1].verdict == word


def test_a_choice_the_stage_does_not_offer_is_refused() -> None:
    assert play(stage_of(RELEASE), ("ann", "changes"))[1].verdict == "invalid"


def test_only_eligible_people_hear_of_invalid_answers() -> None:
    vote = Vote("ann", "approve")
    ballot, reply = cast(stage_of(RELEASE), vote, NINE, invalid=WRONG)
    assert (reply.verdict, reply.text, ballot.votes) == (
        "invalid",
        "budget_code: is required. Nothing was changed.",
        (),
    )
    assert cast(stage_of(RELEASE), replace(vote, by="eve"), NINE, invalid=WRONG)[1].verdict == "not_an_approver"


def test_changes_and_answer_end_the_stage_at_once() -> None:
    ballot = stage_of(SRE, outcomes=("approve", "changes", "answer"))
    assert play(ballot, ("bo", "changes"))[1].params["status"] == "changes_requested"
    assert play(ballot, ("bo", "answer"))[1].params["status"] == "answered"


def test_an_edit_fills_a_seat() -> None:
    assert play(stage_of(RELEASE, outcomes=("approve", "edit")), ("ann", "edit"))[1].params["status"] == "filled"


def test_a_reset_voids_votes_but_remembers_them() -> None:
    ballot, _ = play(stage_of(SRE), ("bo", "approve"))
    ballot = reset(ballot)
    assert (have(ballot), len(ballot.votes)) == (0, 1)
    assert play(ballot, ("bo", "approve"))[1].verdict == "counted"


def test_all_of_an_empty_list_is_never_filled() -> None:
    ballot = stage_of(RELEASE, replace(SRE, need="all", eligible=people()))
    assert play(ballot, ("ann", "approve"))[1].verdict == "counted"
