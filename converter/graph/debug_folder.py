"""Write down what the stages of a translation gave, as text files to read when one goes wrong.

``1-captured.txt`` holds the captured graphs, ``2-leaves.txt`` which modules become layers and why
the others do not, ``3-pass-1.txt`` and so on each pass of the lowering, ``4-classes.txt`` the
bodies of the classes in the pass that was kept, ``5-model.py`` the source. A conversion that fails
leaves what it reached, and ``failed.txt``. The same model gives the same bytes.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from mlxport.converter.arguments import argument
from mlxport.converter.errors import CheckpointError, OptionsError
from mlxport.converter.graph.capture.capture import Captured
from mlxport.converter.graph.ir.printing import order_text
from mlxport.converter.graph.ir.provenance import Provenance
from mlxport.converter.graph.ir.value import Order
from mlxport.converter.graph.lowering.lower import PassOutcome

_logger = logging.getLogger(__name__)

_OURS = re.compile(r"(1-captured|2-leaves|3-pass-\d+|4-classes|failed)\.txt|5-model\.py")


class DebugFolder:
    """Writes what each stage gave into a folder; nothing where there is none.

    Args:
        folder: where to write; None to write nothing.

    Raises:
        OptionsError: the folder cannot be made, or is a file.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._passes = 0
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for file in folder.iterdir():
                if _OURS.fullmatch(file.name):
                    file.unlink()
        except OSError as error:
            raise OptionsError(
                f"{argument('debug_dir', str(folder))}: no folder to write into ({error.strerror})"
            ) from error

    def captured(self, captured: Captured) -> None:
        """Write the captured graphs, and which modules are leaves."""
        if self.folder is not None:
            self._write("1-captured.txt", _graphs_text(captured.root))
            self._write("2-leaves.txt", "\n".join(_leaves(captured)))

    def passed(self, outcome: PassOutcome) -> None:
        """Write one pass of the lowering, and its classes where it is the best so far."""
        if self.folder is not None:
            self._passes += 1
            self._write(f"3-pass-{self._passes}.txt", "\n".join(_pass(self._passes, outcome)))
            if outcome.kept:
                bodies = map(str, outcome.lowered.bodies.values())
                self._write("4-classes.txt", "\n\n".join(bodies))

    def emitted(self, source: str) -> None:
        """Write the source of the MLX model."""
        if self.folder is not None:
            self._write("5-model.py", source)

    def failed(self, error: Exception) -> None:
        """Write why the conversion failed."""
        try:
            self._write("failed.txt", f"{type(error).__name__}: {error}")
        except CheckpointError as unwritable:  # the failure is what counts
            _logger.debug("%s", unwritable)

    def _write(self, name: str, text: str) -> None:
        if self.folder is None:
            return
        try:
            (self.folder / name).write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        except OSError as error:
            raise CheckpointError(
                f"{self.folder / name} cannot be written: {error.strerror}"
            ) from error


@contextmanager
def debugging(folder: Path | None) -> Iterator[DebugFolder]:
    """Write down what the stages within give, and the failure if there is one.

    Args:
        folder: where to write; None to write nothing.
    """
    debug = DebugFolder(folder)
    try:
        yield debug
    except Exception as error:
        debug.failed(error)
        raise


def _leaves(captured: Captured) -> Iterator[str]:
    """Yield one line for each module: its path, its class, whether it is a leaf and why."""
    rows = []
    for path, module in captured.model.named_modules(remove_duplicate=False):
        place = captured.sharing.module(path)
        if path != place:
            told = f"the module that stands at {place}"
        elif path in captured.leaves:
            told = f"a leaf by the rule for {captured.leaves[path].name}"
        elif path in captured.obstacles:
            told = f"no leaf: {captured.obstacles[path]}"
        else:
            held = any(True for _ in module.children())
            told = "no leaf: it calls the modules it holds" if held else "not called"
        rows.append((path or "(the model)", type(module).__qualname__, told))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip()


def _pass(number: int, outcome: PassOutcome) -> Iterator[str]:
    """Yield the lines on one pass of the lowering."""
    lowered, tally = outcome.lowered, outcome.tally
    kept = "kept" if outcome.kept else "not kept"
    yield f"pass {number}: {lowered.transposes} transposes a call, {kept}"
    demands = {p: Counter(map(_order, orders)) for p, orders in lowered.scope.demands.items()}
    asked = (
        f"{provenance}: {', '.join(f'{order} x{count}' for order, count in counts.items())}"
        for provenance, counts in demands.items()
    )
    bodies = (
        f"{path or 'the model'}: {body.transposes}"
        for path, body in lowered.bodies.items()
        if body.transposes
    )
    yield from _section("axis orders preferred", _preferred(outcome.preferences))
    yield from _section("axis orders that consumers ask for", asked)
    yield from _section("transposes, by class", bodies)
    yield from _section("calls written in place", _pairs(lowered.inlined))
    yield from _section("modules whose rules refuse", _pairs(tally.refusals))
    yield from _section("without an MLX counterpart", (gap.to_text() for gap in tally.gaps()))


def _section(heading: str, lines: Iterable[str]) -> Iterator[str]:
    listed = list(lines)
    if listed:
        yield from ["", heading, *(f"  {line}" for line in listed)]


def _preferred(preferences: Mapping[Provenance, Order]) -> Iterator[str]:
    yield from (f"{provenance}: {_order(order)}" for provenance, order in preferences.items())


def _pairs(reasons: Mapping[str, str]) -> Iterator[str]:
    yield from (f"{path}: {reason}" for path, reason in reasons.items())


def _order(order: Sequence[int]) -> str:
    return order_text(tuple(order)) or "PyTorch's"


# -- captured graphs, without the values of tensors and without addresses --------------------------


def _graphs_text(root: torch.nn.Module) -> str:
    """Return the graphs of a captured program and of its modules, in the order of their calls.

    Args:
        root: the program with its module hierarchy, as torch.export unflattens it.
    """
    return "\n\n".join(_graph_blocks(root, ""))


def _graph_blocks(module: torch.nn.Module, path: str) -> Iterator[str]:
    graph: Any = module.graph
    lines = [f"graph of {path or 'the model'}", *(f"  {_node_line(node)}" for node in graph.nodes)]
    yield "\n".join(lines)
    called = dict.fromkeys(str(n.target) for n in graph.nodes if n.op == "call_module")
    for name in called:
        yield from _graph_blocks(module.get_submodule(name), f"{path}.{name}" if path else name)


def _node_line(node: Node) -> str:
    if node.op == "output":
        return f"return {_argument_text(node.args[0])}"
    tensors = [v for v in tree_leaves(node.meta.get("val")) if isinstance(v, torch.Tensor)]
    gives = f"{node.name}: {', '.join(map(_type_of, tensors))}" if tensors else node.name
    if node.op == "placeholder":
        return gives
    if node.op == "get_attr":
        return f"{gives} = self.{node.target}"
    arguments = [*map(_argument_text, node.args)]
    arguments += [f"{name}={_argument_text(value)}" for name, value in node.kwargs.items()]
    called = f"self.{node.target}" if node.op == "call_module" else _called(node.target)
    return f"{gives} = {called}({', '.join(arguments)})"


def _type_of(tensor: torch.Tensor) -> str:
    shape = ", ".join(map(str, tensor.shape)) + ("," if tensor.ndim == 1 else "")
    return f"{str(tensor.dtype).removeprefix('torch.')} ({shape})"


def _called(target: Any) -> str:
    return str(target) if isinstance(target, torch._ops.OpOverload) else target.__name__


def _argument_text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        items = ", ".join(map(_argument_text, value))
        return f"[{items}]" if isinstance(value, list) else f"({items}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k!r}: {_argument_text(v)}' for k, v in value.items())}}}"
    return value.name if isinstance(value, Node) else repr(value)
