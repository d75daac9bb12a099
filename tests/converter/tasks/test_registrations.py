"""Rules and handlers that users register: they stand as mlxport's own do."""

import importlib
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import mlx.nn
import pytest
import torch

import mlxport
from mlxport import layers
from mlxport.converter.errors import OptionsError, UnsupportedError
from mlxport.converter.graph import ops
from mlxport.converter.plan.steps import conv_weight
from mlxport.converter.rules import registry
from mlxport.converter.rules.entries import unchanged_entries
from mlxport.converter.tasks import support

Define = Callable[..., ModuleType]

SCALED = """
import mlx.core as mx
import mlx.nn as nn
{imports}

class Scaled(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = mx.ones((size,))

    def __call__(self, x):
        return x * self.weight


class Outer:
    class Inner(nn.Module):
        pass


Model = Scaled


def twice(x):
    return 2 * x
"""


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    """Leave the registries as they were."""
    held = registry.RULES, ops.registry.OPS
    before = [dict(entry_of) for entry_of in held]
    yield
    for entry_of, entries in zip(held, before, strict=True):
        entry_of.clear()
        entry_of.update(entries)


@pytest.fixture
def define(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Define]:
    """Write a module of the user's own and import it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    made = []

    def run(name: str = "scaled", imports: str = "", text: str = SCALED) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(text.replace("{imports}", imports))
        importlib.invalidate_caches()
        made.append(name)
        return importlib.import_module(name)

    yield run
    for name in made:
        sys.modules.pop(name, None)


class Odd(torch.nn.Module):
    """Nothing in it can be lowered op by op."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(1.0, size + 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight + 0 * torch.as_strided_scatter(x, x, x.shape, x.stride())


def within(*modules: torch.nn.Module) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 3), *modules)


def scaled_rule(target: Any) -> Any:
    def rule(module: Odd) -> mlxport.LayerSpec:
        size = (len(module.weight),)
        return mlxport.LayerSpec(
            target,
            size,
            entries=unchanged_entries(module, "weight"),
            axes=mlxport.Axes.FEATURES_LAST,
        )

    return rule


X = torch.randn(2, 3)


# -- rules ---------------------------------------------------------------------------------------


def test_a_registered_class_stands_whatever_its_graph_holds(define: Define) -> None:
    with pytest.raises(UnsupportedError, match="as_strided_scatter"):
        mlxport.convert(within(Odd()), X)
    mlxport.register_rule(Odd)(scaled_rule(define().Scaled))
    result = mlxport.convert(within(Odd()), X)
    assert result.report.passed
    assert "from .layers.scaled import Scaled" in result.source
    assert mlxport.convert_layer(Odd()).weight.tolist() == [1, 2, 3]


def test_parity_judges_what_the_user_vouches_for(define: Define) -> None:
    wrong = SCALED.replace("x * self.weight", "x * self.weight * 1.001")
    mlxport.register_rule(Odd)(scaled_rule(define(text=wrong).Scaled))
    assert not mlxport.convert(within(Odd()), X).report.passed


def test_a_rule_may_answer_with_a_layer_of_mlx() -> None:
    @mlxport.register_rule(Odd)
    def rule(module: Odd) -> mlxport.LayerSpec:
        ignored = {"weight": "a test"}
        return mlxport.LayerSpec(mlx.nn.Tanh, ignored=ignored, axes=mlxport.Axes.ANY)

    result = mlxport.convert(within(Odd()), X, verify=False)
    assert isinstance(result.model.layers[1], mlx.nn.Tanh)
    assert "layers.1" not in str(result.conversion.plan.entries)


class Upscale(torch.nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 0 * torch.as_strided_scatter(x, x, x.shape, x.stride()).sum()


def test_a_rule_may_answer_with_one_of_our_layers() -> None:
    @mlxport.register_rule(Upscale)
    def rule(module: Upscale) -> mlxport.LayerSpec:
        entry = mlxport.Entry(("weight",), ("weight",), conv_weight(2))
        return mlxport.LayerSpec(
            layers.Conv2d, (2, 4, 3), entries=(entry, *unchanged_entries(module, "bias")), rank=2
        )

    model = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 3), Upscale(2, 4, 3))
    result = mlxport.convert(model, torch.randn(1, 2, 8, 9))
    assert result.report.passed
    assert type(result.model.layers[1]).__module__ == "mlxport.layers.conv.modules"


class Split(torch.nn.Module):
    """Uses its second argument first, and gives two tensors."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        swapped = torch.as_strided_scatter(b, b, b.shape, b.stride())
        return a - 2 * swapped, swapped


class Splitting(torch.nn.Module):
    def __init__(self, uses: str = "both") -> None:
        super().__init__()
        self.split = Split()
        self.uses = uses

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p, q = self.split(x.sin(), x)
        return {"both": p + 3 * q, "first": p, "second": q, "none": x + 1}[self.uses]


SPLIT = """
import mlx.nn as nn


class Split(nn.Module):
    def __call__(self, a, b):
        return a - 2 * b, b
"""


@pytest.mark.parametrize("uses", ["both", "first", "none"])
def test_arguments_and_results_keep_their_order(define: Define, uses: str) -> None:
    target = define("split", text=SPLIT).Split
    mlxport.register_rule(Split)(
        lambda m: mlxport.LayerSpec(target, axes=mlxport.Axes.ANY, results=("p", "q"))
    )
    model = Splitting(uses)
    assert mlxport.convert(model, X).report.passed
    assert mlxport.convert(model, torch.randn(1, 2, 4, 5), channels_last=True).report.passed


def test_an_argument_that_is_not_read_is_refused(define: Define) -> None:
    target = define("split", text=SPLIT).Split
    mlxport.register_rule(Split)(lambda m: mlxport.LayerSpec(target, results=("p", "q")))
    with pytest.raises(UnsupportedError, match="leaves one unused"):
        mlxport.convert(Splitting("second"), X)


@pytest.mark.parametrize("uses", ["both", "first"])
def test_results_the_rule_does_not_name_are_refused(define: Define, uses: str) -> None:
    target = define("split", text=SPLIT).Split
    mlxport.register_rule(Split)(lambda m: mlxport.LayerSpec(target, axes=mlxport.Axes.ANY))
    with pytest.raises(UnsupportedError, match="it gives 1 tensors, its forward gives 2"):
        mlxport.convert(Splitting(uses), X)


def test_a_tensor_the_rule_forgets_is_refused(define: Define) -> None:
    target = define().Scaled
    mlxport.register_rule(Odd)(lambda m: mlxport.LayerSpec(target, (3,)))
    with pytest.raises(UnsupportedError, match=r"Odd .* its rule says nothing of weight"):
        mlxport.convert(within(Odd()), X)


def test_a_rule_that_refuses_leaves_the_ops() -> None:
    @mlxport.register_rule(torch.nn.Softsign, override=True)
    def rule(module: torch.nn.Softsign) -> mlxport.LayerSpec:
        raise mlxport.Refusal("not today")

    result = mlxport.convert(within(torch.nn.Softsign()), X)
    assert result.report.passed
    assert "Softsign" not in str(result.model)


def test_a_rule_that_gives_something_else_says_so() -> None:
    mlxport.register_rule(Odd)(lambda m: mlx.nn.Tanh)
    with pytest.raises(OptionsError, match=r"has to return a mlxport.LayerSpec"):
        mlxport.convert(within(Odd()), X)


def test_replacing_a_rule_has_to_be_meant() -> None:
    with pytest.raises(OptionsError, match=r"ReLU has a rule already.*override=True"):
        mlxport.register_rule(torch.nn.ReLU)

    @mlxport.register_rule(torch.nn.ReLU, override=True)
    def rule(module: torch.nn.ReLU) -> mlxport.LayerSpec:
        return mlxport.LayerSpec(mlx.nn.ReLU6, axes=mlxport.Axes.ANY)

    result = mlxport.convert(within(torch.nn.ReLU()), X, verify=False)
    assert isinstance(result.model.layers[1], mlx.nn.ReLU6)


@pytest.mark.parametrize("wrong", [3, str, Odd(), None], ids=str)
def test_only_classes_of_modules_have_rules(wrong: Any) -> None:
    with pytest.raises(OptionsError, match=r"classes of torch.nn.Module"):
        mlxport.register_rule(wrong)


# -- ops -----------------------------------------------------------------------------------------


@torch.library.custom_op("mlxport_test::double", mutates_args=())
def double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


@double.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Doubling(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.mlxport_test.double(x) + 1


class Sine(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sin()


OPERATORS = {
    "packet": torch.ops.mlxport_test.double,
    "overload": torch.ops.mlxport_test.double.default,
    "definition": double,
    "name": "mlxport_test.double.default",
}


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_a_custom_op_gets_a_handler(operator: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"mlxport_test.double.default"):
        mlxport.convert(Doubling(), X)

    @mlxport.register_op(operator)
    def handler(cx: Any, x: Any) -> Any:
        return cx.emit("2 * x", x=x, order=x.order)

    assert mlxport.convert(Doubling(), X).report.passed


def test_a_handler_may_call_a_function_of_the_users_own(define: Define) -> None:
    twice = define().twice
    mlxport.register_op(double)(lambda cx, x: cx.function(twice, x, order=x.order))
    result = mlxport.convert(Doubling(), X)
    assert result.report.passed
    assert "from .layers.scaled import twice" in result.source


def test_replacing_a_handler_has_to_be_meant() -> None:
    with pytest.raises(OptionsError, match=r"aten.sin.default.*override=True"):
        mlxport.register_op("aten.sin.default")
    mlxport.register_op("aten.sin.default", override=True)(
        lambda cx, x: cx.call("mx.cos", x, order=x.order)
    )
    assert not mlxport.convert(Sine(), X).report.passed


@pytest.mark.parametrize("wrong", [3, torch.sin, None], ids=["number", "function", "none"])
def test_only_operators_have_handlers(wrong: Any) -> None:
    with pytest.raises(OptionsError, match="register_op takes operators"):
        mlxport.register_op(wrong)


# -- what travels --------------------------------------------------------------------------------


NOT_PORTABLE = {
    "numpy": ("import numpy as np", r"it imports numpy \(line 4\)"),
    "torch": ("from torch import nn as tnn", r"it imports torch \(line 4\)"),
    "all of them": ("import torch, numpy", r"torch \(line 4\), numpy \(line 4\)"),
    "mlxport": ("import mlxport", r"it imports mlxport \(line 4\)"),
    "the converter": ("from mlxport.converter import plan", r"mlxport.converter \(line 4\)"),
    "a file of ours": ("from mlxport.layers import pooling", "import what is needed of it"),
}


@pytest.mark.parametrize(("imports", "reason"), NOT_PORTABLE.values(), ids=NOT_PORTABLE)
def test_a_file_that_needs_more_than_mlx_is_refused(
    define: Define, imports: str, reason: str
) -> None:
    mlxport.register_rule(Odd)(scaled_rule(define(imports=imports).Scaled))
    with pytest.raises(UnsupportedError, match=reason):
        mlxport.convert(within(Odd()), X)


PORTABLE = [
    "import math, functools",
    "from mlx.utils import tree_map",
    "from mlxport.layers.pooling.functions import avg_pool",
    "from mlxport.layers import (\n    Conv2d,\n    GroupNorm as Ours,\n)",
]


@pytest.mark.parametrize("imports", PORTABLE)
def test_what_a_file_needs_of_ours_travels_too(define: Define, imports: str) -> None:
    mlxport.register_rule(Odd)(scaled_rule(define(imports=imports).Scaled))
    result = mlxport.convert(within(Odd()), X)
    assert result.report.passed
    names = {
        "avg_pool": ("pooling.functions",),
        "Conv2d": ("conv.modules", "norm.functions", "norm.modules"),
    }
    expected = next((files for name, files in names.items() if name in imports), ())
    assert bool(expected) == bool(result.conversion.layers)
    assert set(result.conversion.layers) <= set(expected)


def test_a_class_inside_another_is_refused(define: Define) -> None:
    mlxport.register_rule(Odd)(scaled_rule(define().Outer.Inner))
    with pytest.raises(UnsupportedError, match=r"scaled.py has no Inner at its top level"):
        mlxport.convert(within(Odd()), X)


def test_a_class_in_no_file_is_refused() -> None:
    namespace: dict[str, Any] = {"__name__": "nowhere"}
    exec(SCALED.replace("{imports}", ""), namespace)
    mlxport.register_rule(Odd)(scaled_rule(namespace["Scaled"]))
    with pytest.raises(UnsupportedError, match=r"Scaled stands in no .py file"):
        mlxport.convert(within(Odd()), X)


def test_two_classes_of_one_name_are_refused(define: Define) -> None:
    text = SCALED.replace("Scaled", "BatchNorm")
    mlxport.register_rule(Odd)(scaled_rule(define("own", text=text).BatchNorm))
    model = within(Odd(), torch.nn.Unflatten(1, (3, 1, 1, 1)), torch.nn.BatchNorm3d(3))
    with pytest.raises(UnsupportedError, match="rename one"):
        mlxport.convert(model, X)


@pytest.mark.parametrize("name", ["pooling", "Pooling"])
def test_a_file_called_as_one_of_ours_gets_another_name(define: Define, name: str) -> None:
    module = define(name)
    mlxport.register_rule(Odd)(scaled_rule(module.Scaled))
    result = mlxport.convert(within(Odd()), X)
    assert result.report.passed
    assert f"from .layers.{name}_own import Scaled" in result.source


@pytest.mark.parametrize("name", ["e\u0301", "\ufb01le"], ids=["decomposed", "ligature"])
def test_a_file_gets_the_name_by_which_python_imports_it(define: Define, name: str) -> None:
    mlxport.register_rule(Odd)(scaled_rule(define(name).Scaled))
    result = mlxport.convert(within(Odd()), X)
    assert result.report.passed
    assert f"from layers.{unicodedata.normalize('NFKC', name)} import Scaled" in result.source


def test_files_whose_names_differ_in_case_alone_are_refused(define: Define) -> None:
    mlxport.register_rule(Odd)(scaled_rule(define("wide").Scaled))
    other = define("Wide", text=SCALED.replace("Scaled", "Other"))

    class Odder(Odd):
        pass

    mlxport.register_rule(Odder)(scaled_rule(other.Other))
    with pytest.raises(UnsupportedError, match=r"wide\.py and Wide\.py would travel"):
        mlxport.convert(within(Odd(), Odder()), X)


# -- what is listed ------------------------------------------------------------------------------


def test_registered_ones_are_listed() -> None:
    mlxport.register_rule(Odd, target="own.Odd", restrictions="odd")(scaled_rule(None))
    mlxport.register_op(double)(lambda cx, x: x)
    assert "Odd" in support.as_text("own.Odd")
    assert "mlxport_test.double.default" in support.as_text("mlxport_test")
