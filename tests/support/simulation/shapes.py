"""Workflows of several shapes. What each must come to follows from its log, and `expected` in `scenes` says how."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from approvals_bot.durable.core.api import (
    Answer,
    create_hook,
    create_webhook,
    get_step_metadata,
    get_workflow_metadata,
    now,
    publish,
    resource,
    sleep,
    step,
    workflow,
)
from approvals_bot.errors import StepFailedError


class Release:
    """The code that the process whose turn it is runs: a bad release, or a good one."""

    is_bad = False


RELEASE = Release()


class Hands(Protocol):
    """What steps do to the world outside."""

    async def work(self, run_id: str, step_id: str, attempt: int) -> None:
        """May take long, and may fail. A step keeps its ID in the run that takes the place of its own."""

    async def send(self, token: str) -> None:
        """Give a hook's token to people."""


async def _work(hands: Hands) -> None:
    metadata = get_step_metadata()
    await hands.work(get_workflow_metadata().run_id, metadata.step_id, metadata.attempt)


@step(retries=20, retry_delay=0.5)
async def toil(what: str, hands: Hands = resource(Hands)) -> str:
    await _work(hands)
    return what


@step(retries=1, retry_delay=0.5)
async def fragile(what: str, hands: Hands = resource(Hands)) -> str:
    await _work(hands)
    return what


@step(retries=20, retry_delay=0.5)
async def announce(token: str, hands: Hands = resource(Hands)) -> None:
    await _work(hands)
    await hands.send(token)


@workflow(name="simulated: job")
async def job(parts: int) -> list[str]:
    """Steps one after another and side by side, with retries."""
    done = [await toil("first")]
    publish({"done": len(done)})
    done += await asyncio.gather(*(toil(f"part {i}") for i in range(parts)))
    publish({"done": len(done)})
    await sleep(2)
    try:
        done.append(await fragile("last"))
    except StepFailedError:
        done.append("broken")
    return done


@workflow(name="simulated: decision")
async def decision(token: str, seconds: float) -> dict[str, Any]:
    """The first click decides, unless the clock does."""
    hook = create_hook(token=token)
    publish({"state": "asked"})
    await announce(token)
    vote: dict[str, Any] = {"by": "clock", "choice": "expired"}
    try:
        async with asyncio.timeout(seconds):
            vote = await hook
    except TimeoutError:
        pass
    hook.dispose()
    publish({"state": vote["choice"]})
    await toil(vote["choice"])
    return vote


@workflow(name="simulated: ballot")
async def ballot(token: str, need: int) -> dict[str, str]:
    """Each person's first vote counts, until there are enough; steps go on beside it."""
    votes: dict[str, str] = {}
    async with create_hook(token=token) as hook, asyncio.TaskGroup() as tasks:
        async for vote in hook:
            if vote["by"] not in votes:
                votes[vote["by"]] = vote["choice"]
                publish(dict(votes))
                tasks.create_task(toil(f"thank {vote['by']}"))
            if len(votes) == need:
                break
    return votes


@workflow(name="simulated: impatient")
async def impatient(token: str, seconds: float) -> list[int]:
    """Waits for the next payload, gives up, waits again; takes every payload once, in order, until a 0 comes."""
    hook = create_hook(token=token)
    taken: list[int] = []
    while True:
        try:
            taken.append(await asyncio.wait_for(hook, seconds))
        except TimeoutError:
            await toil("look around")
            continue
        if taken[-1] == 0:
            return taken


@workflow(name="simulated: shared")
async def shared(token: str, rounds: int) -> list[int]:
    """Wants a token that others want too, and takes one payload each time that it has it."""
    taken: list[int] = []
    for turn in range(rounds):
        while True:
            hook = create_hook(token=token)
            if await hook.conflict() is None:
                break
            await sleep(1.5)
        taken.append(await hook)
        hook.dispose()  # and takes it again at once
        if turn % 2:
            await toil("rest")
    return taken


async def _nap(seconds: float) -> float:
    before = now()
    await sleep(seconds)
    return (now() - before).total_seconds()


@workflow(name="simulated: sleepy")
async def sleepy(naps: list[float]) -> list[float]:
    """Sleeps of several lengths side by side, then a timeout that must end a long one."""
    slept = list(await asyncio.gather(*(_nap(seconds) for seconds in naps)))
    try:
        async with asyncio.timeout(3):
            await toil("race")
            await asyncio.Event().wait()
    except TimeoutError:
        pass
    return slept


@workflow(name="simulated: racing")
async def racing(token: str) -> str:
    """A hook, a step and a sleep race; the losers are cancelled, the hook stays open for one more."""
    hook = create_hook(token=token)

    async def from_hook() -> str:
        return f"hook {await hook}"

    async def from_step() -> str:
        return await toil("step")

    async def from_sleep() -> str:
        await sleep(1)
        return "sleep"

    racers = [asyncio.create_task(race()) for race in (from_hook, from_step, from_sleep)]
    done, losers = await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
    for loser in losers:
        loser.cancel()
    first = next(racer for racer in racers if racer in done)
    await sleep(0.5)
    last = await hook
    return f"{first.result()}, {last}"


@workflow(name="simulated: tidying")
async def tidying(token: str, manner: str) -> str:
    """Waits for a word, beside steps. When it is cancelled, it tidies up in this manner, or goes on regardless."""
    hook = create_hook(token=token)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(toil("beside"))
            await asyncio.gather(toil("first"), asyncio.shield(tasks.create_task(_nap(2))), hook)
        await toil("second")
    except asyncio.CancelledError:
        await toil("tidied")
        if manner == "returns":
            return "cancelled, it says"
        if manner == "fails":
            raise ValueError("the clean-up's") from None
        if manner == "never ends":
            await create_hook(token=f"nobody knows {token}")
        if manner == "raises":
            raise
        await sleep(3600)
    return manner


@workflow(name="simulated: mended")
async def mended(token: str, need: int) -> list[Any]:
    """Hears people out, then rests. A bad release has bugs in handling what it hears, and after the rest."""
    hook = create_hook(token=token)
    await announce(token)
    heard: list[Any] = []
    while len(heard) < need:
        heard.append(await hook)
        if RELEASE.is_bad:
            wrong = asyncio.create_task(toil("never asked for"))
            await asyncio.sleep(0)
            raise KeyError(f"the bad release's, beside {wrong}")
        publish({"heard": len(heard)})
        await toil(f"thank {heard[-1]}")
    await sleep(2)
    if RELEASE.is_bad:
        raise TypeError("the bad release's, too")
    await toil("rested")
    return heard


@workflow(name="simulated: desk")
async def desk(calls: int) -> list[str]:
    """Answers callers by hand."""
    heard: list[str] = []
    async with create_webhook(respond_with="manual") as webhook:
        publish({"token": webhook.token})
        async for request in webhook:
            heard.append(await request.text())
            if len(heard) % 2:
                await toil("think")
            await request.respond_with(Answer(heard[-1].upper()))
            if len(set(heard)) >= calls:
                break
    return heard
