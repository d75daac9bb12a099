"""Watching the calls of MLX: what is seen, where it stands, and that nothing is left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlxport.converter.parity.run.metal_calls import watching
from mlxport.converter.parity.run.metal_table import ArrayType, PrimitiveCall
from mlxport.examples.unet3d import UNet3d


def calls(function: Callable[[], Any], **keywords: Any) -> list[PrimitiveCall]:
    found: list[PrimitiveCall] = []
    with watching(lambda call, frame: found.append(call), lambda name: None, **keywords):
        function()
    return found


def names(function: Callable[[], Any]) -> list[str]:
    return [call.name for call in calls(function)]


X = mx.arange(12.0).reshape(3, 4)


def test_a_call_is_seen_with_its_dtypes_and_shapes() -> None:
    (call,) = calls(lambda: X.astype(mx.float16))
    assert call == PrimitiveCall(
        "AsType",
        (ArrayType("float32", (3, 4)),),
        (ArrayType("float16", (3, 4)),),
        call.arguments,
    )
    assert str(call) == "AsType of float32, float16"


@pytest.mark.parametrize(
    ("function", "primitive"),
    [
        pytest.param(lambda: X @ X.T, "Matmul", id="operator"),
        pytest.param(lambda: X.sum(), "Reduce", id="method"),
        pytest.param(lambda: X[mx.array([1])], "Gather", id="index"),
        pytest.param(lambda: X.at[mx.array([1])].add(1), "Scatter", id="at"),
        pytest.param(lambda: mx.array(X).__setitem__(mx.array([1]), 1), "Scatter", id="assigned"),
        pytest.param(lambda: mx.random.normal((3,)), "RandomBits", id="random"),
        pytest.param(lambda: mx.fft.rfft(X), "FFT", id="transform"),
        pytest.param(lambda: nn.GELU()(X), "Erf", id="compiled function of mlx.nn"),
        pytest.param(lambda: mx.compile(lambda x: mx.exp(x))(X), "Exp", id="compiled"),
        pytest.param(lambda: mx.vmap(lambda x: mx.exp(x))(X), "Exp", id="vectorised"),
        pytest.param(
            lambda: mx.fast.rms_norm(X, None, 1e-5), "fast.rms_norm", id="fast, not taken apart"
        ),
    ],
)
def test_every_way_to_call_mlx_is_seen(function: Callable[[], Any], primitive: str) -> None:
    assert primitive in names(function)
    assert primitive in names(function)  # what is known of a call is said again


def test_calls_on_a_cpu_stream_are_left_out() -> None:
    def run() -> None:
        mx.exp(X, stream=mx.cpu)
        mx.exp(X, stream=mx.default_stream(mx.cpu))
        with mx.stream(mx.cpu):
            X + X
            X.at[mx.array([1])].add(1)
        mx.log(X)

    assert names(run) == ["Log"]


def test_results_are_those_of_the_functions() -> None:
    written = mx.array(X)
    with watching(lambda call, frame: None, lambda name: None):
        y = X.at[mx.array([1])].add(1) @ X.T
        written[mx.array([0])] = 7
    assert mx.array_equal(y, X.at[mx.array([1])].add(1) @ X.T)
    assert written[0].tolist() == [7, 7, 7, 7]


def test_mlx_is_left_as_it_was() -> None:
    def state() -> list[Any]:
        owners = (mx, mx.linalg, mx.fft, mx.random, mx.fast, mx.array)
        return [dict(vars(owner)) for owner in owners]

    def fail() -> None:
        raise RuntimeError("of the model")

    before = state()
    with pytest.raises(RuntimeError, match="of the model"):
        calls(fail)
    assert state() == before
    calls_of_compiled = []
    compiled = mx.compile(lambda x: calls_of_compiled.append(x) or x + 1)
    compiled(X)
    compiled(X)
    assert len(calls_of_compiled) == 1, "MLX compiles again"


def test_other_threads_are_not_watched() -> None:
    def run() -> None:
        thread = threading.Thread(target=lambda: mx.exp(X))
        thread.start()
        thread.join()

    assert names(run) == []


def test_functions_that_mlx_cannot_export_are_told() -> None:
    unknown: set[str] = set()
    with watching(lambda call, frame: None, unknown.add):
        mx.linalg.lu(X[:, :3])
    assert unknown == {"linalg.lu"}


def test_nothing_in_the_graph_of_a_network_is_missed() -> None:
    """What ``mx.export_function`` finds in the whole graph is found call by call."""
    import mlxport

    torch = pytest.importorskip("torch")
    model = mlxport.convert(UNet3d(), torch.randn(1, 1, 16, 16, 16), verify=False).model
    x = mx.zeros((1, 1, 16, 16, 16))
    found: list[dict[str, Any]] = []
    mx.export_function(found.append, model, x)
    whole = {entry["name"] for entry in found if entry["type"] == "primitive"}
    assert whole <= set(names(lambda: model(x)))
