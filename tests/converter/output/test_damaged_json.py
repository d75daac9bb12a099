"""A wrong type anywhere in ``conversion.json`` or ``parity.json``: one error that names the field.

Every value and every container of real files is replaced by something else, or left out.
"""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import mlxport
from mlxport.converter.errors import ConversionError, ParityError
from mlxport.converter.output.contents import read_conversion
from mlxport.converter.parity.report.files import read_reports
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.plan.record import Conversion

REMOVED = object()
INSTEAD = {
    "null": None,
    "a string": "surprise",
    "a number": 7,
    "a fraction": -0.5,
    "a large number": 10**400,
    "a boolean": True,
    "a list": [1, "a"],
    "an empty list": [],
    "an object": {"a": 1},
    "nothing": REMOVED,
}
READ: dict[str, Callable[[Any], Any]] = {
    "conversion.json": Conversion.from_json,
    "parity.json": ParityReport.from_json,
}


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.conv = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv2d(3, 2, 3))

    def forward(self, x: torch.Tensor, limit: float = 1.0, pair: Any = None) -> dict[str, Any]:
        y = self.conv(self.norm(x)).clamp(max=limit)
        return {"image": y + torch.rand_like(y), "rest": (y, [y.mean(), None])}


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    """The files of a conversion that uses most of what they may hold."""
    torch.manual_seed(0)
    given = {"limit": float("inf"), "pair": {"a": (torch.ones(2), "b")}}
    x = torch.randn(2, 3, 6, 7)
    made = mlxport.convert(Net().eval(), x, kwargs=given, gradients=True, dynamic=(0,))
    assert made.report is not None
    assert made.report.others
    report = shortened(made.report.to_json())
    data = {"conversion.json": made.conversion.to_json(), "parity.json": report}
    return json.loads(json.dumps(data, allow_nan=False))


def shortened(data: Any) -> Any:
    """The same with one record of every list, as the others are like it."""
    if isinstance(data, dict):
        return {key: shortened(value) for key, value in data.items()}
    records = isinstance(data, list) and data and isinstance(data[0], dict)
    return [shortened(data[0])] if records else data


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value and container, but for the whole."""
    keys = range(len(data)) if isinstance(data, list) else data if isinstance(data, dict) else ()
    for key in keys:
        yield (*path, key)
        yield from places(data[key], (*path, key))


def changed(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    *above, last = path
    if not above:
        data = copy.copy(data)
        if value is REMOVED:
            del data[last]
        else:
            data[last] = value
        return data
    first, *rest = path
    data = copy.copy(data)
    data[first] = changed(data[first], tuple(rest), value)
    return data


def refusal(read: Callable[[Any], Any], data: Any) -> str:
    """What is said against the data; any other exception fails the test."""
    try:
        read(data)
    except ConversionError as error:
        return str(error)
    return ""


def is_named(path: tuple[Any, ...], message: str) -> bool:
    """Whether a message names what was changed, or what it lies in."""
    return message.startswith("expected mlxport-") or any(str(key) in message for key in path[-2:])


@pytest.mark.parametrize("value", INSTEAD.values(), ids=INSTEAD)
@pytest.mark.parametrize("name", READ)
def test_any_other_value_is_read_or_named(name: str, value: Any, written: dict[str, Any]) -> None:
    data = written[name]
    messages = {path: refusal(READ[name], changed(data, path, value)) for path in places(data)}
    refused = {path: message for path, message in messages.items() if message}
    assert len(refused) > 100
    assert [x for x in refused.items() if not is_named(*x)] == []


@pytest.mark.parametrize("value", [None, "a", 3, [], [1], {}], ids=repr)
@pytest.mark.parametrize("name", READ)
def test_something_else_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConversionError, match=r"expected mlxport-.* version 1, got None"):
        READ[name](value)


def nested(depth: int) -> str:
    return '{"kind": "tuple", "labels": ["[0]"], "items": [' * depth + "]}" * depth


TEXTS = {
    "no JSON": ("{", "it is not JSON: "),
    "no UTF-8": (b"\xff{}", "it is not JSON: "),
    "deep": ("[" * 10**6, "it is nested too deeply"),
    "another format": ('{"format": "x", "version": 1}', "expected mlxport-.* version 1, got 'x'"),
}


@pytest.mark.parametrize(("text", "message"), TEXTS.values(), ids=TEXTS)
def test_the_file_is_named(text: str | bytes, message: str, tmp_path: Path) -> None:
    for name in READ:
        (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConversionError, match=rf"conversion\.json is damaged: {message}"):
        read_conversion(tmp_path)
    with pytest.raises(ParityError, match=rf"parity\.json: {message}"):
        read_reports([tmp_path])


def test_a_field_is_named_with_its_file(written: dict[str, Any], tmp_path: Path) -> None:
    record, report = (copy.deepcopy(written[name]) for name in READ)
    record["plan"]["specs"]["conv.bias"][1] = ["2"]
    report["outputs"][0]["verdicts"]["whole"]["ratio"] = "large"
    for name, data in zip(READ, (record, report), strict=True):
        (tmp_path / name).write_text(json.dumps(data))
    message = r"conversion\.json is damaged: plan\.specs\['conv\.bias'\]\[1\]\[0\]: Expected `int`"
    with pytest.raises(ConversionError, match=message):
        read_conversion(tmp_path)
    message = r"parity\.json: outputs\[0\]\.verdicts\['whole'\]\.ratio: Expected `float`, got `str`"
    with pytest.raises(ParityError, match=message):
        read_reports([tmp_path])


@pytest.mark.parametrize("depth", [3, 300, 10**4])
def test_deep_nesting_is_read_or_refused(depth: int, written: dict[str, Any]) -> None:
    result: Any = {"kind": "tensor"}
    for _ in range(depth):
        result = {"kind": "tuple", "labels": ["[0]"], "items": [result]}
    data = changed(written["conversion.json"], ("signature", "result"), result)
    if depth == 3:
        signature = Conversion.from_json(data).signature
        assert signature is not None
        assert signature.result.tensors("y") == ["y[0][0][0]"]
        return
    message = refusal(Conversion.from_json, data)
    assert message == "it is nested too deeply" or (depth == 300 and not message)
