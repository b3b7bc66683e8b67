"""Webhooks inside the process. The HTTP route has its own tests."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from typing import Any

import pytest
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from approvals_bot import (
    HookNotFoundError,
    IdempotencyConflictError,
    LimitExceededError,
    MalformedBodyError,
    RunFailedError,
    WebhookRequest,
    create_hook,
    create_webhook,
    publish,
    step,
    workflow,
)
from approvals_bot.durable.core.api import Answer
from approvals_bot.durable.core.hooks import MAX_ANSWER_BYTES
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.tokens import WEBHOOK, Tokens
from approvals_bot.testing.fixtures import OpenEngine


async def token_of(engine: Engine, run_id: str, number: int = 1) -> str:
    events = await engine.events(run_id)
    return str(next(e.data["token"] for e in events if e.type == "hook_created" and e.data["id"] == number))


@pytest.mark.conformance(53)
async def test_the_three_ways_to_answer(open_engine: OpenEngine) -> None:
    @step
    async def reply_to(text: str) -> str:
        return f"got {text}"

    @workflow
    async def three() -> None:
        plain = create_webhook()
        static = create_webhook(respond_with=PlainTextResponse("pay first", 402))
        manual = create_webhook(respond_with="manual")
        await plain
        await static
        request = await manual
        await request.respond_with(PlainTextResponse(await reply_to(await request.text())))

    async with open_engine() as engine:
        run = await engine.start(three)
        await engine.settle()
        answers = [
            await engine.resume_webhook(await token_of(engine, run.id, number), WebhookRequest("POST", body=b"body"))
            for number in (1, 2, 3)
        ]
        assert [(a.status_code, a.body) for a in answers] == [(202, b""), (402, b"pay first"), (200, b"got body")]
        await run.return_value()


@pytest.mark.conformance(54, 55)
async def test_the_request_arrives_whole_and_can_be_read_again(open_engine: OpenEngine) -> None:
    @workflow
    async def reads() -> Any:
        request = await create_webhook(keep_headers=["X-One"])
        return [
            request.method,
            request.url,
            request.headers["X-One"],
            await request.json(),
            await request.text(),
            await request.text(),
        ]

    async with open_engine() as engine:
        run = await engine.start(reads)
        await engine.settle()
        request = WebhookRequest("PUT", "https://example.test/x?y=1", [("X-One", "1")], b'{"a": 1}')
        await engine.resume_webhook(await token_of(engine, run.id), request)
        assert await run.return_value() == [
            "PUT", "https://example.test/x?y=1", "1", {"a": 1}, '{"a": 1}', '{"a": 1}',
        ]  # fmt: skip


@pytest.mark.conformance(57)
async def test_a_plain_hook_is_no_webhook_and_a_webhook_no_plain_hook(open_engine: OpenEngine) -> None:
    @workflow
    async def both() -> Any:
        create_webhook()
        return await create_hook(token="private")

    async with open_engine() as engine:
        run = await engine.start(both)
        await engine.settle()
        with pytest.raises(HookNotFoundError):
            await engine.resume_webhook("private", WebhookRequest())
        with pytest.raises(HookNotFoundError):
            await engine.resume_hook(await token_of(engine, run.id), "raw")
        await engine.resume_hook("private", "yes")
        assert await run.return_value() == "yes"


@pytest.mark.conformance(58, 59, 63)
@pytest.mark.parametrize("wrong", ["automatic", 42, Answer("body", 204), Answer("x", 99)])
async def test_a_webhook_takes_no_token_and_only_valid_http_answers(open_engine: OpenEngine, wrong: Any) -> None:
    @workflow
    async def tries() -> str:
        try:
            create_webhook(respond_with=wrong)
        except (TypeError, ValueError):
            return "refused"
        return "taken"

    with pytest.raises(TypeError):
        create_webhook(token="t")  # type: ignore[call-arg]
    async with open_engine() as engine:
        assert await (await engine.start(tries)).return_value() == "refused"


@pytest.mark.conformance(60)
async def test_a_caller_not_answered_in_time_gets_504_and_the_run_continues(open_engine: OpenEngine) -> None:
    @workflow
    async def silent() -> str:
        hook = create_webhook(respond_with="manual")
        await hook
        return await (await hook).text()

    async with open_engine() as engine:
        run = await engine.start(silent)
        await engine.settle()
        token = await token_of(engine, run.id)
        assert (await engine.resume_webhook(token, WebhookRequest(), timeout=0.05)).status_code == 504
        assert await run.status() == "running"
        began = time.monotonic()
        last = await engine.resume_webhook(token, WebhookRequest(body=b"last"), timeout=30)
        assert (last.status_code, time.monotonic() - began < 25) == (504, True)  # the run ended: nobody will answer
        assert await run.return_value() == "last"


@pytest.mark.conformance(60)
async def test_a_caller_is_answered_when_the_run_fails_or_is_cancelled(open_engine: OpenEngine) -> None:
    @workflow
    async def fails() -> None:
        await create_webhook(respond_with="manual")
        raise ValueError("no answer for you")

    @workflow
    async def waits() -> None:
        hook = create_webhook(respond_with="manual")
        await hook
        await hook

    async with open_engine() as engine:
        failing = await engine.start(fails)
        waiting = await engine.start(waits)
        await engine.settle()
        response = await engine.resume_webhook(await token_of(engine, failing.id), WebhookRequest(), timeout=30)
        assert response.status_code == 504
        token = await token_of(engine, waiting.id)
        caller = asyncio.create_task(engine.resume_webhook(token, WebhookRequest(), timeout=30))
        while not any(e.type == "hook_received" for e in await engine.events(waiting.id)):
            await asyncio.sleep(0)
        await waiting.cancel()
        assert (await caller).status_code == 504


@pytest.mark.conformance(61)
async def test_a_caller_is_answered_once(open_engine: OpenEngine) -> None:
    @workflow
    async def twice() -> None:
        request = await create_webhook(respond_with="manual")
        await request.respond_with(Response("first"))
        await request.respond_with(Response("second"))

    @workflow
    async def not_manual() -> None:
        await (await create_webhook()).respond_with(Response("first"))

    async with open_engine() as engine:
        run = await engine.start(twice)
        await engine.settle()
        response = await engine.resume_webhook(await token_of(engine, run.id), WebhookRequest())
        assert response.body == b"first"
        with pytest.raises(RunFailedError, match="already been answered"):
            await run.return_value()
        run = await engine.start(not_manual)
        await engine.settle()
        await engine.resume_webhook(await token_of(engine, run.id), WebhookRequest())
        with pytest.raises(RunFailedError, match="manual"):
            await run.return_value()


@pytest.mark.conformance(62)
async def test_every_caller_is_answered(open_engine: OpenEngine) -> None:
    @step
    async def look_up(n: int) -> int:
        return n * n

    @workflow
    async def squares() -> None:
        async for request in create_webhook(respond_with="manual"):
            n = (await request.json())["n"]
            await request.respond_with(JSONResponse({"square": await look_up(n)}))
            if n == 3:
                break

    async with open_engine() as engine:
        run = await engine.start(squares)
        await engine.settle()
        token = await token_of(engine, run.id)
        for n in (1, 2, 3):
            response = await engine.resume_webhook(token, WebhookRequest.of_json({"n": n}))
            assert json.loads(bytes(response.body)) == {"square": n * n}
        await run.return_value()


async def test_respond_json_answers_as_a_json_response_does(open_engine: OpenEngine) -> None:
    too_long = "x" * MAX_ANSWER_BYTES

    @workflow
    async def both() -> None:
        hook = create_webhook(respond_with="manual")
        await (await hook).respond_with(JSONResponse({"name": "Zoë"}))
        request = await hook
        with pytest.raises(ValueError, match="at most"):
            await request.respond_json(too_long)
        await request.respond_json({"name": "Zoë"})

    async with open_engine() as engine:
        run = await engine.start(both)
        await engine.settle()
        token = await token_of(engine, run.id)
        one, other = [await engine.resume_webhook(token, WebhookRequest()) for _ in range(2)]
        assert (one.status_code, one.headers["content-type"]) == (other.status_code, other.headers["content-type"])
        assert json.loads(bytes(one.body)) == json.loads(bytes(other.body)) == {"name": "Zoë"}


@pytest.mark.conformance(63)
async def test_a_static_answer_goes_to_every_caller_with_its_headers(open_engine: OpenEngine) -> None:
    @workflow
    async def static() -> None:
        hook = create_webhook(respond_with=Response("hi", 201, {"x-kind": "static"}))
        await hook
        await hook

    async with open_engine() as engine:
        run = await engine.start(static)
        await engine.settle()
        token = await token_of(engine, run.id)
        for _ in range(2):
            response = await engine.resume_webhook(token, WebhookRequest())
            assert (response.status_code, response.headers["x-kind"]) == (201, "static")


async def test_repeated_headers_of_an_answer_all_arrive(open_engine: OpenEngine) -> None:
    @workflow
    async def cookies() -> None:
        answer = Response("ok")
        answer.set_cookie("a", "1")
        answer.set_cookie("b", "2")
        static = create_webhook(respond_with=answer)
        manual = create_webhook(respond_with="manual")
        await static
        await (await manual).respond_with(Answer("ok", headers=[("Set-Cookie", "c=3"), ("set-cookie", "d=4")]))

    async with open_engine() as engine:
        run = await engine.start(cookies)
        await engine.settle()
        found = []
        for number in (1, 2):
            answer = await engine.resume_webhook(await token_of(engine, run.id, number), WebhookRequest())
            found.append([value.split(";")[0] for value in answer.headers.getlist("set-cookie")])
        assert found == [["a=1", "b=2"], ["c=3", "d=4"]]


NOT_HTTP = {
    "a status that isn't final": Answer("", 101),
    "a body with 304": Answer("x", 304),
    "a snowman in a header": Answer("", headers={"x-name": "Zoë ☃"}),
    "a line break in a header": Answer("", headers={"x-name": "a\r\nset-cookie: b=1"}),
    "a space at the end": Answer("", headers={"x-name": "a "}),
    "a NUL": Answer("", headers={"x-name": "\0"}),
    "a space in a name": Answer("", headers={"x name": "a"}),
    "a name of nothing": Answer("", headers={"": "a"}),
    "a name in other letters": Answer("", headers={"x-naïve": "a"}),
    "the server's own header": Answer("", headers={"Transfer-Encoding": "chunked"}),
    "too many headers": Answer("", headers={f"x-{n}": "a" * 1_000 for n in range(20)}),
    "a task in the background": Response("", background=BackgroundTask(print)),
    "too large a body": Answer(b"x" * 256_001),
}


@pytest.mark.conformance(63, 67)
@pytest.mark.parametrize("what", NOT_HTTP)
async def test_an_answer_that_http_cannot_carry_is_refused_at_once(open_engine: OpenEngine, what: str) -> None:
    @workflow
    async def tries() -> str:
        with pytest.raises(ValueError, match=r"."):
            create_webhook(respond_with=NOT_HTTP[what])
        request = await create_webhook(respond_with="manual")
        try:
            await request.respond_with(NOT_HTTP[what])
        except ValueError:
            await request.respond_with(Answer("refused", 400, {"x-name": "Zoë"}))
        return "done"

    async with open_engine() as engine:
        run = await engine.start(tries)
        await engine.settle()
        answer = await engine.resume_webhook(await token_of(engine, run.id), WebhookRequest())
        assert (answer.status_code, answer.body, answer.headers["x-name"]) == (400, b"refused", "Zoë")
        assert await run.return_value() == "done"


SECRETS = [
    ("Cookie", "s3cret-1"),
    ("Authorization", "s3cret-2"),
    ("X-Api-Key", "s3cret-3"),
    ("X-Gitlab-Token", "s3cret-4"),
    ("Forwarded", "s3cret-5"),
]
USUAL = [("Content-Type", "text/plain"), ("User-Agent", "curl"), ("Webhook-Id", "msg_1"), ("webhook-signature", "v1,x")]


async def test_only_usual_and_named_headers_of_a_call_are_kept(open_engine: OpenEngine) -> None:
    @workflow
    async def calls() -> list[list[str]]:
        usual, named = create_webhook(), create_webhook(keep_headers=["X-GitHub-Event", "X-Acme-*", "cookie"])
        return [[*(await usual).headers], [*(await named).headers]]

    more = [("X-GitHub-Event", "push"), ("X-Acme-Region", "eu"), ("X-Acme-", ""), ("X-Acm", "")]
    async with open_engine() as engine:
        run = await engine.start(calls)
        await engine.settle()
        for number in (1, 2):
            request = WebhookRequest("POST", "", [*SECRETS, *USUAL, *more])
            await engine.resume_webhook(await token_of(engine, run.id, number), request)
        usual = ["content-type", "user-agent", "webhook-id", "webhook-signature"]
        assert await run.return_value() == [usual, ["cookie", *usual, "x-github-event", "x-acme-region", "x-acme-"]]
        log = repr(await run.events())
        assert [f"s3cret-{n}" in log for n in range(1, 6)] == [True, False, False, False, False]


@pytest.mark.parametrize("wrong", ["x-one", ["*"], ["x one"], [""], ["x\n"], [1], ["*-signature"]])
async def test_headers_to_keep_are_a_list_of_names(open_engine: OpenEngine, wrong: Any) -> None:
    @workflow
    async def tries() -> str:
        with pytest.raises((TypeError, ValueError), match="keep_headers"):
            create_webhook(keep_headers=wrong)
        return "refused"

    async with open_engine() as engine:
        assert await (await engine.start(tries)).return_value() == "refused"


async def test_a_body_reads_forms_of_strangers_and_waits_for_the_next(open_engine: OpenEngine) -> None:
    @workflow
    async def patient() -> Any:
        webhook, refused = create_webhook(), 0
        while True:
            try:
                form = await (await webhook).form()
            except MalformedBodyError:
                refused += 1
            else:
                return [refused, form.getlist("a"), form.text("b")]

    async with open_engine() as engine:
        run = await engine.start(patient)
        await engine.settle()
        token = await token_of(engine, run.id)
        for kind, body in [
            ("multipart/form-data", b"--b--"),
            ("application/x-www-form-urlencoded; charset=shift_jis_x", b"a=1"),
            ("application/x-www-form-urlencoded; charset=euc-kr", b"a=1&a=2&b=%B0%A1"),
        ]:
            await engine.resume_webhook(token, WebhookRequest("POST", "", [("content-type", kind)], body))
        assert await run.return_value() == [2, ["1", "2"], "가"]


async def test_a_call_with_a_malformed_form_is_refused_at_the_door(open_engine: OpenEngine) -> None:
    async def receive() -> Any:
        return {"type": "http.request", "body": b"--b\r\nno form", "more_body": False}

    @workflow
    async def waits() -> None:
        await create_webhook()

    async with open_engine() as engine:
        run = await engine.start(waits)
        await engine.settle()
        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "server": ("x.example", 443)}
        scope["headers"] = [(b"content-type", b"multipart/form-data; boundary=b")]
        before = await run.events()
        with pytest.raises(MalformedBodyError):
            await engine.resume_webhook(await token_of(engine, run.id), Request(scope, receive))
        assert await run.events() == before


@pytest.mark.conformance(64)
async def test_after_the_end_a_webhook_is_not_found(open_engine: OpenEngine) -> None:
    @workflow
    async def once() -> None:
        await create_webhook()

    async with open_engine() as engine:
        run = await engine.start(once)
        await engine.settle()
        token = await token_of(engine, run.id)
        await engine.resume_webhook(token, WebhookRequest())
        await run.return_value()
        with pytest.raises(HookNotFoundError):
            await engine.resume_webhook(token, WebhookRequest())


@pytest.mark.conformance(41, 64)
async def test_a_repeated_call_gets_the_first_answer_after_the_end(open_engine: OpenEngine) -> None:
    @workflow
    async def answers() -> None:
        plain, static = create_webhook(), create_webhook(respond_with=Answer("hi", 201))
        manual, silent = create_webhook(respond_with="manual"), create_webhook(respond_with="manual")
        await asyncio.gather(plain, static, silent)
        await (await manual).respond_with(Answer("got it"))

    def call(body: bytes = b"x", sent: str = "1") -> WebhookRequest:
        return WebhookRequest("POST", "", [("webhook-timestamp", sent)], body)

    async with open_engine() as engine:
        run = await engine.start(answers)
        await engine.settle()
        tokens = [await token_of(engine, run.id, number) for number in (1, 2, 4, 3)]
        limits = (20, 20, 0.1, 20)  # the third is never answered
        calls = zip(tokens, limits, strict=True)
        first = [await engine.resume_webhook(token, call(), resume_id="r", timeout=limit) for token, limit in calls]
        assert [answer.status_code for answer in first] == [202, 201, 504, 200]
        await run.return_value()
        log = await run.events()
    async with open_engine() as engine:
        for token, answer in zip(tokens, first, strict=True):
            again = await engine.resume_webhook(token, call(sent="2"), resume_id="r", timeout=20)
            assert (again.status_code, again.body) == (answer.status_code, answer.body)
            with pytest.raises(IdempotencyConflictError, match=r"payload\.text was 'x', and is now 'y'"):
                await engine.resume_webhook(token, call(b"y"), resume_id="r")
            with pytest.raises(HookNotFoundError):
                await engine.resume_webhook(token, call(), resume_id="another")
        assert await engine.events(run.id) == log


@pytest.mark.conformance(66)
async def test_the_url_is_signed_and_carries_nothing_but_the_hook(open_engine: OpenEngine) -> None:
    @workflow
    async def shows() -> None:
        hook = create_webhook()
        publish({"url": hook.url, "hook_id": hook.hook_id})
        await hook

    async with open_engine(base_url="https://bot.example.test/base/", signing_keys=["k" * 40]) as engine:
        run = await engine.start(shows)
        await engine.settle()
        record = await engine.record(run.id)
        assert record is not None
        base, _, signed = record.view["url"].rpartition("/")
        assert base == "https://bot.example.test/base/webhooks"
        assert Tokens(["k" * 40], installation=engine.installation).read(WEBHOOK, signed) == {
            "h": record.view["hook_id"],
            "g": 1,
        }


@pytest.mark.conformance(68)
@pytest.mark.parametrize("body", [b"", bytes(range(256)) * 2_700, b"x" * 980_000, "ünï".encode()])
async def test_any_body_and_repeated_headers_arrive_intact(open_engine: OpenEngine, body: bytes) -> None:
    @workflow
    async def measures() -> Any:
        request = await create_webhook(keep_headers=["x"])
        return [hashlib.sha256(await request.body()).hexdigest(), request.headers.getlist("x")]

    async with open_engine() as engine:
        run = await engine.start(measures)
        await engine.settle()
        await engine.resume_webhook(
            await token_of(engine, run.id), WebhookRequest("POST", "", [("X", "1"), ("x", "2")], body)
        )
        assert await run.return_value() == [hashlib.sha256(body).hexdigest(), ["1", "2"]]


@pytest.mark.conformance(68)
async def test_a_body_above_the_limit_is_refused_and_harms_no_run(open_engine: OpenEngine) -> None:
    @workflow
    async def waits() -> int:
        return len(await (await create_webhook()).body())

    async with open_engine() as engine:
        run = await engine.start(waits)
        await engine.settle()
        token, before = await token_of(engine, run.id), await run.events()
        with pytest.raises(LimitExceededError):
            await engine.resume_webhook(token, WebhookRequest("POST", body=b"x" * 2**20))
        assert await run.events() == before
        await engine.resume_webhook(token, WebhookRequest("POST", body=b"x"))
        assert await run.return_value() == 1
