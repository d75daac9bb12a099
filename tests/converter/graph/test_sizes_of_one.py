"""What is captured at a batch of one, or with sizes that are equal, holds at others or refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mlxport

Forward = Callable[..., torch.Tensor]


class Net(nn.Module):
    """Runs a function of its inputs."""

    def __init__(self, run: Forward) -> None:
        super().__init__()
        self.run = run

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.run(*inputs)


def agrees_or_refuses(model: Any, run: Forward, *inputs: torch.Tensor) -> bool:
    """Whether a converted model gives what PyTorch gives; False where it raises."""
    try:
        got = model(*(mx.array(x.numpy()) for x in inputs))
        mx.eval(got)
    except (ValueError, IndexError):
        return False
    want = run(*inputs)  # where PyTorch raises, MLX must have raised
    assert tuple(got.shape) == tuple(want.shape)
    np.testing.assert_allclose(np.array(got), want.numpy(), rtol=1e-4, atol=1e-5)
    return True


# Each leaves the batch aside in its own way; right at a batch of one, all of them.
OF_ONE: dict[str, Forward] = {
    "view of all": lambda x: x.view(4, 6) * 2,
    "view, batch written": lambda x: x.view(1, 24) * 2,
    "view, batch left over": lambda x: x.view(-1, 24) * 2,
    "view, channels left over": lambda x: x.view(1, -1) * 2,
    "view, batch first of others": lambda x: x.view(4, -1, 6).sum(1),
    "flatten": lambda x: x.flatten(1) * 2,
    "flatten of all": lambda x: x.flatten() * 2,
    "transposed with channels": lambda x: x.transpose(0, 1).reshape(4, -1) * 2,
    "transposed and viewed": lambda x: x.transpose(0, 1).reshape(1, 4, -1) + 1,
    "permuted and flattened": lambda x: x.permute(2, 0, 1).flatten(1) * 2,
    "moved last": lambda x: x.movedim(0, -1).reshape(24) * 2,
    "squeezed": lambda x: x.squeeze(0).T * 2,
    "squeezed everywhere": lambda x: x.squeeze() * 2,
    "selected": lambda x: x[0] * 2,
    "unbound": lambda x: x.unbind(0)[0] * 2,
    "mean over the batch": lambda x: x.mean(0) + 1,
    "sum kept": lambda x: x.sum(0, keepdim=True) + x,
    "normalised over all": lambda x: F.layer_norm(x, (1, 4, 6)),
    "softmax over the batch": lambda x: x.softmax(0) * 3,
    "expanded": lambda x: x.expand(2, 4, 6) * 2,
    "repeated": lambda x: x.repeat(2, 1, 1) * 2,
    "joined to itself": lambda x: torch.cat([x, x]) * 2,
    "split": lambda x: x.split(1)[0] * 2,
    "chunked": lambda x: torch.cat(x.chunk(2, 1), 0) * 2,
    "stacked": lambda x: torch.stack([x, x], 1).reshape(1, 8, 6) * 2,
    "unfolded": lambda x: x.unfold(0, 1, 1).sum(-1),
    "rolled": lambda x: x.roll(1, 0) * 2,
    "flipped": lambda x: x.flip(0) * 2,
    "product of matrices": lambda x: x @ x.transpose(1, 2).reshape(1, 6, 4),
    "einsum": lambda x: torch.einsum("bij,ckj->ik", x, x),
    "matrix product of one": lambda x: torch.mm(x[0], x[0].T),
    "convolved without a batch": lambda x: F.avg_pool1d(x.squeeze(0), 2),
}


@pytest.mark.parametrize("name", OF_ONE)
def test_what_holds_at_a_batch_of_one_holds_at_three_or_refuses(name: str) -> None:
    run = OF_ONE[name]
    result = mlxport.convert(Net(run), torch.randn(1, 4, 6), verify=False)
    assert agrees_or_refuses(result.model, run, torch.randn(1, 4, 6))
    at_three = agrees_or_refuses(result.model, run, torch.randn(3, 4, 6))
    assert at_three or name != "flatten"  # not by refusing everything


# Each needs or uses that two sizes have to do with each other; equal in the example, where it can.
OF_TWO: dict[str, tuple[Forward, tuple[int, ...], tuple[int, ...]]] = {
    "added": (lambda x, y: x + y, (2, 5), (2, 5)),
    "viewed as the other": (lambda x, y: x.view(y.shape) * 2, (2, 5), (2, 5)),
    "cut to the other": (lambda x, y: x[:, : y.shape[1]] + y, (2, 7), (2, 5)),
    "padded to the other": (
        lambda x, y: F.pad(x, (0, y.shape[1] - x.shape[1])) + y,
        (2, 5),
        (2, 7),
    ),
    "joined": (lambda x, y: torch.cat([x, y], 1).sum(1), (2, 5), (2, 5)),
    "multiplied": (lambda x, y: x @ y.T, (2, 5), (3, 5)),
    "one more": (lambda x, y: x[:, 1:] + y, (2, 6), (2, 5)),
    "twice": (lambda x, y: x.view(-1, 2, y.shape[1]).sum(1) + y, (2, 10), (2, 5)),
    "added up": (lambda x, y: x.new_zeros(x.shape[1] + y.shape[1]) + x.sum(), (2, 6), (2, 5)),
    "shorter decides": (
        lambda x, y: x * 2 if x.shape[1] > y.shape[1] else x * 3,
        (2, 6),
        (2, 5),
    ),
}
SIZES = [((2, 5), (2, 6)), ((2, 6), (2, 5)), ((2, 1), (2, 5)), ((2, 5), (2, 1)), ((3, 4), (2, 4))]


@pytest.mark.parametrize("dynamic", [None, {"x": 1, "y": 1}], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("name", OF_TWO)
def test_two_sizes_that_belong_together(name: str, dynamic: dict[str, int] | None) -> None:
    run, one, two = OF_TWO[name]

    class Both(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return run(x, y)

    example = torch.randn(one), torch.randn(two)
    try:
        result = mlxport.convert(Both(), example, dynamic=dynamic, verify=False)
    except mlxport.ConversionError:
        assert dynamic is not None  # at the sizes of the example each converts
        return
    assert agrees_or_refuses(result.model, run, *example)
    for first, second in SIZES:
        agrees_or_refuses(result.model, run, torch.randn(first), torch.randn(second))
