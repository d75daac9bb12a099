"""Options of the capture: what the MLX model takes and gives, and what is folded into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlxport.converter.graph.capture.dynamic import DynamicSizes


@dataclass(frozen=True)
class CaptureOptions:
    """How a torch model is captured and translated.

    Attributes:
        channels_last: whether the MLX model takes and gives channels-last arrays.
        fold_batchnorm: whether every BatchNorm is folded into the layer before it.
        dynamic: which sizes of the inputs may change from call to call; None for none.
    """

    channels_last: bool = False
    fold_batchnorm: bool = False
    dynamic: DynamicSizes | None = None

    @classmethod
    def of(
        cls,
        *,
        channels_last: bool,
        fold_batchnorm: bool = False,
        dynamic: Sequence[int] | int | None = None,
        dynamic_shapes: Any = None,
    ) -> CaptureOptions:
        """Return the options that a user's values stand for.

        Raises:
            OptionsError: both axes and torch.export's shapes are given, or an axis is negative.
        """
        return cls(channels_last, fold_batchnorm, DynamicSizes.of(dynamic, dynamic_shapes))
