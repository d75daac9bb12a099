"""Whatever a model takes and gives, from the command line to a machine without torch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from mlxport.cli import main

NETS = """
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass
class Output:
    hidden: Any = None
    loss: Any = None
    pooled: Any = None


torch.export.register_dataclass(Output, serialized_type_name="mlxport.tests.models.Output")


class Encoder(nn.Module):
    def __init__(self, words=50, width=6):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.mix = nn.Linear(width, width)
        self.time = nn.Linear(1, width)

    def forward(self, ids, types=None, mask=None, time=None, scale=1.0, act="tanh", full=True):
        x = self.embed(ids)
        x = self.mix(x) * scale
        if time is not None:
            x = x + self.time(time.float().reshape(1))
        x = torch.tanh(x) if act == "tanh" else torch.relu(x)
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0.0)
        pooled = {"mean": x.mean(1), "sizes": (ids.shape[1], None)}
        return Output(x, None, pooled) if full else x


def encoder():
    return Encoder()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, with a model and its checkpoint."""
    (tmp_path / "io_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import io_nets

    save_file(io_nets.encoder().state_dict(), tmp_path / "encoder.safetensors")
    yield tmp_path
    import sys

    del sys.modules["io_nets"]


def mlxport(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def convert(*arguments):
    model = ("--model", "io_nets:encoder", "-o", "out")
    return mlxport("convert", "encoder.safetensors", *model, *arguments)


OUTPUTS = ["output.hidden", 'output.pooled["mean"]']
TENSORS = (
    "--input",
    "int64:2,7:0..49",
    "--input",
    "mask=bool:2,7",
    "--input",
    "time=int64::0..999",
)


def values():
    return {
        "ids": torch.arange(14).reshape(2, 7),
        "mask": torch.rand(2, 7) > 0.5,
        "time": torch.tensor(500),
    }


def files(folder):
    given = values()
    save_file(given, folder / "all.safetensors")
    np.savez(folder / "named.npz", **{k: v.numpy() for k, v in given.items() if k != "ids"})
    np.save(folder / "ids.npy", given["ids"].numpy())


WAYS = {
    "drawn": TENSORS,
    "a safetensors file": ("--input-file", "all.safetensors"),
    "numpy files": ("--input-file", "named.npz", "--input-file", "ids.npy"),
    "drawn and from a file": ("--input", "int64:2,7:0..49", "--input-file", "named.npz"),
}


@pytest.mark.parametrize("inputs", WAYS.values(), ids=WAYS)
def test_inputs_are_given_as_one_likes(folder, inputs):
    files(folder)
    result = convert(*inputs)
    assert result.exit_code == 0, result.output
    source = (folder / "out" / "model.py").read_text()
    assert "def __call__(self, ids: mx.array, *, mask: mx.array, time: mx.array) -> dict:" in source
    report = json.loads((folder / "out" / "parity.json").read_text())
    assert [entry["name"] for entry in report["outputs"]] == OUTPUTS


def test_values_of_a_file_are_those_of_the_reference(folder):
    from mlxport.converter.parity.verdict.reference_file import load_reference

    files(folder)
    assert convert("--input-file", "all.safetensors").exit_code == 0
    reference = load_reference(folder / "out" / "reference.safetensors")
    stored = dict(zip(reference.signature.tensors(), reference.inputs, strict=True))
    assert stored.keys() == values().keys()
    assert stored["ids"].bits.tolist() == values()["ids"].tolist()
    assert stored["time"].bits.shape == ()


def test_other_arguments_are_fixed(folder):
    constants = json.dumps({"act": "relu", "scale": 2.5, "full": False})
    result = convert(*TENSORS, "--kwargs", constants)
    assert result.exit_code == 0, result.output
    source = (folder / "out" / "model.py").read_text()
    assert 'Fixed when converted: scale=2.5, act="relu", full=False.' in source
    assert ") -> mx.array:" in source


def test_a_folder_is_verified_without_torch(folder, run_without):
    assert convert(*TENSORS).exit_code == 0
    code = (
        "import sys, json\n"
        "from mlxport.converter import api\n"
        "report = api.verify_folder(sys.argv[1])\n"
        "print(json.dumps([report.passed, [entry.name for entry in report.outputs]]))\n"
    )
    done = run_without(["torch"], code, str(folder / "out"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, OUTPUTS]


def test_a_written_model_gives_what_pytorch_gives(folder, run_without):
    files(folder)
    assert convert("--input-file", "all.safetensors").exit_code == 0
    code = (
        "import sys, mlx.core as mx\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from model import load\n"
        "given = mx.load(sys.argv[2])\n"
        "result = load()(given.pop('ids'), **given)\n"
        "print(list(result), result['pooled']['sizes'], result['pooled']['mean'].shape)\n"
    )
    done = run_without(
        ["torch", "mlxport"], code, str(folder / "out"), str(folder / "all.safetensors")
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['hidden', 'pooled'] (7, None) (2, 6)"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (('"hidden": ', '"last": '), "keys ['last', 'pooled'] instead of ['hidden', 'pooled']"),
        (("(7, None)", "(8, None)"), 'output.pooled["sizes"][0]: 8 instead of 7'),
    ],
    ids=["a key", "a constant"],
)
def test_a_changed_result_fails(folder, change, problem):
    assert convert(*TENSORS).exit_code == 0
    file = folder / "out" / "model.py"
    source = file.read_text()
    assert source.count(change[0]) == 1
    file.write_text(source.replace(*change))
    result = mlxport("verify", "out")
    assert result.exit_code == 3
    assert problem in result.output


def test_all_inputs_that_cannot_be_taken_are_listed(folder):
    wrong = ["x=int64:1", "float7:1,2", "ids=int64:1,3"]
    inputs = [part for spec in wrong for part in ("--input", spec)]
    result = convert(*inputs, "--input-file", "missing.npy", "--kwargs", '{"ids": 3}')
    assert result.exit_code == 2
    for text in (
        "x: Encoder takes ids, types",
        "no dtype 'float7'",
        "missing.npy: ",
        "given twice",
    ):
        assert text in result.output
    assert not Path("out").exists()


@pytest.mark.parametrize("text", ["[1]", "{", "3"])
def test_kwargs_are_a_json_object(folder, text):
    result = convert(*TENSORS, "--kwargs", text)
    assert result.exit_code == 2
    assert "--kwargs" in result.output
