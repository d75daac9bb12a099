"""A source that becomes shorter while it is read is named, and nothing is written."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mlxport.converter import api
from mlxport.converter.checkpoint.formats import open_checkpoint as opening
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

    def shortening(tensor: Tensor) -> tuple[str, bool]:
        found = examine(tensor)
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
    monkeypatch.setattr(convert_streaming, "_CHECKED", WEIGHT.nbytes)
    source, seen = _safetensors(tmp_path), []
    examine = convert_streaming.examine

    def shortening(tensor: Tensor) -> tuple[str, bool]:
        seen.append(tensor)
        os.truncate(source, 100)
        return examine(Tensor(WEIGHT, "F32"))

    monkeypatch.setattr(convert_streaming, "examine", shortening)
    checkpoint = opening.open_checkpoint(source)
    plan = WeightPlan(tuple(Entry((key,), (key,)) for key in KEYS))
    with pytest.raises(CheckpointError, match="cut short while it was read: 100 bytes"):
        convert_streaming.stream_weights(tmp_path, plan, checkpoint)
    assert len(seen) == 1


def test_a_source_that_grows_or_goes_is_read_as_it_was(tmp_path: Path) -> None:
    checkpoint = opening.open_checkpoint(_safetensors(tmp_path))
    with checkpoint.path.open("ab") as file:
        file.write(b"more")
    checkpoint.check_whole()
    checkpoint.path.unlink()
    checkpoint.check_whole()
