"""Who may import whom. The tables are the house's rules; the tests hold the source to them.

All imports count, those inside functions and under ``TYPE_CHECKING`` too. ``mlxport.`` is left out
of the names here, and a name stands for the module and everything below it.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# Top first: a module imports from the levels below its own, and from its own package.
LEVELS: list[set[str]] = [
    {"examples"},
    {"cli", "testing"},
    {"converter.api"},
    {
        "converter.conversion",
        "converter.converted",
        "converter.analysis",
        "converter.analyze",
        "converter.export",
        "converter.extension",
        "converter.folder",
        "converter.inspection",
        "converter.load_weights",
        "converter.loaded",
        "converter.quantize",
        "converter.references",
        "converter.restore",
        "converter.support",
        "converter.target",
        "converter.target_weights",
        "converter.transfer",
        "converter.verify_weights",
        "converter.weights_only",
    },
    {
        "converter.checkpoint",
        "converter.graph",
        "converter.layer_weights",
        "converter.parity",
        "converter.rules",
    },
    {
        "converter.factory",
        "converter.fold_steps",
        "converter.hub",
        "converter.inputs",
        "converter.loading",
        "converter.plan",
        "converter.quantization",
        "converter.record",
        "converter.structure",
        "converter.tensor",
        "converter.torch_call",
        "converter.torch_structure",
        "converter.torch_tensor",
        "converter.transforms",
        "layers",
    },
    {
        "converter.environment",
        "converter.errors",
        "converter.batch_norm",
        "converter.orthogonal",
        "converter.progress",
        "converter.timings",
    },
]

# Imports inside one level that are meant, and none of them goes back.
SIDEWAYS: dict[str, set[str]] = {
    # what it fills in, and the model it is of
    "converter.analyze": {"converter.analysis", "converter.loaded"},
    "converter.export": {"converter.folder"},  # it reads what was written
    # a conversion ends in a written folder
    "converter.conversion": {
        "converter.converted",
        "converter.folder",
        "converter.loaded",
        "converter.quantize",
        "converter.references",
    },
    "converter.quantize": {"converter.converted", "converter.folder"},
    "converter.transfer": {"converter.converted", "converter.folder", "converter.inspection"},
    "converter.weights_only": {
        "converter.converted",
        "converter.folder",
        "converter.inspection",
    },
    "converter.load_weights": {"converter.target"},
    "converter.target_weights": {
        "converter.converted",
        "converter.folder",
        "converter.inspection",
        "converter.target",
        "converter.weights_only",
    },
    "converter.restore": {"converter.folder"},
    "converter.verify_weights": {"converter.folder"},
    "converter.graph": {"converter.rules"},  # a leaf of a known class is lowered by its rule
    # the reference is a safetensors file; modules are paired by the names layer_weights gives them
    "converter.parity": {"converter.checkpoint", "converter.layer_weights"},
    "converter.inputs": {"converter.torch_call"},  # inputs go by the names of forward
    # the record carries all three
    "converter.record": {"converter.plan", "converter.quantization", "converter.structure"},
    "converter.torch_structure": {"converter.structure", "converter.torch_call"},
    "converter.plan": {"converter.transforms", "converter.tensor"},
    "converter.transforms": {
        "converter.fold_steps",
        "converter.quantization",
        "converter.tensor",
    },
    "converter.fold_steps": {"converter.tensor"},
    "converter.quantization": {"converter.tensor"},
    "converter.torch_tensor": {"converter.tensor"},
}

# Both translate into layers/ and transforms; neither knows the other.
NEVER: list[tuple[str, str]] = [
    ("converter.graph.ops", "converter.rules"),
    ("converter.rules", "converter.graph"),
]

# All that these may import besides the standard library: their files travel with a converted model.
ONLY: dict[str, set[str]] = {"layers": {"mlx", "mlxport.layers"}}

# A third-party package -> the only place that may import it.
KEPT_TO: dict[str, str] = {"click": "cli", "huggingface_hub": "converter.hub"}

# Verifying on a Mac needs no torch: neither these nor anything they load on import.
TORCH_FREE: set[str] = {
    "converter.checkpoint.write",
    "converter.export",
    "converter.fold_steps",
    "converter.folder",
    "converter.inspection",
    "converter.layer_weights",
    "converter.load_weights",
    "converter.loading",
    "converter.parity.compare",
    "converter.parity.report",
    "converter.parity.trace",
    "converter.plan",
    "converter.progress",
    "converter.quantization",
    "converter.record",
    "converter.restore",
    "converter.structure",
    "converter.target",
    "converter.target_weights",
    "converter.tensor",
    "converter.timings",
    "converter.transfer",
    "converter.transforms",
    "converter.verify_weights",
    "converter.weights_only",
    "layers",
}


class Import(NamedTuple):
    """One imported name, as written: ``from a import b`` gives ``a.b``."""

    name: str
    line: int
    at_once: bool  # runs when the module is imported
    relative: bool


def sources() -> dict[str, str]:
    """Every module of the package by name (``""`` is the root), with its text."""
    folders = [ROOT / name for name in ("converter", "layers", "examples", "testing")]
    paths = [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    return {module_name(path.relative_to(ROOT)): path.read_text() for path in sorted(paths)}


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(node: ast.AST, at_once: bool = True) -> Iterator[Import]:
    """All imports below a syntax node, in the order written."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(a.name, child.lineno, at_once, False) for a in child.names)
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                name = f"{child.module or ''}.{alias.name}"
                yield Import(name, child.lineno, at_once, child.level > 0)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(child, at_once=False)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from imports(ast.Module(child.body, []), at_once=False)
            yield from imports(ast.Module(child.orelse, []), at_once)
        else:
            yield from imports(child, at_once)


def within(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}.")


def place_of(module: str) -> tuple[int, str] | None:
    """The level a module belongs to and the entry of ``LEVELS`` that names it."""
    for level, places in enumerate(LEVELS):
        for place in places:
            if within(module, place):
                return level, place
    return None


def inner(name: str) -> str | None:
    """An imported name without ``mlxport.``; None where it names no module of this package."""
    if name in ("mlxport", "mlxport.__version__"):
        return None
    return name.removeprefix("mlxport.") if name.startswith("mlxport.") else None


def broken_rule(module: str, imported: Import) -> str | None:
    """Say which rule an import breaks, or None."""
    name, package = imported.name, imported.name.partition(".")[0]
    if imported.relative:
        return "absolute imports only: a relative one makes a second copy of the module"
    for place, allowed in ONLY.items():
        known = package in sys.stdlib_module_names or any(within(name, one) for one in allowed)
        if within(module, place) and not known:
            return f"{place} imports only {sorted(allowed)} and the standard library"
    if package in KEPT_TO and not within(module, KEPT_TO[package]):
        return f"{package} is imported by {KEPT_TO[package]} alone"
    if package == "torch" and any(within(module, place) for place in TORCH_FREE):
        return "torch has no place here: verifying on a Mac does without it"
    if name == "mlxport" and not within(module, "examples"):
        return "name the module that defines it: the public names come from above"
    target = inner(name)
    return None if target is None or module == "" else broken_level(module, target)


def broken_level(module: str, target: str) -> str | None:
    for above, below in NEVER:
        if within(module, above) and within(target, below):
            return f"{above} never imports {below}"
    here, there = place_of(module), place_of(target)
    if here is None:
        return f"{module or 'mlxport'} has no place in LEVELS"
    if there is None:
        return f"{target} has no place in LEVELS"
    if there[0] > here[0] or there[1] == here[1]:
        return None
    if there[1] in SIDEWAYS.get(here[1], set()):
        return None
    return f"{there[1]} is not below {here[1]}"


def broken_rules(module: str, source: str) -> list[str]:
    found = []
    for imported in imports(ast.parse(source)):
        if rule := broken_rule(module, imported):
            found.append(f"{module}:{imported.line} imports {imported.name}: {rule}")
    return found


SOURCES = sources()


def direct(module: str) -> set[str]:
    """Modules of the package that a module's own import statements name and run at once."""
    named = [inner(i.name) for i in imports(ast.parse(SOURCES[module])) if i.at_once]
    return {t if t in SOURCES else t.rpartition(".")[0] for t in named if t is not None}


def reached(start: set[str], with_parents: bool) -> set[str]:
    """All modules that importing these runs; Python runs the packages a module lies in, too."""
    seen: set[str] = set()
    waiting = sorted(start)
    while waiting:
        module = waiting.pop()
        if module in seen or module not in SOURCES:
            continue
        seen.add(module)
        waiting += direct(module)
        if with_parents:
            waiting.append(module.rpartition(".")[0])
    return seen


def importers_of_torch(modules: set[str]) -> list[str]:
    return sorted(
        name
        for name in modules
        for imported in imports(ast.parse(SOURCES[name]))
        if imported.at_once and within(imported.name, "torch")
    )


@pytest.mark.parametrize("module", SOURCES)
def test_imports_only_what_its_place_allows(module: str) -> None:
    assert broken_rules(module, SOURCES[module]) == []


@pytest.mark.parametrize("module", [m for m in SOURCES if m and m != "converter"])
def test_has_a_place(module: str) -> None:
    assert place_of(module) is not None, "name the module in LEVELS, or its folder"


@pytest.mark.parametrize("package", ["", "converter"])
def test_a_package_above_the_levels_loads_nothing(package: str) -> None:
    assert reached({package}, with_parents=True) == {package, ""}


@pytest.mark.parametrize("module", [m for m in SOURCES if any(within(m, p) for p in TORCH_FREE)])
def test_loads_no_torch(module: str) -> None:
    assert importers_of_torch(reached({module}, with_parents=True)) == []


@pytest.mark.parametrize("module", SOURCES)
def test_is_in_no_import_cycle(module: str) -> None:
    # Without parents: a package that imports its members, to register them, is no cycle.
    assert module not in reached(direct(module), with_parents=False)


VIOLATIONS = {
    "upwards": ("converter.plan", "from mlxport.converter.graph import emit"),
    "upwards to the root": ("converter.plan", "from mlxport import convert"),
    "the whole package": ("converter.plan", "import mlxport"),
    "sideways": ("converter.parity.trace", "from mlxport.converter.rules.conv import conv3d"),
    "back sideways": ("converter.transforms", "import mlxport.converter.plan"),
    "inside a function": ("converter.errors", "def f():\n    import mlxport.converter.plan"),
    "inside a class": ("converter.errors", "class A:\n    from mlxport.converter import plan"),
    "under try": ("cli", "try:\n    from mlxport import examples\nexcept E:\n    pass"),
    "for types only": ("layers.conv", "if TYPE_CHECKING:\n    import numpy"),
    "ops to rules": ("converter.graph.ops.conv", "from mlxport.converter.rules import registry"),
    "rules to ops": ("converter.rules.conv", "from mlxport.converter.graph.ops import conv"),
    "numpy in layers": ("layers.conv", "import numpy as np"),
    "errors in layers": ("layers.conv", "from mlxport.converter.errors import ConversionError"),
    "torch in trace": ("converter.parity.trace", "def f():\n    import torch.nn"),
    "torch in plan": ("converter.plan", "from torch import nn"),
    "click in api": ("converter.api", "import click"),
    "relative": ("converter.plan", "from . import errors"),
    "relative, deeper": ("converter.rules.conv", "from ..errors import ConversionError"),
    "unknown module": ("converter.surprise", "import mlxport.converter.errors"),
}


@pytest.mark.parametrize(("module", "source"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_the_checker_sees_a_violation(module: str, source: str) -> None:
    assert len(broken_rules(module, source)) == 1


INNOCENT = {
    "downwards": ("cli", "from mlxport.converter.api import convert"),
    "two levels down": ("converter.api", "import mlxport.converter.plan"),
    "own package": ("converter.graph.emit", "from mlxport.converter.graph.layout import Order"),
    "graph to rules": ("converter.graph.lower", "from mlxport.converter.rules import registry"),
    "layers": ("layers.conv", "import math\nimport mlx.nn as nn\nfrom mlxport.layers import pool"),
    "click in cli": ("cli", "import click"),
    "torch in reference": ("converter.parity.reference", "import torch"),
    "an example": ("examples.demo", "import mlxport\nimport torch"),
    "version": ("converter.record", "from mlxport import __version__"),
}


@pytest.mark.parametrize(("module", "source"), INNOCENT.values(), ids=INNOCENT)
def test_the_checker_lets_the_rest_pass(module: str, source: str) -> None:
    assert broken_rules(module, source) == []


def test_the_checker_sees_torch_come_in_by_a_detour(monkeypatch: pytest.MonkeyPatch) -> None:
    trace, rules = "converter.parity.trace", "converter.rules"
    chain = {
        trace: "from mlxport.converter.rules.conv import conv3d",
        f"{rules}.conv": "",
        rules: "from mlxport.converter.rules.linear import linear",  # a parent, run unasked
        f"{rules}.linear": "if True:\n    import torch.nn as nn\ndef f():\n    import torch",
    }
    for module, source in chain.items():
        monkeypatch.setitem(SOURCES, module, source)
    assert importers_of_torch(reached({trace}, with_parents=True)) == [f"{rules}.linear"]


def test_the_checker_sees_a_cycle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "layers.a", "import mlxport.layers.b")
    monkeypatch.setitem(SOURCES, "layers.b", "from mlxport.layers.a import f")
    assert "layers.a" in reached(direct("layers.a"), with_parents=False)
