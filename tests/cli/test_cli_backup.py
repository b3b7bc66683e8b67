"""`backup`, `restore` and `fsck`, as an operator types them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.small_site import Site


def test_a_backup_is_restored_elsewhere(site: Site, tmp_path: Path) -> None:
    run, file = site.start(), tmp_path / "backup.db"
    said = site.type("backup", str(file)).stdout
    assert re.fullmatch(r"Backed up 1 runs, \d+ events up to seq \d+", said.splitlines()[-1])
    assert "secrets are not in it" in said
    assert "already exists" in site.type("backup", str(file), fails=True).stderr
    assert ("OK", "backup") in [(each["state"], each["about"]) for each in site.json("doctor")["findings"]]
    later = site.start(days=4)
    assert "isn't empty" in site.type("restore", str(file), fails=True).stderr
    assert site.json("show", later)["id"] == later, "nothing was touched"
    restored = site.type("restore", str(file), "--replace").stdout
    assert "What was there before is now " in restored
    assert run in restored, "it is about to begin, so its messages may come again"
    assert site.json("show", run)["id"] == run
    assert "No run has the ID" in site.type("show", later, fails=True).stderr
    assert site.json("fsck")["count"] == 0
    site.type("audit", "export", "--output", str(tmp_path / "audit.jsonl"))
    assert '"restored"' in (tmp_path / "audit.jsonl").read_text()
