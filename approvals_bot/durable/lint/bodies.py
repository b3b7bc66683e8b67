"""The walk through what a workflow executes: its body, and the functions and classes of its file that it uses by name.

It has three parts: what a name in a source file means, which expressions are sets, and the walk itself.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from approvals_bot.durable.lint import rules
from approvals_bot.durable.lint.rules import MAKERS, Rule, rule_for

Function = ast.FunctionDef | ast.AsyncFunctionDef
Meaning = str | Function | ast.ClassDef | None
DEPTH = 20  # of names that are assigned to names


@dataclass(frozen=True, slots=True)
class Instance:
    """A parameter or variable, known by its annotation."""

    annotation: ast.expr


Binding = str | Function | ast.ClassDef | ast.expr | Instance | None


@dataclass(slots=True)
class Scope:
    """The names of a module or function, and everything that is bound to each."""

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
        """Return what an expression means: a full name, or a function or class of this file. None if unknown."""
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
    """Return the scope that a module or function opens. `owner` is the class if it is a method."""
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
            return  # its body has a scope of its own
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


_MAKE = {"builtins.set", "builtins.frozenset"}
_GIVE_SETS = {"union", "intersection", "difference", "symmetric_difference", "copy"}
_OPERATORS = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
_KINDS = {
    *_MAKE,
    "typing.Set",
    "typing.FrozenSet",
    "typing.AbstractSet",
    "collections.abc.Set",
    "collections.abc.MutableSet",
}
_DON_T_MIND = {f"builtins.{name}" for name in ("sorted", "sum", "len", "min", "max", "any", "all", "set", "frozenset")}
_GO_THROUGH = {f"builtins.{name}" for name in ("list", "tuple", "enumerate", "iter", "zip", "map", "filter", "dict")}
_METHODS_GO_THROUGH = {"join", "extend", "choice", "choices", "sample", "fromkeys"}


class Sets:
    """The finder of sets whose order matters, in one scope."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def walked(self, node: ast.AST, inside_of: ast.AST | None) -> Iterator[ast.expr]:
        """Yield the sets whose order shows in this node. `inside_of` is the node around it."""
        match node:
            case ast.For(iter=walked) | ast.AsyncFor(iter=walked):
                yield from self._if_set(walked)
            case ast.ListComp() | ast.GeneratorExp() | ast.DictComp() if not self._is_taken_as_a_whole(inside_of):
                for generator in node.generators:
                    yield from self._if_set(generator.iter)
            case ast.Starred(value=value, ctx=ast.Load()) if not isinstance(inside_of, ast.Set):
                yield from self._if_set(value)
            case ast.Call(func=ast.Attribute(value=value, attr="pop"), args=[]):
                yield from self._if_set(value)
            case ast.Call(func=func, args=args) if self._goes_through(func) and not self._is_taken_as_a_whole(
                inside_of
            ):
                for each in args:
                    yield from self._if_set(each)

    def _if_set(self, node: ast.expr) -> Iterator[ast.expr]:
        if self.is_set(node):
            yield node

    def _goes_through(self, func: ast.expr) -> bool:
        by_method = isinstance(func, ast.Attribute) and func.attr in _METHODS_GO_THROUGH
        return by_method or self._scope.resolve(func) in _GO_THROUGH

    def _is_taken_as_a_whole(self, around: ast.AST | None) -> bool:
        return isinstance(around, ast.Call) and self._scope.resolve(around.func) in _DON_T_MIND

    def is_set(self, node: ast.expr, depth: int = 0) -> bool:
        """Return whether this is clearly a set, of something other than numbers."""
        if depth > DEPTH:
            return False
        match node:
            case ast.Set(elts=elements):
                return not all(isinstance(e, ast.Constant) and isinstance(e.value, int | float) for e in elements)
            case ast.SetComp():
                return True
            case ast.Call(func=ast.Attribute(value=value, attr=name)) if name in _GIVE_SETS:
                return self.is_set(value, depth + 1)
            case ast.Call(func=func, args=args):
                of_numbers = bool(args) and isinstance(args[0], ast.Call) and _is_range(args[0])
                return self._scope.resolve(func) in _MAKE and not of_numbers
            case ast.BinOp(left=left, op=operator, right=right) if isinstance(operator, _OPERATORS):
                return any(self.is_set(each, depth + 1) or _is_view(each) for each in (left, right))
            case ast.IfExp(body=body, orelse=orelse):
                return self.is_set(body, depth + 1) or self.is_set(orelse, depth + 1)
            case ast.Name(id=name):
                found = self._scope.find(name)
                return found is not None and bool(found[1]) and all(self._is_bound_to_set(b, depth) for b in found[1])
        return False

    def _is_bound_to_set(self, binding: object, depth: int) -> bool:
        if isinstance(binding, Instance):
            match binding.annotation:
                case ast.Subscript(slice=ast.Name(id="int" | "float")):
                    return False
                case ast.Subscript(value=kind) | kind:
                    return self._scope.resolve(kind) in _KINDS
        return isinstance(binding, ast.expr) and self.is_set(binding, depth + 1)


def _is_range(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == "range"


def _is_view(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("keys", "items")


Found = tuple[ast.expr | ast.stmt, str, str]
"""A finding: the node, the rule's code, and the message."""

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
        """Record the scope in which each function is defined."""
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
        """Follow a mention of a name. Returns True if the node needs no further walk."""
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
        """Walk what making an instance runs: its `__init__`, and the factories of its fields."""
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
        """Find names like `STARTED = time.time()` at the top of the file: they differ in each process."""
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
    """Return the call that a factory makes."""
    if isinstance(factory, ast.Lambda):
        return factory
    return ast.copy_location(ast.Call(factory, [], []), factory)
