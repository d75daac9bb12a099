"""An output folder is code: what runs it, what does not, and what it cannot make mlxport say."""

import importlib.util
import json
import os
import py_compile
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import mlxport
from mlxport.cli import main
from mlxport.converter import api
from mlxport.converter.errors import ConversionError

WAYS_TO_END = {
    "raises": "raise RuntimeError('it ran')",
    "exits": "import sys; sys.exit(0)",
    "ends the process": "import os; os._exit(0)",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(3, 2, 2, stride=2)).eval()
    torch.save(model.state_dict(), folder / "net.pt")
    mlxport.convert_checkpoint(folder / "net.pt", folder / "out", model=model, inputs=["1,2,8,8"])
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to be changed."""
    shutil.copytree(written, tmp_path / "copy")
    return tmp_path / "copy"


def append(file: Path, code: str) -> None:
    file.write_text(f"{file.read_text()}\n{code}\n")


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run mlxport in a process of its own."""
    words = [sys.executable, "-m", "mlxport.cli", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


NOT_RUNNING = {
    "convert --plan": ("convert", "net.pt", "--plan", "out/conversion.json", "-o", "two"),
    "inspect --plan": ("inspect", "net.pt", "--plan", "out"),
    "restore": ("restore", "out", "-o", "back.safetensors"),
    "report": ("report", "out", "-o", "page.html"),
    "verify --weights": ("verify", "out", "--weights"),
}


@pytest.mark.parametrize("code", WAYS_TO_END.values(), ids=WAYS_TO_END)
@pytest.mark.parametrize("arguments", NOT_RUNNING.values(), ids=NOT_RUNNING)
def test_what_need_not_run_the_model_does_not(
    arguments: tuple[str, ...], code: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "out/model.py").write_text(code)
    append(folder / "out/layers/__init__.py", code)
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output


def test_the_model_of_a_plan_runs_when_it_is_asked_for(folder: Path) -> None:
    def convert(target: str) -> mlxport.converter.tasks.result.Converted:
        return mlxport.convert_checkpoint(folder / "net.pt", folder / target, plan=folder / "out")

    model = convert("two").model
    assert model is not None
    assert model(mx.zeros((1, 2, 8, 8))).shape == (1, 2, 12, 12)
    (folder / "out/model.py").write_text("raise RuntimeError('it ran')")
    result = convert("three")
    with pytest.raises(ConversionError, match=r"three/model\.py cannot be imported: Runtime"):
        print(result.model)


PLACES = {
    "import": "{}",
    "load": "def load(folder): {}",
    "call": "Sequential.__call__ = lambda self, x: {}",
}


@pytest.mark.parametrize("verb", ["verify", "export"])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_an_exit_is_no_success(place: str, verb: str, folder: Path) -> None:
    append(folder / "out/model.py", place.format("__import__('sys').exit(0)"))
    more = ["-o", str(folder / "function.mlxfn")] if verb == "export" else []
    result = CliRunner().invoke(main, [verb, str(folder / "out"), *more])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "model.py ends the process (SystemExit: 0)" in result.stderr
    assert not (folder / "function.mlxfn").exists()


@pytest.mark.parametrize(("verb", "place"), [("verify", "call"), ("export", "import")])
def test_ending_the_process_is_no_success(place: str, verb: str, folder: Path) -> None:
    append(folder / "out/model.py", PLACES[place].format("__import__('os')._exit(0)"))
    more = ("-o", folder / "function.mlxfn") if verb == "export" else ()
    done = command(verb, folder / "out", *more)
    assert (done.returncode, done.stdout) == (1, "")
    assert "ended with exit status 0, before its answer was there" in done.stderr
    assert not (folder / "function.mlxfn").exists()


def test_a_verdict_stands_whatever_happens_at_exit(folder: Path) -> None:
    append(folder / "out/model.py", "import atexit, os\natexit.register(os._exit, 0)")
    with (folder / "out/weights.safetensors").open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\0\0\x80\x42")
    assert command("verify", folder / "out").returncode == 3


def test_the_exit_code_is_that_of_the_child(folder: Path) -> None:
    done = command("verify", folder / "out")
    assert (done.returncode, "\nparity holds" in done.stdout) == (0, True)
    assert command("verify", "--nonsense").returncode == 2


CALLS: dict[str, Callable[[Path], object]] = {
    "load": lambda folder: mlxport.load(folder, check_code=True),
    "verify_folder": lambda folder: api.verify_folder(folder, check_code=True),
    "export_function": lambda folder: api.export_function(
        folder, folder.parent / "f.mlxfn", check_code=True, overwrite=True
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_code_is_held_to_the_record_before_it_runs(
    call: Callable[[Path], object], folder: Path
) -> None:
    call(folder / "out")
    append(folder / "out/model.py", "raise RuntimeError('it ran')")
    with pytest.raises(ConversionError, match=r"was written:\n  differs     model\.py\nNothing"):
        call(folder / "out")


def test_library_calls_say_that_the_process_would_end(folder: Path) -> None:
    append(folder / "out/model.py", "raise SystemExit")
    for call in (mlxport.load, api.verify_folder):
        with pytest.raises(ConversionError, match=r"model\.py ends the process"):
            call(folder / "out")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a layer": (
        lambda out: append(out / "layers/conv/transpose.py", "# another"),
        "differs     layers/conv/transpose.py",
    ),
    "a layer is missing": (
        lambda out: (out / "layers/conv/transpose.py").unlink(),
        "missing     layers/conv/transpose.py",
    ),
    "a library of another name": (
        lambda out: (out / "json.py").write_text("raise RuntimeError"),
        "unexpected  json.py",
    ),
    "a binary that Python prefers": (
        lambda out: (out / "layers/conv/transpose.abi3.so").write_bytes(b""),
        "unexpected  layers/conv/transpose.abi3.so",
    ),
    "a package": (
        lambda out: shutil.copytree(out / "layers", out / "mlx"),
        "unexpected  mlx/__init__.py",
    ),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_every_change_of_code_is_seen(
    change: Callable[[Path], object], said: str, folder: Path
) -> None:
    change(folder / "out")
    with pytest.raises(ConversionError) as raised:
        mlxport.load(folder / "out", check_code=True)
    assert said in str(raised.value)


def test_compiled_code_beside_the_source_is_not_run(folder: Path) -> None:
    for source in (folder / "out/model.py", folder / "out/layers/conv/transpose.py"):
        other = folder / "other.py"
        text = "raise RuntimeError('the compiled file ran')"
        other.write_text(text + " " * (source.stat().st_size - len(text)))
        os.utime(other, (time.time(), source.stat().st_mtime))
        cache = importlib.util.cache_from_source(str(source))
        py_compile.compile(str(other), cfile=cache, doraise=True)
    mlxport.load(folder / "out", check_code=True)
    before = sorted(folder.rglob("*"))
    mlxport.load(folder / "out")
    assert sorted(folder.rglob("*")) == before


def test_a_record_without_digests_is_said_to_have_none(folder: Path) -> None:
    record = folder / "out/conversion.json"
    data = json.loads(record.read_text())
    assert {"model.py", "layers/__init__.py"} <= data["code"].keys()
    del data["code"]
    record.write_text(json.dumps(data))
    mlxport.load(folder / "out")
    with pytest.raises(ConversionError, match="no digests of the model's code: an older mlxport"):
        mlxport.load(folder / "out", check_code=True)
