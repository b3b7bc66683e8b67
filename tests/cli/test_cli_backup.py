"""`backup`, `restore` and `fsck`, as an operator types them."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from approvals_bot.durable.store.sqlite import SoleOwner
from tests.support.small_site import Site


def test_a_backup_is_restored_elsewhere(site: Site, tmp_path: Path) -> None:
    run, file = site.start(), tmp_path / "backup.db"
    said = site.type("backup", str(file)).stdout
    assert re.fullmatch(r"Backed up 1 run, 1 event up to seq \d+", said.splitlines()[-1])
    assert "secrets are not in it" in said
    assert "already exists" in site.type("backup", str(file), fails=True).stderr
    assert ("OK", "backup") in [(each["state"], each["about"]) for each in site.json("doctor")["findings"]]
    later = site.start(days=4)
    assert "isn't empty" in site.type("restore", str(file), fails=True).stderr
    assert site.json("show", later)["id"] == later, "nothing was touched"
    restored = site.type("restore", str(file), "--replace").stdout
    assert "What was there before is now " in restored
    backups = [each["what"] for each in site.json("doctor")["findings"] if each["about"] == "backup"]
    assert backups[0].startswith("one was restored on "), backups
    assert run in restored, "it is about to begin, so its messages may come again"
    assert site.json("show", run)["id"] == run
    assert "No run has the ID" in site.type("show", later, fails=True).stderr
    assert site.json("fsck")["count"] == 0
    site.type("audit", "export", "--output", str(tmp_path / "audit.jsonl"))
    assert '"restored"' in (tmp_path / "audit.jsonl").read_text()


def test_fsck_says_by_its_status_what_it_found(site: Site) -> None:
    assert "There is no database" in site.type("fsck", fails=2).stderr
    run = site.start()
    assert site.type("fsck").stdout.endswith(": sound.\n")
    with closing(sqlite3.connect(site.folder / "approvals.db")) as db, db:
        db.execute("UPDATE runs SET seq = 7")
    assert f"run: run {run}: its row has seq 7, its log says" in site.type("fsck", fails=1).stdout
    service = SoleOwner(site.folder / "approvals.db.lock")
    assert service.acquire()
    service.share()
    assert "A service is using" in site.type("fsck", "--repair", fails=2).stderr
    service.release()
    assert "(mended)" in site.type("fsck", "--repair").stdout
    assert site.json("fsck")["count"] == 0
    site.write("config.toml", "[server]\n")
    site.type("fsck", fails=2)


def test_prune_cuts_the_audit_by_hand(site: Site) -> None:
    site.start()
    for name in ("one", "two"):
        site.type("backup", str(site.folder / f"{name}.db"))
    with closing(sqlite3.connect(site.folder / "approvals.db")) as db, db:
        (old,) = db.execute("SELECT count(*) FROM audit").fetchone()
        db.execute("UPDATE audit SET at = at - 8640000000000")
    assert "--audit DURATION for lines" in site.type("prune", fails=2).stderr
    assert "write --older-than, too" in site.type("prune", "--audit", "30d", "--workflow", "leave", fails=2).stderr
    assert "--audit: at least a day" in site.type("prune", "--audit", "1h", fails=2).stderr
    assert "or longer" in site.type("prune", "--audit", "30d", "--older-than", "40d", fails=2).stderr
    said = site.type("prune", "--audit", "30d", "--dry-run").stdout
    assert said == f"{old} lines of the audit would be deleted.\n"
    said = site.type("prune", "--audit", "30d", "--older-than", "30d").stdout
    assert said == f"Deleted 0 runs, 0 events, 0 files and {old} lines of the audit.\n"
    assert site.json("prune", "--audit", "30d")["audit_lines"] == 0
    with closing(sqlite3.connect(site.folder / "approvals.db")) as db:
        [(data,)] = db.execute("SELECT data FROM audit WHERE what = 'audit_cut'")
    assert '"kind": "cli"' in data
