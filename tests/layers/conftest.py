"""How tests of layers judge a value: by what torch loses against float64 in the same dtype."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mlxport.layers.conv_transpose import conv_transpose

NOISE_MULTIPLE = 32


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
    own = function(*tensors)
    want = function(*(None if t is None else t.double() for t in tensors))
    order = range(own.ndim) if order is None else order
    own, want = (t.detach().permute(*order) for t in (own, want))
    y = _from_mlx(got)
    assert y.shape == want.shape, f"shape {tuple(y.shape)}, torch has {tuple(want.shape)}"
    assert y.dtype == own.dtype, f"dtype {y.dtype}, torch has {own.dtype}"
    for kind in (torch.isnan, torch.isposinf, torch.isneginf):
        assert torch.equal(kind(y), kind(own)), f"{kind.__name__} differs"
    finite = torch.isfinite(own) & torch.isfinite(want)
    error, noise = (_error(t[finite], want[finite]) for t in (y, own))
    limit = NOISE_MULTIPLE * max(noise, torch.finfo(own.dtype).eps / 2)
    assert error <= limit, f"error {error:.3g}, torch's {noise:.3g}, limit {limit:.3g}"


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
    cotangent = torch.randn_like(function(*tensors))
    want = _torch_vjp(function, [t.double() for t in tensors], cotangent.double())
    own = _torch_vjp(function, tensors, cotangent)
    values, gradients = mx.vjp(
        ours,
        [_to_mlx(layout(t)) for t, layout in operands],
        [_to_mlx(output(cotangent))],
    )
    names = ["value"] + [f"gradient of operand {i}" for i in range(len(tensors))]
    for name, layout, y, w, o in zip(
        names, [output, *layouts], [*values, *gradients], want, own, strict=True
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
