"""Modules paired by name."""

import re

import mlx.nn as nn
import pytest

from mlxport.converter.errors import OptionsError, ParityError
from mlxport.converter.parity.hand_port.pair_modules import pair_modules


class Part(nn.Module):
    """Callable, with inner modules of the given names; a list of modules where it is a number."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)

    def __call__(self, x):
        return x


class Mute(nn.Module):
    """Holds modules and cannot be called."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def test_equal_names():
    model = Part(a=Part(b=Part()), blocks=[Part(), Part()])
    found = pair_modules(["a", "a.b", "blocks.0", "blocks.1"], model)
    assert dict(found.pairs) == {n: n for n in ("a", "a.b", "blocks.0", "blocks.1")}
    assert (dict(found.in_torch), found.in_mlx) == ({}, ())


def test_a_sequential_adds_layers():
    model = Part(enc=nn.Sequential(Part(), nn.Sequential(Part())))
    found = pair_modules(["enc", "enc.0", "enc.1", "enc.1.0"], model)
    assert dict(found.pairs) == {
        "enc": "enc",
        "enc.0": "enc.layers.0",
        "enc.1": "enc.layers.1",
        "enc.1.0": "enc.layers.1.layers.0",
    }


def test_of_two_containers_the_innermost_takes_what_both_would():
    model = Part(both=Part(conv=Part(), norm=Part()))
    names = {"outer.inner.conv": "both.conv", "norms.norm": "both.norm"}
    found = pair_modules(
        ["norms", "norms.norm", "outer", "outer.inner", "outer.inner.conv"], model, names
    )
    assert dict(found.pairs) == {
        "norms.norm": "both.norm",
        "outer.inner": "both",
        "outer.inner.conv": "both.conv",
    }


def test_what_cannot_be_called_is_no_counterpart():
    found = pair_modules(["a", "a.b"], Part(a=Mute(b=Part())))
    assert dict(found.pairs) == {"a.b": "a.b"}
    assert dict(found.in_torch) == {"a": "the MLX model has no a"}


def test_what_stands_alone_is_listed_in_order():
    model = Part(a=Part(), layers=[Part() for _ in range(11)])
    found = pair_modules(["z", "a", "c"], model)
    assert list(found.in_torch) == ["z", "c"]
    assert found.in_mlx == tuple(f"layers.{i}" for i in range(11))


ALL = {"encoder": "enc", "encoder.0": "enc.layers.0", "encoder.1": "enc.layers.1"}
INNER = {path: target for path, target in ALL.items() if path != "encoder"}


@pytest.fixture
def renamed():
    """A model that calls `encoder` otherwise."""
    return Part(a=Part(), enc=nn.Sequential(Part(), Part()))


PATHS = ["a", "encoder", "encoder.0", "encoder.1"]


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        ({"encoder": "enc"}, ALL),
        ({"encoder.*": "enc.*"}, ALL),
        ({"encoder.*": "enc.layers.*"}, ALL),
        ({"enc**r": "enc"}, ALL),
        ({"re:encoder(.*)": r"enc\1"}, ALL),
        ({re.compile(r"encoder\.(.*)"): r"enc.\1"}, ALL),
        ({"encoder.0": "enc.1"}, {"encoder.0": "enc.layers.1"}),
        ({"re:encoder": None, "encoder.*": "enc.*"}, INNER),
        ({"encoder": None}, {}),
        ({"encoder.1": None, "encoder": "enc"}, {k: ALL[k] for k in ("encoder", "encoder.0")}),
    ],
    ids=[
        "prefix",
        "star",
        "MLX's own names",
        "stars inside",
        "text of a regex",
        "regex",
        "one, and no container of it",
        "container left out",
        "all left out",
        "one left out",
    ],
)
def test_names(renamed, names, pairs):
    found = pair_modules(PATHS, renamed, names)
    assert dict(found.pairs) == {"a": "a"} | pairs
    assert set(found.in_torch) == set(PATHS) - set(found.pairs)
    assert set(found.in_mlx) == {"enc", "enc.layers.0", "enc.layers.1"} - set(pairs.values())


def test_names_go_before_equal_names():
    found = pair_modules(["a", "b"], Part(a=Part(), b=Part()), {"a": "b", "b": "a"})
    assert dict(found.pairs) == {"a": "b", "b": "a"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"decoder.*": "dec.*"}, r"rename no module of PyTorch:\n  decoder"),
        (
            {"encoder.*": "down.*"},
            r"no module of the MLX model:\n  encoder.* -> down.* \(encoder.0",
        ),
        ({"c": None}, r"does not have:\n  c"),
        ({"encoder": "a"}, r"one name:\n  a: a, encoder"),
        ({"re:(": "a"}, "regular expression"),
    ],
    ids=["not in PyTorch", "not in MLX", "nothing left out", "two to one", "broken"],
)
def test_names_that_do_not_fit(renamed, names, message):
    with pytest.raises(OptionsError, match=message):
        pair_modules(PATHS, renamed, names)


def test_nothing_pairs(renamed):
    with pytest.raises(ParityError, match=r"in PyTorch: b, c\n  in MLX: a, enc(.|\n)*names="):
        pair_modules(["b", "c"], renamed)


@pytest.mark.parametrize(
    ("paths", "model"), [([], Part(a=Part())), (["a"], Part())], ids=["in PyTorch", "in MLX"]
)
def test_a_model_of_one_piece(paths, model):
    assert not pair_modules(paths, model).pairs  # the model itself is judged


def test_a_name_may_fit_tensors_alone():
    names = {"a": "x", "pos": "embed.pos"}
    found = pair_modules(["a"], Part(x=Part()), names, ["pos", "a.weight"])
    assert dict(found.pairs) == {"a": "x"}
    with pytest.raises(OptionsError, match="rename no module of PyTorch:\n  pos"):
        pair_modules(["a"], Part(x=Part()), names, ["a.weight"])
