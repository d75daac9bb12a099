"""The tensors of a checkpoint and what would become of each, as data. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import Checkpoint, first_names, printable
from mlxport.converter.tasks.result import count_of

# The longest cell that others of its column are filled up to, in characters.
_WIDEST = 120


@dataclass(frozen=True)
class InspectedTensor:
    """One tensor of a checkpoint, as the plain module would hold it.

    Attributes:
        name: the key, or the name of the weight that several keys make.
        keys: of the checkpoint.
        dtype: safetensors name.
        shape: PyTorch's.
        nbytes: of its values.
        kind: class of torch.nn, ``"as it is"``, ``"counter"`` or ``"open"``.
        becomes: the shape in MLX; None where it is open or left out.
        evidence: why it is taken for that.
        options: where it is open, what ``layers=`` may say of it.
        target: the parameter of the MLX model it goes to, where that model was given.
    """

    name: str
    keys: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    kind: str
    becomes: tuple[int, ...] | None
    evidence: str
    options: tuple[str, ...] = ()
    target: str = ""


@dataclass(frozen=True)
class Inspection:
    """What is in a checkpoint and what would happen to each tensor.

    Attributes:
        path: what was opened.
        key: where in it the state dict was found; None where the format has no nesting.
        notes: what was left out and why.
        tensors: in the checkpoint's order; none where it holds several state dicts.
        ties: groups of keys that are one tensor.
        choices: where it holds several state dicts, what ``key=`` may say -> the names in it.
        problems: what does not fit the MLX model that was given, one line each.
    """

    path: str
    key: str | None
    notes: tuple[str, ...]
    tensors: tuple[InspectedTensor, ...]
    ties: tuple[tuple[str, ...], ...] = ()
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.choices:
            return (
                f"{printable(self.path)}: {count_of(len(self.choices), 'state dict')}, none chosen"
            )
        size = _size(sum(row.nbytes for row in self.tensors))
        counts = [f"{count_of(len(self.tensors), 'tensor')} ({size})"]
        still_open = sum(row.kind == "open" for row in self.tensors)
        counts += [f"{still_open} open"] * bool(still_open)
        counts += [count_of(len(self.ties), "tie")] * bool(self.ties)
        counts += [f"{len(self.problems)} do not fit"] * bool(self.problems)
        counts += [count_of(len(self.notes), "note")] * bool(self.notes)
        return f"{printable(self.path)}: {', '.join(counts)}"

    def __repr__(self) -> str:
        return f"<Inspection: {self}>"

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON data."""
        return asdict(self)

    def to_text(self) -> str:
        """Return it as a table, and what is open after it."""
        if self.choices:
            listed = [f"  {_choice(key, names)}" for key, names in self.choices.items()]
            heading = f"{len(listed)} state dicts are in {self.path}. Each is shown by its key:"
            return "\n".join([heading, *listed])
        cells = [
            (
                printable(row.name),
                f"{row.dtype} {row.shape}",
                _size(row.nbytes),
                row.kind,
                _becomes(row),
                row.evidence,
            )
            for row in self.tensors
        ]
        heads = ("tensor", "PyTorch", "size", "taken for", "in MLX", "because")
        widths = [_width(column) for column in zip(heads, *cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (heads, *cells)
        ]
        total = sum(row.nbytes for row in self.tensors)
        lines += ["", f"{count_of(len(self.tensors), 'tensor')}, {_size(total)}"]
        lines += [f"one tensor: {', '.join(map(printable, group))}" for group in self.ties]
        if open_rows := [row for row in self.tensors if row.kind == "open"]:
            ways = f"{argument('model')} decides on them all, or {argument('layers')} on each"
            lines += ["", f"{len(open_rows)} are open. {ways}:"]
            lines += [f"  {layer_option(row.name, row.options)}" for row in open_rows]
        if self.problems:
            lines += ["", f"{len(self.problems)} do not fit:", *(f"  {p}" for p in self.problems)]
        return "\n".join(lines)


def _width(column: Sequence[str]) -> int:
    """Return the width to fill cells to: a long one stands out, and no other grows by it."""
    return max((len(cell) for cell in column if len(cell) <= _WIDEST), default=0)


def _choice(key: str, names: Sequence[str]) -> str:
    """Return how to choose a state dict, and what is in it."""
    return f"{argument('key', printable(key))}: {first_names(names)}"


def _becomes(row: InspectedTensor) -> str:
    """Return where a tensor goes and in which shape, as far as these are others."""
    name = row.target if row.target not in ("", row.name) else ""
    shape = "" if row.becomes in (None, row.shape) else str(row.becomes)
    return f"{name} {shape}".strip()


def ties_of(checkpoint: Checkpoint) -> tuple[tuple[str, ...], ...]:
    """Return the groups of keys that are one tensor."""
    groups: dict[Any, list[str]] = {}
    for key, identity in checkpoint.storage.items():
        groups.setdefault(identity, []).append(key)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def layer_option(name: str, options: Sequence[str]) -> str:
    """Return ``name=Conv3d | ConvTranspose3d`` of options for one tensor."""
    if not options:
        return f"{printable(name)}: only {argument('model')} decides on it"
    name, _, first = options[0].rpartition("=")
    kinds = " | ".join([first, *(option.rpartition("=")[2] for option in options[1:])])
    return f"{printable(name)}={kinds}"


def _size(nbytes: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024 or unit == "GiB":
            return f"{nbytes:.4g} {unit}"
        nbytes /= 1024  # type: ignore[assignment]
    raise AssertionError
