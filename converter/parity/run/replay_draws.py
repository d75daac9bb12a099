"""Replay the random numbers PyTorch drew in an MLX model, while it is verified.

``model.py`` draws from MLX's generator. During verification the functions of ``mx.random`` answer
with PyTorch's standard draws instead, scaled by the mean, bounds or probabilities of each call.
Needs mlx and numpy, never torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.verdict.reference_data import Draw
from mlxport.converter.plan.record import DrawRecord

_ADVICE = "Record the reference of the model that was converted, with the arguments it was for."
_NOT_REPLAYED = ("laplace", "multivariate_normal", "truncated_normal")


def check_draws(draws: Sequence[Draw], records: Sequence[DrawRecord]) -> None:
    """Check that PyTorch drew what the converted model draws: kinds and numbers of axes, in order.

    Raises:
        ParityError: it did not; every difference is listed.
    """
    problems = []
    for i in range(max(len(draws), len(records))):
        drawn = f"{draws[i].kind} {draws[i].shape}" if i < len(draws) else "nothing"
        wanted = "nothing"
        if i < len(records):
            kind, layout = records[i].kind, records[i].layout
            wanted = f"{kind} {layout.shape}"
            if i < len(draws) and (kind, len(layout.order)) == (
                draws[i].kind,
                draws[i].values.ndim,
            ):
                continue
        problems.append(f"draw {i + 1}: PyTorch {drawn}, the converted model {wanted}")
    if problems:
        raise ParityError.listing(
            f"PyTorch makes {len(draws)} random draws, the converted model {len(records)}; these "
            "differ:",
            problems,
            "A draw whose numbers the model does not use is not converted: remove it from "
            f"forward(). Otherwise: {_ADVICE[0].lower()}{_ADVICE[1:]}",
        )


@contextmanager
def replayed(draws: Sequence[Draw], records: Sequence[DrawRecord]) -> Iterator[None]:
    """Let the functions of ``mx.random`` answer with recorded draws, in their order.

    Args:
        draws: what PyTorch drew.
        records: the draws of the converted model, which say how each is stored.

    Raises:
        ParityError: the model draws others, more or fewer; or by a function that cannot be served.
    """
    replay = _Replay(draws, records)
    served = {name: getattr(replay, name) for name in _SERVED}
    served |= {name: _refusal(name) for name in _NOT_REPLAYED}
    originals = {name: getattr(mx.random, name) for name in served}
    try:
        for name, function in served.items():
            setattr(mx.random, name, function)
        yield
    finally:
        for name, function in originals.items():
            setattr(mx.random, name, function)
    replay.check_consumed()


def _refusal(name: str) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ParityError(
            f"the MLX model draws by mx.random.{name}, for which parity has no numbers of "
            "PyTorch's. It must draw as model.py was written."
        )

    return refuse


class _Replay:
    """A replacement of ``mx.random``: functions of the same signatures that replay the draws."""

    def __init__(self, draws: Sequence[Draw], records: Sequence[DrawRecord]) -> None:
        self.pairs = list(zip(draws, records, strict=True))
        self.taken = 0

    def check_consumed(self) -> None:
        """Raise ParityError where recorded draws are left."""
        left = self.pairs[self.taken :]
        if left:
            raise ParityError.listing(
                f"the MLX model made {self.taken} random draws of the {len(self.pairs)} that "
                "PyTorch made; these were left:",
                [f"{draw.kind} {draw.shape}" for draw, _ in left],
                "It must draw as model.py was written.",
            )

    def take(self, kind: str, shape: Sequence[int], dtype: Any = None) -> mx.array:
        """Return the numbers of the next draw as stored, in the dtype or else in float64."""
        shape, number = tuple(shape), self.taken + 1
        asked = f"the MLX model asks for {kind} {shape}"
        if self.taken == len(self.pairs):
            raise ParityError(
                f"random draw {number}: {asked}, PyTorch made {len(self.pairs)} only. The model "
                "must draw as model.py was written."
            )
        draw, record = self.pairs[self.taken]
        self.taken += 1
        order = record.layout.order
        stored = tuple(draw.shape[axis] for axis in order)
        name = str(dtype).rpartition(".")[2]
        if (kind, shape) != (draw.kind, stored) or (dtype is not None and name != draw.dtype):
            asked += "" if dtype is None else f" of {name}"
            of = "" if dtype is None else f" of {draw.dtype}"
            raise ParityError(
                f"random draw {number}: {asked}, PyTorch drew {draw.kind} {draw.shape}{of}, which "
                f"is {stored} as stored. The model must draw as model.py was written."
            )
        # reshaped, as NumPy gives what has no axes one
        values = np.ascontiguousarray(np.transpose(draw.values, order)).reshape(shape)
        if dtype is None:
            with mx.stream(mx.cpu):  # no GPU has float64
                return mx.array(values, dtype=mx.float64)
        return mx.array(values.astype(np.float32)).astype(dtype)

    def normal(
        self,
        shape: Sequence[int] = (),
        dtype: Any = mx.float32,
        loc: Any = None,
        scale: Any = None,
        key: Any = None,
        stream: Any = None,
    ) -> mx.array:
        numbers = self.take("normal", shape, dtype)
        if scale is not None:
            numbers = mx.array(scale) * numbers
        if loc is not None:
            numbers = mx.array(loc) + numbers
        return numbers.astype(dtype)

    def uniform(
        self,
        low: Any = 0,
        high: Any = 1,
        shape: Sequence[int] = (),
        dtype: Any = mx.float32,
        key: Any = None,
        stream: Any = None,
    ) -> mx.array:
        lower, upper = mx.array(low).astype(dtype), mx.array(high).astype(dtype)
        numbers: mx.array = self.take("uniform", shape, dtype) * (upper - lower) + lower
        return numbers

    def gumbel(
        self,
        shape: Sequence[int] = (),
        dtype: Any = mx.float32,
        key: Any = None,
        stream: Any = None,
    ) -> mx.array:
        return self.take("gumbel", shape, dtype)

    def bernoulli(
        self, p: Any = 0.5, shape: Any = None, key: Any = None, stream: Any = None
    ) -> mx.array:
        p = mx.array(p)
        parts = self.take("bernoulli", p.shape if shape is None else shape)
        with mx.stream(mx.cpu):
            return mx.less(parts, p.astype(mx.float64))

    def randint(
        self,
        low: Any,
        high: Any,
        shape: Sequence[int] = (),
        dtype: Any = mx.int32,
        key: Any = None,
        stream: Any = None,
    ) -> mx.array:
        parts = np.array(self.take("randint", shape))
        low, high = (np.array(bound).astype(np.float64) for bound in (low, high))
        return mx.array((low + np.floor(parts * (high - low))).astype(np.int64)).astype(dtype)

    def categorical(
        self,
        logits: mx.array,
        axis: int = -1,
        shape: Any = None,
        num_samples: int | None = None,
        key: Any = None,
        stream: Any = None,
    ) -> mx.array:
        if shape is not None:
            raise ParityError("mx.random.categorical with a shape cannot be replayed: num_samples")
        moved = mx.moveaxis(logits, axis, -1)
        several = () if num_samples is None else (num_samples,)
        parts = self.take("categorical", (*moved.shape[:-1], *several))
        with mx.stream(mx.cpu):
            edges = mx.cumsum(mx.softmax(moved.astype(mx.float64), -1), -1)
            parts = parts if several else mx.expand_dims(parts, -1)
            passed = mx.greater_equal(parts[..., None], edges[..., None, :])
            chosen = mx.minimum(mx.sum(passed, -1), edges.shape[-1] - 1).astype(mx.uint32)
            return chosen if several else chosen.squeeze(-1)

    def permutation(self, x: Any, axis: int = 0, key: Any = None, stream: Any = None) -> mx.array:
        if not isinstance(x, int):
            raise ParityError("mx.random.permutation of an array cannot be replayed, of a number")
        keys = np.array(self.take("permutation", (x,)))
        return mx.array(np.argsort(keys, kind="stable").astype(np.uint32))


_SERVED = ("bernoulli", "categorical", "gumbel", "normal", "permutation", "randint", "uniform")
