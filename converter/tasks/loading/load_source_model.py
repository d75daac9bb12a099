"""Load the torch model to convert: open the checkpoint, build the model, load its weights."""

from __future__ import annotations

import warnings
from collections import ChainMap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.keys.bind import FLOATS, bind
from mlxport.converter.errors import StateDictError
from mlxport.converter.options.source import SourceOptions
from mlxport.converter.plan.loading import Loading
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.plan.torch_tensor import TORCH_DTYPE, tensor_from_torch
from mlxport.converter.plan.weight_plan import WeightPlan
from mlxport.converter.tasks.loading.load_into_model import LoadedState, load_into_model
from mlxport.converter.torch_model.factory import Factory, is_shared, make_model
from mlxport.converter.torch_model.loading_code import listed_code, loading_code, state_of
from mlxport.converter.torch_model.model_kinds import as_torch_module
from mlxport.converter.torch_model.model_state import left_as_it_was


@dataclass(frozen=True)
class LoadedModel:
    """A torch model with a checkpoint's weights.

    Attributes:
        model: in the dtype that was asked for.
        checkpoint: under its new names.
        state: what the model made of it.
        original_keys: key of ``checkpoint`` -> that in the file, where keys were renamed.
        prefix: the part of the checkpoint's keys that was asked for.
        warnings: what the user should look into.
    """

    model: torch.nn.Module
    checkpoint: Checkpoint
    state: LoadedState
    original_keys: Mapping[str, str]
    prefix: str | None
    warnings: tuple[str, ...]

    @property
    def loading(self) -> Loading | None:
        """What the model's own code did to the checkpoint."""
        return self.state.loading

    def tensors(self) -> Mapping[str, Tensor]:
        """Return key -> value of every tensor a plan may use.

        What the model's code computed comes before what the checkpoint has there; what the
        checkpoint lacks (a counter) the model has.
        """
        keys, computed = self.state.keys, self.loading.computed if self.loading else {}
        held = {keys.get(n, n): tensor_from_torch(t) for n, t in state_of(self.model).items()}
        made = {key: held[key] for key in computed}
        return ChainMap(made, dict(self.checkpoint.tensors), held)

    def bound(self, plan: WeightPlan) -> WeightPlan:
        """Return the plan of the model with the checkpoint's keys, and what its code did."""
        plan = replace(plan, loading=None)
        ignored, loading = self.state.ignored, self.loading
        computed = loading.computed if loading else {}
        found = bind(plan, self.state.keys, self.checkpoint, prefix=self.prefix, computed=computed)
        return replace(found, ignored={**found.ignored, **ignored}, loading=loading)


@contextmanager
def loaded_model(
    source: str | Path, model: str | torch.nn.Module | Factory, reading: SourceOptions
) -> Iterator[LoadedModel]:
    """Load a checkpoint into its model; at the end a model that was given is what it was.

    Args:
        source: the checkpoint.
        model: the torch model, ``pkg.mod:factory`` that gives it, or what builds it.
        reading: how the checkpoint is read.

    Raises:
        ConversionError: the checkpoint cannot be read, the model not be built, or they do not fit.
    """
    checkpoint, original_keys = reading.open(Path(source))
    if isinstance(model, Factory):
        yield _loaded(as_torch_module(model.build()), checkpoint, original_keys, reading)
        return
    made = make_model(model, dict(reading.model_args)) if isinstance(model, str) else model
    torch_model = as_torch_module(made)
    if isinstance(model, str) and not is_shared(model, made):
        yield _loaded(torch_model, checkpoint, original_keys, reading)
        return
    with left_as_it_was(torch_model) as state:
        with state.watching():
            loaded = _loaded(torch_model, checkpoint, original_keys, reading)
        yield loaded


def _is_float64(model: torch.nn.Module) -> bool:
    """Tell whether all floating-point tensors of a model are of float64."""
    floats = {t.dtype for t in state_of(model).values() if t.is_floating_point()}
    return floats == {torch.float64}


def untried_loading(model: torch.nn.Module) -> Loading | None:
    """Return what is known of a model's loading code without a checkpoint; None where none."""
    own = [code for code in loading_code(model) if not code.is_torchs]
    return Loading(listed_code(own)) if own else None


def _loaded(
    model: torch.nn.Module,
    checkpoint: Checkpoint,
    original_keys: Mapping[str, str],
    reading: SourceOptions,
) -> LoadedModel:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        state = load_into_model(
            model,
            checkpoint,
            prefix=reading.prefix,
            allow_lossy_cast=reading.allow_lossy_cast or reading.dtype is not None,
            original_keys=original_keys,
        )
    if reading.dtype is not None:
        model.to(TORCH_DTYPE[FLOATS[reading.dtype]])
    elif state.keys and _is_float64(model):
        raise StateDictError(
            "the checkpoint's floating-point tensors are of float64, which MLX does not compute "
            f"in: {argument('dtype', 'float32')} casts them, and the model."
        )
    found = tuple(str(warning.message) for warning in caught)
    return LoadedModel(model, checkpoint, state, original_keys, reading.prefix, found)
