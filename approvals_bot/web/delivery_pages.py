"""`/deliveries`: what has not arrived, for operators, who can have it tried now."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, get_args
from urllib.parse import urlencode

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.approvals.published import Trouble
from approvals_bot.durable.core.events import to_micros
from approvals_bot.service.attempts import change_counter
from approvals_bot.service.deliveries import Tried, list_deliveries, list_follow_ups, try_now
from approvals_bot.service.read import find_record, request_of
from approvals_bot.web.admission import Admission, Visitor
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.form_tokens import NAME as FORM_TOKEN
from approvals_bot.web.responses import Problem
from approvals_bot.web.validation import read_form_fields

SHOWN = 50  # requests on a page
MOST = 50  # deliveries tried at once
KEPT = timedelta(minutes=10)  # what came of them

TROUBLES: tuple[Trouble, ...] = get_args(Trouble)
FILTERS = ("state", "channel", "workflow")
WORDS: Mapping[Trouble, str] = {
    "not_delivered": "⚠ Not delivered",
    "retrying": "⏳ Trying again",
    "held": "⏳ Held",
    "uncertain": "⚠ Uncertain",
}
MEANINGS: Mapping[Trouble, str] = {
    "not_delivered": "It was given up. It can be tried again until the request is decided.",
    "retrying": "It, or an update of a card that is there, is tried again on its own, ever more rarely.",
    "held": "It has its turn, because of a digest or a rate limit.",
    "uncertain": "The confirmation was lost, so it may have arrived twice.",
}
ABOUT: Mapping[str, str] = {"update": "an update of its card", "reply": "a message about its card"}
"""What is held or tried again of a card that has arrived."""

CAME_OF_IT: Mapping[Tried, str] = {
    "tried": "it is being tried now.",
    "not_tried": "there was nothing to try: it has arrived, has its turn, or is being tried.",
    "decided": "the request is decided, so nothing was sent.",
    "busy": "too much is waiting for this request, so nothing was sent. Try again in a few minutes.",
    "unknown": "there is no such delivery.",
}
STALE = "This didn't come from your own list of deliveries, so nothing was tried. Load it again, then choose."
NOTHING_CHOSEN = "Nothing was tried: choose some deliveries first."
TOO_MANY = f"Nothing was tried: at most {MOST} deliveries can be tried at once."


class DeliveryPages:
    """`/deliveries`, `POST /deliveries/attempts`, `POST /deliveries/{id}/attempts`."""

    def __init__(self, desk: WebDesk, admission: Admission) -> None:
        self._engine, self._forms, self._root = desk.engine, desk.forms, desk.root
        self._channels = sorted(desk.channels.by_name)
        self._admission = admission

    async def show(self, request: HttpRequest) -> Response:
        """List the deliveries in trouble, those of the oldest request first."""
        visitor = await self._admission.admit(request, "operator")
        if isinstance(visitor, Response):
            return visitor
        if request.query_params.get("of") == "follow-ups":
            return await self._show_follow_ups(request, visitor)
        given = {name: text for name in FILTERS if (text := request.query_params.get(name, "").strip())}
        state = next((word for word in TROUBLES if word == given.get("state")), None)
        if "state" in given and state is None:
            raise Problem(422, "Unknown state", f"Deliveries have the states {', '.join(TROUBLES)}.")
        try:
            page = await list_deliveries(
                self._engine,
                trouble=state,
                channel=given.get("channel"),
                workflow=given.get("workflow"),
                cursor=request.query_params.get("cursor"),
                limit=SHOWN,
            )
        except ValueError:
            raise Problem(404) from None
        return await self._admission.show(
            visitor,
            "deliveries.html",
            "/deliveries",
            rows=page.rows,
            more=urlencode(given | {"cursor": page.cursor}) if page.cursor else "",
            given=given,
            words=WORDS,
            meanings=MEANINGS,
            about=ABOUT,
            channels=self._channels,
            form_token=self._forms.make(request, "deliveries") if any(row.may_be_tried for row in page.rows) else "",
            batch=await self._rows_of(request.query_params.get("batch", ""), visitor),
        )

    async def _show_follow_ups(self, request: HttpRequest, visitor: Visitor) -> Response:
        """List the follow-ups that failed or are tried again, the newest request first."""
        workflow = request.query_params.get("workflow", "").strip()
        cursor = request.query_params.get("cursor")
        try:
            page = await list_follow_ups(self._engine, workflow=workflow or None, cursor=cursor, limit=SHOWN)
        except ValueError:
            raise Problem(404) from None
        shown = {"of": "follow-ups"} | ({"workflow": workflow} if workflow else {})
        return await self._admission.show(
            visitor,
            "follow_ups.html",
            "/deliveries",
            rows=page.rows,
            more=urlencode(shown | {"cursor": page.cursor}) if page.cursor else "",
            workflow=workflow,
        )

    async def try_chosen(self, request: HttpRequest) -> Response:
        """Try the chosen deliveries now: 303 to the list, which says what came of each. Raises Problem 403 or 422."""
        return await self._try(request, None)

    async def try_one(self, request: HttpRequest) -> Response:
        """Try one delivery now, as `try_chosen` does."""
        return await self._try(request, request.path_params["id"])

    async def _try(self, request: HttpRequest, only: str | None) -> Response:
        visitor = await self._admission.admit(request, "operator")
        if isinstance(visitor, Response):
            return visitor
        form = await read_form_fields(request)
        if not self._forms.is_ours(request, "deliveries", form.text(FORM_TOKEN)):
            raise Problem(403, "Not from your list", STALE)
        chosen = [only] if only is not None else [each for each in form.getlist("delivery") if isinstance(each, str)]
        chosen = [*dict.fromkeys(chosen)]
        if not chosen:
            raise Problem(422, "No delivery was selected", NOTHING_CHOSEN)
        if len(chosen) > MOST:
            raise Problem(422, "Too many deliveries", TOO_MANY)
        became = await asyncio.gather(
            *(try_now(self._engine, id, who=visitor.name, actor=visitor.actor) for id in chosen)
        )
        batch = secrets.token_urlsafe(16)
        until = self._engine.now() + KEPT
        rows = [list(each) for each in zip(chosen, became, strict=True)]
        kept = {"by": visitor.name, "until": to_micros(until), "rows": rows}
        await change_counter(self._engine, _counter(batch), until, lambda _: kept)
        return RedirectResponse(f"{self._root}/deliveries?batch={batch}", 303)

    async def _rows_of(self, batch: str, visitor: Visitor) -> list[tuple[str, str, bool, str]]:
        """Return what came of each of a visitor's attempts: the request, its title, whether it is tried, and words."""
        row = await self._engine.store.counter(_counter(batch)) if batch else None
        state: Mapping[str, Any] = row.state if row is not None else {}
        if state.get("by") != visitor.name or to_micros(self._engine.now()) >= state["until"]:
            return []
        tried = [(id.rpartition("-")[0], became) for id, became in state["rows"]]
        return [(id, await self._title(id), became == "tried", CAME_OF_IT[became]) for id, became in tried]

    async def _title(self, id: str) -> str:
        record = await find_record(self._engine, id)
        found = None if record is None else request_of(record)
        return id if found is None else found.title


def _counter(batch: str) -> str:
    return f"deliveries {batch[:64]}"
