"""Damaged files end in an error that says so: never another exception, never half an output."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mlxport.converter import api
from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.errors import ConversionError

ENDINGS = ("safetensors", "pt", "legacy.pt", "pkl", "index.json", "objects.pt")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of one checkpoint in every format, and those of its shard."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    state = torch.nn.Linear(5, 3).state_dict()
    save_file(state, folder / "x.safetensors")
    torch.save(state, folder / "x.pt")
    torch.save(state, folder / "x.legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"net": state, "dice": np.float64(0.5)}, folder / "x.objects.pt")
    (folder / "x.pkl").write_bytes(pickle.dumps(state))
    weight_map = dict.fromkeys(state, "shard.safetensors")
    (folder / "x.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return {ending: (folder / f"x.{ending}").read_bytes() for ending in ENDINGS}


def read_or_refuse(folder: Path, ending: str, data: bytes, shard: bytes) -> bool:
    """Read all there is in a damaged file; True where it was refused as it should be."""
    path = folder / f"x.{ending}"
    path.write_bytes(data)
    (folder / "shard.safetensors").write_bytes(shard)
    out = folder / "out"
    try:
        checkpoint = open_checkpoint(path)
        total = sum(float(np.nansum(t.bits.astype("f8"))) for t in checkpoint.tensors.values())
        assert isinstance(total, float)
        return False
    except ConversionError:
        pass
    with pytest.raises(ConversionError):
        api.convert_checkpoint(path, out)
    left = {entry.name for entry in folder.iterdir()}
    assert left == {path.name, "shard.safetensors"}
    return True


@pytest.mark.parametrize("ending", ENDINGS)
def test_cut_short(ending: str, whole: dict[str, bytes], tmp_path: Path) -> None:
    data = whole[ending]
    # the last bytes of a JSON text may be a newline; of the others every one counts
    for length in sorted({*range(0, len(data) - 1, max(1, len(data) // 25)), len(data) - 1}):
        assert read_or_refuse(tmp_path, ending, data[:length], whole["safetensors"]), length


@settings(max_examples=60)
@given(
    ending=st.sampled_from(ENDINGS),
    damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_other_bytes(
    ending: str,
    damage: list[tuple[float, int]],
    whole: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    data = bytearray(whole[ending])
    for place, value in damage:
        data[int(place * (len(data) - 1))] = value
    folder = tmp_path_factory.mktemp("damaged")
    read_or_refuse(folder, ending, bytes(data), whole["safetensors"])


@settings(max_examples=40)
@given(st.binary(max_size=200), st.sampled_from(ENDINGS))
def test_anything_at_all(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, ending: str
) -> None:
    folder = tmp_path_factory.mktemp("anything")
    assert read_or_refuse(folder, ending, data, b"")


@pytest.mark.parametrize("length", [0, 7, 8, 100])
def test_a_shard_cut_short(length: int, whole: dict[str, bytes], tmp_path: Path) -> None:
    shard = whole["safetensors"][:length]
    assert read_or_refuse(tmp_path, "index.json", whole["index.json"], shard)
