"""What MLX layers say of their layout is what the rules of PyTorch's layers say."""

import inspect

import mlx.core as mx
import mlx.nn as nn
import pytest
import torch
from mlx.utils import tree_flatten

from mlxport import layers
from mlxport.converter.plan.mlx_layouts import reason_against, slots_of, steps_for
from mlxport.converter.rules.spec import spec_for

T = torch.nn
MODULES = [
    T.Conv1d(4, 6, 3, groups=2),
    T.Conv2d(4, 6, (3, 2)),
    T.Conv3d(4, 6, 3, bias=False),
    T.Conv3d(4, 6, 3, groups=2),
    T.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    T.ConvTranspose1d(4, 6, 3),
    T.ConvTranspose2d(4, 6, 3, groups=2),
    T.ConvTranspose3d(4, 4, 3, groups=4),
    T.Linear(3, 5),
    T.Bilinear(3, 5, 4),
    T.Embedding(5, 3),
    T.Embedding(5, 3, max_norm=1.0),
    T.EmbeddingBag(5, 3),
    T.BatchNorm1d(4).eval(),
    T.BatchNorm3d(4),
    T.BatchNorm2d(4, momentum=None),
    T.InstanceNorm3d(4, affine=True, track_running_stats=True),
    T.GroupNorm(2, 4),
    T.LayerNorm(4),
    T.LayerNorm((4, 3)),
    T.RMSNorm(4),
    T.PReLU(4),
    T.LSTM(3, 4, num_layers=2, bidirectional=True),
    T.GRU(3, 4),
    T.RNN(3, 4),
    T.GRUCell(3, 4),
    T.MultiheadAttention(4, 2, kdim=3, vdim=5, add_bias_kv=True),
    T.TransformerEncoderLayer(4, 2, 8),
]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_layers_and_rules_agree(module: torch.nn.Module) -> None:
    spec = spec_for(module)
    layer = spec.target(*spec.args, **spec.kwargs)
    slots = {slot.name: slot for slot in slots_of(layer)}
    assert slots.keys() == {target for entry in spec.entries for target in entry.targets}
    state = module.state_dict()
    for entry in spec.entries:
        slot = slots[entry.targets[0]]
        assert slot.steps == entry.steps
        assert slot.wanted == tuple(state[entry.sources[0]].shape)
        assert slot.reason == ""


def test_mlx_own_transposed_convolutions_have_one_group() -> None:
    for cls in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d):
        assert "groups" not in inspect.signature(cls).parameters
        layer = cls(4, 6, 3)
        assert next(s.wanted for s in slots_of(layer))[:2] == (4, 6)


def test_every_mlx_layer_with_parameters_is_known_or_refused() -> None:
    made = [
        nn.Linear(2, 3),
        nn.GroupNorm(1, 2),
        nn.InstanceNorm(2, affine=True),
        nn.PReLU(),
        nn.MultiHeadAttention(4, 2),
        nn.GRU(2, 3),
        nn.LSTM(2, 3),
        nn.RNN(2, 3),
        nn.Linear(64, 64).to_quantized(),
        nn.Embedding(64, 64).to_quantized(),
    ]
    for layer in made:
        for slot in slots_of(layer):
            assert slot.steps is not None or slot.reason, f"{type(layer).__name__}.{slot.name}"


@pytest.mark.parametrize("layer", [layers.LSTM(2, 3), layers.GRU(2, 3), layers.RNN(2, 3)], ids=str)
def test_our_recurrent_layers_are_not_mlx_ones(layer: nn.Module) -> None:
    assert reason_against(layer) == ""
    assert all(steps_for(layer, name) == () for name, _ in tree_flatten(layer.parameters()))


def test_names_lose_what_mlx_sequences_add() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2, bias=False)))
            self.layers = [nn.Linear(2, 2, bias=False)]
            self.scale = mx.ones((2,))

    slots = {slot.name: (slot.torch, slot.group) for slot in slots_of(Net())}
    assert slots == {
        "body.layers.0.weight": ("body.0.weight", "body.layers.0"),
        "body.layers.0.bias": ("body.0.bias", "body.layers.0"),
        "body.layers.1.layers.0.weight": ("body.1.0.weight", "body.layers.1.layers.0"),
        "layers.0.weight": ("layers.0.weight", "layers.0"),
        "scale": ("scale", ""),
    }


def test_a_layer_of_the_users_own_says_nothing() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = mx.ones((2, 2))

    assert [slot.steps for slot in slots_of(Own())] == [None]


def test_a_subclass_is_laid_out_as_its_base() -> None:
    class Mine(nn.Conv2d):
        pass

    assert steps_for(Mine(2, 3, 3), "weight") == steps_for(nn.Conv2d(2, 3, 3), "weight")
