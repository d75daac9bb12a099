from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch

from mlxport import layers
from mlxport.converter.errors import UnsupportedError
from mlxport.converter.rules.build import build_layer, spec_for

BATCH = {
    "vectors": (torch.nn.BatchNorm1d, (6, 4)),
    "sequences": (torch.nn.BatchNorm1d, (3, 4, 7)),
    "images": (torch.nn.BatchNorm2d, (3, 4, 6, 5)),
    "volumes": (torch.nn.BatchNorm3d, (3, 4, 4, 3, 5)),
    "synchronised": (torch.nn.SyncBatchNorm, (3, 4, 4, 3, 5)),
}
INSTANCE = {
    "sequences": (torch.nn.InstanceNorm1d, (3, 4, 7)),
    "images": (torch.nn.InstanceNorm2d, (3, 4, 6, 5)),
    "volumes": (torch.nn.InstanceNorm3d, (3, 4, 4, 3, 5)),
}
SETTINGS = {
    "plain": {},
    "tiny_eps": {"eps": 1e-12},
    "momentum": {"eps": 1e-3, "momentum": 0.3},
    "cumulative": {"momentum": None},
    "affine": {"affine": True},
    "no_affine": {"affine": False},
    "no_bias": {"affine": True, "bias": False},
    "tracking": {"track_running_stats": True},
    "tracking_affine": {"track_running_stats": True, "affine": True},
    "no_tracking": {"track_running_stats": False},
}
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def filled(module: torch.nn.Module) -> torch.nn.Module:
    """Give every parameter and statistic another value."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5)
            else:
                tensor.fill_(3)
            assert name
    return module


@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("kwargs", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("cls", "shape"), BATCH.values(), ids=BATCH)
def test_batch_norm(
    assert_layer_parity: Callable[..., None],
    cls: type,
    shape: tuple[int, ...],
    kwargs: dict[str, Any],
    train: bool,
) -> None:
    module = filled(cls(4, **kwargs))
    assert_layer_parity(module, torch.randn(shape) * 2 + 1, train=train, gradients=not train)


@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("kwargs", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("batch", [True, False], ids=["batch", "no_batch"])
@pytest.mark.parametrize(("cls", "shape"), INSTANCE.values(), ids=INSTANCE)
def test_instance_norm(
    assert_layer_parity: Callable[..., None],
    cls: type,
    shape: tuple[int, ...],
    batch: bool,
    kwargs: dict[str, Any],
    train: bool,
) -> None:
    x = torch.randn(shape if batch else shape[1:]) * 2 + 1
    assert_layer_parity(filled(cls(4, **kwargs)), x, train=train, gradients=not train)


@pytest.mark.parametrize("cls", [torch.nn.BatchNorm2d, torch.nn.InstanceNorm2d])
def test_eps_0_in_evaluation(assert_layer_parity: Callable[..., None], cls: type) -> None:
    assert_layer_parity(filled(cls(4, eps=0.0)), torch.randn(3, 4, 6, 5))


OTHERS = {
    "group": (lambda: torch.nn.GroupNorm(2, 4), (3, 4, 5, 6)),
    "group_volume": (lambda: torch.nn.GroupNorm(4, 4, eps=1e-3), (3, 4, 5, 6, 2)),
    "group_vectors": (lambda: torch.nn.GroupNorm(2, 4), (3, 4)),
    "group_no_affine": (lambda: torch.nn.GroupNorm(1, 4, affine=False), (3, 4, 5)),
    "group_no_bias": (lambda: torch.nn.GroupNorm(2, 4, bias=False), (3, 4, 5)),
    "layer": (lambda: torch.nn.LayerNorm(6), (3, 4, 5, 6)),
    "layer_eps_0": (lambda: torch.nn.LayerNorm(6, eps=0.0), (3, 4, 6)),
    "layer_no_bias": (lambda: torch.nn.LayerNorm(6, bias=False), (3, 6)),
    "layer_no_affine": (lambda: torch.nn.LayerNorm(6, elementwise_affine=False), (6,)),
    "layer_3_axes": (lambda: torch.nn.LayerNorm((4, 5, 6), eps=1e-3), (3, 4, 5, 6)),
    "layer_2_axes_no_affine": (
        lambda: torch.nn.LayerNorm((5, 6), elementwise_affine=False),
        (3, 4, 5, 6),
    ),
    "rms": (lambda: torch.nn.RMSNorm(6), (3, 4, 6)),
    "rms_eps": (lambda: torch.nn.RMSNorm(6, eps=1e-2), (3, 4, 6)),
    "rms_eps_of_mlx": (lambda: torch.nn.RMSNorm(6, eps=1e-5), (3, 4, 6)),
    "rms_no_affine": (lambda: torch.nn.RMSNorm(6, elementwise_affine=False), (3, 4, 6)),
    "rms_2_axes": (lambda: torch.nn.RMSNorm((4, 6), eps=1e-3), (3, 4, 6)),
    "local_response": (lambda: torch.nn.LocalResponseNorm(3, 0.1, 0.5, 2.0), (3, 5, 6)),
    "local_response_even": (lambda: torch.nn.LocalResponseNorm(4, k=0.5), (3, 5, 6)),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("build", "shape"), OTHERS.values(), ids=OTHERS)
def test_other_norms(
    assert_layer_parity: Callable[..., None],
    build: Callable[[], torch.nn.Module],
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> None:
    x = torch.randn(shape) * 2 + 1
    assert_layer_parity(filled(build()), x, dtype=dtype, gradients=dtype == torch.float32)


@pytest.mark.parametrize("size", [3, 4, 5])
def test_cross_map_lrn(assert_layer_parity: Callable[..., None], size: int) -> None:
    assert_layer_parity(torch.nn.CrossMapLRN2d(size, 0.5, 0.6, 2), torch.randn(2, 8, 4, 3) * 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    "build",
    [
        lambda: torch.nn.BatchNorm2d(4),
        lambda: torch.nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    ],
    ids=["batch", "instance"],
)
def test_half_precision(
    assert_layer_parity: Callable[..., None],
    build: Callable[[], torch.nn.Module],
    train: bool,
    dtype: torch.dtype,
) -> None:
    x = torch.randn(3, 4, 6, 5) * 300  # what float16 cannot square
    module = build()
    assert_layer_parity(module, x, train=train, dtype=dtype)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_follow_torch_over_many_steps(momentum: float | None) -> None:
    module = torch.nn.BatchNorm3d(4, momentum=momentum)
    layer = build_layer(copy.deepcopy(module))
    for _ in range(5):
        x = torch.randn(2, 4, 3, 3, 3) * 2 + 1
        module(x)
        layer(mx.array(x.permute(0, 2, 3, 4, 1).contiguous()))
    for name in ("running_mean", "running_var"):
        assert np.array(layer[name]) == pytest.approx(getattr(module, name).numpy(), rel=1e-5)
    if momentum is None:
        assert layer.num_batches_tracked.item() == module.num_batches_tracked.item() == 5


@pytest.mark.parametrize(
    ("module", "target", "args", "kwargs"),
    [
        (torch.nn.BatchNorm2d(4).eval(), nn.BatchNorm, (4,), {}),
        (torch.nn.BatchNorm2d(4), layers.BatchNorm, (4,), {}),
        (torch.nn.BatchNorm1d(4, eps=1e-3).eval(), nn.BatchNorm, (4,), {"eps": 1e-3}),
        (torch.nn.BatchNorm2d(4, eps=0.0), layers.BatchNorm, (4,), {"eps": 0.0}),
        (torch.nn.BatchNorm2d(4).half(), layers.BatchNorm, (4,), {}),
        (torch.nn.BatchNorm3d(4), layers.BatchNorm, (4,), {}),
        (torch.nn.InstanceNorm3d(4, affine=True), layers.InstanceNorm3d, (4,), {"affine": True}),
        (torch.nn.GroupNorm(2, 4), layers.GroupNorm, (2, 4), {}),
        (torch.nn.LayerNorm(4), nn.LayerNorm, (4,), {}),
        (torch.nn.LayerNorm((3, 4)), layers.LayerNorm, ((3, 4),), {}),
        (torch.nn.RMSNorm(4), layers.RMSNorm, (4,), {}),
        (torch.nn.RMSNorm(4, eps=1e-6), nn.RMSNorm, (4,), {"eps": 1e-6}),
        (torch.nn.LocalResponseNorm(3, k=2.0), layers.LocalResponseNorm, (3,), {"k": 2.0}),
    ],
    ids=str,
)
def test_constructor_call_is_what_a_person_would_write(
    module: torch.nn.Module, target: type, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    spec = spec_for(module)
    assert (spec.target, spec.args, dict(spec.kwargs)) == (target, args, kwargs)


def test_batch_count_is_ignored_with_a_reason_or_kept() -> None:
    assert "momentum=None" in spec_for(torch.nn.BatchNorm2d(4)).ignored["num_batches_tracked"]
    kept = spec_for(torch.nn.BatchNorm2d(4, momentum=None))
    assert not kept.ignored
    assert kept.entries[-1].targets == ("num_batches_tracked",)


@pytest.mark.parametrize("cls", [torch.nn.BatchNorm2d, torch.nn.InstanceNorm2d])
@pytest.mark.parametrize("tracking", [True, False])
def test_statistics_that_contradict_the_flag_are_refused(cls: type, tracking: bool) -> None:
    module = cls(4, track_running_stats=tracking)
    module.track_running_stats = not tracking
    with pytest.raises(UnsupportedError, match="build it anew"):
        build_layer(module)
