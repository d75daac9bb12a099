"""What only a GPU takes is chosen by MLX's default device, whichever there is here."""

from __future__ import annotations

import mlx.core as mx
import pytest
import torch

from mlxport.converter.parity.run.environment import environment
from mlxport.layers.arrays import reduction
from mlxport.layers.conv.transpose import conv_transpose
from mlxport.layers.device import policy
from mlxport.layers.device.policy import device_policy
from mlxport.layers.device.scatter_stream import scatter_stream

DEVICES = {"CPU": mx.Device(mx.cpu), "GPU": mx.Device(mx.gpu)}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Say that a device is MLX's default one; what is computed stays where it can be."""
    monkeypatch.setattr(mx, "default_device", lambda: DEVICES[request.param])
    return str(request.param)


def test_the_policy_is_that_of_the_default_device(device: str) -> None:
    assert device_policy() is {"CPU": policy.CPU, "GPU": policy.GPU}[device]


def test_the_figures_of_the_two_differ_as_the_devices_do() -> None:
    assert (policy.CPU.blocked_sums, policy.GPU.blocked_sums) == (True, False)
    assert (policy.CPU.half_products, policy.GPU.half_products) == (False, True)
    assert (policy.CPU.native_convolution, policy.GPU.native_convolution) == (False, True)
    assert policy.CPU.slab_bytes < policy.GPU.slab_bytes


@pytest.mark.parametrize("half", [mx.float16, mx.bfloat16, mx.float32], ids=str)
def test_layers_are_right_as_each_device_computes_them(device: str, half: mx.Dtype) -> None:
    x = torch.randn(2, 7, 6, 3, dtype=torch.float64)
    w = torch.randn(3, 4, 3, 3, dtype=torch.float64)
    got = conv_transpose(
        mx.array(x.float().numpy()).astype(half),
        mx.array(w.permute(1, 2, 3, 0).float().numpy()).astype(half),
        stride=2,
        padding=1,
    )
    assert got.dtype == half
    want = torch.nn.functional.conv_transpose2d(x.permute(0, 3, 1, 2), w, stride=2, padding=1)
    difference = torch.tensor(got.astype(mx.float32).tolist()).double() - want.permute(0, 2, 3, 1)
    assert difference.norm() / want.norm() < {mx.float32: 1e-5, mx.float16: 4e-3}.get(half, 3e-2)
    summed = reduction.total(mx.full((5000,), 0.1).astype(half))
    assert summed.item() == pytest.approx(500, rel=5e-3)


def test_the_environment_names_the_backend(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "device_info", lambda device: {"device_name": "named"})
    for metal in (True, False):
        monkeypatch.setattr(mx.metal, "is_available", lambda metal=metal: metal)
        found = environment({})
        assert found["backend"] == ({True: "metal", False: "cuda"}[metal], "cpu")[device == "CPU"]
        assert found["device"] == "named"
        assert device == "CPU" or "BLAS" not in found


@pytest.mark.parametrize(
    ("dtype", "sums", "on_cpu"),
    [
        (mx.int64, False, True),
        (mx.uint64, True, True),
        (mx.complex64, False, True),
        (mx.complex64, True, False),
        (mx.float32, False, False),
        (mx.int32, True, False),
        (mx.bool_, False, False),
    ],
    ids=str,
)
def test_what_metal_does_not_scatter_goes_to_the_cpu(
    dtype: mx.Dtype, sums: bool, on_cpu: bool
) -> None:
    assert isinstance(scatter_stream(dtype, sums=sums), type(mx.stream(mx.cpu))) == on_cpu
