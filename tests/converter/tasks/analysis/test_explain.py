"""What became of each module and why: layers, classes, lists, calls written in place, lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter import api
from mlxport.converter.errors import OptionsError
from mlxport.converter.tasks.analysis.explanation import ExplainedModule, Explanation


class Doubling(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = Doubling(4, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, x: torch.Tensor, scale: int = 1) -> torch.Tensor:
        return self.norm(self.linear(x)) * scale


class Tagger(nn.Module):
    """Of every kind of module one."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.block = Block()
        self.again = self.block
        self.stack = nn.ModuleList([nn.Linear(4, 4), nn.ReLU()])
        self.flatten = nn.Flatten()
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(8, 5)
        self.hooked = nn.Linear(5, 5)
        self.hooked.register_forward_hook(lambda module, args, output: output + 1)
        self.score = nn.Linear(5, 4)
        self.rows = nn.Linear(4, 5, bias=False)
        self.rows.weight = self.table.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.again(self.block(self.table(tokens)), 2)
        for layer in self.stack:
            x = layer(x)
        x = self.score(self.hooked(self.head(self.flatten(x))))
        return self.rows(x)


TOKENS = torch.tensor([[1, 2], [3, 4]])


@pytest.fixture(scope="module")
def explained() -> dict[str, ExplainedModule]:
    return {module.path: module for module in mlxport.explain(Tagger(), TOKENS).modules}


@pytest.fixture(scope="module")
def source() -> list[str]:
    return mlxport.convert(Tagger(), TOKENS, verify=False).source.splitlines()


BECOMES = {
    "the model": ("", "a class of its own, op by op", "it calls the modules it holds"),
    "a layer": (
        "table",
        "mlx.nn.Embedding",
        "each call is the one op that the rule for Embedding stands for",
    ),
    "a class": ("block", "a class of its own, op by op", "it calls the modules it holds"),
    "another forward": (
        "block.linear",
        "a class of its own, op by op",
        "no layer: Doubling overrides forward of Linear",
    ),
    "another name": (
        "again",
        "a class of its own, op by op",
        "it is the module that stands at block",
    ),
    "a list": ("stack", "a list", "it calls the modules it holds"),
    "no leaf in a model": (
        "flatten",
        "op by op",
        "no layer: in whole models Flatten is lowered op by op",
    ),
    "unused": ("unused", "not used in eval mode", "nothing it computes is used"),
    "a hook": (
        "hooked",
        "op by op",
        "no layer: a call computes aten.linear.default, aten.add.Tensor, "
        "where Linear is one op (it has hooks)",
    ),
    "a shared tensor": (
        "rows",
        "op by op",
        "no layer: its weight is shared, and stands in table.weight",
    ),
}


@pytest.mark.parametrize(("path", "becomes", "why"), BECOMES.values(), ids=BECOMES)
def test_what_a_module_becomes_and_why(
    explained: dict[str, ExplainedModule], path: str, becomes: str, why: str
) -> None:
    assert (explained[path].becomes, explained[path].why) == (becomes, why)


LINES = {
    "the model": ("", ["class Tagger(nn.Module):"]),
    "a layer": (
        "head",
        ["self.head = nn.Linear(8, 5)", None],
    ),
    "a class": ("block", ["class Block(nn.Module):", "self.block = Block()", None]),
    "an element of a list": (
        "stack.1",
        ["self.stack = [nn.Linear(4, 4), nn.ReLU()]", "for layer in self.stack:"],
    ),
    "unused": ("unused", []),
}


@pytest.mark.parametrize(("path", "texts"), LINES.values(), ids=LINES)
def test_its_lines_in_model_py(
    explained: dict[str, ExplainedModule], source: list[str], path: str, texts: list[str | None]
) -> None:
    lines = explained[path].lines
    assert [line.text if text else None for line, text in zip(lines, texts, strict=True)] == texts
    assert [source[line.number - 1].strip() for line in lines] == [line.text for line in lines]
    called = [line.text for line, text in zip(lines, texts, strict=True) if text is None]
    assert all(f"self.{path}(" in text for text in called)


def test_what_happens_to_its_tensors(explained: dict[str, ExplainedModule]) -> None:
    assert [str(tensor) for tensor in explained["block.linear"].tensors] == [
        "block.linear.weight -> block.linear.weight: bit for bit",
        "block.linear.bias -> block.linear.bias: bit for bit",
    ]
    assert [str(tensor) for tensor in explained["unused"].tensors] == [
        "unused.weight: left out: not used when the model runs in eval mode",
        "unused.bias: left out: not used when the model runs in eval mode",
    ]
    assert [str(tensor) for tensor in explained["rows"].tensors] == [
        "rows.weight: the same tensor as table.weight",
    ]
    assert explained["block"].tensors == ()


def test_a_second_call_that_differs_is_written_in_place(
    explained: dict[str, ExplainedModule],
) -> None:
    assert explained["block"].inlined == ("it computes something else than in its first call",)
    assert len(explained["block"].calls) == 1
    assert len(explained["block.linear"].calls) == 2


class Image(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def test_one_module_in_full() -> None:
    explanation = mlxport.explain(Image(), torch.randn(2, 2, 4, 6), "conv")
    assert str(explanation).splitlines() == [
        "conv: Conv2d -> mlx.nn.Conv2d",
        "  why       each call is the one op that the rule for Conv2d stands for",
        "  in MLX    conv",
        "  model.py  " + str(explanation.modules[0].lines[0]),
        "            " + str(explanation.modules[0].lines[1]),
        "  takes     float32 (2, 2, 4, 6) [NHWC]",
        "  gives     float32 (2, 3, 4, 6) [NHWC]",
        "  tensors   conv.weight -> conv.weight: permute(0, 2, 3, 1)",
        "            conv.bias -> conv.bias: bit for bit",
    ]
    root = str(mlxport.explain(Image(), torch.randn(2, 2, 4, 6), ""))
    assert root.startswith("the model: Image -> a class of its own, op by op\n")
    assert "  transposes  2" in root.splitlines()


def test_dynamic_sizes_bear_their_names() -> None:
    explanation = mlxport.explain(Image(), torch.randn(2, 2, 4, 6), "conv", dynamic=(0, 2))
    assert "  takes     float32 (n, 2, h, 6) [NHWC]" in str(explanation).splitlines()


def test_all_modules_in_one_line_each() -> None:
    lines = str(mlxport.explain(Image(), torch.randn(2, 2, 4, 6))).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "Image: 2 modules, 2 transposes a call",
        "(the model) Image a class of its own, op by op it calls the modules it holds",
        "conv Conv2d mlx.nn.Conv2d each call is the one op that the rule for Conv2d stands for",
    ]


class Unserved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.scatters = Scatters()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scatters(self.linear(x))


class Scatters(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_strided_scatter(x, x, x.shape, x.stride())


def test_what_has_no_counterpart_is_explained_too() -> None:
    explanation = mlxport.explain(Unserved(), torch.ones(2, 4))
    (unserved,) = (module for module in explanation.modules if module.path == "scatters")
    assert (unserved.becomes, unserved.lines) == ("unsupported", ())
    assert unserved.why.startswith("aten.as_strided_scatter.default has no MLX counterpart: ")
    assert len(explanation.unsupported) == 1
    assert explanation.unsupported[0] in str(explanation)


def test_an_unknown_path_lists_those_that_are_close() -> None:
    with pytest.raises(OptionsError, match=r"no module 'conf'(.|\n)*  conv$"):
        mlxport.explain(Image(), torch.randn(2, 2, 4, 6), "conf")
    with pytest.raises(OptionsError, match=r"no module 'zzz'(.|\n)*  conv$"):
        mlxport.explain(Image(), torch.randn(2, 2, 4, 6), "zzz")


def test_it_is_json_and_the_same_in_every_run() -> None:
    def explained() -> Explanation:
        return mlxport.explain(Tagger(), TOKENS)

    first, second = explained(), explained()
    assert json.dumps(first.to_json()) == json.dumps(second.to_json())
    assert str(first) == str(second)
    data: dict[str, Any] = json.loads(json.dumps(first.to_json()))
    assert [module["path"] for module in data["modules"]][:3] == ["", "table", "block"]


def test_a_checkpoint_is_explained_as_its_model_is(tmp_path: Path) -> None:
    model, x = Image(), torch.randn(2, 2, 4, 6)
    torch.save(model.state_dict(), tmp_path / "image.pt")
    explanation = api.explain_checkpoint(
        tmp_path / "image.pt", "conv", model=Image(), inputs=["2,2,4,6"]
    )
    assert explanation == mlxport.explain(model, x, "conv")
