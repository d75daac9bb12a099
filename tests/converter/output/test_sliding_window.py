"""The sliding window: where patches lie, what they weigh, mirror images, memory, two processes."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch

import mlxport
from mlxport.converter.errors import OptionsError
from mlxport.converter.output.sliding_window import gaussian, starts

Volume = np.ndarray[Any, np.dtype[np.float32]]


def normal(*shape: int) -> Volume:
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def small() -> nn.Module:
    """A convolution that sees across patches, so that weights and places matter."""
    mx.random.seed(0)
    return nn.Conv3d(2, 3, 3, padding=1)


@pytest.mark.parametrize(
    ("size", "patch", "overlap", "want"),
    [
        (256, 96, 0.25, [0, 53, 107, 160]),
        (24, 16, 0.25, [0, 8]),
        (16, 16, 0.5, [0]),
        (32, 16, 0.0, [0, 16]),
        (6, 3, 1 - 1e-12, [0, 1, 2, 3]),
    ],
)
def test_patches_begin_evenly_and_reach_the_end(
    size: int, patch: int, overlap: float, want: list[int]
) -> None:
    assert starts(size, patch, overlap) == want


@pytest.mark.parametrize("sizes", [(24, 20, 17), (9, 20, 16), (30, 7), (40,)])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("mirror", [(), (0,)], ids=["plain", "mirrored"])
def test_what_no_patch_changes_comes_back(
    sizes: tuple[int, ...], channels_last: bool, mirror: tuple[int, ...]
) -> None:
    volume = normal(*sizes, 2) if channels_last else normal(2, *sizes)
    got = mlxport.sliding_window(
        lambda x: x * 2,
        volume,
        (12, 16, 8)[: len(sizes)],
        channels_last=channels_last,
        mirror=mirror,
        progress=False,
    )
    np.testing.assert_allclose(got, volume * 2, rtol=1e-5, atol=1e-5)


def by_hand(model: Callable[[mx.array], mx.array], volume: Volume, side: int) -> Volume:
    """The same in float64, written apart: weights by their formula, no gathering."""
    total, weight = np.zeros((*volume.shape[:3], 3)), np.zeros((*volume.shape[:3], 1))
    line = np.exp(-0.5 * (np.arange(side) - (side - 1) / 2) ** 2 / (side / 8) ** 2)
    weights = np.einsum("i,j,k->ijk", line, line, line)[..., None]
    for corner in itertools.product((0, 4), repeat=3):
        place = tuple(slice(at, at + side) for at in corner)
        total[place] += weights * np.array(model(mx.array(volume[place][None]))[0])
        weight[place] += weights
    blended: Volume = total / weight
    return blended


def test_patches_are_blended_by_their_weights() -> None:
    model, volume = small(), normal(12, 12, 12, 2)
    got = mlxport.sliding_window(model, volume, (8, 8, 8), channels_last=True, progress=False)
    np.testing.assert_allclose(got, by_hand(model, volume, 8), rtol=1e-5, atol=1e-5)


def test_mirror_images_are_mirrored_back_and_averaged() -> None:
    model, volume = small(), normal(8, 8, 8, 2)
    got = mlxport.sliding_window(
        model, volume, (8, 8, 8), channels_last=True, mirror=(0, 2), progress=False
    )
    want = [
        np.flip(np.array(model(mx.array(np.flip(volume, axes).copy()[None]))[0]), axes)
        for axes in ((), (0,), (2,), (0, 2))
    ]
    np.testing.assert_allclose(got, np.mean(want, 0), rtol=1e-5, atol=1e-5)


def test_no_weight_is_zero() -> None:
    assert gaussian((128, 96, 5)).min() > 0


def test_memory_is_that_of_one_patch() -> None:
    def wide(x: mx.array) -> mx.array:
        return mx.repeat(x, 64, -1).sum(-1, keepdims=True)

    volume = np.zeros((64, 32, 32, 4), np.float32)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mlxport.sliding_window(wide, volume, (16,) * 3, channels_last=True, progress=False)
    patch = 16**3 * 4 * 64 * volume.itemsize
    assert mx.get_peak_memory() - before < 2 * patch


def test_progress_is_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    mlxport.sliding_window(lambda x: x, normal(1, 40), (2,), overlap=0)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        f"patches: {n} of 20" for n in range(2, 21, 2)
    ]


class Varying:
    """One class or two, in turns."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: mx.array) -> mx.array:
        self.calls += 1
        return mx.concatenate([x] * (1 + self.calls % 2), 1)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another number of sides": ({"patch": (4, 4)}, "expected a side for each axis"),
    "no side": ({"patch": (4, 0, 4)}, "expected a size of one or more each"),
    "overlap of all": ({"overlap": 1.0}, "overlap=1.0: expected 0 or more, less than 1"),
    "no such axis": ({"mirror": (3,)}, "mirror=(3,): expected axes of the patch"),
    "an axis twice": ({"mirror": (1, 1)}, "mirror=(1, 1): expected axes of the patch"),
    "another size": (
        {"model": lambda x: x[:, :, :2]},
        "each of (2, 4, 4) places of a patch of (4, 4, 4)",
    ),
    "no scores": ({"model": lambda x: {"a": x}}, "gives dict of a patch, not scores"),
    "no results": ({"model": lambda x: []}, "gives list of a patch, not scores"),
    "no classes": ({"model": lambda x: x[:, :0]}, "gives 0 scores for each of (4, 4, 4) places"),
    "a batch of two": ({"model": lambda x: mx.concatenate([x, x])}, "gives (2, 1, 4, 4, 4) in"),
    "complex scores": ({"model": lambda x: x.astype(mx.complex64)}, "in mlx.core.complex64 of one"),
    "others for one patch": ({"model": Varying()}, "gives 1 scores for each place of one patch, 2"),
    "what cannot be computed": (
        {"model": lambda x: x + mx.linalg.inv(mx.zeros((2, 2)), stream=mx.cpu).sum()},
        "MLX cannot evaluate what the model gives of a patch: [Inverse::eval_cpu]",
    ),
    "more than there is": (
        {"patch": (2**62, 4, 4)},
        f"patch=({2**62}, 4, 4): no array has so many",
    ),
    "text": ({"volume": np.full((1, 6, 6, 6), "a")}, "volume=: expected numbers, got an array of"),
    "objects": ({"volume": np.full((1, 6, 6, 6), None)}, "got an array of dtype object"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case: str) -> None:
    options, said = REFUSED[case]
    options = {"model": lambda x: x, "patch": (4, 4, 4), "progress": False, **options}
    with pytest.raises(OptionsError) as caught:
        mlxport.sliding_window(**{"volume": normal(1, 6, 6, 6), **options})
    assert said in str(caught.value)


DTYPES: dict[str, Callable[[Volume], Any]] = {
    "another order of bytes": lambda v: v.astype(">i2"),
    "doubles of another order": lambda v: v.astype(">f8"),
    "whole numbers": lambda v: v.astype("u2"),
    "half precision": lambda v: v.astype("f2"),
    "a view backwards": lambda v: v[:, ::-1, :, ::-1],
    "MLX": mx.array,
    "bfloat16": lambda v: mx.array(v).astype(mx.bfloat16),
}


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_volume_of_any_dtype_reaches_the_model_as_it_is(kind: str, channels_last: bool) -> None:
    volume = DTYPES[kind](np.arange(2 * 5 * 6 * 7, dtype=np.float32).reshape(2, 5, 6, 7) % 199)
    seen = set()

    def model(x: mx.array) -> mx.array:
        seen.add(x.dtype)
        return x

    got = mlxport.sliding_window(
        model, volume, (2, 3, 4), channels_last=channels_last, overlap=0.4, progress=False
    )
    native = isinstance(volume, np.ndarray) and volume.astype(volume.dtype.newbyteorder("="))
    assert seen == {volume.dtype if isinstance(volume, mx.array) else mx.array(native).dtype}
    want = volume.astype(mx.float32) if isinstance(volume, mx.array) else volume
    np.testing.assert_allclose(got, np.asarray(want), rtol=1e-5, atol=1e-5)


class Counting(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        return x + self.count


def test_a_model_with_state_begins_anew_at_each_patch() -> None:
    model = mlxport.convert(Counting(), torch.zeros(1, 1, 4, 4, 4)).model
    volume, patch = np.zeros((1, 6, 6, 6), np.float32), (4, 4, 4)
    with pytest.raises(OptionsError, match=r"keeps state .*model\.reset\(\)"):
        mlxport.sliding_window(model, volume, patch)

    def anew(x: mx.array) -> mx.array:
        model.reset()
        return model(x)

    assert np.array_equal(mlxport.sliding_window(anew, volume, patch), volume + 1)


WORKER = """
import sys
import mlx.core as mx, mlx.nn as nn, numpy as np
import mlxport
mx.random.seed(0)
model = nn.Conv3d(2, 3, 3, padding=1)
volume = np.random.default_rng(0).normal(size=(20, 13, 12, 2)).astype("float32")
group = mx.distributed.init()
scores = mlxport.sliding_window(model, volume, (8, 8, 8), channels_last=True, mirror=(1,))
np.save(sys.argv[1] + f"-{group.rank()}-of-{group.size()}.npy", scores)
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_two_processes_give_the_bits_of_one(tmp_path: Path) -> None:
    """As ``mlx.launch`` starts them over the ring back end: by a file of hosts and a rank."""
    hosts = tmp_path / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(2)]))
    command = [sys.executable, "-c", WORKER, str(tmp_path / "scores")]
    ring = [{"MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)} for rank in range(2)]
    started = [
        subprocess.Popen(command, env={**os.environ, **more}, stderr=subprocess.PIPE, text=True)
        for more in (*ring, {})
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0, 0], errors
    one = np.load(tmp_path / "scores-0-of-1.npy")
    for rank in range(2):
        shared = np.load(tmp_path / f"scores-{rank}-of-2.npy")
        np.testing.assert_array_equal(shared.view(np.int32), one.view(np.int32))
    assert "patches: " in errors[0]
    assert "patches: " not in errors[1]
