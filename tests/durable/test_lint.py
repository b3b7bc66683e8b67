"""The lint rules: each snippet of a body, and what is said of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent, indent

import pytest

from approvals_bot.durable.lint import EXEMPTION, RULES, UNREADABLE, lint_paths, lint_text
from tests.support.guides import PAGES, examples
from tests.support.small_site import Site, install

ROOT = Path(__file__).parents[2]

BEFORE = """\
import asyncio, datetime, glob, httpx2, os, pathlib, platform, random, requests, secrets, shutil, socket
import subprocess, sys, tempfile, threading, time, urllib.request, uuid
import datetime as d
import time as t
from datetime import date, datetime as dt
from os import environ as env, urandom
from random import choice
from uuid import uuid4 as new_id
import approvals_bot as ab
from approvals_bot import create_hook, step, workflow
from approvals_bot import now, random as rng, sleep as pause, uuid4


@step
async def act(what): ...


@workflow
async def body(given, people: set[str], numbers: set[int], folder: pathlib.Path):
"""


def codes(snippet: str) -> list[str]:
    """What is found in a workflow's body that is this."""
    return [finding.code for finding in lint_text(BEFORE + indent(dedent(snippet), "    "))]


FOUND = [
    # the clock
    ("d.datetime.now()", "AB101"),
    ("datetime.datetime.now(datetime.UTC)", "AB101"),
    ("dt.utcnow()", "AB101"),
    ("dt.today()", "AB101"),
    ("date.today()", "AB101"),
    ("await act(time.time())", "AB101"),
    ("t.monotonic()", "AB101"),
    ("time.perf_counter_ns()", "AB101"),
    ("time.localtime()", "AB101"),
    ("max(given, key=time.time)", "AB101"),
    ("from time import time as clock\nclock()", "AB101"),
    ("clock = time.time\nawait act(1)", "AB101"),
    ("if given:\n    await act(f'{dt.now()}')", "AB101"),
    # random numbers
    ("random.random()", "AB102"),
    ("random.Random()", "AB102"),
    ("random.SystemRandom()", "AB102"),
    ("choice(given)", "AB102"),
    ("sorted(given, key=lambda each: random.random())", "AB102"),
    ("secrets.token_hex(8)", "AB102"),
    ("os.urandom(8)", "AB102"),
    ("urandom(8)", "AB102"),
    # identifiers
    ("uuid.uuid4()", "AB103"),
    ("create_hook(token=str(new_id()))", "AB103"),
    ("uuid.uuid1()", "AB103"),
    # the environment
    ("os.environ['HOME']", "AB104"),
    ("os.environ.get('HOME')", "AB104"),
    ("os.getenv('HOME')", "AB104"),
    ("env['HOME']", "AB104"),
    ("platform.node()", "AB104"),
    ("os.getpid()", "AB104"),
    ("socket.gethostname()", "AB104"),
    ("sys.argv[1]", "AB104"),
    # files
    ("open('x')", "AB105"),
    ("with open('x') as file:\n    file.read()", "AB105"),
    ("pathlib.Path('x').read_text()", "AB105"),
    ("(pathlib.Path('x') / 'y').write_text('')", "AB105"),
    ("file = pathlib.Path('x')\nfile.unlink()", "AB105"),
    ("folder.iterdir()", "AB105"),
    ("os.listdir('.')", "AB105"),
    ("os.path.exists('x')", "AB105"),
    ("glob.glob('*')", "AB105"),
    ("tempfile.mkdtemp()", "AB105"),
    *((f"os.{name}('x')", "AB105") for name in ("remove", "unlink", "removedirs", "renames", "truncate", "mkfifo")),
    ("folder.chmod(0o600)", "AB105"),
    ("folder.symlink_to('x')", "AB105"),
    ("from os import remove\nremove('x')", "AB105"),
    ("import fcntl\nfcntl.flock(given, 1)", "AB105"),
    ("shutil.copy('a', 'b')", "AB105"),
    ("input('?')", "AB105"),
    # the network
    ("requests.get('https://acme.eu')", "AB106"),
    ("requests.Session().post('https://acme.eu')", "AB106"),
    ("async with httpx2.AsyncClient() as client:\n    pass", "AB106"),
    ("urllib.request.urlopen('https://acme.eu')", "AB106"),
    ("socket.create_connection(('acme.eu', 1))", "AB106"),
    ("await asyncio.open_connection('acme.eu', 1)", "AB106"),
    ("await asyncio.get_running_loop().create_connection(given)", "AB106"),
    # threads and processes
    ("await asyncio.to_thread(given)", "AB107"),
    ("await asyncio.get_event_loop().run_in_executor(None, given)", "AB107"),
    ("loop = asyncio.get_running_loop()\nawait loop.run_in_executor(None, given)", "AB107"),
    ("subprocess.run(['ls'])", "AB107"),
    ("await asyncio.create_subprocess_exec('ls')", "AB107"),
    ("os.system('ls')", "AB107"),
    ("os.kill(1, 9)", "AB107"),
    ("os._exit(1)", "AB107"),
    ("os.chdir('/')", "AB107"),
    ("import signal\nsignal.signal(signal.SIGTERM, given)", "AB107"),
    ("import webbrowser\nwebbrowser.open('https://example.com')", "AB107"),
    ("import anyio\nawait anyio.to_thread.run_sync(given)", "AB107"),
    ("import anyio\nawait anyio.run_process(['ls'])", "AB107"),
    ("threading.Thread(target=given).start()", "AB107"),
    # the order of sets
    ("for person in people:\n    await act(person)", "AB108"),
    ("for person in {'ann', 'bo'}:\n    await act(person)", "AB108"),
    ("for person in set(given):\n    await act(person)", "AB108"),
    ("for person in people - {'ann'}:\n    await act(person)", "AB108"),
    ("for person in given.keys() - {'ann'}:\n    await act(person)", "AB108"),
    ("for person in people.union(given):\n    await act(person)", "AB108"),
    ("asked = {person for person in given}\nawait asyncio.gather(*asked)", "AB108"),
    ("await asyncio.gather(*(act(person) for person in people))", "AB108"),
    ("await asyncio.gather(*[act(person) for person in frozenset(given)])", "AB108"),
    ("list(people)", "AB108"),
    ("next(iter(people))", "AB108"),
    ("people.pop()", "AB108"),
    ("', '.join(people)", "AB108"),
    ("rng().choice(list(people))", "AB108"),
    ("{person: act(person) for person in people}", "AB108"),
    # hashes and addresses
    ("hash('a text')", "AB109"),
    ("sorted(given, key=lambda each: id(each))", "AB109"),
    # blocking
    ("time.sleep(1)", "AB110"),
    # calls to the engine
    ("await ab.resume_hook('t', 1)", "AB111"),
    ("await ab.start(given)", "AB111"),
]


@pytest.mark.parametrize(("snippet", "code"), FOUND, ids=lambda given: given.replace("\n", "; "))
def test_forbidden_code_is_found(snippet: str, code: str) -> None:
    assert codes(snippet) == [code]


FINE = [
    "now()",
    "ab.now()",
    "rng().random()",
    "ab.random().choice([1, 2])",
    "uuid4()",
    "random.Random(42).random()",
    "uuid.uuid5(uuid.NAMESPACE_URL, given)",
    "uuid.UUID(given)",
    "dt(2026, 1, 1)",
    "dt.fromisoformat(given)",
    "time.localtime(5)",
    "isinstance(given, datetime.datetime)",
    "started: random.Random",
    "await pause('1h')",
    "await asyncio.sleep(1)",
    "async with asyncio.timeout(5):\n    await create_hook()",
    "async with asyncio.timeout_at(asyncio.get_running_loop().time() + 5):\n    await create_hook()",
    "await asyncio.gather(act(1), act(2))",
    "await act(given)",
    "for person in sorted(people):\n    await act(person)",
    "for number in numbers:\n    await act(number)",
    "for number in {1, 2}:\n    await act(number)",
    "for number in set(range(3)):\n    await act(number)",
    "for person in ['ann', 'bo']:\n    await act(person)",
    "for person in {'ann': 1}:\n    await act(person)",
    "len(people), max(people), 'ann' in people, people | {'bo'}",
    "sorted(person for person in people)",
    "any(person == given for person in people)",
    "{person.lower() for person in people}",
    "time = 5\nawait act(time)",
    "for random in [1]:\n    await act(random)",
    "given.now(), given.time(), given.open(), given.random()",
    "class Own:\n    def time(self): return 1\nOwn().time()",
    "try:\n    await act(1)\nexcept (requests.RequestException, OSError):\n    pass",
    "pathlib.PurePath('a') / 'b'",
    "folder / 'x'",
    "socket.inet_aton('127.0.0.1')",
    "os.path.join('a', 'b')",
]


@pytest.mark.parametrize("snippet", FINE, ids=lambda given: given.replace("\n", "; "))
def test_allowed_code_is_not_found(snippet: str) -> None:
    assert codes(snippet) == []


WHERE = [
    # what a body calls, at any distance, is looked at
    ("def helper():\n    return time.time()\n@workflow\nasync def w():\n    helper()", ["AB101"]),
    (
        "async def a():\n    await b()\nasync def b():\n    time.time()\n"
        "@workflow\nasync def w():\n    await a()",
        ["AB101"],
    ),
    ("def helper():\n    return time.time()\n@workflow\nasync def w(x):\n    x.sort(key=helper)", ["AB101"]),
    ("@workflow\nasync def w():\n    def helper():\n        return time.time()\n    return helper()", ["AB101"]),
    ("class C:\n    def __init__(self):\n        self.at = time.time()\n@workflow\nasync def w():\n    C()", ["AB101"]),
    (
        "class C:\n    async def go(self):\n        await self.on()\n    async def on(self):\n        time.time()\n"
        "@workflow\nasync def w():\n    c = C()\n    await c.go()",
        ["AB101"],
    ),
    (
        "class C:\n    @staticmethod\n    def at():\n        return time.time()\n"
        "@workflow\nasync def w():\n    C.at()",
        ["AB101"],
    ),
    ("class C:\n    def at(self):\n        return time.time()\n@workflow\nasync def w(c: C):\n    c.at()", ["AB101"]),
    (
        "class M(BaseModel):\n    at: float = Field(default_factory=time.time)\n"
        "    id: str = Field(default_factory=lambda: uuid.uuid4().hex)\n"
        "@workflow\nasync def w():\n    M()",
        ["AB101", "AB103"],
    ),
    ("STARTED = time.time()\n@workflow\nasync def w():\n    return STARTED", ["AB101"]),
    ("clock = time.time\n@workflow\nasync def w():\n    return clock()", ["AB101"]),
    ("def f(): return f() + time.time()\n@workflow\nasync def w(): f()", ["AB101"]),
    # every way to make a workflow
    ("import approvals_bot\n@approvals_bot.workflow\nasync def w():\n    time.time()", ["AB101"]),
    ("@workflow(name='x', version='2')\nasync def w():\n    time.time()", ["AB101"]),
    ("from approvals_bot import workflow as durable\n@durable\nasync def w():\n    time.time()", ["AB101"]),
    ("async def w():\n    time.time()\nmade = workflow(name='x')(w)", ["AB101"]),
    ("def test():\n    @workflow\n    async def w():\n        time.time()", ["AB101"]),
    ("from time import *\n@workflow\nasync def w():\n    monotonic()", ["AB101"]),
    (
        "try:\n    import httpx\nexcept ImportError:\n    httpx = None\n"
        "@workflow\nasync def w():\n    httpx.get('x')",
        ["AB106"],
    ),
    # a function that two workflows call is reported once
    ("def h():\n    time.time()\n@workflow\nasync def a():\n    h()\n@workflow\nasync def b():\n    h()", ["AB101"]),
    # steps may, and so may what only they call
    ("@step\nasync def s():\n    return time.time()\n@workflow\nasync def w():\n    await s()", []),
    ("@step(retries=0)\ndef s():\n    return open('x').read()\n@workflow\nasync def w():\n    await s()", []),
    (
        "def helper():\n    return time.time()\n@step\nasync def s():\n    return helper()\n"
        "@workflow\nasync def w():\n    await s()",
        [],
    ),
    ("@workflow\nasync def w():\n    @step\n    async def s():\n        return time.time()\n    await s()", []),
    ("def unused():\n    return time.time()\n@workflow\nasync def w(): ...", []),
    ("STARTED = time.time()\n@workflow\nasync def w(): ...", []),
    (
        "class M(BaseModel):\n    at: float = Field(default_factory=time.time)\n"
        "@workflow\nasync def w(m: M):\n    return m.at",
        [],
    ),
    # names that only look alike
    ("from other import workflow as durable\n@durable\nasync def w():\n    time.time()", []),
    ("@workflow\nasync def w(time):\n    time.time()", []),
    ("def time(): ...\n@workflow\nasync def w():\n    time()", []),
]  # fmt: skip


@pytest.mark.parametrize(("source", "expected"), WHERE, ids=lambda given: str(given).replace("\n", "; ")[:90])
def test_only_bodies_are_checked(source: str, expected: list[str]) -> None:
    imports = "import time, uuid\nfrom pydantic import BaseModel, Field\nfrom approvals_bot import step, workflow\n"
    assert [finding.code for finding in lint_text(imports + source)] == expected


def test_a_finding_names_place_problem_and_remedy() -> None:
    source = (
        "import time\nfrom approvals_bot import workflow\n@workflow\nasync def pay():\n    return 1 + time.time()\n"
    )
    (finding,) = lint_text(source, "pay.py")
    assert str(finding) == (
        "pay.py:5:16: AB101 time.time() reads this machine's clock, and a replay would read a different time: "
        "use now() (in workflow pay)"
    )


IMPORTS = "import time\nfrom approvals_bot import workflow\n@workflow\nasync def w():\n"

EXEMPT = [
    ("    time.time()  # approvals-bot: allow AB101, only for a log line\n", []),
    ("    # approvals-bot: allow AB101 because it is only logged\n    time.time()\n", []),
    ("    print(\n        time.time(),  # approvals-bot: allow AB101: only shown\n    )\n", []),
    ("    print(time.time(), open('x'))  # approvals-bot: allow AB101, AB105: only shown\n", []),
    ("    print(time.time(), open('x'))  # approvals-bot: allow AB101: only shown\n", ["AB105"]),
    ("    time.time()  # approvals-bot: allow AB101\n", ["AB101", EXEMPTION]),
    ("    time.time()  # approvals-bot: allow\n", ["AB101", EXEMPTION]),
    ("    time.time()  # approvals-bot: allow AB102, the wrong rule\n", ["AB101", EXEMPTION]),
    ("    pass  # approvals-bot: allow AB101, that was here once\n", [EXEMPTION]),
    ("    '# approvals-bot: allow AB101, a text'\n    time.time()\n", ["AB101"]),
]


@pytest.mark.parametrize(("lines", "expected"), EXEMPT)
def test_a_line_is_exempted_by_a_comment_with_a_reason(lines: str, expected: list[str]) -> None:
    assert [finding.code for finding in lint_text(IMPORTS + lines)] == expected


DEEP = f"from approvals_bot import workflow\n@workflow\nasync def w():\n    return {'1 + ' * 5000}1\n"


@pytest.mark.parametrize(
    "source", ["def broken(:\n", "x = '\0'\n", b"\xff\xfe", b"# coding: nonsense\n", "  x = 1\n", DEEP]
)
def test_a_file_that_is_not_python_is_one_finding(source: str | bytes) -> None:
    (finding,) = lint_text(source, "a.py")
    assert (finding.file, finding.code) == ("a.py", UNREADABLE)


def test_our_own_workflows_are_clean() -> None:
    assert lint_paths([ROOT / "workflows", ROOT / "approvals_bot" / "approvals"]) == []


def test_the_examples_of_the_guides_are_clean() -> None:
    for example in examples(*PAGES):
        if example.language == "python":
            assert lint_text(example.text, example.page) == []


def test_every_rule_is_documented() -> None:
    guide = (ROOT / "docs" / "workflows.md").read_text()
    rows = dict(re.findall(r"^\| `(AB\d{3})` \| ([^|]+) \|", guide, re.MULTILINE))
    assert rows.keys() == {UNREADABLE, EXEMPTION, *(rule.code for rule in RULES)}
    assert all(rows[rule.code] == rule.title for rule in RULES)


# ── as commands ───────────────────────────────────────────────────────────────────────────────────────────────────

DRIFTING = (
    "import time\nfrom approvals_bot import workflow\n\n@workflow\nasync def late() -> float:\n    return time.time()\n"
)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return install(tmp_path)


def test_check_lists_findings_with_all_other_problems(site: Site) -> None:
    file = site.write("workflows/late.py", DRIFTING)
    said = site.type("check", fails=True).stdout
    assert said.startswith(f"{file}:6: AB101: time.time() reads this machine's clock")
    site.write("workflows/leave.toml", "[workflow]\n")
    keys = [each["key"] for each in site.json("check", fails=True)["problems"]]
    assert "AB101" in keys
    assert len(keys) > 1


def test_lint_reads_the_workflows_folder_or_the_given_paths(site: Site, tmp_path: Path) -> None:
    assert site.type("lint").stdout == "No problems found.\n"
    file = site.write("workflows/late.py", DRIFTING)
    assert site.type("lint", fails=True).stdout.startswith(f"{file}:6:12: AB101 time.time() reads")
    (found,) = site.json("lint", str(file), fails=True)["findings"]
    assert (found["line"], found["column"], found["code"]) == (6, 12, "AB101")
    fine = site.write("fine.py", "x = 1\n")
    assert site.json("lint", str(fine)) == {"findings": []}


def test_lint_needs_no_configuration_and_imports_nothing(tmp_path: Path) -> None:
    file = tmp_path / "late.py"
    file.write_text(f"{DRIFTING}\nraise SystemExit(3)\n")
    command = [sys.executable, "-m", "approvals_bot", "lint", "late.py", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert [each["code"] for each in json.loads(done.stdout)["findings"]] == ["AB101"]
