"""The coverage of a model, as data: what has an MLX counterpart, which, and what has none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from mlxport.converter.graph.lowering.problems import Gap


@dataclass(frozen=True)
class AnalyzedTensor:
    """One tensor the model takes or gives.

    Attributes:
        name: of the argument, or ``output`` with what is read of it.
        dtype: torch's dtype by name.
        shape: PyTorch's; a size that is not fixed stands as an expression.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Modules:
    """Modules of one torch class that go the same way.

    Attributes:
        name: the class.
        count: how many there are in the model.
        becomes: what stands for them in MLX.
        covered: whether they have a counterpart, what they hold left aside.
        reason: why they go op by op where their class has a rule; empty otherwise.
    """

    name: str
    count: int
    becomes: str
    covered: bool
    reason: str = ""


@dataclass(frozen=True)
class Ops:
    """An op outside of the layers, which is lowered by itself.

    Attributes:
        name: its qualified overload (``"aten.cat.default"``).
        count: in how many places it stands.
        covered: in how many of them it has a counterpart.
    """

    name: str
    count: int
    covered: int


@dataclass(frozen=True)
class Share:
    """How much of something is covered."""

    covered: int
    total: int

    def __str__(self) -> str:
        return f"{self.covered:,} of {self.total:,}"


@dataclass(frozen=True)
class Analysis:
    """What a conversion would make of a model. ``str()`` gives it for reading.

    Attributes:
        model: the torch class.
        inputs: tensors it takes.
        outputs: tensors it gives.
        modules: its modules by class and way.
        ops: the ops outside of its layers.
        unsupported: every op or module without counterpart; the errors of ``convert`` list the
            same.
        modules_covered: modules with a counterpart, of those that are used.
        ops_covered: places of ops with a counterpart.
        parameters_covered: numbers in parameters of covered modules, of those that are used.
        parameters_unused: numbers in parameters that nothing reads in eval mode.
    """

    model: str
    inputs: tuple[AnalyzedTensor, ...]
    outputs: tuple[AnalyzedTensor, ...]
    modules: tuple[Modules, ...]
    ops: tuple[Ops, ...]
    unsupported: tuple[Gap, ...]
    modules_covered: Share
    ops_covered: Share
    parameters_covered: Share
    parameters_unused: int

    @property
    def covered(self) -> bool:
        """Whether everything has an MLX counterpart."""
        return not self.unsupported

    def to_json(self) -> dict[str, Any]:
        """Return the analysis as JSON data."""
        return {"covered": self.covered, **asdict(self)}

    @property
    def summary(self) -> str:
        """The verdict, and how much is covered, in two lines."""
        verdict = "everything has an MLX counterpart"
        if self.unsupported:
            verdict = f"{len(self.unsupported)} kinds of operation have no MLX counterpart yet"
        unused = f" ({self.parameters_unused:,} unused)" if self.parameters_unused else ""
        return (
            f"{self.model}: {verdict}\n"
            f"covered: modules {self.modules_covered} · ops {self.ops_covered} · "
            f"parameters {self.parameters_covered}{unused}"
        )

    def _repr_html_(self) -> str:
        """Return what the command prints, for a notebook."""
        return f"<pre>{escape(str(self))}</pre>"

    def __repr__(self) -> str:
        return f"<Analysis: {self.summary}>"

    def __str__(self) -> str:
        lines = self.summary.splitlines()
        if self.unsupported:
            width = max(len(gap.op) for gap in self.unsupported)
            lines += ["", "unsupported", *(f"  {g.to_text(width)}" for g in self.unsupported)]
        lines += ["", "takes", *_table(_tensor(tensor) for tensor in self.inputs)]
        lines += ["", "gives", *_table(_tensor(tensor) for tensor in self.outputs)]
        rows = [(m.name, f"x{m.count}", m.becomes, m.reason) for m in self.modules]
        lines += ["", "modules", *_table(rows)]
        if self.ops:
            lines += ["", "ops", *_table(_op(op) for op in self.ops)]
        return "\n".join(lines)


def _tensor(tensor: AnalyzedTensor) -> tuple[str, str, str]:
    sizes = ", ".join(map(str, tensor.shape))
    return tensor.name, tensor.dtype, f"({sizes}{',' if len(tensor.shape) == 1 else ''})"


def _op(op: Ops) -> tuple[str, str, str]:
    left = op.count - op.covered
    return op.name, f"x{op.count}", f"{left} unsupported" if left else ""


def _table(rows: Iterable[Sequence[str]]) -> list[str]:
    listed = list(rows)
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)]
    return [
        "  " + "  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip()
        for row in listed
    ]
