"""Which batch sizes are judged beside the example, and why others are not."""

from __future__ import annotations

import pytest
import torch

from mlxport.converter.parity.reference.trials import Trials
from mlxport.converter.plan.record import Conversion, Layout, ModuleRecord
from mlxport.converter.plan.weight_plan import WeightPlan
from mlxport.converter.tasks.record_references import Origin

Open = dict[str, tuple[int, int | None]]

# what is open, the conditions on it, and which batch sizes beside the example's 3 are judged
BATCHES: dict[str, tuple[Open, tuple[str, ...], list[int], str]] = {
    "any": ({"n": (1, None)}, (), [1, 2, 4, 5, 6], ""),
    "at most five": ({"n": (1, 5)}, (), [1, 2, 4, 5], "the model takes 1 to 5"),
    "at least two, as torch.export says": ({"n": (2, 5)}, (), [1, 2, 4, 5], "takes 1 to 5"),
    "at least three": ({"n": (3, None)}, (), [4, 5, 6], "the model takes 3 to any"),
    "a condition": ({"n": (1, None)}, ("n % 3 == 0",), [6], "the model takes n % 3 == 0"),
    "a condition on both axes": (
        {"n": (1, None), "c": (1, None)},
        ("n < c", "c > 3"),
        [1, 2, 4],
        "the model takes n < c, c > 3",
    ),
}


def record(dynamic: Open, *conditions: str) -> Conversion:
    layout = Layout(("n", "c" if "c" in dynamic else 5), "float32", (0, 1))
    return Conversion(
        inputs=("input",),
        modules=(ModuleRecord("", "", (layout,), (layout,)),),
        dynamic=dynamic,
        conditions=conditions,
        plan=WeightPlan(()),
    )


@pytest.mark.parametrize(("dynamic", "conditions", "judged", "why"), BATCHES.values(), ids=BATCHES)
def test_batch_sizes_that_the_model_takes_are_judged(
    dynamic: Open, conditions: tuple[str, ...], judged: list[int], why: str
) -> None:
    known = {name: size for name, size in (("n", 3), ("c", 5)) if name in dynamic}
    asked, x = Trials(batch_sizes=(1, 2, 3, 4, 5, 6)), torch.randn(3, 5)
    origin = Origin(torch.nn.ReLU(), (x,), None, record(dynamic, *conditions), asked, known)
    example, *others = origin.references()
    assert (example.case, example.sizes) == ("", known)
    assert [one.case for one in others] == [f"batch size {size}" for size in judged]
    assert [one.sizes for one in others] == [known | {"n": size} for size in judged]
    noted = dict(note.split(" not judged: ") for note in origin.notes)
    assert list(noted) == [f"batch size {n}" for n in (1, 2, 4, 5, 6) if n not in judged]
    assert all(why in reason for reason in noted.values())


def test_a_condition_on_a_size_that_is_not_known_refuses_nothing() -> None:
    both = record({"n": (1, None), "c": (1, None)}, "n < c")
    asked, x = Trials(batch_sizes=(2, 6)), torch.randn(3, 5)
    origin = Origin(torch.nn.ReLU(), (x,), None, both, asked)
    assert [one.case for one in origin.references()] == ["", "batch size 2", "batch size 6"]
    assert origin.notes == []
