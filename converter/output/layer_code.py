"""One file of ``mlxport.layers`` as it travels with a model: without what the model cannot reach.

Reached is, from the names that are wanted, every top-level statement that binds a name which a
reached one mentions anywhere, whatever it may stand for there: too much at times, never too little.
The layers look nothing up by a computed name (a test holds them to it).
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

PACKAGE = "mlxport.layers"
_WIDTH = 100
_DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)


@dataclass(frozen=True)
class _Statement:
    """A top-level statement.

    Attributes:
        node: what it is.
        lines: its text, with the comments above it.
        gap: how many blank lines are above it.
        binds: the names it gives a meaning.
        mentions: the names in it, and what quoted annotations name.
    """

    node: ast.stmt
    lines: tuple[str, ...]
    gap: int
    binds: frozenset[str]
    mentions: frozenset[str]

    def acts_on(self) -> frozenset[str]:
        """What it may change besides what it binds, as a decorator does that registers."""
        if isinstance(self.node, _DEFINITIONS):
            return frozenset().union(*map(_mentions, self.node.decorator_list))
        binding = isinstance(self.node, ast.Assign | ast.AnnAssign) and self.binds
        return frozenset() if binding else self.mentions


@dataclass(frozen=True)
class LayerCode:
    """A file of ``mlxport.layers``, parsed.

    Attributes:
        family: the folder it is in.
        docstring: its lines.
        statements: of it, but for imports.
        imports: in order, each with the lines of comments above it.
        sources: name that an import binds -> the file of ``mlxport.layers`` and the name there.
    """

    family: str
    docstring: tuple[str, ...]
    statements: tuple[_Statement, ...]
    imports: tuple[_Statement, ...]
    sources: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, family: str, text: str) -> LayerCode:
        """Parse the text of a file.

        Args:
            family: the folder it is in.
            text: of the file.
        """
        found = list(_statements(text))
        first = found[0].node
        documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
        docstring = found.pop(0).lines if documented else ()
        imports = tuple(s for s in found if isinstance(s.node, _IMPORTS))
        rest = tuple(s for s in found if not isinstance(s.node, _IMPORTS))
        return cls(family, docstring, rest, imports, dict(_sources(s.node for s in imports)))

    def reached(self, names: Iterable[str]) -> list[_Statement]:
        """Return the statements that some names need, in order."""
        wanted, kept = set(names), set[int]()
        ours = {*self.sources}.union(*(statement.binds for statement in self.statements))
        while True:
            new = {
                number
                for number, statement in enumerate(self.statements)
                if number not in kept and (statement.binds | statement.acts_on()) & ours & wanted
            }
            if not new:
                return [self.statements[number] for number in sorted(kept)]
            kept |= new
            wanted = wanted.union(*(self.statements[n].mentions for n in new))

    def names(self) -> set[str]:
        """Return all names it gives a meaning, but for those it imports."""
        return set().union(*(statement.binds for statement in self.statements))

    def needs(self, names: Iterable[str]) -> dict[str, set[str]]:
        """Return file of ``mlxport.layers`` -> the names of it that some names of this one need."""
        needed: dict[str, set[str]] = {}
        for name in self._mentioned(names) & {*self.sources}:
            file, there = self.sources[name]
            needed.setdefault(file, set()).add(there)
        return needed

    def text(self, names: Iterable[str]) -> str:
        """Return the file with what some names need of it, importing from the files beside it."""
        lines = [*self.docstring, *([""] if self.docstring else [])]
        groups = self._import_lines(self._mentioned(names))
        for group in groups:
            lines += [*group, ""]
        while lines and not lines[-1]:
            lines.pop()
        lines += self._definitions(names, self.imports[0].node if groups else None)
        return "\n".join(lines).rstrip("\n") + "\n"

    def definitions(self, names: Iterable[str]) -> str:
        """Return what some names need of the file, without its docstring and imports."""
        return "\n".join(self._definitions(names, None)).strip("\n")

    def outside(self, names: Iterable[str]) -> Iterator[ast.Import | ast.ImportFrom]:
        """Yield what some names need of other packages, as imports of those names alone."""
        mentioned = self._mentioned(names)
        for statement in self.imports:
            node = statement.node
            assert isinstance(node, _IMPORTS)
            aliases = [a for a in node.names if _bound(node, a) in mentioned]
            if isinstance(node, ast.Import):
                yield from (ast.Import([alias]) for alias in aliases)
            elif aliases and not (node.module or "").startswith(f"{PACKAGE}."):
                yield ast.ImportFrom(node.module, aliases, 0)

    def bound(self, names: Iterable[str]) -> set[str]:
        """Return the names that what some names need gives a meaning."""
        return set().union(*(statement.binds for statement in self.reached(names)))

    def _definitions(self, names: Iterable[str], before: ast.stmt | None) -> Iterator[str]:
        for statement in self.reached(names):
            yield from [""] * _blank_lines(before, statement)
            yield from statement.lines
            before = statement.node

    def _mentioned(self, names: Iterable[str]) -> set[str]:
        return {*names}.union(*(statement.mentions for statement in self.reached(names)))

    def _import_lines(self, mentioned: set[str]) -> list[list[str]]:
        """Return the lines of the imports by group, as isort has them."""
        groups: dict[int, list[tuple[int, str, list[str]]]] = {}
        for statement in self.imports:
            node = statement.node
            assert isinstance(node, _IMPORTS)
            names = [a for a in node.names if _bound(node, a) in mentioned]
            if names:
                group, level, head = self._head(node)
                comments = [line for line in statement.lines if line.startswith("#")]
                lines = [*comments, *_import_line(head, names)]
                groups.setdefault(group, []).append((level, head if group == 2 else "", lines))
        return [
            [line for _, _, lines in sorted(groups[g], key=lambda e: e[:2]) for line in lines]
            for g in sorted(groups)
        ]

    def _head(self, node: ast.Import | ast.ImportFrom) -> tuple[int, int, str]:
        """Return the group of an import, its place in it and what is before the names."""
        if isinstance(node, ast.Import):
            return _group(node.names[0].name), 0, "import "
        module = node.module or ""
        if not module.startswith(f"{PACKAGE}."):
            return _group(module), 0, f"from {module} import "
        family, _, file = module.removeprefix(f"{PACKAGE}.").partition(".")
        near = family == self.family
        return 2, int(near), f"from .{file} import " if near else f"from ..{family}.{file} import "


def _statements(text: str) -> Iterator[_Statement]:
    lines = text.splitlines()
    end = 0
    for node in ast.parse(text).body:
        decorators = getattr(node, "decorator_list", [])
        start = min([node.lineno, *(d.lineno for d in decorators)]) - 1
        above = lines[end:start]
        comments = [line for line in above if line.strip()]
        gap = len(above) - len(comments)
        end = node.end_lineno or node.lineno
        body = lines[start:end]
        names = frozenset(_binds(node))
        yield _Statement(node, (*comments, *body), gap, names, frozenset(_mentions(node)))


def _binds(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, _DEFINITIONS):
        yield node.name
    elif isinstance(node, _IMPORTS):
        yield from (_bound(node, alias) for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if all(isinstance(t, ast.Name | ast.Tuple) for t in targets):
            yield from (n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))


def _mentions(node: ast.AST) -> frozenset[str]:
    """Return the names in a node, and every word of its texts: annotations may be quoted."""
    found = {*_names(node)}
    for annotation in _annotations(node):
        for text in ast.walk(annotation):
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                found |= {*re.findall(r"[^\W\d]\w*", text.value)}
    return frozenset(found)


def _names(node: ast.AST) -> Iterator[str]:
    """Yield the names in a node, but for those that parameters stand for in a function's body."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        parameters = {one.arg for one in ast.walk(node.args) if isinstance(one, ast.arg)}
        for child in ast.iter_child_nodes(node):
            hidden = parameters if child in node.body else set()
            yield from (name for name in _names(child) if name not in hidden)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _names(child)


def _annotations(node: ast.AST) -> Iterator[ast.AST]:
    for one in ast.walk(node):
        for name in ("annotation", "returns"):
            if (annotation := getattr(one, name, None)) is not None:
                yield annotation


def _sources(imports: Iterable[ast.stmt]) -> Iterator[tuple[str, tuple[str, str]]]:
    for node in imports:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            file = (node.module or "").removeprefix(f"{PACKAGE}.")
            yield from ((alias.asname or alias.name, (file, alias.name)) for alias in node.names)


def _bound(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    whole = alias.asname or alias.name
    return whole if isinstance(node, ast.ImportFrom) else whole.partition(".")[0]


def _group(module: str) -> int:
    """Return the place of an import: before all, the standard library's, then packages."""
    root = module.partition(".")[0]
    return -1 if root == "__future__" else 0 if root in sys.stdlib_module_names else 1


def merged_imports(nodes: Iterable[ast.Import | ast.ImportFrom]) -> str:
    """Return imports of other packages as isort has them, each name once."""
    whole: dict[int, set[str]] = {}
    parts: dict[int, dict[str, dict[str, ast.alias]]] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole.setdefault(_group(alias.name), set()).update(_import_line("import ", [alias]))
        elif (module := node.module) is not None:
            names = parts.setdefault(_group(module), {}).setdefault(module, {})
            names.update({_bound(node, alias): alias for alias in node.names})
    groups = []
    for group in sorted({*whole, *parts}):
        lines = sorted(whole.get(group, ()))
        for module, names in sorted(parts.get(group, {}).items()):
            lines += _import_line(
                f"from {module} import ", [names[n] for n in sorted(names, key=_kind)]
            )
        groups.append("\n".join(lines))
    return "\n\n".join(groups)


def _kind(name: str) -> tuple[int, str]:
    """Return the place of a name in an import: constants, classes, then all else."""
    is_constant = name.isupper() and len(name) > 1
    return (0 if is_constant else 1 if name[:1].isupper() else 2), name


def _import_line(head: str, aliases: list[ast.alias]) -> list[str]:
    names = [f"{a.name} as {a.asname}" if a.asname else a.name for a in aliases]
    line = f"{head}{', '.join(names)}"
    if len(line) <= _WIDTH:
        return [line]
    return [f"{head}(", *(f"    {name}," for name in names), ")"]


def _blank_lines(before: ast.stmt | None, statement: _Statement) -> int:
    """Return how many blank lines are above a statement, as ruff has them."""
    if isinstance(statement.node, _DEFINITIONS) or isinstance(before, _DEFINITIONS):
        return 2
    return 1 if before is None or isinstance(before, _IMPORTS) else min(statement.gap, 2)
