"""What bears several names in PyTorch stands once in MLX: tied parameters, shared modules."""

import mlx.core as mx
import pytest
import torch
from mlx.utils import tree_flatten
from torch import nn
from torch.nn import functional as F

import mlxport
from mlxport.converter.plan.tensor import to_mlx
from mlxport.converter.plan.torch_tensor import tensor_from_torch

IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
X = torch.linspace(-2, 2, 2 * 8 * 5).reshape(2, 8, 5)


class Net(nn.Module):
    """Builds its layers from keyword arguments and runs a function given as ``run``."""

    def __init__(self, run, **layers):
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.run(self, x)


def tied(model, name, to):
    """Let the parameter ``name`` of a model be the one called ``to``."""
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, model.get_parameter(to))
    return model


def language_model(bias=False, **more):
    model = Net(
        lambda m, x: m.head(torch.tanh(m.mid(m.table(x)))),
        table=nn.Embedding(12, 8),
        mid=nn.Linear(8, 8),
        head=nn.Linear(8, 12, bias=bias),
        **more,
    )
    return tied(model, "head.weight", "table.weight")


def head_before_table():
    model = Net(
        lambda m, x: m.head(m.table(x)),
        head=nn.Linear(8, 12, bias=False),
        table=nn.Embedding(12, 8),
    )
    return tied(model, "table.weight", "head.weight")


def far_apart():
    encoder = Net(lambda m, x: m.mid(m.table(x)), table=nn.Embedding(12, 8), mid=nn.Linear(8, 8))
    predictions = Net(
        lambda m, x: m.decoder(m.norm(x)), norm=nn.LayerNorm(8), decoder=nn.Linear(8, 12)
    )
    model = Net(
        lambda m, x: m.cls(m.encoder(x)),
        encoder=encoder,
        cls=Net(lambda m, x: m.predictions(x), predictions=predictions),
    )
    return tied(model, "cls.predictions.decoder.weight", "encoder.table.weight")


def functional():
    return Net(
        lambda m, x: F.linear(m.mid(m.table(x)), m.table.weight),
        table=nn.Embedding(12, 8),
        mid=nn.Linear(8, 8),
    )


def two_linear():
    model = Net(
        lambda m, x: m.b(torch.tanh(m.a(x.mT))), a=nn.Linear(8, 8), b=nn.Linear(8, 8, bias=False)
    )
    return tied(model, "b.weight", "a.weight")


def decoder_is_transpose():
    return Net(lambda m, x: F.linear(m.a(x.mT), m.a.weight.t()), a=nn.Linear(8, 3))


def two_convolutions(kind=nn.Conv1d, **options):
    model = Net(
        lambda m, x: m.b(torch.tanh(m.a(x))), a=kind(8, 8, 3, **options), b=kind(8, 8, 3, **options)
    )
    return tied(model, "b.weight", "a.weight")


def weight_read():
    """Nobody asks for the weight channels-last but the layer."""
    return Net(
        lambda m, x: m.a(x) * m.a.weight.square().sum((0, 2))[None, :, None], a=nn.Conv1d(8, 8, 1)
    )


def weight_read_that_mlx_regroups():
    return Net(
        lambda m, x: m.a(x) * m.a.weight.sum((1, 2))[None, :, None],
        a=nn.ConvTranspose1d(8, 8, 1, groups=2),
    )


def block():
    return Net(lambda m, x: x + torch.tanh(m.a(x)), a=nn.Conv1d(8, 8, 3, padding=1))


def shared_blocks():
    shared = block()
    rows = nn.ModuleList([block(), shared])
    return Net(
        lambda m, x: m.again(m.rows[1](m.rows[0](m.first(x)))),
        first=shared,
        rows=rows,
        again=shared,
    )


def shared_deep_inside():
    shared = block()
    return Net(
        lambda m, x: m.right(m.left(x)),
        left=Net(lambda m, x: m.inner(x) * 2, inner=shared),
        right=Net(lambda m, x: m.inner(x) - x, inner=shared),
    )


def registered_twice():
    parameter = nn.Parameter(torch.linspace(0, 1, 8))
    return Net(lambda m, x: x.mT * m.p + m.q, p=parameter, q=parameter)


def weight_norm_of_two():
    model = two_convolutions()
    for name in "ab":
        nn.utils.parametrizations.weight_norm(model.get_submodule(name))
    return tied(model, "b.parametrizations.weight.original1", "a.parametrizations.weight.original1")


CASES = {
    "embedding and linear": (language_model, IDS),
    "embedding and linear with bias": (lambda: language_model(bias=True), IDS),
    "linear before embedding": (head_before_table, IDS),
    "embedding and linear far apart": (far_apart, IDS),
    "embedding read by hand": (functional, IDS),
    "two linear": (two_linear, X),
    "decoder is the transpose": (decoder_is_transpose, X),
    "two convolutions": (two_convolutions, X),
    "two transposed convolutions": (lambda: two_convolutions(nn.ConvTranspose1d), X),
    "two grouped ones": (lambda: two_convolutions(nn.ConvTranspose1d, groups=2), X),
    "weight read": (weight_read, X),
    "weight read that MLX regroups": (weight_read_that_mlx_regroups, X),
    "shared blocks": (shared_blocks, X),
    "shared deep inside": (shared_deep_inside, X),
    "parameter registered twice": (registered_twice, X),
    "weight norm of two": (weight_norm_of_two, X),
}


@pytest.fixture(scope="module")
def converted():
    """Convert each case once: name -> (torch model, result)."""
    done = {}

    def get(name):
        if name not in done:
            torch.manual_seed(0)
            build, x = CASES[name]
            model = build().eval()
            done[name] = model, mlxport.convert(model, x)
        return done[name]

    return get


@pytest.mark.parametrize("name", CASES)
def test_parity_holds(name, converted):
    _, result = converted(name)
    assert result.report.passed, result.report.to_text()


@pytest.mark.parametrize("name", CASES)
def test_one_parameter_for_one(name, converted):
    model, result = converted(name)
    arrays = tree_flatten(result.model.parameters())
    assert sum(a.size for _, a in arrays) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", CASES)
def test_every_key_is_accounted_for_and_none_twice(name, converted):
    model, result = converted(name)
    plan = result.conversion.plan
    used = [key for entry in plan.entries for key in entry.sources]
    assert sorted([*used, *plan.aliases]) == sorted(model.state_dict())
    assert not plan.ignored
    assert not plan.ties
    targets = [name for entry in plan.entries for name in entry.targets]
    assert len(set(targets)) == len(targets)


@pytest.mark.parametrize("name", CASES)
def test_the_plan_converts_another_checkpoint(name, converted):
    _, result = converted(name)
    build, x = CASES[name]
    torch.manual_seed(1)
    other = build().eval()
    state = {key: tensor_from_torch(value) for key, value in other.state_dict().items()}
    weights = [(key, to_mlx(tensor)) for key, tensor in result.conversion.plan.apply(state)]
    before = tree_flatten(result.model.parameters())
    result.model.load_weights(weights)
    try:
        assert mlxport.verify(result.model, other, x).passed
    finally:
        result.model.load_weights(before)


@pytest.mark.parametrize(
    "name", [name for name in CASES if name.startswith(("embedding", "linear before"))]
)
def test_an_embedding_used_as_linear_is_asked_to(name, converted):
    _, result = converted(name)
    assert "table.as_linear(" in result.source


def test_training_one_place_changes_the_other(converted):
    _, result = converted("two linear")
    x = mx.array(X.numpy())
    before = result.model(x)
    result.model.a.weight = result.model.a.weight * 2
    a = result.model.a
    expected = mx.tanh(x.transpose(0, 2, 1) @ a.weight.T + a.bias) @ a.weight.T
    assert mx.allclose(result.model(x), expected, atol=1e-5)
    result.model.a.weight = result.model.a.weight / 2
    assert mx.allclose(result.model(x), before, atol=1e-5)


def test_a_module_without_tensors_may_stand_twice():
    act = nn.ReLU()
    inner = [Net(lambda m, x: m.act(m.a(x)), a=nn.Conv1d(8, 8, 1), act=act) for _ in range(2)]
    model = Net(lambda m, x: m.right(m.left(x)), left=inner[0], right=inner[1])
    result = mlxport.convert(model.eval(), X)
    assert result.report.passed
    assert "self.right(self.left(" in result.source


class Blend(nn.Module):
    """Reads its second argument first, so that the captured order is not forward's."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x, skip):
        wide = skip * 2
        return self.linear(x) + wide, wide


def test_a_module_called_by_another_of_its_names_takes_and_gives_in_forwards_order():
    def run(m, x):
        y, wide = m.inner.blend(torch.tanh(x), x)
        return y * wide

    blend = Blend()
    model = Net(run, blend=blend, inner=nn.ModuleDict({"blend": blend})).eval()
    result = mlxport.convert(model, torch.randn(2, 8))
    assert result.report.passed, result.report.verdict
    (entry, *_) = (e for e in result.report.entries if e.path == "blend")
    assert {*entry.verdicts} == {"in_place", "alone"}, entry.skipped
