"""Whole models: what people write in ``forward``, held to PyTorch."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mlxport
from mlxport.converter.errors import UnsupportedError

SHAPE = (2, 4, 6, 5, 4)


def conv(inputs=4, outputs=4, kernel=3):
    return nn.Conv3d(inputs, outputs, kernel, padding=kernel // 2)


class Net(nn.Module):
    """Builds its layers from keyword arguments and runs a function given as ``run``."""

    def __init__(self, run, **layers):
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.run(self, x)


def skip(m, x):
    down = m.down(x)
    up = m.up(F.relu(down))
    return m.head(torch.cat([x, up[:, :, : x.shape[2], : x.shape[3], : x.shape[4]]], dim=1))


def pooled(m, x):
    return m.head(F.relu(m.conv(x)).mean(dim=(2, 3, 4)))


def global_pool(m, x):
    return m.head(torch.flatten(m.pool(m.conv(x)), 1))


def flattened(m, x):
    return m.head(m.conv(x).view(x.shape[0], -1))


def resized(m, x):
    y = F.interpolate(m.conv(x), scale_factor=2, mode="nearest")
    return F.interpolate(y, size=x.shape[2:], mode="trilinear", align_corners=False) + x


def padded(m, x):
    return m.conv(F.pad(x, (1, 0, 0, 2, 1, 1)))


def in_place(m, x):
    y = m.conv(x)
    kept = y
    y = F.relu_(y)
    return y + kept  # kept is y: the ReLU wrote into it


def twice(m, x):
    return m.block(m.block(x)) + m.conv(m.conv(x))


def twice_in_other_shapes(m, x):
    return m.block(x).sum((2, 3, 4)) + m.block(x[:, :, ::2]).sum((2, 3, 4))


def siamese(m, x):
    a, b = m.block(x), m.block(x * 2)
    return torch.cat([a, b], 1), a - b


def stages(m, x):
    skips = []
    for stage in m.stages:
        x = stage(x)
        skips.append(x)
    return skips[0] + skips[-1]


def chosen(m, x):
    return m.heads["seg"](x) * m.heads["0"](x)


def sliced_list(m, x):
    for layer in m.layers_[:2]:
        x = layer(x)
    y = x
    for layer in m.layers_[2:]:
        y = layer(y)
    return x + y


def functional(m, x):
    y = F.conv3d(x, m.weight, m.bias, padding=1)
    return F.conv_transpose3d(y, m.weight, None, stride=2, output_padding=1)


def swept(m, x):
    return m.norm(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3) + m.conv(x)


def swapped(m, x):
    a = m.conv(x)
    b = m.other(a)
    return m.minus(b, a), m.minus(a, b), m.minus(b=a, a=b)


class Minus(nn.Module):
    def forward(self, a, b):
        return a - b


def under_two_names():
    shared = conv()
    return Net(
        lambda m, x: m.again(m.row(x)), row=nn.Sequential(shared, nn.ReLU(), shared), again=shared
    )


def block():
    return nn.Sequential(conv(), nn.BatchNorm3d(4), nn.ReLU(inplace=True))


CASES = {
    "skip": lambda: Net(
        skip, down=nn.Conv3d(4, 8, 3, 2, 1), up=nn.ConvTranspose3d(8, 4, 3, 2, 1, 1), head=conv(8)
    ),
    "mean head": lambda: Net(pooled, conv=conv(), head=nn.Linear(4, 3)),
    "pool head": lambda: Net(
        global_pool, conv=conv(), pool=nn.AdaptiveAvgPool3d(1), head=nn.Linear(4, 3)
    ),
    "flatten head": lambda: Net(flattened, conv=conv(), head=nn.Linear(480, 3)),
    "interpolate": lambda: Net(resized, conv=conv()),
    "pad": lambda: Net(padded, conv=nn.Conv3d(4, 2, 3)),
    "in place": lambda: Net(in_place, conv=conv()),
    "module called twice": lambda: Net(twice, block=block(), conv=conv()),
    "called again in another shape": lambda: Net(
        twice_in_other_shapes,
        block=Net(lambda m, x: m.conv(x)[:, :, : x.shape[2] // 2], conv=conv()),
    ),
    "siamese": lambda: Net(siamese, block=Net(lambda m, x: m.conv(x) + x, conv=conv())),
    "stages": lambda: Net(stages, stages=nn.ModuleList([block() for _ in range(3)])),
    "module dict": lambda: Net(
        chosen, heads=nn.ModuleDict({"0": conv(), "seg": conv(), "unused": conv()})
    ),
    "slices of a list": lambda: Net(
        sliced_list, layers_=nn.ModuleList([conv(), nn.Identity(), conv(), nn.ReLU(), conv()])
    ),
    "functional convolutions": lambda: Net(
        functional,
        weight=nn.Parameter(torch.randn(4, 4, 3, 3, 3)),
        bias=nn.Parameter(torch.randn(4)),
    ),
    "permute by hand": lambda: Net(swept, norm=nn.LayerNorm(4), conv=conv()),
    "a model that is a list": lambda: nn.Sequential(conv(), nn.Sequential(block(), conv())),
    "names MLX reserves": lambda: Net(
        lambda m, x: m.keys(m.update_(m._private(x))), keys=conv(), update_=conv(), _private=conv()
    ),
    "buffers and constants": lambda: Net(
        lambda m, x: m.conv(x) * m.running + torch.tensor([1.0, 2.0, 3.0, 4.0]),
        conv=conv(),
        running=nn.Buffer(torch.rand(4, 1, 1, 1), persistent=False),
    ),
    "arguments in another order": lambda: Net(swapped, conv=conv(), other=conv(), minus=Minus()),
    "one module under two names": under_two_names,
    "weight norm": lambda: Net(
        lambda m, x: m.conv(x), conv=nn.utils.parametrizations.weight_norm(conv())
    ),
    "dict output": lambda: Net(lambda m, x: {"a": m.conv(x), "b": [x, (x * 2,)]}, conv=conv()),
    "returns its input": lambda: Net(lambda m, x: (x, m.conv(x)), conv=conv()),
}


@pytest.fixture(scope="module")
def converted():
    """Convert each case once: name -> (torch model, result)."""
    done = {}

    def get(name):
        if name not in done:
            torch.manual_seed(0)
            model = CASES[name]().eval()
            done[name] = model, mlxport.convert(model, torch.randn(SHAPE))
        return done[name]

    return get


@pytest.mark.parametrize("name", CASES)
def test_parity_holds(name, converted):
    _, result = converted(name)
    assert result.report.passed, result.report.to_text()


@pytest.mark.parametrize("name", CASES)
def test_parameter_names_are_pytorchs(name, converted):
    model, result = converted(name)
    state = set(model.state_dict())
    changed = {"a model that is a list", "names MLX reserves", "module dict", "weight norm"}
    for entry in result.conversion.plan.entries:
        assert set(entry.sources) <= state
        assert entry.sources == entry.targets or name in changed


@pytest.mark.parametrize("name", CASES)
def test_every_key_of_the_state_dict_is_accounted_for(name, converted):
    model, result = converted(name)
    plan = result.conversion.plan
    used = {key for entry in plan.entries for key in entry.sources}
    assert used | set(plan.ignored) | set(plan.aliases) == set(model.state_dict())


@pytest.mark.parametrize(
    ("name", "transposes"),
    [
        ("skip", 2),
        ("mean head", 1),
        ("pool head", 1),
        ("flatten head", 1),
        ("interpolate", 2),
        ("pad", 2),
        ("in place", 2),
        ("module called twice", 2),
        ("siamese", 3),
        ("stages", 2),
        ("permute by hand", 2),
        ("a model that is a list", 2),
    ],
)
def test_transposes_stand_only_at_the_ends(name, transposes, converted):
    _, result = converted(name)
    assert result.conversion.transposes == transposes, result.source


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.ConstantPad2d(1, 0.5), (4, 5)),
        (nn.Conv3d(4, 2, 3), (4, 5, 5, 5)),
        (nn.MaxPool2d(2), (3, 6, 6)),
        (nn.ConvTranspose1d(3, 2, 3), (3, 7)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_input_without_a_batch_axis(layer, shape):
    torch.manual_seed(0)
    result = mlxport.convert(Net(lambda m, x: m.layer(x) * 2, layer=layer), torch.randn(shape))
    assert result.report.passed, result.report.to_text()


def test_channels_last_ends_need_no_transpose():
    torch.manual_seed(0)
    result = mlxport.convert(CASES["skip"]().eval(), torch.randn(SHAPE), channels_last=True)
    assert result.conversion.transposes == 0
    assert result.report.passed, result.report.to_text()
    assert result.conversion.modules[-1].inputs[0].order == (0, 2, 3, 4, 1)


class Odd(nn.Module):
    def forward(self, x):
        y = torch.as_strided_scatter(x, x, x.shape, x.stride())
        y = torch.as_strided_scatter(y, -x, x.shape, x.stride())
        return y + torch.linalg.eigvals(x).real.sum()


def test_all_unsupported_operations_are_listed_with_count_and_line():
    model = Net(lambda m, x: m.odd(x), odd=Odd())
    with pytest.raises(UnsupportedError) as caught:
        mlxport.convert(model, torch.randn(2, 4, 4))
    message = str(caught.value)
    assert re.search(r"aten\.as_strided_scatter\.default +x2 ", message)
    assert re.search(r"aten\.linalg_eigvals\.default +x1 ", message)
    assert "first in odd (" in message
    assert "test_translate.py:" in message


def test_the_mode_of_the_model_makes_no_difference():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    sources = {
        mlxport.convert(model.train(mode), torch.randn(2, 3, 5, 5), verify=False).source
        for mode in (True, False)
    }
    assert len(sources) == 1


def test_converting_twice_gives_the_same_source():
    def source():
        torch.manual_seed(0)
        return mlxport.convert(CASES["stages"](), torch.randn(SHAPE), verify=False).source

    assert source() == source()
