"""Weights into an MLX model written by hand."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten
from safetensors.torch import save_file

import mlxport
from mlxport import layers
from mlxport.converter.errors import OptionsError, StateDictError

State = dict[str, torch.Tensor]


class TorchNet(torch.nn.Module):
    """Shapes that cannot tell a convolution from a transposed one, and groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(
            torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.BatchNorm3d(4)
        )
        self.same = torch.nn.Conv3d(4, 4, 3, padding=1)
        self.up = torch.nn.ConvTranspose3d(4, 4, 3, stride=2)
        self.grouped = torch.nn.ConvTranspose3d(4, 8, 2, stride=2, groups=2)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.grouped(self.up(self.same(self.stem(x))))
        return self.head(x.mean((2, 3, 4)))


class Net(nn.Module):
    """The same by hand, channels last, with MLX's Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), layers.BatchNorm(4))
        self.same = nn.Conv3d(4, 4, 3, padding=1)
        self.up = nn.ConvTranspose3d(4, 4, 3, stride=2)
        self.grouped = layers.ConvTranspose3d(4, 8, 2, stride=2, groups=2)
        self.head = nn.Linear(8, 3)
        self.eval()

    def __call__(self, x: mx.array) -> mx.array:
        x = self.grouped(self.up(self.same(self.stem(x))))
        return self.head(x.mean((1, 2, 3)))


@pytest.fixture
def net() -> TorchNet:
    model = TorchNet()
    with torch.no_grad():
        for tensor in model.state_dict(keep_vars=True).values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 0.9)
    return model.eval()


def computes_the_same(model: nn.Module, expected: torch.nn.Module) -> None:
    x = torch.randn(2, 1, 4, 3, 5)
    with torch.no_grad():
        answer = expected.double()(x.double()).float().numpy()
    actual = np.array(model(mx.array(x.permute(0, 2, 3, 4, 1).numpy())))
    np.testing.assert_allclose(actual, answer, rtol=2e-5)


def values(model: nn.Module) -> dict[str, list[float]]:
    return {name: array.tolist() for name, array in tree_flatten(model.parameters())}


@pytest.mark.parametrize("ending", [".pt", ".safetensors", ".nested"])
def test_the_layers_say_the_layout(net: TorchNet, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"net{ending}"
    if ending == ".safetensors":
        save_file(net.state_dict(), path)
    else:
        state = net.state_dict()
        torch.save({"epoch": 1, "net": state} if ending == ".nested" else state, path)
    model = Net()
    result = mlxport.load_weights(model, path)
    computes_the_same(model, net)
    assert result.problems == []
    assert result.by_structure == ()
    assert result.sources["stem.layers.0.weight"] == ("stem.0.weight",)


def test_a_state_dict_may_be_given(net: TorchNet) -> None:
    model = Net()
    mlxport.load_weights(model, net.state_dict())
    arrays = {key: tensor.numpy() for key, tensor in net.state_dict().items()}
    other = Net()
    mlxport.load_weights(other, arrays)
    assert values(model) == values(other)
    computes_the_same(model, net)


def test_needs_no_torch(net: TorchNet, tmp_path: Path) -> None:
    torch.manual_seed(1)
    conv = torch.nn.ConvTranspose2d(3, 3, 2)
    save_file(conv.state_dict(), tmp_path / "up.safetensors")
    code = """
import sys
sys.modules["torch"] = None  # importing it would fail
import mlxport, mlx.nn as nn
layer = nn.ConvTranspose2d(3, 3, 2)
mlxport.load_weights(layer, "up.safetensors")
print(layer.weight.tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert eval(done.stdout) == conv.weight.permute(1, 2, 3, 0).tolist()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "a.b."])
def test_a_common_prefix_is_taken_off(net: TorchNet, prefix: str) -> None:
    model = Net()
    result = mlxport.load_weights(model, {prefix + k: t for k, t in net.state_dict().items()})
    computes_the_same(model, net)
    assert any(repr(prefix) in note for note in result.notes)


def test_the_rest_under_another_prefix_is_left_out(net: TorchNet) -> None:
    state = {f"ema.{key}": tensor for key, tensor in net.state_dict().items()}
    state |= {"online.weight": torch.ones(3)}
    model = Net()
    with pytest.raises(StateDictError, match=r"unexpected  online\.weight"):
        mlxport.load_weights(model, state)
    mlxport.load_weights(model, state, prefix="ema")
    computes_the_same(model, net)
    with pytest.raises(StateDictError, match="no key"):
        mlxport.load_weights(model, state, prefix="emma")


RENAMES: dict[str, dict[Any, str]] = {
    "module": {"encoder": "stem", "decoder.*": "*"},
    "glob": {"encoder.*.*": "stem.*.*", "decoder.**": "**"},
    "regex text": {r"re:encoder\.(.*)": r"stem.\1", r"re:decoder\.(?P<rest>.*)": r"\g<rest>"},
    "regex": {re.compile(r"encoder\.(.*)"): r"stem.\1", re.compile(r"decoder\.(.*)"): r"\1"},
}


@pytest.mark.parametrize("rename", RENAMES.values(), ids=RENAMES)
def test_names_may_be_mapped(net: TorchNet, rename: dict[Any, str]) -> None:
    def theirs(key: str) -> str:
        return key.replace("stem", "encoder") if key.startswith("stem") else f"decoder.{key}"

    model = Net()
    state = {theirs(key): tensor for key, tensor in net.state_dict().items()}
    result = mlxport.load_weights(model, state, rename=rename)
    computes_the_same(model, net)
    assert result.by_structure == ()
    assert result.sources["up.weight"] == ("decoder.up.weight",)


def test_a_rename_that_does_nothing_is_refused(net: TorchNet) -> None:
    with pytest.raises(OptionsError, match="encodre"):
        mlxport.load_weights(Net(), net.state_dict(), rename={"encodre": "stem"})


def test_what_only_fits_one_layer_is_matched_and_told(net: TorchNet) -> None:
    state = net.state_dict()
    for name in ("weight", "bias"):
        state[f"classifier.{name}"] = state.pop(f"head.{name}")
        state[f"upsample.{name}"] = state.pop(f"grouped.{name}")
    model = Net()
    result = mlxport.load_weights(model, state)
    computes_the_same(model, net)
    names = {"head.weight", "head.bias", "grouped.weight", "grouped.bias"}
    assert set(result.by_structure) == names
    assert any("head.weight" in note and "classifier.weight" in note for note in result.notes)


def test_two_layers_of_one_shape_are_not_guessed(net: TorchNet) -> None:
    state = net.state_dict()
    for name in ("weight", "bias"):  # (4, 4, 3, 3, 3) both, and one of them transposed
        state[f"a.{name}"] = state.pop(f"same.{name}")
        state[f"b.{name}"] = state.pop(f"up.{name}")
    model = Net()
    before = values(model)
    with pytest.raises(StateDictError) as error:
        mlxport.load_weights(model, state)
    for line in ("missing     same.weight", "missing     up.bias", "unexpected  a.weight"):
        assert line in str(error.value)
    assert "rename=" in str(error.value)
    assert values(model) == before


def test_everything_wrong_is_listed_and_nothing_loaded(net: TorchNet) -> None:
    state = net.state_dict()
    del state["same.bias"]
    state["extra"] = torch.ones(1)
    state["head.weight"] = state["head.weight"].T
    state["up.weight"] = state["up.weight"][:, :3]
    model = Net()
    before = values(model)
    with pytest.raises(StateDictError) as error:
        mlxport.load_weights(model, state)
    for line in (
        "missing     same.bias",
        "unexpected  extra",
        "misshapen   head.weight: expected (3, 8), got (8, 3)",
        "misshapen   up.weight: expected (4, 4, 3, 3, 3), got (4, 3, 3, 3, 3)",
        "Nothing was loaded",
    ):
        assert line in str(error.value)
    assert values(model) == before


def test_what_fits_is_loaded_when_that_is_asked_for(net: TorchNet) -> None:
    state = net.state_dict()
    del state["same.bias"]
    state["extra"] = torch.ones(1)
    state["head.weight"] = state["head.weight"].T
    model = Net()
    before = values(model)
    result = mlxport.load_weights(model, state, strict=False)
    assert result.missing == ("same.bias",)
    assert result.unexpected == ("extra",)
    assert set(result.misshapen) == {"head.weight"}
    after = values(model)
    for name in before:
        assert (after[name] == before[name]) == (name in ("same.bias", "head.weight"))


def test_a_converted_weight_is_told_from_pytorchs() -> None:
    state = {"weight": torch.ones(6, 3, 2, 4), "bias": torch.ones(6)}
    with pytest.raises(StateDictError, match="converted already"):
        mlxport.load_weights(nn.Conv2d(4, 6, (3, 2)), state)


class Own(nn.Module):
    """A layer mlxport does not know."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = mx.zeros(shape)


@pytest.mark.parametrize("shape", [(3,), (1, 5, 4), (2, 3), (1, 1, 7)])
def test_an_unknown_layer_takes_what_fits_one_way(shape: tuple[int, ...]) -> None:
    model, tensor = Own(shape), torch.rand(shape)
    mlxport.load_weights(model, {"weight": tensor})
    assert model.weight.tolist() == tensor.tolist()


@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 3), (3, 1, 3)])
def test_an_unknown_layer_is_not_guessed(shape: tuple[int, ...]) -> None:
    with pytest.raises(StateDictError, match="more than one order of axes"):
        mlxport.load_weights(Own(shape), {"weight": torch.rand(shape)})


def test_mlx_recurrent_layers_are_refused() -> None:
    state = torch.nn.LSTM(3, 4).state_dict()
    with pytest.raises(StateDictError, match=r"use mlxport\.layers\.LSTM"):
        mlxport.load_weights(nn.LSTM(3, 4), state)
    mlxport.load_weights(layers.LSTM(3, 4), state)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("old", [False, True], ids=["parametrisation", "hook"])
@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm_is_folded(old: bool, dim: int | None) -> None:
    conv = torch.nn.ConvTranspose1d(3, 5, 4)
    normed = torch.nn.utils.weight_norm if old else torch.nn.utils.parametrizations.weight_norm
    conv = normed(conv, dim=dim)
    model = layers.ConvTranspose1d(3, 5, 4)
    with torch.no_grad():
        for tensor in conv.parameters():
            tensor.uniform_(0.5, 1.5)
        expected = torch._weight_norm(*_parts(conv), -1 if dim is None else dim)
    result = mlxport.load_weights(model, conv.state_dict())
    np.testing.assert_allclose(np.array(model.weight), expected.permute(1, 2, 0).numpy(), rtol=1e-6)
    assert "a norm was folded into weight" in result.notes


def _parts(conv: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    state = conv.state_dict()
    ends = ("_g", "original0"), ("_v", "original1")
    first, second = (next(t for k, t in state.items() if k.endswith(end)) for end in ends)
    return second, first


def test_float64_is_rounded_with_a_warning() -> None:
    tensor = torch.tensor([1 + 2**-40], dtype=torch.float64)
    model = nn.PReLU()
    with pytest.warns(UserWarning, match="float64 became float32"):
        mlxport.load_weights(model, {"weight": tensor})
    assert (model.weight.dtype, model.weight.item()) == (mx.float32, 1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_checkpoints_dtype_is_kept(dtype: torch.dtype) -> None:
    model = nn.Linear(3, 2)
    state = {k: t.to(dtype) for k, t in torch.nn.Linear(3, 2).state_dict().items()}
    mlxport.load_weights(model, state)
    assert str(model.weight.dtype).rpartition(".")[2] == str(dtype).rpartition(".")[2]


def test_a_dtype_mlx_lacks_is_named() -> None:
    state = {"weight": torch.ones(1).to(torch.float8_e4m3fn)}
    with pytest.raises(StateDictError, match=r"weight: MLX has no counterpart of F8_E4M3"):
        mlxport.load_weights(nn.PReLU(), state)
