"""A Python workflow that takes a timedelta gets one, in whatever form the input writes it."""

from __future__ import annotations

from tests.support.small_site import Site

NAP = """\
from dataclasses import dataclass
from datetime import timedelta
from approvals_bot import workflow

@dataclass
class Nap:
    length: timedelta
    snooze: timedelta | None = None
    note: str = "-"
    least: timedelta = timedelta(minutes=90)

@workflow
async def siesta(asked: Nap) -> list[str]:
    return [str(asked.length), str(asked.snooze), asked.note, str(asked.least)]
"""

BEHIND_A_FILE = '[workflow]\nid = "rest"\nrun = "naps:siesta"\nrequest = ["*"]\n'
WITH_FIELDS = (
    BEHIND_A_FILE + '[fields]\nlength = "duration"\nnote = { type = "string", required = false, default = "x" }\n'
)


def result(site: Site, workflow: str, **input: str) -> list[str]:
    run_id = site.start(workflow, "ann@acme.eu", **input)
    site.work()
    found: list[str] = site.json("show", run_id)["result"]
    return found


def test_timedelta_parameters_take_the_products_durations(site: Site) -> None:
    site.write("workflows/naps.py", NAP)
    assert result(site, "siesta", length="1h30m", snooze="5 minutes", note="1h") == [
        "1:30:00",
        "0:05:00",
        "1h",
        "1:30:00",
    ]
    assert result(site, "siesta", length="PT2H") == [
        "2:00:00",
        "None",
        "-",
        "1:30:00",
    ]  # pydantic's own format works too


def test_workflow_file_derives_durations_or_declares_them(site: Site) -> None:
    site.write("workflows/naps.py", NAP)
    site.write("workflows/rest.toml", BEHIND_A_FILE)
    assert result(site, "rest", length="45m") == ["0:45:00", "None", "-", "1:30:00"]
    site.write("workflows/rest.toml", WITH_FIELDS)
    assert result(site, "rest", length="2h") == ["2:00:00", "None", "x", "1:30:00"]


def test_invalid_duration_is_refused_by_its_field(site: Site) -> None:
    site.write("workflows/naps.py", NAP)
    refused = site.type("start", "siesta", "--input", '{"length": "soon"}', "--requester", "ann@acme.eu", fails=True)
    assert "length" in refused.output
