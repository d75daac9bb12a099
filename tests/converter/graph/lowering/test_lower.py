"""One conversion knows nothing of another: the text is the same whatever was converted before."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from mlxport.converter.graph.capture.dynamic import DynamicSizes
from mlxport.converter.graph.ops.registry import OPS
from mlxport.converter.graph.translate import translate


class Net(nn.Module):
    """A network with dynamic sizes, a layer called twice, and dead results of long expressions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 3, 3, padding=1), nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(self.act(self.conv(x))) + x.mean(dim=(2, 3), keepdim=True)
        return y.flatten(2).softmax(-1) * x.shape[2]


def text() -> str:
    torch.manual_seed(0)
    dynamic = DynamicSizes((0, 2))
    found = translate(Net().eval(), (torch.randn(2, 3, 8, 8),), dynamic=dynamic)
    return f"{found.model_py.text()} {found.conversion.to_json()}"


def test_the_text_is_the_same_after_many_conversions() -> None:
    first = text()
    for size in range(4, 8):
        translate(nn.Sequential(nn.Linear(size, size), nn.ReLU()), (torch.randn(2, size),))
    assert text() == first


def test_the_text_is_the_same_within_another_conversion() -> None:
    first, inner = text(), []
    entry = OPS["aten.relu.default"]
    handler: Callable[..., object] = entry.handler

    def converting(cx: object, *args: object) -> object:
        inner.append(text())
        return handler(cx, *args)

    class Outer(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x) + 1

    plain = translate(Outer(), (torch.randn(2, 3),)).model_py
    OPS["aten.relu.default"] = type(entry)(entry.name, converting, entry.restrictions)  # type: ignore[arg-type]
    try:
        assert translate(Outer(), (torch.randn(2, 3),)).model_py == plain
    finally:
        OPS["aten.relu.default"] = entry
    assert set(inner) == {first}
