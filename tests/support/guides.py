"""The examples of the authors' pages in docs/, as values and as modules that notice which of their functions ran."""

from __future__ import annotations

import ast
import re
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from approvals_bot.durable.core.registry import registry
from approvals_bot.durable.core.steps import check_limits_of

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("workflows.md", "runs.md", "agents.md", "from-temporal.md", "from-dbos.md", "from-workflow-sdk.md")
"""The pages whose every example is run."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?<=\n\n)(?: {4}\S.*\n)+", re.MULTILINE)
ENTERED = "_entered"


@dataclass(frozen=True)
class Example:
    """A block of code on a page. `number` counts the page's Python blocks, and names their modules."""

    page: str
    number: int
    line: int
    language: str
    text: str

    @property
    def module(self) -> str:
        return f"guide_{self.page.removesuffix('.md').replace('-', '_')}_{self.number}"

    @property
    def place(self) -> str:
        return f"docs/{self.page}:{self.line}"


def examples(*pages: str) -> list[Example]:
    """Return the examples of these pages, fenced or indented, in the order in which they are printed."""
    return [example for page in pages for example in _examples_of(page)]


def _examples_of(page: str) -> Iterator[Example]:
    text = (DOCS / page).read_text()
    fenced = [(found.start(), found[1], found[2]) for found in _FENCE.finditer(text)]
    outside = _FENCE.sub(lambda fence: re.sub(r"[^\n]", ".", fence[0]), text)
    indented = [(found.start(), "", found[0]) for found in _INDENTED.finditer(outside)]
    numbers = 0
    for start, language, code in sorted(fenced + indented):
        yield Example(page, numbers, text.count("\n", 0, start) + 1, language, code)
        numbers += language == "python"


def example_with(mark: str) -> Example:
    """Return the only example that has this text."""
    found = [example for example in examples(*PAGES) if mark in example.text]
    assert len(found) == 1, f"{mark!r} is in {len(found)} examples"
    return found[0]


@contextmanager
def loaded(example: Example) -> Iterator[types.ModuleType]:
    """Load a Python example as a module, as a reader would paste it into a file."""
    module = types.ModuleType(example.module)
    sys.modules[module.__name__] = module
    entered: set[str] = set()
    module.__dict__[ENTERED] = entered.add
    tree = ast.fix_missing_locations(_Noticing().visit(ast.parse(example.text)))
    try:
        exec(compile(tree, f"{example.place} ({example.module})", "exec"), module.__dict__)  # noqa: S102  # our docs
        module.__dict__["functions_entered"] = entered
        yield module
    finally:
        del sys.modules[module.__name__]
        check_limits_of(module.__name__, None)  # an engine without these limits would be refused otherwise
        for key, workflow in list(registry._kept.items()):
            if workflow.origin.startswith(f"{module.__name__}:"):
                del registry._kept[key]


def functions_not_entered(example: Example, module: types.ModuleType) -> set[str]:
    """Return the names of the example's functions that nothing has called since it was loaded."""
    functions = {
        n.name for n in ast.walk(ast.parse(example.text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    entered: set[str] = module.__dict__["functions_entered"]
    return functions - entered


class _Noticing(ast.NodeTransformer):
    """Lets each function say that it was entered. Lines stay what they are."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        return self._noticing(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> Any:
        return self._noticing(node)

    def _noticing(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Any:
        self.generic_visit(node)
        call = ast.Expr(ast.Call(ast.Name(ENTERED, ast.Load()), [ast.Constant(node.name)], []))
        has_docstring = ast.get_docstring(node, clean=False) is not None
        node.body.insert(1 if has_docstring else 0, ast.copy_location(call, node.body[0]))
        return node
