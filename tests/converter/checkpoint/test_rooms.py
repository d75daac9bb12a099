"""What the files of this room may load, and what they may not call."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROOM = "mlxport.converter.checkpoint"
TORCH_FREE = ["checkpoint"]
TORCH_FREE += [
    f"formats.{name}"
    for name in ("in_memory", "index", "mapped", "open_checkpoint", "recognise", "safetensors")
]
TORCH_FREE += [f"keys.{name}" for name in ("bind", "folds", "infer_layout", "match", "rename")]
TORCH_FREE += [
    f"writing.{name}"
    for name in ("atomic", "blocks", "convert_streaming", "digest", "finite", "safetensors")
]
SOURCES = sorted(
    path
    for folder in ("converter", "layers", "examples", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("module", TORCH_FREE)
def test_loads_neither_torch_nor_mlx(module) -> None:
    code = f"import sys, {ROOM}.{module}; print(sorted({{'torch', 'mlx'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_safetensors_file_is_read_without_torch(write_raw) -> None:
    path = write_raw(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"\7")
    code = f"""
import sys
sys.modules["torch"] = None  # importing it would fail
from {ROOM}.formats.open_checkpoint import open_checkpoint
print(open_checkpoint({str(path)!r}).tensors["a"].bits.tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[7]"


def corrupting_calls(source: str) -> list[str]:
    """Find imports of ``safetensors.numpy``: it writes a transposed array's buffer as it lies."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            found.append(ast.unparse(node))
    return [name for name in found if f"{name}.".startswith("safetensors.numpy.")]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_writes_with_safetensors_numpy(path) -> None:
    assert corrupting_calls(path.read_text()) == []


FORBIDDEN = [
    "from safetensors.numpy import save_file",
    "import safetensors.numpy as st",
    "from safetensors import numpy",
    "import safetensors\nsafetensors.numpy.save({}, 'x')",
]


@pytest.mark.parametrize("source", FORBIDDEN)
def test_the_checker_sees_it(source) -> None:
    assert corrupting_calls(source)


@pytest.mark.parametrize("source", ["from safetensors import safe_open", "import numpy"])
def test_the_checker_lets_the_rest_pass(source) -> None:
    assert corrupting_calls(source) == []


def test_torch_load_is_called_in_one_way_only() -> None:
    calls = {
        path.name: ast.unparse(node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "pickle.load")
    }
    assert set(calls) == {"torch_file.py", "inert_pickle.py"}
    assert "weights_only=True" in calls["torch_file.py"]
    assert "pickle_module=module" in calls["inert_pickle.py"]
