"""`assert_parity`: silent where a model is right, and otherwise as short and clear as a test is."""

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import pytest
import torch

import mlxport
from mlxport.converter.errors import ParityError
from mlxport.testing import assert_parity


class Torch(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(6, 6) for _ in range(20))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


class Port(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = [nn.Linear(6, 6) for _ in range(20)]

    def __call__(self, x: mx.array) -> mx.array:
        for part in self.parts:
            x = mx.tanh(part(x))
        return x


@pytest.fixture
def pair() -> tuple[Port, Torch]:
    torch.manual_seed(0)
    module, port = Torch(), Port()
    mlxport.load_weights(port, module.state_dict(), rename={"layers.*.*": "parts.*.*"})
    return port.eval(), module


def test_a_right_port_passes_and_gives_its_report(pair: tuple[Port, Torch]) -> None:
    report = assert_parity(*pair, torch.randn(3, 6), names={"layers.*": "parts.*"})
    assert report.passed
    assert len(report.entries) == 20


def test_a_converted_model_passes() -> None:
    module, x = Torch(), torch.randn(3, 6)
    assert mlxport.testing.assert_parity(mlxport.convert(module, x).model, module, x).passed


def test_a_fault_is_told_in_short(pair: tuple[Port, Torch]) -> None:
    port, module = pair
    port.parts[12].bias = port.parts[12].bias + 0.1
    with pytest.raises(AssertionError) as caught:
        assert_parity(port, module, torch.randn(3, 6), names={"layers.*": "parts.*"})
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("parity FAILED at layers.12 (MLX parts.12): error")
    rows = [line for line in lines if " Linear " in line]
    assert len(rows) == 10
    assert all("FAIL" in row for row in rows[:8])
    assert "10 more layers" in lines[-1]


def test_what_cannot_be_compared_is_no_failed_assertion(pair: tuple[Port, Torch]) -> None:
    with pytest.raises(ParityError, match="training mode"):
        assert_parity(pair[0].train(), pair[1], torch.randn(3, 6))


def test_it_is_there_without_an_import_of_its_own_and_loads_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, mlxport; mlxport.testing.assert_parity; "
        "assert not {'torch', 'mlx.core'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_pytest_points_at_the_test(tmp_path: Path) -> None:
    test = tmp_path / "test_port.py"
    test.write_text(
        "import mlxport, torch\n"
        "from mlxport.testing import assert_parity\n"
        "def test_port():\n"
        "    a, b, x = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3), torch.randn(2, 3)\n"
        "    assert_parity(mlxport.convert(a, x).model, b, x)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "test_port.py:5: AssertionError" in done.stdout
    assert "parity FAILED" in done.stdout
