"""A conversion that is killed or finds the disk full leaves its destination as it was."""

import hashlib
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mlxport.converter import api
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.plan.tensor import Tensor

SHARDS = 4
NBYTES = 4 << 20
CLI = [sys.executable, "-m", "mlxport.cli"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "x.safetensors"
    weight = Tensor(np.random.rand(NBYTES // 4 // 1024, 16, 64).astype(np.float32), "F32")
    write_safetensors(path, {f"{i}.weight": weight for i in range(SHARDS)})
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output that stands there already."""
    write_safetensors(tmp_path / "old.safetensors", {"a": Tensor(np.ones(3, np.float32), "F32")})
    api.convert_checkpoint(tmp_path / "old.safetensors", tmp_path / "out")
    return tmp_path / "out"


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def arguments(source: Path, out: Path) -> list[str]:
    options = ["--layer", "*=Conv", "--max-shard-size", str(NBYTES), "--overwrite"]
    return ["convert", str(source), "-o", str(out), *options]


# Slowed down, so that there is time to kill it where it is meant to be.
SLOWLY = """
import sys, time
from mlxport.converter.checkpoint.writing import safetensors as write
from mlxport.converter.checkpoint.writing.blocks import blocks
def slowly(bits, check):
    for block in blocks(bits, 1 << 18, check):
        time.sleep(0.02)
        yield block
write.blocks = slowly
from mlxport.cli import main
main(sys.argv[1:])
"""
STAGES = {
    "as the folder is made": lambda folder: True,
    "in the first shard": lambda folder: any(folder.glob(".weights-00001*")),
    "in the third shard": lambda folder: (folder / "weights-00002-of-00004.safetensors").exists(),
    "before the record": lambda folder: (folder / "weights.safetensors.index.json").exists(),
}


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_a_kill_leaves_the_output_as_it_was(stage, source: Path, out: Path) -> None:
    before = contents(out)
    command = [sys.executable, "-c", SLOWLY, *arguments(source, out)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not any(map(stage, out.parent.glob(".out.*.mlxport-partial"))):
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert contents(out) == before
    assert api.verify_weights(out).passed
    # and the next one is not in its way
    subprocess.run([*CLI, *arguments(source, out)], check=True, capture_output=True)
    assert len([*out.glob("weights-*.safetensors")]) == SHARDS
    assert api.verify_weights(out).passed


@pytest.mark.parametrize("limit", [0, 100, NBYTES // 2, NBYTES])
def test_a_full_disk_leaves_the_output_as_it_was(limit: int, source: Path, out: Path) -> None:
    before = contents(out)

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [*CLI, *arguments(source, out)], preexec_fn=full, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "\nError: " in f"\n{done.stderr}"  # after the stages, where it takes seconds
    assert "cannot be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(out) == before
    assert {path.name for path in out.parent.iterdir()} == {"out", "old.safetensors"}


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_a_full_disk_leaves_no_half_of_a_restored_file(ending, source: Path, tmp_path) -> None:
    subprocess.run([*CLI, *arguments(source, tmp_path / "out")], check=True, capture_output=True)
    back = tmp_path / f"back.{ending}"
    back.write_bytes(b"old")

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (NBYTES, NBYTES))

    command = [*CLI, "restore", str(tmp_path / "out"), "-o", str(back), "--overwrite"]
    done = subprocess.run(command, preexec_fn=full, capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert back.read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"out", back.name}
