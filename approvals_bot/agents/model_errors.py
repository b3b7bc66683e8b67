"""What providers of models say when they refuse a request, without what may be the author's key.

Some quote the key that they refuse, and clients quote headers that they can't send. Errors of steps are logged, shown
on pages and exported, so they are cleaned before anything else sees them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from approvals_bot.errors import FatalError, StepFailedError

MASK = "•••"
SHORTEST = 6  # characters of a secret in the environment

REFUSES_KEY = frozenset({401, 403})
MAY_PASS = frozenset({408, 409, 425, 429})
"""Refusals of a request that may be granted later."""

_CLIENTS = re.compile(
    r"(pydantic_ai|agents|openai|anthropic|httpx2?|httpcore2?|h11|h2|aiohttp|requests|urllib3|groq|mistralai|cohere"
    r"|google|botocore|huggingface_hub|xai_sdk|litellm|langchain_(core|openai|anthropic))(\.|$)"
)
"""The packages whose errors quote what providers say."""

_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_TOKEN = re.compile(r"[A-Za-z0-9_\-.+/~*•…]{8,}")
_LOOKS_SECRET = re.compile(r"[*•…]|^(sk|pk|gsk|hf|xai)[-_]|(?=.*[A-Za-z])(?=.*[0-9-])|[a-z][A-Z].*[a-z][A-Z]")


def clean(error: BaseException) -> None:
    """Take what may be a key out of an error, and out of those that it came from, in place."""
    secrets = [
        value
        for name, value in os.environ.items()
        if len(value) >= 6 and _SECRET_NAME.search(name) and "/" not in value
    ]
    for one in _chain(error):
        is_clients = _CLIENTS.match(type(one).__module__) is not None
        with suppress(Exception):  # a class may refuse changes; then its text is its own
            _clean(one, secrets, is_clients)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen, rest = set[int](), [error]
    while rest:
        one = rest.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        rest += [other for other in (one.__cause__, one.__context__) if other is not None]
        if isinstance(one, BaseExceptionGroup):
            rest += one.exceptions


def _clean(error: BaseException, secrets: list[str], is_clients: bool) -> None:
    if isinstance(error, UnicodeEncodeError):  # has the whole header
        error.object = ""
        error.args = (error.encoding, "", error.start, error.end, error.reason)
        return
    model = getattr(error, "model_name", None)
    status = getattr(error, "status_code", None)
    if is_clients and status in REFUSES_KEY and hasattr(error, "body"):
        error.body = None
        said = f"status_code: {status}" + (f", model_name: {model}" if model else "") + ": the provider refused the key"
        for name in ("message", "hint", "headers"):
            if hasattr(error, name):
                setattr(error, name, said if name == "message" else None)
        error.args = (said,)
        return
    for name, value in vars(error).items():
        if name != "model_name":
            setattr(error, name, _masked(value, secrets, is_clients, model))
    error.args = tuple(_masked(value, secrets, is_clients, model) for value in error.args)


def _masked(value: Any, secrets: list[str], is_clients: bool, model: Any) -> Any:
    match value:
        case str() | bytes():
            text = value if isinstance(value, str) else value.decode(errors="replace")
            for secret in secrets:
                text = text.replace(secret, MASK)
            if is_clients:
                text = _TOKEN.sub(lambda found: _word(found[0], model), text)
            return text if isinstance(value, str) else text.encode()
        case dict():
            return {name: _masked(each, secrets, is_clients, model) for name, each in value.items()}
        case list() | tuple():
            return type(value)([_masked(each, secrets, is_clients, model) for each in value])
    return value


def _word(word: str, model: Any) -> str:
    bare = word.rstrip(".")
    return MASK + word[len(bare) :] if bare != model and _LOOKS_SECRET.search(bare) else word


def is_final(error: BaseException) -> bool:
    """Return whether the same request to a model would get the same error."""
    status = getattr(error, "status_code", None)
    return isinstance(status, int) and 400 <= status < 500 and status not in MAY_PASS


def cause_of(failed: StepFailedError) -> BaseException | None:
    """Return the error that a step failed with, below the FatalErrors that ended its attempts."""
    cause = failed.__cause__
    while isinstance(cause, FatalError):
        cause = cause.__cause__
    return cause
