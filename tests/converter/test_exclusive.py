"""Calls from several threads are right: one after the other, or on models that are loaded."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport import convert, convert_checkpoint, load, verify
from mlxport.converter.exclusive import exclusive


def net(width: int) -> torch.nn.Module:
    torch.manual_seed(width)
    return torch.nn.Sequential(torch.nn.Conv2d(1, width, 3), torch.nn.ReLU()).eval()


def side_by_side(function: Callable[[int], bool], widths: tuple[int, ...]) -> list[bool]:
    """Call a function in as many threads as there are widths, all of which begin at once."""
    start = threading.Barrier(len(widths))

    def begin(width: int) -> bool:
        start.wait()
        return function(width)

    with ThreadPoolExecutor(len(widths)) as threads:
        return list(threads.map(begin, widths))


def test_conversions_from_several_threads_are_all_right() -> None:
    x = torch.randn(1, 1, 8, 8)
    models = {width: net(width) for width in (2, 3, 4)}

    def converts(width: int) -> bool:
        model = models[width]
        result = convert(model, x)
        assert result.model is not None
        assert result.report is not None
        return result.report.passed and verify(result.model, model, x).passed

    assert side_by_side(converts, (2, 3, 4)) == [True] * 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("folders")
    for width in (2, 3):
        torch.save(net(width).state_dict(), home / f"{width}.pt")
        convert_checkpoint(
            home / f"{width}.pt", home / str(width), model=net(width), inputs=["1,1,8,8"]
        )
    return home


def test_folders_load_in_several_threads_and_are_called_in_others(folders: Path) -> None:
    models = {}

    def loads(width: int) -> bool:
        models[width] = load(folders / str(width))
        return True

    x = torch.randn(1, 1, 8, 8)
    # made by one thread: torch's generator is the process's
    expected = {width: net(width)(x).detach().numpy() for width in (2, 3)}

    def calls(width: int) -> bool:
        result = np.array(models[width](mx.array(x.numpy())))
        return np.allclose(result, expected[width], atol=1e-5)

    assert side_by_side(loads, (2, 3)) == [True, True]
    assert side_by_side(calls, (2, 3)) == [True, True]


THREAD = """
import threading
import mlx.core as mx
import mlxport


def work(folder):
    model = mlxport.load(folder)
    mx.eval(model(mx.ones((1, 1, 8, 8))))
    mx.clear_streams()


threads = [threading.Thread(target=work, args=(f"{home}/{width}",)) for width in (2, 3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_a_process_whose_threads_clear_their_streams_ends_well(folders: Path) -> None:
    command = [sys.executable, "-c", f"home = {str(folders)!r}\n{THREAD}"]
    done = [subprocess.run(command, capture_output=True, check=False) for _ in range(3)]
    assert [process.returncode for process in done] == [0] * 3, done[0].stderr


def test_one_call_may_be_within_another() -> None:
    inner = exclusive(lambda: 7)
    assert exclusive(inner)() == 7


def test_a_failed_call_lets_the_next_in() -> None:
    with pytest.raises(ZeroDivisionError):
        exclusive(lambda: 1 / 0)()
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(exclusive(lambda: 7)).result(timeout=60) == 7
