"""Which errors of a body fail its run, and which stall it; and where an error was raised."""

from __future__ import annotations

import asyncio
import decimal
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals_bot import (
    ApprovalsBotError,
    FatalError,
    HookConflictError,
    InvalidPayloadError,
    NondeterminismError,
    RetryableError,
    SerializationError,
    StepFailedError,
    WebhookRequest,
    create_hook,
    create_webhook,
    sleep,
    step,
    workflow,
)
from approvals_bot.durable.core.api import Answer, accompany, projector, publish
from approvals_bot.durable.core.attributes import Projection
from approvals_bot.durable.core.bugs import FailureRules, where_raised
from approvals_bot.errors import WorkflowBugError
from approvals_bot.testing import History


class OutOfStockError(Exception):
    """An author's own class."""


class NoPriceError(KeyError):
    """An author's class that is a LookupError."""


class OwnValueError(ValueError):
    pass


class OursAndLookupError(FatalError, KeyError):
    pass


class OwnGroup(ExceptionGroup[Exception]):
    pass


class Order(pydantic.BaseModel):
    amount: int


def call_to(code: str) -> Callable[[], Any]:
    """Return a function that executes the code."""

    def call() -> Any:
        exec(code, {"Order": Order, "json": json, "re": re, "decimal": decimal, "asyncio": asyncio})  # noqa: S102

    return call


FAILING: tuple[BaseException, ...] = (
    ValueError("a"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    OwnValueError(),
    RuntimeError(),
    TimeoutError(),
    OSError(),
    FileNotFoundError(),
    ConnectionResetError(),
    OutOfStockError(),
    Exception("plain"),
    FatalError("a"),
    RetryableError("a"),
    HookConflictError("t", "run_1"),
    InvalidPayloadError([]),
    OursAndLookupError("a"),
    StepFailedError("charge", 4, "KeyError", "'x'"),
    asyncio.QueueEmpty(),
    asyncio.CancelledError(),
    KeyboardInterrupt(),
    SystemExit(1),
    GeneratorExit(),
)
STALLING: tuple[Exception, ...] = (
    NameError("a"),
    UnboundLocalError("a"),
    AttributeError("a"),
    TypeError("a"),
    LookupError(),
    KeyError("a"),
    IndexError(),
    NoPriceError(),
    ImportError(),
    ModuleNotFoundError(),
    AssertionError(),
    RecursionError(),
    NotImplementedError(),
    ZeroDivisionError(),
    OverflowError(),
    decimal.InvalidOperation(),
    StopIteration(),
    StopAsyncIteration(),
    EOFError(),
    BufferError(),
    MemoryError(),
    ReferenceError(),
    SyntaxError(),
    SystemError(),
    UserWarning(),
)
names = lambda error: type(error).__name__  # noqa: E731


@pytest.mark.parametrize("error", FAILING, ids=names)
def test_an_error_that_somebody_meant_fails_the_run(error: BaseException) -> None:
    assert FailureRules().bug_in(error) is None


@pytest.mark.parametrize("error", STALLING, ids=names)
def test_an_error_about_the_code_stalls_the_run(error: Exception) -> None:
    assert FailureRules().bug_in(error) is error


@given(
    st.recursive(
        st.sampled_from([*STALLING, *(each for each in FAILING if isinstance(each, Exception))]),
        lambda members: st.lists(members, min_size=1, max_size=4).flatmap(
            lambda given: st.sampled_from([ExceptionGroup, OwnGroup]).map(lambda kind: kind("several", given))
        ),
    )
)
def test_a_group_stalls_if_any_member_does_however_deep(error: Exception) -> None:
    def leaves(of: Exception) -> list[Exception]:
        return [leaf for each in of.exceptions for leaf in leaves(each)] if isinstance(of, ExceptionGroup) else [of]

    bugs = [leaf for leaf in leaves(error) if leaf in STALLING]
    assert FailureRules().bug_in(error) is (bugs[0] if bugs else None)
    assert FailureRules(fails_on=[Exception]).bug_in(error) is None
    assert FailureRules(stalls_on=[Exception]).bug_in(error) is leaves(error)[0]


def test_a_group_of_thousands_of_levels_is_judged_too() -> None:
    error: Exception = KeyError("deep")
    for _ in range(5_000):
        error = ExceptionGroup("level", [error])
    assert isinstance(FailureRules().bug_in(error), KeyError)


def test_a_workflow_s_own_rules_go_first_and_the_nearest_class_decides() -> None:
    rules = FailureRules(fails_on=(LookupError, ZeroDivisionError), stalls_on=(ValueError, NoPriceError))
    assert rules.bug_in(KeyError("a")) is None
    assert rules.bug_in(ZeroDivisionError()) is None
    assert rules.bug_in(NoPriceError()) is not None
    assert rules.bug_in(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")) is not None
    assert rules.bug_in(TypeError()) is not None
    assert rules.bug_in(OSError()) is None
    assert FailureRules(fails_on=[OwnGroup]).bug_in(OwnGroup("a", [KeyError()])) is None
    assert FailureRules(stalls_on=[OwnGroup]).bug_in(OwnGroup("a", [ValueError()])) is not None


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ({"fails_on": KeyError}, r"fails_on=\(KeyError,\)"),
        ({"stalls_on": "KeyError"}, "'K' is not one"),
        ({"stalls_on": 7}, "takes a tuple"),
        ({"fails_on": (KeyError("a"),)}, "classes of exceptions"),
        ({"fails_on": (int,)}, "<class 'int'> is not one"),
        ({"fails_on": (asyncio.CancelledError,)}, "is not one"),
        ({"fails_on": (KeyError,), "stalls_on": (KeyError,)}, "KeyError is in fails_on and in stalls_on"),
    ],
)
def test_wrong_rules_are_refused_at_import(rules: dict[str, Any], why: str) -> None:
    with pytest.raises((TypeError, ValueError), match=why):

        @workflow(**rules)
        async def ruled() -> None: ...


# ── errors as bodies raise them ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("code", "stalls"),
    [
        ("frist.strip()", True),
        ("{}['answer']", True),
        ("json.loads(None)", True),
        ("json.loads('{')", False),
        ("Order(amount='many')", False),
        ("re.compile('(')", False),
        ("int('x')", False),
        ("decimal.Decimal(1) / 0", True),
        ("assert 1 == 2", True),
        ("(lambda f: f(f))(lambda f: f(f))", True),
        ("import no_such_module", True),
        ("raise ValueError from KeyError()", False),
    ],
)
def test_what_python_and_libraries_raise_in_a_body(code: str, stalls: bool) -> None:
    call = call_to(code)

    @workflow
    async def body() -> None:
        call()

    if stalls:
        with pytest.raises(WorkflowBugError):
            History(body).decide()
    else:
        run = History(body)
        run.decide()
        assert run.error["type"]


@pytest.mark.parametrize(("code", "stalls"), [("int('x')", False), ("json.loads('{')", False), ("frist", True)])
def test_what_is_typed_at_a_prompt_is_an_authors_code(code: str, stalls: bool) -> None:
    """As `python -c`, a notebook or `exec` runs it: its frames have no file."""
    space: dict[str, Any] = {"__name__": "__main__", "workflow": workflow, "json": json}
    exec(compile(f"@workflow(name='typed')\nasync def body() -> None:\n    {code}", "<stdin>", "exec"), space)  # noqa: S102
    run = History(space["body"])
    if stalls:
        with pytest.raises(WorkflowBugError) as caught:
            run.decide()
        assert caught.value.where == "<stdin>:3"
    else:
        run.decide()
        assert run.error["where"] == "<stdin>:3"


def test_a_stop_iteration_in_a_body_is_a_bug() -> None:
    @workflow
    async def body() -> None:
        next(iter([]))

    with pytest.raises(WorkflowBugError):
        History(body).decide()


def test_arguments_that_our_functions_refuse_fail_the_run() -> None:
    @workflow
    async def body(wrong: str) -> None:
        await (sleep("soon") if wrong == "sleep" else create_hook(token=""))

    for wrong in ("sleep", "token"):
        run = History(body, wrong)
        run.decide()
        assert run.error["type"] == "InvalidArgumentError"


def in_package(code: str) -> Callable[[], Any]:
    """Return a function of a module of this package that executes the code."""
    space: dict[str, Any] = {"__name__": "approvals_bot.approvals.planted", "json": json}
    file = "/somewhere/site-packages/approvals_bot/approvals/planted.py"
    exec(compile(f"def planted():\n    {code}", file, "exec"), space)  # noqa: S102
    planted: Callable[[], Any] = space["planted"]
    return planted


@pytest.mark.parametrize(
    ("code", "stalls"),
    [
        ("int('x')", True),
        ("raise RuntimeError('changed')", True),
        ("json.loads('{')", True),
        ("from approvals_bot import FatalError; raise FatalError('meant')", False),
        ("type('Odd', (Exception,), {}) and (_ for _ in ()).throw(type('Odd', (Exception,), {})())", True),
    ],
)
def test_what_this_package_raises_is_a_bug_unless_it_is_an_error_of_ours(code: str, stalls: bool) -> None:
    call = in_package(code)

    @workflow
    async def body() -> None:
        call()

    if stalls:
        with pytest.raises(WorkflowBugError) as caught:
            History(body).decide()
        assert caught.value.where == "approvals_bot/approvals/planted.py:2"
    else:
        run = History(body)
        run.decide()
        assert run.error["type"] == "FatalError"


# ── what a stalled replay leaves behind ───────────────────────────────────────────────────────────────────────────


@step
async def charge() -> int:
    return 1


def broken(at: str) -> Any:
    """Return a workflow with a bug at this place, and one without, whose log fits both."""

    def bug(place: str) -> None:
        if place == at:
            raise KeyError("planted")

    async def beside() -> None:
        await create_hook(token="beside")
        bug("companion")
        await charge()

    class Shown:
        def __call__(self) -> Projection:
            bug("projection")
            return Projection([], {})

    @workflow
    async def body() -> Any:
        projector(Shown)
        accompany(beside(), leave=lambda: None)
        hook = create_hook(token="t")
        first = await hook
        if first == "callback":
            asyncio.get_running_loop().call_soon(bug, "callback")
        bug("body")
        if at == "task":
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(charge())
                tasks.create_task(asyncio.sleep(0)).add_done_callback(lambda _: None)
                bug("task")
        await charge()
        return await hook

    return body


def test_a_bug_in_a_companion_stalls_at_once_and_names_the_companion() -> None:
    run = History(broken("companion"))
    run.decide()
    run.receive(2, "payload for the companion")
    with pytest.raises(WorkflowBugError, match="planted"):
        run.decide()


def test_a_bug_in_what_a_run_shows_stalls_it() -> None:
    with pytest.raises(WorkflowBugError, match="planted"):
        History(broken("projection")).decide()


def test_a_view_that_cannot_be_kept_fails_its_run() -> None:
    @workflow
    async def shows() -> None:
        publish(object())
        await create_hook(token="t")

    with pytest.raises(SerializationError):
        History(shows).decide()


def test_a_bug_before_the_recorded_decisions_is_named_rather_than_drift() -> None:
    run = History(broken(""))
    run.decide()
    run.receive(1, "a")
    run.decide()
    for at in ("body", "task"):
        run.workflow = broken(at)
        with pytest.raises(WorkflowBugError, match="planted"):
            run.replay(run.log)


def test_a_bug_before_a_recorded_answer_is_named_rather_than_drift() -> None:
    bugs: list[str] = []

    @workflow
    async def answers() -> None:
        async with create_webhook(respond_with="manual") as webhook:
            request = await webhook
            if bugs:
                raise KeyError("planted")
            await request.respond_with(Answer("yes"))
            await webhook

    run = History(answers)
    run.decide()
    run.receive(1, WebhookRequest())
    run.decide()
    bugs.append("planted")
    with pytest.raises(WorkflowBugError, match="KeyError"):
        run.replay(run.log)


def test_a_bug_before_a_lookup_is_named_rather_than_drift() -> None:
    bugs: list[str] = []

    @step
    async def price() -> int:
        return 1

    @workflow
    async def looks() -> None:
        if bugs:
            raise KeyError("planted")
        await price()
        await create_hook(token="t")

    run = History(looks)
    run.decide()
    created = run.log[-1]
    run.log[-1] = created._replace(type="step_completed", data={"id": 1, "name": created.data["name"], "result": 1})
    assert run.decide() == ["hook #2"]
    bugs.append("planted")
    with pytest.raises(WorkflowBugError, match="KeyError"):
        run.replay(run.log)


def test_a_payload_that_no_longer_decodes_is_drift_however_the_body_takes_it() -> None:
    def asks(schema: Any) -> Any:
        @workflow(name="asks")
        async def body() -> str:
            try:
                await create_hook(token="t", schema=schema)
            except ApprovalsBotError:
                return "swallowed"
            return "taken"

        return body

    run = History(asks(str))
    run.decide()
    run.receive(1, "many")
    run.workflow = asks(int)
    with pytest.raises(NondeterminismError, match="a payload of hook #1"):
        run.replay(run.log)


# ── where ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_where_is_the_author_s_line_below_its_package_s_root() -> None:
    with pytest.raises(TypeError) as caught:
        json.loads(None)  # type: ignore[arg-type]
    line = caught.traceback[0].lineno + 1
    assert where_raised(caught.value) == f"tests/durable/core/{Path(__file__).name}:{line}"


def test_an_error_without_frames_has_no_where() -> None:
    assert where_raised(KeyError("never raised")) == ""
