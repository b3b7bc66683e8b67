"""`pip install approvals-bot` without an extra: nothing but what belongs to an extra imports what an extra brings."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]

NEED_AN_EXTRA = {
    "agents.langgraph",
    "agents.openai",
    "agents.pydantic_ai",
    "agents.streaming",  # of pydantic_ai's models
    "channels.email.lmtp",
    "client.claude",
    "client.langgraph",
    "client.mcp",
    "client.openai",
    "client.pydantic_ai",
    "durable.store.postgres",
    "durable.store.postgres_backups",
    "durable.store.postgres_chain",
    "durable.store.postgres_connection",
    "durable.store.postgres_encoding",
    "durable.store.postgres_schema",
    "durable.store.postgres_tables",
    "web.scim_resources",
}

IMPORT_ALL = """
import importlib, pkgutil, sys, warnings

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in sys.argv or name.partition(".")[0] in sys.argv:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
warnings.simplefilter("ignore")
import approvals_bot
for module in pkgutil.walk_packages(approvals_bot.__path__, "approvals_bot."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ImportError:
            print(module.name.removeprefix("approvals_bot."))
"""


def of_extras() -> set[str]:
    """Return what the packages of the extras are imported as."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.match(r"[\w.-]+", each)[0].lower().replace("_", "-") for each in requirements}  # type: ignore[index]

    plain = names(project["dependencies"])
    extra = set[str]().union(*map(names, project["optional-dependencies"].values())) - plain
    found = {
        module
        for module, packages in packages_distributions().items()
        if module.isidentifier() and any(each.lower().replace("_", "-") in extra for each in packages)
    }
    return found - {"opentelemetry"} | {"opentelemetry.sdk", "opentelemetry.exporter"}  # its API comes with us


def test_a_plain_install_imports_all_that_needs_no_extra() -> None:
    hidden = of_extras()
    assert hidden >= {"asyncpg", "cryptography", "joserfc", "scim2_server", "mcp", "pydantic_ai", "agents"}
    command = [sys.executable, "-c", IMPORT_ALL, *sorted(hidden)]
    failed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=110).stdout.split()
    assert set(failed) == NEED_AN_EXTRA
