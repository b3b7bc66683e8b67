"""Slack's Web API: nothing is sent twice by accident, and every error says what to do.

`ask` returns the answer or raises one of three errors: `LaterError`, `NeverError`, or `AnswerLostError` (the connection
broke after the request was sent, so Slack may have carried it out). A rate-limited method is not called again before
Slack's `Retry-After` has passed; others go on. Slack limits posts by conversation, and all else by workspace.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from approvals_bot.channels.slack.reasons import LATER, LOST, REFUSED, reason_of
from approvals_bot.durable.core.serialization import json_text
from approvals_bot.durable.core.threads import import_alone
from approvals_bot.durable.store.encoding import readable_json
from approvals_bot.errors import ApprovalsBotError

if TYPE_CHECKING:  # loaded when they are used: see `bolt_app`
    import aiohttp
    from slack_sdk.web.async_client import AsyncWebClient

JSON = {"Content-Type": "application/json; charset=utf-8"}
CALL_LIMIT, CONNECT_LIMIT = 20, 5  # seconds; Slack answers within 1 or not soon
BY_CONVERSATION = frozenset({"chat.postMessage"})  # methods that are rate-limited for each conversation separately
LONG_LIMIT = timedelta(minutes=1)  # a rate limit that people notice: shorter ones are daily life
NOT_SAID = timedelta(seconds=30)  # for a rate limit without Retry-After

INSTALL_ERRORS = frozenset(
    {
        "invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "not_allowed_token_type",
        "team_access_not_granted", "app_access_restricted", "ekm_access_denied",
    }
)  # fmt: skip
"""Errors of the whole installation, not of one message."""

TRANSIENT_ERRORS = frozenset(
    {
        "message_limit_exceeded", "internal_error", "fatal_error", "service_unavailable", "request_timeout",
        "update_failed", "external_channel_migrating", "team_added_to_org",
    }
)  # fmt: skip
"""Errors that may go away. All others are final."""

Answered = tuple[int, Mapping[str, str], dict[str, Any]]
"""A response: its status, its headers, and its JSON object, empty if it isn't one."""

log = logging.getLogger(__name__)


class SlackError(ApprovalsBotError):
    """Slack refused or failed. `code` is Slack's own error code, `reason` what people read."""

    otherwise = REFUSED  # what people read of a code that has no words of its own

    def __init__(self, method: str, code: str, hint: str = "") -> None:
        self.method = method
        self.code = code
        super().__init__(f"{method}: {code}" + (f" ({hint})" if hint else ""))

    @property
    def reason(self) -> str:
        """Why, as cards, pages and mails say it."""
        return reason_of(self.code, self.otherwise)


class LaterError(SlackError):
    """Not now: a rate limit or an outage. Ask again, not before `after` if it is given."""

    otherwise = LATER

    def __init__(self, method: str, code: str, after: timedelta | None = None) -> None:
        self.after = after
        super().__init__(method, code)


class NeverError(SlackError):
    """It will not work: no such conversation, not invited, a scope is missing. `install`: nothing will."""

    def __init__(self, method: str, code: str, hint: str = "", install: bool = False) -> None:
        self.install = install
        super().__init__(method, code, hint)


class AnswerLostError(LaterError):
    """The connection broke after the request had left: it was carried out, or not. Look before asking again."""

    otherwise = LOST


OF_A_TEAM = frozenset({"conversations.list", "usergroups.list", "usergroups.users.list"})
"""The methods that need a workspace's id with the token of an app that is installed in a whole organisation."""


class SlackClient:
    """One workspace's Web API over one session, which is opened with the first call.

    All calls go through `proxy`, if there is one, which looks up Slack's name. The environment's proxies are not used.

    Calls go over that session directly: the same through slack_sdk took twice the CPU (benchmarks/parts/approval.py),
    because it writes each request and response down for a debug line, whether or not anybody logs it.
    """

    def __init__(
        self,
        *,
        token: str,
        api_url: str = "https://slack.com/api/",
        proxy: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.monotonic = monotonic
        self.proxy = proxy
        self._token = token
        self._api_url = api_url if api_url.endswith("/") else f"{api_url}/"
        self._session: aiohttp.ClientSession | None = None
        self._web: AsyncWebClient | None = None
        self._blocked: dict[tuple[str, str], float] = {}  # (method, conversation or "") → monotonic time
        self._team: str | None = None  # the workspace to name in some calls, if our token is for a whole organisation

    @property
    def token(self) -> str:
        return self._token

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session of all calls. Use it only in the event loop that opened it, with its first call."""
        if self._session is None:
            import aiohttp

            limit, jar = aiohttp.ClientTimeout(total=CALL_LIMIT, connect=CONNECT_LIMIT), aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(timeout=limit, trust_env=False, cookie_jar=jar, proxy=self.proxy)
        return self._session

    @property
    def web(self) -> AsyncWebClient:
        """Slack's own client, on the same session."""
        if self._web is None:
            import_alone("slack_sdk.web.async_client")  # bolt, which imports it, may be loading in a thread
            from slack_sdk.web.async_client import AsyncWebClient

            url, session = self._api_url, self.session
            self._web = AsyncWebClient(token=self._token, base_url=url, session=session, retry_handlers=[])
            self._web.proxy = self.proxy  # the constructor takes HTTPS_PROXY and knows no NO_PROXY
        return self._web

    async def aclose(self) -> None:
        """Close the session, if it was opened."""
        if self._session is not None:
            await self._session.close()
        self._session = self._web = None

    async def ask(self, method: str, *, conversation: str = "", get: bool = False, **arguments: Any) -> dict[str, Any]:
        """Call a method. `conversation` is the one whose rate limit a post counts against.

        A token for a whole organisation has to name a workspace where it lists something: the first one it is for.
        Raises LaterError, NeverError or AnswerLostError.
        """
        if method not in OF_A_TEAM:
            return await self._ask(method, conversation, get, arguments)
        try:
            return await self._ask(method, conversation, get, arguments | {"team_id": self._team})
        except NeverError as never:
            if never.code != "missing_argument" or self._team is not None:
                raise
        self._team = await self._first_team()
        return await self._ask(method, conversation, get, arguments | {"team_id": self._team})

    async def _first_team(self) -> str:
        found = (await self._ask("auth.teams.list", "", True, {"limit": 1})).get("teams") or [{}]
        return str(found[0].get("id") or "")

    async def _ask(self, method: str, conversation: str, get: bool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        import aiohttp

        limited = (method, conversation if method in BY_CONVERSATION else "")
        if (left := self._blocked.get(limited, 0.0) - self.monotonic()) > 0:
            raise LaterError(method, "ratelimited", timedelta(seconds=left))
        self._blocked.pop(limited, None)
        given = {name: value for name, value in arguments.items() if value is not None}
        try:
            status, headers, answer = await self._call(method, given, get)
        except aiohttp.ClientConnectorError as failure:
            raise LaterError(method, f"unreachable: {type(failure).__name__}") from None
        except (TimeoutError, aiohttp.ClientError, OSError) as failure:
            raise AnswerLostError(method, f"no answer: {type(failure).__name__}") from None
        if status == 200 and answer.get("ok"):
            return answer
        raise self._meaning(limited, status, headers, answer)

    async def _call(self, method: str, given: Mapping[str, Any], get: bool) -> Answered:
        given = {"params": _params(given)} if get else {"data": json_text(given).encode()}
        headers = {"Authorization": f"Bearer {self._token}", **({} if get else JSON)}
        verb, url = "GET" if get else "POST", self._api_url + method
        async with self.session.request(verb, url, headers=headers, **given) as response:
            answer = readable_json((await response.read()).decode(errors="replace"), dict)
        return response.status, response.headers, answer or {}

    async def pages(
        self, method: str, key: str, *, limit: int = 200, **arguments: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield all items under `key` of a paginated method, from at most 20 pages."""
        cursor: str | None = None
        for _ in range(20):
            answer = await self.ask(method, get=True, limit=limit, cursor=cursor, **arguments)
            for item in answer.get(key) or ():
                yield item
            cursor = (answer.get("response_metadata") or {}).get("next_cursor") or None
            if cursor is None:
                return

    async def ids(self, method: str, key: str, *, limit: int, **arguments: Any) -> AsyncIterator[str]:
        """Yield all ids under `key` of a paginated method, from at most 20 pages."""
        async for item in self.pages(method, key, limit=limit, **arguments):
            yield str(item)

    def _meaning(
        self, limited: tuple[str, str], status: int, headers: Mapping[str, str], data: dict[str, Any]
    ) -> SlackError:
        method = limited[0]
        code = str(data.get("error") or f"HTTP {status}")
        if status == 429 or code in ("ratelimited", "rate_limited"):
            after = _retry_after(headers)
            self._blocked[limited] = self.monotonic() + after.total_seconds()
            if after >= LONG_LIMIT:
                log.warning(
                    "Slack limits %s: nothing is sent by it for %.0f s, and then again. If that lasts, see which "
                    "workflow or other app writes so much",
                    method,
                    after.total_seconds(),
                )
            return LaterError(method, "ratelimited", after)
        if code in TRANSIENT_ERRORS:
            return LaterError(method, code)
        if status >= 500 or not data:
            return AnswerLostError(method, f"HTTP {status}")  # a gateway may answer 502 although Slack did it
        hint = f"needs {data['needed']}" if data.get("needed") else _messages(data)
        if code in INSTALL_ERRORS:
            log.error("Slack doesn't work: %s. Check [slack] bot_token, or reinstall the app.", code)
        return NeverError(method, code, hint, install=code in INSTALL_ERRORS)


@asynccontextmanager
async def slack_client(
    *,
    token: str,
    api_url: str = "https://slack.com/api/",
    proxy: str | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[SlackClient]:
    """Open a client that is closed when the block ends."""
    client = SlackClient(token=token, api_url=api_url, proxy=proxy, monotonic=monotonic)
    try:
        yield client
    finally:
        await client.aclose()


def _params(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a URL; Slack reads truth values as 1 and 0."""
    return {name: int(value) if isinstance(value, bool) else value for name, value in given.items()}


def _retry_after(headers: Mapping[str, str]) -> timedelta:
    said = headers.get("Retry-After", "")
    return timedelta(seconds=min(int(said), 3_600)) if said.isdecimal() else NOT_SAID


def _messages(data: dict[str, Any]) -> str:
    """Return Block Kit's validation messages: our own mistakes. They name places, not contents."""
    messages = (data.get("response_metadata") or {}).get("messages") or ()
    return "; ".join(str(message) for message in messages)[:300]
