"""What the adapters of OpenAI's SDK and LangGraph import, and what they say where their extra is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = {
    "approvals_bot.client.openai": "openai-agents",
    "approvals_bot.agents.openai": "openai-agents",
    "approvals_bot.client.langgraph": "langgraph",
    "approvals_bot.agents.langgraph": "langgraph",
}

WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Hidden(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = ("agents", "openai", "langgraph", "langchain", "langchain_core")
        return None if name in hidden else super().find_spec(name, path, target)

sys.meta_path = [Hidden if finder is PathFinder else finder for finder in sys.meta_path]
for module in sys.argv[1:]:
    try:
        __import__(module)
    except ImportError as error:
        print(error)
"""

LIGHT = """
import sys
import approvals_bot.agents.langgraph
print([name for name in ("langgraph", "langchain_core") if name in sys.modules])
"""


def printed(program: str, *arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.agents(1)
def test_a_missing_extra_is_named() -> None:
    lines = printed(WITHOUT, *MODULES)
    assert len(lines) == len(MODULES)
    for line, extra in zip(lines, MODULES.values(), strict=True):
        assert f"pip install 'approvals-bot[{extra}]'" in line


@pytest.mark.agents(1)
def test_holding_a_graph_imports_langgraph_only_when_it_runs() -> None:
    assert printed(LIGHT) == ["[]"]
