"""`check`: every mistake of TOML and Python at once, at its line; and whether open runs go on with this code."""

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
    """What `check` prints, without the folder."""
    said = house.type("check", fails=True).stdout
    return [line.removeprefix(f"{house.folder}/") for line in said.splitlines()]


def test_a_house_in_order_is_said_to_be_fine(house: House) -> None:
    assert house.type("check").stdout == f"{house.config}: fine. Workflows: leave.\n"
    assert house.json("check") == {"problems": [], "workflows": ["leave"]}


def test_mistakes_of_toml_and_python_are_named_together_each_at_its_line(house: House) -> None:
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


def test_a_file_that_ends_the_program_at_import_does_not_end_the_check(house: House) -> None:
    house.write("workflows/a.py", "raise SystemExit(3)\n")
    assert lines(house) == ["workflows/a.py:1: import: can't be imported: SystemExit: 3"]


def test_two_workflows_of_one_name_are_an_error(house: House) -> None:
    house.write("workflows/one.py", BODY.format("leave"))
    assert lines(house) == [
        "workflows/leave.toml:2: workflow.id: a Python workflow has this name, too (one.py:3); rename one"
    ]
    house.write("workflows/one.py", BODY.format("twin"))
    house.write("workflows/two.py", BODY.format("twin"))
    assert "two.py:3: import: can't be imported: WorkflowNameTakenError" in lines(house)[0]


def test_a_python_workflow_behind_a_file_fits_it(house: House) -> None:
    house.write("workflows/trips.py", TRIPS)
    house.write("workflows/trip.toml", TRIP)
    assert house.json("check")["workflows"] == ["leave", "trip"]  # and not by its own name, past the file's `request`


OPTIONAL = 'to    = { type = "string", required = false }'
NARROW = 'klass: Literal["economy", "first"]'
UNFIT: list[tuple[Any, Any, str]] = [  # what is replaced in the TOML file, what in the Python file, and what is said
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
        "6: fields.to: a value of type integer is handed over as 1, which Trip.to (str) doesn't take",
    ),
    (
        ('to    = "string"', OPTIONAL), (),
        "6: fields.to: is optional here, but Trip.to takes no null; give it a default",
    ),
    (
        (), ("klass: str", NARROW),
        "8: fields.klass: \"business\" is no value of Trip.klass (Literal['economy', 'first'])",
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
        "3: workflow.run: trips:trip needs more than the fields: more (one argument takes them all)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("toml", "python", "expected"), UNFIT, ids=[said for *_, said in UNFIT])
def test_what_does_not_fit_is_named(house: House, toml: Any, python: Any, expected: str) -> None:
    house.write("workflows/trip.toml", TRIP.replace(*toml) if toml else TRIP)
    house.write("workflows/trips.py", TRIPS.replace(*python) if python else TRIPS)
    assert lines(house) == [f"workflows/trip.toml:{expected}"]


def test_fields_that_have_nowhere_to_go_are_an_error(house: House) -> None:
    house.write(
        "workflows/trips.py", "from approvals_bot import workflow\n\n@workflow\nasync def trip() -> None: ...\n"
    )
    house.write("workflows/trip.toml", TRIP.partition("[settings]")[0])
    assert lines(house) == ["workflows/trip.toml:5: fields: trips:trip has no argument that could take them"]


def test_without_fields_they_are_derived_from_the_functions_type(house: House) -> None:
    house.write("workflows/orders.py", MODEL)
    house.write("workflows/order.toml", ORDER)
    house.type("check")
    said = house.type("start", "order", "--requester", "bo@acme.eu", "--input", '{"wat": 1}', fails=True).stderr
    assert 'wat: no such field (did you mean "what"?)' in said
    assert "input.count: is required" in said
    run = house.start("order", what="a desk", count=12)
    created = house.json("show", run)["events"][0]["data"]["input"]["asked"]
    assert created == {
        "what": "a desk", "count": 12, "price": "1.5", "size": "s", "colour": None, "until": None, "fast": False,
    }  # fmt: skip


def test_a_type_that_no_form_can_show_is_left_to_itself(house: House) -> None:
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


def test_open_runs_are_replayed_on_this_code_and_those_that_would_stall_are_named(either_house: House) -> None:
    house = either_house
    house.write("workflows/waits.py", FIRST)
    waiting, asked = house.json("start", "wait")["run_id"], house.start(days=3)
    house.work()
    assert house.json("check", "--runs")["runs"] == {"checked": 2, "would_stall": []}
    assert "2 open runs go on with this code." in house.type("check", "--runs").stdout

    house.write("workflows/waits.py", FIRST.replace("    await look()\n", ""))
    found = house.json("check", "--runs", fails=True)["runs"]
    assert (found["checked"], [each["run_id"] for each in found["would_stall"]]) == (2, [waiting])
    assert "recorded" in found["would_stall"][0]["why"]
    text = house.type("check", "--runs", fails=True).stdout
    assert "Of 2 open runs 1 would stall on this code:" in text
    assert asked not in text
    assert house.json("show", waiting)["status"] == "running"  # nothing was touched


def test_looking_at_open_runs_leaves_an_older_schema_as_it_is(
    either_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    either_house.start()
    store = sqlite if "sqlite:" in either_house.config.read_text() else postgres_schema
    name = "_migrations" if store is sqlite else "migrations"
    known = getattr(store, name)()
    with monkeypatch.context() as newer:
        newer.setattr(store, name, lambda: [*known, ("9999_newer.sql", "SELECT 1;")])
        refused = either_house.type("check", "--runs", fails=True)
        assert f"it has schema {len(known)}, but this program works with {len(known) + 1}" in refused.output
        assert "approvals-bot migrate" in refused.output
    assert either_house.json("check", "--runs")["runs"]["checked"] == 1, "the program before it still serves"


def test_looking_at_open_runs_makes_no_database(house: House) -> None:
    settings = house.config.read_text().replace("sqlite:///approvals.db", "sqlite:///mistyped/approvals.db")
    house.write("config.toml", settings)
    assert "There is no database" in house.type("check", "--runs", fails=True).stderr
    assert not (house.folder / "mistyped").exists()


def test_a_run_whose_code_is_gone_would_stall(house: House) -> None:
    house.write("workflows/waits.py", FIRST.replace("wait()", "gone()"))
    house.json("start", "gone")
    house.work()
    house.write("workflows/waits.py", "")
    from approvals_bot.durable.core.registry import registry

    registry._kept.pop(("gone", None), None)  # as in a new process
    found = house.json("check", "--runs", fails=True)["runs"]["would_stall"]
    assert "No workflow named 'gone'" in found[0]["why"]


# ── schemas, and the beginning ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("of", ["service", "workflow"])
def test_the_schemas_are_json_schemas(house: House, of: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(house.type("schema", of).stdout))


def test_an_empty_folder_becomes_a_service_that_checks(house: House) -> None:
    folder = house.folder / "new"
    answers = ("--you", "me@here.eu", "--colleague", "you@here.eu", "--what", "purchase")
    assert "'me@' is not a mail address" in house.type("init", str(folder), "--you", "me@", fails=True).stderr
    assert not folder.exists()
    assert "config.toml" in house.type("init", str(folder), *answers).stdout
    assert "you@here.eu" in (folder / "config.toml").read_text()
    assert 'id      = "purchase"' in (folder / "workflows" / "purchase.toml").read_text()
    assert house.type("check", "--config", str(folder / "config.toml")).stdout.endswith("Workflows: purchase.\n")
    assert "Nothing was changed" in house.type("init", str(folder), fails=True).stderr


def test_a_file_that_is_not_there_is_said(house: House) -> None:
    said = house.type("runs", "--config", str(house.folder / "none.toml"), fails=True)
    assert said.stderr.endswith("none.toml:1: file: can't be read: No such file or directory\n")


def test_the_version_is_told(house: House) -> None:
    assert house.type("--version").stdout.startswith("approvals-bot ")


def test_the_schema_of_the_database_is_brought_up_to_date(house: House) -> None:
    assert house.type("migrate").stdout == "The database is up to date.\n"
