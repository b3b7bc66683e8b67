"""Forms that a webhook's callers send: what they may be made of, and what is refused."""

from __future__ import annotations

import contextlib
import json
import time
import tracemalloc
from typing import Any
from urllib.parse import parse_qsl

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from approvals_bot import MalformedBodyError, WebhookRequest
from approvals_bot.durable.core.forms import MAX_FIELDS, FormFields, FormFile, known_charset, parse_form
from approvals_bot.durable.core.serialization import decode, encode, to_json

MULTIPART = "multipart/form-data; boundary=b"
URL_ENCODED = "application/x-www-form-urlencoded"


def part(disposition: str, content: bytes, *more: str) -> bytes:
    head = "\r\n".join((f"Content-Disposition: form-data; {disposition}", *more))
    return b"--b\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


def multipart(*parts: bytes) -> FormFields:
    return parse_form(MULTIPART, b"".join(parts) + b"--b--\r\n")


def test_repeated_fields_of_a_form_are_lists() -> None:
    expected = {"a": ["1", "2", "3"], "b": "", "c": "x y"}
    assert parse_form(URL_ENCODED, b"a=1&b=&a=2&c=x+y&a=3") == expected
    parts = [part(f'name="{name}"', text) for name, text in [("a", b"1"), ("b", b""), ("a", b"2"), ("c", b"x y")]]
    assert multipart(*parts, part("name=a", b"3")) == expected


def test_a_form_gives_one_type_however_often_a_field_is_sent() -> None:
    form = parse_form("", b"one=1&two=1&two=2")
    assert (form.text("one"), form.text("two"), form.text("none"), form.text("none", "-")) == ("1", "2", "", "-")
    assert (form.getlist("one"), form.getlist("two"), form.getlist("none")) == (["1"], ["1", "2"], [])


def test_blank_lines_and_an_epilogue_have_no_meaning() -> None:
    body = b"\r\n\r\n" + part("name=a", b"1") + b"--b--\r\nmore\r\n--b\r\nthan that"
    assert parse_form(MULTIPART, body) == {"a": "1"}


def test_a_file_in_a_form_has_its_name_type_and_bytes() -> None:
    form = multipart(
        part('name="cv"; filename="a \\"b\\" %22ü.pdf"', b"\x00\r\n\xff", "content-type: application/pdf"),
        part('name="empty"; filename=""', b""),
    )
    assert form == {
        "cv": FormFile('a "b" %22ü.pdf', "application/pdf", b"\x00\r\n\xff"),
        "empty": FormFile("", "", b""),
    }
    assert form.text("cv") == ""


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (f"{URL_ENCODED}; charset=ISO-8859-1", b"a=caf%E9"),
        (f'{URL_ENCODED}; Charset="windows-1252"', b"a=caf\xe9"),
        (URL_ENCODED, b"a=caf%C3%A9"),
        (URL_ENCODED, b"_charset_=latin1&a=caf%E9"),
        (MULTIPART, part("name=a", "café".encode()) + b"--b--"),
        (MULTIPART, part("name=a", b"caf\xe9", "Content-Type: text/plain; charset=latin-1") + b"--b--"),
        (MULTIPART, part("name=_charset_", b"iso-8859-1") + part("name=a", b"caf\xe9") + b"--b--"),
        (f"{MULTIPART}; charset=utf-16-le", part("name=a", "café".encode("utf-16-le")) + b"--b--"),
    ],
)
def test_a_form_is_read_in_its_charset(content_type: str, body: bytes) -> None:
    assert parse_form(content_type, body)["a"] == "café"


def test_only_charsets_of_texts_are_known() -> None:
    assert [known_charset(name) for name in ("UTF8", "iso_8859-15", "Windows-1251", "Shift_JIS", "us-ascii")] == [
        "utf_8", "iso8859_15", "cp1251", "shift_jis", "ascii",
    ]  # fmt: skip
    for name in (None, "", "zip", "base64", "idna", "punycode", "unicode_escape", "utf-7", "../x", "undefined", "ü"):
        assert known_charset(name) is None


@pytest.mark.parametrize(
    ("content_type", "body", "reason"),
    [
        ("multipart/form-data", b"--b--", "boundary"),
        ("multipart/form-data; boundary=" + "b" * 71, b"", "boundary"),
        (MULTIPART, b"", "last boundary"),
        (MULTIPART, b"a=1", "last boundary"),
        (MULTIPART, part("name=a", b"1"), "last boundary"),
        (MULTIPART, b"\n" + part("name=a", b"1") + b"--b--", "begin with its boundary"),
        (MULTIPART, b"-" + part("name=a", b"1") + part("name=b", b"2") + b"--b--", "begin with its boundary"),
        (MULTIPART, part("name=a", b"1\r\n--b \r\n2") + b"--b--", "part 2 has no header"),
        (MULTIPART, part("name=a", b"1\r\n--bc\r\n2") + b"--b--", "part 2 has no header"),
        (MULTIPART, b"--b\r\n\r\n1\r\n--b--", "header"),
        (MULTIPART, b"--b\nContent-Disposition: form-data; name=a\n\n1\n--b--", "header"),
        (MULTIPART, b"--bc\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b--", "header"),
        (MULTIPART, b"--b\r\nnonsense\r\n\r\n1\r\n--b--", "part 1 has a line"),
        (MULTIPART, b"--b\r\nX: y\r\n\r\n1\r\n--b--", "part 1 has no name"),
        (MULTIPART, part("filename=x", b"1") + b"--b--", "part 1 has no name"),
        (MULTIPART, part("name=a", b"MQ==", "Content-Transfer-Encoding: base64") + b"--b--", "transfer encoding"),
        (MULTIPART, part("name=a", b"1") * (MAX_FIELDS + 1) + b"--b--", "more than 1,000 fields"),
        (URL_ENCODED, b"a=1&" * MAX_FIELDS, "more than 1,000 fields"),
        (f"{URL_ENCODED}; charset=zip", b"a=1", "unknown charset 'zip'"),
        ("application/json", b"{}", "'application/json'"),
    ],
)
async def test_what_is_no_form_is_refused_with_its_reason(content_type: str, body: bytes, reason: str) -> None:
    request = WebhookRequest("POST", "", [("Content-Type", content_type)], body)
    with pytest.raises(MalformedBodyError, match=reason) as refused:
        await request.form()
    assert refused.value.what == "form"
    assert isinstance(refused.value, ValueError)
    assert await request.text() == body.decode()


async def test_what_is_no_json_is_refused_with_its_reason() -> None:
    for body in (b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5_000):
        with pytest.raises(MalformedBodyError, match="JSON"):
            await WebhookRequest(body=body).json()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'[{"a": NaN}]', "NaN is not a JSON number"),
        (b"-Infinity", "-Infinity is not a JSON number"),
        (b"[1e999]", "a number is too large"),
        (b"1" * 5_000, "Exceeds the limit"),
        (b'{"a": [' * 51 + b"]}" * 51, "it is nested more than 100 deep"),
        (b"[" * 100_000 + b"]" * 100_000, "it is nested more than 100 deep"),
    ],
)
async def test_json_that_the_log_cannot_keep_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(MalformedBodyError, match=reason):
        await WebhookRequest(body=body).json()


async def test_json_of_a_hundred_levels_is_read() -> None:
    levels = await WebhookRequest(body=b'{"a": [' * 50 + b"0, [], 1.5" + b"]}" * 50).json()
    assert decode(json.loads(to_json(encode({"passed on": levels})))) == {"passed on": levels}


def test_a_file_with_an_encoded_name_is_a_file() -> None:
    form = multipart(
        part("name=cv; filename*=UTF-8''%C3%BC.pdf", b"1"),
        part("name=more; filename=\"a\"; filename*=iso-8859-1'de'%FC.pdf", b"2"),
    )
    assert form == {"cv": FormFile("ü.pdf", "", b"1"), "more": FormFile("ü.pdf", "", b"2")}


async def test_a_text_is_read_in_its_charset() -> None:
    async def read(content_type: str, body: bytes) -> str:
        return await WebhookRequest("POST", "", [("content-type", content_type)], body).text()

    assert await read("text/plain; charset=iso-8859-1", b"caf\xe9") == "café"
    assert await read("text/plain", "café".encode()) == "café"
    assert await read("text/plain; charset=nonsense", b"caf\xe9") == "caf�"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@settings(deadline=None)  # a busy machine may take a while
@given(
    st.lists(st.tuples(TEXTS.filter(lambda name: name != "_charset_"), TEXTS), max_size=5),
    st.lists(st.binary(max_size=30), max_size=3),
)
def test_forms_of_a_client_arrive_as_they_were_sent(fields: list[tuple[str, str]], files: list[bytes]) -> None:
    data: dict[str, list[str]] = {}
    for name, text in fields:
        data.setdefault(name, []).append(text)
    uploads = [("file", (f"{number}.bin", content)) for number, content in enumerate(files)]
    sent = httpx2.Request("POST", "http://x.example", data=data, files=[*uploads, ("last", ("l", b""))])
    form = parse_form(sent.headers["content-type"], sent.read())
    for name, texts in data.items():
        if name not in ("file", "last") and name.isprintable() and not set(name) & {'"', "\\"}:  # others are escaped
            assert form.getlist(name) == texts
    if "file" not in data:
        assert [one.content for one in form.getlist("file") if isinstance(one, FormFile)] == files


@settings(deadline=None)  # a busy machine may take a while
@given(st.binary(), st.text(st.characters(codec="latin-1")))
def test_any_bytes_are_a_form_or_refused(body: bytes, content_type: str) -> None:
    for kind in (content_type, MULTIPART, URL_ENCODED):
        with contextlib.suppress(MalformedBodyError):
            assert isinstance(parse_form(kind, body), FormFields)


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n--b" * 200_000,
        b"--b\r\n" + b"a:" * 400_000,
        part("name=" + ";name=" * 100_000, b""),
        part('name="' + '\\"' * 300_000, b""),
        part("name=" + " " * 600_000, b""),
    ],
)
def test_a_form_takes_time_in_proportion_to_its_size(body: bytes) -> None:
    began = time.process_time()
    with contextlib.suppress(MalformedBodyError):
        parse_form(MULTIPART, body + b"--b--")
    assert time.process_time() - began < 1


def test_a_form_is_read_once_unless_it_names_its_charset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body of bare `%` is the slowest to read: 60 kB of it take 0.1 s each time."""
    read = []

    def counted(text: str, **how: Any) -> list[tuple[str, str]]:
        read.append(len(text))
        return parse_qsl(text, **how)

    monkeypatch.setattr("approvals_bot.durable.core.forms.parse_qsl", counted)
    assert parse_form(URL_ENCODED, b"a=" + b"%" * 1_000)["a"] == "%" * 1_000
    assert read == [1_002]
    assert parse_form(URL_ENCODED, b"_charset_=latin1&a=caf%E9")["a"] == "café"
    assert len(read) == 3


def test_parts_beyond_the_most_take_no_memory() -> None:
    body = b"\r\n--b" * 400_000
    tracemalloc.start()
    with pytest.raises(MalformedBodyError):
        parse_form("multipart/form-data; boundary=b", body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(body)
