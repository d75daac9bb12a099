"""A file that is being written appears whole or not at all."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlxport.converter.checkpoint.formats.safetensors import open_safetensors
from mlxport.converter.checkpoint.writing.atomic import atomic_file
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.plan.tensor import Tensor, TensorSpec

SPECS = {"a": TensorSpec("F32", (1,)), "b": TensorSpec("F32", (1,))}


def number(value: float) -> Tensor:
    return Tensor(np.array([value], np.float32), "F32")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_midway_leaves_what_was_there(error, tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"old": number(1)})
    before = path.read_bytes()

    def produce():
        yield "a", number(1)
        raise error

    with pytest.raises(error):
        write_safetensors(path, produce(), specs=SPECS)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from mlxport.converter.plan.tensor import TensorSpec
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.plan.tensor import Tensor
def produce():
    yield "a", Tensor(np.zeros(1 << 20, np.float32), "F32")
    print("midway", flush=True)
    time.sleep(60)
spec = TensorSpec("F32", (1 << 20,))
write_safetensors(Path(sys.argv[1]), produce(), specs={"a": spec, "b": spec})
"""


def test_a_kill_midway_leaves_what_was_there(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"old": number(1)})
    before = path.read_bytes()
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=-1, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "midway\n"
        run.send_signal(signal.SIGKILL)
    assert path.read_bytes() == before
    # and a leftover under a hidden name does not stand in the way of the next
    write_safetensors(path, {"new": number(2)})
    assert list(open_safetensors(path).tensors) == ["new"]


def test_a_reader_of_the_old_file_keeps_it(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": number(1)})
    old = open_safetensors(path).tensors["a"]
    write_safetensors(path, {"a": number(2)})
    assert (old.bits.tolist(), open_safetensors(path).tensors["a"].bits.tolist()) == ([1], [2])


def test_a_file_can_be_rewritten_from_itself(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": Tensor(np.arange(6, dtype=np.float32).reshape(2, 3), "F32")})
    lazy = open_safetensors(path).tensors
    write_safetensors(path, {"a": lazy["a"].with_bits(lazy["a"].bits.T)})
    assert open_safetensors(path).tensors["a"].bits.tolist() == [[0, 3], [1, 4], [2, 5]]


def test_the_file_has_the_users_permissions(tmp_path) -> None:
    (tmp_path / "plain").touch()
    write_safetensors(tmp_path / "x.safetensors", {})
    modes = {file.stat().st_mode for file in tmp_path.iterdir()}
    assert len(modes) == 1


def test_the_content_is_on_disk_before_the_name(tmp_path, monkeypatch) -> None:
    done: list[str] = []
    for call in ("fsync", "replace"):
        original = getattr(os, call)

        def record(*args, call=call, original=original):
            done.append(call)
            return original(*args)

        monkeypatch.setattr(os, call, record)
    write_safetensors(tmp_path / "x.safetensors", {"a": number(1)})
    assert done == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize("served", [True, False], ids=["served", "not served"])
def test_on_a_mac_the_drive_is_flushed_too(
    served: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the file system has no F_FULLFSYNC, fsync is all there is."""
    done: list[str] = []

    def control(descriptor: int, command: int) -> int:
        assert command == 51
        if not served:
            raise OSError("not supported")
        done.append("full")
        return 0

    fsync = os.fsync
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("fcntl.F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr("fcntl.fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("fsync"), fsync(file)))
    with atomic_file(tmp_path / "x") as file:
        file.write(b"x")
    assert done == [("full" if served else "fsync")] * 2  # the file and its folder


def test_what_nobody_writes_any_more_is_swept_and_what_is_written_stays(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    with atomic_file(path) as file:
        (abandoned,) = tmp_path.iterdir()
        name = abandoned.name
        left = tmp_path / re.sub(r"[0-9a-f]{8}(?=\.[^.]*$)", "0" * 8, name)
        assert left != abandoned
        left.write_bytes(b"half")
        unrelated = tmp_path / f"other{name}"
        unrelated.write_bytes(b"somebody's")
        write_safetensors(path, {"a": number(1)})
        assert not left.exists()
        assert abandoned.exists()  # whose writer lives
        assert unrelated.exists()
        file.write(b"whole")
    assert path.read_bytes() == b"whole"
