"""Transposed convolutions: ``mlx.nn``'s, ours and PyTorch's, over shapes real networks use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import torch
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
    """

    channels: tuple[int, int]
    sizes: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    def layer(self) -> torch.nn.Module:
        """Return PyTorch's layer."""
        rank = len(self.sizes)
        cls = getattr(torch.nn, f"ConvTranspose{rank}d")
        layer: torch.nn.Module = cls(*self.channels, **self.settings)
        return layer

    def native(self, ours: nn.Module) -> nn.Module | None:
        """Return ``mlx.nn``'s layer with the weights of ours; None where it has none like it."""
        settings = dict(self.settings)
        if settings.pop("groups", 1) > 1:
            return None
        layer: nn.Module = getattr(nn, f"ConvTranspose{len(self.sizes)}d")(
            *self.channels, **settings
        )
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


def forward(model: Callable[[Any], Any], x: mx.array) -> Callable[[], None]:
    """A call of an MLX layer."""
    return lambda: mx.eval(model(x))


def backward(model: nn.Module, x: mx.array) -> Callable[[], None]:
    """A call of an MLX layer and of its derivative by parameters and input."""

    def loss(parameters: dict[str, Any], x: mx.array) -> mx.array:
        model.update(parameters)
        return mx.square(model(x)).sum()

    gradient = mx.grad(loss, argnums=(0, 1))
    parameters = model.parameters()
    return lambda: mx.eval(gradient(parameters, x))


def torch_forward(model: torch.nn.Module, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A call of a PyTorch layer."""

    def run() -> torch.Tensor:
        with torch.inference_mode():
            y: torch.Tensor = model(x)
            return y

    return run


def torch_backward(model: torch.nn.Module, x: torch.Tensor) -> Callable[[], object]:
    """A call of a PyTorch layer and of its derivative by parameters and input."""
    x = x.clone().requires_grad_()
    wanted = [x, *model.parameters()]
    return lambda: torch.autograd.grad(model(x).square().sum(), wanted)


def measure(shape: Shape, dtype: str, *, derivative: bool) -> list[str]:
    """Return the cells of one row."""
    torch.manual_seed(0)
    module = shape.layer().to(DTYPES[dtype]).eval()
    x = torch.randn(1, shape.channels[0], *shape.sizes).to(DTYPES[dtype])
    ours = mlxport.convert_layer(module)
    native = shape.native(ours)
    values = mx.array(x.float().movedim(1, -1).numpy()).astype(getattr(mx, dtype))
    mx.eval(values, ours.parameters())
    ways: dict[str, Callable[[], object]] = {}
    if derivative:
        ways["torch"] = torch_backward(module, x)
        ways["ours"] = backward(ours, values)
        if native is not None:
            ways["native"] = backward(native, values)
    else:
        ways["torch"] = torch_forward(module, x)
        ways["ours"], ways["compiled"] = forward(ours, values), forward(mx.compile(ours), values)
        if native is not None:
            ways["native"] = forward(native, values)
    took = side_by_side(ways, SECONDS)
    names = [
        *(["native"] if native else []),
        "ours",
        *([] if derivative else ["compiled"]),
        "torch",
    ]
    cells = {name: milliseconds(took[name]) for name in names}
    gain = times(took["native"] / took["ours"]) if native else "-"
    given = [cells.get("native", "-"), cells["ours"], cells.get("compiled", "-"), cells["torch"]]
    return [*given, gain, times(took["ours"] / took["torch"])]


def tables() -> list[Table]:
    """Measure everything."""
    head = ["shape", "mlx.nn", "ours", "ours, compiled", "torch", "mlx.nn / ours", "ours / torch"]
    found = []
    for dtype, derivative in [(d, b) for d in DTYPES for b in (False, True)]:
        shapes = SHAPES if dtype == "float32" else {n: SHAPES[n] for n in [*SHAPES][:5]}
        rows = [[name, *measure(s, dtype, derivative=derivative)] for name, s in shapes.items()]
        kind = "forward and backward" if derivative else "forward"
        text = (
            "Milliseconds of one call, batch 1. `mlx.nn` has no groups in 3-D. "
            f"{layers.ConvTranspose3d.__name__} and its like are what `mlxport` builds."
        )
        found.append(Table(f"Transposed convolution, {dtype}, {kind}", text, head, rows))
    return found
