from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten

from mlxport import layers
from mlxport.converter.errors import StateDictError, UnsupportedError
from mlxport.converter.rules.build import build_layer, spec_for
from mlxport.converter.rules.registry import Axes

T = torch.nn


class Block(T.Sequential):
    """Another way to be built, nothing else."""

    def __init__(self, channels: int) -> None:
        super().__init__(T.Conv3d(channels, channels, 3, padding=1), T.BatchNorm3d(channels))


class Residual(T.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)


class Branches(T.ModuleList):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum(module(x) for module in self)


def perceptron() -> T.Sequential:
    return T.Sequential(T.Linear(4, 8), T.ReLU(), T.LayerNorm(8), T.Dropout(), T.Linear(8, 2))


def volumes() -> T.Sequential:
    named = [("in", T.Conv3d(2, 4, 3, padding=1)), ("act", T.ELU()), ("keys", Block(4))]
    return T.Sequential(OrderedDict([*named, ("up", T.ConvTranspose3d(4, 3, 2, stride=2))]))


@pytest.mark.parametrize(
    ("module", "shape", "axes"),
    [
        pytest.param(perceptron(), (3, 4), Axes.FEATURES_LAST, id="features"),
        pytest.param(perceptron(), (3, 5, 4), Axes.FEATURES_LAST, id="sequences"),
        pytest.param(volumes(), (1, 2, 4, 5, 6), Axes.CHANNELS_LAST, id="volumes"),
        pytest.param(T.Sequential(T.ReLU(), T.Tanh()), (3, 4), Axes.ANY, id="pointwise"),
        pytest.param(T.Sequential(), (3, 4), Axes.ANY, id="empty"),
        pytest.param(
            T.Sequential(T.Linear(4, 6), T.Softmax(0)), (3, 4), Axes.LOGICAL, id="logical"
        ),
    ],
)
def test_chain(
    assert_layer_parity: Callable[..., None],
    module: T.Sequential,
    shape: tuple[int, ...],
    axes: Axes,
) -> None:
    assert spec_for(module).axes is axes
    assert_layer_parity(module, torch.randn(shape), gradients=True)


def test_unbatched_chain(assert_layer_parity: Callable[..., None]) -> None:
    chain = T.Sequential(T.ConvTranspose2d(2, 3, 3, stride=2), T.ReLU(), T.ConvTranspose2d(3, 2, 1))
    assert spec_for(chain).rank == 2
    assert_layer_parity(chain, torch.randn(2, 4, 5))


def test_names_are_those_of_mlx() -> None:
    layer = build_layer(volumes())
    assert isinstance(layer, nn.Sequential)
    names = {name for name, _ in tree_flatten(layer.parameters())}
    assert {"layers.0.weight", "layers.2.layers.0.bias", "layers.3.weight"} <= names
    assert layer.layers[3].weight.shape == (3, 2, 2, 2, 4)


def test_every_layer_keeps_its_mode() -> None:
    module = T.Sequential(T.Dropout(), T.Sequential(T.Dropout(), T.Dropout().eval()))
    layer = build_layer(module)
    inner = layer.layers[1]
    modes = [m.training for m in (layer, layer.layers[0], inner, *inner.layers)]
    assert modes == [True, True, True, True, False]
    assert not build_layer(module.eval()).layers[1].training


def test_activation_used_twice(assert_layer_parity: Callable[..., None]) -> None:
    act = T.ReLU()
    module = T.Sequential(T.Linear(3, 4), act, T.Linear(4, 5), act)
    assert_layer_parity(module, torch.randn(2, 3))
    assert len(build_layer(module).layers) == 4


def test_lists_and_dicts_of_modules() -> None:
    blocks = T.ModuleDict({"0": T.ModuleList([T.Linear(3, 4), T.Conv2d(2, 3, 1)]), "act": T.ReLU()})
    built = build_layer(blocks)
    assert set(built) == {"0", "act"}
    assert [type(layer) for layer in built["0"]] == [nn.Linear, layers.Conv2d]
    assert isinstance(built["act"], nn.ReLU)
    x = torch.randn(2, 3)
    want = blocks["0"][0](x).detach().numpy()
    np.testing.assert_allclose(np.array(built["0"][0](mx.array(x.numpy()))), want, rtol=1e-5)
    targets = [t for entry in spec_for(blocks).entries for t in entry.targets]
    assert targets == ["0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias"]


@pytest.mark.parametrize(
    "container",
    [
        T.ModuleList([T.ReLU(), T.BatchNorm1d(2)]),
        T.ModuleDict({"0": T.ReLU(), "1": T.BatchNorm1d(2)}),
        T.Sequential(T.ReLU(), T.BatchNorm1d(2)),
    ],
    ids=lambda container: type(container).__name__,
)
def test_what_is_ignored_inside_is_ignored(container: T.Module) -> None:
    ignored = spec_for(container).ignored
    assert set(ignored) == {"1.num_batches_tracked"}
    assert (
        ignored["1.num_batches_tracked"]
        == (spec_for(T.BatchNorm1d(2)).ignored["num_batches_tracked"])
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_lists_and_dicts_of_parameters(dtype: torch.dtype) -> None:
    tensors = [torch.randn(3, 4, dtype=dtype), torch.randn((), dtype=dtype)]
    listed = build_layer(T.ParameterList(tensors))
    named = build_layer(T.ParameterDict({"a": tensors[0], "b": tensors[1]}))
    assert isinstance(listed, list)
    assert list(named) == ["a", "b"]
    for got, want in zip([*listed, *named.values()], tensors * 2, strict=True):
        assert mx.array_equal(got, mx.array(want))
        assert got.dtype == mx.array(want).dtype


def shared() -> T.Module:
    linear = T.Linear(3, 3)
    return T.Sequential(linear, T.ReLU(), linear)


def tied() -> T.Module:
    module = T.ModuleList([T.Linear(3, 3), T.Linear(3, 3)])
    module[1].weight = module[0].weight
    return module


def hooked() -> T.Module:
    module = T.Sequential(T.Linear(3, 3))
    module[0].register_forward_hook(lambda module, args, result: result * 2)
    return module


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        pytest.param(
            T.Sequential(T.Conv2d(3, 4, 3), T.ReLU(), T.Flatten(), T.Linear(4, 5)),
            r"(?s)different axis orders.*0 \(Conv2d\): channels_last.*2 \(Flatten\): logical"
            r".*3 \(Linear\): features_last.*convert the whole model",
            id="orders",
        ),
        pytest.param(
            T.Sequential(T.Linear(4, 8), T.BatchNorm1d(8)), "different axis orders", id="norm"
        ),
        pytest.param(shared(), "0.weight is 2.weight", id="shared"),
        pytest.param(tied(), "0.weight is 1.weight", id="tied"),
        pytest.param(hooked(), "0: Linear does more than its class", id="hooked"),
        pytest.param(
            T.Sequential(Residual(T.ReLU()), T.Softmax()),
            r"(?s)layers of it.*0: Residual.*no rule is registered.*1: Softmax: dim=None",
            id="all_problems",
        ),
        pytest.param(T.Sequential(T.ModuleList()), "its layers 0 are collections", id="idle"),
        pytest.param(Residual(T.ReLU()), "a class of its own", id="forward"),
        pytest.param(Branches([T.ReLU()]), "a class of its own", id="forward_of_list"),
        pytest.param(T.ParameterDict({"a": torch.ones(1), "b": None}), "b hold no", id="none"),
        pytest.param(T.DataParallel(T.ReLU()), r"convert its \.module", id="parallel"),
    ],
)
def test_refuses(module: T.Module, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        build_layer(module)


def test_tensors_mlx_cannot_hold_are_all_listed() -> None:
    tensors = [torch.ones(2, dtype=torch.float64), torch.ones(1, dtype=torch.float64)]
    with pytest.raises(StateDictError, match=r"(?s)0: .*F64.*1: .*F64"):
        build_layer(T.ParameterList(tensors))
