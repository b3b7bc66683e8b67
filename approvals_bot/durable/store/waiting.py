"""Those who wait for work that is done together."""

from __future__ import annotations

import asyncio
from typing import Any


def settle(future: asyncio.Future[Any], result: Any) -> None:
    """Give its caller the result, or raise it there if it is an error; a caller who has gone is left in peace."""
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
