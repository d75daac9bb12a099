"""Errors that list problems are whole where they can be read, and bounded where not."""

import numpy as np
import pytest

from mlxport import inspect
from mlxport.converter.checkpoint.formats.safetensors_header import LENGTH_BYTES
from mlxport.converter.errors import CheckpointError, ConversionError, StateDictError


def test_all_problems_stand_in_one_error():
    error = StateDictError.listing("wrong:", (f"a{i}" for i in range(150)), "Mend it.")
    assert isinstance(error, StateDictError)
    assert str(error).split("\n") == ["wrong:", *(f"  a{i}" for i in range(150)), "Mend it."]


@pytest.mark.parametrize("count", [199, 200, 201])
def test_the_first_200_problems_are_listed(count):
    lines = str(StateDictError.listing("wrong:", ["a"] * count, "Mend it.")).split("\n")
    assert lines[1:-1] == ["  a"] * min(count, 200) + ["  and 1 more"] * (count > 200)


@pytest.mark.parametrize(("count", "length"), [(200_000, 30), (1, 10**6), (10_000, 10_000)])
def test_a_message_is_bounded(count, length):
    error = ConversionError.listing("wrong:", ["x" * length] * count, "Mend it.")
    assert len(str(error)) < 250_000
    assert str(error).endswith("Mend it.")
    if count > 200:
        assert f"  and {count - 200} more\n" in str(error)


def test_a_file_with_many_bad_entries_gives_a_short_error(tmp_path):
    entries = ",".join(
        f'"{i}":{{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}' for i in range(50_000)
    )
    header = f"{{{entries}}}".encode()
    length = len(header).to_bytes(LENGTH_BYTES, "little")
    (tmp_path / "x.safetensors").write_bytes(length + header + bytes(np.zeros(1, np.float32)))
    with pytest.raises(CheckpointError) as caught:
        inspect(tmp_path / "x.safetensors")
    assert len(str(caught.value)) < 250_000
