"""The versions of the frameworks with which docs/agents.md says that its examples run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.numbered import ROOT

INTRODUCTION = (ROOT / "docs" / "agents.md").read_text().partition("**On this page:**")[0]
EXTRAS = re.findall(r'"([\w-]+)>=([\d.]+)"', (ROOT / "pyproject.toml").read_text().partition("[dependency-groups]")[0])
FRAMEWORKS = {"pydantic-ai-slim", "openai-agents", "langgraph", "claude-agent-sdk", "mcp"}
GUIDES = (
    "tests/agents/test_approve_guide.py",
    "tests/agents/test_pydantic_ai_guide.py",
    "tests/client/test_agents_guide.py",
)


def named(framework: str) -> list[str]:
    """Return the versions that the page names of a framework, the oldest first."""
    found = re.search(rf"{framework}\s+([\d., and]+\d)", INTRODUCTION)
    return re.findall(r"\d+\.\d+\.\d+", found[1]) if found else []


@pytest.mark.agents(2)
def test_the_page_names_the_bound_and_the_version_that_runs_here() -> None:
    bounds = {name: bound for name, bound in EXTRAS if name in FRAMEWORKS}
    assert bounds.keys() == FRAMEWORKS
    for framework, bound in bounds.items():
        versions = named(framework)
        assert f"{versions[0]}.".startswith(f"{bound}."), framework
        assert versions[-1] == version(framework), framework


@pytest.mark.long
@pytest.mark.agents(2)
@pytest.mark.parametrize("older", named("pydantic-ai-slim")[:-1])
def test_examples_run_with_older_versions(tmp_path: Path, older: str) -> None:
    wanted = [f"pydantic-ai-slim=={older}", f"pydantic-graph=={older}"]
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path), *wanted]
    subprocess.run(install, check=True, cwd=ROOT)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    found = "import pydantic_ai; print(pydantic_ai.__version__)"
    used = subprocess.run([sys.executable, "-c", found], env=environment, capture_output=True, text=True, check=True)
    assert used.stdout.strip() == older
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *GUIDES]
    done = subprocess.run(run, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3_000:]
