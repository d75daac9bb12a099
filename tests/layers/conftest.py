"""How tests of layers judge a value: by what torch loses against float64 in the same dtype."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mlx.utils import tree_flatten
from torch.utils._pytree import tree_leaves, tree_map

from mlxport.layers.conv.transpose import conv_transpose
from mlxport.layers.device import policy

NOISE_MULTIPLE = 32


POLICIES = {"CPU": policy.CPU, "GPU": policy.GPU}


@pytest.fixture
def compute_as(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`compute_as("GPU", **changes)`: layers compute as on that device, whichever there is."""

    def force(device: str, **changes: Any) -> None:
        for name in POLICIES:
            monkeypatch.setattr(policy, name, POLICIES[device]._replace(**changes))

    return force


@pytest.fixture(params=["CPU", "GPU"])
def default_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Say that a device is MLX's default one, as a GPU is on a Mac; nothing runs elsewhere."""
    named = {"CPU": mx.Device(mx.cpu), "GPU": mx.Device(mx.gpu)}[request.param]
    monkeypatch.setattr(mx, "default_device", lambda: named)


@pytest.fixture(scope="session")
def gradients_at_a_margin() -> bool:
    """Whether torch's gradients just at a margin are the layers': from 2.14 on torch's are 0."""
    return torch.__version__ < "2.14"


@pytest.fixture(scope="session")
def assert_parity() -> Callable[..., None]:
    """`assert_parity(got, function, *tensors, order=None)`.

    `function` is torch's, called on the tensors as they are and as float64; `got` is MLX's result,
    whose axis `i` is torch's axis `order[i]`.
    Shapes and dtypes must agree, and the relative L2 error be within 32 times torch's.
    """
    return _assert_parity


def _assert_parity(
    got: mx.array,
    function: Callable[..., torch.Tensor],
    *tensors: torch.Tensor | None,
    order: Sequence[int] | None = None,
) -> None:
    in_dtype = function(*tensors)
    want = function(*(None if t is None else t.double() for t in tensors))
    order = range(in_dtype.ndim) if order is None else order
    in_dtype, want = (t.detach().permute(tuple(order)) for t in (in_dtype, want))
    _assert_close("value", _from_mlx(got), in_dtype, want)


def _from_mlx(y: mx.array) -> torch.Tensor:
    if y.dtype == mx.bfloat16:
        return torch.from_numpy(np.array(y.view(mx.uint16))).view(torch.bfloat16)
    return torch.from_numpy(np.array(y))


def _error(y: torch.Tensor, reference: torch.Tensor) -> float:
    difference = float(torch.linalg.vector_norm(y.double() - reference))
    scale = float(torch.linalg.vector_norm(reference))
    return difference / scale if scale else difference


@pytest.fixture(scope="session")
def assert_conv_transpose_parity() -> Callable[..., None]:
    """`assert_conv_transpose_parity(x, weight, bias, multiple=32, **keywords)`.

    Torch's operands go through torch's function and, in MLX's layout, through ours: the value, and
    the gradients of all operands for one random cotangent. Judged as `assert_parity` does.
    """
    return _assert_conv_transpose_parity


def _assert_conv_transpose_parity(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    multiple: float = NOISE_MULTIPLE,
    **keywords: Any,
) -> None:
    rank = weight.ndim - 2
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]

    def channels_last(y: torch.Tensor) -> torch.Tensor:
        return y.movedim(-1 - rank, -1)

    def weight_layout(w: torch.Tensor) -> torch.Tensor:
        return w.unflatten(0, (keywords.get("groups", 1), -1)).movedim(1, -1).flatten(0, 1)

    _assert_vjp_parity(
        lambda *operands: conv_transpose(*operands, **keywords),
        lambda *operands: function(*operands, **keywords),
        [(x, channels_last), (weight, weight_layout), (bias, torch.clone)],
        channels_last,
        multiple,
    )


Layout = Callable[[torch.Tensor], torch.Tensor]


def _assert_vjp_parity(
    ours: Callable[..., mx.array],
    function: Callable[..., torch.Tensor],
    operands: Sequence[tuple[torch.Tensor, Layout]],
    output: Layout,
    multiple: float,
) -> None:
    """`operands` pairs each of torch's with the layout ours takes; `output` is the result's."""
    tensors, layouts = [t for t, _ in operands], [layout for _, layout in operands]
    # Small integers: their sum, the gradient of a bias, is exact in whatever order it is made.
    outputs = function(*tensors)
    cotangent = torch.randint(-4, 5, outputs.shape).to(outputs.dtype)
    want = _torch_vjp(function, [t.double() for t in tensors], cotangent.double())
    in_dtype = _torch_vjp(function, tensors, cotangent)
    values, gradients = mx.vjp(
        ours,
        [_to_mlx(layout(t)) for t, layout in operands],
        [_to_mlx(output(cotangent))],
    )
    names = ["value"] + [f"gradient of operand {i}" for i in range(len(tensors))]
    for name, layout, y, w, o in zip(
        names, [output, *layouts], [*values, *gradients], want, in_dtype, strict=True
    ):
        y, w, o = _from_mlx(y), layout(w), layout(o)
        assert y.shape == w.shape, f"{name}: shape {tuple(y.shape)}, torch has {tuple(w.shape)}"
        assert y.dtype == o.dtype, f"{name}: dtype {y.dtype}, torch has {o.dtype}"
        error, noise = _error(y, w), _error(o, w)
        limit = multiple * max(noise, torch.finfo(o.dtype).eps / 2)
        assert error <= limit, f"{name}: error {error:.3g}, torch's {noise:.3g}, limit {limit:.3g}"


def _torch_vjp(
    function: Callable[..., torch.Tensor], tensors: Sequence[torch.Tensor], cotangent: torch.Tensor
) -> list[torch.Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    y = function(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, cotangent)]


def _to_mlx(t: torch.Tensor) -> mx.array:
    # Left to itself, MLX makes float64 float32.
    dtype = mx.float64 if t.dtype == torch.float64 else None
    return mx.array(t.detach().contiguous(), dtype)


@pytest.fixture(scope="session")
def assert_module_parity() -> Callable[..., None]:
    """`assert_module_parity(module, layer, *args, gradients=True, **kwargs)`.

    The layer takes the module's tensors by their names and its mode. Both are called with the same
    arguments, a tensor given twice being one object in MLX too. Judged as `assert_parity` does: all
    outputs and, for one random cotangent, the gradients of floating arguments and of parameters.
    """
    return _assert_module_parity


def _assert_module_parity(
    module: torch.nn.Module, layer: Any, *args: Any, gradients: bool = True, **kwargs: Any
) -> None:
    state = [(name, _to_mlx(t)) for name, t in module.state_dict().items()]
    layer.load_weights(state, strict=True)
    layer.train(module.training)
    outputs = _module_values(module, (args, kwargs), [])
    seeds = [torch.randn(y.shape).to(y.dtype) for y in outputs] if gradients else []
    in_dtype = _module_values(module, (args, kwargs), seeds)
    want = _module_values(copy.deepcopy(module).double(), (args, kwargs), seeds, torch.float64)
    got = _layer_values(layer, (args, kwargs), [_to_mlx(seed) for seed in seeds])
    assert len(got) == len(want), "number of outputs and gradients"
    for index, (y, o, w) in enumerate(zip(got, in_dtype, want, strict=True)):
        _assert_close(f"value {index}", _from_mlx(y), o, w)


def _module_values(
    module: torch.nn.Module,
    call: Any,
    cotangents: Sequence[torch.Tensor],
    dtype: torch.dtype | None = None,
) -> list[torch.Tensor]:
    """Outputs, then the gradients of floating arguments, then those of parameters by name."""
    given: dict[int, torch.Tensor] = {}

    def taken(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) not in given:
            floating = value.is_floating_point()
            leaf = value.to(dtype if floating else None).detach().clone()
            given[id(value)] = leaf.requires_grad_(floating)
        return given[id(value)]

    args, kwargs = tree_map(taken, call)
    outputs = [y for y in tree_leaves(module(*args, **kwargs)) if y is not None]
    if not cotangents:
        return [y.detach() for y in outputs]
    leaves = [t for t in given.values() if t.requires_grad]
    leaves += [t for _, t in sorted(module.named_parameters())]
    seeds = [c.to(y.dtype) for c, y in zip(cotangents, outputs, strict=True)]
    gradients = torch.autograd.grad(outputs, leaves, seeds, materialize_grads=True)
    return [y.detach() for y in outputs] + list(gradients)


def _layer_values(layer: Any, call: Any, cotangents: list[mx.array]) -> list[mx.array]:
    tensors = {id(t): t for t in tree_leaves(call) if isinstance(t, torch.Tensor)}
    arrays = {key: _to_mlx(t) for key, t in tensors.items()}
    floating = [key for key, t in tensors.items() if t.is_floating_point()]
    weights = sorted(tree_flatten(layer.trainable_parameters()))

    def run(*values: mx.array) -> list[mx.array]:
        given = arrays | dict(zip(floating, values[: len(floating)], strict=True))
        names = [name for name, _ in weights]
        layer.load_weights(list(zip(names, values[len(floating) :], strict=True)), strict=False)
        args, kwargs = tree_map(lambda v: given.get(id(v), v), call)
        return [y for y in tree_leaves(layer(*args, **kwargs)) if y is not None]

    primals = [*(arrays[key] for key in floating), *(value for _, value in weights)]
    if not cotangents:
        return run(*primals)
    outputs, gradients = mx.vjp(run, primals, cotangents)
    layer.load_weights(weights, strict=False)
    return [*outputs, *gradients]


def _assert_close(name: str, y: torch.Tensor, in_dtype: torch.Tensor, want: torch.Tensor) -> None:
    assert y.shape == want.shape, f"{name}: shape {tuple(y.shape)}, torch has {tuple(want.shape)}"
    assert y.dtype == in_dtype.dtype, f"{name}: dtype {y.dtype}, torch has {in_dtype.dtype}"
    for kind in (torch.isnan, torch.isposinf, torch.isneginf):
        assert torch.equal(kind(y), kind(in_dtype)), f"{name}: {kind.__name__} differs"
    finite = torch.isfinite(in_dtype) & torch.isfinite(want)
    error, noise = (_error(t[finite], want[finite]) for t in (y, in_dtype))
    limit = NOISE_MULTIPLE * max(noise, torch.finfo(in_dtype.dtype).eps / 2)
    assert error <= limit, f"{name}: error {error:.3g}, torch's {noise:.3g}, limit {limit:.3g}"
