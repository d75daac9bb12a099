"""Wrong arguments to everything public: refused before the work, by their names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.nn
import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter import api
from mlxport.converter.errors import ConversionError, InternalError, OptionsError
from mlxport.converter.expected import check_call, expectation


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


class Port(mlx.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = mlx.nn.Linear(4, 4)

    def __call__(self, x: Any) -> Any:
        return self.linear(x)


X = torch.ones(2, 4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Make a model, its checkpoint and its output folder."""
    folder, net = tmp_path_factory.mktemp("made"), Net().eval()
    torch.save(net.state_dict(), folder / "x.pt")
    result = mlxport.convert_checkpoint(folder / "x.pt", folder / "out", model=net, inputs=[X])
    return SimpleNamespace(net=net, source=folder / "x.pt", out=folder / "out", mlx=result.model)


# what each function is called with; new files go to the folder of the test
RIGHT: dict[str, Callable[[Any, Path], dict[str, Any]]] = {
    "analyze": lambda m, _: {"module": m.net, "example_inputs": X},
    "analyze_checkpoint": lambda m, _: {"source": m.source, "model": m.net, "inputs": [X]},
    "assert_parity": lambda m, _: {"mlx_model": m.mlx, "torch_model": m.net, "inputs": X},
    "convert": lambda m, _: {"module": m.net, "example_inputs": X, "verify": False},
    "convert_checkpoint": lambda m, new: {
        "source": m.source,
        "output": new / "out",
        "model": m.net,
        "inputs": [X],
    },
    "convert_layer": lambda m, _: {"module": m.net.linear},
    "convert_many": lambda m, new: {
        "sources": [m.source],
        "output": new / "outs",
        "model": m.net,
        "inputs": [X],
    },
    "convert_state_dict": lambda m, _: {"source": m.net.state_dict(), "plan": m.out},
    "explain": lambda m, _: {"module": m.net, "example_inputs": X},
    "explain_checkpoint": lambda m, _: {"source": m.source, "model": m.net, "inputs": [X]},
    "export_function": lambda m, new: {"folder": m.out, "path": new / "net.mlxfn"},
    "generate": lambda m, _: {"folder": m.out, "prompt": "x"},
    "holds_many": lambda m, _: {"sources": [m.source]},
    "inspect": lambda m, _: {"source": m.source},
    "load": lambda m, _: {"folder": m.out},
    "load_weights": lambda m, _: {"model": Port(), "source": m.source},
    "metal_table": lambda m, _: {"folder": m.out},
    "parse_renames": lambda m, _: {"options": ["a=b"]},
    "publish": lambda m, _: {"folder": m.out, "repository": "me/net"},
    "register_op": lambda m, _: {},
    "register_rule": lambda m, _: {},
    "report": lambda m, _: {"sources": [m.out]},
    "restore": lambda m, new: {"source": m.out, "output": new / "x.pt"},
    "sliding_window": lambda m, _: {
        "model": lambda x: x,
        "volume": X.numpy(),
        "patch": (2,),
        "progress": False,
    },
    "support": lambda m, _: {},
    "verify": lambda m, _: {"model": m.mlx, "module": m.net, "example_inputs": X},
    "verify_folder": lambda m, _: {"folder": m.out},
    "verify_weights": lambda m, _: {"folder": m.out},
}
FUNCTIONS = {
    **{name: getattr(api, name) for name in api.__all__},
    "assert_parity": mlxport.testing.assert_parity,
    "register_op": mlxport.register_op,
    "register_rule": mlxport.register_rule,
}
WRONG: dict[str, Any] = {
    "None": None,
    "3": 3,
    "NaN": float("nan"),
    "x": "x",
    "NUL": "a\0b",
    "bytes": b"",
    "object": object(),
    "list": [],
    "nested list": [[object()]],
    "dict": {},
    "odd dict": {1: 2},
    "tensor": torch.ones(2),
    "class": int,
    "function": len,
    "no such path": Path("no/such/path"),
}


def parameters(function: Any) -> Iterator[inspect.Parameter]:
    """Yield the parameters of a function that have a name each."""
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            yield parameter


CASES = [(name, parameter.name) for name, one in FUNCTIONS.items() for parameter in parameters(one)]


def test_every_function_is_tried() -> None:
    functions = {n for n in mlxport.__all__ if inspect.isfunction(getattr(mlxport, n, None))}
    assert functions <= FUNCTIONS.keys() == RIGHT.keys()


@pytest.mark.parametrize(("name", "argument"), CASES, ids=[".".join(case) for case in CASES])
def test_what_is_of_another_kind_is_refused_by_name(
    name: str, argument: str, made: Any, tmp_path: Path
) -> None:
    """Holds every argument to its annotation; what that takes is for the next test."""
    function = FUNCTIONS[name]
    annotation = inspect.signature(function).parameters[argument].annotation
    expected = expectation(annotation)
    assert expected.words, annotation
    for wrong in WRONG.values():
        if expected.takes(wrong) or annotation == "torch.Tensor | Sequence[Any]":
            continue
        with pytest.raises(OptionsError, match=rf"^{argument}=: expected .*, got ") as raised:
            function(**{**RIGHT[name](made, tmp_path), argument: wrong})
        assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


# annotations that take some of these values, where what the values are decides
DECIDED_LATER = {
    "torch.Tensor | Sequence[Any]",
    "Any",
    "MlxInputs | None",
    "OrderSpec | Sequence[OrderSpec] | None",
    "str",
    "str | None",
    "str | Path",
    "str | Path | None",
    "str | torch.nn.Module",
    "str | torch.nn.Module | None",
    "str | mlx.nn.Module | None",
    "torch.nn.Module",
    "str | Mapping[str, Any] | None",
    "float | None",
    "int | str | None",
    "Sequence[str | Path]",
    "Sequence[Any]",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "argument"),
    [
        pytest.param(name, argument, id=f"{name}.{argument}")
        for name, argument in CASES
        if inspect.signature(FUNCTIONS[name]).parameters[argument].annotation in DECIDED_LATER
    ],
)
def test_no_value_is_taken_for_a_fault_of_mlxports(
    name: str, argument: str, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = FUNCTIONS[name]
    expected = expectation(inspect.signature(function).parameters[argument].annotation)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # for what takes "x" as a place
    for number, wrong in enumerate(WRONG.values()):
        if not expected.takes(wrong) or wrong is None:
            continue
        new = tmp_path / str(number)
        new.mkdir()
        try:
            function(**{**RIGHT[name](made, new), argument: wrong})
        except InternalError as error:
            raise AssertionError(f"{name}({argument}={wrong!r})") from error
        except (ConversionError, TypeError, ValueError):
            continue


def _list_in_itself() -> Any:
    found: list[Any] = [X]
    found.append({"again": (found,)})
    return found


def _dict_in_itself() -> Any:
    found: dict[str, Any] = {}
    found["again"] = [found]
    return found


def _port_in_itself() -> Any:
    port = Port()
    port.linear.again = port
    return port


def _net_in_itself() -> Any:
    net = Net()
    net.linear.again = net
    return net


def _deep(depth: int = 201) -> Any:
    found: Any = X
    for _ in range(depth):
        found = [found]
    return found


def _deep_net(depth: int = 201) -> Any:
    found: Any = nn.Linear(4, 4)
    for _ in range(depth):
        found = nn.Sequential(found)
    return found


def _many_paths() -> Any:
    found: Any = [X]
    for _ in range(60):
        found = [found, found]
    return found


ENDLESS: dict[str, tuple[str, dict[str, Callable[[], Any]], str]] = {
    "a list in itself": ("convert", {"example_inputs": _list_in_itself}, "a list in it holds"),
    "a dict in itself": ("analyze", {"kwargs": _dict_in_itself}, "a dict in it holds itself"),
    "two": ("convert", {"kwargs": _dict_in_itself, "dynamic": _dict_in_itself}, "dynamic=: a dict"),
    "deep": ("explain", {"example_inputs": _deep}, "expected lists, dicts and modules nested to"),
    "a state dict": ("convert_state_dict", {"source": _dict_in_itself}, "source=: a dict in it"),
    "a port": ("verify", {"model": _port_in_itself}, "model=: a Port in it holds itself"),
    "a port to load": ("load_weights", {"model": _port_in_itself}, "model=: a Port in it holds"),
    "a model": ("convert", {"module": _net_in_itself}, "module=: a Net in it holds itself"),
    "a deep model": ("convert_layer", {"module": _deep_net}, "module=: expected lists, dicts and"),
    "a live model": ("restore", {"from_live": _port_in_itself}, "from_live=: a Port in it holds"),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_what_nests_without_end_is_refused_by_name(case: str, made: Any, tmp_path: Path) -> None:
    name, options, said = ENDLESS[case]
    given = {**RIGHT[name](made, tmp_path), **{key: make() for key, make in options.items()}}
    with pytest.raises(OptionsError) as raised:
        FUNCTIONS[name](**given)
    assert said in str(raised.value)


def test_what_nests_deep_is_converted() -> None:
    """MLX has a module and its list for each level, and is held to the same limit."""

    class Unpacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.deep = _deep_net(60)

        def forward(self, x: Any) -> torch.Tensor:
            while isinstance(x, list):
                x = x[0]
            return self.deep(x)

    net, given = Unpacked().eval(), [_deep(60)]
    result = mlxport.convert(net, given)
    assert mlxport.verify(result.model, net, given).passed


def test_what_stands_in_many_places_is_walked_once() -> None:
    signature = inspect.signature(mlxport.convert)
    check_call(signature, signature.bind(Net(), [_many_paths()]))


def test_all_wrong_arguments_are_named_at_once(made: Any) -> None:
    with pytest.raises(OptionsError) as raised:
        mlxport.convert(made.net, X, verify="yes", kwargs=3, dynamic="0", input_kinds="normal")
    assert str(raised.value).splitlines() == [
        "kwargs=: expected a dict (from text) or None, got int 3",
        "verify=: expected True or False, got str 'yes'",
        "dynamic=: expected a whole number or a list or tuple (each a whole number) or a dict "
        "(from text to a whole number or a list or tuple (each a whole number)) or None, got "
        "str '0'",
        "input_kinds=: expected a list or tuple (each text), got str 'normal'",
    ]


CLASSES: dict[str, tuple[Callable[[], Any], str]] = {
    "a text for names": (lambda: mlxport.Entry("a", ("b",)), "sources"),
    "a list of names": (lambda: mlxport.Entry(("a",), ["b"]), "targets"),
    "no steps": (lambda: mlxport.Entry(("a",), ("b",), ("permute",)), "steps"),
    "no target": (lambda: mlxport.LayerSpec(None), "target"),
    "no tuple of arguments": (lambda: mlxport.LayerSpec(mlx.nn.Linear, 3), "args"),
    "no names of keywords": (lambda: mlxport.LayerSpec(mlx.nn.Linear, (), {3: 3}), "kwargs"),
    "no entries": (lambda: mlxport.LayerSpec(mlx.nn.Linear, entries=("a",)), "entries"),
    "no reasons": (lambda: mlxport.LayerSpec(mlx.nn.Linear, ignored={"a": None}), "ignored"),
    "no axes": (lambda: mlxport.LayerSpec(mlx.nn.Linear, axes="any"), "axes"),
    "no rank": (lambda: mlxport.LayerSpec(mlx.nn.Linear, rank="2"), "rank"),
    "no results": (lambda: mlxport.LayerSpec(mlx.nn.Linear, results=("y", 2)), "results"),
    "no standalone": (lambda: mlxport.LayerSpec(mlx.nn.Linear, standalone=3), "standalone"),
    "no rule": (lambda: mlxport.register_rule(Net)("rule"), "a function"),
    "no handler": (lambda: mlxport.register_op("a.b")(None), "a function"),
    "no device": (lambda: api.verify_folder(".", device="tpu"), "device"),
    "too many inputs": (lambda: mlxport.verify(Port(), Net(), (X, X)), "example_inputs=: Net"),
}


@pytest.mark.parametrize(("make", "said"), CLASSES.values(), ids=CLASSES)
def test_classes_and_values(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(OptionsError, match=re.escape(said)):
        make()
