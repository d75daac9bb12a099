"""Looking into a checkpoint, and converting its weights, without the model."""

import json
import tracemalloc
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import mlxport
from mlxport.converter import api
from mlxport.converter.errors import OptionsError, StateDictError
from mlxport.converter.plan.steps import conv_transpose_weight
from mlxport.converter.plan.torch_tensor import tensor_from_torch
from mlxport.examples.unet3d import UNet3d

State = dict[str, torch.Tensor]
LAYERS = ["*=Conv", "upsample.*=ConvTranspose"]


def state() -> State:
    torch.manual_seed(5)
    return UNet3d(widths=(2, 4)).state_dict()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save({"net": state(), "lr": 0.1}, tmp_path / "unet.pt")
    return tmp_path / "unet.pt"


def arrays(folder: Path) -> dict[str, mx.array]:
    found: dict[str, mx.array] = {}
    for file in sorted(folder.glob("weights*.safetensors")):
        found |= mx.load(str(file))
    return found


def test_inspection_names_every_tensor(checkpoint: Path) -> None:
    found = mlxport.inspect(checkpoint)
    rows = {row.name: row for row in found.tensors}
    assert {*rows} == {*state()}
    assert found.key == "net"
    assert any("'net'" in note and "lr" in note for note in found.notes)
    up = rows["upsample.0.weight"]
    assert (up.dtype, up.shape, up.nbytes) == ("F32", (4, 2, 3, 3, 3), 864)
    assert (up.kind, up.becomes) == ("ConvTranspose3d:1", (2, 3, 3, 3, 4))
    assert rows["head.weight"].options == (
        "head.weight=Conv3d",
        "head.weight=ConvTranspose3d:1",
    )
    assert rows["stem.1.num_batches_tracked"].kind == "counter"


def test_the_table_says_what_would_settle_what_is_open(checkpoint: Path) -> None:
    text = mlxport.inspect(checkpoint).to_text()
    assert "7 are open" in text
    assert "  head.weight=Conv3d | ConvTranspose3d:1" in text
    assert "open" not in mlxport.inspect(checkpoint, layers=LAYERS).to_text()


def test_a_long_name_does_not_widen_every_row(tmp_path: Path) -> None:
    """Rows were once filled up to the longest: 1.3 MB of names made 2.6 GB of table."""
    long = "a" * 50_000
    state = {f"{i}.weight": torch.zeros(1) for i in range(200)} | {long: torch.zeros(1)}
    torch.save(state, tmp_path / "long.pt")
    found = mlxport.inspect(tmp_path / "long.pt")
    tracemalloc.start()
    try:
        text = found.to_text()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert long in text
    assert len(text) < 2 * len(long)
    assert peak < 10 * len(long)


def test_inspection_as_json(checkpoint: Path) -> None:
    data = json.loads(json.dumps(mlxport.inspect(checkpoint).to_json()))
    assert len(data["tensors"]) == len(state())
    assert data["tensors"][0]["shape"] == [2, 1, 3, 3, 3]


def test_ties_are_shown(tmp_path: Path) -> None:
    tensor = torch.ones(3, 2)
    torch.save({"a.weight": tensor, "b.weight": tensor}, tmp_path / "tied.pt")
    found = mlxport.inspect(tmp_path / "tied.pt")
    assert found.ties == (("a.weight", "b.weight"),)
    assert "one tensor: a.weight, b.weight" in found.to_text()


def test_several_state_dicts_are_listed_with_their_keys(tmp_path: Path) -> None:
    torch.save({"encoder": state(), "nets": {"decoder": {"a": torch.ones(2)}}}, tmp_path / "two.pt")
    found = mlxport.inspect(tmp_path / "two.pt")
    assert not found.tensors
    assert {key: len(names) for key, names in found.choices.items()} == {
        "encoder": len(state()),
        "nets/decoder": 1,
    }
    text = found.to_text()
    for key in found.choices:
        assert f"  key={key!r}: " in text
        assert mlxport.inspect(tmp_path / "two.pt", key=key).key == key
    assert json.loads(json.dumps(found.to_json()))["choices"]["nets/decoder"] == ["a"]
    with pytest.raises(StateDictError, match=r"(?s)encoder: .*decoder: .*key='NAME'"):
        api.convert_checkpoint(tmp_path / "two.pt", tmp_path / "out")


def test_weights_become_what_the_model_would_make_of_them(checkpoint: Path, tmp_path: Path) -> None:
    result = mlxport.convert_checkpoint(checkpoint, tmp_path / "out", layers=LAYERS)
    model = UNet3d(widths=(2, 4)).eval()
    whole = mlxport.convert(model, torch.zeros(1, 1, 4, 4, 4), verify=False)
    expected = mlxport.convert_state_dict(state(), whole.conversion)
    found = arrays(tmp_path / "out")
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in expected.items()
    }
    assert (result.model, result.report) == (None, None)
    assert "weights alone" in result.notes[-1]
    names = {"weights.safetensors", "conversion.json", "left_out.safetensors"}
    names |= {"weights.safetensors.index.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_they_restore(checkpoint: Path, tmp_path: Path) -> None:
    api.convert_checkpoint(checkpoint, tmp_path / "out", layers=LAYERS, max_shard_size=2000)
    assert len([*(tmp_path / "out").glob("weights-*.safetensors")]) > 2
    api.restore(tmp_path / "out", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt")
    assert list(back) == list(state())
    assert all(torch.equal(back[key], tensor) for key, tensor in state().items())


def test_they_are_a_plan_for_other_weights(checkpoint: Path, tmp_path: Path) -> None:
    api.convert_checkpoint(checkpoint, tmp_path / "out", layers=LAYERS)
    torch.manual_seed(6)
    other = UNet3d(widths=(2, 4)).state_dict()
    save_file(other, tmp_path / "other.safetensors")
    api.convert_checkpoint(tmp_path / "other.safetensors", tmp_path / "more", plan=tmp_path / "out")
    expected = other["upsample.0.weight"].permute(1, 2, 3, 4, 0)
    assert arrays(tmp_path / "more")["upsample.0.weight"].tolist() == expected.tolist()


def test_all_that_is_open_is_listed(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(StateDictError) as error:
        api.convert_checkpoint(checkpoint, tmp_path / "out")
    heading, *tensors, advice = str(error.value).splitlines()
    assert heading.startswith("what 7 tensors are is open")
    assert all("=Conv" in line for line in tensors)
    assert len(tensors) == 7
    assert advice.startswith("Say layers= for each")
    assert not (tmp_path / "out").exists()


def test_weight_norm_is_folded_and_given_back(tmp_path: Path) -> None:
    conv = nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(3, 5, 4))
    torch.save(conv.state_dict(), tmp_path / "normed.pt")
    api.convert_checkpoint(tmp_path / "normed.pt", tmp_path / "out")
    weight = arrays(tmp_path / "out")["weight"]
    torch.testing.assert_close(
        torch.tensor(weight.tolist()), conv.weight.detach().permute(1, 2, 0), rtol=1e-6, atol=0
    )
    assert not api.restore(tmp_path / "out", tmp_path / "back.pt").warnings
    back = torch.load(tmp_path / "back.pt")
    for key, tensor in conv.state_dict().items():
        assert torch.equal(back[key], tensor), key


NORMS = {
    "weight norm, hook": nn.utils.weight_norm,
    "weight norm": nn.utils.parametrizations.weight_norm,
    "weight norm of axis 1": partial(nn.utils.parametrizations.weight_norm, dim=1),
    "spectral norm, hook": nn.utils.spectral_norm,
    "spectral norm": nn.utils.parametrizations.spectral_norm,
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_norms_are_folded_straight_from_the_state_dict(tmp_path: Path, norm: Any) -> None:
    torch.manual_seed(6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hooks are deprecated
        up = norm(nn.ConvTranspose3d(4, 6, (2, 3, 1), groups=2)).eval()
        down = norm(nn.Conv2d(5, 4, (2, 3))).eval()
    net = nn.ModuleDict({"up": up, "down": down})
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    layers = ["*=Conv", "up.*=ConvTranspose3d:2"]
    api.convert_checkpoint(tmp_path / "net.safetensors", tmp_path / "out", layers=layers)
    made = mx.load(str(tmp_path / "out/weights.safetensors"))
    up(torch.zeros(1, 4, 2, 2, 2))  # the hooks make the weights
    down(torch.zeros(1, 5, 4, 4))
    (transposed,) = conv_transpose_weight(2)
    (turned,) = transposed.apply((tensor_from_torch(up.weight.detach()),))
    assert {*made} == {"up.weight", "up.bias", "down.weight", "down.bias"}
    np.testing.assert_allclose(np.array(made["up.weight"]), turned.bits, rtol=1e-5, atol=1e-7)
    expected = down.weight.detach().permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(np.array(made["down.weight"]), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("source", [torch.float32, torch.float64])
def test_weights_are_cast_when_asked(tmp_path: Path, dtype: str, source: torch.dtype) -> None:
    linear = nn.Linear(7, 5).to(source)
    save_file(linear.state_dict(), tmp_path / "x.safetensors")
    api.convert_checkpoint(tmp_path / "x.safetensors", tmp_path / "out", dtype=dtype)
    weight = arrays(tmp_path / "out")["weight"]
    assert str(weight.dtype) == f"mlx.core.{dtype}"
    assert weight.tolist() == linear.weight.to(getattr(torch, dtype)).tolist()
    rounded = api.restore(tmp_path / "out", tmp_path / "back.pt").rounded
    assert sorted(rounded) == ["bias", "weight"]


def test_float64_waits_to_be_asked(tmp_path: Path) -> None:
    save_file(nn.Linear(2, 3).double().state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(StateDictError, match="dtype='float32'"):
        api.convert_checkpoint(tmp_path / "x.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    api.convert_checkpoint(tmp_path / "x.safetensors", tmp_path / "out", dtype="float32")


def test_targets_bear_the_new_names_and_the_record_the_old(tmp_path: Path) -> None:
    save_file(nn.Linear(2, 3).state_dict(prefix="fc."), tmp_path / "x.safetensors")
    rename = {"fc": "head"}
    api.convert_checkpoint(tmp_path / "x.safetensors", tmp_path / "out", rename=rename)
    assert set(arrays(tmp_path / "out")) == {"head.weight", "head.bias"}
    api.restore(tmp_path / "out", tmp_path / "back.pt")
    assert set(torch.load(tmp_path / "back.pt")) == {"fc.weight", "fc.bias"}


def test_a_prefix(tmp_path: Path) -> None:
    weights = {**nn.Linear(2, 3).state_dict(prefix="ema."), "net.weight": torch.ones(2)}
    save_file(weights, tmp_path / "x.safetensors")
    api.convert_checkpoint(tmp_path / "x.safetensors", tmp_path / "out", prefix="ema")
    assert set(arrays(tmp_path / "out")) == {"weight", "bias"}
    with pytest.raises(StateDictError, match="no key"):
        api.convert_checkpoint(tmp_path / "x.safetensors", tmp_path / "new", prefix="emma")


def test_choices_against_the_evidence_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"upsample\.0\.weight .* is none: its bias has 2"):
        api.convert_checkpoint(checkpoint, tmp_path / "out", layers=["*=Conv"])


# the same options with a model


def test_a_model_is_converted_in_another_dtype_from_other_names(tmp_path: Path) -> None:
    weights = {key.replace("stem", "first"): tensor for key, tensor in state().items()}
    torch.save(weights, tmp_path / "unet.pt")
    result = api.convert_checkpoint(
        tmp_path / "unet.pt",
        tmp_path / "out",
        model=UNet3d(widths=(2, 4)),
        inputs=["1,1,4,6,5"],
        rename={"first": "stem"},
        dtype="bfloat16",
        max_shard_size="1KB",
    )
    assert result.report is not None
    assert result.report.passed, result.report.verdict
    found = arrays(tmp_path / "out")
    assert len([*(tmp_path / "out").glob("weights-*.safetensors")]) > 2
    assert {str(array.dtype) for array in found.values()} == {"mlx.core.bfloat16"}
    stem = weights["first.0.weight"].bfloat16().permute(0, 2, 3, 4, 1)
    assert found["stem.0.weight"].tolist() == stem.tolist()
    restored = api.restore(tmp_path / "out", tmp_path / "back.pt")
    assert set(restored.keys) == set(weights)
    assert "first.0.weight" in restored.rounded
