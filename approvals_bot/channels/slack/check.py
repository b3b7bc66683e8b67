"""`doctor`'s checks of Slack: token, scopes, the channels and groups that workflows name, and the clocks."""

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
"""Scopes that cards can do without; but a card whose confirmation is lost may then be posted twice."""

MOST_SKEW = 60  # seconds between our clock and Slack's; at 300 Slack's signatures are refused


async def examine(client: SlackClient, settings: Slack, asked: CheckUp) -> list[Diagnosis]:
    """Check everything in this workspace that a running service will need."""
    try:
        answer = await client.web.api_call("auth.test")
    except SlackApiError as refused:
        code = str(refused.response.get("error"))
        todo = "Use the app's Bot User OAuth Token (xoxb-…), under OAuth & Permissions."
        return [Diagnosis("FAIL", "Slack", f"Slack rejects the token: {code}", todo)]
    except (SlackClientError, OSError, TimeoutError) as failure:
        todo = "Check [slack] api_url, and that this machine can reach it."
        return [Diagnosis("FAIL", "Slack", f"{settings.api_url} is unreachable ({type(failure).__name__})", todo)]
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
        todo = f'Set app_id = "{theirs}", or use the other app\'s token.'
        yield Diagnosis("FAIL", "Slack", f"the token belongs to app {theirs}, but [slack] app_id is {ours}", todo)


def scopes_missing(headers: Mapping[str, str], has_groups: bool) -> Iterator[Diagnosis]:
    """Report the scopes that the token lacks. Slack lists them in a header, for most kinds of token."""
    given = next((value for name, value in headers.items() if name.lower() == "x-oauth-scopes"), None)
    if given is None:
        yield Diagnosis("WARN", "Slack scopes", "Slack doesn't list them for this token", "Compare with the manifest.")
        return
    scopes = {scope.strip() for scope in given.split(",")}
    missing = [scope for scope in SCOPES if scope not in scopes]
    for scope in missing:
        methods = [method for method, needs in METHODS.items() if scope in needs]
        what = f"{scope} is missing" + (f", so {' and '.join(methods)} won't work" if methods else "")
        is_needed = has_groups if scope == "usergroups:read" else not scope.startswith(OPTIONAL)
        todo = f"Add {scope} under OAuth & Permissions, and reinstall the app."
        yield Diagnosis("FAIL" if is_needed else "WARN", "Slack scopes", what, todo)
    if not missing:
        yield Diagnosis("OK", "Slack scopes", f"all {len(SCOPES)} required scopes granted")


def skew(headers: Mapping[str, str], now: datetime) -> Iterator[Diagnosis]:
    """Compare this machine's clock with Slack's, by the `Date` header."""
    said = next((value for name, value in headers.items() if name.lower() == "date"), "")
    try:
        seconds = abs((now - parsedate_to_datetime(said)).total_seconds())
    except (ValueError, TypeError):
        return
    if seconds > MOST_SKEW:
        what = f"this machine's clock is {seconds:,.0f} s off Slack's"
        yield Diagnosis("FAIL", "clock", what, "Set it by NTP: beyond 300 s, every click in Slack is refused.")
    else:
        yield Diagnosis("OK", "clock", f"within {seconds:,.0f} s of Slack's")


async def _socket_mode(settings: Slack, client: SlackClient) -> list[Diagnosis]:
    """Check that Slack accepts the app token. It doesn't connect, or Slack might send it a click."""
    if settings.app_token is None:
        return []
    token = settings.app_token.get_secret_value()
    try:
        await client.web.apps_connections_open(app_token=token)
    except SlackApiError as refused:
        todo = "Use an App-Level Token (xapp-…) with connections:write, and turn on Socket Mode for the app."
        what = f"Slack rejects the app token: {refused.response.get('error')}"
        return [Diagnosis("FAIL", "Slack Socket Mode", what, todo)]
    except (SlackClientError, OSError, TimeoutError) as failure:
        todo = "Try again: clicks arrive only over an open connection. /readyz shows its state."
        return [Diagnosis("FAIL", "Slack Socket Mode", f"can't connect ({type(failure).__name__})", todo)]
    return [Diagnosis("OK", "Slack Socket Mode", "Slack accepts the app token; /readyz shows the connection's state")]


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
        todo = "Grant the app channels:read (and groups:read for private channels)."
        yield Diagnosis("WARN", "Slack channels", f"they can't be listed: {error}", todo)
        return
    for name, workflow in named.items():
        place = known.get(name, {})
        what = f"{name} (of {workflow})"
        if not place:
            todo = "Create it or, if it's private, type /invite @<the app> in it."
            yield Diagnosis("FAIL", "Slack channel", f"{what} doesn't exist, or the app can't see it", todo)
        elif place.get("is_archived"):
            yield Diagnosis("FAIL", "Slack channel", f"{what} is archived", "Unarchive it, or name another one.")
        elif not place.get("is_member"):
            yield Diagnosis("FAIL", "Slack channel", f"the app isn't in {what}", f"Type /invite @<the app> in {name}.")
        else:
            yield Diagnosis("OK", "Slack channel", what)


async def _groups(client: SlackClient, handles: Sequence[str]) -> AsyncIterator[Diagnosis]:
    people = SlackPeople(client)
    for handle in handles:
        try:
            members = await people.members(handle)
        except SourceUnavailable as error:
            todo = "Look up the group's handle in Slack, under People & user groups."
            yield Diagnosis("FAIL", "Slack group", str(error), todo)
            continue
        if members:
            yield Diagnosis("OK", "Slack group", f"@{handle} has {len(members)} people")
        else:
            todo = "Members need an email address in Slack; guests and bots don't count."
            yield Diagnosis("FAIL", "Slack group", f"nobody in @{handle} can decide", todo)
