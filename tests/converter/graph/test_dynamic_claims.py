"""Claims of dynamic sizes: how they are made, recorded, verified, refused and refuted."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn
import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

import mlxport
from mlxport.converter.errors import CaptureError, OptionsError, UnsupportedError
from mlxport.converter.graph.capture.size_guards import pattern_of, satisfied
from mlxport.converter.graph.ir.dtypes import mlx_dtype
from mlxport.converter.graph.ops import registry
from mlxport.converter.tasks.convert import Converted

IMAGE = (2, 4, 6, 8)
SIDES = (0, 2, 3)
OTHERS = ((3, 4, 10, 12), (1, 4, 4, 14))


def convert(model: nn.Module, *args: Any, **options: Any) -> Converted:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mlxport.convert(model.eval(), args, **options)


def sample(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_agrees(converted: Converted, model: nn.Module, x: torch.Tensor) -> None:
    got = np.array(converted.model(mx.array(x.numpy())))
    np.testing.assert_allclose(got, model(x).detach().numpy(), rtol=0, atol=1e-5)


class Tokens(nn.Module):
    """An image as a sequence of its pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).transpose(1, 2)


class Counted(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.arange(x.shape[3])


class ThereAndBack(nn.Module):
    """A convolution, its result as a sequence, and the image again."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, **settings)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolution(x)
        n, c, h, w = x.shape
        y = x.flatten(2).transpose(1, 2) * 2
        return y.transpose(1, 2).reshape(n, c, h, w)


# -- several inputs, submodules ------------------------------------------------------------------


class TwoInputs(nn.Module):
    """A batch of two inputs is one size; the second has a size of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.mix = nn.Linear(4, 4)

    def forward(self, tokens: torch.Tensor, *, context: dict[str, torch.Tensor]) -> torch.Tensor:
        keys = self.mix(context["states"])
        scores = self.embed(tokens) @ keys.transpose(1, 2) + context["mask"][:, None]
        return scores.softmax(-1) @ keys


def two_inputs(batch: int, tokens: int, states: int) -> tuple[torch.Tensor, dict[str, Any]]:
    generator = torch.Generator().manual_seed(batch)
    numbers = torch.randint(0, 11, (batch, tokens), generator=generator)
    context = {"states": sample(batch, states, 4), "mask": sample(batch, states, seed=3)}
    return numbers, {"context": context}


def test_a_size_of_several_inputs_is_one() -> None:
    args, kwargs = two_inputs(2, 5, 3)
    model = TwoInputs().eval()
    converted = convert(model, args, kwargs=kwargs, dynamic=(0, 1))
    assert converted.report is not None
    assert converted.report.passed, converted.report.verdict
    assert converted.report.sizes == {"n": 2, "length": 5, "length2": 3}
    other = converted.report.others[0].sizes
    assert len(set(other.values())) == 3  # two alike would not tell swapped axes
    assert not set(other.items()) & set(converted.report.sizes.items())
    numbers, given = two_inputs(3, 7, 6)
    own = model(numbers, **given).detach()
    arrays = {name: mx.array(x.numpy()) for name, x in given["context"].items()}
    got = np.array(converted.model(mx.array(numbers.numpy()), context=arrays))
    np.testing.assert_allclose(got, own.numpy(), rtol=0, atol=1e-5)


class Windowed(nn.Module):
    """Takes tokens and the sides of the image they come from, as Swin's blocks do."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, h: int, w: int) -> torch.Tensor:
        n, _, c = x.shape
        y = x.view(n, h // 2, 2, w // 2, 2, c).mean((2, 4), keepdim=True)
        return self.mix(x) + y.expand(n, h // 2, 2, w // 2, 2, c).reshape(n, h * w, c)


class Stages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 2, stride=2)
        self.first = Windowed()
        self.second = Windowed()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        n, c, h, w = x.shape
        x = x.flatten(2).transpose(1, 2)
        x = self.second(self.first(x, h, w), h, w)
        return x.transpose(1, 2).reshape(n, c, h, w)


def test_a_submodule_is_given_the_sizes_its_inputs_do_not_tell() -> None:
    model = Stages().eval()
    converted = convert(model, sample(2, 3, 8, 16), dynamic=SIDES)
    assert converted.report is not None
    assert converted.report.passed, converted.report.verdict
    assert converted.source.count("class Windowed") == 1
    assert "def __call__(self, x: mx.array, " in converted.source
    x = sample(3, 3, 24, 8)
    assert_agrees(converted, model, x)


class SharedBlock(nn.Module):
    """One module called at two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.block = ThereAndBack(kernel_size=3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(self.block(F.max_pool2d(x, 2)), size=x.shape[2:]) + self.block(x)


def test_a_module_called_at_two_sizes() -> None:
    model = SharedBlock().eval()
    converted = convert(model, sample(*IMAGE), dynamic=SIDES)
    assert converted.report is not None
    assert converted.report.passed, converted.report.verdict
    for other in OTHERS:
        x = sample(*other)
        assert_agrees(converted, model, x)


class LayerTwice(nn.Module):
    """One layer called at two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(F.max_pool2d(self.layer(x), 2))


@pytest.mark.parametrize("dynamic", [None, SIDES], ids=["fixed", "dynamic"])
def test_a_second_call_in_another_shape_is_judged(
    monkeypatch: pytest.MonkeyPatch, dynamic: tuple[int, ...] | None
) -> None:
    model, x = LayerTwice().eval(), sample(*IMAGE)
    converted = convert(model, x, dynamic=dynamic)
    assert converted.report is not None
    assert converted.report.passed, converted.report.verdict
    called = mlx.nn.Conv2d.__call__

    def wrong_at_few_rows(layer: mlx.nn.Conv2d, given: mx.array) -> mx.array:
        return called(layer, given) + (0.01 if given.shape[1] < IMAGE[2] else 0.0)

    monkeypatch.setattr(mlx.nn.Conv2d, "__call__", wrong_at_few_rows)
    report = mlxport.verify(converted.model, model, x)
    failed = [
        (entry.path, entry.call) for entry in report.entries if entry in report.failed_entries
    ]
    assert [(entry.path, entry.call) for entry in report.entries] == [("layer", 0), ("layer", 1)]
    assert failed == [("layer", 1)]


LEAVES = {
    "adaptive pooling": (nn.AdaptiveAvgPool2d((2, None)), IMAGE, SIDES),
    "upsample by a factor": (nn.Upsample(scale_factor=1.5, mode="bilinear"), IMAGE, SIDES),
    "upsample to a size": (nn.Upsample(size=(5, 7)), IMAGE, SIDES),
    "flatten": (nn.Flatten(), IMAGE, (0,)),
    "flatten the sides": (nn.Flatten(2), IMAGE, SIDES),
    "unflatten": (nn.Unflatten(1, (2, 2)), IMAGE, SIDES),
    "transposed convolution": (nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1), IMAGE, SIDES),
    "instance norm": (nn.InstanceNorm2d(4, affine=True), IMAGE, SIDES),
    "LSTM": (nn.LSTM(4, 3, bidirectional=True, batch_first=True), (2, 5, 4), (0,)),
    "attention": (nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), (2, 5, 4), (0, 1)),
    "pixel shuffle": (nn.PixelShuffle(2), IMAGE, SIDES),
}


@pytest.mark.parametrize("name", LEAVES)
def test_layers_take_the_sizes_that_come(name: str) -> None:
    layer, shape, dynamic = LEAVES[name]
    converted = convert(layer, sample(*shape), dynamic=dynamic)
    assert converted.report is not None
    assert converted.report.passed, converted.report.verdict
    assert converted.report.others[0].sizes.keys() == converted.report.sizes.keys()


# -- what is recorded, and what the source says --------------------------------------------------


@pytest.fixture(scope="module")
def with_sides() -> Converted:
    model = ThereAndBack(kernel_size=2, stride=2)
    return convert(model, sample(2, 4, 8, 12), dynamic=SIDES)


def test_the_source_names_the_sizes(with_sides: Converted) -> None:
    assert "Takes x (n, 4, h, w); gives (n, 4, h // 2, w // 2)" in " ".join(
        with_sides.source.split()
    )
    assert "_, _, w, _ = " in with_sides.source or ".shape[2]" in with_sides.source


def test_the_record_says_what_is_dynamic(with_sides: Converted) -> None:
    data = with_sides.conversion.to_json()
    assert data["dynamic"].keys() == {"n", "h", "w"}
    assert data["modules"][-1]["inputs"][0]["shape"] == ["n", 4, "h", "w"]
    assert data["modules"][-1]["outputs"][0]["shape"] == ["n", 4, "h // 2", "w // 2"]
    again = type(with_sides.conversion).from_json(data)
    assert again.dynamic == with_sides.conversion.dynamic


def test_the_report_says_at_which_sizes(with_sides: Converted) -> None:
    report = with_sides.report
    assert report is not None
    assert report.sizes == {"n": 2, "h": 8, "w": 12}
    told = ", ".join(f"{name}={size}" for name, size in report.others[0].sizes.items())
    assert "n=2, h=8, w=12" in report.verdict
    assert told in report.verdict
    again = type(report).from_json(report.to_json())
    assert again.others[0].sizes == report.others[0].sizes
    assert again.passed


def test_static_stays_the_default() -> None:
    converted = convert(nn.Flatten(), sample(*IMAGE))
    assert converted.report is not None
    assert not converted.report.others
    assert converted.conversion.to_json()["dynamic"] == {}
    assert "(2, 4, 6, 8)" in converted.source


def test_the_same_model_gives_the_same_text() -> None:
    model = Stages().eval()
    texts = {convert(model, sample(2, 3, 8, 16), dynamic=SIDES, verify=False).source for _ in "ab"}
    assert len(texts) == 1


def test_torch_exports_own_form() -> None:
    model = Tokens().eval()
    batch = Dim("batch", min=2, max=9)
    for shapes in ({"x": {0: batch, 2: Dim.DYNAMIC}}, ({0: Dim.AUTO, 2: Dim.AUTO},)):
        converted = convert(model, sample(*IMAGE), dynamic_shapes=shapes)
        assert converted.report is not None
        assert converted.report.passed, converted.report.verdict
        assert converted.report.sizes == {"n": 2, "h": 6}
    assert convert(
        model, sample(*IMAGE), dynamic_shapes={"x": {0: batch}}, verify=False
    ).conversion.dynamic == {"n": (2, 9)}


# -- sizes at which the capture does not hold ----------------------------------------------------


class Branches(nn.Module):
    """Computes one thing at multiples of four up to 512 rows, another elsewhere."""

    def forward(self, x: torch.Tensor, *, rows: torch.Tensor) -> torch.Tensor:
        total = x.sum((1, 2, 3))[:, None]
        if x.shape[2] % 4 == 0 and rows.shape[1] <= 512:
            return total + rows
        return total - rows


def test_the_model_raises_where_torch_takes_another_branch() -> None:
    model = Branches()
    converted = convert(
        model, sample(2, 3, 8, 6), kwargs={"rows": sample(2, 5)}, dynamic=(0, 1, 2, 3)
    )
    assert converted.report is not None
    assert converted.report.passed, converted.report.verdict
    assert set(converted.conversion.conditions) == {"h % 4 == 0", "length <= 512"}
    assert "as long as h % 4 == 0 and length <= 512" in " ".join(converted.source.split())
    again = type(converted.conversion).from_json(converted.conversion.to_json())
    assert again.conditions == converted.conversion.conditions

    def run(*shape: int, rows: int) -> mx.array:
        return converted.model(mx.zeros(shape), rows=mx.ones((shape[0], rows)))

    assert run(5, 3, 12, 1, rows=512).tolist() == [[1.0] * 512] * 5
    for shape, rows in (((5, 3, 13, 1), 7), ((5, 3, 12, 1), 513)):
        with pytest.raises(ValueError, match="expected h % 4 == 0 and length <= 512"):
            run(*shape, rows=rows)


class Positions(nn.Module):
    """Rows of tables by the places counted along a sequence, in three ways."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 4)
        self.other = nn.Parameter(torch.randn(10, 4))
        self.third = nn.Parameter(torch.randn(4, 9))

    def forward(self, x: torch.Tensor, way: str) -> torch.Tensor:
        places = torch.arange(x.shape[1])
        if way == "embedding":
            return x + self.table((places + 2).unsqueeze(0).expand(x.shape[0], -1))
        if way == "index":
            return x + self.other[places]
        return x + self.third.index_select(1, torch.arange(0, x.shape[1])).t()


@pytest.mark.parametrize(
    ("way", "condition"),
    [
        ("embedding", "length + 2 <= 12"),
        ("index", "length <= 10"),
        ("index_select", "length <= 9"),
    ],
)
def test_positions_stay_in_their_table(way: str, condition: str) -> None:
    """Beyond it PyTorch raises, and MLX reads whatever lies there."""
    converted = convert(Positions(), sample(2, 5, 4), way, dynamic=(0, 1))
    assert converted.report is not None
    assert converted.report.passed, converted.report.verdict
    assert converted.conversion.conditions == (condition,)
    longest = next(n for n in range(20, 0, -1) if satisfied([condition], {"length": n}))
    assert converted.model(mx.zeros((1, longest, 4))).shape == (1, longest, 4)
    with pytest.raises(ValueError, match="expected length"):
        converted.model(mx.zeros((1, longest + 1, 4)))


def test_an_axis_that_would_go_at_one_has_to_be_longer() -> None:
    class Squeezed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(1, keepdim=True).squeeze()

    converted = convert(Squeezed(), sample(3, 4), dynamic=0)
    assert converted.conversion.conditions == ("n > 1",)
    assert converted.model(mx.ones((7, 4))).shape == (7,)
    with pytest.raises(ValueError, match="n > 1"):
        converted.model(mx.ones((1, 4)))


@pytest.mark.parametrize(
    ("accepted", "example", "expected"),
    [
        (range(1, 131), 6, []),
        (range(2, 131), 6, ["h >= 2"]),
        (range(4, 131, 4), 8, ["h % 4 == 0"]),
        (range(10, 131, 16), 26, ["h % 16 == 10"]),
        ([n for n in range(8, 131) if n % 4 < 2], 8, ["h % 4 in (0, 1)", "h >= 8"]),
        (range(1, 21), 7, ["h <= 20"]),
        ([6], 6, ["h == 6"]),
        ([1, *range(3, 131)], 5, ["h >= 3"]),
        ([n for n in range(1, 131) if n * n % 7 == 2], 4, ["h % 7 in (3, 4)"]),
    ],
    ids=["all", "two", "multiples", "remainder", "two remainders", "most", "one", "gap", "squares"],
)
def test_sizes_are_described_by_a_rule(
    accepted: Sequence[int], example: int, expected: list[str]
) -> None:
    rule = pattern_of(list(accepted), example, 130)
    assert rule is not None
    assert list(rule.conditions("h")) == expected
    assert all(satisfied(expected, {"h": n}) == (n in rule.sizes()) for n in range(1, 131))
    assert set(rule.sizes()) <= set(accepted)


def test_sizes_that_follow_no_rule_have_none() -> None:
    squares = [n * n for n in range(1, 12)]
    assert pattern_of(squares, 9, 130) is None


# -- what is refused, and what is caught ---------------------------------------------------------


def refused(error: type[Exception], model: nn.Module, x: torch.Tensor, **options: Any) -> str:
    with pytest.raises(error) as caught:
        convert(model, x, **options)
    return str(caught.value)


def test_an_axis_torch_finds_fixed_is_told() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions = nn.Parameter(torch.randn(6, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.positions

    message = refused(CaptureError, Table(), sample(*IMAGE), dynamic=SIDES)
    assert "axis 2 is 6" in message
    assert "axis 3 is 8" in message
    assert convert(Table(), sample(*IMAGE), dynamic=0).report.passed  # type: ignore[union-attr]


def test_sizes_torch_accepts_at_the_example_alone_are_told() -> None:
    class OneWayOrTheOther(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if x.shape[2] // 2 == 3 and x.shape[2] % 2 == 0 else x - 1

    message = refused(CaptureError, OneWayOrTheOther(), sample(*IMAGE), dynamic=2)
    assert "torch accepts no other size" in message
    assert "Guard failed" in message
    assert "axis 2" in message


def test_an_axis_of_one_cannot_be_dynamic() -> None:
    message = refused(OptionsError, nn.Flatten(), sample(1, 4, 6), dynamic=(0, 2))
    assert "axis 0" in message
    assert "two or more" in message


@pytest.mark.parametrize(
    "options",
    [{"dynamic": ()}, {"dynamic": (-1,)}, {"dynamic": 0, "dynamic_shapes": ({0: Dim.AUTO},)}],
    ids=["no axes", "counted from the end", "both forms"],
)
def test_wishes_that_make_no_sense(options: dict[str, Any]) -> None:
    refused(OptionsError, nn.Flatten(), sample(2, 3), **options)


def test_a_handler_that_needs_a_number_is_refused_by_op_and_argument(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def needs_a_number(cx: Any, end: Any, **_: Any) -> Any:
        return cx.call("mx.array", list(range(end)))

    changed = registry.Op("aten.arange.default", needs_a_number)
    monkeypatch.setitem(registry.OPS, "aten.arange.default", changed)

    message = refused(UnsupportedError, Counted(), sample(*IMAGE), dynamic=3)
    assert "aten.arange.default" in message
    assert "'end'" in message


def test_a_size_baked_in_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that writes the example's number is right at the example's size only."""

    def baked(cx: Any, x: Any, size: Any) -> Any:
        numbers = [-1, *(n if isinstance(n, int) else 48 for n in cx.shape[1:])]
        return cx.emit("x.reshape(shape)", x=cx.logical(x), shape=tuple(numbers))

    monkeypatch.setitem(registry.OPS, "aten.view.default", registry.Op("aten.view.default", baked))
    model = Tokens().eval()
    converted = convert(model, sample(*IMAGE), verify=False, dynamic=SIDES)
    x = sample(*IMAGE)
    assert_agrees(converted, model, x)  # at the example's size nothing is wrong
    report = convert(model, sample(*IMAGE), dynamic=SIDES).report
    assert report is not None
    assert not report.passed
    assert "Cannot reshape" in report.verdict


def test_a_wrong_value_at_another_size_fails_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def baked(cx: Any, end: Any, **_: Any) -> Any:
        return cx.emit("mx.minimum(mx.arange(end, dtype=t), 7)", end=end, t=mlx_dtype(torch.int64))

    monkeypatch.setitem(
        registry.OPS, "aten.arange.default", registry.Op("aten.arange.default", baked)
    )

    report = convert(Counted(), sample(*IMAGE), dynamic=3).report
    assert report is not None
    assert not report.passed
    assert "FAILED" in report.verdict
    assert "w=9" in report.verdict
    assert report.culprit == ""
    assert not type(report).from_json(report.to_json()).passed
    assert "FAILED" in report.to_text()


class Halves(nn.Module):
    """Needs a size that Python reads off the input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], x.shape[1] * 2, 2).sum(-1)


def test_what_model_py_says_of_shapeless_compilation_holds() -> None:
    """Why it must not be used. Where this fails, MLX has learnt it, and the text may go."""
    converted = convert(Halves(), sample(2, 3, 4), dynamic=(0, 1))
    assert "with shapeless=True it would go on with the sizes of the first call" in converted.source
    assert converted.model is not None
    anew, shapeless = mx.compile(converted.model), mx.compile(converted.model, shapeless=True)
    for sizes in ((2, 3), (5, 6)):
        assert anew(mx.ones((*sizes, 4))).shape == (sizes[0], sizes[1] * 2)
    assert shapeless(mx.ones((2, 3, 4))).shape == (2, 6)
    assert shapeless(mx.ones((5, 6, 4))).shape == (2, 30)  # not (5, 12), and no error
