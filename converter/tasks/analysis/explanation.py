"""What became of each module of a model and why, as data. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlxport.converter.graph.ir.printing import order_text
from mlxport.converter.graph.source.line_numbers import SourceLine
from mlxport.converter.plan.record import Layout


@dataclass(frozen=True)
class ExplainedCall:
    """One call of a module: what passes its boundary.

    Attributes:
        inputs: tensors it takes, with the axis order each is stored in.
        outputs: tensors it gives.
    """

    inputs: tuple[Layout, ...]
    outputs: tuple[Layout, ...]


@dataclass(frozen=True)
class ExplainedTensor:
    """What happens to tensors of a module.

    Attributes:
        sources: keys of PyTorch's state dict.
        targets: parameters of the MLX model; empty where it has none.
        how: the steps in between, or why there is no target.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    how: str

    def __str__(self) -> str:
        gives = f" -> {', '.join(self.targets)}" if self.targets else ""
        return f"{', '.join(self.sources)}{gives}: {self.how}"


@dataclass(frozen=True)
class ExplainedModule:
    """What became of one module, and why. ``str()`` gives it for reading.

    Attributes:
        path: its qualified name in PyTorch; empty for the model itself.
        torch_class: its class.
        becomes: what stands for it in MLX.
        why: why it is that.
        target: its attribute path in the MLX model; empty where it has none.
        source_class: the class of ``model.py`` that stands for it; empty where none does.
        lines: the lines of ``model.py`` that define, build and call it.
        calls: its calls as a layer or class, in order.
        tensors: its own tensors; of a layer those of all its parts.
        transposes: transposes that one call of its class executes, those of the modules it calls
            left out; None where it has no class.
        inlined: why calls of it are written in place, where it is a class.
    """

    path: str
    torch_class: str
    becomes: str
    why: str
    target: str = ""
    source_class: str = ""
    lines: tuple[SourceLine, ...] = ()
    calls: tuple[ExplainedCall, ...] = ()
    tensors: tuple[ExplainedTensor, ...] = ()
    transposes: int | None = None
    inlined: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows: list[tuple[str, str]] = [("why", self.why)]
        rows += [("in MLX", self.target)] if self.target else []
        rows += [("class", self.source_class)] if self.source_class else []
        rows += [("model.py", str(line)) for line in self.lines]
        for number, call in enumerate(self.calls, 1):
            which = f" in call {number}" if len(self.calls) > 1 else ""
            rows += [(f"takes{which}", _layout(layout)) for layout in call.inputs]
            rows += [(f"gives{which}", _layout(layout)) for layout in call.outputs]
        rows += [("tensors", str(tensor)) for tensor in self.tensors]
        if self.transposes is not None:
            rows.append(("transposes", str(self.transposes)))
        rows += [("in place", reason) for reason in self.inlined]
        heading = f"{self.path or 'the model'}: {self.torch_class} -> {self.becomes}"
        return "\n".join([heading, *_labelled(rows)])


@dataclass(frozen=True)
class Explanation:
    """What became of the modules of a model, and why. ``str()`` gives it for reading.

    Attributes:
        model: the torch class.
        modules: in the order in which they are registered, the model itself first; the one at
            ``path`` alone, where that was asked for.
        path: of the module asked for; None for all of them.
        transposes: transposes that one call of the MLX model executes.
        unsupported: what has no MLX counterpart, one line each; then there is no ``model.py``.
    """

    model: str
    modules: tuple[ExplainedModule, ...]
    path: str | None
    transposes: int
    unsupported: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return asdict(self)

    def __str__(self) -> str:
        """Return what there is to know of one module, or one line for each of several."""
        if self.path is not None:
            return "\n".join([str(self.modules[0]), *self._problems()])
        rows = [(_indented(m.path), m.torch_class, m.becomes, m.why) for m in self.modules]
        heading = f"{self.model}: {len(self.modules)} modules, {self.transposes} transposes a call"
        return "\n".join([heading, *_columns(rows), *self._problems()])

    def _problems(self) -> list[str]:
        if not self.unsupported:
            return []
        return ["without an MLX counterpart:", *(f"  {line}" for line in self.unsupported)]


def _layout(layout: Layout) -> str:
    shape = f"({', '.join(map(str, layout.shape))}{',' if len(layout.shape) == 1 else ''})"
    order = order_text(layout.order)
    return f"{layout.dtype} {shape}{f' [{order}]' if order else ''}"


def _indented(path: str) -> str:
    return "  " * (path.count(".") + bool(path)) + (path.rpartition(".")[2] or "(the model)")


def _labelled(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return labels and texts in two columns, a label that comes again left out."""
    width = max(len(label) for label, _ in rows)
    shown = ("" if i and rows[i - 1][0] == label else label for i, (label, _) in enumerate(rows))
    pairs = zip(shown, rows, strict=True)
    return [f"  {label:<{width}}  {text}" for label, (_, text) in pairs]


def _columns(rows: Iterable[Sequence[str]]) -> list[str]:
    listed = list(rows)
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)]
    return [
        "  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in listed
    ]
