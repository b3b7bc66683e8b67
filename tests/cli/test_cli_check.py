"""`check`: every problem in TOML and Python with its line, and whether open runs continue on this code."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from house import LEAVE, House

from approvals_bot.durable.store import postgres_schema, sqlite

TRIP = """\
[workflow]
id      = "trip"
run     = "trips:trip"
request = ["@managers"]
[fields]
to    = "string"
days  = { type = "integer", default = 1 }
klass = { type = "enum", values = ["economy", "business"] }
[settings]
limit = 5
"""

TRIPS = """\
from dataclasses import dataclass
from typing import Literal
from approvals_bot import workflow

@dataclass
class Trip:
    to: str
    days: int = 1
    klass: str = ""

@dataclass
class Settings:
    limit: int

@workflow
async def trip(asked: Trip, settings: Settings) -> str:
    return asked.to
"""

MODEL = """\
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal
from pydantic import BaseModel, Field
from approvals_bot import workflow

class Colour(Enum):
    red = "red"
    blue = "blue"

class Order(BaseModel):
    what: str
    count: Annotated[int, Field(ge=10)]
    price: Decimal = Decimal("1.50")
    size: Literal["s", "m"] = "s"
    colour: Colour | None = None
    until: date | None = None
    fast: bool = False

@workflow
async def order(asked: Order) -> str:
    return asked.what
"""

ORDER = '[workflow]\nid = "order"\nrun = "orders:order"\nrequest = ["@managers"]\n'


BODY = "from approvals_bot import workflow\n\n@workflow\nasync def {}() -> None: ...\n"


def lines(house: House) -> list[str]:
    """Return the problems that `check` prints, without the folder's name."""
    printed = house.type("check", fails=True).stdout
    return [line.removeprefix(f"{house.folder}/") for line in printed.splitlines()]


def test_check_reports_no_problems_and_the_workflows(house: House) -> None:
    assert house.type("check").stdout == f"{house.config}: no problems. Workflows: leave.\n"
    assert house.json("check") == {"problems": [], "workflows": ["leave"]}


def test_check_reports_toml_and_python_problems_with_lines(house: House) -> None:
    house.write("workflows/leave.toml", LEAVE.replace("days <= 1", "dys <= 1"))
    house.write("workflows/a.py", "import os\n\nimport nothing_of_this_name\n")
    house.write("workflows/b.py", "def broken(:\n")
    assert lines(house) == [
        "workflows/a.py:3: import: can't be imported: ModuleNotFoundError: No module named 'nothing_of_this_name'",
        "workflows/b.py:1: import: can't be imported: SyntaxError: invalid syntax",
        "workflows/leave.toml:9: auto[0].when: no field is called dys (did you mean days?)",
    ]
    first = house.json("check", fails=True)["problems"][0]
    assert (first["line"], first["key"]) == (3, "import")


def test_check_survives_a_module_that_exits_at_import(house: House) -> None:
    house.write("workflows/a.py", "raise SystemExit(3)\n")
    assert lines(house) == ["workflows/a.py:1: import: can't be imported: SystemExit: 3"]


def test_duplicate_workflow_names_are_an_error(house: House) -> None:
    house.write("workflows/one.py", BODY.format("leave"))
    assert lines(house) == [
        "workflows/leave.toml:2: workflow.id: a Python workflow has this name, too (one.py:3); rename one"
    ]
    house.write("workflows/one.py", BODY.format("twin"))
    house.write("workflows/two.py", BODY.format("twin"))
    assert "two.py:3: import: can't be imported: WorkflowNameTakenError" in lines(house)[0]


def test_python_workflow_matches_its_file(house: House) -> None:
    house.write("workflows/trips.py", TRIPS)
    house.write("workflows/trip.toml", TRIP)
    assert house.json("check")["workflows"] == ["leave", "trip"]  # only behind its file, whose `request` applies


OPTIONAL = 'to    = { type = "string", required = false }'
NARROW = 'klass: Literal["economy", "first"]'
UNFIT: list[tuple[Any, Any, str]] = [  # (replacement in the TOML file, in the Python file, expected problem)
    (
        ("trips:trip", "trips:tripp"), (),
        "3: workflow.run: trips.py has no @workflow named tripp (did you mean trips:trip?)",
    ),
    (
        ("trips:trip", "trip:trip"), (),
        "3: workflow.run: no trip.py with a @workflow was found in the workflows folder (did you mean trips:trip?)",
    ),
    (
        ("klass =", "class_ ="), (),
        "8: fields.class_: Trip has no such field (did you mean klass?)",
    ),
    (
        ('to    = "string"\n', ""), (),
        "5: fields.to: is missing; Trip needs it",
    ),
    (
        ('to    = "string"', 'to    = "integer"'), (),
        "6: fields.to: a value of type integer is passed as 1, which Trip.to (str) doesn't take",
    ),
    (
        ('to    = "string"', OPTIONAL), (),
        "6: fields.to: is optional here, but Trip.to takes no null; give it a default",
    ),
    (
        (), ("klass: str", NARROW),
        "8: fields.klass: \"business\" is not a value of Trip.klass (Literal['economy', 'first'])",
    ),
    (
        ("limit = 5", 'limit = "five"'), (),
        "10: settings.limit: input should be a valid integer, unable to parse string as an integer",
    ),
    (
        ("limit = 5", ""), (),
        "9: settings.limit: is missing",
    ),
    (
        (), ("settings: Settings", "other: int = 0"),
        "9: settings: trips:trip has no argument named settings",
    ),
    (
        (), ("asked: Trip, ", "asked: Trip, more: int, "),
        "3: workflow.run: trips:trip needs more than the fields: more (one argument must take them all)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("toml", "python", "expected"), UNFIT, ids=[expected for *_, expected in UNFIT])
def test_mismatches_between_file_and_function_are_named(house: House, toml: Any, python: Any, expected: str) -> None:
    house.write("workflows/trip.toml", TRIP.replace(*toml) if toml else TRIP)
    house.write("workflows/trips.py", TRIPS.replace(*python) if python else TRIPS)
    assert lines(house) == [f"workflows/trip.toml:{expected}"]


def test_fields_without_a_parameter_are_an_error(house: House) -> None:
    house.write(
        "workflows/trips.py", "from approvals_bot import workflow\n\n@workflow\nasync def trip() -> None: ...\n"
    )
    house.write("workflows/trip.toml", TRIP.partition("[settings]")[0])
    assert lines(house) == ["workflows/trip.toml:5: fields: trips:trip has no argument to take them"]


def test_fields_are_derived_from_the_functions_parameter(house: House) -> None:
    house.write("workflows/orders.py", MODEL)
    house.write("workflows/order.toml", ORDER)
    house.type("check")
    refused = house.type("start", "order", "--requester", "bo@acme.eu", "--input", '{"wat": 1}', fails=True).stderr
    assert 'wat: no such field (did you mean "what"?)' in refused
    assert "input.count: is required" in refused
    run = house.start("order", what="a desk", count=12)
    created = house.json("show", run)["events"][0]["data"]["input"]["asked"]
    assert created == {
        "what": "a desk", "count": 12, "price": "1.5", "size": "s", "colour": None, "until": None, "fast": False,
    }  # fmt: skip


def test_parameter_type_without_a_form_takes_any_input(house: House) -> None:
    house.write("workflows/orders.py", MODEL.replace("fast: bool = False", "tags: list[str] = []"))
    house.write("workflows/order.toml", ORDER)
    run = house.start("order", what="a desk", count=12, tags=["x"])
    assert house.json("show", run)["events"][0]["data"]["input"]["asked"]["tags"] == ["x"]


# ── open runs ─────────────────────────────────────────────────────────────────────────────────────────────────────

FIRST = """\
from approvals_bot import create_hook, step, workflow

@step
async def look() -> int:
    return 1

@workflow
async def wait() -> None:
    await look()
    await create_hook(token="go")
"""


def test_check_runs_lists_open_runs_that_would_stall(either_house: House) -> None:
    house = either_house
    house.write("workflows/waits.py", FIRST)
    waiting, request = house.json("start", "wait")["run_id"], house.start(days=3)
    house.work()
    assert house.json("check", "--runs")["runs"] == {"checked": 2, "would_stall": []}
    assert "2 open runs continue with this code." in house.type("check", "--runs").stdout

    house.write("workflows/waits.py", FIRST.replace("    await look()\n", ""))
    found = house.json("check", "--runs", fails=True)["runs"]
    assert (found["checked"], [each["run_id"] for each in found["would_stall"]]) == (2, [waiting])
    assert "recorded" in found["would_stall"][0]["why"]
    text = house.type("check", "--runs", fails=True).stdout
    assert "1 of 2 open runs would stall on this code:" in text
    assert request not in text
    assert house.json("show", waiting)["status"] == "running"  # nothing was changed


def test_check_runs_leaves_an_older_schema_alone(either_house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    either_house.start()
    store = sqlite if "sqlite:" in either_house.config.read_text() else postgres_schema
    name = "_migrations" if store is sqlite else "migrations"
    known = getattr(store, name)()
    with monkeypatch.context() as newer:
        newer.setattr(store, name, lambda: [*known, ("9999_newer.sql", "SELECT 1;")])
        refused = either_house.type("check", "--runs", fails=True)
        assert f"it has schema {len(known)}, but this program works with {len(known) + 1}" in refused.output
        assert "approvals-bot migrate" in refused.output
    assert either_house.json("check", "--runs")["runs"]["checked"] == 1, "the older program still works"


def test_check_runs_creates_no_database(house: House) -> None:
    settings = house.config.read_text().replace("sqlite:///approvals.db", "sqlite:///mistyped/approvals.db")
    house.write("config.toml", settings)
    assert "There is no database" in house.type("check", "--runs", fails=True).stderr
    assert not (house.folder / "mistyped").exists()


def test_run_whose_code_is_gone_would_stall(house: House) -> None:
    house.write("workflows/waits.py", FIRST.replace("wait()", "gone()"))
    house.json("start", "gone")
    house.work()
    house.write("workflows/waits.py", "")
    from approvals_bot.durable.core.registry import registry

    registry._kept.pop(("gone", None), None)  # as in a new process
    found = house.json("check", "--runs", fails=True)["runs"]["would_stall"]
    assert "No workflow named 'gone'" in found[0]["why"]


# ── schema, init and the rest ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("of", ["service", "workflow"])
def test_schema_prints_valid_json_schemas(house: House, of: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(house.type("schema", of).stdout))


def test_init_writes_a_configuration_that_checks(house: House) -> None:
    folder = house.folder / "new"
    answers = ("--you", "me@here.eu", "--colleague", "you@here.eu", "--what", "purchase")
    assert "'me@' is not an email address" in house.type("init", str(folder), "--you", "me@", fails=True).stderr
    assert not folder.exists()
    assert "config.toml" in house.type("init", str(folder), *answers).stdout
    assert "you@here.eu" in (folder / "config.toml").read_text()
    assert 'id      = "purchase"' in (folder / "workflows" / "purchase.toml").read_text()
    assert house.type("check", "--config", str(folder / "config.toml")).stdout.endswith("Workflows: purchase.\n")
    assert "Nothing was changed" in house.type("init", str(folder), fails=True).stderr


def test_missing_configuration_is_reported(house: House) -> None:
    refused = house.type("runs", "--config", str(house.folder / "none.toml"), fails=True)
    assert refused.stderr.endswith("none.toml:1: file: can't be read: No such file or directory\n")


def test_version_is_printed(house: House) -> None:
    assert house.type("--version").stdout.startswith("approvals-bot ")


def test_migrate_updates_the_database_schema(house: House) -> None:
    assert house.type("migrate").stdout == "The database is up to date.\n"
