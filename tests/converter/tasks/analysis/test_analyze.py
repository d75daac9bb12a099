"""An analysis says what convert would do, with convert's own answers, and builds nothing."""

import json
from typing import Any

import mlx.core as mx
import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.errors import CaptureError, UnsupportedError
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.registry import OPS, Op
from mlxport.converter.tasks.analysis.coverage import Analysis, Share
from mlxport.examples.unet3d import UNet3d


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.spare = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x.T @ x).real * self.weight


class Partly(nn.Module):
    """Two unsupported ops, an unsupported configuration, and things that are covered."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.inner = Inner()
        self.layers = nn.Sequential(nn.ReLU(), nn.ReLU(), nn.Dropout())

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        y = torch.as_strided_scatter(x, self.linear(x), x.shape, x.stride())
        x = torch.as_strided_scatter(y, y, y.shape, y.stride())
        return {"y": self.inner(self.layers(x)) * scale, "x": x}


@pytest.fixture
def partly() -> Analysis:
    return mlxport.analyze(Partly(), torch.randn(2, 4), {"scale": torch.ones(4)})


def test_a_model_that_is_covered() -> None:
    model = UNet3d(widths=(2, 4))
    analysis = mlxport.analyze(model, torch.randn(1, 1, 8, 6, 7))
    assert analysis.covered
    assert analysis.unsupported == ()
    size = sum(p.numel() for p in model.parameters())
    assert analysis.parameters_covered == Share(size, size)
    assert analysis.parameters_unused == 0
    rows = [row for row in analysis.modules if row.name == "Conv3d"]
    assert {row.becomes: (row.count, row.covered) for row in rows} == {
        "layers.Conv3d": (6, True),
        "mlx.nn.Conv3d": (1, True),  # the head, of kernel size 1
    }
    assert sum(row.count for row in analysis.modules) == len(list(model.modules()))
    assert str(analysis).startswith("UNet3d: everything has an MLX counterpart\n")


def test_what_is_unsupported_is_what_convert_says(partly: Analysis) -> None:
    with pytest.raises(UnsupportedError) as error:
        mlxport.convert(Partly(), torch.randn(2, 4), {"scale": torch.ones(4)})
    assert [gap.op for gap in partly.unsupported] == [
        "aten.as_strided_scatter.default",
        "aten.linalg_eigvals.default",
    ]
    width = max(len(gap.op) for gap in partly.unsupported)
    for gap in partly.unsupported:
        assert gap.to_text(width) in str(error.value)
        assert gap.to_text(width) in str(partly)


def test_where_and_how_often(partly: Analysis) -> None:
    first, second = partly.unsupported
    assert (first.count, first.module) == (2, "the model itself")
    assert (second.count, second.module) == (1, "inner")
    assert first.line.startswith(f"{__file__}:")


def test_shares(partly: Analysis) -> None:
    assert partly.ops_covered.total - partly.ops_covered.covered == 3
    assert partly.parameters_covered == Share(20, 24)  # the Linear's, of those and inner.weight
    assert partly.parameters_unused == 30
    ways = {(row.name, row.becomes): row.count for row in partly.modules}
    assert ways["Partly", "unsupported"] == ways["Inner", "unsupported"] == 1
    assert ways["ReLU", "mlx.nn.ReLU"] == 2
    assert ways["Linear", "not used in eval mode"] == 1
    assert partly.modules_covered == Share(5, 7)  # a Linear and a Dropout are not used


def test_shapes_are_named_as_the_model_names_them(partly: Analysis) -> None:
    assert [(t.name, t.dtype, t.shape) for t in partly.inputs] == [
        ("x", "float32", (2, 4)),
        ("scale", "float32", (4,)),
    ]
    assert [t.name for t in partly.outputs] == ['output["y"]', 'output["x"]']


def test_a_configuration_that_a_handler_refuses_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_vectors(cx: Context, x: Value) -> Value:
        if x.ndim == 1:
            raise cx.refuse("no vectors")
        return cx.call("mx.sin", x, order=x.order)

    class Sine(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sin() + x.sum(0).sin()

    monkeypatch.setitem(OPS, "aten.sin.default", Op("aten.sin.default", refuse_vectors))
    (gap,) = mlxport.analyze(Sine(), torch.ones(2, 3)).unsupported
    assert (gap.op, gap.count, gap.reason) == ("aten.sin.default", 1, "no vectors")


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_a_rule_that_refuses_is_told() -> None:
    model = nn.Sequential(nn.Linear(3, 0), nn.Linear(0, 2))
    analysis = mlxport.analyze(model, torch.ones(1, 3))
    assert analysis.covered
    (row,) = [row for row in analysis.modules if row.reason]
    assert (row.name, row.becomes) == ("Linear", "op by op")
    assert "in_features is 0" in row.reason


def test_no_mlx_array_is_made_of_a_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("an MLX array was made")

    monkeypatch.setattr(mx, "array", refuse)
    monkeypatch.setattr(mx, "zeros", refuse)
    assert mlxport.analyze(UNet3d(widths=(2, 4)), torch.randn(1, 1, 8, 6, 7)).covered


def test_json_holds_it_all(partly: Analysis) -> None:
    data = json.loads(json.dumps(partly.to_json(), allow_nan=False))
    assert data["covered"] is False
    assert data["parameters_covered"] == {"covered": 20, "total": 24}
    assert data["unsupported"][0]["count"] == 2


def test_a_model_that_cannot_be_captured_says_so() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if x.sum() > 0 else x

    with pytest.raises(CaptureError):
        mlxport.analyze(Branching(), torch.ones(2))


class Wide(nn.Module):
    """Keeps a float64 tensor, and casts it where it reads it."""

    def __init__(self, keep: str) -> None:
        super().__init__()
        self.linear, table = nn.Linear(4, 4), torch.linspace(0, 1, 40, dtype=torch.float64)
        if keep == "a parameter":
            self.table = nn.Parameter(table)
        elif keep == "an attribute":
            self.table = table
        else:
            self.register_buffer("table", table, persistent=keep == "a buffer")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.table[4:8].float()


@pytest.mark.parametrize("keep", ["a parameter", "a buffer"])
def test_weights_of_a_dtype_that_mlx_has_not_are_said_and_refused(keep: str) -> None:
    analysis = mlxport.analyze(Wide(keep).eval(), torch.randn(2, 4))
    assert [gap.op for gap in analysis.unsupported] == ["table"]
    assert "float64, of which MLX keeps no weights" in analysis.unsupported[0].reason
    with pytest.raises(UnsupportedError, match=r"table .*float64, of which MLX keeps no weights"):
        mlxport.convert(Wide(keep).eval(), torch.randn(2, 4))


@pytest.mark.parametrize("keep", ["a buffer in no state dict", "an attribute"])
def test_a_dtype_that_mlx_has_not_outside_of_the_state_dict_is_a_constant(keep: str) -> None:
    assert not mlxport.analyze(Wide(keep).eval(), torch.randn(2, 4)).unsupported
    result = mlxport.convert(Wide(keep).eval(), torch.randn(2, 4))
    assert result.report.passed
    assert "table" not in result.source
