"""What bodies call raises errors of ours: any other error out of this package's code is a bug, and stalls a run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "approvals_bot"
CALLED_BY_BODIES = (
    *(f"durable/core/{name}.py" for name in ("commands", "durations", "forms", "hooks", "loop", "run")),
    "approvals/author_fields.py",
    "approvals/deciding.py",
    "approvals/request_approval.py",
    "approvals/workflow.py",
)
NOT_OURS = {"ValueError", "RuntimeError", "TimeoutError", "OSError", "Exception"}


@pytest.mark.parametrize("file", CALLED_BY_BODIES)
def test_what_bodies_call_raises_errors_of_ours(file: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    calls = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    raised = [call.func for call in calls if isinstance(call, ast.Call)]
    assert [name.lineno for name in raised if isinstance(name, ast.Name) and name.id in NOT_OURS] == []
