"""The documentation's site: it has every page, and no link of its pages leads nowhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.site import ROOT, assemble

CONFIG = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]


def named(nav: Any) -> Iterator[str]:
    for entry in nav:
        (target,) = entry.values()
        if isinstance(target, str):
            yield target
        else:
            yield from named(target)


def test_the_navigation_has_each_page_once(tmp_path: Path) -> None:
    assemble(tmp_path)
    pages = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.md")}
    assert sorted(named(CONFIG["nav"])) == sorted(pages)


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    assemble(tmp_path / "dist/docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    (tmp_path / "approvals_bot").symlink_to(ROOT / "approvals_bot")
    command = [str(Path(sys.executable).parent / "zensical"), "build", "--strict", "-f", "zensical.toml"]
    built = subprocess.run(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=110
    )
    assert built.returncode == 0, built.stdout
    text = (tmp_path / "dist/site/reference/python/index.html").read_text()
    missing = {"request_approval", "create_webhook", "Engine"} - set(re.findall(r'id="approvals_bot\.(\w+)"', text))
    assert missing == set()
