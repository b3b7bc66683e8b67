"""Walks what a workflow executes: its body, and the functions and classes of the same file that it plainly uses."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from approvals_bot.durable.lint import rules
from approvals_bot.durable.lint.names import Function, Scope, scope_of
from approvals_bot.durable.lint.rules import Rule, rule_for
from approvals_bot.durable.lint.sets import Sets

Found = tuple[ast.expr | ast.stmt, str, str]
"""Where, the rule's code, and what to say."""

_RUN_BY_MAKING = ("__init__", "__post_init__", "model_post_init", "__new__")
_MADE_AT_IMPORT = (rules.CLOCK, rules.RANDOM, rules.IDENTIFIERS)


class Bodies:
    """The workflows of one file."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._module = scope_of(tree, None)
        self._found: list[Found] = []
        self._seen: set[ast.AST] = set()
        self._homes: dict[ast.AST, tuple[Scope, ast.ClassDef | None]] = {}
        self._workflow = ""

    def findings(self) -> Iterator[Found]:
        self._settle(self._tree, self._module, None)
        for node, (scope, _) in list(self._homes.items()):
            if isinstance(node, Function) and self._is_decorated(node, scope, "workflow"):
                self._begin(node)
        for call in ast.walk(self._tree):  # workflow(name=…)(function)
            if isinstance(call, ast.Call) and self._is_ours(call.func, self._module, "workflow"):
                for given in call.args:
                    function = self._module.resolve(given)
                    if isinstance(function, Function):
                        self._begin(function)
        yield from self._found

    def _begin(self, function: Function) -> None:
        self._workflow = function.name
        self._enter(function)

    # ── which function is which ──

    def _settle(self, node: ast.AST, scope: Scope, owner: ast.ClassDef | None) -> None:
        """Note the scope in which each function is defined."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                self._homes[child] = (scope, owner)
                self._settle(child, scope_of(child, scope, owner), None)
            elif isinstance(child, ast.ClassDef):
                self._settle(child, scope, child)
            else:
                self._settle(child, scope, owner if isinstance(node, ast.ClassDef) else None)

    def _is_decorated(self, function: Function, scope: Scope, word: str) -> bool:
        return any(self._is_ours(each, scope, word) for each in function.decorator_list)

    def _is_ours(self, node: ast.expr, scope: Scope, word: str) -> bool:
        name = scope.resolve(node.func if isinstance(node, ast.Call) else node)
        return isinstance(name, str) and name.startswith("approvals_bot.") and name.endswith(f".{word}")

    # ── walking ──

    def _enter(self, function: Function) -> None:
        scope, owner = self._homes[function]
        if function in self._seen or self._is_decorated(function, scope, "step"):
            return
        self._seen.add(function)
        inside = scope_of(function, scope, owner)
        for statement in function.body:
            self._walk(statement, inside, function)

    def _walk(self, node: ast.AST, scope: Scope, around: ast.AST | None) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._homes[node] = (scope, None)
                self._enter(node)
                for default in (*node.args.defaults, *(each for each in node.args.kw_defaults if each)):
                    self._walk(default, scope, node)
                return
            case ast.Lambda():
                self._walk(node.body, scope_of(node, scope), node)
                return
            case ast.AnnAssign(value=value):
                if value is not None:
                    self._walk(value, scope, node)
                return
            case ast.Name(ctx=ast.Load()) | ast.Attribute(ctx=ast.Load()):
                if self._look_up(node, scope, around):
                    return
            case _:
                pass
        for walked in Sets(scope).walked(node, around):
            self._say(walked, rules.ORDER, f"`{ast.unparse(walked)}`")
        for child in ast.iter_child_nodes(node):
            self._walk(child, scope, node)

    def _look_up(self, node: ast.Name | ast.Attribute, scope: Scope, around: ast.AST | None) -> bool:
        """Follow a mention. True: there is nothing more to see in it."""
        called = isinstance(around, ast.Call) and around.func is node
        meaning = scope.resolve(node)
        if isinstance(meaning, str):
            bare = called and isinstance(around, ast.Call) and not (around.args or around.keywords)
            rule = rule_for(meaning, called=called, bare=bare)
            if rule is not None:
                self._say(node, rule, f"{meaning}()" if called else meaning)
            return rule is not None
        if isinstance(meaning, Function):
            if meaning in self._homes:
                self._enter(meaning)
        elif isinstance(meaning, ast.ClassDef) and called and isinstance(node, ast.Name):
            self._make(meaning, scope)
        elif isinstance(node, ast.Name):
            self._was_made_at_import(node, scope)
        return False

    def _make(self, kind: ast.ClassDef, scope: Scope) -> None:
        """An instance is made: its `__init__` runs, and the factories of its fields."""
        if kind in self._seen:
            return
        self._seen.add(kind)
        for each in kind.body:
            if isinstance(each, Function) and each.name in _RUN_BY_MAKING:
                self._enter(each)
            elif isinstance(each, ast.AnnAssign | ast.Assign) and isinstance(each.value, ast.Call):
                for keyword in each.value.keywords:
                    if keyword.arg == "default_factory":
                        self._walk(_called(keyword.value), self._module, None)

    def _was_made_at_import(self, node: ast.Name, scope: Scope) -> None:
        """`STARTED = time.time()` at the top of the file is another value in another process."""
        found = scope.find(node.id)
        if found is None or found[0] is not self._module:
            return
        for value in found[1]:
            for each in ast.walk(value) if isinstance(value, ast.expr) else ():
                name = self._module.resolve(each.func) if isinstance(each, ast.Call) else None
                if isinstance(each, ast.Call) and isinstance(name, str):
                    rule = rule_for(name, called=True, bare=not (each.args or each.keywords))
                    if rule in _MADE_AT_IMPORT and rule is not None:
                        self._say(node, rule, f"{node.id}, made by {name}() at import,")

    def _say(self, node: ast.expr | ast.stmt, rule: Rule, what: str) -> None:
        self._found.append((node, rule.code, f"{rule.message(what)} (in workflow {self._workflow})"))


def _called(factory: ast.expr) -> ast.expr:
    """The call that a factory will be."""
    if isinstance(factory, ast.Lambda):
        return factory
    return ast.copy_location(ast.Call(factory, [], []), factory)
