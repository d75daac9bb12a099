"""Models over volumes larger than what they take at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlxport.converter.api.boundary import public
from mlxport.converter.environment import prepare

if TYPE_CHECKING:
    import numpy as np


@public
def sliding_window(
    model: Any,
    volume: Any,
    patch: Sequence[int],
    *,
    overlap: float = 0.5,
    mirror: Sequence[int] = (),
    channels_last: bool = False,
    progress: bool = True,
    group: Any = None,
) -> np.ndarray:
    """Run a model over a volume of any size, patch by patch, and blend the scores.

    Patches lie as nnU-Net and MONAI lay them: evenly, the last at the end of each axis. Scores are
    weighted with a Gaussian, an eighth of a side wide, as MONAI's are. Every patch is evaluated
    before the next begins: beside the volume and its scores, which lie in NumPy arrays, memory
    holds the activations of one patch. Needs no torch.

    Launched on several machines by ``mlx.launch``, the patches are shared among them, and each
    returns all scores: those of one machine, bit for bit, where all compute alike.

    Args:
        model: of ``(1, C, *patch)`` to ``(1, classes, *patch)``: a converted model, or any
            function of arrays. Of several results the first is taken.
        volume: ``(C, *sizes)``, an ``mx.array`` or NumPy array; one that is mapped into memory
            (``np.load(…, mmap_mode="r")``) is read patch by patch. Zeros are put around it where
            it is smaller than a patch.
        patch: the sides of a patch, one for each axis of ``sizes``.
        overlap: the least share of a patch's side that it has in common with the next.
        mirror: axes of the patch, counted from 0, along which it is mirrored too: scores are the
            mean over all mirror images, 8 of them for three axes (test-time augmentation).
        channels_last: volume, patches and scores have their channels last.
        progress: show on stderr how far it has come.
        group: of ``mx.distributed``; by default all machines the process was launched on.

    Returns:
        The scores, ``(classes, *sizes)`` in float32.

    Raises:
        OptionsError: volume, patch and axes do not fit, or the model gives no score for each
            place.
    """
    prepare()
    from mlxport.converter.output.sliding_window import blended_scores

    return blended_scores(
        model,
        volume,
        patch,
        overlap=overlap,
        mirror=mirror,
        channels_last=channels_last,
        progress=progress,
        group=group,
    )
