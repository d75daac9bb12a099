"""The guide, docs/porting.md: its commands run in their order, its Python and C++ too."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx
import mlx.core as mx
import pytest
import torch
from click.testing import CliRunner
from mlx.utils import tree_flatten, tree_map

import mlxport
from mlxport.cli import main
from mlxport.converter.errors import DeviceError
from mlxport.examples.unet3d import UNet3d

GUIDE = (Path(__file__).parents[1] / "docs" / "porting.md").read_text()
NETS = """
from mlxport.examples.unet3d import UNet3d


def unet():
    return UNet3d(widths=(2, 4))
"""


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language; of none, those that are commands."""
    fenced = (block.partition("\n") for block in GUIDE.split("```")[1::2])
    return [text for info, _, text in fenced if info == language]


COMMANDS = [shlex.split(text)[1:] for text in blocks("")]


def run_command(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the guide has been followed up to the converted folder."""
    folder = tmp_path_factory.mktemp("guide")
    torch.manual_seed(0)
    torch.save(UNet3d(widths=(2, 4)).state_dict(), folder / "unet3d.pt")
    (folder / "nets.py").write_text(NETS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        patch.delitem(sys.modules, "nets", raising=False)
        patch.setattr(sys, "dont_write_bytecode", True)
        dry, convert, *_ = COMMANDS
        assert "everything has an MLX counterpart" in run_command(*dry)
        assert "\nparity holds" in run_command(*convert)
        sys.modules.pop("nets", None)
    return folder


def test_the_commands_are_these() -> None:
    names = ["convert", "convert", "verify", "restore", "export", "inspect", "convert"]
    assert [command[0] for command in COMMANDS] == names
    assert "--dry-run" in COMMANDS[0]


def test_verify(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    command = COMMANDS[2]
    assert command[-2:] == ["--device", "metal"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == (0 if mx.metal.is_available() else DeviceError.exit_code)
    assert "\nparity holds" in run_command(*command[:-2])


def test_the_python_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    code = blocks("python")[2]
    exec(compile(code, "porting.md", "exec"), {})


def test_a_language_model_decodes_with_its_cache() -> None:
    import import_torchvision  # noqa: F401  # of tests/models, which is on the path

    pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    found: dict[str, Any] = {"mlxport": mlxport}
    exec(compile(blocks("python")[3], "porting.md", "exec"), found)
    assert found["result"].report.passed
    assert [layer.state[0].shape for layer in found["cache"]] == [(1, 4, 11, 8)] * 2


def test_trained_weights_go_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    model = mlxport.load("out")
    model.update(tree_map(lambda array: array + 0.5, model.parameters()))
    model.save_weights("tuned.safetensors")
    run_command(*COMMANDS[3])
    state = torch.load("tuned.pt")
    UNet3d(widths=(2, 4)).load_state_dict(state)
    before = torch.load("unet3d.pt")
    torch.testing.assert_close(state["head.bias"], before["head.bias"] + 0.5)


def test_the_report_is_read_and_the_model_asserted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    read, asserted, *_ = blocks("python")
    exec(compile(read, "porting.md", "exec"), {})
    assert "stem.0 in_place " in capsys.readouterr().out
    exec(compile(asserted, "porting.md", "exec"), {})
    sys.modules.pop("nets", None)


def test_a_port_by_hand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = Path(__file__).parents[1] / "benchmarks" / "unet_by_hand.py"
    (folder / "port.py").write_text(by_hand.read_text().replace("self.stem", "self.entry"))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for name in ("nets", "port"):
        sys.modules.pop(name, None)
    table = run_command(*COMMANDS[5])
    assert "entry.layers.0.weight (2, 3, 3, 3, 1)" in table
    assert "do not fit" not in table
    code = blocks("python")[4]
    found: dict[str, Any] = {}
    exec(compile(code, "porting.md", "exec"), found)
    run_command(*COMMANDS[6])
    written = mx.load("weights/weights.safetensors")
    held = dict(tree_flatten(found["model"].parameters()))
    assert {*written} == {*held}
    assert all(mx.array_equal(written[name], held[name]) for name in held)
    for name in ("nets", "port"):
        sys.modules.pop(name, None)
    judged = {entry.path: entry for entry in found["report"].entries if entry.verdicts}
    assert judged["stem.0"].target == "entry.layers.0"
    assert {entry.order for entry in judged.values()} == {(0, 2, 3, 4, 1)}


def test_model_py_alone(folder: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'mlxport')))\n"
        "import model; net = model.load()\n"
        "import pickle; assert type(pickle.loads(pickle.dumps(net))) is model.Model"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder / "out", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


LIBRARY = Path(next(iter(mlx.__path__)))
COMPILER = shutil.which("g++") or shutil.which("clang++")


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
@pytest.mark.skipif(not (LIBRARY / "include").is_dir(), reason="needs MLX's headers")
@pytest.mark.slow
def test_the_cpp_compiles_and_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert "bit-identical to model.py" in run_command(*COMMANDS[4], "--overwrite")
    (code,) = blocks("cpp")
    Path("main.cpp").write_text(code)
    flags = [f"-I{LIBRARY / 'include'}", f"-L{LIBRARY / 'lib'}", f"-Wl,-rpath,{LIBRARY / 'lib'}"]
    build = [str(COMPILER), "-std=c++20", "main.cpp", *flags, "-lmlx", "-o", "main"]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = subprocess.run(["./main"], capture_output=True, text=True, check=True).stdout
    *shape, total = printed.split()
    (scores,) = mx.import_function("unet3d.mlxfn")(mx.ones((1, 1, 16, 24, 20)))
    assert list(map(int, shape)) == list(scores.shape)
    assert float(total) == pytest.approx(float(mx.sum(scores)), rel=1e-4)
