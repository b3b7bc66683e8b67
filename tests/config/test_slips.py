"""The slips of people who are new to TOML get a message that says what to write instead."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from approvals_bot.config.load import load_workflows
from approvals_bot.config.messages import ConfigErrors

FILE = """\
[workflow]
id = "t"
title = "T"
request = ["*"]
[fields]
x = "string"
d = "date"
[[stage]]
id = "s"
from = ["@core"]
[deliver]
email = true
"""
TITLE, DATE, ID, FROM, MAIL, LAST = (
    'title = "T"',
    'd = "date"',
    'id = "s"',
    'from = ["@core"]',
    "email = true",
    "[deliver]",
)

QUOTES = 'has a typographic quotation mark, {}; write plain quotation marks: "…"'
BLANK = "has an invisible character, {}; delete it, and type a plain blank"
ONE_LINE = "an inline table { … } must be on one line; for more lines write a table of its own, [name.of.it]"
CLOSING = 'a closing quotation mark is missing, or " inside the text is not written as \\"'
INSIDE = 'a quotation mark inside of text is written as \\", or the text is put in single ones'
ODD = "a key with blanks or special characters needs quotation marks: "

SLIPS = [
    (TITLE, "title = “T”", QUOTES.format("“")),
    (TITLE, 'title = "T”', QUOTES.format("”")),
    (TITLE, "title = ‘T’", QUOTES.format("‘")),
    (MAIL, "email = True", "write true, not True"),
    (MAIL, "email = yes", "write true, not yes"),
    (MAIL, "email = None", "there is no None in TOML; leave the key out"),
    (MAIL, "email = 10m", 'text needs quotation marks: email = "10m"'),
    (ID, "id = s", 'text needs quotation marks: id = "s"'),
    (FROM, "from = [@core]", 'text needs quotation marks: "@core"'),
    (FROM, 'from = ["@core", ann@acme.eu]', 'text needs quotation marks: "ann@acme.eu"'),
    (DATE, "d = { type = date }", 'text needs quotation marks: "date"'),
    (ID, "id = \"s\"\nwhen = x == 'a'", "text needs quotation marks: when = '…'"),
    (ID, 'id = "s"\nneed = 07', "a number doesn't begin with 0; text needs quotation marks"),
    (ID, 'id =\u00a0"s"', BLANK.format("U+00A0 (a no-break space)")),
    (ID, 'id = "s"\u200b', BLANK.format("U+200B (a zero-width space)")),
    (DATE, 'd = { type = "date",\n required = false }', ONE_LINE),
    (DATE, 'd = {\n type = "date" }', ONE_LINE),
    (DATE, 'd = { type = "date", }', "an inline table can't end with a comma; delete the last one before }"),
    (DATE, 'd = { type: "date" }', "an inline table has = between key and value, not a colon"),
    (ID, 'id = "s"\nid = "u"', "id is there twice, first in line 9"),
    (MAIL, "email = true\n[deliver]", "the table [deliver] is there twice, first in line 11; write all its keys there"),
    (LAST, "[stage]", "the table [stage] is there twice, first in line 8; write [[stage]] each time"),
    (LAST, "[fields.x]", "x is there twice, first in line 6; write that line or this table, not both"),
    (
        "[[stage]]",
        "[[stage.seat]]\n[[stage]]",
        "[[stage]] must come before what belongs to it: move line 8 and its keys below this line",
    ),
    ("[[stage]]", "[[stage]", "close the table's name with ]]: [[stage]]"),
    (LAST, "[deliver", "close the table's name with ]: [deliver]"),
    (LAST, "[my table]", 'a table\'s name has no blanks, unless it is in quotation marks: ["my table"]'),
    (LAST, "[p.ann@acme.eu]", 'an address in a table\'s name needs quotation marks: [p."ann@acme.eu"]'),
    (TITLE, 'title: "T"', "write title = …, with an equals sign"),
    (TITLE, 'title "T"', "write title = …, with an equals sign"),
    (TITLE, "title", "write title = …, with an equals sign"),
    (TITLE, 'title == "T"', "write title = …, with one equals sign"),
    (TITLE, "title =", "title has no value; write one, or delete the line"),
    (TITLE, 'title = "T', CLOSING),
    (
        TITLE,
        "title = 'it's'",
        'a closing quotation mark is missing; text with an apostrophe goes into double ones: "it\'s"',
    ),
    (TITLE, 'title = "a "b" c"', INSIDE),
    (
        TITLE,
        'title = "C:\\dir"',
        "a backslash in \"…\" is written twice; or put the text in single quotation marks, '…'",
    ),
    (TITLE, "// title", "a comment begins with #"),
    (TITLE, "title = 'T'  -- x", "a comment begins with #"),
    (TITLE, 'title = "T";', 'a line doesn\'t end with ";"; delete it'),
    (TITLE, 'title = "T" x', "nothing follows a value on its line, except a comment after #"),
    (FROM, 'from = ["@core" "@em"]', "a comma is missing between two values"),
    (FROM, 'from = ["@core"', "the list that begins in line 10 isn't complete: a comma or its ] is missing"),
    (FROM, 'from = "@core", "@em"', 'several values are a list, in brackets: ["…", "…"]'),
    ('x = "string"', 'größe = "string"', f'{ODD}"größe" = …'),
    (LAST, "}", "invalid statement"),
]


@pytest.mark.parametrize(("right", "slip", "message"), SLIPS, ids=[slip[:30].strip() for _, slip, _ in SLIPS])
def test_a_slip_is_answered_with_what_to_write(tmp_path: Path, right: str, slip: str, message: str) -> None:
    (tmp_path / "t.toml").write_text(FILE.replace(right, slip, 1), "utf-8")
    with pytest.raises(ConfigErrors) as refused:
        load_workflows(tmp_path)
    (problem,) = refused.value.problems
    assert (problem.key, problem.message) == ("syntax", message)


@pytest.mark.parametrize("title", ["Say “hi”", "it’s\u00a0fine", "a // b = c, {d: e} [f]", "email = True"])
def test_what_is_no_slip_inside_a_text_loads(tmp_path: Path, title: str) -> None:
    (tmp_path / "t.toml").write_text(FILE.replace('"T"', f'"{title}"'), "utf-8")
    assert load_workflows(tmp_path)[0].workflow.title == title


@pytest.mark.parametrize("row", ["a b " * 2_000, "x" + " " * 8_000 + "y", "[" * 19 + "a " * 4_000, "= " * 4_000])
def test_a_long_line_of_anything_is_answered_at_once(tmp_path: Path, row: str) -> None:
    (tmp_path / "t.toml").write_text(FILE + row, "utf-8")
    started = time.process_time()
    with pytest.raises(ConfigErrors):
        load_workflows(tmp_path)
    assert time.process_time() - started < 0.5
