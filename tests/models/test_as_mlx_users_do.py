"""Converted models do what MLX users do with a model: compile, train, freeze, cast, quantise."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn
import mlx.optimizers
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten
from torch import nn

import mlxport
from mlxport.examples.unet3d import UNet3d


class Attention(nn.Module):
    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(size, 3 * size)
        self.out = nn.Linear(size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, size = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(size // self.heads)
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        weights = scores.masked_fill(~causal, -torch.inf).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, length, size))


class Block(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attention = Attention(size, 2)
        self.mlp = nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size))
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.scale * self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Sizes that quantise; positions, masks and constants computed as it runs."""

    def __init__(self, words: int = 96, size: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, size)
        self.blocks = nn.ModuleList([Block(size) for _ in range(2)])
        self.norm = nn.LayerNorm(size)
        self.head = nn.Linear(size, words)
        self.register_buffer("rate", torch.logspace(0, -2, size // 2))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        angle = torch.arange(ids.shape[1], dtype=self.rate.dtype)[:, None] * self.rate
        x = 8 * self.embedding(ids) + torch.cat([angle.sin(), angle.cos()], -1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)) * 0.5


@dataclass(frozen=True)
class Case:
    """A model with weights as after training, and an input."""

    build: Callable[[], nn.Module]
    x: torch.Tensor

    def convert(self) -> tuple[nn.Module, mlx.nn.Module, mx.array]:
        torch.manual_seed(0)
        module = self.build().eval()
        with torch.no_grad():
            for tensor in module.state_dict(keep_vars=True).values():
                if tensor.ndim == 1 and tensor.is_floating_point():
                    tensor.mul_(torch.empty_like(tensor).uniform_(0.7, 1.3))
        model = mlxport.convert(module, self.x, verify=False).model
        return module, model, mx.array(self.x.numpy())


GENERATOR = torch.Generator().manual_seed(0)
CASES = {
    "unet": Case(lambda: UNet3d(widths=(4, 8)), torch.randn(1, 1, 8, 6, 7, generator=GENERATOR)),
    "transformer": Case(Transformer, torch.randint(0, 96, (2, 9), generator=GENERATOR)),
}

every_model = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def near(actual: mx.array, expected: torch.Tensor | mx.array, tolerance: float) -> bool:
    """Whether the relative L2 distance is at most the tolerance."""
    ours = np.array(actual.astype(mx.float32)).astype(np.float64)
    other = expected.detach().numpy() if isinstance(expected, torch.Tensor) else np.array(expected)
    return bool(np.linalg.norm(ours - other) <= tolerance * np.linalg.norm(other))


def loss_of(model: mlx.nn.Module, x: mx.array) -> mx.array:
    return mx.mean(model(x) ** 2)


@every_model
def test_it_compiles(case: Case) -> None:
    _, model, x = case.convert()
    expected = model(x)
    compiled = mx.compile(model)
    assert near(compiled(x), expected, 1e-6)
    assert near(compiled(x), expected, 1e-6)


@every_model
def test_gradients_are_pytorchs(case: Case) -> None:
    module, model, x = case.convert()
    module.double()
    inputs = case.x.double() if case.x.is_floating_point() else case.x
    torch.mean(module(inputs) ** 2).backward()
    _, gradients = mlx.nn.value_and_grad(model, loss_of)(model, x)
    found = dict(tree_flatten(gradients))
    expected = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert set(found) == set(expected)
    for name, gradient in found.items():
        assert mx.isfinite(gradient).all(), name
        wanted = expected[name].numpy()
        if gradient.ndim > 2:  # a convolution's: channels-last, the transposed one's swapped
            axes = (1, *range(2, wanted.ndim), 0) if "upsample" in name else None
            wanted = wanted.transpose(axes or (0, *range(2, wanted.ndim), 1))
        norm = np.linalg.norm(wanted)
        scale = max(
            norm, 1e-6 * np.linalg.norm(np.concatenate([g.ravel() for g in expected.values()]))
        )
        assert np.linalg.norm(np.array(gradient) - wanted) <= 1e-4 * scale, name


@every_model
def test_gradients_of_the_input_are_pytorchs(case: Case) -> None:
    if not case.x.is_floating_point():
        case = Case(lambda: Block(64), torch.randn(2, 9, 64, generator=GENERATOR))
    module, model, x = case.convert()
    inputs = case.x.double().requires_grad_()
    torch.mean(module.double()(inputs) ** 2).backward()
    assert inputs.grad is not None
    assert near(mx.grad(lambda x: loss_of(model, x))(x), inputs.grad, 1e-5)


@every_model
def test_a_step_of_training_lowers_the_loss(case: Case) -> None:
    _, model, x = case.convert()
    model.train()
    assert all(m.training for m in model.modules())
    optimizer = mlx.optimizers.SGD(1e-2)
    step = mlx.nn.value_and_grad(model, loss_of)
    before, gradients = step(model, x)
    optimizer.update(model, gradients)
    mx.eval(model.parameters())
    assert loss_of(model, x) < before
    model.eval()
    assert not any(m.training for m in model.modules())


@every_model
def test_a_compiled_step_of_training(case: Case) -> None:
    _, model, x = case.convert()
    model.train()
    optimizer = mlx.optimizers.Adam(1e-3)
    state = [model.state, optimizer.state]

    def step(x: mx.array) -> mx.array:
        value, gradients = mlx.nn.value_and_grad(model, loss_of)(model, x)
        optimizer.update(model, gradients)
        return value

    compiled = mx.compile(step, inputs=state, outputs=state)
    losses = []
    for _ in range(4):
        losses.append(compiled(x).item())
        mx.eval(state)
    assert losses[-1] < losses[0]


@every_model
def test_parameters_are_called_as_in_pytorch(case: Case) -> None:
    module, model, _ = case.convert()
    trained = {name for name, _ in tree_flatten(model.trainable_parameters())}
    assert trained == {name for name, _ in module.named_parameters()}
    every = {name for name, _ in tree_flatten(model.parameters())}
    left = {key for key in module.state_dict() if key.endswith("num_batches_tracked")}
    assert every == set(module.state_dict()) - left


@every_model
def test_weights_load_strictly(case: Case) -> None:
    _, model, x = case.convert()
    expected = model(x)
    weights = tree_flatten(model.parameters())
    other = copy.deepcopy(model)
    other.update(mlx.utils.tree_map(mx.zeros_like, other.parameters()))
    assert not mx.array_equal(other(x), expected)
    other.load_weights(weights, strict=True)
    assert mx.array_equal(other(x), expected)
    with pytest.raises(ValueError, match="Missing 1 parameters"):
        other.load_weights(weights[1:], strict=True)
    with pytest.raises(ValueError, match="Received 1 parameters not in model"):
        other.load_weights([*weights, ("surplus", mx.zeros(1))], strict=True)


@every_model
def test_it_freezes_and_thaws(case: Case) -> None:
    _, model, x = case.convert()
    trained = {name for name, _ in tree_flatten(model.trainable_parameters())}
    model.freeze()
    assert tree_flatten(model.trainable_parameters()) == []
    last = model.head if "head" in model else model.out
    last.unfreeze()
    _, gradients = mlx.nn.value_and_grad(model, loss_of)(model, x)
    assert {name for name, _ in tree_flatten(gradients)} == {"head.weight", "head.bias"}
    assert model.unfreeze() is model
    again = {name for name, _ in tree_flatten(model.trainable_parameters())}
    assert {name for name in again if "running" not in name} == trained  # as MLX's BatchNorm


class Buffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("table", torch.arange(3.0))
        self.register_buffer("ids", torch.tensor([2, 0, 1]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, self.ids] * self.weight + self.table


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([Buffers(), Buffers()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts:
            x = part(x)
        return x


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Nested()
        self.register_buffer("shift", torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + self.shift


@pytest.mark.parametrize("build", [Buffers, Nested, Outer])
def test_buffers_stay_frozen(build: type[nn.Module]) -> None:
    module = build()
    model = mlxport.convert(module, torch.randn(2, 3), verify=False).model
    expected = {name for name, _ in module.named_parameters()}
    for thaw in (lambda: model, model.unfreeze, lambda: model.freeze().unfreeze()):
        thaw()
        assert {name for name, _ in tree_flatten(model.trainable_parameters())} == expected
    mlx.nn.value_and_grad(model, loss_of)(model, mx.ones((2, 3)))  # integers have no gradients


def test_it_quantises() -> None:
    module, model, x = CASES["transformer"].convert()
    mlx.nn.quantize(model, group_size=32, bits=8)
    kinds = {type(m).__name__ for m in model.modules()}
    assert {"QuantizedLinear", "QuantizedEmbedding"} <= kinds
    assert "Linear" not in kinds
    assert near(model(x), module(CASES["transformer"].x), 0.02)


class Made(nn.Module):
    """Floats made of nothing, of integers and at random meet the model's."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.time = nn.Sequential(nn.Linear(4, 4), nn.SiLU())
        self.conv = nn.Conv1d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        rates = torch.exp(-torch.arange(4, dtype=torch.float32) / 4)
        x = self.linear(x) + self.time((t[:, None] * rates).to(x.dtype))[:, None]
        mask = torch.zeros(3, 3).masked_fill(torch.ones(3, 3).triu(1).bool(), -1e4)
        x = (x @ x.transpose(1, 2) + mask).softmax(-1) @ x
        x = torch.cat([x, torch.ones_like(x[..., :1])], -1) * torch.tensor(0.3)
        x = x + torch.eye(3, 5) + torch.full((5,), 0.5) + (t > 1).float()[:, None, None]
        x = torch.where(x > 0, x, x.new_zeros(())) + torch.linspace(0, 1, 5)
        return self.conv(x + torch.zeros(2, 3, 5)) + t.float().mean()


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_made_floats_do_not_promote(dtype: mx.Dtype) -> None:
    x, t = torch.randn(2, 3, 4), torch.tensor([1, 7])
    result = mlxport.convert(Made(), (x, t))
    assert result.report is not None
    assert result.report.passed
    result.model.set_dtype(dtype)
    y = result.model(mx.array(x.numpy()).astype(dtype), mx.array(t.numpy()))
    assert y.dtype == dtype


HALVES = {"float16": (mx.float16, 5e-3), "bfloat16": (mx.bfloat16, 4e-2)}


@every_model
@pytest.mark.parametrize(("dtype", "tolerance"), HALVES.values(), ids=HALVES)
def test_it_stays_in_half_precision(case: Case, dtype: mx.Dtype, tolerance: float) -> None:
    module, model, x = case.convert()
    model.set_dtype(dtype)
    seen: dict[str, mx.Dtype] = {}

    def watched(cls: type) -> type:
        def call(self: mlx.nn.Module, *args: mx.array) -> mx.array:
            result = cls.__call__(self, *args)
            seen[f"{len(seen)} {cls.__name__}"] = result.dtype
            return result

        return type(cls.__name__, (cls,), {"__call__": call})

    for part in model.modules():
        object.__setattr__(part, "__class__", watched(type(part)))
    y = model(x.astype(dtype) if case.x.is_floating_point() else x)
    assert {name: kind for name, kind in seen.items() if kind != dtype} == {}
    assert len(seen) > 10
    assert near(y, module(case.x), tolerance)


@every_model
def test_copies_are_independent(case: Case) -> None:
    _, model, x = case.convert()
    expected = model(x)
    other = copy.deepcopy(model)
    assert mx.array_equal(other(x), expected)
    other.update(mlx.utils.tree_map(mx.zeros_like, other.parameters()))
    assert mx.array_equal(model(x), expected)
