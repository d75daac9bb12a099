"""Arrays in memory up to some bytes, then in a file."""

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mlxport.converter.parity.reference.record_reference import record_reference
from mlxport.converter.parity.reference.spill import SpillFile

LARGE = 70_000  # values of any dtype that are large enough


@pytest.fixture
def spill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SpillFile:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return SpillFile(in_memory=0)


def _mapped(array: np.ndarray) -> bool:
    base = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return isinstance(base, memoryview) and isinstance(base.obj, mmap.mmap)


ARRAYS = {
    "float64": np.linspace(-1, 1, LARGE),
    "complex128": np.linspace(-1, 1, LARGE) * 1j,
    "int64": np.arange(LARGE),
    "bool": np.arange(LARGE) % 3 == 0,
    "two axes": np.linspace(0, 1, LARGE).reshape(70, 1000),
    "strided": np.linspace(0, 1, 2 * LARGE)[::2],
    "not a number": np.full(LARGE, np.nan),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_an_array_in_the_file_has_the_same_values(spill: SpillFile, array: np.ndarray) -> None:
    found = spill.array(array)
    assert _mapped(found)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    for _ in range(2):
        np.testing.assert_array_equal(found, array)
        spill.release()


TENSORS = {
    "float32": torch.randn(70, 1000),
    "bfloat16": torch.randn(70, 1000).bfloat16(),
    "int64": torch.arange(LARGE),
    "bool": torch.arange(LARGE) % 3 == 0,
    "complex64": torch.randn(LARGE, dtype=torch.complex64),
    "channels-last": torch.randn(2, 35, 10, 100).to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_a_tensor_in_the_file_has_the_same_values(spill: SpillFile, tensor: torch.Tensor) -> None:
    found = spill.tensor(tensor)
    assert found is not tensor
    assert (found.dtype, found.stride()) == (tensor.dtype, tensor.stride())
    assert torch.equal(found, tensor)
    spill.release()
    assert torch.equal(found, tensor)


KEPT = {
    "small": torch.randn(10),
    "part of another": torch.randn(3, LARGE)[1],
    "expanded": torch.randn(LARGE, 1).expand(LARGE, 3),
    "sparse": torch.eye(300).to_sparse(),
    "a parameter": torch.nn.Parameter(torch.randn(LARGE)),
    "conjugated": torch.randn(LARGE, dtype=torch.complex64).conj(),
}


@pytest.mark.parametrize("tensor", KEPT.values(), ids=KEPT)
def test_what_is_small_or_not_dense_stays(spill: SpillFile, tensor: torch.Tensor) -> None:
    assert spill.tensor(tensor) is tensor


def test_what_there_is_memory_for_stays() -> None:
    spill = SpillFile(in_memory=8 * LARGE)
    first, second = np.ones(LARGE), np.ones(LARGE)
    assert spill.array(first) is first
    assert _mapped(spill.array(second))


def test_many_arrays_share_segments_and_one_larger_than_these_has_its_own(
    spill: SpillFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlxport.converter.parity.reference.spill._SEGMENT", 2**20)
    sizes = [LARGE, 9000, 3 * LARGE, LARGE + 1, 20_000]
    arrays = [np.random.default_rng(n).random(size) for n, size in enumerate(sizes)]
    found = [spill.array(array) for array in arrays]
    spill.release()
    for one, array in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(one, array)


def test_the_file_has_no_name_and_outlives_what_wrote_it(spill: SpillFile, tmp_path: Path) -> None:
    found = spill.array(np.arange(LARGE))
    del spill
    assert not list(tmp_path.iterdir())
    np.testing.assert_array_equal(found, np.arange(LARGE))


def _no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")


def _no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fails)


@pytest.mark.parametrize("fault", [_no_folder, _no_room])
def test_without_a_file_arrays_stay_in_memory(
    spill: SpillFile, fault: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    for _ in range(2):
        array, tensor = np.ones(LARGE), torch.ones(LARGE)
        assert spill.array(array) is array
        assert spill.tensor(tensor) is tensor


def test_a_reference_in_a_file_is_that_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Tanh(), torch.nn.Conv2d(8, 8, 3))
    given = (torch.randn(1, 3, 64, 64),)

    def recorded() -> list[np.ndarray]:
        calls = record_reference(model, given, paths=["0", "1", "2"], keep_inputs=True).calls
        arrays = []
        for call in calls:
            assert call.inputs is not None
            arrays += [tensor.bits for tensor in call.inputs]
            for value in (*call.outputs, *call.alone):
                arrays += [value.reference, value.native]
            assert call.release is not None
            call.release()
        return arrays

    before = recorded()
    written: list[int] = []

    class Watched(SpillFile):
        def _written(self, data: np.ndarray) -> tuple[mmap.mmap, int] | None:
            written.append(data.size)
            return super()._written(data)

    monkeypatch.setattr(
        "mlxport.converter.parity.reference.record_reference.SpillFile", lambda: Watched(0)
    )
    after = recorded()
    # the inputs of two modules; natively, in float64 and, of two, alone what they compute
    assert len(written) == 10
    for one, other in zip(after, before, strict=True):
        np.testing.assert_array_equal(one, other)
