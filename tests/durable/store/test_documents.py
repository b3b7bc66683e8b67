"""Documents that another program keeps here, on both stores."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from approvals_bot.durable.store.audit import AuditEntry, NewLine
from approvals_bot.durable.store.documents import DocumentRow
from tests.durable.store.conftest import Connect

ANN = DocumentRow("User", "1", "ann", {"userName": "ann\x00\ud800"}, 0)


async def test_documents_change_in_order_for_every_replica(connected: Connect) -> None:
    here, there = await connected(), await connected()
    assert await here.put_document(ANN) == 1
    assert await here.put_document(ANN) == "stale"
    assert await there.put_document(DocumentRow("User", "2", "ann", {}, 0)) == "taken"
    assert await there.put_document(DocumentRow("Group", "2", "ann", {"members": [1]}, 0)) == 2
    assert await there.document("User", "1") == ANN._replace(change=1)
    changed = DocumentRow("User", "1", "anna", {"userName": "anna"}, 1)
    assert await there.put_document(changed) == 3
    assert await here.put_document(changed) == "stale"
    assert await here.put_document(DocumentRow("User", "2", "ann", {}, 0)) == 4  # the name is free again
    assert await there.put_document(DocumentRow("User", "2", None, None, 4)) == 5  # deleted
    assert await there.put_document(DocumentRow("User", "2", "ann", {}, 5)) == "stale"
    assert await here.document("User", "2") is None
    assert await here.documents(2) == [changed._replace(change=3), DocumentRow("User", "2", None, None, 5)]

    new = [DocumentRow("User", f"n{at}", None, {"at": at}, 0) for at in range(20)]
    written = await asyncio.gather(*((here, there)[at % 2].put_document(row) for at, row in enumerate(new)))
    assert sorted(written, key=str) == sorted(range(6, 26), key=str)


async def test_a_document_is_written_with_its_line(connected: Connect) -> None:
    here, there = await connected(), await connected()
    at = datetime(2026, 3, 2, tzinfo=UTC)
    new = [DocumentRow("User", f"n{number}", f"name {number % 8}", {}, 0) for number in range(12)]
    written = await asyncio.gather(
        *(
            (here, there)[number % 2].put_document(row, NewLine(AuditEntry("scim_created", row.id), at))
            for number, row in enumerate(new)
        )
    )
    kept = [row.id for row, change in zip(new, written, strict=True) if isinstance(change, int)]
    assert len(kept) == 8, "the others have a name that is taken"
    lines = await here.audit_lines()
    assert sorted(line.entry.who or "" for line in lines) == sorted(kept)
    assert [line.seq for line in lines] == [*range(1, 9)]
