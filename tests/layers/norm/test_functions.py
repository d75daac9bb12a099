"""`layers.normalization`, the layers over it and `layers.response_norm` against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten

from mlxport import layers
from mlxport.layers.norm import functions as norm
from mlxport.layers.norm.response import cross_map_lrn, local_response_norm

F = torch.nn.functional
SHAPES = {
    "vectors": (6, 8),
    "sequences": (3, 8, 7),
    "images": (3, 8, 5, 4),
    "volumes": (3, 8, 4, 5, 3),
}
SPATIAL = [name for name in SHAPES if name != "vectors"]
HALVES = {torch.float16: mx.float16, torch.bfloat16: mx.bfloat16}


def last(t: torch.Tensor) -> tuple[int, ...]:
    return (0, *range(2, t.ndim), 1)


def to_mlx(t: torch.Tensor | None, order: tuple[int, ...] | None = None) -> mx.array | None:
    if t is None:
        return None
    t = t.detach() if order is None else t.detach().permute(order)
    if t.dtype in HALVES:
        return mx.array(t.float().contiguous()).astype(HALVES[t.dtype])
    return mx.array(t.contiguous())


def parameters(count: int = 8, affine: str = "both") -> list[torch.Tensor | None]:
    weight = torch.rand(count) + 0.5 if affine in ("both", "weight") else None
    return [weight, torch.randn(count) if affine == "both" else None]


def statistics(count: int = 8) -> list[torch.Tensor]:
    return [torch.randn(count), torch.rand(count) + 0.5]


@pytest.mark.parametrize("affine", ["both", "weight", "none"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_batch_norm(
    assert_parity: Callable[..., None], shape: tuple[int, ...], training: bool, affine: str
) -> None:
    x = torch.randn(shape) * 3 + 2
    given = [*statistics(), *parameters(affine=affine)]

    def reference(x: torch.Tensor, mean: Any, var: Any, *affine: Any) -> torch.Tensor:
        return F.batch_norm(x, mean.clone(), var.clone(), *affine, training, 0.1, 1e-3)

    got = norm.batch_norm(to_mlx(x, last(x)), *map(to_mlx, given), training, 1e-3)
    assert_parity(got, reference, x, *given, order=last(x))


@pytest.mark.parametrize("affine", ["both", "weight", "none"])
@pytest.mark.parametrize("of_input", [True, False], ids=["input_statistics", "running_statistics"])
@pytest.mark.parametrize("shape", [SHAPES[n] for n in SPATIAL], ids=SPATIAL)
def test_instance_norm(
    assert_parity: Callable[..., None], shape: tuple[int, ...], of_input: bool, affine: str
) -> None:
    x = torch.randn(shape) * 3 + 2
    given = [*statistics(), *parameters(affine=affine)]

    def reference(x: torch.Tensor, mean: Any, var: Any, *affine: Any) -> torch.Tensor:
        return F.instance_norm(x, mean.clone(), var.clone(), *affine, of_input, 0.1, 1e-3)

    got = norm.instance_norm(to_mlx(x, last(x)), *map(to_mlx, given), of_input, 1e-3)
    assert_parity(got, reference, x, *given, order=last(x))


@pytest.mark.parametrize("function", ["batch_norm", "instance_norm"])
@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0])
@pytest.mark.parametrize("shape", [SHAPES[n] for n in SPATIAL], ids=SPATIAL)
@pytest.mark.parametrize("which", ["mean", "variance"])
def test_updated_statistics(
    assert_parity: Callable[..., None],
    function: str,
    momentum: float,
    shape: tuple[int, ...],
    which: str,
) -> None:
    x, given = torch.randn(shape) * 3 + 2, statistics()
    position = ["mean", "variance"].index(which)

    def reference(x: torch.Tensor, *running: torch.Tensor) -> torch.Tensor:
        running = tuple(t.clone() for t in running)
        getattr(F, function)(x, *running, None, None, True, momentum)
        return running[position]

    update = {
        "batch_norm": norm.updated_batch_statistics,
        "instance_norm": norm.updated_instance_statistics,
    }[function]
    got = update(to_mlx(x, last(x)), *map(to_mlx, given), momentum)
    assert_parity(got[position], reference, x, *given)


def test_an_empty_batch_leaves_the_statistics() -> None:
    module, layer = torch.nn.BatchNorm3d(8), layers.BatchNorm(8)
    assert module(torch.zeros(0, 8, 2, 2, 2)).shape == (0, 8, 2, 2, 2)
    assert layer(mx.zeros((0, 2, 2, 2, 8))).shape == (0, 2, 2, 2, 8)
    for name in ("running_mean", "running_var"):
        np.testing.assert_array_equal(np.array(layer[name]), getattr(module, name).numpy())


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
@pytest.mark.parametrize("affine", ["both", "weight", "none"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_group_norm(
    assert_parity: Callable[..., None], shape: tuple[int, ...], affine: str, groups: int
) -> None:
    if len(shape) == 2 and groups == 8:
        shape = (*shape, 2)  # one value per group has no variance
    x, given = torch.randn(shape) * 3 + 2, parameters(affine=affine)
    got = norm.group_norm(to_mlx(x, last(x)), groups, *map(to_mlx, given), 1e-3)
    assert_parity(got, lambda x, *p: F.group_norm(x, groups, *p, 1e-3), x, *given, order=last(x))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
def test_layer_norm(assert_parity: Callable[..., None], axes: int, affine: bool) -> None:
    x = torch.randn(3, 4, 5, 6) * 3 + 2
    shape = x.shape[-axes:]
    given = [torch.rand(shape) + 0.5, torch.randn(shape)] if affine else [None, None]
    got = norm.layer_norm(to_mlx(x), shape, *map(to_mlx, given), 1e-3)
    assert_parity(got, lambda x, *p: F.layer_norm(x, shape, *p, 1e-3), x, *given)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize("eps", [1e-3, 0.0])
def test_rms_norm(assert_parity: Callable[..., None], axes: int, affine: bool, eps: float) -> None:
    x = torch.randn(3, 4, 5, 6) * 3 + 2
    shape = x.shape[-axes:]
    given = torch.rand(shape) + 0.5 if affine else None
    got = norm.rms_norm(to_mlx(x), shape, to_mlx(given), eps)
    assert_parity(got, lambda x, w: F.rms_norm(x, shape, w, eps), x, given)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_rms_norm_without_eps_adds_that_of_float32(dtype: torch.dtype) -> None:
    x = torch.full((2, 8), 1e-4, dtype=dtype)  # small enough for eps to matter
    got = np.array(norm.rms_norm(to_mlx(x), (8,)).astype(mx.float32))
    assert got == pytest.approx(F.rms_norm(x, (8,)).float().numpy(), rel=1e-2)


FUNCTIONS = {
    "batch_norm": (
        lambda x, w, b: norm.batch_norm(x, None, None, w, b, True),
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
    ),
    "instance_norm": (
        lambda x, w, b: norm.instance_norm(x, None, None, w, b),
        lambda x, w, b: F.instance_norm(x, None, None, w, b),
    ),
    "group_norm": (
        lambda x, w, b: norm.group_norm(x, 4, w, b),
        lambda x, w, b: F.group_norm(x, 4, w, b),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("argument", ["input", "weight", "bias"])
def test_gradients(assert_parity: Callable[..., None], name: str, argument: str) -> None:
    ours, theirs = FUNCTIONS[name]
    tensors = [torch.randn(SHAPES["volumes"]), *parameters()]
    seed = torch.randn(SHAPES["volumes"])
    position = ["input", "weight", "bias"].index(argument)

    def gradient(*given: torch.Tensor) -> torch.Tensor:
        given = tuple(t.clone().requires_grad_() for t in given)
        y = theirs(*given)
        return torch.autograd.grad((y * seed.to(y.dtype)).sum(), given[position])[0]

    primals = [to_mlx(tensors[0], last(seed)), *map(to_mlx, tensors[1:])]
    _, gradients = mx.vjp(ours, primals, [to_mlx(seed, last(seed))])
    order = last(seed) if argument == "input" else (0,)
    assert_parity(gradients[position], gradient, *tensors, order=order)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("mixed", [False, True], ids=["half", "half_with_float32_parameters"])
def test_half_precision(
    assert_parity: Callable[..., None], name: str, dtype: torch.dtype, mixed: bool
) -> None:
    ours, theirs = FUNCTIONS[name]
    # beyond what float16 can square
    x = (torch.randn(SHAPES["images"]) * 300).to(dtype)
    given = parameters() if mixed else [p.to(dtype) for p in parameters()]
    got = ours(to_mlx(x, last(x)), *map(to_mlx, given))
    inputs = [x, *given]

    def reference(*tensors: torch.Tensor) -> torch.Tensor:
        if tensors[0].dtype == torch.float64:
            return theirs(*tensors)
        return theirs(*(t.float() for t in tensors)).to(dtype)

    assert_parity(got, reference, *inputs, order=last(x))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("mean", "std"), [(0, 1), (100, 0.01)], ids=["standard", "offset"])
@pytest.mark.parametrize("shape", [(1, 8, 40, 40, 40), (1, 8, 100_001)], ids=["volume", "long"])
def test_many_values(
    assert_parity: Callable[..., None], name: str, mean: float, std: float, shape: tuple[int, ...]
) -> None:
    """Where MLX's layers lose all digits: a sum of this length, one value after another."""
    ours, theirs = FUNCTIONS[name]
    x = (torch.randn(shape, dtype=torch.float64) * std + mean).float()
    got = ours(to_mlx(x, last(x)), None, None)
    assert_parity(got, lambda x: theirs(x, None, None), x, order=last(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(
            lambda x: norm.batch_norm(x[0, 0, 0]), "2 dimensions or more", id="batch_ndim"
        ),
        pytest.param(lambda x: norm.batch_norm(x), "unless training", id="batch_statistics"),
        pytest.param(
            lambda x: norm.batch_norm(x[:1, 0, 0], training=True), "more than one", id="batch_one"
        ),
        pytest.param(
            lambda x: norm.batch_norm(x, training=True, eps=0.0), "positive", id="batch_eps_0"
        ),
        pytest.param(lambda x: layers.BatchNorm(8, eps=-1.0).eval()(x), "never", id="batch_eps"),
        pytest.param(lambda x: norm.instance_norm(x[0, 0]), "3 dimensions", id="instance_ndim"),
        pytest.param(
            lambda x: norm.instance_norm(x, use_input_stats=False), "needed", id="instance_stats"
        ),
        pytest.param(
            lambda x: norm.instance_norm(x[:, :1, :1]), "more than one", id="instance_one"
        ),
        pytest.param(lambda x: norm.group_norm(x, 3), "must divide the 8", id="group_count"),
        pytest.param(lambda x: norm.group_norm(x, 0), "must divide the 8", id="group_zero"),
        pytest.param(
            lambda x: norm.group_norm(x[:1, 0, 0], 8), "more than one", id="group_one_value"
        ),
        pytest.param(lambda x: norm.layer_norm(x, (7,)), r"end in \(7,\)", id="layer_shape"),
        pytest.param(lambda x: norm.rms_norm(x, ()), r"end in \(\)", id="rms_shape"),
        pytest.param(lambda x: local_response_norm(x[0, 0], 3), "3 dimensions", id="lrn_ndim"),
        pytest.param(lambda x: cross_map_lrn(x[0], 3), "4 dimensions", id="cross_map_ndim"),
        pytest.param(lambda x: layers.GroupNorm(3, 8), "must divide the 8", id="group_layer"),
        pytest.param(lambda x: layers.InstanceNorm3d(8)(x[0]), "5 dimensions", id="layer_ndim"),
    ],
)
def test_refusals(call: Callable[[mx.array], mx.array], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(mx.zeros((2, 3, 4, 8)))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("shape", [SHAPES[n] for n in SPATIAL], ids=SPATIAL)
def test_local_response_norm(
    assert_parity: Callable[..., None], shape: tuple[int, ...], size: int
) -> None:
    x = torch.randn(shape) * 3
    settings = {"alpha": 0.5, "beta": 0.6, "k": 1.5}
    got = local_response_norm(to_mlx(x, last(x)), size, **settings)
    assert_parity(got, lambda x: F.local_response_norm(x, size, **settings), x, order=last(x))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9, 20])
def test_cross_map_lrn(assert_parity: Callable[..., None], size: int) -> None:
    x = torch.randn(SHAPES["images"]) * 3
    reference = torch.nn.CrossMapLRN2d(size, alpha=0.5, beta=0.6, k=1.5)
    got = cross_map_lrn(to_mlx(x, last(x)), size, alpha=0.5, beta=0.6, k=1.5)
    assert_parity(got, reference, x, order=last(x))


@pytest.mark.parametrize(
    "layer",
    [
        layers.BatchNorm(4),
        layers.BatchNorm(4, momentum=None),
        layers.InstanceNorm2d(4, affine=True, track_running_stats=True),
    ],
    ids=["batch", "batch_cumulative", "instance"],
)
def test_statistics_are_never_trained(layer: layers.BatchNorm) -> None:
    for change in (lambda: None, layer.unfreeze, lambda: layer.unfreeze(recurse=False)):
        change()
        trainable = {name for name, _ in tree_flatten(layer.trainable_parameters())}
        assert trainable == {"weight", "bias"}
    assert {"running_mean", "running_var"} < {name for name, _ in tree_flatten(layer.parameters())}


def test_evaluation_leaves_statistics_alone() -> None:
    layer = layers.BatchNorm(4).eval()
    layer(mx.random.normal((5, 4)))
    assert np.array_equal(layer.running_mean, np.zeros(4))


@pytest.mark.parametrize(
    ("layer", "parts"),
    [
        (layers.BatchNorm(4, momentum=None), ["4", "momentum=None", "affine=True"]),
        (layers.InstanceNorm3d(4), ["4", "affine=False"]),
        (layers.GroupNorm(2, 4, bias=False), ["2, 4", "bias=False"]),
        (layers.LayerNorm((3, 4), eps=0.0), ["(3, 4)", "eps=0.0"]),
        (layers.RMSNorm(4), ["(4,)", "eps=None"]),
        (layers.LocalResponseNorm(3), ["3, alpha=0.0001"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_repr(layer: object, parts: list[str]) -> None:
    assert repr(layer).startswith(f"{type(layer).__name__}(")
    assert all(part in repr(layer) for part in parts)


def reductions(function: Callable[[mx.array], mx.array], x: mx.array) -> int:
    found: list[str | None] = []
    mx.export_function(lambda step: found.append(step.get("name")), function, x)
    return found.count("Reduce")


@pytest.mark.parametrize(("device", "count"), [("CPU", 8), ("GPU", 2)])
def test_a_gpu_reduces_in_one_step(
    device: str,
    count: int,
    compute_as: Callable[..., None],
    assert_parity: Callable[..., None],
) -> None:
    """Mean and variance are one reduction each; on the CPU one by axis, for short sums."""
    compute_as(device)

    def ours(x: mx.array) -> mx.array:
        return norm.group_norm(x, 4)

    x = torch.randn(2, 8, 4, 5, 3) * 3 + 2
    y = to_mlx(x, last(x))
    assert y is not None
    assert_parity(ours(y), lambda x: F.group_norm(x, 4), x, order=last(x))
    assert reductions(ours, y) == count
