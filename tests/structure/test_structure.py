"""The house rules hold in the package, and each rule finds what is planted."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support.structure import LONGEST_MODULE, ROOT, RULES, Package, floors, read_package


@pytest.fixture(scope="module")
def ours() -> Package:
    return read_package(ROOT / "approvals_bot")


@pytest.mark.parametrize("rule", RULES)
def test_the_package_keeps_every_rule(ours: Package, rule: str) -> None:
    assert [str(finding) for finding in RULES[rule](ours)] == []


def test_samples_have_class_names_of_their_own(ours: Package) -> None:
    """They are part of the wheel, where people read them beside the package."""
    samples = "\n".join(file.read_text("utf-8") for file in (ROOT / "workflows").glob("*.py"))
    assert (
        set(re.findall(r"^class (\w+)", samples, re.MULTILINE)) & {one.name for one in ours.classes.values()} == set()
    )


def test_the_layers_cover_every_room_and_ignore_nothing() -> None:
    assert list(floors((ROOT / "pyproject.toml").read_text("utf-8"))) == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    readers_own = set(re.findall(r"Save this as `([^`]+)`", text))
    named = set(re.findall(r"[\w/.-]*\w\.(?:py|md|html)\b", text)) - readers_own
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in tracked)] == []


# --- each rule finds what is planted, and leaves alone what only looks like it ---


class Planting:
    """A package in a folder of its own, made of the files that a test names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "house"

    def finds(self, rule: str, **files: str) -> list[str]:
        """What a rule finds in these modules: `room__name="…"` is `house/room/name.py`."""
        for name, text in files.items():
            path = self.folder.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text))
        for folder in {path.parent for path in self.folder.rglob("*.py")} | {self.folder}:
            (folder / "__init__.py").touch()
        return [str(finding) for finding in RULES[rule](read_package(self.folder))]


@pytest.fixture
def plant(tmp_path: Path) -> Planting:
    return Planting(tmp_path)


def test_a_late_import_closes_a_cycle(plant: Planting) -> None:
    late = "def later():\n    from house.b import y\n"
    assert plant.finds("import_circles", a=late, b="from house.c import z", c="from house import a") == [
        "house.a  circle: house.a · house.b · house.c"
    ]


def test_a_typing_import_closes_only_a_cycle_of_types(plant: Planting) -> None:
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.b import Y\n"
    assert plant.finds("import_circles", a=typed, b="from .a import X") == []
    assert plant.finds("type_circles") == ["house.a  circle: house.a · house.b"]


def test_no_module_imports_the_package_root(plant: Planting) -> None:
    found = plant.finds("root_imports", a="from house import step", b="from house import a", room__c="import house")
    assert found == ["house.a:1  imports the package root", "house.room.c:1  imports the package root"]


def test_a_class_name_has_one_meaning_even_nested_or_private(plant: Planting) -> None:
    found = plant.finds("class_names", a="class Card: ...", b="class Deck:\n    class Card: ...\n")
    assert found == ["house.a:1  Card is also a class of house.b:2"]


TWIN = "class Ask(TypedDict):\n    who: str\n    what: str\n    when: str\n    why: str\n    how: str\n"


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ("class Reply:\n    who: str\n    what: str\n    when: str\n    why: str\n", True),
        ("class Reply:\n    who: str\n    what: str\n    when: str\n", False),
        ("class Reply:\n    who: str\n    what: str\n    when: str\n    why: str\n    a: int\n    b: int\n", True),
        ("from house.a import Ask\nclass Reply(Ask):\n    who: int\n    what: int\n    when: int\n", False),
        ('class Reply:\n    who: Literal["me"]\n    what: str\n    when: str\n    why: str\n', False),
        ("class Reply:\n    who: str\n    what: str\n    when: str\n    why: ClassVar[str]\n", False),
    ],
    ids=["shares four", "shares three", "is larger", "inherits", "has a tag", "has one for all"],
)
def test_twins_share_four_fields_and_most_of_them(plant: Planting, other: str, found: bool) -> None:
    assert bool(plant.finds("twin_classes", a=TWIN, b=other)) is found


def test_two_children_of_one_class_are_no_twins(plant: Planting) -> None:
    children = "from house.a import Ask\nclass One(Ask):\n    more: str\nclass Two(Ask):\n    less: str\n"
    assert plant.finds("twin_classes", a=TWIN, b=children) == []


@pytest.mark.parametrize(
    ("remark", "found"),
    [
        ("# No twin of Ask: it is what a stranger sends, unread.", False),
        ("# No twin of Ask or Card: it is what a stranger sends.", False),
        ("# No twin of Ask: it isn't.", True),
        ("# No twin of Card: it is what a stranger sends.", True),
        ("# An ordinary comment about what a stranger sends.", True),
    ],
)
def test_a_seeming_twin_needs_a_reason(plant: Planting, remark: str, found: bool) -> None:
    other = f"{remark}\n@dataclass\nclass Reply:\n    who: str\n    what: str\n    when: str\n    why: str\n"
    assert bool(plant.finds("twin_classes", a=TWIN, b=other)) is found


def test_a_copy_may_say_why(plant: Planting) -> None:
    call = "    reply = Ask(\n        who=o.who, what=o.what, when=o.when, why=o.why)\n"
    code = "from house.a import Ask\ndef copy(o):\n"
    assert plant.finds("copied_fields", a=TWIN, b=code + call)
    assert not plant.finds("copied_fields", b=f"{code}    # Copied: the reader gets no more than these.\n{call}")


@pytest.mark.parametrize(
    ("call", "found"),
    [
        ("Ask(who=o.who, what=o.what, when=o.when, why=o.why)", True),
        ("Ask(o.who, o.what, o.when, why=o.why)", True),
        ("Unknown(o.one, o.two, o.three, o.four)", True),
        ("Ask(who=o.who, what=o.what, when=o.when, why=other.why)", False),
        ("Ask(who=o.one, what=o.two, when=o.three, why=o.four)", False),
        ("o.model_copy(update=change)", False),
        ("ask(o.who, o.what, o.when, o.why)", False),
    ],
)
def test_a_constructor_copies_no_four_fields_of_one_object(plant: Planting, call: str, found: bool) -> None:
    code = f"from house.a import Ask\ndef copy(o, other, change):\n    return {call}\n"
    assert bool(plant.finds("copied_fields", a=TWIN, b=code)) is found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('said == "You have already voted."', True),
        ('said in ("yes", "no longer waiting for you")', True),
        ('said.startswith(f"The request {id} has ended")', True),
        ("said == VERDICT", True),
        ("said == text.ENDED", True),
        ("said in text.ended(id)", True),
        ('said == "approved"', False),
        ('sql.startswith("SELECT id FROM runs")', False),
        ("said == other", False),
        ('print("You have already voted.")', False),
    ],
)
def test_comparing_a_sentence_is_found(plant: Planting, code: str, found: bool) -> None:
    head = 'from house.approvals import text\nVERDICT = "This is your verdict"\n'
    words = 'ENDED = "Ended."\ndef ended(id): ...\n'
    assert bool(plant.finds("compared_sentences", a=head + code, approvals__text=words)) is found


def test_matching_a_sentence_in_a_case_is_found(plant: Planting) -> None:
    assert plant.finds("compared_sentences", a='match said:\n    case "no longer waiting": ...\n')


def test_a_module_of_more_than_600_lines_is_found(plant: Planting) -> None:
    assert plant.finds("long_modules", a="x = 1\n" * LONGEST_MODULE) == []
    assert plant.finds("long_modules", a="x = 1\n" * (LONGEST_MODULE + 1)) == ["house.a  601 lines"]


CONTRACTS = """
[[tool.importlinter.contracts]]
name = "Floors"
type = "layers"
"""


@pytest.mark.parametrize(
    "more",
    ["", 'exhaustive = true\nignore_imports = ["a -> b"]', 'exhaustive = true\nexhaustive_ignores = ["attic"]'],
    ids=["not every room", "an import ignored", "a room ignored"],
)
def test_layers_with_a_gap_are_found(more: str) -> None:
    assert list(floors(CONTRACTS + more))
    assert list(floors(CONTRACTS + "exhaustive = true")) == []
