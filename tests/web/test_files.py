"""Files: uploaded over the API, attached to requests, shown on cards, and downloaded by those who may read them."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import Any

import pytest

from approvals_bot.approvals.files import LARGEST_FILE, StoredFile, find_file
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.store.files import PART
from approvals_bot.service.catalog import Listed
from approvals_bot.service.files import MOST_UNCLAIMED, forget_files
from approvals_bot.web.files import disposition

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
PLAN = b"1. Move the data.\n2. Check it.\n"


def with_file(**more: Any) -> Definition:
    about = {"id": "files-plan", "title": "Plan {{ doc }} for {{ service }}", "request": ["*", "app:desk", "app:ci"]}
    return Definition.model_validate(
        {
            "workflow": about,
            "fields": {"service": "string", "doc": {"type": "file", "label": "The plan"}},
            "stage": [{"id": "go", "from": ["ann@acme.eu"], "outcomes": ["approve", "changes", "reject"]}],
            "deliver": {},
        }
        | more
    )


def listed(service: Any, definition: Definition) -> None:
    service.workflows[definition.id] = Listed(approval.under(definition.id, pinned(definition)), definition)


@pytest.fixture
def office(service: Any) -> Any:
    """A service with a workflow that takes a file, and another whose file may be left out."""
    listed(service, with_file())
    fields = {"service": "string", "doc": {"type": "file", "required": False}}
    listed(service, with_file(workflow={"id": "files-maybe", "title": "Maybe", "request": ["*"]}, fields=fields))
    return service


async def upload(service: Any, content: bytes = PLAN, name: str = "plan.txt", client: Any = None) -> dict[str, Any]:
    answer = await (client or service.api).post("/api/files", params={"name": name}, content=content)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def opened(service: Any, id: Any, *, client: Any = None, **more: Any) -> Any:
    body = {"workflow": "files-plan", "input": {"service": "api", "doc": id}, **more}
    answer = await (client or service.api).post("/api/runs", json=body)
    await service.engine.settle()
    return answer


async def test_a_file_is_uploaded_attached_shown_and_read(office: Any) -> None:
    file = await upload(office, name="plan für Bo.txt")
    digest = hashlib.sha256(PLAN).hexdigest()
    assert {**file, "id": ""} == {
        "id": "",
        "name": "plan für Bo.txt",
        "size": len(PLAN),
        "sha256": digest,
        "type": "text/plain",
    }
    run_id = (await opened(office, file["id"])).json()["run_id"]
    request = (await office.run(run_id))["request"]
    assert (request["title"], request["fields"]["doc"]) == ("Plan plan für Bo.txt for api", file)
    link = await office.link(run_id, "ann@acme.eu")
    page = (await office.web.get(link)).text
    for words in ("The plan", "plan für Bo.txt", f"{len(PLAN)} bytes", digest, f'href="{link}/files/{file["id"]}"'):
        assert words in page
    answer = await office.web.get(f"{link}/files/{file['id']}")
    assert (answer.status_code, answer.content) == (200, PLAN)
    head = await office.web.head(f"{link}/files/{file['id']}")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(PLAN)))
    expected = {
        "content-type": "text/plain; charset=utf-8",
        "content-disposition": "inline; filename=\"plan f_r Bo.txt\"; filename*=UTF-8''plan%20f%C3%BCr%20Bo.txt",
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
    }
    assert {name: answer.headers[name] for name in expected} == expected
    assert answer.headers["content-security-policy"].startswith("sandbox;")


async def test_a_large_file_comes_back_as_it_was(office: Any) -> None:
    content = bytes(range(256)) * (PART // 256) * 3 + b"end"
    file = await upload(office, content, "large.bin")
    run_id = (await opened(office, file["id"])).json()["run_id"]
    answer = await office.web.get(f"{await office.link(run_id, 'ann@acme.eu')}/files/{file['id']}")
    assert hashlib.sha256(answer.content).hexdigest() == file["sha256"] == hashlib.sha256(content).hexdigest()
    assert answer.headers["content-disposition"] == 'attachment; filename="large.bin"'
    assert answer.headers["content-type"] == "application/octet-stream"


async def test_the_digest_covers_name_and_content_but_not_the_id(office: Any) -> None:
    async def digest(content: bytes, name: str) -> str:
        run_id = (await opened(office, (await upload(office, content, name))["id"])).json()["run_id"]
        return str((await office.run(run_id))["request"]["digest"])

    first = await digest(PLAN, "plan.txt")
    assert first
    assert await digest(PLAN, "plan.txt") == first
    assert len({first, await digest(PLAN, "other.txt"), await digest(PLAN + b" ", "plan.txt")}) == 3


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (None, "is missing"),
        ("", "is missing"),
        ("  ", "is missing"),
        ("a/b.txt", "without a folder"),
        ("..\\b.txt", "without a folder"),
        ("..", "without a folder"),
        (" a.txt", "blanks"),
        ("a\nb.txt", "control character"),
        ("a\u202etxt.exe", "invisible character"),
        ("a\u200b.txt", "invisible character"),
        ("a" * 201, "too long"),
    ],
)
async def test_a_bad_name_is_refused_with_its_place(office: Any, name: str | None, fault: str) -> None:
    answer = await office.api.post("/api/files", params={} if name is None else {"name": name}, content=PLAN)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["loc"] == ["query", "name"]
    assert fault in error["msg"]
    assert office.content()["files"] == office.content()["file_parts"] == []


async def test_a_name_is_kept_in_its_composed_form(office: Any) -> None:
    assert (await upload(office, name="pla\u0308n.txt"))["name"] == "plän.txt"


async def test_empty_large_and_compressed_bodies_leave_nothing(office: Any) -> None:
    async def too_much() -> Any:
        for _ in range(LARGEST_FILE // 500_000 + 1):
            yield bytes(500_000)

    empty = await office.api.post("/api/files?name=a.txt", content=b"")
    assert (empty.status_code, empty.json()["errors"]) == (422, [{"loc": ["body"], "msg": "is empty"}])
    streamed = await office.api.post("/api/files?name=a.txt", content=too_much())
    assert (streamed.status_code, "10,000,000" in streamed.json()["detail"]) == (413, True)
    headers = {"Content-Length": str(LARGEST_FILE + 1)}
    assert (await office.api.post("/api/files?name=a.txt", content=b"x", headers=headers)).status_code == 413
    packed = await office.api.post("/api/files?name=a.txt", content=PLAN, headers={"Content-Encoding": "gzip"})
    assert packed.status_code == 415
    assert (await office.web.post("/api/files?name=a.txt", content=PLAN)).status_code == 401
    assert office.content()["files"] == office.content()["file_parts"] == []
    assert (await upload(office, bytes(LARGEST_FILE), "zeros"))["size"] == LARGEST_FILE


async def test_only_an_id_of_ones_own_live_file_is_taken(office: Any) -> None:
    mine, others = await upload(office), await upload(office, client=office.plain)
    wrong = ("file_" + "0" * 32, "x", "file_" + "A" * 32, others["id"])
    for id in wrong:
        answer = await opened(office, id)
        assert answer.status_code == 422, answer.text
        (error,) = answer.json()["errors"]
        assert error["loc"] == ["input", "doc"]
        assert "not the id of a file that this key uploaded" in error["msg"]
    for forged in ({**mine, "name": "harmless.txt"}, mine, 7, [mine["id"]]):
        answer = await opened(office, forged)
        assert answer.json()["errors"] == [{"loc": ["input", "doc"], "msg": "must be the id of an uploaded file"}]
    assert (await opened(office, None)).json()["errors"] == [{"loc": ["input", "doc"], "msg": "is required"}]
    await office.clock.advance(timedelta(minutes=59, seconds=59))
    assert (await opened(office, mine["id"])).status_code == 202


async def test_a_file_that_nothing_takes_is_gone_after_an_hour(office: Any) -> None:
    lost, kept = await upload(office), await upload(office)
    run_id = (await opened(office, kept["id"])).json()["run_id"]
    await office.clock.advance(timedelta(hours=1))
    assert (await opened(office, lost["id"])).status_code == 422
    await forget_files(office.engine)
    tables = office.content()
    assert [row[0] for row in tables["files"]] == [row[0] for row in tables["file_parts"]] == [kept["id"]]
    link = await office.link(run_id, "ann@acme.eu")
    assert (await office.web.get(f"{link}/files/{kept['id']}")).content == PLAN
    assert (await office.web.get(f"{link}/files/{lost['id']}")).status_code == 404


async def test_a_file_may_be_attached_again_by_its_owner(office: Any) -> None:
    file = await upload(office)
    key = {"Idempotency-Key": "files-once"}
    body = {"workflow": "files-plan", "input": {"service": "api", "doc": file["id"]}}
    first, again = [await office.api.post("/api/runs", json=body, headers=key) for _ in range(2)]
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["run_id"] == again.json()["run_id"]
    await office.clock.advance(timedelta(days=2))
    assert (await opened(office, file["id"])).status_code == 202


async def test_a_refused_opening_claims_nothing(office: Any) -> None:
    file = await upload(office)
    body = {"workflow": "files-plan", "input": {"doc": file["id"]}}
    assert (await office.api.post("/api/runs", json=body)).status_code == 422
    await office.clock.advance(timedelta(hours=1))
    await forget_files(office.engine)
    assert office.content()["files"] == []


async def test_the_requester_replaces_a_file_and_votes_are_reset(office: Any) -> None:
    old, new = await upload(office), await upload(office, PNG, "plan.png")
    run_id = (await opened(office, old["id"])).json()["run_id"]
    digest = (await office.run(run_id))["request"]["digest"]
    for wrong in (new, "file_x", {**new, "size": 1}):
        refused = await office.api.patch(f"/api/runs/{run_id}/fields", json={"fields": {"doc": wrong}})
        assert refused.status_code == 422, refused.text
        assert refused.json()["errors"][0]["loc"] == ["fields", "doc"]
    done = await office.api.patch(f"/api/runs/{run_id}/fields", json={"fields": {"doc": new["id"]}})
    assert done.status_code == 200, done.text
    await office.engine.settle()
    request = (await office.run(run_id))["request"]
    assert request["fields"]["doc"] == new
    assert request["digest"] != digest
    link = await office.link(run_id, "ann@acme.eu")
    for file, content in ((old, PLAN), (new, PNG)):  # the earlier one is shown, too
        assert (await office.web.get(f"{link}/files/{file['id']}")).content == content


async def test_a_page_for_changes_leaves_the_file_alone(office: Any) -> None:
    file = await upload(office)
    run_id = (await opened(office, file["id"], requester="bo@acme.eu")).json()["run_id"]
    vote = {"by": "ann@acme.eu", "choice": "changes", "comment": "Which service?"}
    assert (await office.api.post(f"/api/runs/{run_id}/votes", json=vote)).status_code == 201
    await office.engine.settle()
    hook = await office.engine.find_hook((await office.view(run_id))["hook_id"])
    token = office.tokens.sign("decision.v1", {"h": hook.hook_id, "r": "requester", "g": hook.generation})
    page = (await office.web.get(f"/decisions/{token}")).text
    assert 'name="edit.service"' in page
    assert "edit.doc" not in page
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))
    form = hidden | {"own": "change", "edit.service": "web"}
    answer = await office.web.post(f"/decisions/{token}", data=form, headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 303, answer.text
    await office.engine.settle()
    assert (await office.run(run_id))["request"]["fields"] == {"service": "web", "doc": file}


async def test_an_optional_file_may_be_left_out(office: Any) -> None:
    run_id = await office.start("files-maybe", {"service": "api"}, requester="bo@acme.eu")
    request = (await office.run(run_id))["request"]
    assert request["fields"]["doc"] is None
    assert request["digest"]
    link = await office.link(run_id, "ann@acme.eu")
    assert (await office.web.get(f"{link}/files/file_x")).status_code == 404


async def test_a_file_of_another_request_is_not_found(office: Any) -> None:
    ours, theirs = await upload(office), await upload(office, PNG, "secret.png")
    run_id, _ = [(await opened(office, file["id"])).json()["run_id"] for file in (ours, theirs)]
    link = await office.link(run_id, "ann@acme.eu")
    assert (await office.web.get(f"{link}/files/{theirs['id']}")).status_code == 404
    assert (await office.web.get(f"{link}x/files/{ours['id']}")).status_code == 404
    signed_out = await office.web.get(f"/requests/{run_id}/files/{ours['id']}")
    assert ours["sha256"] not in signed_out.text
    assert PLAN not in signed_out.content


async def test_a_request_page_offers_its_files(open_service: Any) -> None:
    async with open_service(open_pages=True) as service:
        listed(service, with_file())
        file = await upload(service, PNG, "plan.png")
        run_id = (await opened(service, file["id"])).json()["run_id"]
        path = f"/requests/{run_id}/files/{file['id']}"
        assert f'href="{path}"' in (await service.web.get(f"/requests/{run_id}")).text
        answer = await service.web.get(path)
        assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, PNG, "image/png")
        assert (await service.web.get(f"/requests/{run_id}/files/nothing")).status_code == 404


@pytest.mark.parametrize("link_auth", ["code", "login"])
async def test_an_unproven_link_gives_out_no_file(office: Any, link_auth: str) -> None:
    listed(office, with_file(deliver={"link_auth": link_auth}))
    file = await upload(office)
    run_id = (await opened(office, file["id"])).json()["run_id"]
    answer = await office.web.get(f"{await office.link(run_id, 'ann@acme.eu')}/files/{file['id']}")
    assert answer.status_code == 403
    assert PLAN not in answer.content


@pytest.mark.parametrize(
    ("content", "name", "type", "kind"),
    [
        (PNG, "a.png", "image/png", "inline"),
        (b"\xff\xd8\xff\xe0" + bytes(9), "a.jpg", "image/jpeg", "inline"),
        (b"GIF89a" + bytes(9), "a.gif", "image/gif", "inline"),
        (b"RIFF\x04\0\0\0WEBPVP8 ", "a.webp", "image/webp", "inline"),
        ("Grüße\n".encode(), "a.md", "text/plain", "inline"),
        (b"\xef\xbb\xbfa,b\n", "a.csv", "text/plain", "inline"),
        (b"%PDF-1.7\n", "a.pdf", "application/pdf", "attachment"),
        (b"<script>alert(1)</script>", "a.html", "application/octet-stream", "attachment"),
        (b"  <!doctype html>", "a.txt", "application/octet-stream", "attachment"),
        (b"hello", "a.html", "application/octet-stream", "attachment"),
        (b"alert(1)", "a.JS", "application/octet-stream", "attachment"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.svg", "application/octet-stream", "attachment"),
        (b"\x89PNG and no more", "a.png", "application/octet-stream", "attachment"),
        (b"a\0b", "a.txt", "application/octet-stream", "attachment"),
        (b"caf\xe9", "a.txt", "application/octet-stream", "attachment"),
        (b"cut \xc3", "a.txt", "application/octet-stream", "attachment"),
        (b"\x1b[31mred", "a.txt", "application/octet-stream", "attachment"),
        (b"MZ\x90\0", "a.exe", "application/octet-stream", "attachment"),
        (b"PK\x03\x04", "a.docx", "application/octet-stream", "attachment"),
    ],
)
async def test_only_images_and_plain_text_are_shown(
    office: Any, content: bytes, name: str, type: str, kind: str
) -> None:
    file = await upload(office, content, name)
    run_id = (await opened(office, file["id"])).json()["run_id"]
    answer = await office.web.get(f"{await office.link(run_id, 'ann@acme.eu')}/files/{file['id']}")
    assert answer.headers["content-type"].partition(";")[0] == file["type"] == type
    assert answer.headers["content-disposition"] == f'{kind}; filename="{name}"'


def test_a_file_name_never_leaves_its_header() -> None:
    assert disposition("inline", 'a"b;c\\.txt') == "inline; filename=\"a_b_c_.txt\"; filename*=UTF-8''a%22b%3Bc%5C.txt"
    assert disposition("inline", "€.txt") == "inline; filename=\"_.txt\"; filename*=UTF-8''%E2%82%AC.txt"


async def test_a_key_keeps_so_many_files_that_nothing_has(office: Any) -> None:
    for number in range(MOST_UNCLAIMED):
        await upload(office, b"x", f"{number}.txt")
    refused = await office.api.post("/api/files?name=more.txt", content=b"x")
    assert (refused.status_code, refused.json()["title"]) == (429, "Too many files")
    await upload(office, client=office.plain)
    await office.clock.advance(timedelta(hours=1))
    await upload(office)


def test_only_fields_of_files_hold_files() -> None:
    """A tool call's arguments may look like a file that somebody else has uploaded."""
    file = StoredFile("file_" + "0" * 32, "plan.txt", 1, "0" * 64, "text/plain")
    fields = {"doc": file.as_json(), "arguments": file.as_json()}
    assert find_file(fields, ("doc",), file.id) == file
    assert find_file({"arguments": file.as_json()}, ("doc",), file.id) is None
    assert find_file(fields, (), file.id) is None
