"""Analyze a model: what a conversion would make of it, before anything is built in MLX.

The model is captured and lowered as for a conversion; the result is counted and dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from enum import Enum, auto
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mlxport.converter.graph import ops
from mlxport.converter.graph.capture.capture import capture
from mlxport.converter.graph.ir.body import Lowered
from mlxport.converter.graph.ir.naming import ModuleKind, is_inlined, kind_of
from mlxport.converter.graph.ir.sizes import size_text
from mlxport.converter.graph.ir.user_files import is_mlx, is_ours
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.lowering.lower import attempt
from mlxport.converter.graph.lowering.problems import THE_MODEL, Tally
from mlxport.converter.options.adapter import AdapterOptions
from mlxport.converter.options.capture import CaptureOptions
from mlxport.converter.options.source import SourceOptions
from mlxport.converter.tasks.analysis.coverage import Analysis, AnalyzedTensor, Modules, Ops, Share
from mlxport.converter.tasks.loading.load_adapter import load_adapter
from mlxport.converter.tasks.loading.load_source_model import loaded_model
from mlxport.converter.torch_model.caches import caches_as_tensors
from mlxport.converter.torch_model.example_inputs import example_call
from mlxport.converter.torch_model.factory import Factory
from mlxport.converter.torch_model.model_kinds import as_torch_module
from mlxport.converter.torch_model.model_state import eval_mode, left_as_it_was


class _Fate(Enum):
    COVERED = auto()
    UNUSED = auto()
    UNSUPPORTED = auto()


class _Way(NamedTuple):
    """What becomes of a module: whether it is covered, and by what, in words."""

    fate: _Fate
    becomes: str


_UNUSED = _Way(_Fate.UNUSED, "not used in eval mode")
_UNSUPPORTED = _Way(_Fate.UNSUPPORTED, "unsupported")


def analyze_model(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    capturing: CaptureOptions,
    adapting: AdapterOptions | None = None,
    **casting: Any,
) -> Analysis:
    """Analyze a torch model; see ``mlxport.analyze``.

    Args:
        model: the torch model.
        args: positional example inputs.
        kwargs: keyword example inputs.
        capturing: how it is captured.
        adapting: the adapter that goes into it first; None for none.
        casting: how tensors of the adapter are cast, as for `load_adapter`.
    """
    model = as_torch_module(model)
    with ExitStack() as stack:
        stack.enter_context(left_as_it_was(model))
        stack.enter_context(eval_mode(model))
        if adapting is not None:
            adapter = load_adapter(model, adapting, **casting)
            stack.enter_context(adapter.as_translated(model))
        captured = capture(model, args, kwargs, handled=ops.registry.OPS, dynamic=capturing.dynamic)
        lowered, tally = attempt(captured, channels_last_ends=capturing.channels_last)
        body = lowered.bodies[""]
        ways = Ways(model, lowered, tally)
        counted = _ops(tally)
        covered, total, unused = ways.parameters()
        return Analysis(
            model=type(model).__name__,
            inputs=_tensors(captured.signature.tensors(), body.inputs, body.sizes.names),
            outputs=_tensors(
                captured.signature.result.tensors("output"), body.outputs, body.sizes.names
            ),
            modules=ways.modules(),
            ops=counted,
            unsupported=tuple(tally.gaps()),
            modules_covered=ways.share(),
            ops_covered=Share(sum(op.covered for op in counted), sum(op.count for op in counted)),
            parameters_covered=Share(covered, total),
            parameters_unused=unused,
        )


def analyze_checkpoint(
    source: str | Path,
    model: str | torch.nn.Module | Factory,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    *,
    reading: SourceOptions,
    capturing: CaptureOptions,
    adapting: AdapterOptions | None = None,
) -> Analysis:
    """Analyze what ``convert_checkpoint`` would do with the same arguments.

    Raises:
        ConversionError: the checkpoint does not fit the model, or the model cannot be captured.
    """
    with loaded_model(source, model, reading) as loaded:
        args = example_call(loaded.model, inputs, kwargs)
        with caches_as_tensors(args):
            return analyze_model(loaded.model, *args, capturing, adapting, **reading.casting)


class Ways:
    """What becomes of every module of a model: a layer, part of one, a class or a list."""

    def __init__(self, model: torch.nn.Module, lowered: Lowered, tally: Tally) -> None:
        self.model = model
        self.lowered = lowered
        self.tally = tally
        problems = {problem.module for problem in tally.problems.values()}
        self.failing = {"" if path == THE_MODEL else path for path in problems}
        read = [*tally.walked, *lowered.leaves, *lowered.arrays]
        self.used = {above for path in read for above in _above(path)}
        paths = [path for path, _ in model.named_modules(remove_duplicate=False)]
        self.ways = {path: self._way(path) for path in paths}

    def modules(self) -> tuple[Modules, ...]:
        """Return the modules by class, way and reason, in the order of their first."""
        counts: Counter[tuple[str, _Way, str]] = Counter()
        for path, module in self.model.named_modules():
            reason = self.tally.refusals.get(path, "")
            counts[type(module).__qualname__, self.ways[path], reason] += 1
        return tuple(
            Modules(name, count, way.becomes, way.fate is not _Fate.UNSUPPORTED, reason)
            for (name, way, reason), count in counts.items()
        )

    def share(self) -> Share:
        """Return how many modules are covered, of those that are used."""
        fates = Counter(self.ways[path].fate for path, _ in self.model.named_modules())
        return Share(fates[_Fate.COVERED], fates[_Fate.COVERED] + fates[_Fate.UNSUPPORTED])

    def parameters(self) -> tuple[int, int, int]:
        """Return how many numbers are covered, used and unused."""
        fates: dict[int, tuple[int, set[_Fate]]] = {}
        for path, tensor in self.model.named_parameters(remove_duplicate=False):
            found = fates.setdefault(id(tensor), (tensor.numel(), set()))[1]
            found.add(self._parameter(path))
        covered = sum(size for size, found in fates.values() if _Fate.COVERED in found)
        unused = sum(size for size, found in fates.values() if found == {_Fate.UNUSED})
        return covered, sum(size for size, _ in fates.values()) - unused, unused

    def _parameter(self, path: str) -> _Fate:
        owner = path.rpartition(".")[0]
        if path in self.lowered.arrays or self._leaf_above(owner) is not None:
            return self.ways[owner].fate
        unsupported = self.ways[owner].fate is _Fate.UNSUPPORTED
        return _Fate.UNSUPPORTED if unsupported else _Fate.UNUSED

    def _leaf_above(self, path: str) -> str | None:
        return next((leaf for leaf in _above(path) if leaf in self.lowered.leaves), None)

    def _way(self, path: str) -> _Way:
        module = self.model.get_submodule(path)
        leaf = self._leaf_above(path)
        if path in self.failing:
            return _UNSUPPORTED
        if leaf is not None:
            name = _spelled(self.lowered.leaves[leaf].spec.target)
            return _Way(_Fate.COVERED, name if leaf == path else f"part of {name}")
        if path not in self.used:
            return _UNUSED
        kind = kind_of(module)
        if kind is not ModuleKind.CLASS:
            return _Way(_Fate.COVERED, f"a {kind.value}")
        inlined = is_inlined(module)
        return _Way(_Fate.COVERED, "op by op" if inlined else "a class of its own, op by op")


def _above(path: str) -> Iterator[str]:
    """Yield a path and those above it, the model's first."""
    yield ""
    parts = path.split(".") if path else []
    yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


def _spelled(target: Any) -> str:
    name = str(getattr(target, "__name__", target))
    if is_mlx(target):
        return f"mlx.nn.{name}"
    return f"layers.{name}" if is_ours(target) else f"{target.__module__}.{name}"


def _ops(tally: Tally) -> tuple[Ops, ...]:
    counts = Counter(tally.ops.values())
    failed = Counter(tally.ops[node] for node in tally.problems if node in tally.ops)
    return tuple(Ops(name, counts[name], counts[name] - failed[name]) for name in sorted(counts))


def _tensors(
    names: Sequence[str], values: Iterable[Value], sizes: Mapping[str, str]
) -> tuple[AnalyzedTensor, ...]:
    return tuple(
        AnalyzedTensor(
            name,
            str(v.dtype).removeprefix("torch."),
            tuple(n if isinstance(n, int) else size_text(n, sizes) for n in v.shape),
        )
        for name, v in zip(names, values, strict=True)
    )
