"""What processes leave that are ended, and several that write to one place."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mlxport.converter.api import convert_checkpoint, verify_weights
from mlxport.converter.checkpoint.writing.atomic import MARK, atomic_file, reserved, sibling
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.errors import CheckpointError, ConversionError, OptionsError
from mlxport.converter.output.whole_folder import OutputFolder
from mlxport.converter.plan.tensor import Tensor

HOLDING = """
import sys, time
from pathlib import Path
from mlxport.converter.checkpoint.writing.atomic import reserved
from mlxport.converter.signals import ending_cleanly
with ending_cleanly(), reserved(Path(sys.argv[1]), folder=sys.argv[2] == "folder") as path:
    (path / "file" if path.is_dir() else path).write_text("half")
    print(path, flush=True)
    time.sleep(60)
"""


Start = Callable[[Path, str], tuple[subprocess.Popen[str], Path]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process that writes to a path without an end; return it and what it writes."""
    running = []

    def run(path: Path, kind: str) -> tuple[subprocess.Popen[str], Path]:
        command = [sys.executable, "-c", HOLDING, str(path), kind]
        running.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        )
        assert running[-1].stdout is not None
        return running[-1], Path(running[-1].stdout.readline().rstrip())

    yield run
    for process in running:
        process.kill()
        process.communicate()


def write(path: Path, kind: str) -> None:
    if kind == "folder":
        with OutputFolder(path) as folder:
            (folder / "conversion.json").write_text("{}")
    else:
        with atomic_file(path) as file:
            file.write(b"whole")


@pytest.mark.parametrize("kind", ["folder", "file"])
@pytest.mark.parametrize("name", ["out", "a.b [c]*", "o" * 255, "層" * 85])
def test_what_a_killed_process_left_is_swept_and_no_more(
    start: Start, kind: str, name: str, tmp_path: Path
) -> None:
    path, other = tmp_path / name, tmp_path / "other"
    killed, left = start(path, kind)
    living, kept = start(path, kind)
    elsewhere, of_others = start(other, kind)
    killed.kill(), elsewhere.kill()
    killed.wait(), elsewhere.wait()
    alike = [sibling(path, "partial"), tmp_path / f".{MARK}"]
    for file in alike:
        file.write_text("the user's")
    write(path, kind)
    assert path.exists()
    assert not left.exists()
    assert all(file.exists() for file in (kept, of_others, *alike))
    living.send_signal(signal.SIGTERM)
    assert living.wait() == -signal.SIGTERM
    assert not kept.exists()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_cleans_up(start: Start, name: str, tmp_path: Path) -> None:
    number = signal.Signals[name]
    before = signal.getsignal(number)
    if before is signal.SIG_IGN:  # the tests run under nohup
        signal.signal(number, signal.SIG_DFL)
    try:
        process, path = start(tmp_path / "out", "folder")
    finally:
        signal.signal(number, before)
    process.send_signal(number)
    assert process.wait() in (-number, 1)
    assert not path.exists()


def test_an_ignored_signal_stays_ignored(start: Start, tmp_path: Path) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does; children inherit it
    try:
        process, path = start(tmp_path / "out", "folder")
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.1)
    assert process.poll() is None
    process.terminate()
    process.wait()
    assert not path.exists()


def test_the_second_of_two_that_write_at_once_is_refused(tmp_path: Path) -> None:
    def write_both() -> None:
        with OutputFolder(tmp_path / "out") as one:
            (one / "conversion.json").write_text("slow")
            with OutputFolder(tmp_path / "out") as two:
                (two / "conversion.json").write_text("quick")

    with pytest.raises(OptionsError, match="exists already"):
        write_both()
    assert (tmp_path / "out/conversion.json").read_text() == "quick"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


CONVERT = """
import sys
from pathlib import Path
from mlxport.cli import run
run()
"""


def test_conversions_to_one_place_at_once_end_with_one_whole(
    tmp_path: Path,
) -> None:
    sources = []
    for number in range(2):
        weight = Tensor(np.full((4, 3, 3), number, np.float32), "F32")
        sources.append(tmp_path / f"{number}.safetensors")
        write_safetensors(sources[-1], {f"{i}.bias": weight for i in range(20)})
    out = tmp_path / "new/out"
    command = [sys.executable, "-c", CONVERT, "convert", "-o", str(out), "--overwrite"]
    options = ["--layer", "*=Linear"]
    running = [
        subprocess.Popen([*command, str(s), *options], stderr=subprocess.PIPE, text=True)
        for s in sources
    ]
    said = [process.communicate()[1] for process in running]
    codes = [process.returncode for process in running]
    assert 0 in codes, said
    assert set(codes) <= {0, 1}, said
    assert not any("Traceback" in text for text in said)
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, "verify", str(out), "--weights"], check=False
    )
    assert done.returncode == 0
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_threads_that_convert_to_one_place_end_with_one_whole(
    overwrite: bool, tmp_path: Path
) -> None:
    source = tmp_path / "x.safetensors"
    weight = Tensor(np.ones((64, 64), np.float32), "F32")
    write_safetensors(source, {f"{number}.bias": weight for number in range(20)})
    out = tmp_path / "new/out"

    def converts(_: int) -> str:
        try:
            convert_checkpoint(source, out, layers=["*=Linear"], overwrite=overwrite)
        except ConversionError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(4) as threads:
        said = [*threads.map(converts, range(8))]
    assert "" in said
    assert all("out" in text for text in said if text)
    assert overwrite or said.count("") == 1
    assert verify_weights(out).passed
    assert [path.name for path in out.parent.iterdir()] == ["out"]


FULL = {28: "No space left on device", 27: "File too large", 122: "Disk quota exceeded"}


@pytest.mark.parametrize("number", FULL)
def test_a_full_disk_is_said_of_the_folder(number: int, tmp_path: Path) -> None:
    with (
        pytest.raises(CheckpointError, match=rf"out cannot be written: {os.strerror(number)}"),
        OutputFolder(tmp_path / "out"),
    ):
        raise OSError(number, os.strerror(number))
    with pytest.raises(OSError, match="no such"), OutputFolder(tmp_path / "out"):
        raise OSError(2, "no such file of the source", "elsewhere")
    assert not [*tmp_path.iterdir()]


def test_a_reservation_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    lock, swept = fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        if not swept:
            swept.extend(tmp_path.iterdir())
            swept[0].unlink()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with reserved(tmp_path / "out") as path:
        assert path.exists()
        assert path not in swept
