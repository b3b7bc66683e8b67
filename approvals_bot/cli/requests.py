"""Commands for requests and other runs: `start`, `simulate`, `vote`, `reassign`, `cancel`, `explain`, `runs`, …"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast, get_args
from zoneinfo import ZoneInfo

import click

from approvals_bot.approvals.card import editable_of
from approvals_bot.approvals.card_model import ChoiceName, FormField
from approvals_bot.approvals.json_values import UnfitError, parse_typed
from approvals_bot.approvals.leaves import YES_NO
from approvals_bot.approvals.published import REQUEST
from approvals_bot.approvals.request import Request
from approvals_bot.approvals.text import NEVER_REQUESTED, NOT_REQUESTED_YET, UNCHANGED
from approvals_bot.cli import show, terminal
from approvals_bot.cli.commands import error_text
from approvals_bot.cli.common import (
    clock_of,
    config_option,
    fail,
    identity,
    input_option,
    json_option,
    misuse,
    on_behalf_of_option,
    read_json,
    read_object,
    read_pairs,
    record_of,
    run_argument,
    shown_reason_option,
    this_user,
    with_engine,
)
from approvals_bot.cli.show import explained, explained_program, simulated
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.core.local_time import moment_of
from approvals_bot.durable.engine import Engine, Page, RunRecord
from approvals_bot.durable.store.protocol import Status
from approvals_bot.errors import RunNotFoundError, StoreUnavailableError
from approvals_bot.service.python_workflows import import_programs
from approvals_bot.service.read import await_request, choices_of, request_of, requests_of
from approvals_bot.service.waiting import waits_of

PATIENCE = 5.0  # seconds to wait until the running service has opened a request
LOOKING = 2.0  # seconds for which `cancel` looks whether the run ends

CLI = "app:cli"
"""The actor if no option names one."""


@click.command()
@click.argument("workflow", help="A workflow's name.")
@config_option
@input_option
@click.option(
    "--requester", metavar="ADDRESS", help="The requester: a person's address, or app:NAME. Default: app:cli."
)
@on_behalf_of_option
@click.option("--key", help="Idempotency key: the same key returns the same run.")
@json_option
def start(
    workflow: str,
    config: Path,
    input: str,
    requester: str | None,
    on_behalf_of: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Open a request, or start any other workflow.

    Prints the run's ID and the URL of its page.

    \b
    Example: approvals-bot start deploy --requester bo@acme.eu --input '{"version": "2.1"}'
    """
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
                opener=identity(requester, service, "--requester") if requester else CLI,
                on_behalf_of=on_behalf_of,
                idempotency_key=key,
                actor=this_user(),
            )
        listed = listing.find(workflow)
        page = "requests" if listed is not None and listed.is_approval else "runs"  # a Python run may request nothing
        url = f"{str(service.server.base_url).rstrip('/')}/{page}/{started.id}"
        terminal.say({"run_id": started.id, "url": url, "is_new": started.is_new}, f"{started.id}\n{url}", as_json)

    with_engine(config, run)


@click.command()
@click.argument("workflow", help="A workflow's name.")
@config_option
@input_option
@click.option("--requester", default=CLI, metavar="ADDRESS", help="The requester: a person's address, or app:NAME.")
@on_behalf_of_option
@click.option("--at", metavar="TIME", help="When it opens, in the zone of [clock]: 2026-12-24T18:30. Default: now.")
@click.option("--live", is_flag=True, help="Read groups from Slack and HTTP sources.")
@json_option
def simulate(
    workflow: str,
    config: Path,
    input: str,
    requester: str,
    on_behalf_of: str | None,
    at: str | None,
    live: bool,
    as_json: bool,
) -> None:
    """Show who a request would notify, when and how.

    Sends nothing. Exits with 1 if the request would be refused, and says why.

    \b
    Example: approvals-bot simulate deploy --requester bo@acme.eu --input '{"version": "2.1"}'
    """
    from approvals_bot.app.directory import open_people
    from approvals_bot.approvals import fields
    from approvals_bot.approvals.request import Opening
    from approvals_bot.approvals.simulate import simulate as play
    from approvals_bot.service.catalog import load_catalog, read_configuration
    from approvals_bot.service.open import check_requester
    from approvals_bot.service.own_people import read_own_people
    from approvals_bot.service.refusals import OpeningRefused

    given, configuration = read_object(input, "--input"), read_configuration(config)
    opener = identity(requester, configuration.service, "--requester")
    behalf = identity(on_behalf_of, configuration.service, "--on-behalf-of") if on_behalf_of else None
    listed = load_catalog(configuration).find(workflow)
    if listed is None:
        fail(f"There is no workflow named {workflow!r}. `approvals-bot check` lists them.")
    definition = listed.definition
    if definition is None or not definition.is_approval:
        fail(f"{workflow!r} is a Python workflow, which can't be simulated.")
    now = clock_of(config).now() if at is None else _moment(at, definition.clock.zone or "UTC")
    service = configuration.service

    for name, spec in definition.fields.items():
        if spec.holds_files:  # nothing is uploaded for a simulation
            given[name] = _as_files(given.get(name))

    async def look() -> tuple[dict[str, Any], list[str]]:
        opening = Opening(fields.dump(definition.fields, fields.values(definition.fields, given)), opener, behalf)
        async with open_people(service, lambda: now, live=live) as people:
            try:
                people.own = await read_own_people(service.server.database.get_secret_value())
            except StoreUnavailableError as error:
                click.echo(f"⚠ {error} What people have set at /me is left out.", err=True)
            found = await play(definition, opening, people, now, has_slack=service.slack is not None)
            problems = list(found.pop("problems"))
            try:
                await check_requester(definition, opener, opener, behalf, people)
            except OpeningRefused as refused:
                if refused.code != "group_unknown":  # a source was not read, or is down: it may well be allowed
                    problems.append(error_text(refused))
            return found, problems

    found, problems = asyncio.run(look())
    terminal.say(found, simulated(workflow, found, now, "then" if at else "now"), as_json)
    if problems:
        fail("\n".join(["⚠ This request would be refused:", *(f"  {problem}" for problem in problems)]))


def _moment(text: str, zone: str) -> datetime:
    """Return the time that this says, in this zone unless it has an offset."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        misuse(f"{text!r} is not a time; write it like 2026-12-24T18:30 or 2026-12-24T17:30:00Z.")
    if not 1970 <= moment.year < 9000:  # a deadline and its reminders come after it
        misuse(f"{text!r} is too far from today.")
    return moment.astimezone(UTC) if moment.tzinfo is not None else moment_of(moment, ZoneInfo(zone))


@click.command()
@run_argument
@click.option("--by", required=True, metavar="ADDRESS", help="The voter's address.")
@click.option("--choice", required=True, help=f"One of {', '.join(get_args(ChoiceName))}.")
@config_option
@click.option("--comment", default="", show_default=False, help="A comment, shown with the vote.")
@click.option("--answer", multiple=True, metavar="NAME=VALUE", help="An answer that the stage asks for; repeatable.")
@click.option(
    "--field", multiple=True, metavar="NAME=VALUE", help="A field's new value, with --choice edit; repeatable."
)
@click.option("--digest", help="Refuse the vote unless the pinned fields have this digest.")
@json_option
def vote(
    run: str,
    by: str,
    choice: str,
    config: Path,
    comment: str,
    answer: tuple[str, ...],
    field: tuple[str, ...],
    digest: str | None,
    as_json: bool,
) -> None:
    """Cast a person's vote.

    The same rules apply as in every channel. Exits with 1 if the vote is refused.

    \b
    Example: approvals-bot vote RUN --by ann@acme.eu --choice approve --comment "Looks good"
    """
    from approvals_bot.approvals.acts import Vote
    from approvals_bot.service.act import perform

    if choice not in get_args(ChoiceName):
        misuse(f"There is no choice {choice!r}. Choices: {', '.join(get_args(ChoiceName))}.")
    answers, changes = read_pairs(answer, "--answer"), read_pairs(field, "--field")

    async def act(engine: Engine, service: ServiceSettings) -> None:
        voter = identity(by, service, "--by")
        request = request_of_run(await to_act_on(engine, run))
        given = Vote(
            by=voter,
            choice=cast("ChoiceName", choice),
            via="cli",
            comment=comment,
            answers=_typed(answers, request.stage.asks if request.stage else ()),
            fields=_typed(changes, (*request.editable, *editable_of(request))),
            digest=digest,
            actor=this_user(),
        )
        reply = await perform(engine, request, given)
        print_reply({"verdict": reply.verdict, "text": reply.text, "changed": reply.changed}, as_json)

    with_engine(config, act)


@click.command()
@run_argument
@click.option("--to", "person", required=True, metavar="ADDRESS", help="The new approver's address.")
@config_option
@click.option("--by", metavar="ADDRESS", help="The person who reassigns; the operator by default.")
@click.option(
    "--from", "instead_of", metavar="ADDRESS", help="The approver to replace; without it, an approver is added."
)
@shown_reason_option
@json_option
def reassign(
    run: str, person: str, config: Path, by: str | None, instead_of: str | None, reason: str, as_json: bool
) -> None:
    """Replace an approver, or add one.

    Exits with 1 if it is refused.

    \b
    Example: approvals-bot reassign RUN --from ann@acme.eu --to di@acme.eu --reason "Ann is ill"
    """
    from approvals_bot.approvals.acts import Reassign
    from approvals_bot.service.act import perform

    async def act(engine: Engine, service: ServiceSettings) -> None:
        acting = identity(by, service, "--by") if by else CLI
        place = identity(instead_of, service, "--from") if instead_of else instead_of
        given = Reassign(acting, identity(person, service, "--to"), place, reason, "cli", actor=this_user())
        reply = await perform(engine, request_of_run(await to_act_on(engine, run)), given)
        print_reply({"verdict": reply.verdict, "text": reply.text, "changed": reply.changed}, as_json)

    with_engine(config, act)


@click.command()
@run_argument
@config_option
@shown_reason_option
@json_option
def cancel(run: str, config: Path, reason: str, as_json: bool) -> None:
    """Withdraw a request, or cancel any other run.

    Exits with 1 if it is refused, for example because the request is already decided.

    \b
    Example: approvals-bot cancel RUN --reason "Not needed any more"
    """
    from approvals_bot.approvals.acts import Stop, Withdraw
    from approvals_bot.service.act import perform
    from approvals_bot.service.repairs import cancel_run

    async def end(engine: Engine, _: ServiceSettings) -> None:
        record = await _opened(engine, run)
        request = request_of(record)
        if request is None or record.has_ended or (request.number and not request.is_open):
            await cancel_run(engine, record.id, who=CLI, actor=this_user(), reason=reason)
            now = await engine.wait(record.id, LOOKING)
            text = "was cancelled" if now.has_ended else "was asked to end, and may still tidy up"
            terminal.say({"run_id": run, "status": now.status}, f"{run} {text}.", as_json)
        else:
            act = Stop if request.number and run == record.id else Withdraw
            reply = await perform(engine, request, act(CLI, reason, "cli", actor=this_user()))
            print_reply({"run_id": run, "verdict": reply.verdict, "text": reply.text}, as_json)

    with_engine(config, end)


@click.command()
@run_argument
@config_option
@json_option
def explain(run: str, config: Path, as_json: bool) -> None:
    """Explain what a run is waiting for.

    Lists the people and the reason for each, every rule with its values, and what happens next.
    """
    from approvals_bot.approvals.explain import explain as why

    async def look(engine: Engine, _: ServiceSettings) -> None:
        record = await _opened(engine, run)
        request = request_of(record)
        if request is None:
            whole, events = await engine.read(record.id)
            waits = waits_of(whole, events, engine.steps_in_line(whole, events))
            found, text = explained_program(record, waits, engine.link, engine.now())
        else:
            found = why(request)
            text = explained(record, request, found, engine.now())
        terminal.say(found, text, as_json)

    with_engine(config, look, to_read=True)


def print_reply(verdict: dict[str, Any], as_json: bool) -> None:
    """Print the reply to an act. A refusal goes to standard error and exits with 1."""
    from approvals_bot.approvals.acts import REFUSALS

    refused = verdict["verdict"] in REFUSALS
    if as_json or not refused:
        terminal.say(verdict, verdict["text"], as_json)
    if refused:
        fail(verdict["text"])


async def _opened(engine: Engine, run: str) -> RunRecord:
    """Return the run once the service has begun it; a brand-new request shows nothing yet."""
    record = await record_of(engine, run)
    return await to_act_on(engine, run) if record.kind == REQUEST else record


async def to_act_on(engine: Engine, run: str) -> RunRecord:
    """Return the run once its request is open. Raises RunNotFoundError."""
    record = await await_request(engine, run, PATIENCE, _has_begun)
    if record is None:
        raise RunNotFoundError(run)
    return record


def _as_files(given: Any) -> Any:
    """Return files of these names, without content."""
    from approvals_bot.approvals.files import StoredFile

    if isinstance(given, list):
        return [_as_files(each) for each in given]
    return StoredFile(given, given, 0, "", "").as_json() if isinstance(given, str) else given


def _has_begun(record: RunRecord) -> bool:
    """Check whether the request has a stage, or has ended without one."""
    request = request_of(record)
    return request is not None and (request.stage is not None or not request.is_open)


def request_of_run(record: RunRecord) -> Request:
    """Return the run's one request. Fails if there is none, or if several are open."""
    request = request_of(record)
    if several := choices_of(requests_of(record)):
        fail(f"{record.id} has several requests. Name one of them: {', '.join(several)}.")
    if request is None:
        fail(NEVER_REQUESTED if record.has_ended else NOT_REQUESTED_YET)
    return request


def _typed(texts: dict[str, str], asks: tuple[FormField, ...]) -> dict[str, Any]:
    """Convert the typed texts to the fields' JSON types. Others stay text, which validation then refuses by name."""
    kinds = {ask.name: ask.spec.type for ask in asks}
    leaves = {ask.name for ask in asks if ask.is_leaf}
    typed: dict[str, Any] = dict(texts)
    for name, text in texts.items():
        match kinds.get(name):
            case "integer" if text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 20:
                typed[name] = int(text)
            case "list":
                typed[name] = [line.strip() for line in text.splitlines() if line.strip()]
            case "array" | "object" | "arguments":
                try:
                    typed[name] = parse_typed(text)
                except UnfitError as error:
                    fail(f"{name}: {error}. {UNCHANGED}")
            case "enum" if name in leaves and text in YES_NO:
                typed[name] = text == YES_NO[0]
            case "decimal" if name in leaves:
                with suppress(UnfitError):  # validation says what a number is
                    typed[name] = parse_typed(text)
            case "boolean" if text.lower() in ("true", "yes", "false", "no"):
                typed[name] = text.lower() in ("true", "yes")
    return typed


@click.command()
@config_option
@click.option("--workflow", help="Only runs of this workflow.")
@click.option("--status", help=f"Only runs with this status: {', '.join(show.STATUSES)}.")
@click.option("--waiting-for", metavar="ADDRESS", help="Only open runs that wait for this person.")
@click.option("--limit", type=click.IntRange(min=1, max=500), default=50, help="The most runs to list.")
@click.option("--cursor", help="Continue an earlier list, with the cursor it printed.")
@json_option
def runs(
    config: Path,
    workflow: str | None,
    status: str | None,
    waiting_for: str | None,
    limit: int,
    cursor: str | None,
    as_json: bool,
) -> None:
    """List runs, newest first.

    \b
    Example: approvals-bot runs --waiting-for ann@acme.eu
    """
    if status is not None and status not in show.STATUSES:
        misuse(f"There is no status {status!r}. Statuses: {', '.join(show.STATUSES)}.")

    async def look(engine: Engine, service: ServiceSettings) -> Page:
        person = identity(waiting_for, service, "--waiting-for") if waiting_for else None
        try:
            return await engine.records(
                workflow,
                cast("Status | None", status),
                waiting_for=person,
                is_open=True if person else None,
                limit=limit,
                cursor=cursor,
            )
        except ValueError as error:
            misuse(f"--cursor: {error}")

    page = with_engine(config, look, to_read=True)
    found = {"runs": [show.record_json(record) for record in page.records], "cursor": page.cursor}
    terminal.say(found, show.table(page), as_json)


@click.command()
@run_argument
@config_option
@json_option
def show_command(run: str, config: Path, as_json: bool) -> None:
    """Show a run: its card and its timeline."""

    async def look(engine: Engine, _: ServiceSettings) -> None:
        record, (whole, events) = await record_of(engine, run), await engine.read(run.partition(".")[0])
        about = record, waits_of(whole, events, engine.steps_in_line(whole, events)), events, engine.link
        text = show.history_text(*about, engine.now(), max_waiting=engine.max_waiting)
        terminal.say(show.run_json(*about), text, as_json)

    with_engine(config, look, to_read=True)


@click.command()
@click.argument("token", help="A hook's token.")
@config_option
@click.option("--payload", default="null", metavar="JSON", help="The payload, as JSON.")
@click.option("--resume-id", help="Idempotency key: the same key delivers one payload.")
@json_option
def resume(token: str, config: Path, payload: str, resume_id: str | None, as_json: bool) -> None:
    """Resume a run that waits for a hook.

    \b
    Example: approvals-bot resume order-17 --payload '{"paid": true}'
    """
    value = read_json(payload, "--payload")

    async def give(engine: Engine, service: ServiceSettings) -> None:
        import_programs(service.server.workflows)  # a hook's schema is in its workflow's code
        info = await engine.resume_hook(token, value, resume_id=resume_id, actor=this_user().as_json())
        terminal.say({"run_id": info.run_id, "hook_id": info.hook_id}, f"{info.run_id} was resumed.", as_json)

    with_engine(config, give)
