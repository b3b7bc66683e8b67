"""What the log keeps of an error: enough to handle it in another process as in the one that raised it."""

from __future__ import annotations

import asyncio
import errno
import json
import sys
import types
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError, field_validator

from approvals_bot import FatalError, HookConflictError, RunFailedError, StepFailedError, step, workflow
from approvals_bot.durable.core.remote_errors import MAX_ERRORS, MAX_TEXT, RemoteError, decode_error, encode_error
from approvals_bot.durable.core.serialization import MAX_VALUE_BYTES, to_json
from approvals_bot.testing.fixtures import OpenEngine


def through_the_log(error: BaseException) -> BaseException:
    return decode_error(json.loads(to_json(encode_error(error))))


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001  # any
        return caught


class NotThere(Exception):  # as authors name them
    def __init__(self, order: str, *, tries: int = 1) -> None:
        self.order = order
        self.tries = tries
        super().__init__(f"{order} is not there")


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass(frozen=True)
class Frozen(Exception):
    code: int
    why: str = ""


class Outer:
    class Inner(LookupError):
        pass


class Refused(OSError):
    def __init__(self, host: str) -> None:
        super().__init__(errno.ECONNREFUSED, "refused", host)


class Several(ExceptionGroup[ValueError]):
    pass


class Item(BaseModel):
    name: str
    price: int

    @field_validator("name")
    @classmethod
    def check(cls, name: str) -> str:
        if name == "":
            raise ValueError("a name that isn't empty, please")
        return name


def invalid() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Item.model_validate({"name": "", "price": "hunter2"})
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        ValueError("no money", 7, None),
        KeyError("colour"),
        KeyError(("a", 1)),
        NotThere("order 7", tries=3),
        Slotted(7),
        Frozen(7, why="late"),
        Outer.Inner("a"),
        FileNotFoundError(errno.ENOENT, "No such file", "a.txt"),
        OSError(errno.EACCES, "denied", "a", None, "b"),
        OSError("odd"),
        Refused("example.test"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        SyntaxError("invalid", ("a.py", 3, 1, "a b", 3, 2)),
        ImportError("no", name="nothing", path="/a"),
        NameError("no", name="nothing"),
        SystemExit(3),
        TimeoutError(),
        asyncio.CancelledError("stop"),
        asyncio.IncompleteReadError(b"\xff", 3),
        json.JSONDecodeError("bad", "{", 1),
        HookConflictError("t", "run_1"),
        StepFailedError("charge", 4, "KeyError", "'colour'"),
        FatalError("no"),
        FatalError(),
        ExceptionGroup("two", [ValueError("a"), ExceptionGroup("inner", [NotThere("b")])]),
        BaseExceptionGroup("one", [SystemExit(1)]),
        Several("three", [ValueError("a")]),
    ],
    ids=lambda error: type(error).__qualname__,
)
def test_an_error_comes_back_as_it_was(error: BaseException) -> None:
    error.__dict__["__notes__"] = ["while shipping"]
    back = through_the_log(raised(error))
    assert (type(back), str(back), repr(back.args)) == (type(error), str(error), repr(error.args))
    assert vars(back) == vars(error)
    for name in ("errno", "filename", "filename2", "lineno", "name", "code", "value", "exceptions"):
        assert repr(getattr(back, name, None)) == repr(getattr(error, name, None))
    again = encode_error(back)
    assert again == {**encode_error(error), "traceback": again["traceback"], "where": again["where"]}


def test_causes_and_contexts_come_back() -> None:
    def fail(how: str) -> None:
        try:
            dict[str, int]()["colour"]
        except KeyError as error:
            if how == "from":
                raise NotThere("a") from error
            if how == "none":
                raise NotThere("a") from None
            raise NotThere("a")  # noqa: B904  # on purpose

    seen = {}
    for how in ("from", "none", "plain"):
        with pytest.raises(NotThere) as caught:
            fail(how)
        back = through_the_log(caught.value)
        seen[how] = (repr(back.__cause__), repr(back.__context__), back.__suppress_context__)
    assert seen == {
        "from": ("KeyError('colour')", "None", True),
        "none": ("None", "None", True),
        "plain": ("None", "KeyError('colour')", False),
    }


def test_what_cannot_be_kept_reads_as_it_did() -> None:
    class Thing:
        def __repr__(self) -> str:
            return "<Thing>"

        def __str__(self) -> str:
            return "a thing"

    error = NotThere("a")
    error.thing = Thing()  # type: ignore[attr-defined]
    assert vars(through_the_log(error)) == {"order": "a", "tries": 1}
    for each in (ValueError(Thing()), KeyError(Thing()), ValueError(1, Thing())):
        back = through_the_log(each)
        assert (str(back), repr(back)) == (str(each), repr(each))
        assert str(through_the_log(back)) == str(each)


def test_validation_errors_come_back_without_what_was_given() -> None:
    back = through_the_log(invalid())
    assert isinstance(back, ValidationError)
    assert [(e["loc"], e["type"], e["msg"]) for e in back.errors()] == [
        (("name",), "value_error", "Value error, a name that isn't empty, please"),
        (("price",), "int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
    ]
    assert "hunter2" not in str(back)
    kept = to_json(encode_error(ExceptionGroup("two", [ValueError("other"), invalid()])))
    assert "input_value" not in kept
    assert kept.count("unable to parse string as an integer [type=int_parsing]") == 2  # message and traceback


def test_an_error_that_is_too_much_is_cut() -> None:
    error: BaseException = ExceptionGroup("many", [ValueError("x" * 10 * MAX_TEXT) for _ in range(10 * MAX_ERRORS)])
    for _ in range(1000):
        outer = ValueError("outer")
        outer.__context__ = error
        error = outer
    error.__context__.__context__.__context__ = error  # type: ignore[union-attr]
    back = through_the_log(error)
    assert isinstance(back.__context__, ValueError)
    group = through_the_log(ExceptionGroup("many", [ValueError(str(n)) for n in range(10 * MAX_ERRORS)]))
    assert isinstance(group, ExceptionGroup)
    assert len(group.exceptions) == MAX_ERRORS - 1
    assert len(to_json(encode_error(ValueError("x" * 10 * MAX_TEXT)))) < 5 * MAX_TEXT


class Restless(Exception):
    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            raise RuntimeError(name)
        return super().__getattribute__(name)


def with_many_attributes() -> Exception:
    error = ValueError("many")
    for number in range(300):
        setattr(error, f"part{number}", "x" * 9_000)
    return error


def of_many_lines() -> ValidationError:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(list[int]).validate_python(["x"] * 10_000)
    return refused.value


@pytest.mark.parametrize(
    "error",
    [
        with_many_attributes(),
        ExceptionGroup("many", [ValueError("x" * 20_000, ["y" * 9_000]) for _ in range(200)]),
        ValueError(*["x" * 9_000 for _ in range(1_000)]),
        ValueError(*range(100_000)),
        of_many_lines(),
        Restless("no attributes"),
    ],
    ids=["attributes", "members", "long-arguments", "arguments", "lines", "restless"],
)
def test_every_error_fits_into_an_event(error: Exception) -> None:
    encoded = encode_error(error)
    assert len(to_json(encoded)) < MAX_VALUE_BYTES / 2
    back = decode_error(encoded)
    assert isinstance(back, next(kind for kind in (ExceptionGroup, ValueError, Exception) if isinstance(error, kind)))
    assert str(back).startswith(str(error)[:100].partition(" (")[0])


async def test_a_step_with_an_enormous_error_fails_once(open_engine: OpenEngine) -> None:
    ran = []

    @step(retries=0)
    async def floods() -> None:
        ran.append(1)
        raise with_many_attributes()

    @workflow
    async def suffers() -> str:
        try:
            await floods()
        except StepFailedError as error:
            return str(error.__cause__)
        return "nothing"

    async with open_engine() as engine:
        async with asyncio.timeout(10):
            assert await (await engine.start(suffers)).return_value() == "many"
    assert ran == [1]


def test_a_class_that_is_not_loaded_is_named_and_caught_by_its_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("gone_tomorrow")
    text = """
class Base(ConnectionError):
    pass
class Lost(Base):
    def __init__(self, a, *, b):
        super().__init__(a)
        self.b = b
"""
    exec(text, vars(module))  # noqa: S102  # a module that can be unloaded
    monkeypatch.setitem(sys.modules, "gone_tomorrow", module)
    error = module.Lost("a", b=2)
    assert type(through_the_log(error)) is module.Lost
    lost = json.loads(to_json(encode_error(error)))
    monkeypatch.delitem(sys.modules, "gone_tomorrow")
    back = decode_error(lost)
    assert isinstance(back, RemoteError)
    assert isinstance(back, ConnectionError)
    assert (type(back).__name__, back.kind, back.module) == ("Lost", "Lost", "gone_tomorrow")
    assert (str(back), vars(back)) == ("a", {"b": 2})
    assert encode_error(back)["module"] == "gone_tomorrow"
    assert "gone_tomorrow" not in sys.modules


def test_the_log_imports_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "never_imported.py").write_text("raise SystemExit\n")
    monkeypatch.syspath_prepend(tmp_path)
    encoded = encode_error(ValueError("a")) | {"module": "never_imported", "type": "Oops"}
    assert isinstance(decode_error(encoded), RemoteError)
    assert isinstance(decode_error(encode_error(ValueError("a")) | {"module": "os", "type": "system"}), RemoteError)
    assert "never_imported" not in sys.modules


def test_a_class_defined_in_a_function_is_named() -> None:
    class Local(KeyError):
        pass

    back = through_the_log(Local("a"))
    assert isinstance(back, RemoteError)
    assert isinstance(back, KeyError)
    assert (type(back).__name__, str(back)) == ("Local", "'a'")


async def test_a_body_handles_an_error_as_a_plain_call_would(open_engine: OpenEngine) -> None:
    @step(retries=0)
    async def ships() -> None:
        try:
            raise ExceptionGroup("two", [KeyError("colour"), NotThere("order 7", tries=2)])
        except ExceptionGroup as group:
            group.add_note("at the warehouse")
            raise NotThere("all") from group

    @workflow
    async def asks() -> list[Any]:
        try:
            await ships()
        except StepFailedError as error:
            cause = error.__cause__
        group = cause.__cause__ if isinstance(cause, NotThere) else None
        if not isinstance(group, ExceptionGroup):
            return []
        missing = [(each.order, each.tries) for each in group.exceptions if isinstance(each, NotThere)]
        return [str(cause), group.__notes__, *missing]

    @workflow
    async def fails() -> None:
        await ships()

    async with open_engine() as engine:
        assert await (await engine.start(asks)).return_value() == [
            "all is not there",
            ["at the warehouse"],
            ("order 7", 2),
        ]
        with pytest.raises(RunFailedError) as failed:
            await (await engine.start(fails)).return_value()
        assert isinstance(failed.value.__cause__, StepFailedError)
        assert isinstance(failed.value.__cause__.__cause__, NotThere)
        assert failed.value.__cause__.attempts == 1
