"""BatchNorm folded into the layer before it: what folds, what is left, and that it is the same."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx.utils import tree_map
from torch import nn

import mlxport
from mlxport.converter.errors import ConversionError
from mlxport.examples.unet3d import UNet3d


def randomised(model: nn.Module) -> nn.Module:
    """Give norms statistics and parameters that are not one another's."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
                if module.affine:
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_()
    return model.eval()


def block(layer: nn.Module, norm: nn.Module) -> nn.Module:
    return randomised(nn.Sequential(layer, norm, nn.ReLU()))


def folded(model: nn.Module, *inputs: torch.Tensor, **options: Any) -> Any:
    """Convert with folding; parity, of every layer and the whole, has to hold."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = mlxport.convert(model, inputs, fold_batchnorm=True, **options)
    assert result.report is not None
    assert result.report.passed, result.report.verdict
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    return result


LAYERS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "conv1d": lambda: (block(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), (2, 3, 9)),
    "conv2d without bias": lambda: (
        block(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)),
        (2, 3, 8, 7),
    ),
    "conv2d in groups, same": lambda: (
        block(nn.Conv2d(4, 6, 3, groups=2, padding="same"), nn.BatchNorm2d(6, eps=1e-2)),
        (1, 4, 6, 5),
    ),
    "conv3d, replicated": lambda: (
        block(nn.Conv3d(2, 3, 3, padding=1, padding_mode="replicate"), nn.BatchNorm3d(3)),
        (1, 2, 5, 4, 6),
    ),
    "norm without weight": lambda: (
        block(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)),
        (2, 3, 4, 5),
    ),
    "norm without weight, conv without bias": lambda: (
        block(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4, affine=False)),
        (2, 3, 4, 5),
    ),
    "transposed 1-D": lambda: (
        block(nn.ConvTranspose1d(3, 4, 4, 2), nn.BatchNorm1d(4)),
        (2, 3, 6),
    ),
    "transposed 2-D in groups": lambda: (
        block(nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), nn.BatchNorm2d(6)),
        (1, 4, 5, 4),
    ),
    "transposed 3-D": lambda: (
        block(nn.ConvTranspose3d(3, 5, 2, 2, bias=False), nn.BatchNorm3d(5)),
        (1, 3, 3, 2, 4),
    ),
    "linear": lambda: (block(nn.Linear(5, 4), nn.BatchNorm1d(4)), (3, 5)),
    "synchronised": lambda: (block(nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4)), (1, 3, 5, 6)),
}


# Lowered op by op, so that there is no layer to judge.
OPEN = {"conv3d, replicated"}


@pytest.mark.parametrize("name", LAYERS)
def test_folds(name: str) -> None:
    model, shape = LAYERS[name]()
    x = torch.randn(shape)
    result = folded(model, x)
    assert "BatchNorm(" not in result.source
    assert "1 BatchNorms were folded" in result.notes[0]
    with torch.no_grad():
        expected = model.double()(x.double()).numpy()
    got = np.array(result.model(mx.array(x.numpy())))
    assert np.linalg.norm(got - expected) <= 1e-6 * np.linalg.norm(expected)
    judged = {mode for e in result.report.entries if e.path == "1" for mode in e.verdicts}
    assert judged == (set() if name in OPEN else {"in_place", "alone"})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    model = block(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(dtype)
    result = folded(model, torch.randn(1, 3, 6, 5, dtype=dtype), noise_multiple=64)
    assert result.model.layers[0].bias.dtype == getattr(mx, str(dtype).partition(".")[2])


def test_a_unet_has_none_left_and_still_loops() -> None:
    model = randomised(UNet3d(widths=(4, 6)))
    result = folded(model, torch.randn(1, 1, 8, 6, 4))
    assert "BatchNorm" not in result.source.replace("nn.Identity", "")
    plain = mlxport.convert(model, torch.randn(1, 1, 8, 6, 4), verify=False)
    assert loops(result.source) == loops(plain.source)
    assert result.conversion.transposes == plain.conversion.transposes


def loops(source: str) -> int:
    return sum(isinstance(node, ast.For) for node in ast.walk(ast.parse(source)))


class Apart(nn.Module):
    """The convolution and the norm stand in different modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 4, 3))
        self.after = nn.ModuleDict({"norm": nn.BatchNorm2d(4), "act": nn.ReLU()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.after["act"](self.after["norm"](self.conv(x)))
        return y


def test_folds_across_modules() -> None:
    result = folded(randomised(Apart()), torch.randn(1, 3, 6, 5))
    assert "BatchNorm" not in result.source


class Read(nn.Module):
    """Something else reads the convolution's output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        z: torch.Tensor = self.norm(y) + y
        return z


class Twice(Read):
    """The norm is called twice."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(self.norm(self.conv(x)))
        return y


class Shared(Read):
    """The convolution is called twice, and the norm takes the output of one call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(self.conv(x)) + self.conv(x * 2)
        return y


class Between(Read):
    """There is a ReLU between the two."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(self.conv(x).relu())
        return y


class Watched(Read):
    """The weight of the convolution is read elsewhere."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(self.conv(x)) * self.conv.weight.mean()
        return y


class Sequence(nn.Module):
    """A linear layer over the last axis, the norm over the middle one."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(5, 4), nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(self.linear(x))
        return y


class Unbatched(nn.Module):
    """Without a batch axis the channels are what the norm takes for the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(3, 4, 3, padding=1), nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(self.conv(x))
        return y


REFUSED: dict[str, tuple[nn.Module, tuple[int, ...], str]] = {
    "read elsewhere": (Read(), (1, 3, 5, 6), "norm (something else reads the output of conv)"),
    "norm twice": (Twice(), (1, 3, 5, 6), "norm (it is no BatchNorm of PyTorch's own, called once"),
    "layer twice": (Shared(), (1, 4, 5, 6), "norm (conv is called again, or shares"),
    "activation between": (Between(), (1, 3, 5, 6), "norm (it takes the output of no conv"),
    "weight read elsewhere": (Watched(), (1, 3, 5, 6), "norm (conv is called again, or shares"),
    "other axis": (Sequence(), (2, 4, 5), "norm (the channels of linear are not those of axis 1)"),
    "no batch axis": (Unbatched(), (3, 4), "norm (the channels of conv are not those of axis 1)"),
    "first of all": (nn.Sequential(nn.BatchNorm2d(3)), (1, 3, 4, 5), "0 (it takes the output of"),
    "weight norm": (
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)),
        (1, 3, 5, 6),
        "1 (it takes the output of no convolution or linear layer)",
    ),
}


@pytest.mark.parametrize(("model", "shape", "reason"), REFUSED.values(), ids=REFUSED)
def test_does_not_fold(model: nn.Module, shape: tuple[int, ...], reason: str) -> None:
    result = folded(randomised(model), torch.randn(shape))
    assert "BatchNorm(" in result.source
    assert "0 BatchNorms were folded" in result.notes[0]
    assert reason in result.notes[0]


def test_a_wrong_fold_fails_parity(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlxport.converter.plan import fold_steps

    monkeypatch.setattr(fold_steps, "scale_of", lambda variance, gamma, eps: gamma / variance)
    model = block(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    report = mlxport.convert(model, torch.randn(1, 3, 5, 6), fold_batchnorm=True).report
    assert report is not None
    wrong = {e.path for e in report.entries if not e.verdicts["alone"].passed}
    assert wrong == {"1"}
    assert not report.passed


def test_gradients_of_what_was_folded_are_not_compared() -> None:
    model = block(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    report = folded(model, torch.randn(1, 3, 5, 6), gradients=True).report
    reasons = [entry.skipped.get("gradient", "") for entry in report.gradients if entry.path]
    assert len(reasons) == 2
    assert all("fold_batch_norm" in reason for reason in reasons)


def test_without_being_asked_nothing_is_folded() -> None:
    model = block(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert "BatchNorm(" in mlxport.convert(model, torch.randn(1, 3, 5, 6)).source


def test_dynamic_sizes_fold_too() -> None:
    result = folded(randomised(UNet3d(widths=(4, 6))), torch.randn(2, 1, 8, 6, 4), dynamic=(0,))
    assert "BatchNorm(" not in result.source


# -- on disk -------------------------------------------------------------------------------------


def net() -> nn.Module:
    return block(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    torch.save(net().state_dict(), tmp_path / "one.pt")
    out = tmp_path / "out"
    x = torch.randn(1, 3, 6, 5)
    result = mlxport.convert_checkpoint(
        tmp_path / "one.pt", out, model=net(), inputs=[x], fold_batchnorm=True
    )
    assert result.report is not None
    assert result.report.passed
    assert "1 BatchNorms were folded" in result.notes[-1]
    return out


def test_another_checkpoint_folds_by_the_plan(out: Path, tmp_path: Path) -> None:
    other = net()
    with torch.no_grad():
        for value in other.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.5, 1.5)
    torch.save(other.state_dict(), tmp_path / "two.pt")
    model = mlxport.convert_checkpoint(tmp_path / "two.pt", tmp_path / "two", plan=out).model
    x = torch.randn(1, 3, 6, 5)
    assert mlxport.verify(model, other, x).passed


def test_restore_gives_back_what_was_folded(out: Path, tmp_path: Path) -> None:
    assert mlxport.restore(out, tmp_path / "back.pt").warnings == ()
    before, back = torch.load(out.parent / "one.pt"), torch.load(tmp_path / "back.pt")
    assert list(before) == list(back)
    assert all(torch.equal(tensor, back[key]) for key, tensor in before.items())


def test_restore_says_what_it_cannot_give_back(out: Path, tmp_path: Path) -> None:
    model = mlxport.load(out)
    model.update(tree_map(lambda array: array * 2, model.parameters()))
    with pytest.raises(ConversionError, match=r"folded into .*, which was trained") as caught:
        mlxport.restore(out, tmp_path / "back.pt", from_live=model)
    assert "0.weight" in str(caught.value)
    assert "1.running_var" in str(caught.value)


def test_the_folder_verifies_without_torch(out: Path) -> None:
    from mlxport.converter.api import verify_folder

    report = verify_folder(out)
    assert report.passed
    assert any(entry.path == "1" for entry in report.entries)
