"""Types that authors annotate: those defined later are found, and those that never are get reported."""

from __future__ import annotations

import gc
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

from approvals_bot import AnnotationError, Engine, define_hook, step, workflow
from approvals_bot.durable.core.annotations import check_annotations, check_annotations_of

Load = Callable[[str], ModuleType]


LATE = "\n" if sys.version_info >= (3, 14) else "from __future__ import annotations\n"
"""What has a module's annotations read after its names exist. From Python 3.14 on, that is so anyway."""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Return a function that imports a module with this text, whose annotations are read late."""
    names: list[str] = []

    def load(text: str) -> ModuleType:
        name = f"annotated_{tmp_path.name}_{len(names)}"
        names.append(name)
        imports = LATE + "from approvals_bot import *\nfrom pydantic import BaseModel\n"
        (tmp_path / f"{name}.py").write_text(imports + textwrap.dedent(text))
        monkeypatch.syspath_prepend(tmp_path)
        return __import__(name)

    yield load
    for name in names:
        sys.modules.pop(name, None)
    gc.collect()


async def test_a_type_that_is_defined_later_is_found(load: Load, tmp_path: Path) -> None:
    module = load(
        """
        @workflow(name="before its models")
        async def totals(order: Order) -> Total:
            return Total(of=order.lines[0], all=len(order.lines))

        class Order(BaseModel):
            lines: list[Line]

        class Line(BaseModel):
            under: Line | None = None

        class Total(BaseModel):
            of: Line
            all: int
        """
    )
    async with Engine.open(f"sqlite:///{tmp_path}/runs.db") as engine:
        order = module.Order(lines=[module.Line(under=module.Line())])
        assert await (await engine.start(module.totals, order)).return_value() == module.Total(of=order.lines[0], all=1)


SHIP = "@step\nasync def ship(order: Order) -> None: ..."


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("@step\nasync def ship(order: Nowhere) -> None: ...", 4, "'Nowhere' of order of ship()"),
        ("@step\nasync def ship(order: str) -> list[Nowhere]: ...", 4, r"'list\[Nowhere\]' of the result of ship()"),
        (
            "class Order(BaseModel):\n    of: Nowhere\n\n@step\nasync def ship(order: Order | None) -> None: ...",
            7,
            "Order",
        ),
        ("class Order(BaseModel):\n    of: Nowhere\n\nhook = define_hook(schema=Order)", 7, r"define_hook\(\)"),
        (f"import typing as t\nclass Order(t.NamedTuple):\n    of: Nowhere\n{SHIP}", 7, "order of ship()"),
        (f"import typing_extensions as t\nclass Order(t.TypedDict):\n    of: Nowhere\n{SHIP}", 7, "order of ship()"),
    ],
)
async def test_a_type_that_never_is_defined_is_reported_at_open(
    load: Load, tmp_path: Path, text: str, line: int, what: str
) -> None:
    module = load(text)
    with pytest.raises(AnnotationError, match=what.replace("()", r"\(\)")) as refused:
        async with Engine.open(f"sqlite:///{tmp_path}/runs.db"):
            pass
    assert (refused.value.file, refused.value.line) == (module.__file__, line)
    with pytest.raises(AnnotationError):
        check_annotations()  # not only the first time


@pytest.mark.parametrize("test", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_a_type_that_only_checkers_import_is_refused_at_import(load: Load, test: str) -> None:
    text = f"""
        import typing
        from typing import TYPE_CHECKING
        if {test}:
            from collections.abc import Sequence

        @step
        async def ship(tags: Sequence[str]) -> None: ...
        """
    with pytest.raises(AnnotationError, match="outside of `if TYPE_CHECKING:`") as refused:
        load(text)
    assert refused.value.line == 10
    assert refused.value.what == "tags of ship()"


async def test_a_type_that_is_imported_twice_is_found(load: Load, tmp_path: Path) -> None:
    """Against an import cycle: for checkers above, for real below."""
    load(
        """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from datetime import date

        @step
        async def ship(on: date) -> None: ...

        try:
            from datetime import date
        except ImportError:
            raise
        """
    )
    async with Engine.open(f"sqlite:///{tmp_path}/runs.db"):
        pass


async def test_a_nested_function_may_name_local_types_defined_later(tmp_path: Path) -> None:
    @step
    async def turned(order: Order) -> Both:
        return order

    @workflow
    async def turns(order: Order) -> Both:
        return await turned(order)

    class Order(BaseModel):
        id: str

    Both = Order | None  # an alias is no class

    async with Engine.open(f"sqlite:///{tmp_path}/runs.db") as engine:
        assert await (await engine.start(turns, Order(id="7"))).return_value() == Order(id="7")


def test_what_is_gone_is_not_reported() -> None:
    def defines() -> None:
        class Order(BaseModel):
            of: Nowhere  # type: ignore[name-defined]  # noqa: F821

        define_hook(schema=Order)

        @step
        async def ship(order: Order) -> Any: ...

    defines()
    check_annotations()


def test_what_is_gone_but_not_collected_is_not_reported_either() -> None:
    def defines() -> None:
        @step
        async def ship(order: Nowhere) -> Any:  # type: ignore[name-defined]  # noqa: F821
            return ship  # a reference cycle

    gc.disable()
    try:
        defines()
        check_annotations()
    finally:
        gc.enable()


ANIMALS = """
    from dataclasses import dataclass
    from enum import Enum, StrEnum
    from typing import Annotated, Literal
    from pydantic import Field

    class Kind(KindOf):
        CAT = "cat"
        DOG = "dog"

    class Cat(BaseModel):
        kind: Literal[Kind.CAT] = Kind.CAT

    @dataclass
    class Dog:
        kind: Literal[Kind.DOG]

    Animal = Annotated[Cat | Dog, Field(discriminator="kind")]
"""


@pytest.mark.parametrize(
    ("made", "what"),
    [
        ("@step\n    async def feed(animals: list[Animal]) -> None: ...", r"animals of feed\(\)"),
        ("@workflow\n    async def finds_a_pet() -> Animal: ...", r"the result of finds_a_pet\(\)"),
        ("brought = define_hook(schema=Animal)", r"define_hook\(\)"),
        ("@step\n    async def pet(kind: Literal[Kind.DOG] | None) -> None: ...", r"kind of pet\(\)"),
    ],
)
def test_a_union_tagged_by_a_plain_enum_says_what_to_do(load: Load, made: str, what: str) -> None:
    module = load(f"{ANIMALS.replace('KindOf', 'Enum')}\n    {made}\n")
    said = rf"annotated_.*\.py:\d+: the annotation .* of {what} can't be read back from JSON: .*Make Kind a StrEnum\."
    with pytest.raises(AnnotationError, match=said):
        check_annotations_of(module.__name__)


async def test_a_union_tagged_by_a_str_enum_survives(load: Load, tmp_path: Path) -> None:
    module = load(
        f"""{ANIMALS.replace("KindOf", "StrEnum")}
    @workflow
    async def returns_the_pet(animal: Animal) -> Animal:
        return animal
"""
    )
    async with Engine.open(f"sqlite:///{tmp_path}/runs.db") as engine:
        for animal in (module.Cat(), module.Dog(module.Kind.DOG)):
            assert await (await engine.start(module.returns_the_pet, animal)).return_value() == animal
