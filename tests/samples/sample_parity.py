"""How a sample is judged: MLX's layer beside torch's, in float64 and in the sample's own dtype."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from mlx.utils import tree_flatten
from sample_database import Call
from torch.utils._pytree import tree_leaves

from mlxport.converter.parity.reference.copies import perturbed
from mlxport.converter.parity.verdict.compare import judge
from mlxport.converter.parity.verdict.judgement import NOISE_MULTIPLE, Judgement
from mlxport.converter.plan.tensor import Tensor, to_mlx
from mlxport.converter.plan.torch_tensor import tensor_from_torch
from mlxport.converter.plan.weight_plan import WeightPlan
from mlxport.converter.rules.build import build_layer
from mlxport.converter.rules.registry import Axes, LayerSpec
from mlxport.converter.rules.spec import spec_for
from mlxport.converter.torch_model.encoder_padding import padding_zeroed

Values = Mapping[str, Any]

_PERTURBED_RUNS = 8


class Converted:
    """A torch module's MLX layer, with the axis order of its inputs and outputs.

    Attributes:
        spec: what the module's rule answers.
        layer: the layer, with the module's weights and in its mode.
    """

    def __init__(self, module: torch.nn.Module, call: Call) -> None:
        self.spec: LayerSpec = spec_for(module)
        self.layer = build_layer(module)
        first = next(x for x in tree_leaves((call.args, call.kwargs)) if torch.is_tensor(x))
        unbatched = self.spec.rank is not None and first.ndim == self.spec.rank + 1
        self._channel = 0 if unbatched else 1

    def run(self, call: Call) -> dict[str, Any]:
        """Return the layer's outputs by their places, arrays as torch's tensors."""
        outputs = named("output", call.map(torch.Tensor, self.to_mlx).run(self.layer))
        return {
            name: self.to_torch(y) if isinstance(y, mx.array) else y for name, y in outputs.items()
        }

    def to_mlx(self, x: torch.Tensor) -> mx.array:
        """Return a tensor of torch's as the layer takes it."""
        x = x.detach().permute(self._order(x.ndim))
        if x.dtype is torch.float64:  # for the layer to refuse: no checkpoint is converted to it
            return mx.array(x.numpy(), dtype=mx.float64)
        return to_mlx(tensor_from_torch(x))

    def to_torch(self, y: mx.array) -> torch.Tensor:
        """Return an array the layer gives as torch's layer would give it."""
        x = from_mlx(y)
        return x.permute(np.argsort(self._order(x.ndim)).tolist())

    def parameters_of(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return torch's tensors by the names and in the axes of the layer's parameters."""
        entries = [e for e in self.spec.entries if all(key in tensors for key in e.sources)]
        source = {key: tensor_from_torch(tensors[key]) for e in entries for key in e.sources}
        return {name: _from_bits(t) for name, t in WeightPlan(tuple(entries)).apply(source)}

    def _order(self, ndim: int) -> tuple[int, ...]:
        if self.spec.axes is not Axes.CHANNELS_LAST or ndim <= self._channel:
            return tuple(range(ndim))
        return (*(i for i in range(ndim) if i != self._channel), self._channel)


def forward_problems(module: torch.nn.Module, call: Call) -> list[str]:
    """Return what is wrong with the outputs, and with the state after training."""
    converted = Converted(module, call)
    own_module, exact_module = copy.deepcopy(module), copy.deepcopy(module).double()
    with padding_zeroed():
        own = named("output", call.run(own_module))
        exact = named("output", call.to(torch.float64).run(exact_module))
    got = converted.run(call)
    problems = [*differences(got, own, exact)]
    if problems and not module.training:  # as a conversion does, by how far PyTorch's values move
        problems = [*differences(got, own, exact, moved=_moves(own_module, call, exact))]
    if module.training:
        state = {name: from_mlx(x) for name, x in tree_flatten(converted.layer.parameters())}
        own_state, exact_state = (
            converted.parameters_of(m.state_dict()) for m in (own_module, exact_module)
        )
        problems += differences(state, own_state, exact_state)
    return problems


def _moves(module: torch.nn.Module, call: Call, exact: Values) -> dict[str, float]:
    """Return how far outputs move where inputs and parameters are a few roundings off."""
    found = dict.fromkeys(exact, 0.0)
    for number in range(_PERTURBED_RUNS):
        given = (call.args, dict(call.kwargs))
        with padding_zeroed(), perturbed(module, given, number) as (args, kwargs):
            others = named("output", Call(args, kwargs).run(module))
        for name, value in exact.items():
            if torch.is_tensor(value) and value.is_floating_point():
                moved = (others[name].detach().double() - value).norm()
                found[name] = max(found[name], float(moved))
    return found


def differences(
    got: Values,
    own: Values,
    exact: Values,
    noise_multiple: float = NOISE_MULTIPLE,
    moved: Mapping[str, float] | None = None,
) -> Iterator[str]:
    """Yield where MLX's values are not torch's; ``own`` is torch's in the sample's dtype."""
    if got.keys() != own.keys():
        yield f"torch gives {', '.join(own)}; MLX gives {', '.join(got)}"
        return
    for name, value in own.items():
        if not torch.is_tensor(value):
            if got[name] is not value:
                yield f"{name}: torch gives {value}, MLX {got[name]}"
            continue
        verdict = judge(
            _array(got[name]),
            _array(exact[name]),
            _array(value),
            dtype=_dtype(value),
            actual_dtype=_dtype(got[name]),
            judgement=Judgement(noise_multiple),
            moved=(moved or {}).get(name, 0.0),
        )
        yield from (f"{name}: {problem}" for problem in verdict.problems)


def named(name: str, value: Any) -> dict[str, Any]:
    """Return the values in nested tuples and lists by their places (``"output[1][0]"``)."""
    if not isinstance(value, (tuple, list)):
        return {name: value}
    items = [named(f"{name}[{i}]", item) for i, item in enumerate(value)]
    return {key: item for part in items for key, item in part.items()}


def from_mlx(y: mx.array) -> torch.Tensor:
    """Return an array as a tensor of the same dtype."""
    if y.dtype == mx.bfloat16:
        return torch.from_numpy(np.array(y.view(mx.uint16))).view(torch.bfloat16)
    return torch.from_numpy(np.array(y))


def _from_bits(tensor: Tensor) -> torch.Tensor:
    bits = torch.from_numpy(tensor.bits.copy())
    return bits.view(torch.bfloat16) if tensor.dtype == "BF16" else bits


def _array(x: torch.Tensor) -> Any:
    return (x.double() if x.is_floating_point() else x).detach().numpy()


def _dtype(x: torch.Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
