"""Iterators over sequences and files that are read stand where they stood."""

import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.errors import CaptureError
from mlxport.converter.torch_model.model_state import left_as_it_was


class Reader(nn.Module):
    """Scales by the next number of what it has."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers = numbers

    def forward(self, x):
        return x * float(next(self.numbers))


ITERATORS = {
    "list": lambda: iter([1.0, 2.0, 3.0, *[4.0] * 9]),
    "tuple": lambda: iter((1.0, 2.0, 3.0, *[4.0] * 9)),
    "list backwards": lambda: reversed([*[4.0] * 9, 3.0, 2.0, 1.0]),
    "text": lambda: iter("123444444444"),
    "bytes": lambda: iter(b"123444444444"),
}


@pytest.mark.parametrize("make", ITERATORS.values(), ids=ITERATORS)
def test_an_iterator_stands_where_it_stood(make):
    numbers = make()
    first, second = next(numbers), next(make()) and list(make())[1]
    model = Reader(numbers)
    with pytest.raises(CaptureError, match=r"changes in itself on the way:\n  numbers"):
        mlxport.convert(model, torch.ones(2))
    assert model.numbers is numbers
    assert first != next(numbers) == second


def test_a_file_stands_where_it_stood(tmp_path):
    (tmp_path / "numbers").write_text("1\n2\n3\n4\n5\n6\n")
    with open(tmp_path / "numbers") as file:
        file.readline()
        with left_as_it_was(Reader(file)) as state:
            file.readline()
            assert state.changes() == ["numbers"]
        assert file.readline() == "2\n"


def test_a_file_that_is_written_is_left_alone(tmp_path):
    with open(tmp_path / "log", "w") as log:
        log.write("before ")
        with left_as_it_was(Reader(log)):
            log.write("while ")
        log.write("after")
    assert (tmp_path / "log").read_text() == "before while after"


def test_what_cannot_be_set_back_is_no_error(tmp_path):
    with open(tmp_path / "closed", "w") as closed:
        pass
    exhausted = iter([1.0])
    next(exhausted)
    for reader in (closed, exhausted, iter([1.0])):
        with left_as_it_was(Reader(reader)):
            next(reader, None) if reader is not closed else None
