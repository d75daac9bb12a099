"""What runs on an Apple GPU computes what PyTorch does in float64; skipped where there is none."""

from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch

import mlxport
from mlxport.converter import api
from mlxport.converter.parity.verdict.compare import judge
from mlxport.examples.unet3d import UNet3d

pytestmark = pytest.mark.metal


@pytest.fixture(autouse=True)
def _on_the_gpu() -> Iterator[None]:
    before = mx.default_device()
    mx.set_default_device(mx.Device(mx.gpu))
    yield
    mx.set_default_device(before)


def test_a_converted_unet(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = UNet3d().eval()
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm3d) and part.running_mean is not None:
            part.running_mean.normal_()
    torch.save(net.state_dict(), tmp_path / "unet3d.pt")
    api.convert_checkpoint(
        tmp_path / "unet3d.pt", tmp_path / "out", model=net, inputs=["1,1,32,48,40"]
    )
    report = api.verify_folder(tmp_path / "out", device="metal")
    assert report.environment["backend"] == "metal"
    assert report.passed, report.to_text()


CONFIGURATIONS = {
    "k2 s2": {"kernel_size": 2, "stride": 2},
    "k2 s2 without bias": {"kernel_size": 2, "stride": 2, "bias": False},
    "k2 s2 in groups": {"kernel_size": 2, "stride": 2, "groups": 4},
    "k3 s2": {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    "k3 s2 in groups": {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 2},
    "k4 s2": {"kernel_size": 4, "stride": 2, "padding": 1},
    "k2 s3, gaps": {"kernel_size": 2, "stride": 3, "output_padding": 1},
    "k3 s1": {"kernel_size": 3, "padding": 1},
    "k3 dilated": {"kernel_size": 3, "stride": 2, "dilation": 2, "padding": 2},
    "each axis another": {
        "kernel_size": (1, 2, 5),
        "stride": (1, 2, 3),
        "padding": (0, 1, 2),
        "output_padding": (0, 1, 0),
    },
}


def assert_close(got: mx.array, reference: torch.Tensor, own: torch.Tensor) -> None:
    verdict = judge(
        np.array(got.astype(mx.float32)),
        reference.detach().numpy(),
        own.detach().double().numpy(),
        dtype=str(own.dtype).removeprefix("torch."),
        actual_dtype=str(got.dtype).rpartition(".")[2],
    )
    assert verdict.passed, verdict.problems


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
@pytest.mark.parametrize("keywords", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
@pytest.mark.parametrize("chained", [False, True], ids=["alone", "in one graph"])
def test_conv_transpose_3d(keywords: dict[str, object], dtype: torch.dtype, chained: bool) -> None:
    layer = torch.nn.ConvTranspose3d(8, 4, **keywords).to(dtype)  # type: ignore[arg-type]
    x = torch.randn(2, 8, 5, 6, 7, dtype=dtype)
    scale = 2.0 if chained else 1.0  # what comes before and after it stays lazy
    ours = mlxport.convert_layer(layer)
    got = ours(mx.array(x.movedim(1, -1).contiguous().numpy()) * scale) * scale
    own = (layer(x * scale) * scale).movedim(1, -1)
    reference = (layer.double()(x.double() * scale) * scale).movedim(1, -1)
    assert_close(got, reference, own)


@pytest.mark.parametrize("keywords", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_gradients_of_conv_transpose_3d(keywords: dict[str, object]) -> None:
    layer = torch.nn.ConvTranspose3d(8, 4, **keywords)  # type: ignore[arg-type]
    x = torch.randn(2, 8, 5, 6, 7)
    report = mlxport.convert(layer.eval(), (x,), gradients=True).report
    assert report is not None
    assert report.passed, report.to_text()
