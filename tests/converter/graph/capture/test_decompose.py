"""Decomposition op by op: the very program that torch.export's own decomposition gives."""

import os

import import_torchvision  # noqa: F401  # of tests/models, which is on the path
import pytest
import torch
from networks import NETWORKS
from torch import nn
from torch.export import export
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves

from mlxport.converter.graph import ops
from mlxport.converter.graph.capture import capture as capturing
from mlxport.converter.graph.capture import decompose as module
from mlxport.converter.graph.capture.decompose import decompose, decompositions

# torch.export's own code uses what it says is deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")

HANDLED = ops.registry.OPS


class Of(nn.Module):
    """A module that computes what a function does, with a layer before."""

    def __init__(self, function, layer=None):
        super().__init__()
        self.function = function
        self.layer = nn.Linear(6, 8) if layer is None else layer

    def forward(self, x):
        return self.function(self.layer(x))


def normed(**options):
    norm = nn.BatchNorm2d(3, **options)
    if norm.running_mean is not None:
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    return nn.Sequential(nn.Conv2d(3, 3, 1), norm)


def unused(x):
    x.exp()
    return x + 1


# what is computed, and of which shape
DIRECTLY = {
    "reshape to a view": (lambda x: x.reshape(4, -1, 2), (2, 6)),
    "reshape to the shape it has": (lambda x: x.reshape(2, 8), (2, 6)),
    "reshape of a transpose to a view": (lambda x: x.t().reshape(2, -1, 2), (2, 6)),
    "reshape of a transpose to a copy": (lambda x: x.t().reshape(-1), (2, 6)),
    "reshape of a part": (lambda x: x[:, 2:].reshape(2, 2, -1), (2, 6)),
    "flatten": (lambda x: x.flatten(1), (2, 3, 6)),
    "flatten to a copy": (lambda x: x.transpose(0, 1).flatten(), (2, 6)),
    "flatten of nothing": (lambda x: x.flatten(1, 1), (2, 3, 6)),
    "contiguous as it is": (lambda x: x.contiguous() + 1, (2, 6)),
    "contiguous as a copy": (lambda x: x.t().contiguous(), (2, 6)),
    "channels last": (lambda x: x.contiguous(memory_format=torch.channels_last), (2, 3, 4, 6)),
    "unused": (unused, (2, 6)),
    "a draw": (lambda x: x + torch.rand_like(x), (2, 6)),
    "defaults that are given": (lambda x: torch.add(x, x, alpha=1)[0:2], (2, 6)),
    "several results": (lambda x: (x.reshape(-1), x.t().contiguous(), x), (2, 6)),
    "an op with several results": (lambda x: x.topk(2)[1].reshape(-1), (2, 6)),
    "results of two such ops": (lambda x: (x.sort()[1], x.topk(2)[0]), (2, 6)),
    "a name of an input": (lambda x: x.add(1).mul(2).add(3), (2, 6)),
}
LAYERS = {
    "batch norm": normed(),
    "batch norm without weights": normed(affine=False),
    "batch norm, another eps": normed(eps=0.1, momentum=None),
}
BY_TORCH = {
    "writes": (lambda x: x.add_(1), (2, 6)),
    "a part of a tensor is another": (lambda x: x.select_scatter(x[0] + 1, 0, 1), (2, 6)),
    "another op": (lambda x: x.chunk(2, 1)[0], (2, 6)),
    "a draw that is not used": (lambda x: (torch.randn(3) + 1, x + 1)[1], (2, 6)),
    "what Python computes": (lambda x: torch.nn.functional.hardshrink(x), (2, 6)),
    "a constant": (lambda x: x + torch.tensor([1.0, 2.0] * 4), (2, 6)),
    "dropout": (lambda x: torch.dropout(x, 0.5, False) + 1, (2, 6)),
    "another dtype": (lambda x: x.to(torch.float64), (2, 6)),
}


def exported(model, shape):
    return export(model.eval(), (torch.randn(shape),), strict=False)


def value_form(value, memory):
    """Return all there is to know of a value; ``memory`` numbers what was seen so far."""
    if not isinstance(value, torch.Tensor):
        return value
    return (
        type(value),
        value.shape,
        value.dtype,
        value.stride(),
        value.storage_offset(),
        value.device,
        value.requires_grad,
        memory.setdefault(value.untyped_storage()._cdata, len(memory)),
    )


def form(program):
    """Return all there is to know of a program's nodes."""
    memory, found = {}, []
    for node in program.graph.nodes:
        args = map_arg((node.args, node.kwargs), lambda one: f"%{one.name}")
        values = [value_form(v, memory) for v in tree_leaves(node.meta.get("val"))]
        stack = list((node.meta.get("nn_module_stack") or {}).items())
        place = node.meta.get("stack_trace")
        found.append((node.op, node.name, node.target, repr(args), values, stack, place))
    return found


def check_same(program):
    """Hold what a program is decomposed to, whichever way, to what torch.export makes of it."""
    before = form(program)
    found = decompose(program, HANDLED)
    expected = program.run_decompositions(decompositions(HANDLED))
    assert form(found) == form(expected)
    assert form(program) == before
    assert str(found.graph_signature) == str(expected.graph_signature)
    assert {k: id(v) for k, v in found.state_dict.items()} == {
        k: id(v) for k, v in expected.state_dict.items()
    }
    assert found.constants.keys() == expected.constants.keys()
    assert found.range_constraints == expected.range_constraints
    assert str(found.module_call_graph) == str(expected.module_call_graph)
    assert found._guards_code == expected._guards_code
    return found


@pytest.fixture
def without_torch(monkeypatch):
    """Notice that torch.export is to decompose."""
    called = []
    own = torch.export.ExportedProgram.run_decompositions
    monkeypatch.setattr(
        torch.export.ExportedProgram,
        "run_decompositions",
        lambda self, table: called.append(self) or own(self, table),
    )
    return called


@pytest.mark.parametrize("case", DIRECTLY)
def test_is_the_program_that_torch_gives(case, without_torch):
    function, shape = DIRECTLY[case]
    program = exported(Of(function), shape)
    decompose(program, HANDLED)
    assert not without_torch
    check_same(program)


@pytest.mark.parametrize("case", LAYERS)
def test_batch_norms_are_those_that_torch_gives(case, without_torch):
    program = exported(LAYERS[case], (2, 3, 4, 4))
    decompose(program, HANDLED)
    assert not without_torch
    check_same(program)


@pytest.mark.parametrize("case", BY_TORCH)
def test_leaves_the_rest_to_torch(case, without_torch):
    function, shape = BY_TORCH[case]
    decompose(exported(Of(function), shape), HANDLED)
    assert len(without_torch) == 1


def test_leaves_statistics_of_the_batch_to_torch(without_torch):
    decompose(exported(normed(track_running_stats=False), (2, 3, 4, 4)), HANDLED)
    assert len(without_torch) == 1


def test_leaves_to_torch_what_fails_on_the_way(without_torch, monkeypatch):
    def fail(*_):
        raise RuntimeError("no fake tensor")

    monkeypatch.setattr(module._Writer, "value", fail)
    check_same(exported(Of(lambda x: x.t().reshape(-1)), (2, 6)))
    assert len(without_torch) == 2


def test_leaves_open_sizes_to_torch(without_torch):
    shapes = {"x": {0: torch.export.Dim("n")}}
    model = Of(lambda x: x.reshape(-1))
    program = export(model, (torch.randn(2, 6),), dynamic_shapes=shapes, strict=False)
    decompose(program, HANDLED)
    assert len(without_torch) == 1


@pytest.mark.parametrize("name", ["add", "input", "getitem"])
def test_an_input_keeps_its_name_whatever_the_nodes_bear(name):
    namespace = {}
    exec(f"def forward(self, {name}): return ({name} + 1).topk(2)[0].reshape(-1) * 2", namespace)
    model = type("Named", (nn.Module,), {"forward": namespace["forward"]})()
    found = check_same(exported(model, (2, 6)))
    assert list(found.graph_signature.user_inputs) == [name]


def test_a_view_of_a_parameter():
    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.randn(1, 1, 6))

        def forward(self, x):
            return torch.cat([self.token.expand(2, -1, -1), x], 1)

    check_same(exported(Token(), (2, 3, 6)))


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: x.reshape(2, 6), id="reshaped"),
        pytest.param(lambda x: (x, x.contiguous(), x + 1), id="given back"),
    ],
)
def test_inputs_are_what_torch_makes_of_them(function):
    check_same(exported(Of(function, nn.Identity()), (2, 6)))


def test_the_program_computes_what_the_model_does():
    model = Of(lambda x: x.t().reshape(2, -1).contiguous().flatten())
    program = exported(model, (2, 6))
    given = torch.randn(2, 6)
    assert torch.equal(decompose(program, HANDLED).module()(given), model(given))


@pytest.mark.parametrize("op", module._REPLACEMENTS, ids=str)
def test_what_is_replaced_has_no_handler(op):
    assert str(op) not in HANDLED


# in seconds; MLXPORT_SWEEP=1 tries all of them
FEW = {"PlainConvUNet", "UNet2d", "BERT"}
SWEEP = os.environ.get("MLXPORT_SWEEP") == "1"


@pytest.mark.filterwarnings("ignore")  # of what the networks' packages import and call
@pytest.mark.parametrize("name", NETWORKS if SWEEP else sorted(FEW))
def test_networks_are_what_torch_makes_of_them(name, monkeypatch):
    torch.manual_seed(0)
    network, compared = NETWORKS[name], []

    def compare(program, handled):
        if module._obstacle(program, decompositions(handled)):
            return decompose(program, handled)
        compared.append(program)
        return check_same(program)

    monkeypatch.setattr(capturing, "decompose", compare)
    capturing.capture(network.build().eval(), network.inputs(), handled=HANDLED)
    assert name not in FEW or len(compared) == 1
