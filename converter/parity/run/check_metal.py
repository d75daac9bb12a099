"""Look up the calls of an MLX model in the table of what MLX's Metal backend takes.

On any machine: the model is run lazily, by the ways it goes on a GPU, and nothing is computed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePath
from types import FrameType
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxport.converter.parity.report.metal_check import MetalCheck, MetalRemark
from mlxport.converter.parity.run.caches import caches_as_arrays
from mlxport.converter.parity.run.interface import mlx_arguments
from mlxport.converter.parity.run.metal_calls import watching
from mlxport.converter.parity.run.metal_table import VERSIONS, Effect, PrimitiveCall, rows_of
from mlxport.converter.parity.run.trace import modules_at
from mlxport.converter.parity.verdict.reference_data import Reference
from mlxport.converter.plan.record import Conversion
from mlxport.converter.timings import stage

_logger = logging.getLogger(__name__)


@stage("metal table")
def check_metal(
    model: nn.Module, conversion: Conversion, reference: Reference
) -> MetalCheck | None:
    """Return what the table says of a model's calls; None where the model cannot be run.

    Args:
        model: the MLX model.
        conversion: the record of it.
        reference: has the arguments to call it with.

    Raises:
        ParityError: the reference does not fit the conversion.
    """
    root = next(record for record in conversion.modules if record.path == "")
    args, named = mlx_arguments(root, conversion, reference)
    modules = modules_at(model, [record.target for record in conversion.modules])
    paths = {id(modules[record.target]): record.path for record in conversion.modules}
    found = _Found(paths)
    try:
        with (
            caches_as_arrays(model, conversion),
            watching(found.observe, found.unknown.add),
            _as_on_a_gpu(),
            _same_draws(),
        ):
            model(*args, **named)
    except Exception:  # the model's code, whatever it raises
        _logger.debug("the model cannot be run for the table of Metal", exc_info=True)
        return None
    return found.check()


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    """Let layers that go another way by the default device go that of a GPU."""
    original = mx.default_device
    gpu = mx.Device(mx.gpu)
    try:
        mx.default_device = lambda: gpu
        yield
    finally:
        mx.default_device = original


@contextmanager
def _same_draws() -> Iterator[None]:
    """Leave MLX's generator of random numbers as it was."""
    state: Any = mx.random.state
    high, low = state[0].tolist()
    try:
        yield
    finally:
        mx.random.seed(high << 32 | low)


class _Found:
    """What the calls of one run are, and where the remarkable ones stand.

    Attributes:
        paths: id of a module -> its qualified name.
        unknown: functions whose primitives MLX does not tell.
    """

    def __init__(self, paths: Mapping[int, str]) -> None:
        self.paths = paths
        self.unknown: set[str] = set()
        self._kinds: set[tuple[str, ...]] = set()
        self._remarks: Counter[tuple[str, Effect, str, str, int]] = Counter()

    def observe(self, call: PrimitiveCall, frame: FrameType) -> None:
        """Note a call, and where it stands if the table speaks of it."""
        self._kinds.add(call.kind)
        for row in rows_of(call):
            layer, line = self._place(frame)
            self._remarks[str(call), row.effect, row.reason, layer, line] += 1

    def check(self) -> MetalCheck:
        """Return what was found, what is refused first."""
        effects = list(Effect)
        remarks = sorted(self._remarks.items(), key=lambda item: effects.index(item[0][1]))
        return MetalCheck(
            VERSIONS[-1],
            len(self._kinds),
            tuple(
                MetalRemark(call, effect.value, reason, layer, line, times)
                for (call, effect, reason, layer, line), times in remarks
            ),
            tuple(sorted(self.unknown)),
        )

    def _place(self, frame: FrameType) -> tuple[str, int]:
        """Return the innermost module that is at work, and the line of model.py."""
        layer: str | None = None
        line = 0
        outer: FrameType | None = frame
        while outer is not None:
            if layer is None:
                layer = self.paths.get(id(outer.f_locals.get("self")))
            if not line and PurePath(outer.f_code.co_filename).name == "model.py":
                line = outer.f_lineno
            outer = outer.f_back
        return layer or "", line
