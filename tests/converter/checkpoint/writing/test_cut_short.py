"""A source that becomes shorter while it is read is named, and nothing is written."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.nn as nn
import numpy as np
import pytest
import torch

from mlxport.converter import api
from mlxport.converter.checkpoint.formats import mapped
from mlxport.converter.checkpoint.formats import open_checkpoint as opening
from mlxport.converter.checkpoint.writing import blocks as blocks_of
from mlxport.converter.checkpoint.writing import convert_streaming
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.errors import CheckpointError
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.plan.weight_plan import Entry, WeightPlan

WEIGHT = np.arange(1 << 16, dtype=np.float32).reshape(16, 16, 256)
KEYS = [f"{number}.weight" for number in range(8)]


def _safetensors(folder: Path) -> Path:
    write_safetensors(folder / "x.safetensors", dict.fromkeys(KEYS, Tensor(WEIGHT, "F32")))
    return folder / "x.safetensors"


def _torch(folder: Path) -> Path:
    torch.save({key: torch.from_numpy(WEIGHT.copy()) for key in KEYS}, folder / "x.pt")
    return folder / "x.pt"


MAKERS: dict[str, Callable[[Path], Path]] = {"safetensors": _safetensors, "torch.save": _torch}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("after", [0, 3, len(KEYS) - 1])
@pytest.mark.parametrize("left", [-100, 4000], ids=["the last page", "a beginning"])
def test_a_source_cut_short_is_named(
    make: Callable[[Path], Path],
    after: int,
    left: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = make(tmp_path)
    size, seen = source.stat().st_size, []
    examine = convert_streaming.examine

    def shortening(tensor: Tensor, *check: Any) -> tuple[str, bool]:
        found = examine(tensor, *check)
        seen.append(found)
        if len(seen) == after + 1:
            os.truncate(source, left if left > 0 else size + left)
        return found

    monkeypatch.setattr(convert_streaming, "examine", shortening)
    with pytest.raises(CheckpointError, match=rf"{source.name}: cut short while it was read"):
        api.convert_checkpoint(source, tmp_path / "out", layers=["*=Conv"])
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_files_are_asked_for_before_much_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert_streaming, "CHECKED", WEIGHT.nbytes)
    source, seen = _safetensors(tmp_path), []
    examine = convert_streaming.examine

    def shortening(tensor: Tensor, *_: Any) -> tuple[str, bool]:
        seen.append(tensor)
        os.truncate(source, 100)
        return examine(Tensor(WEIGHT, "F32"))

    monkeypatch.setattr(convert_streaming, "examine", shortening)
    checkpoint = opening.open_checkpoint(source)
    plan = WeightPlan(tuple(Entry((key,), (key,)) for key in KEYS))
    with pytest.raises(CheckpointError, match="cut short while it was read: 100 bytes"):
        convert_streaming.stream_weights(tmp_path, plan, checkpoint)
    assert len(seen) == 1


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("task", ["convert_checkpoint", "restore"])
def test_one_large_tensor_cut_short_is_named(
    make: Callable[[Path], Path], task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is mapped is asked for again within a tensor, too."""
    block, size = 1 << 16, WEIGHT.nbytes
    monkeypatch.setattr(blocks_of, "CHECKED", block)
    monkeypatch.setattr(blocks_of, "BLOCK", block)
    monkeypatch.setattr(mapped, "_LARGEST", 0)
    source = make(tmp_path)
    if task == "restore":
        api.convert_checkpoint(source, tmp_path / "out", layers=["*=Conv"])
        source = tmp_path / "out/weights.safetensors"
    before = {path.name for path in tmp_path.iterdir()}
    real, read = blocks_of._blocks, []

    def shortening(bits: Any, *size: int) -> Iterator[Any]:
        for part in real(bits, block):
            read.append(part.nbytes)
            if len(read) == 2:  # two more of this tensor are to come
                os.truncate(source, 3 * block)
            yield part

    monkeypatch.setattr(blocks_of, "_blocks", shortening)
    with pytest.raises(CheckpointError, match=rf"{source.name}: cut short while it was read"):
        TASKS[task][0](tmp_path)
    assert sum(read) < size
    assert {path.name for path in tmp_path.iterdir()} == before


def _written_to(source: Path) -> None:
    whole = bytearray(source.read_bytes())
    whole[-1] ^= 1
    with source.open("r+b") as file:
        file.write(whole)


def _replaced(source: Path) -> None:
    other = source.with_name(".other")
    other.write_bytes(source.read_bytes())
    other.replace(source)


def _longer(source: Path) -> None:
    with source.open("ab") as file:
        file.write(b"more")


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "in place": (_written_to, "it was written to"),
    "by another": (_replaced, "another file has taken its place"),
    "at its end": (_longer, "it was written to"),
}


SOURCE, WEIGHTS = "x.safetensors", "out/weights.safetensors"
# What is done, and the file that it reads.
TASKS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "convert_checkpoint": (
        lambda folder: api.convert_checkpoint(
            next(folder.glob("x.*")), folder / "new", layers=["*=Conv"]
        ),
        SOURCE,
    ),
    "by a plan": (
        lambda folder: api.convert_checkpoint(folder / SOURCE, folder / "new", plan=folder / "out"),
        SOURCE,
    ),
    "convert_state_dict": (
        lambda folder: api.convert_state_dict(folder / SOURCE, folder / "out"),
        SOURCE,
    ),
    "load_weights": (lambda folder: api.load_weights(Several(), folder / SOURCE), SOURCE),
    "restore": (lambda folder: api.restore(folder / "out", folder / "new.safetensors"), WEIGHTS),
    "restore as .pt": (lambda folder: api.restore(folder / "out", folder / "new.pt"), WEIGHTS),
}


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for key in KEYS:
            setattr(self, key.removesuffix(".weight"), nn.Conv1d(16, 16, 256, bias=False))

    def load_weights(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("weights are loaded that are half of before")


@pytest.mark.parametrize(("change", "why"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize(("task", "file"), TASKS.values(), ids=TASKS)
def test_a_source_that_changes_while_it_is_read_is_refused(
    task: Callable[[Path], Any],
    file: str,
    change: Callable[[Path], None],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Training that saves to the same file: some tensors would be of before, some of after."""
    api.convert_checkpoint(_safetensors(tmp_path), tmp_path / "out", layers=["*=Conv"])
    before = {path.name for path in tmp_path.iterdir()}
    apply, invert, seen = Entry.apply, Entry.invert, []

    def changing(step: Callable[..., Any]) -> Callable[..., Any]:
        def taken(entry: Entry, tensors: Any) -> Any:
            seen.append(entry)
            if len(seen) == 4:
                change(tmp_path / file)
            return step(entry, tensors)

        return taken

    monkeypatch.setattr(Entry, "apply", changing(apply))
    monkeypatch.setattr(Entry, "invert", changing(invert))
    message = rf"{Path(file).name}: changed while it was read: {why}"
    with pytest.raises(CheckpointError, match=message):
        task(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_source_that_grows_or_goes_is_read_as_it_was(tmp_path: Path) -> None:
    checkpoint = opening.open_checkpoint(_safetensors(tmp_path))
    with checkpoint.path.open("ab") as file:
        file.write(b"more")
    checkpoint.check_whole()
    checkpoint.path.unlink()
    checkpoint.check_whole()
