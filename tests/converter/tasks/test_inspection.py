"""The table of an inspection where checkpoints of other tests do not reach: its very limits."""

from __future__ import annotations

import pytest

from mlxport.converter.tasks.inspection import InspectedTensor, Inspection


def tensor(name: str, nbytes: int = 4) -> InspectedTensor:
    return InspectedTensor(name, (name,), "F32", (1,), nbytes, "as it is", (1,), "it has one axis")


@pytest.mark.parametrize(
    ("length", "width"),
    [(5, len("tensor")), (119, 119), (120, 120), (121, len("tensor"))],
    ids=["a short name", "nearly the widest", "the widest", "one that stands out"],
)
def test_a_column_is_filled_up_to_its_longest_cell(length: int, width: int) -> None:
    text = Inspection("x.pt", None, (), (tensor("a"), tensor("b" * length))).to_text()
    heads, first, second = text.splitlines()[:3]
    assert heads.index("PyTorch") == first.index("F32") == width + 2
    assert second.index("F32") == max(width, length) + 2


SIZES = {
    0: "0 B",
    1023: "1023 B",
    1024: "1 KiB",
    1 << 20: "1 MiB",
    3 << 29: "1.5 GiB",
    1 << 41: "2048 GiB",
}


@pytest.mark.parametrize(("nbytes", "size"), SIZES.items(), ids=SIZES.values())
def test_sizes_are_told_in_the_largest_unit_that_they_fill(nbytes: int, size: str) -> None:
    found = Inspection("x.pt", None, (), (tensor("a", nbytes),))
    assert str(found) == f"x.pt: 1 tensor ({size})"
    assert found.to_text().splitlines()[-1] == f"1 tensor, {size}"


def test_what_there_is_none_of_is_not_counted() -> None:
    tied = tensor("a"), tensor("b")
    found = Inspection("x.pt", None, ("a note",), tied, ties=(("a", "b"),), problems=("c", "d"))
    assert str(found) == "x.pt: 2 tensors (8 B), 1 tie, 2 do not fit, 1 note"
    assert str(Inspection("x.pt", None, (), tied)) == "x.pt: 2 tensors (8 B)"
