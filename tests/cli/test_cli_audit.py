"""`audit export` and `audit verify`: every change to an export is found, offline."""

from __future__ import annotations

import io
import json
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.durable.engine import Engine
from approvals_bot.service.audit import canonical, derive_key, link, verify_lines, write_export
from tests.support.small_site import KEY, Site, install

SIGNED_BY = derive_key(KEY)
MUTATIONS = 2_000


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An export with audit lines and three runs."""
    site = install(tmp_path_factory.mktemp("audited"))
    runs = [site.start(days=days) for days in (1, 1, 3)]
    site.work()
    site.type("vote", runs[0], "--by", "ann@acme.eu", "--choice", "approve", fails=True)  # too late: into the audit
    site.type("vote", runs[0], "--by", "cy@acme.eu", "--choice", "reject", "--comment", "né", fails=True)
    site.type("audit", "export", "--output", str(site.folder / "audit.jsonl"))
    return (site.folder / "audit.jsonl").read_bytes()


def checked(content: bytes, *keys: bytes) -> Any:
    return verify_lines(io.BytesIO(content), keys)


def test_unchanged_export_verifies(exported: bytes) -> None:
    found = checked(exported, SIGNED_BY)
    assert (found.fault, found.origin) == (None, "checked")
    assert (found.manifest.audit, found.manifest.runs, found.manifest.broken_at) == (2, 3, None)
    kinds = [json.loads(line)["kind"] for line in exported.splitlines()]
    assert kinds[:4] == ["header", "audit", "audit", "run"]
    assert (kinds[-1], kinds.count("event")) == ("manifest", found.manifest.events)


def test_export_contains_no_tokens(exported: bytes) -> None:
    assert b"hook_created" in exported
    for line in exported.splitlines():
        value = json.loads(line)
        if value.get("type") == "hook_created":
            assert value["data"]["token"] == "(redacted)"


def test_each_of_2000_random_mutations_is_found(exported: bytes) -> None:
    """Flip a byte; delete, duplicate, move or insert a line; cut off the end. All are found, even without the key."""
    rng = random.Random(14)  # noqa: S311  # the same mutations each time
    lines = exported.splitlines(keepends=True)
    for number in range(MUTATIONS):
        mutated = _mutated(rng, lines)
        if mutated != exported:
            assert checked(mutated).fault is not None, (number, mutated)


def _mutated(rng: random.Random, lines: list[bytes]) -> bytes:
    at = rng.randrange(len(lines))
    match rng.randrange(7):
        case 0:
            flipped = bytearray(b"".join(lines))
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            return bytes(flipped)
        case 1:
            return b"".join(lines[:at] + lines[at + 1 :])
        case 2:
            return b"".join([*lines[:at], lines[at], *lines[at:]])
        case 3:
            other = rng.randrange(len(lines))
            moved = list(lines)
            moved.insert(other, moved.pop(at))
            return b"".join(moved)
        case 4:
            foreign = canonical({"kind": "event", "run_id": "run_0", "seq": 1, "chain": "0" * 64}) + b"\n"
            return b"".join([*lines[:at], rng.choice([b"\n", b"{}\n", foreign]), *lines[at:]])
        case 5:
            content = b"".join(lines)
            return content[: rng.randrange(len(content))]
        case _:
            value = json.loads(lines[at])
            key = rng.choice(sorted(value))
            value[key] = rng.choice([None, 1, "other", True])
            return b"".join([*lines[:at], canonical(value) + b"\n", *lines[at + 1 :]])


def test_rewritten_chain_is_found_only_with_the_key(exported: bytes) -> None:
    lines = [json.loads(line) for line in exported.splitlines()]
    lines[1]["who"] = "somebody@else.eu"
    content, head = b"", ""
    for line in lines:
        line.pop("chain")
        head = link(head, line)
        content += canonical(line | {"chain": head}) + b"\n"
    assert checked(content).fault is None
    assert "signed this" in checked(content, SIGNED_BY).fault.what


def test_reformatted_json_lines_are_refused(exported: bytes) -> None:
    lines = exported.splitlines(keepends=True)
    spaced = json.dumps(json.loads(lines[2])).encode() + b"\n"
    assert checked(b"".join([*lines[:2], spaced, *lines[3:]])).fault.line == 3


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"[]\n", b"nonsense", b'{"a": NaN}\n', b"[" * 100_000])
def test_other_files_are_not_exports(content: bytes) -> None:
    assert checked(content).fault is not None


def test_export_and_verify_commands_explain_their_result(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.start(days=1)
    site.work()
    file = site.folder / "a.jsonl"
    assert "in 1 runs" in site.type("audit", "export", "--output", str(file)).stdout
    assert (
        "already exists. Nothing was written" in site.type("audit", "export", "--output", str(file), fails=True).stderr
    )
    assert site.type("audit", "export").stdout_bytes.count(b"\n") == file.read_bytes().count(b"\n")

    plain = site.type("audit", "verify", str(file)).stdout
    assert plain.startswith("✅ The chain is intact")
    assert "Only integrity was checked, not origin" in plain
    with_key = ("audit", "verify", str(file), "--key", f"file:{site.folder}/signing.key")
    assert site.type(*with_key).stdout.startswith("✅ Unchanged since it was exported with this key")
    assert site.json("audit", "verify", str(file), "--config", str(site.config))["origin"] == "checked"
    monkeypatch.setenv("OTHER_KEY", "x" * 40)
    other = site.json("audit", "verify", str(file), "--key", "env:OTHER_KEY", fails=True)
    assert (other["intact"], "signed" in other["fault"]["what"]) == (False, True)
    assert "a key on the command line" in site.type("audit", "verify", str(file), "--key", KEY, fails=2).stderr

    file.write_bytes(file.read_bytes().replace(b"bo@acme.eu", b"di@acme.eu"))
    assert site.type("audit", "verify", str(file), fails=True).stdout.startswith("⛔ Line ")
    assert "No such file" in site.type("audit", "verify", str(tmp_path / "none"), fails=True).stderr


def test_retired_key_still_verifies(site: Site) -> None:
    file = site.folder / "a.jsonl"
    site.type("audit", "export", "--output", str(file))
    site.write("new.key", "another signing key of the tests, fresh from the oven")
    site.write("config.toml", site.config.read_text().replace('["file:', '["file:new.key", "file:'))
    assert site.json("audit", "verify", str(file), "--config", str(site.config))["origin"] == "checked"


def test_audit_changed_in_the_database_is_exported_and_reported(site: Site) -> None:
    run = site.start(days=1)
    site.work()
    for person in ("ann@acme.eu", "bo@acme.eu", "cy@acme.eu"):
        site.type("vote", run, "--by", person, "--choice", "approve", fails=True)
    with sqlite3.connect(site.folder / "approvals.db") as db:
        db.execute("DELETE FROM audit WHERE seq = 2")
    db.close()
    file = site.folder / "a.jsonl"
    assert "from line 2 on" in site.type("audit", "export", "--output", str(file), fails=True).stderr
    verified = site.json("audit", "verify", str(file), fails=True)
    assert (verified["intact"], verified["broken_at"]) == (True, 2)


async def test_any_characters_that_people_type_survive_the_export(tmp_path: Path) -> None:
    async with Engine.open(f"sqlite:///{tmp_path}/runs.db") as engine:
        await engine.audit("said", who="ann@acme.eu", data={"text": "\u2028 \x00 \ud800 🙂 \\u0041", "n": 1.5e300})
        file = io.BytesIO()
        await write_export(engine, SIGNED_BY, file)
    assert checked(file.getvalue(), SIGNED_BY).fault is None
