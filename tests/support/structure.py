"""What growth must not break in the package, read from its source: `python -m structure` lists what is found.

Each rule is a function from a package to findings; `RULES` names them all. Nothing is imported or run, so a rule sees
late imports and unreachable code like any other. There is no list of exemptions: a finding is mended where it is. What
only looks like a twin says why right above it: `# No twin of Card: …`, or `# Copied: …` above a constructor's call.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, takewhile
from pathlib import Path

LONGEST_MODULE = 600  # lines
TWIN_FIELDS = 4
TWIN_SHARE = 0.6  # of the fields of the smaller class
COPIED_FIELDS = 4
SENTENCE_WORDS = 3
SENTENCE_ROOMS = ("text", "card_text")  # modules of `approvals` that word what people read

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Finding:
    """One place that breaks a rule."""

    place: str  # module:line
    what: str

    @property
    def room(self) -> str:
        parts = self.place.partition(":")[0].split(".")
        return ".".join(parts[1:3] if parts[1:2] in (["channels"], ["durable"]) else parts[1:2]) or parts[0]

    def __str__(self) -> str:
        return f"{self.place}  {self.what}"


# --- reading a package ---


@dataclass(frozen=True)
class Module:
    """One file, parsed."""

    name: str
    is_package: bool
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    def remark(self, node: ast.stmt | ast.expr, beginning: str) -> str:
        """What a comment right above the node says after this beginning; "" if there is none."""
        decorators = node.decorator_list if isinstance(node, ast.ClassDef) else []
        first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        lines = self.text.splitlines()[: first - 1]
        above = [line.strip() for line in takewhile(lambda line: line.strip().startswith("#"), reversed(lines))]
        text = " ".join(line.removeprefix("#").strip() for line in reversed(above))
        return text.partition(beginning)[2].strip()

    def at(self, node: ast.AST) -> str:
        return f"{self.name}:{getattr(node, 'lineno', 1)}"

    def absolute(self, node: ast.ImportFrom) -> str:
        """The full name of the module that a `from … import` names."""
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        base = parts[: len(parts) - node.level + self.is_package]
        return ".".join([*base, *([node.module] if node.module else [])])


@dataclass(frozen=True)
class Import:
    """One import of another module of the package."""

    of: str
    to: str
    line: int
    for_types: bool  # under TYPE_CHECKING: nothing is imported when the program runs


@dataclass(frozen=True)
class ClassFields:
    """A class with the fields it declares: of a dataclass, a named tuple, a model, a typed dict or a protocol."""

    name: str
    module: str
    line: int
    own: tuple[str, ...]
    bases: tuple[str, ...]  # full names of those within the package
    no_twin: str  # which class it is none of, and why

    @property
    def full_name(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Package:
    """All modules of a package."""

    name: str
    modules: Mapping[str, Module] = field(default_factory=dict)

    @cached_property
    def imports(self) -> list[Import]:
        return [found for module in self.modules.values() for found in self._imports_of(module)]

    def _imports_of(self, module: Module) -> Iterator[Import]:
        typed = {id(node) for guard in module.nodes if _is_type_checking(guard) for node in _body_nodes(guard)}
        for node in module.nodes:
            match node:
                case ast.ImportFrom():
                    source = module.absolute(node)
                    names = {f"{source}.{alias.name}" for alias in node.names}
                    targets = {name if name in self.modules else source for name in names}
                case ast.Import():
                    targets = {alias.name for alias in node.names}
                case _:
                    continue
            for target in sorted(targets & self.modules.keys()):
                yield Import(module.name, target, node.lineno, id(node) in typed)

    @cached_property
    def names(self) -> dict[str, dict[str, str]]:
        """For each module, what its global names mean: their full name, followed through imports."""
        return {module.name: self._names_of(module) for module in self.modules.values()}

    def _names_of(self, module: Module) -> dict[str, str]:
        found: dict[str, str] = {}
        for node in module.nodes:
            match node:
                case ast.ImportFrom():
                    source = module.absolute(node)
                    found |= {alias.asname or alias.name: f"{source}.{alias.name}" for alias in node.names}
                case ast.Import():
                    found |= {alias.asname: alias.name for alias in node.names if alias.asname}
        for node in module.tree.body:
            for name in _defined(node):
                found[name] = f"{module.name}.{name}"
        return found

    def resolve(self, module: str, node: ast.expr | None) -> str:
        """The full name that an expression like `port.Card` stands for; "" if it is none."""
        match node:
            case ast.Name(id=name):
                full = self.names[module].get(name, "")
            case ast.Attribute(value=inner, attr=attr):
                base = self.resolve(module, inner)
                full = f"{base}.{attr}" if base else ""
            case ast.Subscript(value=inner):
                return self.resolve(module, inner)
            case _:
                return ""
        return self._origin(full)

    def _origin(self, full: str) -> str:
        """Where a name that a package's `__init__` passes on comes from."""
        for _ in range(5):
            holder, _, name = full.rpartition(".")
            passed_on = self.names.get(holder, {}).get(name, full)
            if passed_on == full:
                break
            full = passed_on
        return full

    @cached_property
    def constants(self) -> dict[str, ast.expr]:
        """What each module-level name is set to, by full name."""
        found: dict[str, ast.expr] = {}
        for module in self.modules.values():
            for node in module.tree.body:
                match node:
                    case ast.Assign(targets=[ast.Name(id=name)], value=value):
                        found[f"{module.name}.{name}"] = value
                    case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                        found[f"{module.name}.{name}"] = value
        return found

    @cached_property
    def classes(self) -> dict[str, ClassFields]:
        """Every class by full name, nested ones as well."""
        found = {}
        for module in self.modules.values():
            for node in module.nodes:
                if isinstance(node, ast.ClassDef):
                    bases = tuple(filter(None, (self.resolve(module.name, base) for base in node.bases)))
                    no_twin = module.remark(node, "No twin of ")
                    one = ClassFields(node.name, module.name, node.lineno, tuple(_fields(node)), bases, no_twin)
                    found[one.full_name] = one
        return found

    def fields_of(self, name: str) -> dict[str, str]:
        """Field → class that declares it first, inherited ones before own ones, as a constructor takes them."""
        one = self.classes.get(name)
        if one is None:
            return {}
        inherited = {key: value for base in one.bases for key, value in self.fields_of(base).items()}
        return inherited | dict.fromkeys((own for own in one.own if own not in inherited), name)


def read_package(folder: Path) -> Package:
    """Read every Python file of a package's folder."""
    modules = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = Module(name, is_package, path.read_text("utf-8"))
    return Package(folder.name, modules)


def _is_type_checking(node: ast.AST) -> bool:
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
            return True
    return False


def _body_nodes(guard: ast.AST) -> Iterator[ast.AST]:
    assert isinstance(guard, ast.If)
    for statement in guard.body:
        yield from ast.walk(statement)


def _defined(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case ast.Assign(targets=targets):
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name


def _fields(node: ast.ClassDef) -> Iterator[str]:
    """Annotated names of the class body that each object has for itself; a tag with one possible value says nothing."""
    for statement in node.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                if not re.match(r"ClassVar\b|Literal\[[^,]*\]$", ast.unparse(annotation)) and name != "model_config":
                    yield name


# --- the rules ---


def import_circles(package: Package) -> Iterator[Finding]:
    """No modules import each other in a circle; an import inside a function counts like one at the top."""
    yield from _circles(package, [one for one in package.imports if not one.for_types])


def type_circles(package: Package) -> Iterator[Finding]:
    """Nor do types: a circle through `if TYPE_CHECKING:` is one that a reader walks."""
    known = {finding.what for finding in import_circles(package)}
    yield from (finding for finding in _circles(package, package.imports) if finding.what not in known)


def root_imports(package: Package) -> Iterator[Finding]:
    """Nothing inside imports the package root, which is for workflow authors and costs them all they don't use."""
    for one in package.imports:
        if one.to == package.name and one.of not in (package.name, f"{package.name}.__main__"):
            yield Finding(f"{one.of}:{one.line}", "imports the package root")


def class_names(package: Package) -> Iterator[Finding]:
    """One class name, one meaning."""
    named = defaultdict(list)
    for one in package.classes.values():
        named[one.name].append(one)
    for name, meanings in named.items():
        if len(meanings) > 1:
            others = ", ".join(f"{one.module}:{one.line}" for one in meanings[1:])
            yield Finding(f"{meanings[0].module}:{meanings[0].line}", f"{name} is also a class of {others}")


def twin_classes(package: Package) -> Iterator[Finding]:
    """No two classes share four fields and 60 % of the smaller one's. Fields that both inherit from one class are no
    twins, whatever each says of them, and a class without fields of its own is judged by the one it has them from."""
    fields = {name: package.fields_of(name) for name, one in package.classes.items() if one.own}
    large = [name for name, of in fields.items() if len(of) >= TWIN_FIELDS]
    for one, other in combinations(large, 2):
        mine, theirs = fields[one], fields[other]
        shared = [name for name in mine if name in theirs and mine[name] != theirs[name]]
        if len(shared) >= TWIN_FIELDS and len(shared) >= TWIN_SHARE * min(len(mine), len(theirs)):
            place, twin = package.classes[one], package.classes[other]
            if _says_why(place, twin) or _says_why(twin, place):
                continue
            what = f"{place.name} and {twin.name} ({twin.module}:{twin.line}) share {', '.join(shared)}"
            yield Finding(f"{place.module}:{place.line}", what)


def copied_fields(package: Package) -> Iterator[Finding]:
    """No constructor call copies four fields from one object: `Card(title=it.title, …)`, or in order without names."""
    for module in package.modules.values():
        for node in module.nodes:
            if not isinstance(node, ast.Call) or not _is_constructor(node.func) or _is_remarked(module, node):
                continue
            order = list(package.fields_of(package.resolve(module.name, node.func)))
            given = [(order[n] if n < len(order) else None, value) for n, value in enumerate(node.args)]
            given += [(keyword.arg, keyword.value) for keyword in node.keywords if keyword.arg]
            copied = Counter(source for name, value in given if (source := _copied_from(name, value)))
            for source, count in copied.items():
                if count >= COPIED_FIELDS:
                    yield Finding(module.at(node), f"{ast.unparse(node.func)}(…) copies {count} fields of {source}")


def compared_sentences(package: Package) -> Iterator[Finding]:
    """No code compares, searches or splits an English sentence: neither a literal of three words or more, nor what a
    module of sentences defines."""
    for module in package.modules.values():
        for node in module.nodes:
            for operand in _compared(node):
                if said := _sentence(package, module, operand):
                    yield Finding(module.at(node), f"compares {said!r}")


def long_modules(package: Package) -> Iterator[Finding]:
    """No module is longer than 600 lines."""
    for module in package.modules.values():
        lines = module.text.count("\n")
        if lines > LONGEST_MODULE:
            yield Finding(module.name, f"{lines} lines")


RULES: dict[str, Callable[[Package], Iterator[Finding]]] = {
    rule.__name__: rule
    for rule in (
        import_circles,
        type_circles,
        root_imports,
        class_names,
        twin_classes,
        copied_fields,
        compared_sentences,
        long_modules,
    )
}


def _circles(package: Package, imports: Iterable[Import]) -> Iterator[Finding]:
    """The strongly connected parts of the import graph that have more than one module, by Tarjan's algorithm."""
    graph: dict[str, list[str]] = {name: [] for name in package.modules}
    for one in imports:
        graph[one.of].append(one.to)
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []

    def visit(name: str) -> Iterator[list[str]]:
        index[name] = lowest[name] = len(index)
        path.append(name)
        for target in graph[name]:
            if target not in index:
                yield from visit(target)
            if target in path:
                lowest[name] = min(lowest[name], lowest[target])
        if lowest[name] == index[name]:
            cut = path.index(name)
            circle = sorted(path[cut:])
            del path[cut:]
            if len(circle) > 1:
                yield circle

    for name in graph:
        if name not in index:
            yield from (Finding(circle[0], "circle: " + " · ".join(circle)) for circle in visit(name))


LEAST_REASON = 5  # words


def _says_why(one: ClassFields, other: ClassFields) -> bool:
    names, _, reason = one.no_twin.partition(":")
    return other.name in re.split(r", | or ", names) and len(reason.split()) >= LEAST_REASON


def _is_remarked(module: Module, call: ast.Call) -> bool:
    """Whether the statement of this call says why it copies."""
    around = (n for n in module.nodes if isinstance(n, ast.stmt) and n.lineno <= call.lineno <= (n.end_lineno or 0))
    statement = max(around, key=lambda n: n.lineno, default=None)  # None in a decorator, which is above its function
    return statement is not None and len(module.remark(statement, "Copied:").split()) >= LEAST_REASON


def _is_constructor(function: ast.expr) -> bool:
    """By the spelling: a class is written with a capital."""
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return (name.lstrip("_")[:1].isupper() and not name.isupper()) or name == "cls"


def _copied_from(name: str | None, value: ast.expr) -> str | None:
    """The object that `value` takes the field of this name from. Without a name, any field will do."""
    match value:
        case ast.Attribute(value=source, attr=attr) if name in (None, attr) and not attr.startswith("__"):
            return ast.unparse(source)
    return None


SEARCHES = frozenset(
    {"startswith", "endswith", "removeprefix", "removesuffix", "find", "rfind", "index", "rindex", "count", "replace"}
    | {"split", "rsplit", "partition", "rpartition"}
    | {"compile", "fullmatch", "match", "search", "finditer", "findall", "sub"}  # of `re`
)


def _compared(node: ast.AST) -> Iterator[ast.expr]:
    """What a comparison, a search in a text or a `case` looks at."""
    match node:
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            if any(isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for op in ops):
                yield from (left, *comparators)
        case ast.Call(func=ast.Attribute(value=receiver, attr=attr), args=args) if attr in SEARCHES:
            yield from (receiver, *args)
        case ast.MatchValue(value=value):
            yield value


def _sentence(package: Package, module: Module, operand: ast.expr, depth: int = 3) -> str:
    """The sentence that an operand is; "" if it is none."""
    match operand:
        case ast.Constant(value=str(text)):
            return text if _reads_as_a_sentence(text) else ""
        case ast.JoinedStr(values=parts):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
            return text if _reads_as_a_sentence(text) else ""
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            return next(filter(None, (_sentence(package, module, part, depth) for part in parts)), "")
        case ast.Call(func=ast.Name() | ast.Attribute() as function):
            full = package.resolve(module.name, function)
            return full if _is_of_a_sentence_room(package, module, full) else ""
        case ast.Name() | ast.Attribute():
            full = package.resolve(module.name, operand)
            if _is_of_a_sentence_room(package, module, full):
                return full
            value = package.constants.get(full)
            holder = package.modules.get(full.rpartition(".")[0])
            return _sentence(package, holder, value, depth - 1) if value and holder and depth else ""
    return ""


def _reads_as_a_sentence(text: str) -> bool:
    """Three words or more, in a row and mostly small letters: neither SQL, nor a header, nor a pattern."""
    words = rf"(?:(?:\b[A-Za-z][a-z'’]*|…)[,.:;]? ){{{SENTENCE_WORDS - 1}}}(?:[a-z'’]+\b|…)"
    return bool(re.search(words, text))


def _is_of_a_sentence_room(package: Package, module: Module, full: str) -> bool:
    holder = full.rpartition(".")[0]
    return holder != module.name and holder in {f"{package.name}.approvals.{room}" for room in SENTENCE_ROOMS}


# --- the floors, which import-linter checks, are themselves without exemptions ---


def floors(pyproject: str) -> Iterator[Finding]:
    """The contracts in `pyproject.toml` cover every room and ignore no import."""
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    whole = [one for one in contracts if one["type"] == "layers" and one.get("exhaustive")]
    if not whole:
        yield Finding("pyproject", "no layers contract is exhaustive")
    for one in contracts:
        for key in ("ignore_imports", "exhaustive_ignores"):
            for ignored in one.get(key, []):
                yield Finding("pyproject", f"{key} of {one['name']!r}: {ignored}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="structure", description="List what breaks the house rules.")
    parser.add_argument("rules", nargs="*", choices=[[], *RULES], help="only these")
    given = parser.parse_args()
    package = read_package(ROOT / "approvals_bot")
    findings = {name: list(RULES[name](package)) for name in given.rules or RULES}
    if not given.rules:
        findings["floors"] = list(floors((ROOT / "pyproject.toml").read_text("utf-8")))
    for name, found in findings.items():
        rooms = Counter(one.room for one in found)
        print(f"{name}: {len(found)}", *(f"{room} {count}" for room, count in rooms.most_common()), sep="  ")
        for one in found:
            print(f"    {one}")
    return int(any(findings.values()))


if __name__ == "__main__":
    sys.exit(main())
