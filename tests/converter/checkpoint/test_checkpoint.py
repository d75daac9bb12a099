"""How names from a checkpoint stand in messages."""

import pytest

from mlxport.converter.checkpoint.checkpoint import first_names, printable

NAMES = {
    "none": ([], "0 tensors ()"),
    "one": (["a"], "1 tensors (a)"),
    "two": (["a", "b.c"], "2 tensors (a, b.c)"),
    "three": (["a", "b.c", "d"], "3 tensors (a, b.c, …)"),
    "what a terminal would obey": (["\x1b[2J", ""], r"2 tensors ('\x1b[2J', '')"),
}


@pytest.mark.parametrize(("names", "text"), NAMES.values(), ids=NAMES)
def test_the_first_two_names_are_shown(names: list[str], text: str) -> None:
    assert first_names(names) == text


@pytest.mark.parametrize(
    ("name", "text"), [("é.b", "é.b"), ("a\nb", r"'a\nb'"), ("", "''"), (3, "3"), (None, "None")]
)
def test_a_name_holds_no_control_characters(name: object, text: str) -> None:
    assert printable(name) == text
