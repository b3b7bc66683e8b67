"""Libraries that are imported in a thread, while the event loop's thread needs them, too."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from approvals_bot.durable.core.threads import import_alone

SLOW = "import time; time.sleep(0.1)\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package whose modules import each other, slowly, as large ones do."""
    folder = tmp_path / "crossing"
    folder.mkdir()
    (folder / "__init__.py").write_text(SLOW + "from crossing.one import ONE\n")
    (folder / "one.py").write_text(SLOW + "from crossing.two import TWO\nONE = 1\n")
    (folder / "two.py").write_text(SLOW + "from crossing.three import THREE\nTWO = 2\n")
    (folder / "three.py").write_text(SLOW + "import crossing.one\nTHREE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "crossing"
    for name in [name for name in sys.modules if name.partition(".")[0] == "crossing"]:
        del sys.modules[name]


def test_a_thread_never_sees_half_of_a_library(package: str) -> None:
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(import_alone, f"{package}.one")
        time.sleep(0.05)
        second = threads.submit(import_alone, f"{package}.three")
        assert first.result(30).ONE == 1
        assert second.result(30).THREE == 3
