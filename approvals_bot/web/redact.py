"""Events as others may read them: everything but what would let them act as somebody else."""

from __future__ import annotations

import re
from typing import Any

REDACTED = "(redacted)"

SECRET_NAMES = frozenset(
    {"token", "url", "authorization", "cookie", "set-cookie", "secret", "password", "code", "x-slack-signature"}
)
"""Keys of objects, in lower case. A hook's token and a link's URL let whoever reads them resume a run."""

_LINK = re.compile(r"(/(?:decisions|webhooks|inbox|login)/)[\w.~%=-]+")


def redact(value: Any) -> Any:
    """The same JSON without tokens, links and secrets."""
    match value:
        case dict():
            return {
                key: REDACTED if key.lower() in SECRET_NAMES and isinstance(item, str) and item else redact(item)
                for key, item in value.items()
            }
        case [str() as name, str() as item] if name.lower() in SECRET_NAMES and item:
            return [name, REDACTED]  # a header field, as requests keep them
        case list():
            return [redact(item) for item in value]
        case str():
            return _LINK.sub(r"\1" + REDACTED, value)
    return value
