"""Modules that compute a layer of MLX become it; those that compute something else do not."""

import math

import mlx.core as mx
import mlx.nn as nn
import pytest
import torch
from torch.nn import functional as F

import mlxport
from mlxport import layers
from mlxport.converter.graph import ops
from mlxport.converter.graph.capture.capture import capture


class Own(torch.nn.Module):
    """A module of two tensors whose forward is a function."""

    def __init__(self, function, *shape, weight=True, bias=True, name="weight"):
        super().__init__()
        self.function = function
        self.name = name
        if weight:
            setattr(self, name, torch.nn.Parameter(torch.rand(shape) + 0.5))
        self.bias = torch.nn.Parameter(torch.rand(shape)) if bias else None

    def forward(self, *tensors):
        tensor = getattr(self, self.name, None)
        return self.function(*tensors, *(t for t in (tensor, self.bias) if t is not None))


class Calls(torch.nn.Module):
    def __init__(self, norm, times=1):
        super().__init__()
        self.norm = norm
        self.times = times

    def forward(self, *tensors):
        for _ in range(self.times):
            tensors = (self.norm(*tensors) * 2, *tensors[1:])
        return tensors[0]


def llama(x, w):
    dtype = x.dtype
    x = x.to(torch.float32)
    return w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)).to(dtype)


def olmo(x, w):
    wide = x.float()
    return (w * (wide / torch.sqrt((wide * wide).mean(2, keepdim=True) + 1e-3))).to(x.dtype)


def cohere(x, w):
    wide = x.float()
    mean = wide.mean(-1, keepdim=True)
    square = (wide - mean).pow(2).mean(-1, keepdim=True)
    return (w.float() * ((wide - mean) * torch.rsqrt(square + 1e-5))).to(x.dtype)


def by_variance(x, w, b):
    var = x.var(-1, keepdim=True, unbiased=False)
    return (x - x.mean(-1, keepdim=True)) / (var + 1e-5).sqrt() * w + b


def over_channels(x, w, b):
    mean = x.mean(1, keepdim=True)
    square = (x - mean).pow(2).mean(1, keepdim=True)
    return w[:, None, None] * ((x - mean) / torch.sqrt(square + 1e-6)) + b[:, None, None]


def rms_over_channels(x, w):
    return x * (x.square().mean(1, keepdim=True) + 1e-6).rsqrt() * w.reshape(1, -1, 1, 1)


def permuted(x, w, b):
    return F.layer_norm(x.permute(0, 2, 3, 1), (6,), w, b, 1e-6).permute(0, 3, 1, 2)


def gemma(x, w):
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)
    return (wide * (1.0 + w.float())).type_as(x)


def without_weight(x):
    return x * (x.pow(2).mean(-1, keepdim=True) + 1e-6) ** -0.5


NORMS = [
    pytest.param(Own(llama, 6, bias=False), (2, 5, 6), nn.RMSNorm, id="llama"),
    pytest.param(Own(llama, 6, bias=False, name="scale"), (2, 6), nn.RMSNorm, id="another name"),
    pytest.param(Own(olmo, 6, bias=False), (2, 5, 6), nn.RMSNorm, id="division by a root"),
    pytest.param(
        Own(gemma, 6, bias=False), (2, 5, 6), layers.UnitOffsetRMSNorm, id="one plus the weight"
    ),
    pytest.param(Own(without_weight, weight=False, bias=False), (3, 6), layers.RMSNorm, id="plain"),
    pytest.param(Own(rms_over_channels, 6, bias=False), (2, 6, 3, 4), nn.RMSNorm, id="rms of NCHW"),
    pytest.param(Own(cohere, 6, bias=False), (2, 5, 6), nn.LayerNorm, id="no bias"),
    pytest.param(Own(by_variance, 6), (2, 5, 6), nn.LayerNorm, id="by var"),
    pytest.param(Own(over_channels, 6), (2, 6, 3, 4), nn.LayerNorm, id="of NCHW"),
    pytest.param(Own(permuted, 6), (2, 6, 3, 4), nn.LayerNorm, id="permuted"),
    pytest.param(
        Own(lambda x, w, b: F.layer_norm(x, (6,), w, b, 1e-3), 6),
        (2, 6),
        nn.LayerNorm,
        id="an op that a class of its own calls",
    ),
]


def spec_of(norm, *inputs, times=1):
    """Return the layer that a module called by another becomes, and None where it stays one."""
    captured = capture(Calls(norm, times).eval(), inputs, handled=ops.registry.OPS)
    rule = captured.leaves.get("norm")
    return None if rule is None else rule.build(norm)


@pytest.mark.parametrize(("norm", "shape", "target"), NORMS)
def test_a_norm_becomes_the_layer(norm, shape, target):
    x = torch.randn(shape) * 3 + 1
    converted = mlxport.convert(Calls(norm, 2).eval(), x)
    assert isinstance(converted.model.norm, target)
    assert converted.report.passed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("function", [llama, olmo, cohere, gemma])
def test_a_norm_in_half_precision_with_statistics_in_single(function, dtype):
    norm = Own(function, 6, bias=False).to(dtype)
    x = torch.randn(2, 5, 6, dtype=dtype)
    converted = mlxport.convert(Calls(norm).eval(), x)
    assert type(converted.model.norm).__name__ in ("LayerNorm", "RMSNorm", "UnitOffsetRMSNorm")
    assert converted.report.passed


ACTIVATIONS = {
    "relu": (torch.relu, nn.ReLU),
    "silu": (F.silu, nn.SiLU),
    "mish": (F.mish, nn.Mish),
    "hardswish": (F.hardswish, nn.Hardswish),
    "hardsigmoid": (F.hardsigmoid, layers.Hardsigmoid),
    "sigmoid": (torch.sigmoid, nn.Sigmoid),
    "tanh": (torch.tanh, nn.Tanh),
    "gelu": (F.gelu, nn.GELU),
    "gelu by tanh": (lambda x: F.gelu(x, approximate="tanh"), nn.GELU),
    "silu spelled out": (lambda x: x * torch.sigmoid(x), nn.SiLU),
    "gelu spelled out": (lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))), nn.GELU),
    "gelu_new": (
        lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        nn.GELU,
    ),
    "gelu_fast": (
        lambda x: 0.5 * x * (1 + torch.tanh(x * 0.7978845608 * (1 + 0.044715 * x * x))),
        nn.GELU,
    ),
    "quick_gelu": (lambda x: x * torch.sigmoid(1.702 * x), nn.GELU),
}


@pytest.mark.parametrize(("function", "target"), ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_an_activation_becomes_the_layer(function, target):
    module = Own(function, weight=False, bias=False)
    converted = mlxport.convert(Calls(module), torch.randn(3, 40) * 3)
    assert isinstance(converted.model.norm, target)
    assert converted.report.passed


def biased(x, w):
    return w * x / (x.var(-1, keepdim=True) + 1e-5).sqrt()


def of_two(x, y, w):
    return w * (x * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6))


def in_half(x, w):
    return w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


OTHERS = [
    pytest.param(biased, [(2, 6)], torch.float32, id="a variance that is not centred"),
    pytest.param(of_two, [(2, 6), (2, 6)], torch.float32, id="the square of another tensor"),
    pytest.param(in_half, [(2, 6)], torch.float16, id="statistics in half precision"),
    pytest.param(
        lambda x, w: w * (x * (x.pow(2).sum(-1, keepdim=True) + 1e-6).rsqrt()),
        [(2, 6)],
        torch.float32,
        id="a sum for a mean",
    ),
    pytest.param(
        lambda x, w: w * (x * (x.pow(2).mean(1, keepdim=True) + 1e-6).rsqrt()),
        [(2, 5, 6)],
        torch.float32,
        id="a mean over another axis than the weight's",
    ),
    pytest.param(
        lambda x, w: w * (x * (x.pow(2).mean(0, keepdim=True) + 1e-6).rsqrt()),
        [(2, 6)],
        torch.float32,
        id="a mean over the batch",
    ),
    pytest.param(
        lambda x, w: w * (x * (x.pow(2).mean() + 1e-6).rsqrt()),
        [(2, 6)],
        torch.float32,
        id="a mean over all",
    ),
    pytest.param(
        lambda x, w: (2 + w) * (x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()),
        [(2, 6)],
        torch.float32,
        id="two plus the weight",
    ),
    pytest.param(
        lambda x, w: 2 * w * (x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()),
        [(2, 6)],
        torch.float32,
        id="twice the weight",
    ),
    pytest.param(
        lambda x, w: w * w * (x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()),
        [(2, 6)],
        torch.float32,
        id="the weight squared",
    ),
    pytest.param(
        lambda x, w: w * (x * (x.pow(3).mean(-1, keepdim=True) + 9).rsqrt()),
        [(2, 6)],
        torch.float32,
        id="a cube",
    ),
    pytest.param(
        lambda x, w: F.layer_norm(x.permute(0, 3, 2, 1), (6,), w).permute(0, 3, 2, 1),
        [(2, 6, 3, 4)],
        torch.float32,
        id="the axes of an image exchanged",
    ),
    pytest.param(
        lambda x, w: F.layer_norm(x, (1, 6), w[None]),
        [(2, 1, 6)],
        torch.float32,
        id="two axes",
    ),
]


@pytest.mark.parametrize(("function", "shapes", "dtype"), OTHERS)
def test_what_computes_something_else_stays_a_class(function, shapes, dtype):
    norm = Own(function, 6, bias=False).to(dtype)
    inputs = [torch.randn(shape).abs().to(dtype) for shape in shapes]
    assert spec_of(norm, *inputs) is None


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(
            lambda x: 0.5 * x * (1 + torch.tanh(0.79 * (x + 0.044715 * x**3))), id="another root"
        ),
        pytest.param(lambda x: x * torch.sigmoid(1.7 * x), id="another slope"),
        pytest.param(lambda x: x * torch.sigmoid(x + 1), id="moved"),
        pytest.param(lambda x: 0.6 * x * (1 + torch.erf(x / math.sqrt(2))), id="another factor"),
    ],
)
def test_another_curve_stays_a_class(function):
    module = Own(function, weight=False, bias=False)
    assert spec_of(module, torch.randn(3, 4)) is None


def test_an_activation_of_integers_stays_a_class():
    module = Own(lambda n: torch.sigmoid(n), weight=False, bias=False)
    assert spec_of(module, torch.arange(6)) is None


def test_a_curve_in_half_precision_stays_a_class():
    module = Own(ACTIVATIONS["gelu_new"][0], weight=False, bias=False)
    assert spec_of(module, torch.randn(3, 4, dtype=torch.bfloat16)) is None


def test_a_module_that_gives_more_stays_a_class():
    class Both(torch.nn.Module):
        def forward(self, x):
            root = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
            return x * root, root

    class Sum(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = Both()

        def forward(self, x):
            return torch.add(*self.norm(x))

    x = torch.randn(2, 6)
    assert "norm" not in capture(Sum(), (x,), handled=ops.registry.OPS).leaves


def test_a_module_with_a_tensor_besides_stays_a_class():
    norm = Own(llama, 6, bias=False)
    norm.register_buffer("steps", torch.zeros(()))
    assert spec_of(norm, torch.randn(2, 6)) is None


class Switched(Own):
    """A norm whose eps depends on the size of the batch."""

    def forward(self, x):
        eps = 1e-6 if x.shape[0] > 2 else 1e-3
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * self.weight


def test_a_size_that_a_recognised_module_reads_stays_fixed():
    converted = mlxport.convert(Calls(Switched(None, 6, bias=False)), torch.randn(3, 6))
    assert isinstance(converted.model.norm, nn.RMSNorm)
    with pytest.raises(ValueError, match="converted for n 3"):
        converted.model(mx.zeros((2, 6)))


def test_calls_that_differ_stay_a_class():
    class Twice(Calls):
        def forward(self, x):
            return torch.cat([self.norm(x), self.norm(x[:2])])

    model = Twice(Switched(None, 6, bias=False))
    converted = mlxport.convert(model, torch.randn(3, 6) * 0.01)
    assert not isinstance(converted.model.norm, nn.RMSNorm)
    assert converted.report.passed


def test_a_module_with_a_hook_stays_a_class():
    norm = Own(llama, 6, bias=False)
    norm.register_forward_hook(lambda module, args, output: None)
    assert spec_of(norm, torch.randn(2, 6)) is None


def test_a_weight_that_another_module_changes_stands_where_it_is_read():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = Own(llama, 6, bias=False)

        def forward(self, x):
            return self.norm(x) + self.norm.weight

    x = torch.randn(2, 6)
    converted = mlxport.convert(Tied(), x)
    assert isinstance(converted.model.norm, nn.RMSNorm)
    assert converted.report.passed


def test_a_plain_sum_of_residuals_reads_the_input_of_a_norm():
    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = Own(llama, 6, bias=False)

        def forward(self, x):
            return x + self.norm(x)

    converted = mlxport.convert(Block(), torch.randn(2, 6))
    assert isinstance(converted.model.norm, nn.RMSNorm)
    assert "return x + self.norm(x)" in converted.source


def test_weights_of_a_recognised_norm_go_back(tmp_path):
    model = Calls(Own(llama, 6, bias=False, name="scale"))
    converted = mlxport.convert(model, torch.randn(2, 6))
    (entry,) = converted.conversion.plan.entries
    assert (entry.sources, entry.targets) == (("norm.scale",), ("norm.weight",))
