"""The rules of recurrent layers: arguments, parameters under their names, parity with torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mlx.utils import tree_flatten

from mlxport import layers
from mlxport.converter.plan.torch_tensor import tensor_from_torch
from mlxport.converter.plan.weight_plan import WeightPlan
from mlxport.converter.rules.build import build_layer, spec_for
from mlxport.converter.rules.registry import Axes, rule_for

# torch says so where it computes projections, which it does correctly
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")

MODULES = {
    "lstm": lambda: torch.nn.LSTM(5, 4),
    "lstm_all": lambda: torch.nn.LSTM(
        5, 4, 3, bias=False, batch_first=True, dropout=0.5, bidirectional=True, proj_size=2
    ),
    "gru": lambda: torch.nn.GRU(5, 4),
    "gru_all": lambda: torch.nn.GRU(5, 4, 3, False, True, 0.5, True),
    "rnn": lambda: torch.nn.RNN(5, 4),
    "rnn_all": lambda: torch.nn.RNN(5, 4, 3, "relu", False, True, 0.5, True),
    "lstm_cell": lambda: torch.nn.LSTMCell(5, 4),
    "gru_cell": lambda: torch.nn.GRUCell(5, 4, bias=False),
    "rnn_cell": lambda: torch.nn.RNNCell(5, 4),
    "rnn_cell_relu": lambda: torch.nn.RNNCell(5, 4, False, "relu"),
}
EVERY = pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)


def shape(module: torch.nn.Module) -> tuple[int, ...]:
    return (3, 5) if isinstance(module, torch.nn.RNNCellBase) else (6, 3, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@EVERY
def test_parity(
    assert_layer_parity: Callable[..., None], make: Callable[[], Any], dtype: torch.dtype
) -> None:
    module = make()
    assert_layer_parity(module, torch.randn(shape(module)), gradients=True, dtype=dtype)


@pytest.mark.parametrize("make", [MODULES["gru_all"], MODULES["rnn_all"]], ids=["gru", "rnn"])
def test_parity_from_a_state(
    assert_layer_parity: Callable[..., None], make: Callable[[], Any]
) -> None:
    assert_layer_parity(make(), torch.randn(6, 3, 5), torch.randn(6, 6, 4), gradients=True)


@EVERY
def test_parameters_go_over_under_their_names(make: Callable[[], Any]) -> None:
    module = make()
    state = {key: tensor_from_torch(tensor) for key, tensor in module.state_dict().items()}
    spec = spec_for(module)
    plan = WeightPlan(spec.entries, spec.ignored)
    converted = dict(plan.apply(state))
    assert converted.keys() == state.keys()
    assert dict(tree_flatten(build_layer(module).parameters())).keys() == state.keys()
    for key, tensor in plan.invert(converted):
        assert tensor.bits.tobytes() == state[key].bits.tobytes()


def test_arguments_that_differ_from_their_defaults() -> None:
    spec = spec_for(MODULES["rnn_all"]())
    assert (spec.target, spec.args, spec.axes) == (layers.RNN, (5, 4), Axes.LOGICAL)
    assert spec.kwargs == {
        "num_layers": 3,
        "bias": False,
        "batch_first": True,
        "dropout": 0.5,
        "bidirectional": True,
        "nonlinearity": "relu",
    }
    assert spec_for(torch.nn.LSTM(5, 4, 2, proj_size=2)).kwargs == {
        "num_layers": 2,
        "proj_size": 2,
    }
    assert not spec_for(torch.nn.GRU(5, 4)).kwargs
    assert not spec_for(torch.nn.LSTMCell(5, 4)).kwargs


def test_tied_layers_keep_all_their_keys(assert_layer_parity: Callable[..., None]) -> None:
    module = torch.nn.GRU(4, 4, 2)
    module.weight_hh_l1 = module.weight_hh_l0
    assert {entry.sources for entry in spec_for(module).entries} >= {
        ("weight_hh_l0",),
        ("weight_hh_l1",),
    }
    assert_layer_parity(module, torch.randn(3, 2, 4))


def test_mode_is_kept() -> None:
    module = torch.nn.LSTM(4, 4, 2, dropout=0.5)
    assert build_layer(module.train()).training
    assert not build_layer(module.eval()).training


class Reversed(torch.nn.LSTM):
    def forward(self, x: torch.Tensor) -> Any:  # type: ignore[override]
        return super().forward(x.flip(0))


def test_subclass_with_its_own_forward_has_no_rule() -> None:
    assert rule_for(Reversed(4, 4)) is None


@pytest.mark.parametrize("cls", [torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN])
def test_packed_sequences_are_named_as_a_restriction(cls: type[torch.nn.Module]) -> None:
    rule = rule_for(cls(4, 4))
    assert rule is not None
    assert "PackedSequence" in rule.restrictions
