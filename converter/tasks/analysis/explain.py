"""Explain a conversion: for each module of a model, what became of it and why.

The model is captured and lowered as for a conversion, and its source is written; what the stages
decided is read off their results.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mlxport.converter.errors import OptionsError
from mlxport.converter.graph import ops
from mlxport.converter.graph.capture.capture import Captured, capture
from mlxport.converter.graph.capture.leaves import plain_path
from mlxport.converter.graph.ir.body import Lowered
from mlxport.converter.graph.ir.naming import ModelNames
from mlxport.converter.graph.lowering.lower import attempt
from mlxport.converter.graph.lowering.problems import Tally
from mlxport.converter.graph.lowering.weight_plan import weight_plan
from mlxport.converter.graph.source.line_numbers import SourceLine, SourceLines
from mlxport.converter.graph.source.model_py import write_model
from mlxport.converter.graph.translate import size_conditions
from mlxport.converter.options.adapter import AdapterOptions
from mlxport.converter.options.capture import CaptureOptions
from mlxport.converter.options.source import SourceOptions
from mlxport.converter.plan.weight_plan import WeightPlan
from mlxport.converter.tasks.analysis.analyze import Ways
from mlxport.converter.tasks.analysis.explanation import (
    ExplainedCall,
    ExplainedModule,
    ExplainedTensor,
    Explanation,
)
from mlxport.converter.tasks.loading.load_adapter import load_adapter
from mlxport.converter.tasks.loading.load_source_model import loaded_model
from mlxport.converter.torch_model.caches import caches_as_tensors
from mlxport.converter.torch_model.calls import in_order
from mlxport.converter.torch_model.example_inputs import example_call
from mlxport.converter.torch_model.factory import Factory
from mlxport.converter.torch_model.model_kinds import as_torch_module
from mlxport.converter.torch_model.model_state import eval_mode, left_as_it_was


def explain_model(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    path: str | None,
    capturing: CaptureOptions,
    adapting: AdapterOptions | None = None,
    **casting: Any,
) -> Explanation:
    """Explain the conversion of a torch model; see ``mlxport.explain``.

    Args:
        model: the torch model.
        args: positional example inputs.
        kwargs: keyword example inputs.
        path: of the module that is explained; None for all.
        capturing: how the model is captured.
        adapting: the adapter that goes into it first and stays apart; None for none.
        casting: how tensors of the adapter are cast, as for `load_adapter`.
    """
    model = as_torch_module(model)
    if adapting is not None:
        with left_as_it_was(model):
            load_adapter(model, adapting, **casting)
            return explain_model(model, args, kwargs, path, capturing)
    paths = [name for name, _ in model.named_modules(remove_duplicate=False)]
    if path is not None and path not in paths:
        close = difflib.get_close_matches(path, paths, n=5) or [p for p in paths if p][:5]
        raise OptionsError.listing(
            f"{type(model).__name__} has no module {path!r}. Close to that:", close
        )
    with left_as_it_was(model), eval_mode(model):
        captured = capture(model, args, kwargs, handled=ops.registry.OPS, dynamic=capturing.dynamic)
        lowered, tally = attempt(captured, channels_last_ends=capturing.channels_last)
    if lowered.size_names and not tally.problems:
        call = in_order(model, args, kwargs)
        lowered.conditions = size_conditions(captured, lowered, model, *call)
    explainer = _Explainer(captured, lowered, tally)
    return Explanation(
        model=type(model).__name__,
        modules=tuple(explainer.module(p) for p in (paths if path is None else [path])),
        path=path,
        transposes=lowered.transposes,
        unsupported=tuple(gap.to_text() for gap in tally.gaps()),
    )


def explain_checkpoint(
    source: str | Path,
    model: str | torch.nn.Module | Factory,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    path: str | None,
    *,
    reading: SourceOptions,
    capturing: CaptureOptions,
    adapting: AdapterOptions | None = None,
) -> Explanation:
    """Explain what ``convert_checkpoint`` does with the same arguments.

    Raises:
        ConversionError: the checkpoint does not fit the model, or the model cannot be captured.
    """
    with loaded_model(source, model, reading) as loaded:
        args = example_call(loaded.model, inputs, kwargs)
        with caches_as_tensors(args):
            return explain_model(loaded.model, *args, path, capturing, adapting, **reading.casting)


class _Explainer:
    """Reads what became of each module off the results of a conversion's stages."""

    def __init__(self, captured: Captured, lowered: Lowered, tally: Tally) -> None:
        self.captured, self.lowered, self.tally = captured, lowered, tally
        self.model = captured.model
        self.names = ModelNames(self.model)
        self.ways = Ways(self.model, lowered, tally).ways
        # what cannot be lowered has no source, and its tensors no plan
        whole = not tally.problems
        model_py = write_model(lowered, self.names) if whole else None
        self.source = None if model_py is None else SourceLines(model_py.text())
        self.classes = {} if model_py is None else model_py.class_of
        self.plan = weight_plan(lowered, self.names) if whole else WeightPlan()

    def module(self, path: str) -> ExplainedModule:
        """Return what became of the module at a path."""
        place = self.captured.sharing.module(path)
        body = self.lowered.bodies.get(place)
        called = place in self.lowered.leaves or place in self.classes
        return ExplainedModule(
            path=path,
            torch_class=type(self.model.get_submodule(path)).__qualname__,
            becomes=self.ways[place].becomes,
            why=self._why(path, place),
            target=self.names.target(place) if called else "",
            source_class=self.classes.get(place, ""),
            lines=tuple(self._lines(place)),
            calls=tuple(
                ExplainedCall(record.inputs, record.outputs)
                for record in self.lowered.records
                if record.path == place
            ),
            tensors=tuple(self._tensors(path)),
            transposes=None if body is None else body.transposes,
            inlined=tuple(dict.fromkeys(self._inlined(place))),
        )

    def _why(self, path: str, place: str) -> str:
        """Return why a module became what it is, in one line."""
        if path != place:
            return f"it is the module that stands at {place}"
        for problem in self.tally.problems.values():
            if plain_path(problem.module) == path:
                return f"{problem.op} has no MLX counterpart: {problem.reason}"
        above = next((p for p in _above(path) if p in self.lowered.leaves), path)
        if above != path:
            return f"it is part of {above}, which is one layer"
        if path in self.lowered.leaves:
            rule = self.captured.leaves[path]
            if rule.trusted:
                return f"a rule is registered for {rule.name}, and trusted"
            if rule.idiom:
                return f"each call computes what {rule.target} does"
            return f"each call is the one op that the rule for {rule.name} stands for"
        if path in self.tally.refusals:
            return f"its rule refuses: {self.tally.refusals[path]}"
        if path in self.captured.obstacles:
            return f"no layer: {self.captured.obstacles[path]}"
        if path in self.captured.leaves:
            return "a layer, but no part of it is called"
        holds = any(True for _ in self.model.get_submodule(path).children())
        return "it calls the modules it holds" if holds else "nothing it computes is used"

    def _lines(self, path: str) -> Iterator[SourceLine]:
        """Yield the lines of model.py that define, build and call a module."""
        if self.source is None:
            return
        if path in self.classes:
            yield self.source.of_class(self.classes[path])
        if path:
            owner = next(p for p in reversed([*_above(path)]) if p in self.classes)
            reference: ast.expr = self.names.reference(owner, path)
            yield from self.source.building(self.classes[owner], reference)
            yield from self.source.calling(self.classes[owner], reference)

    def _tensors(self, path: str) -> Iterator[ExplainedTensor]:
        """Yield what happens to a module's tensors; of a layer, to those of its parts too."""
        whole = path in self.lowered.leaves

        def belongs(key: str) -> bool:
            parent = key.rpartition(".")[0]
            return parent == path or (whole and parent.startswith(f"{path}."))

        for entry in self.plan.entries:
            if any(map(belongs, entry.sources)):
                how = ", ".join(map(str, entry.steps)) or "bit for bit"
                yield ExplainedTensor(entry.sources, entry.targets, how)
        for key, other in self.plan.aliases.items():
            if belongs(key):
                yield ExplainedTensor((key,), (), f"the same tensor as {other}")
        for key, reason in self.plan.ignored.items():
            if belongs(key):
                yield ExplainedTensor((key,), (), f"left out: {reason}")

    def _inlined(self, place: str) -> Iterator[str]:
        for call, reason in self.lowered.inlined.items():
            if self.captured.place(call) == place:
                yield reason


def _above(path: str) -> Iterator[str]:
    """Yield the paths above a path, the model's first."""
    segments = path.split(".") if path else []
    yield from (".".join(segments[:i]) for i in range(len(segments)))
