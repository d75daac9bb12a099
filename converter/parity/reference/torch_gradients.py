"""Record the gradients PyTorch's autograd gives: in the model's own dtype and in float64."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.reference.copies import detached_clones, perturbed
from mlxport.converter.parity.reference.float64 import as_float64, float64_values, in_float64
from mlxport.converter.parity.reference.recorded_values import (
    RecordedTensor,
    raw_copy,
    reference_values,
    tensors,
)
from mlxport.converter.parity.reference.torch_draws import TorchDraws
from mlxport.converter.parity.verdict.reference_data import Gradients, Reference, ReferenceValue
from mlxport.converter.plan.torch_tensor import tensor_to_torch
from mlxport.converter.torch_model.calls import CallArguments, every_module_called, in_order
from mlxport.converter.torch_model.model_state import eval_mode, trial_run

_logger = logging.getLogger(__name__)

_PERTURBED_RUNS = 6  # often enough to meet what MLX may meet


def record_gradients(
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    reference: Reference,
) -> Gradients:
    """Differentiate a model twice, in its own dtype and in float64.

    In eval mode, with the random draws of the reference; the model is what it was in the end.
    Frozen parameters get gradients too. One that the outputs do not depend on has a gradient of 0.

    Args:
        module: the model the reference was recorded of.
        args: its positional arguments.
        kwargs: its keyword arguments.
        reference: gives the seed, the draws and the outputs' shapes.

    Returns:
        The gradients; where PyTorch fails, only the reason.
    """
    run = _Differentiation(in_order(module, args, kwargs), reference)
    try:
        with eval_mode(module), trial_run(module):
            native = run.of(module)
    except ParityError:
        raise
    except Exception as error:  # whatever the model's code or autograd raises
        _logger.debug("PyTorch fails to differentiate", exc_info=True)
        return Gradients(
            obstacle=f"PyTorch fails to differentiate: {type(error).__name__}: {error}"
        )
    if isinstance(native, str):
        return Gradients(obstacle=native)
    exact = run.in_float64(module) or native
    inputs = [
        reference_values(o, e)[0] if o else None
        for o, e in zip(native.inputs, exact.inputs, strict=True)
    ]
    parameters = {
        name: reference_values([recorded], [exact.parameters[name]])[0]
        for name, recorded in native.parameters.items()
    }
    factors = tuple(None if factor is None else raw_copy(factor) for factor in run.factors)
    return Gradients(factors, tuple(inputs), parameters)


def perturbed_gradients(
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    reference: Reference,
    gradients: Gradients,
) -> Gradients:
    """Differentiate a model a few times more, inputs and parameters moved by a few roundings.

    A gradient jumps where rounding decides on which side of a kink a value lies (0 of a ReLU, two
    almost equal values in a window). How far it then moves, no single run can tell.

    Args:
        module: as for `record_gradients`.
        args: as there.
        kwargs: as there.
        reference: as there.
        gradients: its result.

    Returns:
        The gradients, the native value of each from the run farthest from the reference.
    """
    run = _Differentiation(in_order(module, args, kwargs), reference)
    run.factors = [None if f is None else tensor_to_torch(f) for f in gradients.factors]
    inputs, parameters = list(gradients.inputs), dict(gradients.parameters)
    for number in range(_PERTURBED_RUNS):
        found = run.perturbed(module, number)
        if isinstance(found, str):
            break
        pairs = zip(inputs, found.inputs, strict=True)
        inputs = [
            _farther(value, recorded[0]) if value and recorded else value
            for value, recorded in pairs
        ]
        parameters = {name: _farther(v, found.parameters[name]) for name, v in parameters.items()}
    return replace(gradients, inputs=tuple(inputs), parameters=parameters)


@dataclass(frozen=True, eq=False)
class _Found:
    """The gradients of one run; of each input a list of one, or of none."""

    inputs: list[list[RecordedTensor]]
    parameters: dict[str, RecordedTensor]


class _Differentiation:
    """Runs of one model on the same arguments, with the same factors."""

    def __init__(self, given: CallArguments, reference: Reference) -> None:
        self.given, self.seed = given, reference.seed
        self.draws = TorchDraws()
        self.draws.recorded = list(reference.draws)
        self.factors: list[torch.Tensor | None] = []

    def of(self, module: torch.nn.Module) -> _Found | str:
        """Return the gradients, or why there are none; the first run chooses the factors."""
        with self.draws.replayed():
            return self._run(module, self.given)

    def perturbed(self, module: torch.nn.Module, number: int) -> _Found | str:
        """Return the gradients with inputs and parameters moved by a few roundings."""
        with (
            eval_mode(module),
            perturbed(module, self.given, number) as given,
            trial_run(module),
            self.draws.replayed(),
        ):
            return self._run(module, given)

    def in_float64(self, module: torch.nn.Module) -> _Found | None:
        """Return the gradients in float64; None where the model cannot run in it."""
        try:
            with eval_mode(module), float64_values(module), in_float64(), self.draws.replayed():
                found = self._run(module, tree_map(as_float64, self.given))
        except Exception:  # whatever the model's code raises when its dtype is another
            _logger.debug("no gradients in float64", exc_info=True)
            return None
        return None if isinstance(found, str) else found

    def _run(self, module: torch.nn.Module, given: CallArguments) -> _Found | str:
        inputs: list[torch.Tensor | None] = []
        devices = {tensor.device for tensor in [*module.parameters(), *module.buffers()]}
        forked = [device for device in devices if device.type == "cuda"]
        with torch.random.fork_rng(forked), every_module_called(), torch.enable_grad():
            named = dict(module.named_parameters(remove_duplicate=False))
            named = {name: p for name, p in named.items() if p.is_floating_point()}
            for parameter in named.values():
                parameter.requires_grad_()
            args, kwargs = tree_map(lambda leaf: _tracked(leaf, inputs), detached_clones(given))
            torch.manual_seed(self.seed)
            outputs = tensors(module(*args, **kwargs))
            self.factors = self.factors or [_factor(o, k, self.seed) for k, o in enumerate(outputs)]
            pairs = [
                (output, factor.to(output))
                for output, factor in zip(outputs, self.factors, strict=True)
                if factor is not None and output.requires_grad
            ]
            if not pairs:
                return "in PyTorch no output depends differentiably on an input or a parameter"
            wanted = [*named.values(), *(leaf for leaf in inputs if leaf is not None)]
            found: Sequence[torch.Tensor | None] = torch.autograd.grad(
                [output for output, _ in pairs],
                wanted,
                [factor for _, factor in pairs],
                allow_unused=True,
            )
        filled = iter(
            RecordedTensor(torch.zeros_like(tensor) if gradient is None else gradient)
            for tensor, gradient in zip(wanted, found, strict=True)
        )
        parameters = {name: next(filled) for name in named}
        return _Found([[] if leaf is None else [next(filled)] for leaf in inputs], parameters)


def _farther(value: ReferenceValue, recorded: RecordedTensor) -> ReferenceValue:
    """Return the value with the native one of a further run, where that is farther off."""
    before, now = (
        np.abs(values - value.reference).max(initial=0)
        for values in (value.native, recorded.values)
    )
    return replace(value, native=recorded.values) if np.isfinite(now) and now > before else value


def _tracked(leaf: Any, inputs: list[torch.Tensor | None]) -> Any:
    """Return an argument for the model, and note the tensor whose gradient is wanted."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    if not leaf.is_floating_point():
        inputs.append(None)
        return leaf
    inputs.append(leaf.requires_grad_())
    return leaf.clone()  # which the model may overwrite


def _factor(output: torch.Tensor, number: int, seed: int) -> torch.Tensor | None:
    if not output.is_floating_point():
        return None
    values = np.random.default_rng((seed, number)).standard_normal(tuple(output.shape))
    return torch.from_numpy(np.asarray(values)).to(output)
