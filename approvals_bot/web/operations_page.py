"""`/operations`: how the installation is, for operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from approvals_bot.durable.engine import Engine
from approvals_bot.service.channel_watch import ChannelWatch
from approvals_bot.service.operations import MOST_COUNTED, read_operations
from approvals_bot.service.repairs import error_of
from approvals_bot.service.troubles import Troubles, urgency
from approvals_bot.web.admission import Admission
from approvals_bot.web.health import Connection

UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


class OperationsPage:
    """`/operations`. It changes nothing."""

    def __init__(
        self,
        engine: Engine,
        admission: Admission,
        *,
        channels: Sequence[str],
        watch: ChannelWatch | None,
        states: Mapping[str, Connection],
        has_key: bool,
        own_id: str,
    ) -> None:
        """`own_id`: of this replica; "" if it has no row."""
        self._engine = engine
        self._admission = admission
        self._channels = channels
        self._watch = watch
        self._states = states
        self._has_key = has_key
        self._own_id = own_id

    async def show(self, request: HttpRequest) -> Response:
        visitor = await self._admission.admit(request, "operator")
        if isinstance(visitor, Response):
            return visitor
        return await self._admission.show(
            visitor,
            "operations.html",
            "/operations",
            now=await read_operations(self._engine, self._channels, self._watch, self._states),
            own_id=self._own_id,
            troubles=sorted(self._engine.resources.get(Troubles, ()), key=lambda each: (urgency(each.key), each.since)),
            has_key=self._has_key,
            most=MOST_COUNTED,
            bytes=bytes_in_words,
            error_of=error_of,
        )


def bytes_in_words(count: float) -> str:
    """Return `1.2 MB`."""
    for size, unit in UNITS:
        if abs(count) >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:,.0f} bytes"
