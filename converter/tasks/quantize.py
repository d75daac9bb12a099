"""Quantise the weights of a converted model in its folder, and measure what that costs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.nn as nn
import torch
from mlx.utils import tree_flatten

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.keys.bind import recorded
from mlxport.converter.errors import ConversionError
from mlxport.converter.graph.translate import Translation
from mlxport.converter.options.output import Extent
from mlxport.converter.output.contents import (
    open_weights,
    weight_files,
    write_quantized,
    write_weights,
)
from mlxport.converter.output.lineage import record_lineage
from mlxport.converter.output.live_model import live_model
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.run.caches import caches_as_arrays
from mlxport.converter.parity.run.cost import layer_costs, output_costs
from mlxport.converter.parity.run.interface import mlx_arguments, output_names
from mlxport.converter.parity.run.replay_draws import replayed
from mlxport.converter.parity.run.state_runs import StateRuns
from mlxport.converter.parity.run.trace import run_model
from mlxport.converter.parity.run.verify import verify_at_sizes
from mlxport.converter.parity.verdict.judgement import Judgement
from mlxport.converter.parity.verdict.reference_data import Reference
from mlxport.converter.plan.fold_steps import MergeLowRank
from mlxport.converter.plan.quantize_step import Quantize, Quantized, Settings
from mlxport.converter.plan.record import Conversion, Digests
from mlxport.converter.plan.tensor import Tensor, TensorSpec, from_mlx
from mlxport.converter.plan.torch_tensor import tensor_to_torch
from mlxport.converter.plan.weight_plan import Entry, WeightPlan
from mlxport.converter.torch_model.loading_code import state_of

_logger = logging.getLogger(__name__)

# Layers whose rows MLX quantises; a subclass may compute something else.
_LAYERS = (nn.Linear, nn.Embedding)
_FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Whole:
    """A conversion whose parity holds, before its weights are quantised.

    Attributes:
        folder: what was written.
        model: the torch model.
        translation: of it.
        conversion: the record as written.
        plan: as it was carried out, by the keys of ``checkpoint``.
        checkpoint: the weights.
        state: the tensors taken, those the checkpoint lacks included.
        references: what PyTorch computed, at the example's sizes first.
        live: the MLX model.
        report: what parity said.
        original_keys: key of ``checkpoint`` -> that in the file, where keys were renamed.
        extent: how much is stored of the references.
    """

    folder: Path
    model: torch.nn.Module
    translation: Translation
    conversion: Conversion
    plan: WeightPlan
    checkpoint: Checkpoint
    state: Mapping[str, Tensor]
    references: tuple[Reference, ...]
    live: nn.Module
    report: ParityReport
    original_keys: Mapping[str, str]
    extent: Extent = "bounded"


def quantize_folder(
    whole: Whole,
    settings: Settings,
    record: Callable[[], Iterable[Reference]],
    *,
    max_shard_size: int | None = None,
) -> tuple[nn.Module, Conversion, ParityReport]:
    """Put quantised weights in the place of a folder's, with what loads and verifies them.

    The references become those of the torch model with the dequantised weights: MLX is
    compared with them, and how far they moved is what quantisation costs.

    Args:
        whole: the conversion.
        settings: how to quantise.
        record: runs the torch model as it ran for the references of ``whole``.
        max_shard_size: of the data in a file.

    Returns:
        The quantised model, its record and its report.

    Raises:
        ConversionError: no layer can be quantised; all are listed with the reasons.
    """
    layers, left = _choose(whole, settings)
    before = _size(whole.folder)
    plan = quantized_plan(whole.plan, layers, settings)
    digests = _rewrite(whole, plan, max_shard_size)
    by_model = quantized_plan(whole.translation.conversion.plan, layers, settings)
    with carrying(whole.model, dequantized(by_model, open_weights(whole.folder).tensors)):
        references = tuple(reference.complete() for reference in record())
    done = _measured(whole, references, settings, (layers, left), before)
    in_file = recorded(plan, whole.checkpoint, whole.original_keys)
    conversion = replace(whole.conversion, plan=in_file, quantized=done, digests=digests)
    source = whole.translation.model_py.text(quantized=True)
    conversion = write_quantized(whole.folder, source, conversion, references, whole.extent)
    built = live_model(whole.folder)
    record_lineage(built, conversion, by_model)
    judgement = Judgement(whole.report.noise_multiple)
    report = verify_at_sizes(built, conversion, references, judgement=judgement)
    return built, conversion, report


def _measured(
    whole: Whole,
    references: tuple[Reference, ...],
    settings: Settings,
    chosen: tuple[tuple[str, ...], dict[str, str]],
    before: int,
) -> Quantized:
    """Return the record of what was quantised, and how far that moves PyTorch's results."""
    first = whole.references[0], references[0]
    names = output_names(whole.conversion, whole.references[0])
    return Quantized(
        settings,
        *chosen,
        (before, _size(whole.folder)),
        whole.report.verdict,
        output_costs(*first, names),
        layer_costs(*first),
    )


def _rewrite(whole: Whole, plan: WeightPlan, max_shard_size: int | None) -> Digests:
    """Write the weights of a folder anew, by another plan; return what they are."""
    for file in [*weight_files(whole.folder), *whole.folder.glob("*.safetensors.index.json")]:
        file.unlink()
    written = write_weights(
        whole.folder,
        plan,
        whole.checkpoint,
        whole.original_keys,
        state=whole.state,
        constants=whole.translation.constants,
        max_shard_size=max_shard_size,
        stem=whole.conversion.stem,
    )
    return written.digests


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in weight_files(folder))


def quantized_plan(plan: WeightPlan, layers: Iterable[str], settings: Settings) -> WeightPlan:
    """Return the plan that quantises the weights of some layers at the end of their steps."""
    weights = {f"{path}.weight" for path in layers}

    def quantized(entry: Entry) -> Entry:
        at = tuple(i for i, name in enumerate(entry.targets) if name in weights)
        if not at:
            return entry
        targets_before = entry.apply(tuple(plan.specs[key].outline() for key in entry.sources))
        dtypes = tuple(targets_before[i].dtype for i in at)
        step = Quantize(settings.bits, settings.group_size, settings.mode, at, dtypes)
        targets: list[str] = []
        for name in entry.targets:
            layer = name.removesuffix("weight")
            targets += [layer + part for part in step.parts] if name in weights else [name]
        return Entry(entry.sources, tuple(targets), (*entry.steps, step))

    return replace(plan, entries=tuple(map(quantized, plan.entries)))


def dequantized(plan: WeightPlan, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return source key -> the value that its quantised form stands for, of those that have one."""
    found: dict[str, Tensor] = {}
    for entry in plan.entries:
        if any(isinstance(step, Quantize) for step in entry.steps):
            tensors = entry.invert(tuple(weights[name] for name in entry.targets))
            found.update(zip(entry.sources, tensors, strict=True))
    return found


def live_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the arrays of a live MLX model."""
    parameters: Any = tree_flatten(model.parameters())
    return {name: from_mlx(array) for name, array in parameters}


@contextmanager
def carrying(model: torch.nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Let a torch model have other values, by the keys of its state dict, for a while."""
    tensors = state_of(model)
    before = {key: tensors[key].data for key in values}
    try:
        for key, value in values.items():
            tensors[key].data = tensor_to_torch(value).to(tensors[key].device, tensors[key].dtype)
        yield
    finally:
        for key, tensor in before.items():
            tensors[key].data = tensor


def _choose(whole: Whole, settings: Settings) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the paths of the layers to quantise, and why the others of their kind are not."""
    modules = {p: m for p, m in whole.live.named_modules() if type(m) in _LAYERS}
    plan = whole.translation.conversion.plan
    entries = {name: entry for entry in plan.entries for name in entry.targets}
    uses = Counter(plan.ties.get(k, k) for entry in plan.entries for k in entry.sources)
    read, specs = _read_elsewhere(whole, modules), plan.target_specs(plan.specs)
    left: dict[str, str] = {}
    adapters = _of_adapter(whole)
    for path, module in modules.items():
        size = module.weight.shape[-1]
        entry = entries.get(f"{path}.weight")
        if f"{path}.weight" in adapters:
            left[path] = "its weight is the adapter's, which is trained"
        elif size % settings.group_size:
            left[path] = f"rows of {size} do not divide into groups of {settings.group_size}"
        elif entry is None:
            left[path] = "its weight comes with the model, not with the checkpoint"
        elif path in read:
            left[path] = "model.py reads its weight besides calling it"
        elif any(uses[plan.ties.get(key, key)] > 1 for key in entry.sources):
            left[path] = "in PyTorch its weight is one tensor with another's"
        elif why := _obstacle(entry, specs, path):
            left[path] = why
        elif type(module) is nn.Embedding and _gives_bfloat16(settings, specs, path):
            left[path] = f"MLX's quantized embedding gives bfloat16 in mode {settings.mode}"
    if len(left) == len(modules):
        raise ConversionError.listing(
            f"{argument('quantize')}: no Linear or Embedding of {len(modules)} can be quantized to "
            f"{settings}:",
            (f"{path}: {why}" for path, why in left.items()),
        )
    return tuple(path for path in modules if path not in left), left


def _obstacle(entry: Entry, specs: Mapping[str, TensorSpec], path: str) -> str:
    """Return why the weight of a layer cannot be quantised; empty where it can."""
    if specs[f"{path}.weight"].dtype not in _FLOATS:
        return f"its weight is {specs[f'{path}.weight'].dtype}"
    try:
        entry.invert(tuple(specs[name].outline() for name in entry.targets))
    except ConversionError as error:
        _logger.debug("%s is not quantized: %s", path, error)
        what = "an adapter was merged" if _is_merged(entry) else "a norm was folded"
        return f"{what} into its weight, so PyTorch cannot be given the quantized one"
    return ""


def _is_merged(entry: Entry) -> bool:
    return any(isinstance(step, MergeLowRank) for step in entry.steps)


def _of_adapter(whole: Whole) -> set[str]:
    """Return the MLX parameters that come from an adapter beside its base."""
    record = whole.conversion.adapter
    if record is None or record.merged:
        return set()
    entries = (entry for entry in whole.plan.entries if {*record.keys} & {*entry.sources})
    return {name for entry in entries for name in entry.targets}


def _gives_bfloat16(settings: Settings, specs: Mapping[str, TensorSpec], path: str) -> bool:
    return settings.mode != "affine" and specs[f"{path}.weight"].dtype != "BF16"


def _read_elsewhere(whole: Whole, modules: Mapping[str, nn.Module]) -> set[str]:
    """Return the layers whose weight is read by others than their own calls, in one run."""
    paths = {id(module): path for path, module in modules.items()}
    found: set[str] = set()
    inside: list[bool] = []

    def watched(cls: type[nn.Module]) -> type[nn.Module]:
        def calling(method: Callable[..., Any]) -> Callable[..., Any]:
            def call(self: nn.Module, x: Any) -> Any:
                inside.append(True)
                try:
                    return method(self, x)
                finally:
                    inside.pop()

            return call

        def read(self: nn.Module, key: str) -> Any:
            if key == "weight" and not inside:
                found.add(paths[id(self)])
            return cls.__getattr__(self, key)

        calls = [name for name in ("__call__", "as_linear") if hasattr(cls, name)]
        watching = {name: calling(getattr(cls, name)) for name in calls}
        return type(cls.__name__, (cls,), {**watching, "__getattr__": read})

    classes = {cls: watched(cls) for cls in set(map(type, modules.values()))}
    reference, conversion = whole.references[0], whole.conversion
    root = next(record for record in conversion.modules if record.path == "")
    inputs, named = mlx_arguments(root, conversion, reference)
    kinds = {path: type(module) for path, module in modules.items()}
    try:
        for path, module in modules.items():
            module.__class__ = classes[kinds[path]]
        state = StateRuns(whole.live, conversion.state)
        with (
            caches_as_arrays(whole.live, conversion),
            replayed(reference.draws, conversion.draws),
            state.from_the_beginning(),
        ):
            run_model(whole.live, inputs, named)
    finally:
        for path, module in modules.items():
            module.__class__ = kinds[path]
    return found
