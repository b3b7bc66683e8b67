"""`check`: every problem in TOML and Python with its line."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from approvals_bot.cli import app
from tests.support.small_site import LEAVE, Site

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


def lines(site: Site) -> list[str]:
    """Return the problems that `check` prints, without the folder's name."""
    printed = site.type("check", fails=True).stdout
    return [line.removeprefix(f"{site.folder}/") for line in printed.splitlines()]


def test_check_reports_no_problems_and_the_workflows(site: Site) -> None:
    nobody = "nobody is notified of a request: approvers only find it in their inbox"
    warning = f"{site.folder}/workflows/leave.toml:1: warning: deliver: {nobody}\n"
    printed = f"{warning}{site.config}: no problems. Workflows: leave.\n"
    assert site.type("check").stdout == printed
    assert site.type("check", "--strict", fails=True).stdout == printed
    found = site.json("check")
    assert ([one["message"] for one in found["warnings"]], found["problems"]) == ([nobody], [])
    assert found["workflows"] == ["leave"]


def test_check_reports_toml_and_python_problems_with_lines(site: Site) -> None:
    site.write("workflows/leave.toml", LEAVE.replace("days <= 1", "dys <= 1"))
    site.write("workflows/a.py", "import os\n\nimport nothing_of_this_name\n")
    site.write("workflows/b.py", "def broken(:\n")
    assert lines(site) == [
        "workflows/a.py:3: import: can't be imported: ModuleNotFoundError: No module named 'nothing_of_this_name'",
        "workflows/b.py:1: import: can't be imported: SyntaxError: invalid syntax",
        "workflows/leave.toml:9: auto[0].when: no field is called dys (did you mean days?)",
    ]
    first = site.json("check", fails=True)["problems"][0]
    assert (first["line"], first["key"]) == (3, "import")


def test_check_survives_a_module_that_exits_at_import(site: Site) -> None:
    site.write("workflows/a.py", "raise SystemExit(3)\n")
    assert lines(site) == ["workflows/a.py:1: import: can't be imported: SystemExit: 3"]


def test_check_names_the_line_of_a_type_that_is_not_defined(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from __future__ import annotations\n\nfrom approvals_bot import step\n\n\n@step\n"
    site.write("workflows/a.py", text + "async def ship(order: Order) -> None: ...\n")
    what = "the annotation 'Order' of order of ship() can't be resolved: name 'Order' is not defined."
    said = f"workflows/a.py:6: annotation: {what} Define or import it in the module."
    assert lines(site) == [said]
    monkeypatch.chdir(site.folder)
    beside = CliRunner().invoke(app, ["check", "--config", "config.toml"])
    assert beside.stdout.splitlines() == [said], "the path is relative to where the command runs, as in every problem"


def test_duplicate_workflow_names_are_an_error(site: Site) -> None:
    site.write("workflows/one.py", BODY.format("leave"))
    assert lines(site) == [
        "workflows/leave.toml:2: workflow.id: a Python workflow has this name, too (one.py:3); rename one"
    ]
    site.write("workflows/one.py", BODY.format("twin"))
    site.write("workflows/two.py", BODY.format("twin"))
    assert "two.py:3: import: can't be imported: WorkflowNameTakenError" in lines(site)[0]


def test_python_workflow_matches_its_file(site: Site) -> None:
    site.write("workflows/trips.py", TRIPS)
    site.write("workflows/trip.toml", TRIP)
    assert site.json("check")["workflows"] == ["leave", "trip"]  # only behind its file, whose `request` applies


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
        ('to    = "string"', 'to = { type = "list", of = "person" }'), (),
        "6: fields.to: a value of type list is passed as ['ann@acme.eu'], which Trip.to (str) doesn't take",
    ),
    (
        ('to    = "string"', 'to    = "file"'), (),
        "6: fields.to: a value of type file is passed as {'id': 'file_1', 'name': 'plan.pdf', 'size': 1, "
        "'sha256': '', 'type': 'application/pdf'}, which Trip.to (str) doesn't take",
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
def test_mismatches_between_file_and_function_are_named(site: Site, toml: Any, python: Any, expected: str) -> None:
    site.write("workflows/trip.toml", TRIP.replace(*toml) if toml else TRIP)
    site.write("workflows/trips.py", TRIPS.replace(*python) if python else TRIPS)
    assert lines(site) == [f"workflows/trip.toml:{expected}"]


def test_fields_without_a_parameter_are_an_error(site: Site) -> None:
    site.write("workflows/trips.py", "from approvals_bot import workflow\n\n@workflow\nasync def trip() -> None: ...\n")
    site.write("workflows/trip.toml", TRIP.partition("[settings]")[0])
    assert lines(site) == ["workflows/trip.toml:5: fields: trips:trip has no argument to take them"]


def test_fields_are_derived_from_the_functions_parameter(site: Site) -> None:
    site.write("workflows/orders.py", MODEL)
    site.write("workflows/order.toml", ORDER)
    site.type("check")
    refused = site.type("start", "order", "--requester", "bo@acme.eu", "--input", '{"wat": 1}', fails=True).stderr
    assert 'wat: no such field (did you mean "what"?)' in refused
    assert "input.count: is required" in refused
    run = site.start("order", what="a desk", count=12)
    created = site.json("show", run)["events"][0]["data"]["input"]["asked"]
    assert created == {
        "what": "a desk", "count": 12, "price": "1.5", "size": "s", "colour": None, "until": None, "fast": False,
    }  # fmt: skip


def test_parameter_type_without_a_form_takes_any_input(site: Site) -> None:
    site.write("workflows/orders.py", MODEL.replace("fast: bool = False", "tags: list[str] = []"))
    site.write("workflows/order.toml", ORDER)
    run = site.start("order", what="a desk", count=12, tags=["x"])
    assert site.json("show", run)["events"][0]["data"]["input"]["asked"]["tags"] == ["x"]


# ── schema, init and the rest ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("of", ["service", "workflow", "tests", "defaults"])
def test_schema_prints_valid_json_schemas(site: Site, of: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(site.type("schema", of).stdout))


def test_init_writes_a_configuration_that_checks(site: Site) -> None:
    folder = site.folder / "new"
    answers = ("--you", "me@here.eu", "--colleague", "you@here.eu", "--what", "purchase")
    assert '"me@" is not an email address' in site.type("init", str(folder), "--you", "me@", fails=2).stderr
    assert not folder.exists()
    said = site.type("init", str(folder), *answers).stdout
    assert "config.toml" in said
    assert f"Bearer $(cat {folder}/secrets/ci.key)" in said, "a key that `serve` takes, too"
    assert "you@here.eu" in (folder / "config.toml").read_text()
    assert 'id      = "purchase"' in (folder / "workflows" / "purchase.toml").read_text()
    for name in ("config.toml", "workflows/purchase.toml", "workflows/purchase.test.toml"):
        written = folder / name
        named = written.read_text().partition("\n")[0].removeprefix("#:schema ")
        jsonschema.validate(tomllib.loads(written.read_text()), json.loads((written.parent / named).read_text()))
    assert (folder / "schemas" / "defaults.json").exists()
    assert site.type("check", "--config", str(folder / "config.toml")).stdout.endswith("Workflows: purchase.\n")
    assert "Nothing was changed" in site.type("init", str(folder), fails=True).stderr


def test_missing_configuration_is_reported(site: Site) -> None:
    refused = site.type("runs", "--config", str(site.folder / "none.toml"), fails=True)
    assert refused.stderr.endswith("none.toml:1: file: can't be read: No such file or directory\n")


def test_version_is_printed(site: Site) -> None:
    assert site.type("--version").stdout.startswith("approvals-bot ")


def test_migrate_updates_the_database_schema(site: Site) -> None:
    assert site.type("migrate").stdout == "The database is up to date.\n"


LIMITED = """
from approvals_bot import step, workflow

@step(limit="erp")
async def books() -> str:
    return "booked"

@workflow(name="books with a limit")
async def limited() -> str:
    return await books()
"""


def test_check_names_a_limit_that_does_not_exist(site: Site) -> None:
    site.write("workflows/limited.py", LIMITED)
    said = site.type("check", fails=True).output
    assert "limited.py:4: step: books() has the limit 'erp', which doesn't exist. There is none." in said
    (site.folder / "config.toml").write_text(
        (site.folder / "config.toml").read_text() + "\n[limits]\nerp = { at_once = 5 }\n"
    )
    site.type("check")


def test_check_names_a_step_that_can_not_be_one(site: Site) -> None:
    site.write("workflows/limited.py", LIMITED.replace('return "booked"', 'yield "booked"'))
    assert "limited.py:4: step: @step: books() is a generator" in site.type("check", fails=True).output
