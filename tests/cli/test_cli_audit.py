"""`audit export`, `verify` and `key`: every change to an export, or to the database before it, is found offline."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
import sqlite3
import unicodedata
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.durable.engine import Engine
from approvals_bot.service.audit import derive_key, write_export
from approvals_bot.service.audit_csv import FORMULA, cell
from approvals_bot.service.audit_key import AuditKey, compact
from approvals_bot.service.audit_verify import Keys, verify_lines
from tests.support.audit_mutations import OF_LINES, OF_LOGS, mutate_file, rechained
from tests.support.small_site import CONFIG, KEY, Site, install

SEED = "5e" * 32
OWN = AuditKey(bytes.fromhex(SEED))
SIGNED_BY = Keys(public=[OWN.public])
WITH_CHAIN = Keys(public=[OWN.public], chain=OWN.chain)


def keyed(folder: Path) -> Site:
    """Return a site whose audit has a key."""
    site = install(folder)
    site.write("audit.key", SEED)
    site.write("config.toml", CONFIG + '[audit]\nkey = "file:audit.key"\n')
    return site


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with lines in its audit, ended and open runs."""
    site = keyed(tmp_path_factory.mktemp("audited"))
    runs = [site.start(days=days) for days in (1, 1, 3, 4)]
    site.work()
    site.type("vote", runs[0], "--by", "ann@acme.eu", "--choice", "approve", fails=True)  # too late
    site.type("vote", runs[0], "--by", "cy@acme.eu", "--choice", "reject", "--comment", "né", fails=True)
    site.work()
    return site


@pytest.fixture(scope="module")
def exported(used: Site) -> bytes:
    used.type("audit", "export", "--output", str(used.folder / "audit.jsonl"))
    return (used.folder / "audit.jsonl").read_bytes()


def checked(content: bytes, keys: Keys = WITH_CHAIN) -> Any:
    return verify_lines(io.BytesIO(content), keys)


def test_unchanged_export_verifies(exported: bytes) -> None:
    for keys in (SIGNED_BY, WITH_CHAIN):
        found = checked(exported, keys)
        assert (found.fault, found.broken, found.manifest.faults, found.origin) == (None, None, [], "checked")
        assert (found.manifest.runs, found.manifest.keyed_from) == (4, 1)
    lines = [json.loads(line) for line in exported.splitlines()]
    assert [line["n"] for line in lines] == list(range(1, len(lines) + 1))
    whats = [line["what"] for line in lines if line["kind"] == "audit"]
    assert (whats.count("act_refused"), whats.count("run_ended"), whats[-1]) == (2, 2, "audit_exported")


def test_export_contains_no_tokens(exported: bytes) -> None:
    assert b"hook_created" in exported
    for line in exported.splitlines():
        value = json.loads(line)
        if value.get("type") == "hook_created":
            assert value["data"]["token"] == "(redacted)"
            assert "salt" not in value


def _find_all(exported: bytes, mutations: int) -> None:
    """Each change is found with its line: with the key, and where it takes none, without."""
    rng = random.Random(14)  # noqa: S311  # the same mutations each time
    lines = exported.splitlines(keepends=True)
    for number in range(mutations):
        mutated = mutate_file(rng, lines)
        if mutated == exported:
            continue
        fault = checked(mutated, Keys()).fault
        changed = mutated.splitlines(keepends=True)
        first = next((n for n, pair in enumerate(zip(lines, changed, strict=False)) if pair[0] != pair[1]), None)
        assert fault is not None, (number, mutated)
        assert fault.line == (min(len(lines), len(changed)) if first is None else first) + 1, (number, fault)


def test_each_of_300_random_mutations_is_found(exported: bytes) -> None:
    _find_all(exported, 300)


@pytest.mark.long
@pytest.mark.timeout(1_200)
def test_each_of_10000_random_mutations_is_found(exported: bytes) -> None:
    _find_all(exported, 10_000)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("missing", lambda lines: lines[:3] + lines[4:]),
        ("added", lambda lines: [*lines[:3], compact({"n": 4, "kind": "audit", "chain": ""}) + b"\n", *lines[3:]]),
        ("moved", lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]]),
        ("changed", lambda lines: [*lines[:3], lines[3].replace(b"20", b"21", 1), *lines[4:]]),
        ("cut", lambda lines: lines[:3]),
    ],
)
def test_fault_says_what_kind_of_change_it_is(exported: bytes, kind: str, change: Any) -> None:
    fault = checked(b"".join(change(exported.splitlines(keepends=True)))).fault
    assert (fault.line, fault.kind) == (4, kind)


def test_rewritten_file_is_found_only_with_the_key(exported: bytes) -> None:
    lines = [json.loads(line) for line in exported.splitlines()]
    lines[1]["who"] = "somebody@else.eu"
    content = rechained([compact(line) for line in lines])
    assert checked(content, Keys()).fault is None
    assert "signed this" in checked(content, SIGNED_BY).fault.what


@pytest.fixture
def tampered(used: Site, tmp_path: Path) -> Site:
    """A copy of the site, to be changed."""
    shutil.copytree(used.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*.jsonl"))
    with closing(sqlite3.connect(tmp_path / "copy" / "approvals.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Site(tmp_path / "copy")


async def _export(site: Site) -> bytes:
    file = io.BytesIO()
    async with Engine.open(f"sqlite:///{site.folder}/approvals.db") as engine:
        await write_export(engine, OWN, file)
    return file.getvalue()


async def _find_in_database(site: Site, rounds: int) -> None:
    rng = random.Random(15)  # noqa: S311  # the same mutations each time
    file = site.folder / "approvals.db"
    before = file.read_bytes()
    for number in range(rounds):
        for each in site.folder.glob("approvals.db*"):
            each.unlink()
        file.write_bytes(before)
        with closing(sqlite3.connect(file)) as db, db:
            db.execute("PRAGMA synchronous = OFF")
            runs = [row[0] for row in db.execute("SELECT id FROM runs WHERE ended_at IS NOT NULL ORDER BY id")]
            lines = [row[0] for row in db.execute("SELECT seq FROM audit ORDER BY seq")]
            run, line = rng.choice(runs), rng.choice(lines[:-1])
            if number % 2:
                rng.choice(OF_LOGS)(db, rng, run)
            else:
                rng.choice(OF_LINES)(db, rng, line)
        found = checked(await _export(site))
        assert found.fault is None
        assert found.broken is not None, number
        if number % 2:
            assert run in {fault.get("run") for fault in found.manifest.faults}, (number, found.manifest.faults)
            assert found.broken.run == run, (number, found.broken)
        else:
            assert found.manifest.faults[0]["line"] in (line, line + 1), (number, line, found.manifest.faults)


async def test_each_change_of_the_database_is_found(tampered: Site) -> None:
    await _find_in_database(tampered, rounds=66)  # the 65th deletes the first line of all


@pytest.mark.long
@pytest.mark.timeout(3_600)
async def test_each_of_10000_changes_of_the_database_is_found(tampered: Site) -> None:
    await _find_in_database(tampered, rounds=10_000)


def test_vote_in_anothers_name_is_found_without_a_key(site: Site) -> None:
    """The log's chain has no key. It finds what was changed without it."""
    run = site.start(days=3)
    site.work()
    site.type("vote", run, "--by", "ann@acme.eu", "--choice", "approve")
    site.work()
    with closing(sqlite3.connect(site.folder / "approvals.db")) as db, db:
        sql = "UPDATE events SET data = replace(data, 'ann@acme.eu', 'cy@acme.eu') WHERE type = 'hook_received'"
        assert db.execute(sql).rowcount == 1
    file = site.folder / "a.jsonl"
    assert (
        f"The log of run {run} in the database was changed"
        in site.type("audit", "export", "--output", str(file), fails=True).stderr
    )
    found = site.json("audit", "verify", str(file), fails=True)
    assert (found["intact"], found["broken"]["run"], found["broken"]["kind"]) == (True, run, "changed")


def test_lines_without_the_key_are_refused_until_they_are_adopted(site: Site) -> None:
    run = site.start(days=1)
    site.work()
    site.type("vote", run, "--by", "ann@acme.eu", "--choice", "approve", fails=True)
    site.write("audit.key", SEED)
    site.write("config.toml", CONFIG + '[audit]\nkey = "file:audit.key"\n')
    assert "from line 1 on" in site.type("audit", "export", fails=True).stderr
    assert site.type("audit", "key", "--adopt").stdout.strip() == OWN.public
    site.type("audit", "export", "--output", str(site.folder / "b.jsonl"))
    assert checked((site.folder / "b.jsonl").read_bytes()).is_sound


@pytest.mark.parametrize("spelled", ["upper", "no signature", ""])
def test_a_signature_in_another_spelling_is_refused(exported: bytes, spelled: str) -> None:
    lines = exported.splitlines(keepends=True)
    last = json.loads(lines[-1])
    last["signature"] = last["signature"].upper() if spelled == "upper" else spelled
    found = checked(rechained([*lines[:-1], compact(last) + b"\n"]), SIGNED_BY)
    assert found.fault is not None


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
    assert file.stat().st_mode & 0o777 == 0o600
    assert (
        "already exists. Nothing was written" in site.type("audit", "export", "--output", str(file), fails=True).stderr
    )
    more = site.type("audit", "export").stdout_bytes
    assert more.count(b"audit_exported") == 1 + file.read_bytes().count(b"audit_exported")

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
    site.start(days=1)
    file = site.folder / "a.jsonl"
    site.type("audit", "export", "--output", str(file))
    site.write("new.key", "another signing key of the tests, fresh from the oven")
    site.write("config.toml", site.config.read_text().replace('["file:', '["file:new.key", "file:'))
    assert site.json("audit", "verify", str(file), "--config", str(site.config))["origin"] == "checked"


def test_selected_lines_bring_the_logs_that_they_name(used: Site) -> None:
    run = json.loads(used.type("runs", "--json").stdout)["runs"][-1]["id"]
    for words in (("--run", run), ("--since", "3"), ("--since", "2000-01-01"), ("--workflow", "leave")):
        content = used.type("audit", "export", *words).stdout_bytes
        found = checked(content)
        assert (found.fault, found.broken) == (None, None), words
    only = [json.loads(line) for line in used.type("audit", "export", "--run", run).stdout_bytes.splitlines()]
    assert {line["run_id"] for line in only if "run_id" in line} == {run}
    assert {line["kind"] for line in only} == {"header", "audit", "run", "event", "manifest"}


def test_table_has_no_formula_in_it(used: Site) -> None:
    rows = list(csv.DictReader(io.StringIO(used.type("audit", "export", "--format", "csv").stdout)))
    assert [row["what"] for row in rows].count("act_refused") == 2
    assert all(row["seq"] == str(number) for number, row in enumerate(rows, 1))
    for text in ("=1+1", "+1", "-1", "@SUM(A1)", " =1", '"=1', "\tx", "\nx", "\u3000\uff1d1"):
        assert cell(text) == f"'{text}"
    assert [cell(text) for text in ("\t=1", "\r=1", "\u202e=1")] == ["'\t'=1", "'\n'=1", "⟨U+202E⟩=1"]
    assert cell('a;=1;b; "+1\n-1') == "a;'=1;b;' \"+1\n'-1"  # a spreadsheet may split it at semicolons
    forms = {each for each in map(chr, range(0x110000)) if unicodedata.normalize("NFKC", each)[0] in "=+-@"}
    assert forms == set(FORMULA)
    for text in ("a-b@acme.eu", "a = b", "x; y", "2026-11-28T09:00:00Z"):
        assert cell(text) == text
    assert [cell(value) for value in (None, "ann@acme.eu", 3, ["="])] == ["", "ann@acme.eu", "3", '["="]']


async def test_any_characters_that_people_type_survive_the_export(tmp_path: Path) -> None:
    file = io.BytesIO()
    async with Engine.open(f"sqlite:///{tmp_path}/runs.db") as engine:
        await engine.audit(
            "said",
            who="ann@acme.eu",
            actor={"kind": "cli"},
            data={"text": "\u2028 \x00 \ud800 🙂 \\u0041", "n": 1.5e300},
        )
        await write_export(engine, derive_key(KEY), file)
    assert checked(file.getvalue(), Keys(derived=[derive_key(KEY)])).is_sound
