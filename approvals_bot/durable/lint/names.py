"""What a name in a source file means: a full dotted name of another module, or a function or class of this file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from approvals_bot.durable.lint.rules import MAKERS, rule_for

Function = ast.FunctionDef | ast.AsyncFunctionDef
Meaning = str | Function | ast.ClassDef | None
DEPTH = 20  # of names that stand for names


@dataclass(frozen=True, slots=True)
class Instance:
    """A parameter, by its annotation."""

    annotation: ast.expr


Binding = str | Function | ast.ClassDef | ast.expr | Instance | None


@dataclass(slots=True)
class Scope:
    """The names of a module or of a function, and everything that is ever bound to each."""

    parent: Scope | None
    bindings: dict[str, list[Binding]] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)

    def bind(self, name: str, value: Binding) -> None:
        self.bindings.setdefault(name, []).append(value)

    def find(self, name: str) -> tuple[Scope, list[Binding]] | None:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.bindings:
                return scope, scope.bindings[name]
            scope = scope.parent
        return None

    def resolve(self, node: ast.expr, depth: int = 0) -> Meaning:
        """None: anything."""
        if depth > DEPTH:
            return None
        match node:
            case ast.Name(id=name):
                return self._of_name(name, depth + 1)
            case ast.Attribute(value=value, attr=name):
                return _member(self.resolve(value, depth + 1), name)
            case ast.Call(func=func):
                made = self.resolve(func, depth + 1)
                return MAKERS.get(made) if isinstance(made, str) else made if isinstance(made, ast.ClassDef) else None
            case ast.BinOp(left=left, op=ast.Div()):
                made = self.resolve(left, depth + 1)
                return made if made == "pathlib.Path" else None
            case ast.Await(value=value) | ast.NamedExpr(value=value):
                return self.resolve(value, depth + 1)
        return None

    def _of_name(self, name: str, depth: int) -> Meaning:
        found = self.find(name)
        if found is None:
            return next(
                (f"{star}.{name}" for star in self._stars() if rule_for(f"{star}.{name}", called=True)), None
            ) or (f"builtins.{name}")
        scope, bindings = found
        for binding in bindings:
            if isinstance(binding, str | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                return binding
        match bindings:
            case [Instance(annotation)]:
                kind = scope.resolve(annotation, depth)
                return MAKERS.get(kind) if isinstance(kind, str) else kind if isinstance(kind, ast.ClassDef) else None
            case [ast.expr() as value]:
                return scope.resolve(value, depth)
        return None

    def _stars(self) -> Iterator[str]:
        scope: Scope | None = self
        while scope is not None:
            yield from scope.stars
            scope = scope.parent


def _member(owner: Meaning, name: str) -> Meaning:
    if isinstance(owner, str):
        return f"{owner}.{name}"
    if isinstance(owner, ast.ClassDef):
        return next((each for each in owner.body if isinstance(each, Function) and each.name == name), None)
    return None


def scope_of(
    node: ast.Module | Function | ast.Lambda, parent: Scope | None, owner: ast.ClassDef | None = None
) -> Scope:
    """The scope that a module or function opens. `owner`: the class whose method it is."""
    scope = Scope(parent)
    if not isinstance(node, ast.Module):
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for position, each in enumerate(given):
            if position == 0 and owner is not None:
                scope.bind(each.arg, owner)
            else:
                scope.bind(each.arg, None if each.annotation is None else Instance(each.annotation))
        for rest in (node.args.vararg, node.args.kwarg):
            if rest is not None:
                scope.bind(rest.arg, None)
    for each_node in [node.body] if isinstance(node, ast.Lambda) else node.body:
        _bind(each_node, scope)
    return scope


def _bind(node: ast.AST, scope: Scope) -> None:
    match node:
        case ast.Import(names=names):
            for each in names:
                scope.bind(
                    each.asname or each.name.partition(".")[0],
                    each.name if each.asname else each.name.partition(".")[0],
                )
        case ast.ImportFrom(names=names, module=module):
            for each in names:
                if each.name == "*":
                    scope.stars.append(module or "")
                else:
                    scope.bind(each.asname or each.name, f"{module or ''}.{each.name}")
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            scope.bind(name, node)
            return  # what is inside has a scope of its own
        case ast.Lambda():
            return
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            scope.bind(name, value)
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
            scope.bind(name, Instance(annotation) if value is None else value)
        case ast.NamedExpr(target=ast.Name(id=name), value=value):
            scope.bind(name, value)
        case ast.withitem(context_expr=value, optional_vars=ast.Name(id=name)):
            scope.bind(name, value)
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            scope.bind(name, None)
        case ast.Name(id=name, ctx=ast.Store()) if name not in scope.bindings:
            scope.bind(name, None)
    for child in ast.iter_child_nodes(node):
        _bind(child, scope)
