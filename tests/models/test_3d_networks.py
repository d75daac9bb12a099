"""3-D networks as people use them: converted, verified, and run without torch and mlxport."""

import ast
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter import api
from mlxport.converter.parity.verdict.compare import judge
from mlxport.converter.parity.verdict.entry import ALONE, COMPILED, IN_PLACE, WHOLE
from mlxport.converter.tasks.convert import Converted
from mlxport.examples.stereo import StereoNet
from mlxport.examples.unet3d import UNet3d

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what these packages import
    from dynamic_network_architectures.architectures.unet import (
        PlainConvUNet,
        ResidualEncoderUNet,
    )
    from monai.networks.nets import DynUNet, UNet, VNet

Run = Callable[..., subprocess.CompletedProcess[str]]


def nnunet(architecture: type[nn.Module], **settings: Any) -> nn.Module:
    """Build a network from what nnU-Net's plans say, in small."""
    return architecture(
        input_channels=2,
        n_stages=3,
        features_per_stage=(4, 8, 12),
        conv_op=nn.Conv3d,
        kernel_sizes=((1, 3, 3), 3, 3),
        strides=(1, (1, 2, 2), 2),
        num_classes=3,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        **settings,
    )


def dyn_unet() -> nn.Module:
    kernels, strides = ((1, 3, 3), 3, 3), (1, (1, 2, 2), 2)
    return DynUNet(3, 1, 2, kernels, strides, strides[1:], filters=(4, 8, 12), res_block=True)


def monai_unet(norm: str) -> nn.Module:
    return UNet(3, 1, 2, channels=(4, 8, 12), strides=(2, 2), num_res_units=2, norm=norm)


@dataclass(frozen=True)
class Network:
    """How to make a network, and what its conversion is expected to be.

    Attributes:
        build: makes it, with any weights.
        shapes: of its inputs.
        transposes: that one call of the converted model executes.
        suffix: format of its checkpoint.
        dtype: of its weights.
    """

    build: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    transposes: int = 2
    suffix: str = ".pt"
    dtype: torch.dtype = torch.float32


NETWORKS = {
    "unet3d": Network(UNet3d, ((1, 1, 16, 24, 20),)),
    "unet3d-odd-sizes": Network(UNet3d, ((2, 1, 13, 17, 11),)),
    "unet3d-bfloat16": Network(UNet3d, ((1, 1, 8, 12, 10),), dtype=torch.bfloat16),
    "unet3d-float16": Network(UNet3d, ((1, 1, 8, 12, 10),), dtype=torch.float16),
    "unet3d-safetensors": Network(UNet3d, ((1, 1, 8, 8, 8),), suffix=".safetensors"),
    "monai-unet": Network(lambda: monai_unet("INSTANCE"), ((1, 1, 16, 24, 16),)),
    "monai-unet-batch-norm": Network(lambda: monai_unet("BATCH"), ((2, 1, 16, 16, 16),)),
    "monai-dynunet": Network(dyn_unet, ((1, 1, 8, 16, 24),)),
    "monai-vnet": Network(lambda: VNet(out_channels=2), ((1, 1, 16, 16, 16),)),
    "nnunet-plain": Network(
        lambda: nnunet(PlainConvUNet, n_conv_per_stage=2), ((1, 2, 8, 16, 24),), suffix=".pth"
    ),
    "nnunet-residual": Network(
        lambda: nnunet(ResidualEncoderUNet, n_blocks_per_stage=(1, 2, 1)),
        ((1, 2, 8, 16, 24),),
        suffix=".pth",
    ),
    # One for each image.
    "stereo": Network(StereoNet, ((1, 3, 32, 48), (1, 3, 32, 48)), transposes=2),
}


@dataclass(frozen=True)
class Case:
    """A converted network: the torch model with its trained weights, and what came out."""

    network: Network
    model: nn.Module
    inputs: tuple[torch.Tensor, ...]
    folder: Path
    converted: Converted


# VNet's 45 million weights are not to be had smaller.
SLOW = {"monai-vnet"}


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in NETWORKS],
)
def case(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    randomise: Callable[[nn.Module], nn.Module],
) -> Case:
    network = NETWORKS[request.param]
    folder = tmp_path_factory.mktemp("network")
    torch.manual_seed(0)
    model = randomise(network.build()).to(network.dtype)
    inputs = tuple(torch.randn(shape).to(network.dtype) for shape in network.shapes)
    checkpoint, output = folder / f"checkpoint{network.suffix}", folder / "out"
    save(model, checkpoint)
    # A fresh model: all that it is to know must come from the checkpoint.
    converted = api.convert_checkpoint(checkpoint, output, model=network.build(), inputs=inputs)
    return Case(network, model, inputs, output, converted)


def save(model: nn.Module, path: Path) -> None:
    """Write a checkpoint as training code does that uses this format."""
    weights = model.state_dict()
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(weights, path)
    elif path.suffix == ".pth":  # nnU-Net's, whose logs hold NumPy scalars
        logs = {"mean_fg_dice": [np.float64(0.8)], "epoch_start_timestamps": [1.0]}
        torch.save({"network_weights": weights, "logging": logs, "current_epoch": 1000}, path)
    else:
        torch.save({"state_dict": weights, "epoch": 3}, path)


def test_parity_holds_in_place_alone_and_whole(case: Case) -> None:
    report = case.converted.report
    assert report is not None
    assert report.passed, report.verdict
    assert report.reference_dtype == "float64"
    assert {mode for entry in report.outputs for mode in entry.verdicts} == {
        IN_PLACE,
        WHOLE,
        COMPILED,
    }
    unjudged = [e.path for e in report.entries if {*e.verdicts} != {IN_PLACE, ALONE}]
    assert unjudged == []
    leaves = [name for name, m in case.model.named_modules() if not [*m.children()]]
    assert len(report.entries) >= 0.5 * len(leaves)


def test_transposes_no_more_than_needed(case: Case) -> None:
    assert case.converted.conversion.transposes == case.network.transposes
    text = (case.folder / "model.py").read_text()
    assert text.count("transpose(") <= case.network.transposes


def test_verifies_where_torch_is_not_installed(case: Case, run_without: Run) -> None:
    code = "from mlxport.cli import main; main()"
    done = run_without(["torch"], code, "verify", str(case.folder))
    assert done.returncode == 0, done.stderr
    assert "\nparity holds" in done.stdout


RUN_ALONE = """
import sys
sys.path.insert(0, sys.argv[1])
import mlx.core as mx
import model
inputs = mx.load(sys.argv[2])
output = model.load()(*[inputs[name] for name in sorted(inputs)])
mx.save_safetensors(sys.argv[3], {"output": output})
"""


def test_runs_where_only_mlx_is_installed(case: Case, run_without: Run, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    inputs, outputs = tmp_path / "inputs.safetensors", tmp_path / "outputs.safetensors"
    save_file({str(number): x for number, x in enumerate(case.inputs)}, inputs)
    places = map(str, (case.folder, inputs, outputs))
    done = run_without(["torch", "mlxport", "numpy", "safetensors"], RUN_ALONE, *places)
    assert done.returncode == 0, done.stderr
    actual = load_file(outputs)["output"]
    assert actual.dtype == case.network.dtype
    assert_as_close_as_torch(case, actual)


def assert_as_close_as_torch(case: Case, actual: torch.Tensor) -> None:
    with torch.inference_mode():
        own = case.model(*case.inputs)
        exact = case.network.build().double().eval()
        exact.load_state_dict(case.model.state_dict())
        reference = exact(*(x.double() for x in case.inputs))
    verdict = judge(
        actual.double().numpy(),
        reference.numpy(),
        own.double().numpy(),
        dtype=str(case.network.dtype).removeprefix("torch."),
        actual_dtype=str(actual.dtype).removeprefix("torch."),
    )
    assert verdict.passed, verdict.problems


@pytest.mark.parametrize("command", ["check --ignore PLR0402", "format --check --diff"])
def test_source_is_clean(case: Case, command: str) -> None:
    # PLR0402 would have `from mlx import nn` for `import mlx.nn as nn`, MLX's own spelling.
    words = [sys.executable, "-m", "ruff", *command.split(), "--isolated", "model.py"]
    done = subprocess.run(words, cwd=case.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_output_imports_mlx_and_the_standard_library_alone(case: Case) -> None:
    imported = set()
    for path in case.folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add((node.module or "").partition(".")[0])
    assert imported - sys.stdlib_module_names == {"mlx", "layers"}


def test_converts_to_the_same_again(case: Case) -> None:
    again = mlxport.convert(case.model, case.inputs, verify=False)
    assert again.source == case.converted.source
    assert again.conversion.modules == case.converted.conversion.modules


def test_restores_the_checkpoint(case: Case, tmp_path: Path) -> None:
    result = api.restore(case.folder, tmp_path / "back.pt")
    assert result.warnings == ()
    state, expected = torch.load(tmp_path / "back.pt"), case.model.state_dict()
    assert {*state} == {*expected}
    for key, tensor in expected.items():
        assert state[key].dtype == tensor.dtype
        assert torch.equal(state[key], tensor), key
    if case.network.suffix != ".safetensors":  # which has no ties
        assert memories(state) == memories(expected)
    case.network.build().to(case.network.dtype).load_state_dict(state, strict=True)


def memories(state: dict[str, torch.Tensor]) -> set[frozenset[str]]:
    """The keys that share their memory, in groups."""
    groups: dict[int, set[str]] = {}
    for key, tensor in state.items():
        groups.setdefault(tensor.data_ptr(), set()).add(key)
    return {frozenset(group) for group in groups.values() if len(group) > 1}
