"""An output folder is a package: two of them in one process, one in an app, one installed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.errors import ConversionError, OptionsError

NETWORKS = {
    "one": nn.Sequential(nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(3, 2, 2, stride=2)),
    "two": nn.Sequential(nn.Linear(8, 4), nn.GELU(approximate="tanh"), nn.GroupNorm(1, 2)),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    for name, network in NETWORKS.items():
        torch.save(network.state_dict(), folder / f"{name}.pt")
        mlxport.convert_checkpoint(
            folder / f"{name}.pt",
            folder / name,
            model=network,
            inputs=["1,2,8,8"],
            package=f"net_{name}" if name == "one" else None,
        )
    return folder


def run(code: str, folder: Path, *flags: str) -> str:
    command = [sys.executable, *flags, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


BOTH = """
import sys
sys.modules.update(dict.fromkeys(("torch", "mlxport", "numpy")))
import mlx.core as mx
{imports}
x = mx.random.normal((1, 2, 8, 8))
assert first.load()(x).shape == (1, 2, 12, 12)
assert second.load()(x).shape == (1, 2, 8, 4)
assert isinstance(first.load(), first.Model)
assert "layers" not in sys.modules and "model" not in sys.modules
"""


@pytest.mark.parametrize(
    ("above", "imports"),
    {
        "beside one another": (".", "import one as first, two as second"),
        "in an app": ("app/nets", "from app.nets import one as first, two as second"),
    }.values(),
    ids=["beside one another", "in an app"],
)
def test_two_in_one_process(above: str, imports: str, written: Path, tmp_path: Path) -> None:
    for name in NETWORKS:
        shutil.copytree(written / name, tmp_path / above / name)
    run(BOTH.format(imports=imports), tmp_path)


@pytest.mark.parametrize("name", NETWORKS)
def test_from_within_its_folder(name: str, written: Path) -> None:
    run("import model; model.load()", written / name)


def test_no_layer_travels_that_is_not_called(written: Path) -> None:
    files = {p.relative_to(written / "two").as_posix() for p in (written / "two").rglob("*.py")}
    assert "layers/norm/functions.py" in files
    assert not any(file.startswith("layers/conv") for file in files)
    text = (written / "two/layers/norm/functions.py").read_text()
    assert "def group_norm" in text
    assert "def batch_norm" not in text


def test_pip_installs_it(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written / "one", tmp_path / "one")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    flags = ["--disable-pip-version-check", "--target", str(tmp_path / "site"), str(tmp_path)]
    flags[-1] += "/one"
    subprocess.run([*command, *flags], check=True, capture_output=True)
    code = "import net_one; print(type(net_one.load()).__name__, net_one.__file__)"
    name, file = run(f"import sys; sys.path.insert(0, 'site'); {code}", tmp_path).split()
    assert (name, file) == ("Sequential", str(tmp_path / "site/net_one/__init__.py"))
    assert (tmp_path / "site/net_one/py.typed").exists()
    assert not (tmp_path / "site/net_one/reference.safetensors").exists()
    # what the build leaves there is no code of the model's
    mlxport.load(tmp_path / "one", check_code=True)


def test_its_types_are_found(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written / "one", tmp_path / "net_one")
    (tmp_path / "app.py").write_text(
        "import mlx.core as mx\nfrom net_one import load\n\n\n"
        "def scores(x: mx.array) -> mx.array:\n    model = load()\n    return model(x)\n\n\n"
        "reveal_type(load())\n"
    )
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "app.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert 'Revealed type is "net_one.model.Sequential"' in done.stdout, done.stdout
    assert done.returncode == 0, done.stdout


def test_a_plan_gives_a_package_too(written: Path, tmp_path: Path) -> None:
    mlxport.convert_checkpoint(
        written / "two.pt", tmp_path / "three", plan=written / "two", package="net_three"
    )
    run("import three; three.load()", tmp_path)
    assert 'name = "net_three"' in (tmp_path / "three/pyproject.toml").read_text()


def test_a_plan_of_an_older_version_gives_none(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written / "two", tmp_path / "old")
    (tmp_path / "old/model.py").write_text('"""Old."""\n\nfrom layers.norm.modules import X\n')
    with pytest.raises(ConversionError, match="of an older mlxport and cannot be part of a pack"):
        mlxport.convert_checkpoint(
            written / "two.pt", tmp_path / "new", plan=tmp_path / "old", package="net"
        )


NAMES = {
    "no identifier": ("my-net", "expected the name of a Python package"),
    "a keyword": ("class", "expected the name of a Python package"),
    "not ASCII": ("größe", "expected the name of a Python package"),
    "the standard library's": ("json", "there is such a package already"),
    "MLX's": ("mlx", "there is such a package already"),
}


@pytest.mark.parametrize(("name", "message"), NAMES.values(), ids=NAMES)
def test_names_that_no_package_can_have(
    name: str, message: str, written: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionsError, match=message):
        mlxport.convert_checkpoint(
            written / "two.pt", tmp_path / "out", plan=written / "two", package=name
        )
    assert not (tmp_path / "out").exists()


def test_weights_alone_are_no_package(written: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="needs a model"):
        mlxport.convert_checkpoint(written / "two.pt", tmp_path / "out", package="net")


def test_the_record_has_the_digest_of_all_code(written: Path) -> None:
    for name in NETWORKS:
        recorded = json.loads((written / name / "conversion.json").read_text())["code"]
        found = {p.relative_to(written / name).as_posix() for p in (written / name).rglob("*.py")}
        assert {*recorded} == found
