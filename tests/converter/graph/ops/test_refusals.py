"""Every op of PyTorch's core set is served, or refused with a reason."""

import pytest
import torch

from mlxport.converter.graph.ir.context import Context, Unsupported
from mlxport.converter.graph.ops.refusals import REFUSED_OPS
from mlxport.converter.graph.ops.registry import OPS

# Numbers of the graph, not arrays: with static sizes they do not occur.
SIZES = {"aten.sym_size.int", "aten.sym_numel.default"}


def core() -> list[str]:
    found = []
    for qualified in torch._C._dispatch_get_all_op_names():
        namespace, _, name = qualified.partition("::")
        packet, _, overload = name.partition(".")
        if namespace != "aten":
            continue
        op = getattr(getattr(torch.ops.aten, packet), overload or "default", None)
        if op is not None and torch.Tag.core in op.tags:
            found.append(str(op))
    return sorted(found)


def test_there_is_a_core_set():
    assert len(core()) > 150


@pytest.mark.parametrize("name", core())
def test_a_core_op_is_served_or_refused(name):
    # What is in the core set is what decompositions end in, so none of it may be left to them.
    assert name in OPS or name in SIZES, f"{name} has no handler and stands in no refusal"


@pytest.mark.parametrize("name", REFUSED_OPS)
def test_a_refusal_says_why(name):
    assert OPS[name].restrictions == REFUSED_OPS[name]
    with pytest.raises(Unsupported) as refused:
        OPS[name].handler(Context())
    assert str(refused.value) == REFUSED_OPS[name]


@pytest.mark.parametrize("name", REFUSED_OPS)
def test_a_refused_op_is_one(name):
    _, packet, overload = name.split(".")
    assert hasattr(getattr(torch.ops.aten, packet), overload), "PyTorch has no such op"
