"""A checkpoint converted, and inspected, for an MLX model written by hand."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest
import torch
from click.testing import CliRunner, Result
from mlx.utils import tree_flatten
from safetensors.torch import load_file, save_file

import mlxport
from mlxport.cli import main
from mlxport.converter import api
from mlxport.converter.errors import OptionsError, StateDictError

PORT = """
import mlx.nn as nn
from mlxport import layers


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(1, width, 3), layers.BatchNorm(width))
        self.same = nn.Conv3d(width, width, 3)
        self.up = nn.ConvTranspose3d(width, width, 3, stride=2)
        self.grouped = layers.ConvTranspose3d(width, 8, 2, stride=2, groups=2)
        self.head = nn.Linear(8, 3)


number = 3
"""


def torch_net() -> torch.nn.ModuleDict:
    """Shapes that cannot tell a convolution from a transposed one, and groups."""
    torch.manual_seed(3)
    nn = torch.nn
    return nn.ModuleDict(
        {
            "stem": nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4)),
            "same": nn.Conv3d(4, 4, 3),
            "up": nn.ConvTranspose3d(4, 4, 3, stride=2),
            "grouped": nn.ConvTranspose3d(4, 8, 2, stride=2, groups=2),
            "head": nn.Linear(8, 3),
        }
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a port by hand and a checkpoint, to be in."""
    (tmp_path / "port.py").write_text(PORT)
    save_file(torch_net().state_dict(), tmp_path / "net.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sys.modules.pop("port", None)
    yield tmp_path
    sys.modules.pop("port", None)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def loaded(files: list[Path]) -> dict[str, mx.array]:
    arrays: dict[str, mx.array] = {}
    for file in files:
        arrays |= mx.load(str(file))
    return arrays


@pytest.mark.parametrize("shards", [(), ("--max-shard-size", "1KB")], ids=["one file", "shards"])
def test_what_is_written_is_what_load_weights_loads(folder: Path, shards: tuple[str, ...]) -> None:
    result = run("convert", "net.safetensors", "--target", "port:Net", "-o", "out", *shards)
    assert result.exit_code == 0, result.stderr
    assert "parity was not judged" in result.stderr
    import port

    files = sorted(Path("out").glob("weights*.safetensors"))
    assert (len(files) > 1) == bool(shards)
    model = port.Net()
    mlxport.load_weights(model, "net.safetensors")
    expected = dict(tree_flatten(model.parameters()))
    written = loaded(files)
    assert {*written} == {*expected}
    assert all(mx.array_equal(written[name], expected[name]) for name in expected)
    port.Net().load_weights([*written.items()])  # strict


def test_the_result_is_the_model_with_its_weights(folder: Path) -> None:
    result = api.convert_checkpoint("net.safetensors", "out", target="port:Net")
    assert result.report is None
    written = mx.load("out/weights.safetensors")
    live = dict(tree_flatten(result.model.parameters()))
    assert all(mx.array_equal(live[name], written[name]) for name in written)


def test_needs_no_torch_for_safetensors(folder: Path) -> None:
    commands = [
        ["convert", "net.safetensors", "--target", "port:Net", "-o", "out"],
        ["inspect", "net.safetensors", "--target", "port:Net"],
        ["restore", "out", "-o", "back.safetensors"],
    ]
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from mlxport.cli import main\n"
        f"for command in {commands}: main(command, standalone_mode=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_same_bits(load_file("back.safetensors"), torch_net().state_dict())


def assert_same_bits(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert {*state} == {*expected}
    for key, tensor in expected.items():
        assert state[key].dtype == tensor.dtype
        assert torch.equal(state[key], tensor), key


def test_it_restores_and_loads_strictly(folder: Path) -> None:
    state = {f"module.{key}": tensor for key, tensor in torch_net().state_dict().items()}
    state["module.stem.1.num_batches_tracked"] += 7
    torch.save({"state_dict": state}, "net.pt")
    assert run("convert", "net.pt", "--target", "port:Net", "-o", "out").exit_code == 0
    assert run("restore", "out", "-o", "back.pt").exit_code == 0
    assert_same_bits(torch.load("back.pt"), state)
    torch.nn.DataParallel(torch_net()).load_state_dict(torch.load("back.pt"), strict=True)


def test_renames_and_arguments_reach_the_model(folder: Path) -> None:
    state = {key.replace("stem", "entry"): t for key, t in torch_net().state_dict().items()}
    save_file(state, "net.safetensors")
    arguments = ("convert", "net.safetensors", "--target", "port:Net", "-o", "out")
    rename = ("--rename", "entry=stem", "--dtype", "float16")
    result = run(*arguments, *rename, "--model-args", '{"width": 6}')
    assert result.exit_code == 1
    assert "same.weight: expected (6, 6, 3, 3, 3), got (4, 4, 3, 3, 3)" in result.stderr
    assert run(*arguments, *rename, "--model-args", '{"width": 4}').exit_code == 0
    written = mx.load("out/weights.safetensors")
    assert {array.dtype for array in written.values()} == {mx.float16}
    plan = json.loads(Path("out/conversion.json").read_text())["plan"]
    assert "entry.0.weight" in plan["specs"]


def test_everything_that_does_not_fit_is_listed_and_nothing_written(folder: Path) -> None:
    state = torch_net().state_dict()
    del state["same.bias"]
    state |= {"extra": torch.ones(1), "head.weight": torch.ones(8, 3)}
    save_file(state, "net.safetensors")
    with pytest.raises(StateDictError) as error:
        api.convert_checkpoint("net.safetensors", "out", target="port:Net")
    for line in (
        "missing     same.bias",
        "unexpected  extra",
        "misshapen   head.weight: expected (3, 8), got (8, 3)",
        "Nothing was written.",
    ):
        assert line in str(error.value)
    assert not Path("out").exists()


def test_inspect_tells_where_everything_goes(folder: Path) -> None:
    state = torch_net().state_dict()
    state |= {"extra": torch.ones(1), "top.weight": state.pop("head.weight")}
    state |= {"top.bias": state.pop("head.bias"), "same.bias": torch.ones(5)}
    save_file(state, "net.safetensors")
    found = mlxport.inspect("net.safetensors", target="port:Net")
    rows = {row.name: row for row in found.tensors}
    assert {*rows} == {*state}
    up = rows["up.weight"]
    assert (up.kind, up.target, up.becomes) == ("ConvTranspose3d", "up.weight", (4, 3, 3, 3, 4))
    assert (rows["same.weight"].kind, rows["grouped.weight"].becomes) == ("Conv3d", (8, 2, 2, 2, 2))
    assert rows["stem.0.weight"].target == "stem.layers.0.weight"
    assert rows["top.weight"].target == "head.weight"
    assert rows["top.weight"].evidence == "only this layer has these shapes"
    assert rows["stem.1.num_batches_tracked"].evidence == "left out: counts training batches"
    assert rows["extra"].kind == "unexpected"
    assert rows["same.bias"].kind == "misshapen"
    text = run("inspect", "net.safetensors", "--target", "port:Net").stdout
    assert "2 do not fit:" in text
    assert "  misshapen   same.bias: expected (4,), got (5,)" in text
    assert "head.weight\n" not in text.partition("do not fit")[0]
    data = json.loads(run("inspect", "net.safetensors", "--target", "port:Net", "--json").stdout)
    assert data["problems"] == list(found.problems)


MISTAKES = {
    "no factory": ("port", "--target port: expected pkg.mod:factory"),
    "not there": ("port:Nat", "--target port:Nat: cannot be imported"),
    "no model": ("port:number", "--target port:number: expected a class or function"),
    "a torch model": ("torch.nn:Flatten", "expected a mlx.nn.Module, got a Flatten"),
}


@pytest.mark.parametrize(("target", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_target_that_gives_no_model(folder: Path, target: str, message: str) -> None:
    for command in (("convert", "-o", "out"), ("inspect",)):
        result = run(*command, "net.safetensors", "--target", target)
        assert result.exit_code == 2
        assert message in result.stderr
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "others",
    [{"plan": "p"}, {"layers": ["*=Conv"]}, {"inputs": ["1,1"]}, {"model": "a:b", "inputs": ["1"]}],
    ids=lambda others: "-".join(others),
)
def test_two_answers_to_one_question_are_refused(folder: Path, others: dict[str, object]) -> None:
    with pytest.raises(OptionsError):
        api.convert_checkpoint("net.safetensors", "out", target="port:Net", **others)  # type: ignore[arg-type]


def test_inspect_takes_no_arguments_for_nothing(folder: Path) -> None:
    with pytest.raises(OptionsError, match="plan=, target= and layers="):
        mlxport.inspect("net.safetensors", target="port:Net", layers=["*=Conv"])
    with pytest.raises(OptionsError, match="without target="):
        mlxport.inspect("net.safetensors", model_args={"width": 3})


@pytest.mark.parametrize("built", [False, True], ids=["by name", "as a model"])
def test_the_record_names_the_target(built: bool, folder: Path) -> None:
    sys.path.insert(0, str(folder))
    import port

    target = port.Net() if built else "port:Net"
    api.convert_checkpoint("net.safetensors", "out", target=target)
    record = json.loads((folder / "out/conversion.json").read_text())
    assert record["source"]["target"] == ("Net" if built else "port:Net")
