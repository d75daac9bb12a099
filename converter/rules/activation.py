"""Rules for activation layers. The argument ``inplace`` means nothing in MLX and is dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.nn as nn
import torch

from mlxport import layers
from mlxport.converter.rules.entries import unchanged_entries
from mlxport.converter.rules.registry import Axes, LayerSpec, Refusal, changed, rule

# torch's class -> its MLX layer, and the ops it is captured as.
_WITHOUT_ARGUMENTS: dict[type[torch.nn.Module], tuple[type[nn.Module], tuple[str, ...]]] = {
    torch.nn.ReLU: (nn.ReLU, ("relu.default", "relu_.default")),
    torch.nn.ReLU6: (nn.ReLU6, ("hardtanh.default", "hardtanh_.default")),
    torch.nn.SELU: (layers.SELU, ("selu.default", "selu_.default")),
    torch.nn.SiLU: (nn.SiLU, ("silu.default", "silu_.default")),
    torch.nn.Mish: (nn.Mish, ("mish.default", "mish_.default")),
    torch.nn.Hardswish: (nn.Hardswish, ("hardswish.default", "hardswish_.default")),
    torch.nn.Hardsigmoid: (layers.Hardsigmoid, ("hardsigmoid.default", "hardsigmoid_.default")),
    torch.nn.Sigmoid: (nn.Sigmoid, ("sigmoid.default",)),
    torch.nn.LogSigmoid: (nn.LogSigmoid, ("log_sigmoid.default",)),
    torch.nn.Tanh: (nn.Tanh, ("tanh.default",)),
    torch.nn.Tanhshrink: (layers.Tanhshrink, ("tanh.default", "sub.Tensor")),
    torch.nn.Softsign: (nn.Softsign, ("abs.default", "add.Tensor", "div.Tensor")),
}


def _name(target: Callable[..., Any]) -> str:
    package = "layers" if target.__module__.startswith("mlxport.") else "mlx.nn"
    return f"{package}.{target.__name__}"


def _register(source: type[torch.nn.Module], target: type[nn.Module], ops: tuple[str, ...]) -> None:
    def build(module: torch.nn.Module) -> LayerSpec:
        return LayerSpec(target, axes=Axes.ANY)

    rule(source, ops=[f"aten.{op}" for op in ops], target=_name(target))(build)


for _source, (_target, _ops) in _WITHOUT_ARGUMENTS.items():
    _register(_source, _target, _ops)


def _pointwise(target: Callable[..., Any], default: Any, value: Any) -> LayerSpec:
    """Return the spec of a pointwise layer with one argument, left out if it is the default."""
    return LayerSpec(target, () if value == default else (value,), axes=Axes.ANY)


@rule(torch.nn.ELU, ops=["aten.elu.default", "aten.elu_.default"], target="layers.ELU")
def elu(module: torch.nn.ELU) -> LayerSpec:
    """``layers.ELU``: MLX's cancels near zero and has NaN gradients."""
    return _pointwise(layers.ELU, 1.0, module.alpha)


@rule(torch.nn.CELU, ops=["aten.celu.default", "aten.celu_.default"], target="layers.CELU")
def celu(module: torch.nn.CELU) -> LayerSpec:
    """``layers.CELU``: MLX's cancels near zero."""
    if module.alpha == 0:
        raise Refusal("alpha=0, which PyTorch constructs but cannot run")
    return _pointwise(layers.CELU, 1.0, module.alpha)


@rule(
    torch.nn.LeakyReLU,
    ops=["aten.leaky_relu.default", "aten.leaky_relu_.default"],
    target="mlx.nn.LeakyReLU, layers.LeakyReLU",
)
def leaky_relu(module: torch.nn.LeakyReLU) -> LayerSpec:
    """MLX's is ``max(x, slope·x)``, which is right for slopes up to 1 except 0; else ours."""
    slope = module.negative_slope
    native = slope <= 1 and slope != 0
    return _pointwise(nn.LeakyReLU if native else layers.LeakyReLU, 0.01, slope)


@rule(torch.nn.RReLU, ops=["aten.rrelu.default", "aten.rrelu_.default"], target="layers.RReLU")
def rrelu(module: torch.nn.RReLU) -> LayerSpec:
    """``layers.RReLU``: MLX has none."""
    defaults = {"lower": 1 / 8, "upper": 1 / 3}
    arguments = changed(defaults, lower=module.lower, upper=module.upper)
    return LayerSpec(layers.RReLU, (), arguments, axes=Axes.ANY)


@rule(torch.nn.GELU, ops=["aten.gelu.default"], target="mlx.nn.GELU")
def gelu(module: torch.nn.GELU) -> LayerSpec:
    """MLX's, exact or approximated by ``tanh``, as PyTorch's."""
    arguments = changed({"approx": "none"}, approx=module.approximate)
    return LayerSpec(nn.GELU, (), arguments, axes=Axes.ANY)


@rule(
    torch.nn.Hardtanh,
    ops=["aten.hardtanh.default", "aten.hardtanh_.default"],
    target="mlx.nn.HardTanh, layers.HardTanh",
)
def hardtanh(module: torch.nn.Hardtanh) -> LayerSpec:
    """MLX's, or ``layers.HardTanh`` where the limits are not -1 and 1."""
    limits = (module.min_val, module.max_val)
    if limits == (-1.0, 1.0):
        return LayerSpec(nn.HardTanh, axes=Axes.ANY)
    return LayerSpec(layers.HardTanh, limits, axes=Axes.ANY)


@rule(
    torch.nn.Softplus,
    ops=["aten.softplus.default"],
    target="mlx.nn.Softplus, layers.Softplus",
)
def softplus(module: torch.nn.Softplus) -> LayerSpec:
    """MLX's for the default threshold, 20, which makes no difference in float32; else ours."""
    defaults = {"beta": 1.0, "threshold": 20.0}
    arguments = changed(defaults, beta=module.beta, threshold=module.threshold)
    return LayerSpec(layers.Softplus if arguments else nn.Softplus, (), arguments, axes=Axes.ANY)


@rule(
    torch.nn.Threshold,
    ops=["aten.threshold.default", "aten.threshold_.default"],
    target="layers.Threshold",
)
def threshold(module: torch.nn.Threshold) -> LayerSpec:
    """``layers.Threshold``: MLX has none."""
    return LayerSpec(layers.Threshold, (module.threshold, module.value), axes=Axes.ANY)


@rule(torch.nn.Hardshrink, ops=["aten.hardshrink.default"], target="layers.HardShrink")
def hardshrink(module: torch.nn.Hardshrink) -> LayerSpec:
    """``layers.HardShrink``: MLX's turns NaN into 0."""
    return _pointwise(layers.HardShrink, 0.5, module.lambd)


@rule(torch.nn.Softshrink, ops=["aten.softshrink.default"], target="layers.Softshrink")
def softshrink(module: torch.nn.Softshrink) -> LayerSpec:
    """``layers.Softshrink``: MLX's turns NaN into 0."""
    if module.lambd < 0:
        raise Refusal(f"lambd={module.lambd} is negative, which PyTorch cannot run")
    return _pointwise(layers.Softshrink, 0.5, module.lambd)


@rule(torch.nn.PReLU, ops=["aten.prelu.default"], target="mlx.nn.PReLU, layers.PReLU")
def prelu(module: torch.nn.PReLU) -> LayerSpec:
    """MLX's with a slope per channel; ours with one, as MLX's turns a scalar into a vector."""
    count = module.num_parameters
    return LayerSpec(
        layers.PReLU if count == 1 else nn.PReLU,
        () if count == 1 else (count,),
        entries=unchanged_entries(module, "weight"),
        axes=Axes.ANY if count == 1 else Axes.CHANNELS_LAST,
    )


@rule(
    torch.nn.Softmax,
    ops=["aten.softmax.int"],
    target="layers.Softmax",
    restrictions="dim must be given",
    leaf=False,
)
def softmax(module: torch.nn.Softmax) -> LayerSpec:
    """``layers.Softmax``: MLX's class has no axis and sums half precision in half precision."""
    return _along_axis(layers.Softmax, module.dim)


@rule(
    torch.nn.Softmin,
    ops=["aten.neg.default", "aten.softmax.int"],
    target="layers.Softmin",
    restrictions="dim must be given",
    leaf=False,
)
def softmin(module: torch.nn.Softmin) -> LayerSpec:
    """``layers.Softmin``: MLX's class has no axis and sums half precision in half precision."""
    return _along_axis(layers.Softmin, module.dim)


@rule(
    torch.nn.LogSoftmax,
    ops=["aten.log_softmax.int"],
    target="mlx.nn.LogSoftmax, layers.LogSoftmax",
    restrictions="dim must be given",
    leaf=False,
)
def log_softmax(module: torch.nn.LogSoftmax) -> LayerSpec:
    """MLX's over the last axis; ``layers.LogSoftmax`` over another, as MLX's class has none."""
    return _along_axis(nn.LogSoftmax if module.dim == -1 else layers.LogSoftmax, module.dim)


@rule(torch.nn.GLU, ops=["aten.glu.default"], target="mlx.nn.GLU", leaf=False)
def glu(module: torch.nn.GLU) -> LayerSpec:
    """``mlx.nn.GLU`` computes the same."""
    return _along_axis(nn.GLU, module.dim)


def _along_axis(target: Callable[..., Any], dim: int | None) -> LayerSpec:
    if dim is None:
        raise Refusal("dim=None leaves the axis to the input's number of dimensions; give dim")
    if not isinstance(dim, int):
        raise Refusal(f"dim={dim!r} is no axis; give an integer")
    return LayerSpec(target, (), changed({"axis": -1}, axis=int(dim)), axes=Axes.LOGICAL)


@rule(torch.nn.Softmax2d, ops=["aten.softmax.int"], target="layers.Softmax")
def softmax2d(module: torch.nn.Softmax2d) -> LayerSpec:
    """``layers.Softmax`` over the channels, which are last in MLX."""
    return LayerSpec(layers.Softmax, rank=2)
