"""The wheel holds the package, the whole package and nothing else."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGED = (
    "converter",
    "layers",
    "examples",
    "testing",
)  # the root's folders that belong to the package
VAGUE = re.compile(r"^(utils?|helpers?|managers?|misc|common)$")


def python_files() -> list[Path]:
    below = [path for folder in PACKAGED for path in (ROOT / folder).rglob("*.py")]
    return sorted([*ROOT.glob("*.py"), *below])


def dotted(folder: Path) -> str:
    return ".".join(["mlxport", *folder.relative_to(ROOT).parts])


def test_the_package_list_names_every_folder_that_holds_python() -> None:
    on_disk = {dotted(path.parent) for path in python_files()}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == on_disk


def test_every_package_has_an_init() -> None:
    folders = {path.parent for path in python_files()}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_the_root_holds_no_module_but_the_public_ones() -> None:
    # Every *.py at the root is shipped, a scratch file too.
    assert {path.stem for path in ROOT.glob("*.py")} <= {"__init__", "__main__", "cli"}


def test_the_entry_point_is_there() -> None:
    assert PROJECT["project"]["scripts"] == {"mlxport": "mlxport.cli:run"}
    tree = ast.parse((ROOT / "cli.py").read_text())
    assert "main" in {getattr(node, "name", None) for node in tree.body}


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_named_for_what_it_does(path: Path) -> None:
    assert not [part for part in path.relative_to(ROOT).with_suffix("").parts if VAGUE.match(part)]


def test_test_folders_have_no_init() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


# file -> the extra whose packages it imports, inside of functions
EXTRAS = {
    "converter/torch_model/hub.py": "hub",
    "converter/tasks/generation/carried_tokenizer.py": "generate",
}


def required(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_nothing_that_is_not_declared(path: Path) -> None:
    declared = required(PROJECT["project"]["dependencies"])
    if path.is_relative_to(ROOT / "examples"):
        declared |= required(PROJECT["project"]["optional-dependencies"]["models"])
        declared |= {"PIL"}  # pillow, of the extra `demo`
    if extra := EXTRAS.get(path.relative_to(ROOT).as_posix()):
        declared |= required(PROJECT["project"]["optional-dependencies"][extra])
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    assert imported - declared - sys.stdlib_module_names - {"mlxport"} == set()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy: in place, setuptools would leave and reuse its own folders."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    passed_over = shutil.ignore_patterns(".*", "build", "dist", "out", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=passed_over)
    command = [sys.executable, "-m", "pip", "wheel", str(source), "--wheel-dir", str(folder)]
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_exactly_the_package(wheel: zipfile.ZipFile) -> None:
    release = PROJECT_VERSION
    metadata = {n for n in wheel.namelist() if n.startswith(f"mlxport-{release}.dist-info/")}
    sources = {f"mlxport/{path.relative_to(ROOT).as_posix()}" for path in python_files()}
    assert set(wheel.namelist()) - metadata == sources | {"mlxport/py.typed"}


def test_the_wheel_carries_the_licence(wheel: zipfile.ZipFile) -> None:
    assert f"mlxport-{PROJECT_VERSION}.dist-info/licenses/LICENSE" in wheel.namelist()


def written_version() -> str:
    for node in ast.parse((ROOT / "__init__.py").read_text()).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__version__")], value=ast.Constant(value=str(v))):
                return v
    raise AssertionError("__init__.py assigns no __version__")


PROJECT_VERSION = written_version()


def test_the_installed_version_is_the_written_one() -> None:
    assert version("mlxport") == PROJECT_VERSION


def test_importing_the_package_loads_neither_framework() -> None:
    code = "import sys, mlxport; print(sorted({'torch', 'mlx', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_resolves() -> None:
    import mlxport

    assert {name: hasattr(mlxport, name) for name in mlxport.__all__} == dict.fromkeys(
        mlxport.__all__, True
    )


def test_an_unknown_name_is_an_attribute_error() -> None:
    import mlxport

    with pytest.raises(AttributeError, match="has no attribute 'helper'"):
        _ = mlxport.helper
