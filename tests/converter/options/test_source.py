"""Keys that are left out of a checkpoint, on every way to its weights."""

from __future__ import annotations

import re
from typing import Any

import mlx.core as mx
import mlx.nn
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import mlxport
from mlxport.cli import main
from mlxport.converter import api
from mlxport.converter.errors import OptionsError, StateDictError
from mlxport.converter.options.source import SourceOptions

STATE = {
    "lin.weight": torch.rand(2, 3),
    "criterion.weight": torch.ones(2),
    "lin.bias": torch.rand(2),
    "position_ids": torch.arange(4),
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x)


class Port(mlx.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = mlx.nn.Linear(3, 2)

    def __call__(self, x: mx.array) -> mx.array:
        return self.lin(x)


@pytest.fixture
def path(tmp_path):
    torch.save(STATE, tmp_path / "x.pt")
    return tmp_path / "x.pt"


DROPPED: dict[str, tuple[Any, Any, list[str]]] = {
    "nothing": ((), {}, [*STATE]),
    "a key": ("position_ids", {}, ["lin.weight", "criterion.weight", "lin.bias"]),
    "a module": ("lin", {}, ["criterion.weight", "position_ids"]),
    "by stars": (["*.weight"], {}, ["lin.bias", "position_ids"]),
    "by an expression": (re.compile(r".*t.*n.*"), {}, ["lin.weight", "lin.bias"]),
    "several": (["re:crit.*", "position_ids"], {}, ["lin.weight", "lin.bias"]),
    "by the new name": ("loss", {"criterion": "loss"}, ["lin.weight", "lin.bias"]),
    "in another's way": ("lin.bias", {"criterion.weight": "lin.bias"}, ["lin.weight", "lin.bias"]),
}


@pytest.mark.parametrize(("drop", "rename", "left"), DROPPED.values(), ids=DROPPED)
def test_what_is_left(drop, rename, left, path) -> None:
    checkpoint, original = SourceOptions(rename=rename, drop=drop).open(path)
    expected = [*left, "position_ids"] if rename else left
    assert [*checkpoint.tensors] == expected
    assert [*checkpoint.storage] == expected
    kept = {original.get(key, key) for key in expected}
    assert {*checkpoint.dropped} == {*STATE} - kept
    assert checkpoint.order == (tuple(STATE) if checkpoint.dropped else ())


@pytest.mark.parametrize("drop", ["nowhere", ["lin", "no.where"], re.compile("li")])
def test_a_pattern_that_fits_no_key_is_refused(drop, path) -> None:
    with pytest.raises(OptionsError, match=r"(?s)drop no key of the checkpoint:\n  (no|re:li)"):
        SourceOptions(drop=drop).open(path)


def test_entries_that_are_no_tensors_are_dropped_too(tmp_path) -> None:
    torch.save({**STATE, "epoch": 3}, tmp_path / "x.pt")
    checkpoint, _ = SourceOptions(drop="epoch").open(tmp_path / "x.pt")
    assert checkpoint.others == {}


DROP = ["criterion", "position_ids"]


def test_restore_gives_back_what_was_dropped_in_its_order(path, tmp_path) -> None:
    result = mlxport.convert_checkpoint(
        path, tmp_path / "out", model=Net(), inputs=["1,3"], drop=DROP
    )
    assert result.report.passed
    assert result.conversion.plan.ignored == {
        "criterion.weight": "dropped, as was asked",
        "position_ids": "dropped, as was asked",
    }
    assert api.verify_weights(tmp_path / "out").passed
    api.restore(tmp_path / "out", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt")
    assert [*back] == [*STATE]
    assert all(torch.equal(back[key], STATE[key]) for key in STATE)
    # and the plan takes checkpoints with and without
    for name, options in {"all": {}, "dropped": {"drop": DROP}}.items():
        mlxport.convert_checkpoint(path, tmp_path / name, plan=tmp_path / "out", **options)
        api.restore(tmp_path / name, tmp_path / f"{name}.pt")
        assert [*torch.load(tmp_path / f"{name}.pt")] == [*STATE]


def by_layers(path, out, **options) -> Any:
    return mlxport.convert_checkpoint(path, out, layers=["*=Linear"], **options)


def by_target(path, out, **options) -> Any:
    return mlxport.convert_checkpoint(path, out, target=Port(), **options)


def by_load_weights(path, out, **options) -> Any:
    return api.load_weights(Port(), path, **options)


def by_analysis(path, out, **options) -> Any:
    return api.analyze_checkpoint(path, model=Net(), inputs=["1,3"], **options)


def by_explanation(path, out, **options) -> Any:
    return api.explain_checkpoint(path, model=Net(), inputs=["1,3"], **options)


def by_inspection(path, out, **options) -> Any:
    assert "criterion" in str(api.inspect(path).to_text())
    result = api.inspect(path, **options)
    assert "criterion" not in result.to_text()
    return result


def by_state_dict(path, out, **options) -> Any:
    plan = mlxport.convert(Net(), torch.rand(1, 3)).conversion
    return api.convert_state_dict(STATE, plan, **options)


WAYS = [by_target, by_load_weights, by_analysis, by_explanation, by_state_dict]


@pytest.mark.parametrize("way", [*WAYS, by_layers, by_inspection])
def test_every_way_takes_it(way, path, tmp_path) -> None:
    assert way(path, tmp_path / "out", drop=DROP)


@pytest.mark.parametrize("way", WAYS)
def test_the_error_names_it(way, path, tmp_path) -> None:
    with pytest.raises(StateDictError, match=r"drop=\['criterion.*position_ids'\]"):
        way(path, tmp_path / "out")


@pytest.mark.parametrize("way", [by_layers, by_target])
def test_restore_gives_back_what_another_way_dropped(way, path, tmp_path) -> None:
    way(path, tmp_path / "out", drop=DROP)
    api.restore(tmp_path / "out", tmp_path / "back.pt")
    assert [*torch.load(tmp_path / "back.pt")] == [*STATE]


def test_the_command_line_has_it(path, tmp_path) -> None:
    refused = CliRunner().invoke(main, ["inspect", str(path), "--drop", "nowhere"])
    assert refused.exit_code == 2
    assert "these patterns drop no key" in refused.output
    drop = ["--drop", "criterion", "--drop", "position_ids", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(main, ["convert", str(path), "--layer", "*=Linear", *drop])
    assert done.exit_code == 0, done.output
    assert {*mx.load(str(tmp_path / "out/weights.safetensors"))} == {"lin.weight", "lin.bias"}


NARROW = {"lin.weight": torch.rand(2, 3).double(), "lin.bias": torch.rand(2)}
FLOAT64 = {
    "all of it": ({key: value.double() for key, value in NARROW.items()}, "dtype='float32' casts"),
    "a part of it": (NARROW, r"lin\.weight: torch\.float64 to torch.float32.*dtype='float32'"),
}


@pytest.mark.parametrize(("state", "said"), FLOAT64.values(), ids=FLOAT64)
def test_float64_is_refused_with_the_way_out(state, said, tmp_path) -> None:
    torch.save(state, tmp_path / "x.pt")
    given = {"model": Net(), "inputs": [torch.rand(1, 3)]}
    with pytest.raises(StateDictError, match=rf"(?s){said}"):
        mlxport.convert_checkpoint(tmp_path / "x.pt", tmp_path / "out", **given)
    result = mlxport.convert_checkpoint(
        tmp_path / "x.pt", tmp_path / "out", **given, dtype="float32"
    )
    assert result.report.passed
    with pytest.raises(StateDictError, match=r"(?s)lin.weight: F64 to F32.*dtype='float32'"):
        mlxport.convert_checkpoint(tmp_path / "x.pt", tmp_path / "again", plan=tmp_path / "out")
