"""The client is light: it imports neither the engine nor the service, and no framework until its adapter is named."""

from __future__ import annotations

import subprocess
import sys

import pytest

FRAMEWORKS = ("pydantic_ai", "agents", "langgraph", "langchain", "claude_agent_sdk", "mcp", "starlette", "slack_sdk")

PROGRAM = """
import sys
import approvals_bot.client as client
for name in client.__all__:
    getattr(client, name)
loaded = {name for name in sys.modules}
ours = {name for name in loaded if name.startswith("approvals_bot.")}
print(sorted(name for name in ours if not name.startswith(("approvals_bot.client", "approvals_bot.errors"))))
print(sorted(name for name in sys.argv[1:] if name in loaded))
"""


@pytest.mark.agents(1)
def test_the_client_imports_neither_engine_nor_framework() -> None:
    command = [sys.executable, "-c", PROGRAM, *FRAMEWORKS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["[]", "[]", ""]
