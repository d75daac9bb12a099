"""The progress bar: by bytes, on stderr, and only where that is a terminal."""

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from mlxport.cli import main
from mlxport.converter import api
from mlxport.converter.api.display import progress_lines
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.progress import counted, listening
from mlxport.converter.timings import stage

CLI = [sys.executable, "-m", "mlxport.cli"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tensors = {f"{i}.weight": Tensor(np.ones((1000, 500), np.float32), "F32") for i in range(4)}
    write_safetensors(tmp_path / "x.safetensors", tensors)
    return tmp_path / "x.safetensors"


def on_a_terminal(command: list[str]) -> tuple[str, str]:
    """Run a command with a terminal for stderr; return what went to stdout and there."""
    ours, theirs = os.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=env)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 1 << 16):
            shown += part
    except OSError:  # Linux: the other side is closed
        pass
    out, _ = process.communicate()
    os.close(ours)
    assert process.returncode == 0, shown
    return out.decode(), shown.decode()


def test_a_terminal_is_shown_the_bytes(source: Path, tmp_path: Path) -> None:
    commands = {
        "convert": [*CLI, "convert", str(source), "-o", str(tmp_path / "out")],
        "restore": [*CLI, "restore", str(tmp_path / "out"), "-o", str(tmp_path / "y.safetensors")],
    }
    for name, command in commands.items():
        out, shown = on_a_terminal(command)
        assert "8.0/8.0 MB" in shown, name
        assert out == "", name


def test_a_terminal_is_shown_no_broken_word(source: Path, tmp_path: Path) -> None:
    command = [*CLI, "convert", str(source), "-o", str(tmp_path / "out"), "--layer", "*=Linear"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    note = next(line for line in done.stderr.splitlines() if line.startswith("Note: "))
    assert len(note) > 80  # a line of its own for programs
    _, shown = on_a_terminal([*command, "--overwrite"])
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown).replace("\r", "")
    first, second = (line.rstrip() for line in plain[plain.index("Note: ") :].split("\n")[:2])
    assert f"{first} {second.removeprefix('  ')}" == note
    assert max(len(first), len(second)) <= 80


def test_elsewhere_it_is_quiet(source: Path, tmp_path: Path) -> None:
    command = [*CLI, "convert", str(source), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "MB" not in done.stderr
    assert "\x1b" not in done.stderr


def test_all_shards_are_counted_as_one(source: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with listening(lambda done, total: told.append((done, total))):
        api.convert_checkpoint(source, tmp_path / "out", max_shard_size="5MB")
    assert told == [(i * 2_000_000, 8_000_000) for i in range(5)]


def test_nobody_has_to_listen() -> None:
    assert list(counted([("a", 1), ("b", 2)], {"a": 3, "b": 4})) == [("a", 1), ("b", 2)]


def test_elsewhere_each_stage_is_a_line(source: Path, tmp_path: Path) -> None:
    command = [*CLI, "convert", str(source), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    stages = [line.split(" s  ") for line in done.stderr.splitlines() if " s  " in line]
    assert "read" in [name for _, name in stages]
    times = [float(seconds) for seconds, _ in stages]
    assert times == sorted(times)
    assert all(before != after for before, after in pairwise(name for _, name in stages))


def test_parts_of_a_stage_and_its_second_half_are_no_lines() -> None:
    lines: list[str] = []
    with progress_lines(lines.append):
        with stage("one"), stage("part of one"):
            pass
        with stage("one"):
            pass
        with stage("two"):
            pass
    with stage("three"):  # nobody listens any more
        pass
    assert [line.split(" s  ")[1] for line in lines] == ["one", "two"]


WIDTHS = {None: None, "132": 132, "20": 80}  # below 80 nothing is laid out


@pytest.mark.parametrize(("columns", "width"), WIDTHS.items(), ids=map(str, WIDTHS))
def test_elsewhere_a_report_is_as_wide_as_asked(
    columns: str | None, width: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int | None, bool]] = []

    def summary(columns: int | None, *, color: bool, **shown: object) -> str:
        asked.append((columns, color))
        return ""

    report = SimpleNamespace(summary=summary, passed=True)
    monkeypatch.setattr(api, "verify_folder", lambda *args, **kwargs: report)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    result = CliRunner(env={"COLUMNS": columns}).invoke(main, ["verify", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert asked == [(width, False)]
