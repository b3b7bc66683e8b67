"""Slack: the token, its scopes, every channel and group that is named, and the clocks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from slack_sdk.errors import SlackApiError, SlackClientError

from approvals_bot.approvals.port import CheckUp, Diagnosis
from approvals_bot.channels.slack.client import SlackClient, SlackError
from approvals_bot.channels.slack.manifest import METHODS, SCOPES
from approvals_bot.channels.slack.members import SlackPeople
from approvals_bot.config.service import Slack
from approvals_bot.people import SourceUnavailable

OPTIONAL = ("channels:", "groups:", "im:history")
"""Scopes without which cards still arrive; one whose confirmation was lost may then be posted twice."""

MOST_SKEW = 60  # seconds between our clock and Slack's; at 300 Slack's signatures are refused


async def examine(client: SlackClient, settings: Slack, asked: CheckUp) -> list[Diagnosis]:
    """Try everything about this workspace that a running service will need."""
    try:
        answer = await client.web.api_call("auth.test")
    except SlackApiError as refused:
        code = str(refused.response.get("error"))
        todo = "Take the Bot User OAuth Token (xoxb-…) of the app's page, under OAuth & Permissions."
        return [Diagnosis("FAIL", "Slack", f"it refuses the token: {code}", todo)]
    except (SlackClientError, OSError, TimeoutError) as failure:
        todo = "Look at [slack] api_url, and whether this machine may call it."
        return [Diagnosis("FAIL", "Slack", f"{settings.api_url} can't be reached ({type(failure).__name__})", todo)]
    said: Mapping[str, Any] = answer.data if isinstance(answer.data, dict) else {}
    found = [Diagnosis("OK", "Slack", f"connected to {said.get('team')} as {said.get('user')}")]
    found += _app(settings, said)
    found += scopes_missing(answer.headers, bool(asked.groups))
    found += skew(answer.headers, datetime.now(UTC))
    found += await _socket_mode(settings, client)
    found += [each async for each in _channels(client, asked.places)]
    found += [each async for each in _groups(client, asked.groups)]
    return found


def _app(settings: Slack, said: Mapping[str, Any]) -> Iterator[Diagnosis]:
    ours, theirs = settings.app_id, said.get("app_id")
    if ours is not None and theirs is not None and ours != theirs:
        todo = f'Write app_id = "{theirs}", or take the token of the other app.'
        yield Diagnosis("FAIL", "Slack", f"the token belongs to the app {theirs}, and [slack] app_id is {ours}", todo)


def scopes_missing(headers: Mapping[str, str], has_groups: bool) -> Iterator[Diagnosis]:
    """Scopes that the token lacks, by the header of any answer. Slack leaves it out for some kinds of token."""
    given = next((value for name, value in headers.items() if name.lower() == "x-oauth-scopes"), None)
    if given is None:
        yield Diagnosis("WARN", "Slack scopes", "Slack doesn't say which it has given", "Compare with the manifest.")
        return
    scopes = {scope.strip() for scope in given.split(",")}
    missing = [scope for scope in SCOPES if scope not in scopes]
    for scope in missing:
        methods = [method for method, needs in METHODS.items() if scope in needs]
        what = f"{scope} is missing" + (f", so {' and '.join(methods)} won't work" if methods else "")
        is_needed = has_groups if scope == "usergroups:read" else not scope.startswith(OPTIONAL)
        todo = f"Add {scope} under OAuth & Permissions, and install the app again."
        yield Diagnosis("FAIL" if is_needed else "WARN", "Slack scopes", what, todo)
    if not missing:
        yield Diagnosis("OK", "Slack scopes", f"all {len(SCOPES)} that are needed")


def skew(headers: Mapping[str, str], now: datetime) -> Iterator[Diagnosis]:
    said = next((value for name, value in headers.items() if name.lower() == "date"), "")
    try:
        seconds = abs((now - parsedate_to_datetime(said)).total_seconds())
    except (ValueError, TypeError):
        return
    if seconds > MOST_SKEW:
        what = f"this machine's clock is {seconds:,.0f} s off Slack's"
        yield Diagnosis("FAIL", "clock", what, "Set it by NTP: beyond 300 s every click from Slack is refused.")
    else:
        yield Diagnosis("OK", "clock", f"within {seconds:,.0f} s of Slack's")


async def _socket_mode(settings: Slack, client: SlackClient) -> list[Diagnosis]:
    """Whether Slack would give this app token a connection. None is opened: Slack might send a click to it."""
    if settings.app_token is None:
        return []
    token = settings.app_token.get_secret_value()
    try:
        await client.web.apps_connections_open(app_token=token)
    except SlackApiError as refused:
        todo = "Take an App-Level Token (xapp-…) with connections:write, and switch Socket Mode on for the app."
        return [
            Diagnosis("FAIL", "Slack Socket Mode", f"it refuses the app token: {refused.response.get('error')}", todo)
        ]
    except (SlackClientError, OSError, TimeoutError) as failure:
        todo = "Try again; clicks come only while a connection is open. /readyz tells how it is."
        return [Diagnosis("FAIL", "Slack Socket Mode", f"no connection to be had ({type(failure).__name__})", todo)]
    return [Diagnosis("OK", "Slack Socket Mode", "Slack takes the app token; /readyz of the service tells how it is")]


async def _channels(client: SlackClient, named: Mapping[str, str]) -> AsyncIterator[Diagnosis]:
    if not named:
        return
    known: dict[str, dict[str, Any]] = {}
    try:
        async for place in client.pages(
            "conversations.list", "channels", limit=999, types="public_channel,private_channel"
        ):
            known[str(place["id"])] = place
            known.setdefault(f"#{place['name']}", place)
    except SlackError as error:
        todo = "Give the app channels:read (and groups:read for private channels)."
        yield Diagnosis("WARN", "Slack channels", f"they can't be listed: {error}", todo)
        return
    for name, workflow in named.items():
        place = known.get(name, {})
        what = f"{name} (of {workflow})"
        if not place:
            todo = "Create it; or, if it is private, type /invite @<the app> in it."
            yield Diagnosis("FAIL", "Slack channel", f"{what} doesn't exist, or the app can't see it", todo)
        elif place.get("is_archived"):
            yield Diagnosis("FAIL", "Slack channel", f"{what} is archived", "Name another, or unarchive it.")
        elif not place.get("is_member"):
            yield Diagnosis("FAIL", "Slack channel", f"the app is not in {what}", f"Type /invite @<the app> in {name}.")
        else:
            yield Diagnosis("OK", "Slack channel", what)


async def _groups(client: SlackClient, handles: Sequence[str]) -> AsyncIterator[Diagnosis]:
    people = SlackPeople(client)
    for handle in handles:
        try:
            members = await people.members(handle)
        except SourceUnavailable as error:
            todo = "Look for the group's handle in Slack, under People & user groups."
            yield Diagnosis("FAIL", "Slack group", str(error), todo)
            continue
        if members:
            yield Diagnosis("OK", "Slack group", f"@{handle} has {len(members)} people")
        else:
            todo = "Members need a mail address in Slack; guests and bots don't count."
            yield Diagnosis("FAIL", "Slack group", f"@{handle} has nobody who could decide", todo)
