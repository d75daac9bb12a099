"""Who may import whom. The tables are the house's rules; the tests hold the source to them.

All imports count, those inside functions and under ``TYPE_CHECKING`` too. ``mlxport.`` is left out
of the names here, and a name stands for the module and everything below it.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# The files of converter/ itself: what every place may use, of the standard library alone.
AT_THE_ROOT = (
    "arguments",
    "child_process",
    "environment",
    "errors",
    "exclusive",
    "progress",
    "signals",
    "terminal",
    "timings",
)

# Top first: a place imports from the levels below its own, and from itself.
LEVELS: list[set[str]] = [
    {"examples", "__main__"},
    {"cli", "testing"},
    {"converter.api"},
    {"converter.tasks"},
    {"converter.output"},
    {"converter.options"},
    {"converter.model_folders"},
    {
        "converter.graph.fold_batchnorm",
        "converter.graph.merge_adapter",
        "converter.parity.hand_port",
    },
    {"converter.graph.translate", "converter.parity.verify_gradients"},
    {"converter.graph.debug_folder"},
    {"converter.graph.lowering", "converter.parity.run"},
    {"converter.graph.capture", "converter.graph.ops", "converter.graph.source"},
    {"converter.graph.ir", "converter.parity.reference", "converter.parity.report"},
    {"converter.parity.verdict", "converter.rules", "converter.torch_model"},
    {"converter.checkpoint.keys", "converter.checkpoint.writing"},
    {"converter.checkpoint.formats"},
    {"converter.checkpoint.checkpoint"},
    {"converter.plan"},
    {"converter.expected", "converter.ranges"},
    {"layers", *(f"converter.{name}" for name in AT_THE_ROOT)},
]

# Imports between folders of one level that are meant, each with its reason.
SIDEWAYS: dict[str, set[str]] = {}

# What the levels alone would allow.
NEVER: list[tuple[str, str]] = [
    # both translate into layers/ and the steps of plan/; neither knows the other
    ("converter.graph.ops", "converter.rules"),
    # what is lowered is judged on the IR, never on its text
    ("converter.graph.lowering", "converter.graph.source"),
    # a conversion is judged by what it wrote, not by how it came about
    ("converter.graph", "converter.parity"),
    ("converter.graph", "converter.checkpoint"),
    ("converter.parity", "converter.graph"),
    ("converter.parity", "converter.rules"),
]

# All that these may import besides the standard library: their files travel with a converted model.
ONLY: dict[str, set[str]] = {"layers": {"mlx", "mlxport.layers"}}

# A third-party package -> the only place that may import it.
KEPT_TO: dict[str, str] = {"click": "cli", "huggingface_hub": "converter.torch_model.hub"}

# Verifying on a Mac needs no torch: neither these nor anything they load on import.
TORCH_FREE: set[str] = {
    "converter.checkpoint.writing.safetensors",
    "converter.options.output",
    "converter.options.source",
    "converter.output",
    "converter.parity.report",
    "converter.parity.run",
    "converter.parity.verdict",
    "converter.plan.mlx_layouts",
    "converter.plan.record",
    "converter.plan.steps",
    "converter.plan.weight_plan",
    "converter.progress",
    "converter.tasks.convert_by_plan",
    "converter.tasks.convert_for_target",
    "converter.tasks.convert_weights",
    "converter.tasks.export",
    "converter.tasks.fit_target",
    "converter.tasks.inspection",
    "converter.tasks.load_weights",
    "converter.tasks.restore",
    "converter.tasks.restored",
    "converter.tasks.verify_folder",
    "converter.tasks.verify_weights",
    "converter.timings",
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
    for imported in imports_of(source):
        if rule := broken_rule(module, imported):
            found.append(f"{module}:{imported.line} imports {imported.name}: {rule}")
    return found


SOURCES = sources()
# Packages that hold nothing of their own, since their folders lie at several levels.
ABOVE = ["", "converter", "converter.checkpoint", "converter.graph", "converter.parity"]
PACKAGES = {module_name(path.relative_to(ROOT)) for path in ROOT.glob("[cel]*/**/__init__.py")}


@cache
def imports_of(source: str) -> tuple[Import, ...]:
    """All imports of a source text."""
    return tuple(imports(ast.parse(source)))


def direct(module: str) -> set[str]:
    """Modules of the package that a module's own import statements name and run at once."""
    return {module_of(i.name) for i in imports_of(SOURCES[module]) if i.at_once} - {None}


def module_of(imported: str) -> str | None:
    """Return the module of the package that an imported name is, or lies in."""
    name = inner(imported)
    return name if name is None or name in SOURCES else name.rpartition(".")[0]


def folder_imports() -> dict[str, set[str]]:
    """Return which folders each folder imports from, packages of single files left out."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, source in SOURCES.items():
        for imported in imports_of(source):
            target = module_of(imported.name)
            if target and folder_of(target) != folder_of(module):
                found[folder_of(module)].add(folder_of(target))
    return found


def folder_of(module: str) -> str:
    """Return the folder of a module; one that lies in a folder of folders stands for itself."""
    folder = module if module in PACKAGES else module.rpartition(".")[0]
    divided = any(within(package, folder) and package != folder for package in PACKAGES)
    return module if divided else folder


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
        for imported in imports_of(SOURCES[name])
        if imported.at_once and within(imported.name, "torch")
    )


@pytest.mark.parametrize("module", SOURCES)
def test_imports_only_what_its_place_allows(module: str) -> None:
    assert broken_rules(module, SOURCES[module]) == []


@pytest.mark.parametrize("module", [m for m in SOURCES if m not in ABOVE])
def test_has_a_place(module: str) -> None:
    assert place_of(module) is not None, "name the module in LEVELS, or its folder"


@pytest.mark.parametrize("package", ABOVE)
def test_a_package_above_the_levels_loads_nothing(package: str) -> None:
    assert reached({package}, with_parents=True) <= set(ABOVE)


@pytest.mark.parametrize("module", [m for m in SOURCES if any(within(m, p) for p in TORCH_FREE)])
def test_loads_no_torch(module: str) -> None:
    assert importers_of_torch(reached({module}, with_parents=True)) == []


def test_folders_form_no_circle() -> None:
    TopologicalSorter(folder_imports()).prepare()  # raises CycleError, which names them


def test_sideways_edges_are_few_and_used() -> None:
    edges = folder_imports()
    assert sum(map(len, SIDEWAYS.values())) <= 5
    assert all(target in edges[place] for place, ts in SIDEWAYS.items() for target in ts)


@pytest.mark.parametrize("folder", sorted(PACKAGES - {"converter.graph.ops", "converter.rules"}))
def test_a_folder_is_taken_in_at_a_glance(folder: str) -> None:
    files = [m for m in SOURCES if m.rpartition(".")[0] == folder and m not in PACKAGES]
    assert len(files) <= 20


@pytest.mark.parametrize("module", SOURCES)
def test_is_in_no_import_cycle(module: str) -> None:
    # Without parents: a package that imports its members, to register them, is no cycle.
    assert module not in reached(direct(module), with_parents=False)


VIOLATIONS = {
    "upwards": ("converter.plan.record", "from mlxport.converter.graph.source import model_py"),
    "upwards to the root": ("converter.plan.record", "from mlxport import convert"),
    "the whole package": ("converter.plan.record", "import mlxport"),
    "sideways": ("converter.rules.conv", "from mlxport.converter.torch_model.calls import name"),
    "back": ("converter.checkpoint.formats.index", "import mlxport.converter.checkpoint.writing"),
    "inside a function": ("converter.errors", "def f():\n    import mlxport.converter.plan.tensor"),
    "inside a class": ("converter.errors", "class A:\n    from mlxport.converter import plan"),
    "under try": ("cli", "try:\n    from mlxport import examples\nexcept E:\n    pass"),
    "for types only": ("layers.conv.functions", "if TYPE_CHECKING:\n    import numpy"),
    "ops to rules": ("converter.graph.ops.conv", "from mlxport.converter.rules import registry"),
    "rules to ops": ("converter.rules.conv", "from mlxport.converter.graph.ops import conv"),
    "graph to parity": ("converter.graph.translate", "import mlxport.converter.parity.verdict"),
    "numpy in layers": ("layers.conv", "import numpy as np"),
    "errors in layers": ("layers.conv", "from mlxport.converter.errors import ConversionError"),
    "torch in trace": ("converter.parity.run.trace", "def f():\n    import torch.nn"),
    "torch in plan": ("converter.plan.record", "from torch import nn"),
    "click in api": ("converter.api", "import click"),
    "relative": ("converter.plan.record", "from . import errors"),
    "relative, deeper": ("converter.rules.conv", "from ..errors import ConversionError"),
    "unknown module": ("converter.surprise", "import mlxport.converter.errors"),
}


@pytest.mark.parametrize(("module", "source"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_the_checker_sees_a_violation(module: str, source: str) -> None:
    assert len(broken_rules(module, source)) == 1


INNOCENT = {
    "downwards": ("cli", "from mlxport.converter.api import convert"),
    "two levels down": ("converter.api", "import mlxport.converter.plan"),
    "own package": ("converter.plan.record", "from mlxport.converter.plan.tensor import Tensor"),
    "graph to rules": ("converter.graph.lowering.walk", "from mlxport.converter import rules"),
    "layers": ("layers.conv", "import math\nimport mlx.nn as nn\nfrom mlxport.layers import pool"),
    "click in cli": ("cli", "import click"),
    "torch in reference": ("converter.parity.reference.recorder", "import torch"),
    "an example": ("examples.demo", "import mlxport\nimport torch"),
    "version": ("converter.plan.record", "from mlxport import __version__"),
}


@pytest.mark.parametrize(("module", "source"), INNOCENT.values(), ids=INNOCENT)
def test_the_checker_lets_the_rest_pass(module: str, source: str) -> None:
    assert broken_rules(module, source) == []


def test_the_checker_sees_torch_come_in_by_a_detour(monkeypatch: pytest.MonkeyPatch) -> None:
    trace, rules = "converter.parity.run.trace", "converter.rules"
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


def test_the_checker_sees_folders_import_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "if TYPE_CHECKING:\n    from mlxport.layers.attention import masks"
    monkeypatch.setitem(SOURCES, "layers.norm.surprise", source)
    with pytest.raises(CycleError, match=r"layers\.norm"):
        test_folders_form_no_circle()
