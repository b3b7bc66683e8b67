"""A conversation's queue of posts: in order, within Slack's rate limit, and an absent post holds nobody up."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from approvals_bot.channels.slack.client import AnswerLostError, LaterError, NeverError
from approvals_bot.channels.slack.post import LONGEST_PAUSE, ConversationQueues
from approvals_bot.channels.slack.updates import GRACE, UPDATE_EVERY, QueuedError, UpdateQueue
from tests.support.fake_slack import Ticks


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
def queues(ticks: Ticks) -> ConversationQueues:
    return ConversationQueues(ticks, patience=0.0)


async def post(queues: ConversationQueues, key: str, place: str = "C1", failure: Exception | None = None) -> float:
    """Post, and return the seconds until it may come back; 0 once it is posted."""
    try:
        async with queues.turn(place, key):
            if failure is not None:
                raise failure
    except LaterError as later:
        return later.after.total_seconds() if later.after is not None else -1.0
    return 0.0


async def test_turns_are_a_second_apart(queues: ConversationQueues) -> None:
    assert await post(queues, "first") == 0
    assert [await post(queues, f"d{number}") for number in range(5)] == [1, 2, 3, 4, 5]
    assert await post(queues, "elsewhere", "C2") == 0


async def test_a_post_on_time_goes_out_and_an_early_one_comes_back(queues: ConversationQueues, ticks: Ticks) -> None:
    await post(queues, "first")
    await post(queues, "a")
    await post(queues, "b")
    assert await post(queues, "b") == 2
    ticks.at += 1
    assert await post(queues, "b") == 1  # it is a's turn
    assert await post(queues, "a") == 0
    ticks.at += 1
    assert await post(queues, "b") == 0


async def test_a_thousand_queued_posts_come_twice_each(queues: ConversationQueues, ticks: Ticks) -> None:
    due = {f"d{number}": ticks.at for number in range(1_000)}
    order, attempts = [], 0
    while due:
        key, ticks.at = min(due.items(), key=lambda one: one[1])
        attempts += 1
        if wait := await post(queues, key):
            due[key] = ticks.at + wait
        else:
            order.append(key)
            del due[key]
    assert order == [f"d{number}" for number in range(1_000)]
    assert attempts <= 2_000


async def test_during_an_outage_only_the_first_post_retries_with_backoff(
    queues: ConversationQueues, ticks: Ticks
) -> None:
    down = AnswerLostError("chat.postMessage", "no answer")
    pauses = []
    for _ in range(8):
        down.after = None
        pauses.append(await post(queues, "first", failure=down))
        assert await post(queues, "second") == pauses[-1] + 1  # without a try
        ticks.at += pauses[-1]
    assert pauses == [3, 6, 12, 24, 48, 96, LONGEST_PAUSE, LONGEST_PAUSE]
    assert await post(queues, "first") == 0
    assert await post(queues, "second") == 1
    ticks.at += 1
    assert await post(queues, "second") == 0


async def test_slacks_retry_after_is_respected(queues: ConversationQueues, ticks: Ticks) -> None:
    limited = LaterError("chat.postMessage", "ratelimited", timedelta(seconds=30))
    assert await post(queues, "first", failure=limited) == 30
    assert await post(queues, "second") == 31
    ticks.at += 30
    assert await post(queues, "first") == 0


async def test_a_rejected_post_leaves_the_queue(queues: ConversationQueues) -> None:
    with pytest.raises(NeverError):
        await post(queues, "first", failure=NeverError("chat.postMessage", "is_archived"))
    assert await post(queues, "second") == 0


async def test_a_post_that_does_not_return_loses_its_place(queues: ConversationQueues, ticks: Ticks) -> None:
    await post(queues, "first")
    for key in ("gone", "also gone", "here"):
        await post(queues, key)
    ticks.at += 3
    assert await post(queues, "here") == 2
    ticks.at += GRACE
    assert await post(queues, "here") == 0
    assert await post(queues, "gone") == 1


async def test_posts_wait_here_for_a_near_turn_in_order() -> None:
    queues, order = ConversationQueues(asyncio.get_running_loop().time, every=0.01), list[str]()

    async def one(key: str) -> None:
        async with queues.turn("C1", key):
            order.append(key)

    async with asyncio.TaskGroup() as group:
        for key in ("a", "b", "c"):
            group.create_task(one(key))
    assert order == ["a", "b", "c"]


async def test_a_slow_post_holds_the_next_ones_back_and_releases_them() -> None:
    queues, began, done = (
        ConversationQueues(asyncio.get_running_loop().time, patience=0.1, every=0.0),
        asyncio.Event(),
        asyncio.Event(),
    )

    async def slow() -> None:
        async with queues.turn("C1", "slow"):
            began.set()
            await done.wait()

    posting = asyncio.create_task(slow())
    await began.wait()
    with pytest.raises(QueuedError):
        async with queues.turn("C1", "next"):
            raise AssertionError("it overtook")
    done.set()
    await posting
    async with queues.turn("C1", "next"):
        pass


# ── Edits, which Slack limits for the whole workspace ──


def edit(updates: UpdateQueue, message: str, *, is_decided: bool = False) -> float:
    """Return the seconds until this edit's turn; 0 if it goes now."""
    try:
        updates.take_turn(message, is_decided=is_decided)
    except QueuedError as queued:
        return queued.after.total_seconds() if queued.after else -1.0
    return 0.0


def test_edits_wait_for_nobody_until_slack_limits_them(ticks: Ticks) -> None:
    updates = UpdateQueue(ticks)
    assert [edit(updates, f"m{number}") for number in range(200)] == [0.0] * 200


def test_limited_edits_have_turns_and_decided_cards_are_first(ticks: Ticks) -> None:
    updates = UpdateQueue(ticks)
    first = updates.limited("m0", timedelta(seconds=30), is_decided=False).total_seconds()
    assert 30 <= first < 30 + UPDATE_EVERY
    assert edit(updates, "m1") == pytest.approx(first + UPDATE_EVERY, abs=0.002)
    assert edit(updates, "decided", is_decided=True) == first
    ticks.at += first
    assert edit(updates, "decided", is_decided=True) == 0
    assert edit(updates, "m0") == pytest.approx(2 * UPDATE_EVERY, abs=0.002)  # behind m1, whose turn is next
    ticks.at += UPDATE_EVERY
    assert edit(updates, "m1") == 0


def test_six_hundred_edits_come_back_twice_each(ticks: Ticks) -> None:
    updates, began, attempts = UpdateQueue(ticks), ticks.at, 0
    updates.limited("m0", timedelta(seconds=2), is_decided=False)
    due, done = {f"m{number}": ticks.at for number in range(600)}, list[int]()
    while due:
        message, ticks.at = min(due.items(), key=lambda one: one[1])
        attempts += 1
        is_decided = int(message[1:]) % 2 == 0
        if wait := edit(updates, message, is_decided=is_decided):
            due[message] = ticks.at + wait
        else:
            del due[message]
            done.append(is_decided)
    assert attempts < 1_600
    assert ticks.at - began < 605 * UPDATE_EVERY
    assert sum(done[:300]) > 280  # decided ones, which come before the others


def test_an_edit_that_does_not_return_holds_nobody_up(ticks: Ticks) -> None:
    updates = UpdateQueue(ticks)
    updates.limited("gone", timedelta(seconds=1), is_decided=True)
    assert edit(updates, "here") > 1
    ticks.at += 2 + GRACE
    assert edit(updates, "here") == 0
