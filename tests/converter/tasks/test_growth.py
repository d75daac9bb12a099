"""A process that converts many models does not grow, and draws as if it had converted none."""

import gc
import linecache
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.fx.graph_module
from torch import nn

import mlxport
from mlxport.converter.errors import ConversionError

X = torch.randn(1, 2, 6, 6)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.conv(x)).relu() + torch.rand(4, 4)


def convert() -> None:
    report = mlxport.convert(Net().eval(), X).report
    assert report is not None
    assert report.passed


def alive() -> Counter[str]:
    gc.collect()
    found = Counter(str(type(thing)) for thing in gc.get_objects())
    # the collector's own, and what the counting itself makes
    return Counter({name: n for name, n in found.items() if "weakref" not in name})


def test_conversions_leave_nothing_in_the_process() -> None:
    times = 5
    for _ in range(2):  # what is made once
        convert()
    sources = torch.fx.graph_module._loader.eval_cache
    sizes = len(sys.modules), len(linecache.cache), len(sources), len(sys.path)
    before = alive()
    for _ in range(times):
        convert()
    after = alive()
    assert (len(sys.modules), len(linecache.cache), len(sources), len(sys.path)) == sizes
    grown = {name: n - before[name] for name, n in after.items() if n - before[name] >= 2 * times}
    assert grown == {}


def test_loads_leave_nothing_in_the_process(tmp_path: Path) -> None:
    torch.save(Net().state_dict(), tmp_path / "net.pt")
    mlxport.convert_checkpoint(
        tmp_path / "net.pt", tmp_path / "out", model=Net().eval(), inputs=[X]
    )
    for _ in range(2):
        mlxport.load(tmp_path / "out")
    sizes = len(sys.modules), len(linecache.cache), len(sys.path)
    before = alive()
    for _ in range(20):
        mlxport.load(tmp_path / "out")
    after = alive()
    assert (len(sys.modules), len(linecache.cache), len(sys.path)) == sizes
    assert {name: n - before[name] for name, n in after.items() if n - before[name] >= 20} == {}


class Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no")


def _fails(model: nn.Module) -> None:
    with pytest.raises(ConversionError):
        mlxport.convert(Broken(), X)


CALLS: dict[str, Callable[[nn.Module], object]] = {
    "convert": lambda model: mlxport.convert(model, X),
    "convert_layer": lambda model: mlxport.convert_layer(model.conv),
    "analyze": lambda model: mlxport.analyze(model, X),
    "a conversion that fails": _fails,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_random_states_are_as_before(call: Callable[[nn.Module], object]) -> None:
    model = Net().eval()
    mx.random.seed(2**40 + 5)
    mx.random.normal((3,))
    before, drawn = np.array(mx.random.state[0]).tolist(), torch.get_rng_state()
    call(model)
    assert np.array(mx.random.state[0]).tolist() == before
    assert torch.equal(torch.get_rng_state(), drawn)


def test_a_loaded_model_is_called_from_another_thread(tmp_path: Path) -> None:
    torch.save(nn.Conv2d(2, 3, 3).state_dict(), tmp_path / "net.pt")
    mlxport.convert_checkpoint(
        tmp_path / "net.pt", tmp_path / "out", model=nn.Conv2d(2, 3, 3), inputs=[X]
    )
    model = mlxport.load(tmp_path / "out")
    x = mx.array(X.numpy())
    expected = np.array(model(x))
    found: list[object] = []

    def run() -> None:
        found.append(np.array(model(x)))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(one, expected) for one in found)
