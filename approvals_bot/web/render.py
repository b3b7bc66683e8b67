"""Pages as HTML: Jinja2 with autoescape, and the words of cards as filters."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from approvals_bot.approvals import card_text
from approvals_bot.approvals.plain_text import clean
from approvals_bot.approvals.port import STATE_WORDS
from approvals_bot.approvals.text import short_digest


class Renderer:
    """Renders the templates. `now` is the service's clock; times are shown in the reader's zone. `root`: what people's
    paths begin with where the service is a part of a site.
    """

    def __init__(self, *, now: Callable[[], datetime], root: str = "") -> None:
        self._now = now
        self._templates = Environment(
            loader=PackageLoader("approvals_bot.web", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_harmless,
        )
        self._templates.globals.update(
            card_text=card_text, STATE_WORDS=STATE_WORDS, zone="UTC", nav=(), here="", root=root
        )
        self._templates.filters.update(
            moment=card_text.moment,
            iso=datetime.isoformat,
            until=self._until,
            ago=self._ago,
            span=card_text.span,
            short_digest=short_digest,
            clock=clock_words,
            pretty=pretty,
        )

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """The page as an answer."""
        return HTMLResponse(self._templates.get_template(template).render(values), status)

    def _until(self, moment: datetime) -> str:
        return card_text.until(moment, self._now())

    def _ago(self, moment: datetime) -> str:
        return f"{card_text.span(self._now() - moment)} ago"


def _harmless(value: Any) -> Any:
    """People's text as Slack and mails show it, too: nothing in it turns round how the rest of the page reads."""
    return clean(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def clock_words(moment: datetime) -> str:
    """`4 Nov, 10:42:07`, in UTC: for logs, where seconds matter and readers sit anywhere."""
    at = moment.astimezone(UTC)
    return f"{at.day} {at:%b, %H:%M:%S}"


def pretty(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def root_of(base_url: str) -> str:
    """The path that people's addresses begin with, before ours: `/approve` of `https://apps.acme.eu/approve`."""
    return urlsplit(base_url).path.rstrip("/")
