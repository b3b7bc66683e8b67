"""Sets, whose order is that of their members' hashes: another one in every process, for texts and objects."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from approvals_bot.durable.lint.names import DEPTH, Instance, Scope

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
    """Looks at the nodes of one scope."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def walked(self, node: ast.AST, inside_of: ast.AST | None) -> Iterator[ast.expr]:
        """The sets whose order this node shows. `inside_of`: the node around it."""
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
        """Whether this is plainly a set, of something other than numbers."""
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
