"""What `model.py` says of sizes that it was not converted for."""

import mlx.core as mx
import pytest
import torch
from torch import nn

import mlxport

SAID = {
    "one": ((3,), "x: converted for n 3; --dynamic 0 (dynamic=0 in Python) opens it"),
    "two": (
        (2, 3),
        "x: converted for n 2 and length 3; --dynamic 0,1 (dynamic=(0, 1) in Python) opens them",
    ),
}


class CountsUp(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.arange(x.numel()).reshape(x.shape)


@pytest.mark.parametrize(("shape", "said"), SAID.values(), ids=SAID)
def test_axes_are_listed_as_people_list_them(shape: tuple[int, ...], said: str) -> None:
    converted = mlxport.convert(CountsUp(), torch.ones(shape), verify=False)
    with pytest.raises(ValueError, match="converted for") as refused:
        converted.model(mx.ones([size + 1 for size in shape]))
    assert str(refused.value) == said
