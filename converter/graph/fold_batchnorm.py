"""Fold every BatchNorm that can be into the convolution or linear layer whose output it takes.

On the torch model: for a while it has one layer with a bias where there were two, and an Identity
in the place of the norm. So it is captured and emitted; the plan makes its weights of the tensors
the model has otherwise, and parity holds the layer to the two it stands for.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.export import export
from torch.fx import Node

from mlxport.converter.graph.capture.dynamic import DynamicSizes
from mlxport.converter.graph.capture.leaves import plain_path
from mlxport.converter.graph.capture.trial_runs import copied
from mlxport.converter.graph.debug_folder import DebugFolder
from mlxport.converter.graph.lowering.weight_plan import state_tensors
from mlxport.converter.graph.translate import Translation, translate
from mlxport.converter.plan.fold_steps import FoldBatchNormBias, FoldBatchNormWeight
from mlxport.converter.plan.record import Conversion, ModuleRecord, Stem
from mlxport.converter.plan.tensor import TensorSpec
from mlxport.converter.plan.torch_tensor import tensor_from_torch, tensor_to_torch
from mlxport.converter.plan.weight_plan import Entry, WeightPlan
from mlxport.converter.timings import stage
from mlxport.converter.torch_model.calls import in_order
from mlxport.converter.torch_model.loading_code import state_of
from mlxport.converter.torch_model.model_state import eval_mode, left_as_it_was

_logger = logging.getLogger(__name__)

_NORM = "aten.batch_norm.default"
_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, torch.nn.SyncBatchNorm)
_TRANSPOSED = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)
_LAYERS = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d, *_TRANSPOSED)
_COUNTER = "counts training batches, and no BatchNorm is left"


@dataclass(frozen=True)
class Folds:
    """What was folded, and what was not.

    Attributes:
        layers: path of a BatchNorm -> path of the layer it is folded into.
        kept: path of a BatchNorm that stays -> why.
    """

    layers: Mapping[str, str]
    kept: Mapping[str, str]

    def note(self) -> str:
        """Say what was done, in one sentence."""
        done = f"{len(self.layers)} BatchNorms were folded into the layers before them"
        if not self.kept:
            return done
        listed = ", ".join(f"{path} ({reason})" for path, reason in self.kept.items())
        return f"{done}; kept were {listed}"


@stage("fold")
def fold_batchnorm(
    model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> Folds:
    """Find the BatchNorms of a model, as they are in evaluation, that can be folded.

    A BatchNorm is folded where nothing else reads the output of the layer before it, both are
    called once, and their tensors are theirs alone: then the two are one layer up to rounding.
    """
    with eval_mode(model), left_as_it_was(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = export(model, *copied(*in_order(model, args, kwargs)), strict=False)
        except Exception:  # the capture that follows meets it again, and says what to change
            _logger.debug("no BatchNorm is folded: torch.export fails", exc_info=True)
            return Folds({}, {})
    reader = _Reader(model, program)
    layers, kept = {}, {}
    for node in program.graph.nodes:
        if str(node.target) == _NORM:
            norm = reader.path_of(node)
            layer, reason = reader.layer_before(node)
            if reason:
                kept[norm] = reason
            else:
                layers[norm] = layer
    return Folds(layers, kept)


def translate_folded(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    channels_last: bool = False,
    dynamic: DynamicSizes | None = None,
    stem: Stem = "weights",
    debug: DebugFolder | None = None,
) -> tuple[Translation, str]:
    """Translate a torch model with its BatchNorms folded, and say which were.

    As `translate`; the plan's sources are keys of the state dict of the model that is given.
    """
    folds = fold_batchnorm(model, args, kwargs)
    options: dict[str, Any] = {"channels_last": channels_last, "dynamic": dynamic, "stem": stem}
    with _folded(model, folds.layers):
        translation = translate(model, args, kwargs, debug=debug, **options)
    return (_with_folds(translation, folds, model) if folds.layers else translation), folds.note()


def _with_folds(translation: Translation, folds: Folds, model: torch.nn.Module) -> Translation:
    """Return the translation of a folded model as one of the model that was given."""
    conversion = translation.conversion
    norms = {layer: norm for norm, layer in folds.layers.items()}
    records = tuple(_record(record, norms) for record in conversion.modules)
    plan = _plan(conversion, norms, model)
    return replace(translation, conversion=replace(conversion, plan=plan, modules=records))


class _Reader:
    """Reads a captured program: which module each op belongs to, and who else reads what."""

    def __init__(self, model: torch.nn.Module, program: Any) -> None:
        self.model = model
        signature = program.graph_signature
        self.names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self.times: dict[int, int] = {}
        for _, module in model.named_modules(remove_duplicate=False):
            self.times[id(module)] = self.times.get(id(module), 0) + 1
        self.holders: dict[int, int] = {}
        for tensor in [
            *(p for _, p in model.named_parameters(remove_duplicate=False)),
            *(b for _, b in model.named_buffers(remove_duplicate=False)),
        ]:
            self.holders[id(tensor)] = self.holders.get(id(tensor), 0) + 1

    def path_of(self, node: Node) -> str:
        """Return the innermost module a node belongs to."""
        *_, (path, _) = (node.meta.get("nn_module_stack") or {"": ("", None)}).values()
        return plain_path(str(path))

    def layer_before(self, norm: Node) -> tuple[str, str]:
        """Return the layer whose output a BatchNorm takes, or why it is not to be folded."""
        path = self.path_of(norm)
        module = self.model.get_submodule(path)
        if type(module) not in _NORMS or not self._stands_alone(norm, path):
            return "", "it is no BatchNorm of PyTorch's own, called once, with tensors of its own"
        if module.running_var is None:
            return "", "it keeps no statistics"
        before = norm.args[0]
        if not isinstance(before, Node) or before.op != "call_function":
            return "", "it takes the output of no layer"
        layer = self.path_of(before)
        found = self.model.get_submodule(layer)
        if type(found) not in _LAYERS or str(before.target) not in _ops(found):
            return "", "it takes the output of no convolution or linear layer"
        if len(before.users) > 1:
            return "", f"something else reads the output of {layer}"
        if not self._stands_alone(before, layer):
            return "", f"{layer} is called again, or shares or computes its weight"
        if before.meta["val"].ndim != _rank(found) + 2:
            return "", f"the channels of {layer} are not those of axis 1"
        return layer, ""

    def _stands_alone(self, node: Node, path: str) -> bool:
        """Whether a module is called once, under one name, and its tensors are read by it alone."""
        module = self.model.get_submodule(path)
        own = {f"{path}.{name}": t for name, t in _tensors(module).items() if t is not None}
        read = {self.names[n.name]: n for n in node.all_input_nodes if n.name in self.names}
        return (
            self.times[id(module)] == 1
            and all(self.holders[id(tensor)] == 1 for tensor in own.values())
            and read.keys() == own.keys()
            and all(set(placeholder.users) == {node} for placeholder in read.values())
        )


def _rank(layer: torch.nn.Module) -> int:
    """Return the number of spatial axes a layer works on."""
    return 0 if isinstance(layer, torch.nn.Linear) else len(layer.kernel_size)  # type: ignore[arg-type]


def _ops(layer: torch.nn.Module) -> Collection[str]:
    if isinstance(layer, torch.nn.Linear):
        return ("aten.linear.default",)
    rank = _rank(layer)
    if isinstance(layer, _TRANSPOSED):
        return (f"aten.conv_transpose{rank}d.{'default' if rank == 1 else 'input'}",)
    return (f"aten.conv{rank}d.default", f"aten.conv{rank}d.padding")


def _tensors(module: torch.nn.Module) -> dict[str, torch.Tensor | None]:
    """Return what the op of a layer or a norm reads of it."""
    names = ("weight", "bias", "running_mean", "running_var")
    return {name: getattr(module, name) for name in names if hasattr(module, name)}


@contextmanager
def _folded(model: torch.nn.Module, layers: Mapping[str, str]) -> Iterator[None]:
    """Let a model have its layers folded for a while."""
    with left_as_it_was(model):
        state = state_of(model)
        for norm, layer in layers.items():
            for entry in list(_entries(model, norm, layer)):
                (made,) = entry.apply(tuple(tensor_from_torch(state[k]) for k in entry.sources))
                value = torch.nn.Parameter(tensor_to_torch(made))
                setattr(model.get_submodule(layer), entry.targets[0].rpartition(".")[2], value)
            parent, _, name = norm.rpartition(".")
            setattr(model.get_submodule(parent), name, torch.nn.Identity().eval())
        yield


def _entries(model: torch.nn.Module, norm: str, layer: str) -> Iterator[Entry]:
    """Yield how weight and bias of a folded layer come of the model's tensors."""
    module, batch_norm = model.get_submodule(layer), model.get_submodule(norm)
    affine, biased = batch_norm.weight is not None, module.bias is not None
    eps = float(batch_norm.eps)  # type: ignore[arg-type]
    groups = int(module.groups) if isinstance(module, _TRANSPOSED) else None
    gamma, beta, mean, variance = (
        f"{norm}.{name}" for name in ("weight", "bias", "running_mean", "running_var")
    )
    weight, bias = f"{layer}.weight", f"{layer}.bias"
    dtype = tensor_from_torch(module.weight).dtype  # type: ignore[arg-type]
    scaled = (weight, variance, gamma) if affine else (weight, variance)
    yield Entry(scaled, (weight,), (FoldBatchNormWeight(eps, affine, groups),))
    shifted = [mean, variance, *((gamma, beta) if affine else ()), *((bias,) if biased else ())]
    yield Entry(tuple(shifted), (bias,), (FoldBatchNormBias(eps, dtype, affine, biased),))


def _record(record: ModuleRecord, norms: Mapping[str, str]) -> ModuleRecord:
    if record.path not in norms:
        return record
    return replace(record, path=norms[record.path], since=record.path)


def _plan(conversion: Conversion, norms: Mapping[str, str], model: torch.nn.Module) -> WeightPlan:
    """Return the plan with the given model's tensors as sources."""
    made = {
        entry.targets[0]: entry
        for layer, norm in norms.items()
        for entry in _entries(model, norm, layer)
    }

    def whole(entry: Entry) -> Entry:
        fold = made.get(entry.sources[0]) if len(entry.sources) == 1 else None
        return (
            entry
            if fold is None
            else replace(entry, sources=fold.sources, steps=(*fold.steps, *entry.steps))
        )

    plan = conversion.plan
    state = state_tensors(model)
    counters = {f"{norm}.num_batches_tracked" for norm in norms.values()} & state.keys()
    return replace(
        plan,
        entries=tuple(map(whole, plan.entries)),
        ignored={**plan.ignored, **dict.fromkeys(sorted(counters), _COUNTER)},
        specs={key: TensorSpec.of(tensor) for key, tensor in state.items()},
    )
