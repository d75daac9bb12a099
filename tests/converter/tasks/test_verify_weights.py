"""Weights are held to the digests of the checkpoint they were made from."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from mlxport.cli import main
from mlxport.converter import api
from mlxport.converter.checkpoint.writing.digest import digest_of
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.errors import ConversionError
from mlxport.converter.output.contents import open_weights, read_conversion, write_json
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.plan.torch_tensor import tensor_from_torch


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(4, 6, 2, stride=2, groups=2)
        self.norm = nn.BatchNorm3d(6)
        self.folded = weight_norm(nn.Conv3d(6, 3, 3))
        self.unused = nn.Linear(3, 3)
        self.register_buffer("scale", torch.tensor([2.0, 3.0, 4.0, 5.0, 6.0]), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.folded(self.norm(self.up(x))).mean((2, 3, 4)).repeat(1, 2)[:, :5] * self.scale


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    net = Net()
    torch.save(net.state_dict(), folder / "net.pt")
    api.convert_checkpoint(
        folder / "net.pt", folder / "out", model=net, inputs=["1,4,3,4,2"], max_shard_size=600
    )
    return folder / "out"


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A copy of the folder whose weights stand in one file."""
    (tmp_path / "out").mkdir()
    for name in ("conversion.json", "left_out.safetensors"):
        (tmp_path / "out" / name).write_bytes((made / name).read_bytes())
    edit(tmp_path / "out", dict(open_weights(made).tensors))
    return tmp_path / "out"


def edit(out: Path, tensors: Mapping[str, Tensor], file: str = "weights") -> None:
    write_safetensors(out / f"{file}.safetensors", tensors)


def test_holds_for_what_was_written(made: Path, out: Path) -> None:
    assert len([*made.glob("weights-*.safetensors")]) > 1
    for folder in (made, out):
        report = api.verify_weights(folder)
        assert (report.passed, report.problems) == (True, ())
        assert "net.pt" in report.verdict


def test_the_record_has_a_digest_of_every_tensor(made: Path) -> None:
    digests = read_conversion(made).digests
    state = torch.load(made.parent / "net.pt")
    expected = {key: digest_of(tensor_from_torch(tensor)) for key, tensor in state.items()}
    assert digests.sources == expected
    assert set(digests.targets) == {"folded.weight", "scale"}


def flipped(tensor: Tensor) -> Tensor:
    bits = np.array(tensor.bits)
    bits.reshape(-1).view(np.uint8)[-1] ^= 1
    return tensor.with_bits(bits)


NAMES = ("up.weight", "up.bias", "norm.running_var", "folded.weight", "folded.bias", "scale")


@pytest.mark.parametrize("name", NAMES)
def test_one_bit_is_told(name: str, out: Path) -> None:
    weights = dict(open_weights(out).tensors)
    edit(out, weights | {name: flipped(weights[name])})
    report = api.verify_weights(out)
    assert report.problems == (f"differs     {name}",)
    assert "1 tensors are not those" in report.verdict
    assert name in report.verdict


def test_a_bit_of_what_was_left_out_is_told(out: Path) -> None:
    from mlxport.converter.checkpoint.formats.safetensors import open_safetensors

    kept = dict(open_safetensors(out / "left_out.safetensors").tensors)
    edit(out, kept | {"unused.bias": flipped(kept["unused.bias"])}, "left_out")
    assert api.verify_weights(out).problems == (
        "differs     unused.bias (in left_out.safetensors)",
    )


def test_everything_else_is_listed_at_once(out: Path) -> None:
    weights = dict(open_weights(out).tensors)
    del weights["up.bias"], weights["scale"]
    weights["more"] = weights["norm.weight"]
    weights["up.weight"] = weights["up.weight"].with_bits(weights["up.weight"].bits[..., :1])
    weights["norm.bias"] = Tensor(weights["norm.bias"].bits.astype(np.float16), "F16")
    edit(out, weights)
    report = api.verify_weights(out)
    assert [problem.split()[:2] for problem in report.problems] == [
        ["misshapen", "up.weight:"],
        ["missing", "up.bias"],
        ["misshapen", "norm.bias:"],
        ["missing", "scale"],
        ["unexpected", "more"],
    ]
    # besides the checkpoint's tensors, the folded weight and the constant
    assert report.checked == len(read_conversion(out).digests.sources) + 2 - 4


def test_cast_weights_are_held_to_what_was_written(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "x.pt")
    api.convert_checkpoint(tmp_path / "x.pt", tmp_path / "out", dtype="float16")
    assert api.verify_weights(tmp_path / "out").passed
    weights = dict(open_weights(tmp_path / "out").tensors)
    edit(tmp_path / "out", weights | {"bias": flipped(weights["bias"])})
    assert api.verify_weights(tmp_path / "out").problems == ("differs     bias",)


def test_the_checkpoints_own_names_count(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "x.pt")
    api.convert_checkpoint(tmp_path / "x.pt", tmp_path / "out", rename={"**": "head.**"})
    assert set(read_conversion(tmp_path / "out").digests.sources) == {"weight", "bias"}
    assert api.verify_weights(tmp_path / "out").passed


def test_a_record_without_digests_is_told(out: Path) -> None:
    record = json.loads((out / "conversion.json").read_text())
    del record["digests"]
    write_json(out / "conversion.json", record)
    with pytest.raises(ConversionError, match="older mlxport"):
        api.verify_weights(out)


def test_digests_of_another_kind_are_told(out: Path) -> None:
    conversion = read_conversion(out)
    other = replace(conversion, digests=replace(conversion.digests, algorithm="md5"))
    write_json(out / "conversion.json", other.to_json())
    with pytest.raises(ConversionError, match="'md5'"):
        api.verify_weights(out)


def test_needs_no_torch(out: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from mlxport.cli import main; main()"
    command = [sys.executable, "-c", code, "verify", str(out), "--weights"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "tensors are those converted from net.pt" in done.stdout


def test_the_command_line_exits_3_where_it_fails(out: Path) -> None:
    arguments = ["verify", str(out), "--weights", "--json"]
    good = CliRunner().invoke(main, arguments)
    assert (good.exit_code, json.loads(good.stdout)["passed"]) == (0, True)
    weights = dict(open_weights(out).tensors)
    edit(out, weights | {"up.bias": flipped(weights["up.bias"])})
    bad = CliRunner().invoke(main, arguments)
    assert (bad.exit_code, json.loads(bad.stdout)["problems"]) == (3, ["differs     up.bias"])
    (out / "weights.safetensors").write_bytes(b"no")
    assert CliRunner().invoke(main, arguments).exit_code == 1
