"""Transposed convolutions: ``mlx.nn``'s, ours and PyTorch's, over shapes real networks use.

Convolutions of volumes too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import torch
from mlx.utils import tree_map
from timing import Table, milliseconds, side_by_side, times

import mlxport
from mlxport import layers

SECONDS = 0.6  # for one cell of a table
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Shape:
    """A layer and its input.

    Attributes:
        channels: in and out.
        sizes: of the spatial axes.
        settings: of the layer, besides its channels.
        kind: of the layer, without its rank.
    """

    channels: tuple[int, int]
    sizes: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    kind: str = "ConvTranspose"

    @property
    def name(self) -> str:
        """The class, in ``torch.nn`` and in ``mlx.nn``."""
        return f"{self.kind}{len(self.sizes)}d"

    def layer(self) -> torch.nn.Module:
        """Return PyTorch's layer."""
        layer: torch.nn.Module = getattr(torch.nn, self.name)(*self.channels, **self.settings)
        return layer

    def native(self, ours: nn.Module) -> nn.Module | None:
        """Return ``mlx.nn``'s layer with the weights of ours; None where it has none like it."""
        settings = dict(self.settings)
        if settings.pop("groups", 1) > 1:
            return None
        layer: nn.Module = getattr(nn, self.name)(*self.channels, **settings)
        layer.update(ours.parameters())
        return layer


SHAPES = {
    "3-D k2 s2": Shape((32, 16), (16, 16, 16), {"kernel_size": 2, "stride": 2}),
    "3-D k2 s2, 320 to 256": Shape((320, 256), (6, 6, 6), {"kernel_size": 2, "stride": 2}),
    "3-D k3 s2 p1 op1": Shape(
        (32, 16), (16, 16, 16), {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}
    ),
    "3-D k3 s2 p1 op1, 64 to 32": Shape(
        (64, 32), (12, 12, 12), {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}
    ),
    "3-D k4 s2 p1": Shape((32, 16), (16, 16, 16), {"kernel_size": 4, "stride": 2, "padding": 1}),
    "3-D k(1,2,2) s(1,2,2)": Shape(
        (32, 16), (16, 16, 16), {"kernel_size": (1, 2, 2), "stride": (1, 2, 2)}
    ),
    "3-D k5 s1 p2": Shape((16, 16), (16, 16, 16), {"kernel_size": 5, "padding": 2}),
    "3-D k3 s2 p1 op1, 32 groups": Shape(
        (32, 32),
        (16, 16, 16),
        {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "groups": 32},
    ),
    "2-D k3 s2 p1 op1": Shape(
        (64, 32), (32, 32), {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}
    ),
    "2-D k4 s2 p1": Shape((64, 32), (32, 32), {"kernel_size": 4, "stride": 2, "padding": 1}),
    "1-D k16 s8 p4": Shape((128, 64), (512,), {"kernel_size": 16, "stride": 8, "padding": 4}),
}

CONVOLUTIONS = {
    f"Conv3d k3 p1, {channels[0]} to {channels[1]} at {size}³": Shape(
        channels, (size,) * 3, {"kernel_size": 3, "padding": 1}, "Conv"
    )
    for channels, size in [
        ((1, 16), 32),
        ((16, 16), 32),
        ((32, 16), 32),
        ((32, 32), 16),
        ((64, 32), 16),
        ((128, 128), 8),
    ]
}


def forward(model: Callable[[Any], Any], x: mx.array) -> Callable[[], None]:
    """A call of an MLX layer."""
    return lambda: mx.eval(model(x))


def backward(model: nn.Module, x: mx.array, *, compiled: bool = False) -> Callable[[], None]:
    """A call of an MLX layer and of its derivative by parameters and input."""

    def loss(parameters: dict[str, Any], x: mx.array) -> mx.array:
        model.update(parameters)
        return mx.square(model(x)).sum()

    gradient = mx.grad(loss, argnums=(0, 1))
    if compiled:
        gradient = mx.compile(gradient)
    parameters = tree_map(mx.array, model.parameters())
    mx.eval(parameters)
    return lambda: mx.eval(gradient(parameters, x))


def torch_forward(model: torch.nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """A call of a PyTorch layer."""

    def run() -> None:
        with torch.inference_mode():
            model(x)
        _wait(x)

    return run


def torch_backward(model: torch.nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """A call of a PyTorch layer and of its derivative by parameters and input."""
    x = x.clone().requires_grad_()
    wanted = [x, *model.parameters()]

    def run() -> None:
        torch.autograd.grad(model(x).square().sum(), wanted)
        _wait(x)

    return run


def _wait(x: torch.Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()
    elif x.is_mps:
        torch.mps.synchronize()


def torch_device() -> str:
    """The GPU where MLX runs on one that PyTorch can use, too; else the CPU."""
    if mx.default_device().type != mx.gpu:
        return "cpu"
    if torch.backends.mps.is_available():
        return "mps"
    return "cuda" if torch.cuda.is_available() else "cpu"


def ways(shape: Shape, dtype: str, *, derivative: bool) -> dict[str, Callable[[], object]]:
    """Return the ways to compute a layer on an input, each a call, by name."""
    torch.manual_seed(0)
    module = shape.layer().to(DTYPES[dtype]).eval()
    x = torch.randn(1, shape.channels[0], *shape.sizes).to(DTYPES[dtype])
    ours = mlxport.convert_layer(module)
    native = shape.native(ours)
    values = mx.array(x.float().movedim(1, -1).numpy()).astype(getattr(mx, dtype))
    mx.eval(values, ours.parameters())
    module, x = module.to(torch_device()), x.to(torch_device())
    found: dict[str, Callable[[], object]] = {}
    if derivative:
        found["torch"] = torch_backward(module, x)
        found["ours"] = backward(ours, values)
        found["compiled"] = backward(ours, values, compiled=True)
    else:
        found["torch"] = torch_forward(module, x)
        found["ours"], found["compiled"] = forward(ours, values), forward(mx.compile(ours), values)
    if native is not None:
        found["native"] = (backward if derivative else forward)(native, values)
    return found


def measure(shape: Shape, dtype: str, *, derivative: bool) -> list[str]:
    """Return the cells of one row."""
    took = side_by_side(ways(shape, dtype, derivative=derivative), SECONDS)
    gain = times(took["native"] / took["ours"]) if "native" in took else "-"
    names = ("native", "ours", "compiled", "torch")
    cells = [milliseconds(took[name]) if name in took else "-" for name in names]
    return [*cells, gain, times(took["ours"] / took["torch"])]


def tables() -> list[Table]:
    """Measure everything."""
    head = ["shape", "mlx.nn", "ours", "ours, compiled", "torch", "mlx.nn / ours", "ours / torch"]
    found = []
    for dtype, derivative in [(d, b) for d in DTYPES for b in (False, True)]:
        rows = [[name, *measure(s, dtype, derivative=derivative)] for name, s in SHAPES.items()]
        text = (
            f"Milliseconds of one call, batch 1; torch on {torch_device().upper()}. "
            "`mlx.nn` has no groups in 3-D. "
            f"{layers.ConvTranspose3d.__name__} and its like are what `mlxport` builds."
        )
        found.append(
            Table(f"Transposed convolution, {dtype}, {_kind(derivative)}", text, head, rows)
        )
    for derivative in (False, True):
        rows = [
            [name, *measure(s, "float32", derivative=derivative)]
            for name, s in CONVOLUTIONS.items()
        ]
        text = f"Milliseconds of one call, batch 1; torch on {torch_device().upper()}."
        title = f"Convolution of volumes, float32, {_kind(derivative)}"
        found.append(Table(title, text, head, rows))
    return found


def _kind(derivative: bool) -> str:
    return "forward and backward" if derivative else "forward"
