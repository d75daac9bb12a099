"""The tables of supported layers and ops, read off the registries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from mlxport.converter.graph import ops
from mlxport.converter.parity.run.metal_table import TABLE, VERSIONS
from mlxport.converter.rules import refusals, registry

TITLE = """# What is supported

Generated from the registries by `mlxport layers --markdown`; do not edit.

A layer or operation that is not listed is refused with an error that names it.
"""
_METAL = (
    f"Read in MLX's sources and its macOS build ({', '.join(VERSIONS)}), not run. Every conversion "
    "looks its calls up here, and so do the tests of layers and operations, float64 aside: what "
    "Metal refuses goes to the CPU's stream by name, or by another way."
)


@dataclass(frozen=True)
class Support:
    """One row of the support table.

    Attributes:
        source: the torch.nn class or the ATen op.
        target: what stands for it in MLX; empty where nothing does.
        restrictions: what is not supported, or why nothing is; empty where all of it is.
        tested: the test file that compares it with PyTorch.
    """

    source: str
    target: str
    restrictions: str
    tested: str


def layer_support() -> list[Support]:
    """Return a row for every torch.nn class, in alphabetical order."""
    rows = [_row_of(cls.__name__, rule) for cls, rule in registry.RULES.items()]
    rows += [Support(cls.__name__, "", why, "") for cls, why in refusals.WITHOUT_RULE.items()]
    return sorted(rows, key=lambda row: row.source.lower())


def library_support() -> list[Support]:
    """Return a row for every class of another library that has a rule, by its qualified name."""
    rows = [_row_of(name, rule) for name, rule in registry.LIBRARY_RULES.items()]
    return sorted(rows, key=lambda row: row.source)


def _row_of(source: str, rule: registry.Rule) -> Support:
    return Support(source, rule.target, rule.restrictions, _test_of(rule.build.__module__))


def op_support() -> list[Support]:
    """Return a row for every ATen op with a handler or a refusal, in alphabetical order."""
    return sorted(
        (
            Support(op.name, "", op.restrictions, "")
            if op.name in ops.refusals.REFUSED_OPS
            else Support(op.name, "expression", op.restrictions, _test_of(op.handler.__module__))
            for op in ops.registry.OPS.values()
        ),
        key=lambda row: row.source,
    )


def as_json() -> dict[str, list[dict[str, str]]]:
    """Return the tables as JSON data."""
    return {
        "layers": [asdict(row) for row in layer_support()],
        "library_layers": [asdict(row) for row in library_support()],
        "ops": [asdict(row) for row in op_support()],
    }


def _metal_rows() -> str:
    """Return the table of what MLX's Metal backend refuses, rounds more or unfolds."""
    rows = [
        [
            ", ".join(f"`{name}`" for name in row.primitives) or "every primitive",
            row.effect.value,
            row.reason,
        ]
        for row in TABLE
    ]
    return _rows(["primitive of MLX", "on Metal", "why"], rows)


def as_markdown() -> str:
    """Return the text of ``docs/supported.md``."""
    layers = _table(["torch.nn", "MLX", "restrictions", "tested by"], layer_support())
    library = _table(["class", "MLX", "restrictions", "tested by"], library_support())
    rows = op_support()
    names = [[row.source, row.restrictions, row.tested] for row in rows if row.target]
    handled = _rows(["ATen op", "restrictions", "tested by"], names)
    refused = _rows(["ATen op", "why"], [[r.source, r.restrictions] for r in rows if not r.target])
    return (
        f"{TITLE}\n## Layers\n\n{layers}\n\n## Layers of other libraries\n\nBy "
        "`mlxport.convert_layer`. Whole models go by what a class computes.\n\n"
        f"{library}\n\n## Operations\n\nWhole models: everything outside of "
        "the layers above goes op by op. Ops that are not listed are taken apart into those that "
        f"are, where PyTorch can.\n\n{handled}\n\n## Refused operations\n\n{refused}\n\n"
        f"## On Metal\n\n{_METAL}\n\n"
        f"{_metal_rows()}\n"
    )


def as_text(search: str = "") -> str:
    """Return the tables for a terminal.

    Args:
        search: show only the rows that hold this text.
    """
    rows = [
        row
        for row in (*layer_support(), *library_support(), *op_support())
        if search.lower() in " ".join(asdict(row).values()).lower()
    ]
    if not rows:
        return f"nothing that is supported is called {search!r}"
    width = max(len(row.source) for row in rows)
    targets = max(len(row.target) for row in rows)
    lines = [
        f"{row.source:<{width}}  {row.target or 'refused':<{targets}}  {row.restrictions}".rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def _test_of(module: str) -> str:
    """Return the test file that mirrors a module of rules or handlers; the user's have none."""
    if not module.startswith("mlxport.converter."):
        return ""
    *folders, name = module.split(".converter.", 1)[1].split(".")
    return "/".join(["tests", "converter", *folders, f"test_{name}.py"])


def _table(heads: Sequence[str], rows: Sequence[Support]) -> str:
    return _rows(heads, [list(asdict(row).values()) for row in rows])


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join(lines)
