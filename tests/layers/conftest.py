"""How tests of layers judge a value: by what torch loses against float64 in the same dtype."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np
import pytest
import torch

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
