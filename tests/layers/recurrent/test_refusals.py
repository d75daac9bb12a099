"""What torch refuses, the layers refuse too, and say what they expected."""

from typing import Any

import mlx.core as mx
import pytest
import torch

from mlxport import layers

NETWORKS = ["LSTM", "GRU", "RNN"]
CELLS = ["LSTMCell", "GRUCell", "RNNCell"]

ARGUMENTS = [
    *(
        pytest.param(name, arguments, message, id=f"{name}-{message.split()[0]}")
        for name in NETWORKS
        for arguments, message in [
            ({"input_size": 0}, "input_size"),
            ({"hidden_size": 0}, "hidden_size"),
            ({"num_layers": 0}, "num_layers"),
            ({"dropout": 1.5}, "dropout"),
            ({"dropout": -0.5}, "dropout"),
        ]
    ),
    pytest.param("LSTM", {"proj_size": 6}, "proj_size", id="LSTM-proj_size"),
    pytest.param("LSTM", {"proj_size": -1}, "proj_size", id="LSTM-negative_proj_size"),
    pytest.param("RNN", {"nonlinearity": "gelu"}, "nonlinearity", id="RNN-nonlinearity"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), ARGUMENTS)
def test_arguments(name: str, arguments: dict[str, Any], message: str) -> None:
    arguments = {"input_size": 4, "hidden_size": 6, **arguments}
    with pytest.raises(ValueError, match=message):
        getattr(torch.nn, name)(**arguments)
    with pytest.raises(ValueError, match=rf"\[{name}\] .*'{message}'"):
        getattr(layers, name)(**arguments)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "arguments",
    [{"input_size": 4.0}, {"hidden_size": "6"}, {"bias": 0}, {"batch_first": "False"}],
    ids=str,
)
def test_types(name: str, arguments: dict[str, Any]) -> None:
    (message,) = arguments
    arguments = {"input_size": 4, "hidden_size": 6, **arguments}
    with pytest.raises(TypeError, match=message):
        getattr(torch.nn, name)(**arguments)
    with pytest.raises(TypeError, match=rf"\[{name}\] .*'{message}' must be of type"):
        getattr(layers, name)(**arguments)


@pytest.mark.parametrize("name", ["GRU", "RNN"])
def test_only_lstm_is_projected(name: str) -> None:
    with pytest.raises(ValueError, match="only supported for LSTM"):
        getattr(torch.nn, name)(4, 6, proj_size=2)
    with pytest.raises(TypeError, match="proj_size"):
        getattr(layers, name)(4, 6, proj_size=2)


def test_unknown_nonlinearity_of_a_cell() -> None:
    module = torch.nn.RNNCell(4, 6, nonlinearity="gelu")
    with pytest.raises(RuntimeError, match="gelu"):
        module(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"\[RNNCell\] 'nonlinearity' .* 'gelu'"):
        layers.RNNCell(4, 6, nonlinearity="gelu")


def test_all_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"'input_size'.*'num_layers'.*'dropout'"):
        layers.GRU(0, 6, num_layers=0, dropout=2)


@pytest.mark.parametrize("shape", [(0, 2, 4), (0, 4)], ids=["batch", "unbatched"])
@pytest.mark.parametrize("name", NETWORKS)
def test_empty_sequence(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeError, match="sequence length to be larger than 0"):
        getattr(torch.nn, name)(4, 6)(torch.zeros(shape))
    with pytest.raises(ValueError, match="at least one step"):
        getattr(layers, name)(4, 6)(mx.zeros(shape))


INPUTS = {"one_axis": (4,), "four_axes": (2, 2, 2, 4), "features": (3, 2, 5)}


@pytest.mark.parametrize("shape", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("name", [*NETWORKS, *CELLS])
def test_input(name: str, shape: tuple[int, ...]) -> None:
    if name in CELLS and len(shape) == 1:
        shape = ()
    with pytest.raises((ValueError, RuntimeError), match=r"[Ee]xpected"):
        getattr(torch.nn, name)(4, 6)(torch.zeros(shape))
    with pytest.raises(ValueError, match=rf"\[{name}\] expected input .* but got"):
        getattr(layers, name)(4, 6)(mx.zeros(shape))


STATES = {"layers": (2, 2, 6), "batch": (1, 3, 6), "size": (1, 2, 5), "unbatched": (1, 6)}


@pytest.mark.parametrize("shape", STATES.values(), ids=STATES)
@pytest.mark.parametrize("name", NETWORKS)
def test_states(name: str, shape: tuple[int, ...]) -> None:
    x, pair = (3, 2, 4), name == "LSTM"
    given, array = torch.zeros(shape), mx.zeros(shape)
    with pytest.raises(RuntimeError):
        getattr(torch.nn, name)(4, 6)(torch.zeros(x), (given, given) if pair else given)
    with pytest.raises(ValueError, match=rf"\[{name}\] expected states \(1, 2, 6\)"):
        getattr(layers, name)(4, 6)(mx.zeros(x), (array, array) if pair else array)


@pytest.mark.parametrize("states", [("h",), ("h", "c", "c")], ids=["one", "three"])
def test_number_of_states(states: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[LSTM\] expected states"):
        layers.LSTM(4, 6)(mx.zeros((3, 2, 4)), tuple(mx.zeros((1, 2, 6)) for _ in states))


def test_projected_state_in_place_of_the_cell_state() -> None:
    module, h = torch.nn.LSTM(4, 6, proj_size=2), torch.zeros(1, 2, 2)
    with pytest.raises(RuntimeError):
        module(torch.zeros(3, 2, 4), (h, h))
    array = mx.zeros((1, 2, 2))
    with pytest.raises(ValueError, match=r"\(1, 2, 2\) and \(1, 2, 6\)"):
        layers.LSTM(4, 6, proj_size=2)(mx.zeros((3, 2, 4)), (array, array))


CELL_STATES = {"batch": (1, 6), "size": (2, 5), "unbatched": (6,)}


@pytest.mark.parametrize("shape", CELL_STATES.values(), ids=CELL_STATES)
@pytest.mark.parametrize("name", CELLS)
def test_states_of_cells(name: str, shape: tuple[int, ...]) -> None:
    pair = name == "LSTMCell"
    given, array = torch.zeros(shape), mx.zeros(shape)
    with pytest.raises((RuntimeError, IndexError)):
        getattr(torch.nn, name)(4, 6)(torch.zeros(2, 4), (given, given) if pair else given)
    with pytest.raises(ValueError, match=rf"\[{name}\] expected states of shape \(2, 6\)"):
        getattr(layers, name)(4, 6)(mx.zeros((2, 4)), (array, array) if pair else array)


@pytest.mark.parametrize("name", NETWORKS)
def test_packed_sequence(name: str) -> None:
    packed = torch.nn.utils.rnn.pack_sequence([torch.zeros(3, 4), torch.zeros(2, 4)])
    with pytest.raises(TypeError, match=rf"\[{name}\] .*PackedSequence.*of one length"):
        getattr(layers, name)(4, 6)(packed)
