"""The product of two thin matrices that a LoRA adapter adds to a weight, as PEFT defines it.

In float64. Needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import prod
from typing import Any, Literal, TypeAlias

import numpy as np

from mlxport.converter.plan.batch_norm import Array

# Which axes of a weight come first: (out, in, *k); (in, out) of tables and of transformers'
# Conv1D; (in, out, *k) of transposed convolutions.
WeightAxes: TypeAlias = Literal["out_in", "in_out", "transposed"]


def matrices_of(parts: Collection[str]) -> tuple[str, str]:
    """Return what PEFT calls both matrices of an adapter that has these parts: of a table or not.

    Args:
        parts: their names below the layer (``"lora_A.weight"``).
    """
    is_table = "lora_embedding_A" in parts
    table, others = ("lora_embedding_A", "lora_embedding_B"), ("lora_A.weight", "lora_B.weight")
    return table if is_table else others


_BLOCK = 1 << 22  # numbers in a block


def with_low_rank(
    weight: Array, down: Array, up: Array, scale: float, axes: WeightAxes
) -> Iterator[tuple[slice, Array]]:
    """Yield ``weight + scale · up · down``, a block of rows at a time with where they are.

    Args:
        weight: of the layer.
        down: ``lora_A``, ``(r, in, *k)``; of a transposed convolution ``(in, r, *k)``.
        up: ``lora_B``, ``(out, r, 1, …)``; of a transposed convolution ``(r, out, 1, …)``.
        scale: what the product is multiplied by.
        axes: how the weight lies.

    Raises:
        ValueError: the shapes do not go together.
    """
    size = max(1, _BLOCK // max(1, prod(weight.shape[1:])))
    for start in range(0, len(weight), size):
        part = slice(start, start + size)
        product = _rows(down, up, axes, part)
        if product.shape != weight[part].shape:
            raise ValueError(f"lora_A {down.shape} and lora_B {up.shape} make another shape")
        yield part, weight[part] + scale * product


def _rows(down: Array, up: Array, axes: WeightAxes, part: slice) -> Any:
    matrix = up.reshape(up.shape[:2])
    if axes == "out_in":
        rank, *columns = down.shape
        return (matrix[part] @ down.reshape(rank, -1)).reshape(-1, *columns)
    if axes == "in_out":
        return down.T[part] @ matrix.T
    return np.moveaxis(np.moveaxis(down[part], 1, -1) @ matrix, -1, 1)
