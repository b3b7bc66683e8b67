"""`start`, `simulate`, `vote`, `reassign`, `cancel`, `explain`, `runs`, `show`, `resume`: requests and other runs."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, cast, get_args

import typer

from approvals_bot.approvals.port import ChoiceName, FormField
from approvals_bot.approvals.published import REQUEST
from approvals_bot.approvals.request import Request
from approvals_bot.cli import show
from approvals_bot.cli.common import (
    CONFIG,
    Config,
    Input,
    Json,
    OnBehalfOf,
    RunId,
    clock_of,
    fail,
    read_json,
    read_object,
    read_pairs,
    record_of,
    sentence,
    with_engine,
)
from approvals_bot.cli.show import explained, explained_program, simulated
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine, Page, RunRecord
from approvals_bot.durable.store.protocol import Status
from approvals_bot.service.python_workflows import import_programs
from approvals_bot.service.read import choices_of, request_of, requests_of

PATIENCE = 5.0  # seconds for a running service to begin with a request

CLI = "app:cli"
"""Who acts where nobody is named."""


def start(
    workflow: Annotated[str, typer.Argument(help="A workflow's name.", metavar="WORKFLOW")],
    config: Config = CONFIG,
    input: Input = "{}",
    requester: Annotated[
        str | None, typer.Option(help="Who asks: a person's address, or app:NAME.", metavar="ADDRESS")
    ] = None,
    on_behalf_of: OnBehalfOf = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key is the same run.")] = None,
    as_json: Json = False,
) -> None:
    """Open a request, or start any other workflow."""
    from approvals_bot.app.directory import open_people
    from approvals_bot.service.catalog import load_catalog, read_configuration
    from approvals_bot.service.open import open_run

    given = read_object(input, "--input")

    async def run(engine: Engine, service: ServiceSettings) -> None:
        listing = load_catalog(read_configuration(config))
        async with open_people(service, engine.now) as people:
            started = await open_run(
                engine=engine,
                workflows=listing,
                people=people,
                name=workflow,
                input=given,
                opener=requester.lower() if requester else CLI,
                on_behalf_of=on_behalf_of,
                idempotency_key=key,
            )
        url = f"{str(service.server.base_url).rstrip('/')}/requests/{started.id}"
        show.say({"run_id": started.id, "url": url, "is_new": started.is_new}, f"{started.id}\n{url}", as_json)

    with_engine(config, run)


def simulate(
    workflow: Annotated[str, typer.Argument(help="A workflow's name.", metavar="WORKFLOW")],
    config: Config = CONFIG,
    input: Input = "{}",
    requester: Annotated[
        str, typer.Option(help="Who would ask: a person's address, or app:NAME.", metavar="ADDRESS")
    ] = CLI,
    on_behalf_of: OnBehalfOf = None,
    live: Annotated[
        bool, typer.Option("--live", help="Ask Slack and HTTP sources who is in their groups now.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say who would be asked, when and how; send nothing.

    Exits 1 if such a request could not be opened, and says why.
    """
    from approvals_bot.app.directory import open_people
    from approvals_bot.approvals import fields
    from approvals_bot.approvals.request import Opening
    from approvals_bot.approvals.simulate import simulate as play
    from approvals_bot.service.catalog import load_catalog, read_configuration
    from approvals_bot.service.open import OpeningRefused, check_requester

    given, asks = read_object(input, "--input"), requester.lower()
    behalf = on_behalf_of.lower() if on_behalf_of else None
    configuration = read_configuration(config)
    listed = load_catalog(configuration).find(workflow)
    if listed is None:
        fail(f"No workflow named {workflow!r} is listed here.")
    definition = listed.definition
    if definition is None or not definition.is_approval:
        fail(f"{workflow!r} is a Python workflow: only running it can tell what it does.")
    now = clock_of(config).now()

    async def look() -> tuple[dict[str, Any], list[str]]:
        opening = Opening(fields.dump(definition, fields.values(definition, given)), asks, behalf)
        async with open_people(configuration.service, lambda: now, live=live) as people:
            found = await play(definition, opening, people, now)
            problems = list(found.pop("problems"))
            try:
                await check_requester(definition, asks, asks, behalf, people)
            except OpeningRefused as refused:
                if refused.code != "group_unknown":  # a source was not asked, or is down: it may well be allowed
                    problems.append(sentence(refused))
            return found, problems

    found, problems = asyncio.run(look())
    show.say(found, simulated(workflow, found, now), as_json)
    if problems:
        fail("\n".join(["⚠ It would not be opened:", *(f"  {problem}" for problem in problems)]))


def vote(
    run: RunId,
    by: Annotated[str, typer.Option(help="Who votes: her address.", metavar="ADDRESS")],
    choice: Annotated[str, typer.Option(help=f"One of {', '.join(get_args(ChoiceName))}.")],
    config: Config = CONFIG,
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    answer: Annotated[
        list[str] | None, typer.Option(help="What the stage asks for; may be repeated.", metavar="NAME=VALUE")
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="With --choice edit: a field's new value.", metavar="NAME=VALUE")
    ] = None,
    digest: Annotated[str | None, typer.Option(help="Count only if the pinned fields still have this digest.")] = None,
    as_json: Json = False,
) -> None:
    """Cast a person's vote, by the same rules as everywhere.

    Exits 1 if it was refused.
    """
    from approvals_bot.approvals.acts import Vote
    from approvals_bot.service.act import perform

    if choice not in get_args(ChoiceName):
        fail(f"There is no choice {choice!r}. Choices: {', '.join(get_args(ChoiceName))}.")
    answers, changes = read_pairs(answer or (), "--answer"), read_pairs(field or (), "--field")

    async def act(engine: Engine, _: ServiceSettings) -> None:
        request = _request_of(await _opened(engine, run))
        given = Vote(
            by=by.lower(),
            choice=cast("ChoiceName", choice),
            via="cli",
            comment=comment,
            answers=_typed(answers, request.stage.asks if request.stage else ()),
            fields=_typed(changes, request.editable),
            digest=digest,
        )
        reply = await perform(engine, request, given)
        _said({"verdict": reply.verdict, "text": reply.text, "changed": reply.changed}, as_json)

    with_engine(config, act)


def reassign(
    run: RunId,
    person: Annotated[str, typer.Option("--to", help="Who is to be asked: her address.", metavar="ADDRESS")],
    config: Config = CONFIG,
    by: Annotated[
        str | None, typer.Option(help="Who says so; you, at this terminal, when left out.", metavar="ADDRESS")
    ] = None,
    instead_of: Annotated[
        str | None,
        typer.Option("--from", help="Whose place she takes; without it, she is asked as well.", metavar="ADDRESS"),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    as_json: Json = False,
) -> None:
    """Ask somebody else, instead of an approver or as well.

    Exits 1 if it was refused.
    """
    from approvals_bot.approvals.acts import Reassign
    from approvals_bot.service.act import perform

    async def act(engine: Engine, _: ServiceSettings) -> None:
        request, who = _request_of(await _opened(engine, run)), by.lower() if by else CLI
        reply = await perform(engine, request, Reassign(who, person, instead_of, reason, "cli"))
        _said({"verdict": reply.verdict, "text": reply.text, "changed": reply.changed}, as_json)

    with_engine(config, act)


def cancel(
    run: RunId,
    config: Config = CONFIG,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    as_json: Json = False,
) -> None:
    """Withdraw a request, or end any other run.

    Exits 1 if it was refused.
    """
    from approvals_bot.approvals.acts import Stop, Withdraw
    from approvals_bot.service.act import perform

    async def end(engine: Engine, _: ServiceSettings) -> None:
        record = await _opened(engine, run)
        request = request_of(record)
        if request is None or record.has_ended or (request.number and not request.is_open):
            await engine.cancel(record.id, reason or None)
            show.say({"run_id": run, "status": "cancelled"}, f"{run} was cancelled.", as_json)
        else:
            act = Stop if request.number and run == record.id else Withdraw
            reply = await perform(engine, request, act(CLI, reason, "cli"))
            _said({"run_id": run, "verdict": reply.verdict, "text": reply.text}, as_json)

    with_engine(config, end)


def explain(run: RunId, config: Config = CONFIG, as_json: Json = False) -> None:
    """Say why a run waits.

    For whom, every rule with its values, and what comes next.
    """
    from approvals_bot.approvals.explain import explain as why

    async def look(engine: Engine, _: ServiceSettings) -> None:
        record = await _opened(engine, run)
        request = request_of(record)
        if request is None:
            found, text = explained_program(record, await engine.events(record.id), engine.now())
        else:
            found = why(request)
            text = explained(record, request, found, engine.now())
        show.say(found, text, as_json)

    with_engine(config, look)


def _said(verdict: dict[str, Any], as_json: bool) -> None:
    """The verdict in its sentence, which is an error's where it is a refusal: on standard error, with exit 1."""
    from approvals_bot.approvals.acts import REFUSALS

    refused = verdict["verdict"] in REFUSALS
    if as_json or not refused:
        show.say(verdict, verdict["text"], as_json)
    if refused:
        fail(verdict["text"])


async def _opened(engine: Engine, run: str) -> RunRecord:
    """Return the run, once the service has begun with it: a request opened this very moment shows nothing yet."""
    record = await record_of(engine, run)
    until = time.monotonic() + PATIENCE
    while record.kind == REQUEST and not _has_begun(record) and time.monotonic() < until:
        record = await engine.wait(record.id, 0.1)
        if record.has_ended:
            break
    return record


def _has_begun(record: RunRecord) -> bool:
    """Tell whether it can be seen whom the request asks, and for what."""
    request = request_of(record)
    return request is not None and (request.stage is not None or not request.is_open)


def _request_of(record: RunRecord) -> Request:
    """Return the one request that is meant."""
    request = request_of(record)
    if several := choices_of(requests_of(record)):
        fail(f"{record.id} asks several things at once. Name one of them: {', '.join(several)}.")
    if request is None:
        fail(f"{record.id} is no request that people vote on, but a run of {record.workflow!r}.")
    return request


def _typed(texts: dict[str, str], asks: tuple[FormField, ...]) -> dict[str, Any]:
    """What was typed, as the JSON that these fields take. What can't be read stays text, and is refused by name."""
    kinds = {ask.name: ask.spec.type for ask in asks}
    typed: dict[str, Any] = dict(texts)
    for name, text in texts.items():
        match kinds.get(name):
            case "integer" if text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 20:
                typed[name] = int(text)
            case "boolean" if text.lower() in ("true", "yes", "false", "no"):
                typed[name] = text.lower() in ("true", "yes")
    return typed


def runs(
    config: Config = CONFIG,
    workflow: Annotated[str | None, typer.Option(help="Only runs of this workflow.")] = None,
    status: Annotated[str | None, typer.Option(help=f"Only runs with this status: {', '.join(show.STATUSES)}.")] = None,
    waiting_for: Annotated[
        str | None, typer.Option(help="Only runs that wait for this person.", metavar="ADDRESS")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where an earlier list said so.")] = None,
    as_json: Json = False,
) -> None:
    """List runs, the newest first."""
    if status is not None and status not in show.STATUSES:
        fail(f"There is no status {status!r}. Statuses: {', '.join(show.STATUSES)}.")
    whom = waiting_for.lower() if waiting_for else None

    async def look(engine: Engine, _: ServiceSettings) -> Page:
        try:
            return await engine.records(
                workflow,
                cast("Status | None", status),
                waiting_for=whom,
                is_open=True if whom else None,
                limit=limit,
                cursor=cursor,
            )
        except ValueError as error:
            fail(f"--cursor: {error}")

    page = with_engine(config, look)
    found = {"runs": [show.record_json(record) for record in page.records], "cursor": page.cursor}
    show.say(found, show.table(page), as_json)


def show_command(run: RunId, config: Config = CONFIG, as_json: Json = False) -> None:
    """Show a run: its card, and its log as a story."""

    async def look(engine: Engine, _: ServiceSettings) -> None:
        record, events = await record_of(engine, run), await engine.events(run.partition(".")[0])
        show.say(show.run_json(record, events), show.history_text(record, events, engine.now()), as_json)

    with_engine(config, look)


def resume(
    token: Annotated[str, typer.Argument(help="A hook's token.", metavar="TOKEN")],
    config: Config = CONFIG,
    payload: Annotated[str, typer.Option(help="The payload, as JSON.", metavar="JSON")] = "null",
    resume_id: Annotated[str | None, typer.Option(help="The same id twice is one payload.")] = None,
    as_json: Json = False,
) -> None:
    """Give a payload to a hook."""
    value = read_json(payload, "--payload")

    async def give(engine: Engine, service: ServiceSettings) -> None:
        import_programs(service.server.workflows)  # a hook's schema stands in its workflow's code
        info = await engine.resume_hook(token, value, resume_id=resume_id)
        show.say({"run_id": info.run_id, "hook_id": info.hook_id}, f"{info.run_id} was resumed.", as_json)

    with_engine(config, give)
