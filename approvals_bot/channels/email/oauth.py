"""Access tokens for mail accounts that log in by XOAUTH2: fetched when needed, and again once one was rejected.

A token is never logged, and neither is what a command or a token server says besides it.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from approvals_bot.config.mail import OAuth
from approvals_bot.errors import ApprovalsBotError

FETCH_LIMIT = 10.0  # seconds for a command or a token server
PAUSE = 60.0  # seconds between two fetches: a rejected token may be as good as the next
EARLY = 60.0  # seconds before its end that a token is replaced
LONGEST_ANSWER = 64_000  # bytes

_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")  # one word, so nothing in it can end a login's line


class NoTokenError(ApprovalsBotError):
    """There is no access token for the mail account. The message says why, without any secret."""


class Bearer:
    """The access token of one account."""

    def __init__(self, settings: OAuth, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._token: str | None = None
        self._ends_at: float | None = None
        self._fetched_at: float | None = None
        self._trouble = ""

    async def token(self) -> str:
        """Return the token, which is fetched if there is none or it ends soon. Raises NoTokenError."""
        async with self._lock:
            if self._token is not None and (self._ends_at is None or self._monotonic() < self._ends_at - EARLY):
                return self._token
            if not self._may_fetch():
                if self._token is None:
                    raise NoTokenError(self._trouble)
                return self._token
            return await self._fetch()

    async def renewed(self, rejected: str) -> str | None:
        """Return another token than the one that was just rejected; None if there is none now. Raises NoTokenError."""
        async with self._lock:
            if self._token is not None and self._token != rejected:
                return self._token
            if self._settings.token is not None or not self._may_fetch():
                return None
            fetched = await self._fetch()
            return fetched if fetched != rejected else None

    def _may_fetch(self) -> bool:
        return self._fetched_at is None or self._monotonic() >= self._fetched_at + PAUSE

    async def _fetch(self) -> str:
        self._fetched_at, self._token, self._ends_at = self._monotonic(), None, None
        try:
            token, lifetime = await self._asked()
            if not _TOKEN.fullmatch(token):
                raise NoTokenError("what came as the access token is none")
        except NoTokenError as error:
            self._trouble = str(error)
            raise
        self._token = token
        self._ends_at = None if lifetime is None else self._monotonic() + lifetime
        return token

    async def _asked(self) -> tuple[str, float | None]:
        settings = self._settings
        if settings.token is not None:
            return settings.token.get_secret_value(), None
        if settings.token_command is not None:
            return await _printed(settings.token_command), None
        return await _issued(settings)


async def _printed(command: Sequence[str]) -> str:
    """Run a command, and return what it prints: the bare token."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except (OSError, ValueError) as error:
        raise NoTokenError(f"the token command can't be run ({type(error).__name__})") from None
    try:
        async with asyncio.timeout(FETCH_LIMIT):
            printed, _ = await process.communicate()
    except TimeoutError:
        raise NoTokenError(f"the token command took longer than {FETCH_LIMIT:.0f} seconds") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise NoTokenError(f"the token command ended with status {process.returncode}")
    return printed[:LONGEST_ANSWER].decode("utf-8", "replace").strip()


async def _issued(settings: OAuth) -> tuple[str, float | None]:
    """Get a token for our client from the token server (RFC 6749, 4.4), and its lifetime in seconds, if it says one."""
    import aiohttp  # 0.1 s of CPU, for accounts that need it

    assert settings.token_url is not None
    assert settings.client_id is not None
    assert settings.client_secret is not None
    form = {
        "grant_type": "client_credentials",
        "client_id": settings.client_id,
        "client_secret": settings.client_secret.get_secret_value(),
    } | ({"scope": settings.scope} if settings.scope else {})
    limit = aiohttp.ClientTimeout(total=FETCH_LIMIT)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit, trust_env=False, proxy=settings.proxy_url) as session,
            session.post(str(settings.token_url), data=form, allow_redirects=False) as answer,
        ):
            content = b""
            while len(content) < LONGEST_ANSWER and (part := await answer.content.readany()):
                content += part
            if answer.status != 200:
                raise NoTokenError(f"the token server answered {answer.status}")
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise NoTokenError(f"the token server can't be reached ({type(error).__name__})") from None
    try:
        found = json.loads(content)
        lifetime = found.get("expires_in")
        return str(found["access_token"]), float(lifetime) if lifetime is not None else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise NoTokenError("the token server's answer has no access token") from None
