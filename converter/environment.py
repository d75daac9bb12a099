"""Prepare the process before mlx is imported: settings it reads once, the BLAS it binds to."""

from __future__ import annotations

import os
import sys
import warnings
from functools import cache

# What MLX computes faster and rounds more by default, where the hardware can: float32 products in
# TF32, on Metal 3x3 convolutions by Winograd's algorithm. Either would drown the parity check.
FAST_MATH = ("MLX_ENABLE_TF32", "MLX_CONV_WINOGRAD")

# The minor releases of torch that the tests have passed with. Capture rests on much of torch.export
# that PyTorch promises nobody to keep.
TESTED_TORCH = ("2.13", "2.14")

_COLLECTED_AFTER = 20_000  # new objects; 700 where nobody says so

# malloc.h
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


class UntestedTorchWarning(UserWarning):
    """PyTorch is of a minor release that mlxport has not been tested with."""


@cache
def warn_of_untested_torch(version: str) -> None:
    """Warn, once in a process, where the tests never ran with PyTorch's minor release.

    Args:
        version: ``torch.__version__``, whatever build it names behind a ``+``.
    """
    if ".".join(version.split(".")[:2]) not in TESTED_TORCH:
        warnings.warn(
            f"torch {version}: mlxport was tested with torch {', '.join(TESTED_TORCH)}. Another "
            "may capture models otherwise: look at what the parity report judged, and where a "
            f"conversion fails, try `pip install 'torch=={TESTED_TORCH[-1]}.*'`.",
            UntestedTorchWarning,
            stacklevel=2,
        )


def forbid_fast_math() -> None:
    """Switch `FAST_MATH` off, unless the user set it; MLX reads the first once, when imported."""
    for name in FAST_MATH:
        os.environ.setdefault(name, "0")


@cache
def prepare() -> bool:
    """Prepare the process for importing mlx; only the first call does anything.

    Switches `FAST_MATH` off unless the user set it. On Linux, MLX's CPU wheel carries the
    reference BLAS and calls ``sgemm_`` by name: where torch is installed its BLAS, many times
    faster, is loaded first and the name resolves to it, whether torch was imported or not.
    ``MLXPORT_TORCH_BLAS=0`` switches that off. After mlx it is too late, which is logged.

    Returns:
        Whether mlx computes, or will, with torch's BLAS.
    """
    forbid_fast_math()
    if not sys.platform.startswith("linux") or os.environ.get("MLXPORT_TORCH_BLAS") == "0":
        return False
    if "mlx.core" in sys.modules:
        _log("mlx was imported before mlxport: too late to give it torch's BLAS")
        return False
    library = _torch_library()
    if library is None:
        return False
    import ctypes

    try:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        _log(f"torch's BLAS cannot be loaded: {error}")
        return False
    return True


def keep_memory() -> None:
    """Let this process keep the memory it frees for what it allocates next, in large pages.

    For a process of our own, before it imports torch: large arrays come and go by the hundred in
    a conversion, and glibc gives each back to the system, which clears every page before it is
    used again. Large pages are torch's own, of arrays from 2 MiB on; one that the user chose
    stays (``THP_MEM_ALLOC_ENABLE``). Does nothing where the C library has no such setting.
    """
    if sys.platform.startswith("linux"):
        import ctypes

        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # glibc; 1 means that the value was taken
            mallopt(_MMAP_MAX, 0)
            mallopt(_TRIM_THRESHOLD, -1)  # never


def collect_rarely() -> None:
    """Let this process look for objects that refer to one another in circles less often.

    For a process of our own: a conversion makes millions of objects, most of which stay, and each
    look walks through all of them.
    """
    import gc

    gc.set_threshold(_COLLECTED_AFTER, *gc.get_threshold()[1:])


def _torch_library() -> str | None:
    import importlib.util

    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    library = os.path.join(os.path.dirname(spec.origin), "lib", "libtorch_cpu.so")
    return library if os.path.isfile(library) else None


def _log(message: str) -> None:
    import logging

    logging.getLogger(__name__).debug(message)
