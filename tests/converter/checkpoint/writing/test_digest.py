"""Digests of tensors, and of a checkpoint's files in the background."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import xxhash

from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.writing.digest import ALGORITHM, digest_of, digesting, examine
from mlxport.converter.checkpoint.writing.finite import is_finite
from mlxport.converter.plan.record import Digests
from mlxport.converter.plan.tensor import STORAGE, Tensor


@pytest.mark.parametrize("dtype", STORAGE)
def test_is_that_of_the_bytes_in_c_order(dtype, random_bits) -> None:
    tensor = random_bits(dtype, (30, 5, 40))
    turned = Tensor(np.moveaxis(tensor.bits, 0, -1), dtype)
    expected = xxhash.xxh3_128(np.ascontiguousarray(turned.bits).tobytes()).hexdigest()
    assert examine(turned) == (expected, is_finite(tensor))
    assert digest_of(tensor) != expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 99_999, 199_999])
def test_what_is_not_finite_is_found_in_any_block(value, place) -> None:
    bits = np.zeros(200_000, np.float32)
    assert examine(Tensor(bits, "F32"))[1]
    bits[place] = value
    assert not examine(Tensor(bits, "F32"))[1]


def test_the_record_names_the_algorithm() -> None:
    assert Digests().algorithm == ALGORITHM
    # so that another program can repeat it
    assert digest_of(Tensor(np.zeros(0, np.float32), "F32")) == "99aa06d3014798d86001c324468d497f"


def test_files_are_read_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(os.urandom(1_000_000))
    with digesting(Checkpoint(path, {}, {})) as digest:
        assert digest() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_failure_meanwhile_does_not_wait_for_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(1 << 42)  # hours to read
    with pytest.raises(ZeroDivisionError), digesting(Checkpoint(path, {}, {})):
        raise ZeroDivisionError
