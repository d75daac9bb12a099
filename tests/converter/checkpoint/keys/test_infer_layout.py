"""What tensors are taken for without a model: only what evidence or the user settles."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlxport.converter.checkpoint.keys.folds import Source, plain_sources
from mlxport.converter.checkpoint.keys.infer_layout import (
    Choice,
    Reading,
    parse_layers,
    read_tensors,
)
from mlxport.converter.errors import OptionsError
from mlxport.converter.plan.steps import conv_transpose_weight, conv_weight
from mlxport.converter.plan.tensor import TensorSpec

Shapes = dict[str, tuple[int, ...]]


def read(shapes: Shapes, *layers: str) -> dict[str, Reading]:
    specs = {name: TensorSpec("F32", shape) for name, shape in shapes.items()}
    return read_tensors(plain_sources(specs), parse_layers(layers))


# weight, bias -> what is left
SETTLED: dict[str, tuple[tuple[int, ...], tuple[int, ...], str]] = {
    "bias of the second axis": ((6, 4, 3, 3, 3), (4,), "ConvTranspose3d:1"),
    "a multiple of the second axis": ((6, 4, 3, 3), (12,), "ConvTranspose2d:3"),
    "bias of the first, no multiple of the second": ((6, 4, 3, 3), (6,), "Conv2d"),
    "more in than out": ((4, 8, 3, 3, 3), (4,), "Conv3d"),
    "a bias like the weight": ((3, 4, 5), (3, 4, 5), "LayerNorm"),
}


@pytest.mark.parametrize(("weight", "bias", "kind"), SETTLED.values(), ids=SETTLED)
def test_a_bias_may_leave_one_reading(
    weight: tuple[int, ...], bias: tuple[int, ...], kind: str
) -> None:
    reading = read({"up.weight": weight, "up.bias": bias})["up.weight"]
    assert reading.kind == kind
    assert reading.steps is not None
    assert reading.options == ()


OPEN: dict[str, tuple[Shapes, list[str]]] = {
    "square": ({"a.weight": (4, 4, 3, 3), "a.bias": (4,)}, ["Conv2d", "ConvTranspose2d:1"]),
    "depthwise, or upsampling so": (
        {"a.weight": (4, 1, 3, 3, 3), "a.bias": (4,)},
        ["Conv3d", "ConvTranspose3d:4"],
    ),
    "groups might be": (
        {"a.weight": (8, 4, 3, 3, 3), "a.bias": (8,)},
        ["Conv3d", "ConvTranspose3d:2"],
    ),
    "no bias": ({"a.weight": (6, 4, 3, 3)}, ["Conv2d", "ConvTranspose2d", "RMSNorm"]),
    "one spatial axis": ({"a.weight": (4, 6, 3), "a.bias": (4,)}, ["Conv1d", "Bilinear"]),
}


@pytest.mark.parametrize(("shapes", "kinds"), OPEN.values(), ids=OPEN)
def test_what_fits_several_is_open(shapes: Shapes, kinds: list[str]) -> None:
    reading = read(shapes)["a.weight"]
    assert (reading.kind, reading.steps) == ("open", None)
    assert reading.options == tuple(f"a.weight={kind}" for kind in kinds)


def test_a_name_is_a_hint_and_no_proof() -> None:
    reading = read({"upconv.weight": (4, 4, 3, 3), "upconv.bias": (4,)})["upconv.weight"]
    assert reading.kind == "open"
    assert "its name hints at ConvTranspose" in reading.evidence


def test_a_norm_is_a_hint_and_no_proof() -> None:
    shapes: Shapes = {"0.weight": (8, 4, 3, 3), "1.weight": (8,), "2.weight": (8, 4, 3, 3)}
    found = read(shapes | {"3.weight": (4,)})
    assert "a hint at Conv" in found["0.weight"].evidence
    assert "a hint at ConvTranspose" in found["2.weight"].evidence
    assert {found[name].kind for name in ("0.weight", "2.weight")} == {"open"}


def test_the_rest_stays_as_it_is() -> None:
    found = read({"a.weight": (3, 4), "a.bias": (3,), "pos_embed": (1, 7, 4), "scale": ()})
    assert all(reading.steps == () for reading in found.values())


def test_counters_are_left_out() -> None:
    reading = read({"bn.num_batches_tracked": ()})["bn.num_batches_tracked"]
    assert reading.ignored == "counts training batches"


# every configuration torch builds is either read rightly or open
@given(
    transposed=st.booleans(),
    rank=st.integers(1, 3),
    groups=st.integers(1, 3),
    inner=st.integers(1, 4),
    outer=st.integers(1, 4),
    bias=st.booleans(),
)
def test_nothing_is_ever_read_wrongly(
    transposed: bool, rank: int, groups: int, inner: int, outer: int, bias: bool
) -> None:
    name = f"{'ConvTranspose' if transposed else 'Conv'}{rank}d"
    make: Any = getattr(torch.nn, name)
    layer = make(groups * inner, groups * outer, 2, groups=groups, bias=bias)
    shapes = {key: tuple(tensor.shape) for key, tensor in layer.state_dict().items()}
    right = conv_transpose_weight(groups) if transposed else conv_weight(rank)
    reading = read(shapes)["weight"]
    label = name + (f":{groups}" if transposed and bias else "")
    if reading.steps is None:
        assert f"weight={label}" in reading.options
    else:
        assert (reading.kind, reading.steps) == (label, right)
    said = f"weight={name}" + (f":{groups}" if transposed else "")
    assert read(shapes, said)["weight"].steps == right


def test_the_last_choice_that_fits_counts() -> None:
    shapes: Shapes = {"up.weight": (4, 4, 3, 3), "a.weight": (4, 4, 3, 3)}
    found = read(shapes, "*=Conv", "up*=ConvTranspose2d:2")
    assert found["a.weight"].kind == "Conv2d"
    assert found["up.weight"].steps == conv_transpose_weight(2)


CHOICES = {
    "Conv": conv_weight(1),
    "Conv1d": conv_weight(1),
    "ConvTranspose": conv_transpose_weight(1),
    "ConvTranspose1d:2": conv_transpose_weight(2),
    "Parameter": (),
    "RMSNorm": (),
}


@pytest.mark.parametrize(("said", "steps"), CHOICES.items(), ids=CHOICES)
def test_choices(said: str, steps: tuple[Any, ...]) -> None:
    assert read({"a.weight": (4, 2, 3)}, f"a.weight={said}")["a.weight"].steps == steps


REFUSED = {
    "no such tensor": (["b.*=Conv2d"], r"layers=\['b\.\*=Conv2d'\]: there is no such tensor"),
    "another rank": (["a.*=Conv3d"], "its rank is not 2"),
    "a bias that does not fit": (["c.weight=Conv2d"], "its bias has 4 values, not 6"),
    "other groups": (["c.weight=ConvTranspose2d:2"], "makes 1 groups"),
    "groups that do not divide": (["a.*=ConvTranspose2d:5"], "do not divide 4"),
    "no Bilinear": (["a.*=Bilinear"], "it has 3 axes"),
}


@pytest.mark.parametrize(("layers", "message"), REFUSED.values(), ids=REFUSED)
def test_what_speaks_against_a_choice_is_said(layers: list[str], message: str) -> None:
    shapes: Shapes = {"a.weight": (4, 4, 3, 3), "c.weight": (6, 4, 3, 3), "c.bias": (4,)}
    with pytest.raises(OptionsError, match=message):
        read(shapes, *layers)


@pytest.mark.parametrize("option", ["a", "=Conv", "a=Dense", "a=Conv4d", "a=Conv:x", "a=Linear:2"])
def test_options_that_do_not_read(option: str) -> None:
    with pytest.raises(OptionsError, match="GLOB=CLASS"):
        parse_layers([option])


def test_options() -> None:
    assert parse_layers(["a=b.weight=Conv3d:2"]) == [Choice("a=b.weight", "Conv3d", 2)]


def test_weight_norm_is_one_weight() -> None:
    shapes: Shapes = {"a.weight_g": (6, 1, 1), "a.weight_v": (6, 4, 3), "a.bias": (4,)}
    assert read(shapes)["a.weight"].kind == "ConvTranspose1d:1"
    assert (
        np.prod(
            plain_sources({k: TensorSpec("F32", s) for k, s in shapes.items()})[
                "a.weight"
            ].spec.shape
        )
        == 72
    )


class Counted(Mapping[str, Source]):
    """Sources, and how often one of them was asked for or passed."""

    def __init__(self, sources: Mapping[str, Source]):
        self.sources = sources
        self.count = 0

    def __getitem__(self, name: str) -> Source:
        self.count += 1
        return self.sources[name]

    def __iter__(self) -> Iterator[str]:
        for name in self.sources:
            self.count += 1
            yield name

    def __len__(self) -> int:
        return len(self.sources)


def looked_at(convolutions: int) -> int:
    shapes = {f"net.{i}.weight": (4, 4, 1, 1) for i in range(convolutions)}
    specs = {name: TensorSpec("F32", shape) for name, shape in shapes.items()}
    sources = Counted(plain_sources(specs))
    read_tensors(sources)
    return sources.count


def test_each_tensor_is_looked_at_a_fixed_number_of_times() -> None:
    assert looked_at(400) == 4 * looked_at(100)
