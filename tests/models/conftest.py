"""What tests of whole networks share: weights, inputs, and Python without torch or mlxport."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import import_torchvision  # noqa: F401
import pytest
import torch
from torch import nn

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def randomise() -> Callable[[nn.Module], nn.Module]:
    """Give a model weights as training would: none is zero, one, or like its neighbour.

    A fresh BatchNorm has mean 0, variance 1, weight 1 and bias 0; two of them swapped would not
    show.
    """

    def randomise(model: nn.Module) -> nn.Module:
        with torch.no_grad():
            for name, tensor in model.state_dict(keep_vars=True).items():
                if not tensor.is_floating_point():
                    continue  # a table of places or a count
                if name.endswith("running_var"):
                    tensor.uniform_(0.5, 2.0)
                elif name.endswith(("bias", "running_mean")):
                    tensor.uniform_(-0.5, 0.5)
                elif tensor.ndim > 1:
                    tensor.normal_(std=tensor[0].numel() ** -0.5)
                else:  # the weight of a norm or a PReLU
                    tensor.uniform_(0.2, 1.5)
        return model.eval()

    return randomise


@pytest.fixture
def run_without(tmp_path: Path) -> Run:
    """Run Python code in a process of its own in which some packages cannot be imported."""

    def run(packages: Sequence[str], code: str, *args: str) -> subprocess.CompletedProcess[str]:
        block = f"import sys; sys.modules.update(dict.fromkeys({tuple(packages)!r}))\n"
        command = [sys.executable, "-c", block + code, *args]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    return run
