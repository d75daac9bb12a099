"""What plans, records and tensors say of themselves: short, and the same every time."""

import numpy as np

from mlxport.converter.plan.fold_steps import FoldWeightNorm
from mlxport.converter.plan.quantize_step import Quantized, Settings
from mlxport.converter.plan.record import Conversion, Layout, ModuleRecord
from mlxport.converter.plan.steps import Cast, Permute, Reshape
from mlxport.converter.plan.structure import Signature
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.plan.weight_plan import Entry, WeightPlan

WEIGHT = Entry(("up.weight",), ("decoder.up.weight",), (Permute((1, 2, 3, 4, 0)),))
PLAN = WeightPlan(
    (
        WEIGHT,
        Entry(
            ("a.g", "a.v"), ("a.weight",), (Cast(("F16", "F16"), ("F32", "F32")), FoldWeightNorm(0))
        ),
        Entry(("b",), ("b",)),
    ),
    {"n.num_batches_tracked": "counts training batches"},
    {"tied.weight": "up.weight"},
    {"mask": "computed in forward"},
    ties={"b2": "b"},
)


def test_an_entry_is_a_line() -> None:
    assert str(WEIGHT) == "decoder.up.weight <- up.weight: permute(1, 2, 3, 4, 0)"
    assert str(Reshape((2, 6), (2, 3, 2))) == "reshape((2, 6) -> (2, 3, 2))"
    assert str(FoldWeightNorm(0)) == "fold_weight_norm(dim=0)"


def test_a_plan_is_its_entries_and_what_is_left_out() -> None:
    assert str(PLAN).splitlines() == [
        "decoder.up.weight <- up.weight: permute(1, 2, 3, 4, 0)",
        "a.weight <- a.g, a.v: cast((F16, F16) -> (F32, F32)), fold_weight_norm(dim=0)",
        "b <- b",
        "mask is a constant: computed in forward",
        "tied.weight is up.weight",
        "b2 is b",
        "n.num_batches_tracked is left out: counts training batches",
    ]
    assert repr(PLAN) == "WeightPlan(3 entries, 1 constants, 1 aliases, 1 ties, 1 ignored)"


def test_a_conversion_is_a_few_lines() -> None:
    layout = Layout(("n", 3), "float32", (0, 1))
    conversion = Conversion(
        plan=PLAN,
        modules=(ModuleRecord("", "", (layout,), (layout,)),),
        inputs=("x", "mask"),
        signature=Signature(),
        transposes=2,
        source={"path": "unet.pt"},
        dynamic={"n": (1, None)},
        quantized=Quantized(Settings(4, 64), ("a",)),
    )
    assert str(conversion).splitlines() == [
        "from unet.pt",
        "inputs: x, mask",
        "1 modules, 2 transposes a call",
        "n: 1 to any",
        "quantized: 4 bits in groups of 64 (affine)",
        repr(PLAN),
    ]
    assert repr(conversion) == f"Conversion(1 modules, {PLAN!r})"


def test_a_tensor_does_not_show_its_values() -> None:
    assert repr(Tensor(np.zeros((1000, 2), np.uint16), "BF16")) == "Tensor(BF16 (1000, 2))"
