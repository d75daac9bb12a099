"""Tensors without axes that a checkpoint has with one, as PyTorch before 0.4 wrote them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import mlxport
from mlxport.converter.errors import StateDictError
from mlxport.converter.tasks.verify_weights import verify_weights

X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


class Scaled(nn.Module):
    """Has a parameter and a buffer without axes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(4, 4), nn.Parameter(torch.tensor(2.0))
        self.register_buffer("shift", torch.tensor(1.0))
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(x)) * self.scale + self.shift


class Hooked(Scaled):
    """Has code of its own that takes part in loading, and changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(lambda *_: None)


class OneAxis(Scaled):
    """Has one axis where a checkpoint has none."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0]))


def state(length: int | None, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return a state dict whose numbers have one axis of a length, or none."""
    torch.manual_seed(seed)
    values = {key: torch.rand(value.shape) + 0.5 for key, value in Scaled().state_dict().items()}
    values["norm.num_batches_tracked"] = torch.tensor(3)
    if length is None:
        return values
    numbers = ("scale", "shift", "norm.num_batches_tracked")
    return values | {key: values[key] + torch.arange(length) for key in numbers}


def expected(given: dict[str, torch.Tensor]) -> np.ndarray:
    model = Scaled()
    model.load_state_dict(given)
    with torch.no_grad():
        return model.eval()(X).numpy()


def gives(folder: Path) -> np.ndarray:
    return np.array(mlxport.load(folder)(mx.array(X.numpy())))


def restored(folder: Path) -> dict[str, torch.Tensor]:
    mlxport.restore(folder, folder / "restored.safetensors")
    return load_file(folder / "restored.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[key].shape == other[key].shape and torch.equal(one[key], other[key]) for key in one
    )


@pytest.mark.parametrize("length", [None, 1])
@pytest.mark.parametrize("model", [Scaled, Hooked])
def test_what_pytorch_loads_converts_and_comes_back(
    model: Callable[[], nn.Module], length: int | None, tmp_path: Path
) -> None:
    given = state(length)
    torch.save(given, tmp_path / "x.pt")
    result = mlxport.convert_checkpoint(
        tmp_path / "x.pt", tmp_path / "out", model=model(), inputs=[X]
    )
    assert result.report is not None
    assert result.report.passed
    np.testing.assert_allclose(gives(tmp_path / "out"), expected(given), rtol=1e-5, atol=1e-6)
    assert same(restored(tmp_path / "out"), given)
    assert verify_weights(tmp_path / "out").passed


@pytest.mark.parametrize(("there", "here"), [(None, 1), (1, None), (1, 1)])
def test_by_a_plan_either_form_fits(there: int | None, here: int | None, tmp_path: Path) -> None:
    torch.save(state(there), tmp_path / "x.pt")
    mlxport.convert_checkpoint(tmp_path / "x.pt", tmp_path / "out", model=Scaled(), inputs=[X])
    given = state(here, seed=1)
    torch.save(given, tmp_path / "y.pt")
    mlxport.convert_checkpoint(tmp_path / "y.pt", tmp_path / "two", plan=tmp_path / "out")
    np.testing.assert_allclose(gives(tmp_path / "two"), expected(given), rtol=1e-5, atol=1e-6)
    assert same(restored(tmp_path / "two"), given)
    arrays = mlxport.convert_state_dict(given, tmp_path / "two")
    assert arrays["scale"].shape == ()
    assert arrays["scale"].item() == given["scale"].reshape(()).item()
    rows = mlxport.inspect(tmp_path / "y.pt", plan=tmp_path / "two").to_json()
    assert "scale" in str(rows)


def test_several_values_are_no_number(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"size mismatch for scale"):
        Scaled().load_state_dict(state(3))
    torch.save(state(None), tmp_path / "x.pt")
    mlxport.convert_checkpoint(tmp_path / "x.pt", tmp_path / "out", model=Scaled(), inputs=[X])
    with pytest.raises(StateDictError, match=r"scale: expected \(\), got \(3,\)"):
        mlxport.convert_state_dict(state(3), tmp_path / "out")


def test_no_axis_does_not_stand_for_one(tmp_path: Path) -> None:
    torch.save(state(None), tmp_path / "x.pt")
    with pytest.raises(StateDictError, match=r"scale: expected \(1,\), got \(\)"):
        mlxport.convert_checkpoint(tmp_path / "x.pt", tmp_path / "out", model=OneAxis(), inputs=[X])
