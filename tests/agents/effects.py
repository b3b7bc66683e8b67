"""Side effects of scripted agents: counted, and in a process that is going to be killed, written to a file."""

from __future__ import annotations

import asyncio
import os
from collections import Counter

happened: Counter[str] = Counter()
"""How often each side effect and each request to a model took place."""


async def effect(what: str) -> None:
    """Let it happen. A process with $BLOCK in its environment gets no further if that ends what happens."""
    happened[what] += 1
    if folder := os.environ.get("EFFECTS"):
        with open(f"{folder}/effects", "a", encoding="utf-8") as file:
            file.write(f"{what}\n")
    if (block := os.environ.get("BLOCK")) and what.endswith(block):
        await asyncio.Event().wait()
