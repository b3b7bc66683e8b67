"""The scanner finds every key's line and stops input that would be slow for tomllib."""

from __future__ import annotations

import time
import tomllib
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from approvals_bot.config.positions import DEEPEST, MOST_KEY_PARTS, Path, UnreadableError, find_places
from tests.support.thorough import examples

SHOWCASE = '''\
# a comment = "x"
title = "a \\" = [quote"

[owner]   # who
name.first = 'C:\\path'
"full name" = """
[not.a.table]
key = "no"
"""
dates = [ 1979-05-27, # why = 1
  1979-05-28 07:32:00Z,
]
point = { x = 1, y.z = [ { a = "b" } ] }
[[stage]]
id = "one"
  [[stage.seat]]
  need = 1
  [[stage.seat]]
  need = 2
[stage.ask]
code = "string"
[[stage]]
id = "two"
[a.b.c]
[a]
d = \'\'\'\'quoted\'\'\'\'
'''


def test_every_kind_of_key_is_found_on_its_line() -> None:
    places = find_places(SHOWCASE)
    expected: dict[Path, int] = {
        ("title",): 2,
        ("owner",): 4,
        ("owner", "name", "first"): 5,
        ("owner", "full name"): 6,
        ("owner", "dates"): 10,
        ("owner", "dates", 1): 11,
        ("owner", "point", "x"): 13,
        ("owner", "point", "y", "z", 0, "a"): 13,
        ("stage", 0): 14,
        ("stage", 0, "seat", 0, "need"): 17,
        ("stage", 0, "seat", 1): 18,
        ("stage", 0, "ask", "code"): 21,
        ("stage", 1, "id"): 23,
        ("a", "b", "c"): 24,
        ("a",): 25,  # its own header is a better place than the one that implied it
        ("a", "d"): 26,
    }
    assert {path: places.line_of(path) for path in expected} == expected


def test_missing_key_is_placed_where_its_table_begins() -> None:
    places = find_places(SHOWCASE)
    assert places.line_of(("stage", 1, "from")) == 22
    assert places.line_of(("stage", 0, "seat", 1, "from")) == 18
    assert places.line_of(("nothing", "here")) == 1


def test_windows_line_ends_count_the_same() -> None:
    assert find_places(SHOWCASE.replace("\n", "\r\n")).lines == find_places(SHOWCASE).lines


# ── documents by hypothesis, read by tomllib and the scanner ─────────────────────────────────────────────────────

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
bare = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)


def basic(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


keys = st.one_of(bare.map(lambda key: (key, key)), words.map(lambda key: (basic(key), key)))
plain = st.one_of(
    st.integers(-(2**60), 2**60).map(str),
    st.booleans().map(lambda value: str(value).lower()),
    st.sampled_from(["1979-05-27T07:32:00Z", "1979-05-27 07:32:00", "07:32:00", "inf", "-0.5e-3", "0xff"]),
    words.map(basic),
    words.filter(lambda text: "'" not in text).map(lambda text: f"'{text}'"),
    st.lists(words, max_size=4).map(
        lambda lines: '"""\n' + "\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '"""'
    ),
    st.lists(words.filter(lambda text: "'" not in text), max_size=4).map(lambda lines: f"'''{chr(10).join(lines)}'''"),
)
on_one_line = plain.filter(lambda text: "\n" not in text)
arrays = st.lists(plain, max_size=4).flatmap(
    lambda items: st.sampled_from([", ", ",\n", " ,# no = 1\n  "]).map(lambda comma: f"[ {comma.join(items)} ]")
)
inline = st.dictionaries(bare, on_one_line, max_size=3).map(
    lambda table: "{ " + ", ".join(f"{key} = {value}" for key, value in table.items()) + " }"
)
pairs = st.tuples(keys, st.one_of(plain, arrays, inline))
tables = st.tuples(bare, st.booleans(), st.lists(pairs, max_size=5))


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Path, int]]:
    """Draw a TOML text, and the line of each header and key."""
    text, lines = "", dict[Path, int]()
    counts: dict[str, int] = {}
    kinds: dict[str, bool] = {}

    def line() -> int:
        return text.count("\n") + 1

    for name, is_list, content in draw(st.lists(tables, max_size=5)):
        if name in kinds and not (is_list and kinds[name]):
            continue
        kinds[name] = is_list
        text += draw(st.sampled_from(["", "\n", "# [x]\n", "  \t\n"]))
        path: Path = (name,)
        if is_list:
            path = (name, counts.get(name, 0))
            counts[name] = counts.get(name, 0) + 1
        lines[path] = line()
        text += f"[[ {name} ]]  # x\n" if is_list else f"[{name}]\n"
        seen: set[str] = set()
        for (key_text, key), value in content:
            if key in seen:
                continue
            seen.add(key)
            lines[(*path, key)] = line()
            text += f"  {key_text} = {value}\n"
    return text, lines


@given(documents())
@settings(max_examples=examples(120), deadline=None)
def test_valid_toml_is_scanned_completely_with_correct_lines(
    document: tuple[str, dict[Path, int]],
) -> None:
    text, lines = document
    content = tomllib.loads(text)  # the test proves nothing unless the generator writes TOML
    places = find_places(text)
    assert {path: places.line_of(path) for path in lines} == lines
    assert set(_paths(content)) <= set(places.lines)


@given(st.text(st.sampled_from("ab=[]{}\"'.,#\\ \n\r1-"), max_size=60))
@settings(max_examples=examples(600), deadline=None)
@example('a = """\n')
@example("[[a]]\n[a.b]\n")
@example("a = [1, \n")
def test_scanner_accepts_whatever_tomllib_accepts(text: str) -> None:
    try:
        tomllib.loads(text)
    except (tomllib.TOMLDecodeError, ValueError):
        return
    find_places(text)


def _paths(value: Any, path: Path = ()) -> list[Path]:
    if isinstance(value, dict):
        return [each for key, of in value.items() for each in [(*path, key), *_paths(of, (*path, key))]]
    if isinstance(value, list):
        return [each for at, of in enumerate(value) for each in [(*path, at), *_paths(of, (*path, at))]]
    return []


# ── limits ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = 1\n" + ".".join("a" * 50_000) + " = 1", 2),
        (".".join(["a"] * (MOST_KEY_PARTS + 1)) + " = 1", 1),
        ("[" + ".".join(["a"] * 21) + "]", 1),
        ("a = {" + ".".join(["b"] * 21) + " = 1}", 1),
        ("a = " + "[" * 2_000 + "]" * 2_000, 1),
        ("a = " + "[" * (DEEPEST + 2) + "]" * (DEEPEST + 2), 1),
        ("a = " + "[\n" * 2_000 + "]\n" * 2_000, DEEPEST + 2),
        ("a = " + "{a=" * 500 + "1" + "}" * 500, 1),
        ("\n\nb = '" + "x" * 9_000 + "'", 3),
        ("a = [\n1,\n" + "1, " * 4_000 + "\n]", 3),
    ],
)
def test_slow_input_is_stopped_at_its_line(text: str, line: int) -> None:
    started = time.process_time()
    with pytest.raises(UnreadableError) as stopped:
        find_places(text)
    assert stopped.value.message
    assert stopped.value.line == line
    assert time.process_time() - started < 0.1


def test_long_line_in_a_multi_line_string_is_allowed() -> None:
    find_places('text = """\n' + "x" * 200_000 + '\n"""\nb = 1\n')


@pytest.mark.parametrize(
    "text", ['a = "' * 20_000, 'a = """' + '"" ' * 80_000, "'" * 200_000, "[" * 200_000, '"""' * 60_000]
)
def test_scanning_takes_linear_time_on_any_input(text: str) -> None:
    started = time.process_time()
    with pytest.raises(UnreadableError):
        find_places(text)
    assert time.process_time() - started < 1
