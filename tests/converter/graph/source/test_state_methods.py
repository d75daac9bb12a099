"""What a model with state says of itself."""

from types import SimpleNamespace
from typing import Any

from mlxport.converter.graph.source.state_methods import state_note


def test_a_name_that_is_longer_than_a_line_stays_whole() -> None:
    lowered: Any = SimpleNamespace(state=["count", "x" * 200])
    names: Any = SimpleNamespace(target=str)
    note = state_note(lowered, names)
    assert "x" * 200 in note
    assert " ".join(note).startswith(f"Keeps count and {'x' * 200} from call to call.")
