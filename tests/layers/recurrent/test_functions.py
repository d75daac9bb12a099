"""Recurrent layers against torch in float64: values, states and gradients, every argument."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._pytree import tree_leaves

from mlxport import layers

# torch says so where it computes projections, which it does correctly
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")

Check = Callable[..., None]

HALF = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
NETWORKS = pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
CELLS = pytest.mark.parametrize("name", ["LSTMCell", "GRUCell", "RNNCell"])

FLAGS = ("bias", "batch_first", "bidirectional")
FURTHER = {"LSTM": {"proj_size": 2}, "GRU": {}, "RNN": {"nonlinearity": "relu"}}


def combinations() -> Iterator[Any]:
    """Every combination of the arguments each network has."""
    for name, further in FURTHER.items():
        for flags in product([False, True], repeat=len(FLAGS)):
            for num_layers, extra in product([1, 2], [{}, further] if further else [{}]):
                arguments = dict(zip(FLAGS, flags, strict=True))
                arguments |= {"num_layers": num_layers, **extra}
                label = "-".join(f"{key}={value}" for key, value in arguments.items())
                yield pytest.param(name, arguments, id=f"{name}-{label}")


def to_mlx(tensor: torch.Tensor) -> mx.array:
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return mx.array(tensor.view(torch.uint16).numpy()).view(mx.bfloat16)
    return mx.array(tensor.numpy())


def shapes(
    module: torch.nn.Module, length: int = 4, batch: int | None = 3
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Shapes of the input and the states of a network or cell; no batch axis for None."""
    lead = () if batch is None else (batch,)
    sizes = [module.hidden_size] * (2 if "LSTM" in type(module).__name__ else 1)
    if isinstance(module, torch.nn.RNNCellBase):
        return (*lead, module.input_size), [(*lead, size) for size in sizes]
    sizes[0] = module.proj_size or module.hidden_size
    rows = module.num_layers * (2 if module.bidirectional else 1)
    steps = (*lead, length) if module.batch_first else (length, *lead)
    return (*steps, module.input_size), [(rows, *lead, size) for size in sizes]


def twin(module: torch.nn.Module) -> Any:
    """The layer of the same name, arguments and parameters."""
    kept = ("num_layers", "nonlinearity", "bias", "batch_first", "dropout", "bidirectional")
    arguments = {key: getattr(module, key) for key in kept if hasattr(module, key)}
    if getattr(module, "proj_size", 0):
        arguments["proj_size"] = module.proj_size
    name = type(module).__name__
    layer = getattr(layers, name)(module.input_size, module.hidden_size, **arguments)
    layer.load_weights([(key, to_mlx(tensor)) for key, tensor in module.state_dict().items()])
    return layer.train(module.training)


def nested(states: Any) -> Any:
    """States as torch takes them: none, one, or a pair."""
    return tuple(states) if len(states) == 2 else states[0] if states else None


@pytest.fixture(scope="module")
def check(assert_parity: Callable[..., None]) -> Check:
    """`check(module, x, *states, gradients=True)`: outputs and gradients of a twin."""

    def run(
        module: torch.nn.Module, x: torch.Tensor, *states: torch.Tensor, gradients: bool = True
    ) -> None:
        layer = twin(module)
        names = list(dict(module.named_parameters()))
        given = [x, *states, *(tensor.detach() for tensor in module.parameters())]
        first = 1 + len(states)

        def in_torch(*tensors: torch.Tensor) -> list[torch.Tensor]:
            parameters = dict(zip(names, tensors[first:], strict=True))
            arguments = (tensors[0], nested(tensors[1:first]))
            return tree_leaves(torch.func.functional_call(module, parameters, arguments))

        def in_mlx(*arrays: mx.array) -> list[mx.array]:
            layer.load_weights(list(zip(names, arrays[first:], strict=True)))
            return tree_leaves(layer(arrays[0], nested(arrays[1:first])))

        arrays = [to_mlx(tensor) for tensor in given]
        outputs = in_mlx(*arrays)
        assert len(outputs) == len(in_torch(*given))
        for i, output in enumerate(outputs):
            assert_parity(output, lambda *t, i=i: in_torch(*t)[i], *given)
        if not gradients:
            return
        seeds = [torch.randn(output.shape).to(x.dtype) for output in in_torch(*given)]
        _, grads = mx.vjp(in_mlx, arrays, [to_mlx(seed) for seed in seeds])

        def gradient(i: int, *tensors: torch.Tensor) -> torch.Tensor:
            leaves = [tensor.detach().requires_grad_() for tensor in tensors]
            results = in_torch(*leaves)
            cotangents = [
                seed.to(result.dtype) for seed, result in zip(seeds, results, strict=True)
            ]
            return torch.autograd.grad(results, leaves, cotangents)[i]

        for i, grad in enumerate(grads):
            assert_parity(grad, lambda *t, i=i: gradient(i, *t), *given)

    return run


def drawn(module: torch.nn.Module, with_states: bool, **sizes: Any) -> list[torch.Tensor]:
    x, states = shapes(module, **sizes)
    dtype = next(module.parameters()).dtype
    return [torch.randn(shape).to(dtype) for shape in (x, *(states if with_states else ()))]


@pytest.mark.parametrize("with_states", [False, True], ids=["from_zeros", "from_states"])
@pytest.mark.parametrize("batch", [3, None], ids=["batch", "unbatched"])
@pytest.mark.parametrize(("name", "arguments"), [*combinations()])
def test_every_combination(
    check: Check, name: str, arguments: dict[str, Any], batch: int | None, with_states: bool
) -> None:
    module = getattr(torch.nn, name)(5, 4, **arguments)
    check(module, *drawn(module, with_states, batch=batch))


@pytest.mark.parametrize("with_states", [False, True], ids=["from_zeros", "from_states"])
@pytest.mark.parametrize("batch", [3, None], ids=["batch", "unbatched"])
@pytest.mark.parametrize("bias", [False, True], ids=["no_bias", "bias"])
@CELLS
def test_cells(check: Check, name: str, bias: bool, batch: int | None, with_states: bool) -> None:
    module = getattr(torch.nn, name)(5, 4, bias=bias)
    check(module, *drawn(module, with_states, batch=batch))


def test_relu_cell(check: Check) -> None:
    module = torch.nn.RNNCell(5, 4, nonlinearity="relu")
    check(module, *drawn(module, True))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_sizes(check: Check, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["LSTM", "GRU", "RNN"]))
    hidden = data.draw(st.integers(1, 6))
    arguments = {flag: data.draw(st.booleans(), flag) for flag in FLAGS}
    arguments["num_layers"] = data.draw(st.integers(1, 3))
    if name == "LSTM":
        arguments["proj_size"] = data.draw(st.integers(0, hidden - 1))
    if name == "RNN":
        arguments["nonlinearity"] = data.draw(st.sampled_from(["tanh", "relu"]))
    module = getattr(torch.nn, name)(data.draw(st.integers(1, 6)), hidden, **arguments)
    torch.manual_seed(data.draw(st.integers(0, 9)))
    sizes = {
        "length": data.draw(st.integers(1, 6)),
        "batch": data.draw(st.none() | st.integers(0, 4)),
    }
    check(module, *drawn(module, data.draw(st.booleans()), **sizes))


@NETWORKS
@HALF
def test_half_precision(check: Check, name: str, dtype: torch.dtype) -> None:
    module = getattr(torch.nn, name)(6, 5, 2, bidirectional=True).to(dtype)
    check(module, *drawn(module, True))


@CELLS
@HALF
def test_half_precision_of_cells(check: Check, name: str, dtype: torch.dtype) -> None:
    module = getattr(torch.nn, name)(6, 5).to(dtype)
    check(module, *drawn(module, True))


@NETWORKS
def test_long_sequence(check: Check, name: str) -> None:
    module = getattr(torch.nn, name)(6, 8, bidirectional=True)
    check(module, *drawn(module, True, length=300))


@NETWORKS
def test_saturated_gates(check: Check, name: str) -> None:
    module = getattr(torch.nn, name)(4, 5)
    check(module, *(100 * x for x in drawn(module, True)), gradients=False)


@NETWORKS
def test_nan_stays_in_its_sequence(check: Check, name: str) -> None:
    module = getattr(torch.nn, name)(4, 5, 2)
    x, *states = drawn(module, True)
    x[2, 1, 0] = torch.nan
    check(module, x, *states, gradients=False)


def test_relu_of_exact_zeros(check: Check) -> None:
    module = torch.nn.RNN(4, 5, nonlinearity="relu", bias=False)
    check(module, torch.zeros(3, 2, 4))


@NETWORKS
def test_state_continues_a_sequence(name: str) -> None:
    layer = getattr(layers, name)(4, 5, 2)
    x = mx.random.normal((6, 2, 4))
    whole, last = layer(x)
    start, state = layer(x[:2])
    rest, state = layer(x[2:], state)
    assert mx.allclose(mx.concatenate([start, rest]), whole, atol=1e-6)
    for got, wanted in zip(tree_leaves(state), tree_leaves(last), strict=True):
        assert mx.allclose(got, wanted, atol=1e-6)


@NETWORKS
def test_dropout_of_everything_in_training(check: Check, name: str) -> None:
    module = getattr(torch.nn, name)(4, 5, 3, dropout=1.0).train()
    check(module, *drawn(module, True), gradients=False)


@NETWORKS
def test_dropout_in_evaluation(check: Check, name: str) -> None:
    module = getattr(torch.nn, name)(4, 5, 2, dropout=0.5).eval()
    check(module, *drawn(module, True))


def test_dropout_drops_and_scales_between_layers() -> None:
    size, p = 50, 0.25
    layer = layers.RNN(size, size, 2, nonlinearity="relu", bias=False, dropout=p)
    kept = {"weight_ih_l0", "weight_ih_l1"}  # both layers pass on what they are given
    passing = {
        name: mx.eye(size) if name in kept else mx.zeros((size, size))
        for name in layer.parameters()
    }
    layer.load_weights(list(passing.items()))
    mx.random.seed(0)
    y = np.array(layer.train()(mx.ones((20, 4, size)))[0])
    dropped = y == 0
    np.testing.assert_allclose(y[~dropped], 1 / (1 - p), rtol=1e-6)
    assert abs(dropped.mean() - p) < 0.03  # of 4000 elements: more than four deviations
