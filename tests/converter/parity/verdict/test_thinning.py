"""Fewer values of a reference: within the limit, of every layer, and judged as all would be."""

import math
from pathlib import Path

import numpy as np
import pytest

from mlxport.converter.parity.verdict.reference_data import Call, Reference, ReferenceValue
from mlxport.converter.parity.verdict.reference_file import load_reference, save_reference
from mlxport.converter.parity.verdict.thinning import LEAST, within
from mlxport.converter.plan.tensor import Tensor


def value(size: int, *, of: int | None = None, moved: float = 0.0) -> ReferenceValue:
    """A value of ``size`` numbers, each its place in the tensor; sampled where that is larger."""
    places = None if of is None else np.arange(0, of, of // size)[:size]
    numbers = (np.arange(size) if places is None else places).astype(np.float64)
    return ReferenceValue((of or size,), "float32", numbers, numbers + 0.5, places, moved=moved)


def reference(*sizes: int, outputs: int = 100) -> Reference:
    calls = tuple(Call(f"layer.{k}", 0, (value(size),)) for k, size in enumerate(sizes))
    inputs = (Tensor(np.zeros(10, np.float32), "F32"),)
    return Reference(inputs, (value(outputs),), calls, {}, "float32")


CASES = {
    "all fits": ((1000, 2000), 100, 10**6, [1000, 2000], 100),
    "the large are thinned": ((1000, 40_000), 100, 60_000, [1000, 1250], 100),
    "outputs are kept as long as that is enough": ((40_000,), 3000, 45_000, [312], 3000),
    "then they are thinned too": ((40_000,), 40_000, 30_000, [625], 625),
    "of each there is a least": ((9000, 40_000, 100), 5000, 0, [256, 256, 100], 256),
}


@pytest.mark.parametrize(
    ("sizes", "outputs", "limit", "left", "of_outputs"), CASES.values(), ids=CASES
)
def test_how_many_values_are_left(
    sizes: tuple[int, ...],
    outputs: int,
    limit: int,
    left: list[int],
    of_outputs: int,
    tmp_path: Path,
) -> None:
    (found,) = within([reference(*sizes, outputs=outputs)], limit)
    assert [call.outputs[0].reference.size for call in found.calls] == left
    assert found.outputs[0].reference.size == of_outputs
    save_reference(tmp_path / "r.safetensors", found)
    again = load_reference(tmp_path / "r.safetensors")
    assert [call.outputs[0].reference.size for call in again.calls] == left
    if limit:
        header = (tmp_path / "r.safetensors").read_bytes()[:8]
        arrays = (tmp_path / "r.safetensors").stat().st_size - 8 - int.from_bytes(header, "little")
        assert arrays <= limit


@pytest.mark.parametrize("of", [None, 50_000], ids=["from all", "from a sample"])
def test_values_stay_at_their_places(of: int | None) -> None:
    whole = value(5000, of=of, moved=7.0)
    before = Reference((), (whole,), (), {}, "float32")
    (after,) = within([before], 0)
    found = after.outputs[0]
    assert found.indices is not None
    assert np.array_equal(found.reference, found.indices)
    assert np.array_equal(found.native, found.indices + 0.5)
    assert found.shape == whole.shape
    assert math.isclose(found.moved, 7.0 * math.sqrt(LEAST / 5000))
    assert len({*found.indices.tolist()}) == LEAST


def test_several_share_the_limit() -> None:
    both = within([reference(40_000), reference(40_000)], 60_000)
    sizes = [one.calls[0].outputs[0].reference.size for one in both]
    assert sizes == [1250, 1250]
