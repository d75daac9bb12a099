"""Options of the capture: what the MLX model takes and gives, and what is folded into it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxport.converter.arguments import argument
from mlxport.converter.errors import OptionsError
from mlxport.converter.graph.capture.dynamic import DynamicAxes, DynamicSizes


@dataclass(frozen=True)
class CaptureOptions:
    """How a torch model is captured and translated.

    Attributes:
        channels_last: whether the MLX model takes and gives channels-last arrays.
        fold_batchnorm: whether every BatchNorm is folded into the layer before it.
        dynamic: which sizes of the inputs may change from call to call; None for none.
        debug_dir: folder to write down in what each stage gives; None to write nothing.
    """

    channels_last: bool = False
    fold_batchnorm: bool = False
    dynamic: DynamicSizes | None = None
    debug_dir: Path | None = None

    @classmethod
    def of(
        cls,
        *,
        channels_last: bool,
        fold_batchnorm: bool = False,
        dynamic: DynamicAxes | None = None,
        dynamic_shapes: Any = None,
        debug_dir: str | Path | None = None,
    ) -> CaptureOptions:
        """Return the options that a user's values stand for.

        Raises:
            OptionsError: both axes and torch.export's shapes are given, an axis is negative, or
                ``debug_dir`` is a file.
        """
        folder = None if debug_dir is None else Path(debug_dir)
        if folder is not None and folder.exists() and not folder.is_dir():
            raise OptionsError(f"{argument('debug_dir', str(folder))}: a file, not a folder")
        sizes = DynamicSizes.of(dynamic, dynamic_shapes)
        return cls(channels_last, fold_batchnorm, sizes, folder)
