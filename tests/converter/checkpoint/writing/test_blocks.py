"""Blocks are the bytes of an array in C order, however it lies in memory."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlxport.converter.checkpoint.writing import blocks as module
from mlxport.converter.checkpoint.writing.blocks import blocks
from mlxport.converter.plan.steps import Step, bilinear_weight, conv_transpose_weight, conv_weight
from mlxport.converter.plan.tensor import Tensor


def joined(bits: np.ndarray, size: int = module.BLOCK) -> bytes:
    return b"".join(block.tobytes() for block in blocks(bits, size))


def numbered(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.random.randint(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8).view(dtype)[
        ..., 0
    ]


@pytest.fixture
def turned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the matrices that went through tiles."""
    shapes: list[tuple[int, ...]] = []
    turn = module._turn

    def noted(out: np.ndarray, source: np.ndarray, tile: np.ndarray) -> None:
        shapes.append(source.shape)
        turn(out, source, tile)

    monkeypatch.setattr(module, "_turn", noted)
    return shapes


# shape, steps, and whether columns are so far apart that numpy's own copy would be slow
WEIGHTS: dict[str, tuple[tuple[int, ...], tuple[Step, ...], bool]] = {
    "transposed 3-D": ((96, 40, 3, 3, 3), conv_transpose_weight(), True),
    "transposed 3-D, powers of two": ((64, 32, 4, 4, 4), conv_transpose_weight(), True),
    "transposed 3-D, wider than a tile": ((1100, 5, 3, 3, 3), conv_transpose_weight(), False),
    "transposed 3-D, wide and long": ((1100, 40, 2, 2, 2), conv_transpose_weight(), True),
    "transposed 3-D, narrow": ((7, 600, 3, 3, 3), conv_transpose_weight(), False),
    "transposed 3-D, groups": ((96, 40, 2, 2, 2), conv_transpose_weight(4), False),
    "transposed 3-D, depthwise": ((96, 1, 3, 3, 3), conv_transpose_weight(96), False),
    "transposed 1-D": ((300, 200, 16), conv_transpose_weight(), True),
    "3-D": ((40, 96, 3, 3, 3), conv_weight(3), False),
    "3-D, long kernel": ((20, 64, 7, 7, 11), conv_weight(3), True),
    "2-D": ((128, 64, 3, 3), conv_weight(2), False),
    "bilinear": ((5, 700, 300), bilinear_weight(), True),
}


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8"])
@pytest.mark.parametrize("case", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_in_mlx_order(case: Any, dtype: str, turned: list[tuple[int, ...]]) -> None:
    shape, steps, far = case
    tensors = (
        Tensor(numbered(shape, dtype), {"u1": "U8", "u2": "U16", "f4": "F32", "f8": "F64"}[dtype]),
    )
    for step in steps:
        tensors = step.apply(tensors)
    bits = tensors[0].bits
    for size in (module.BLOCK, 50_000):
        assert joined(bits, size) == np.ascontiguousarray(bits).tobytes()
    if dtype == "f4":
        assert bool(turned) == far


def test_no_block_is_larger_than_asked_for() -> None:
    bits = np.moveaxis(np.zeros((512, 64, 3, 3, 3), np.float32), 0, -1)
    sizes = [block.nbytes for block in blocks(bits, 1 << 16)]
    assert max(sizes) <= 1 << 16
    assert sum(sizes) == bits.nbytes


def test_what_lies_in_order_is_not_copied() -> None:
    bits = np.arange(10_000, dtype=np.float32).reshape(10, 20, 50)[2:9]
    assert all(np.shares_memory(bits, block) for block in blocks(bits, 1000))


VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "reversed": lambda a: a[::-1, :, ::-1],
    "every other": lambda a: a[::2, :, 1::3],
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
    "one value": lambda a: np.broadcast_to(a[0, 0, 0], (40, 50)),
    "Fortran order": np.asfortranarray,
    "scalar": lambda a: a[0, 0, 0],
    "empty": lambda a: a[:, 2:2].T,
    "a subclass": lambda a: a.T.view(np.memmap),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_views(view: Callable[[np.ndarray], np.ndarray]) -> None:
    bits = np.asanyarray(view(numbered((40, 30, 50), "f4")))
    assert joined(bits) == joined(bits, 64) == np.ascontiguousarray(bits).tobytes()


@given(data=st.data())
def test_any_array(data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=5, max_side=12))
    dtype = data.draw(st.sampled_from(["u1", "u2", "f4", "f8", "c16"]))
    bits = numbered(shape, dtype)[data.draw(hnp.basic_indices(shape, allow_newaxis=True))]
    bits = np.asarray(bits).transpose(data.draw(st.permutations(range(np.ndim(bits)))))
    with pytest.MonkeyPatch.context() as patch:  # so that small ones go through tiles too
        for name in ("_TILE", "_ROWS", "_PAD", "_FAR", "_NARROW"):
            patch.setattr(module, name, data.draw(st.sampled_from([16, 32, 64])))
        patch.setattr(module, "_TILE", 1024)
        assert joined(bits, data.draw(st.sampled_from([1, 24, 100, 10**6]))) == bits.tobytes()


def test_every_order_of_axes() -> None:
    bits = numbered((17, 18, 19, 20), "f4")
    for order in itertools.permutations(range(4)):
        view = bits.transpose(order)
        assert joined(view, 10_000) == np.ascontiguousarray(view).tobytes(), order
