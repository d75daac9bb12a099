"""What must be settled before mlx is imported: settings it reads once, and the BLAS it binds to."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import sys
from pathlib import Path

log = logging.getLogger("mlxport")

# malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def prepare() -> None:
    """Prepare the process for importing mlx; harmless when called again or too late.

    Sets ``MLX_ENABLE_TF32=0`` unless the user set it. On Linux, MLX's CPU wheel carries the
    reference BLAS and calls ``sgemm_`` by name: where torch is installed its BLAS, many times
    faster, is loaded first and the name resolves to it. ``MLXPORT_TORCH_BLAS=0`` switches that off.
    """
    os.environ.setdefault("MLX_ENABLE_TF32", "0")
    if not sys.platform.startswith("linux") or os.environ.get("MLXPORT_TORCH_BLAS") == "0":
        return
    if "mlx.core" in sys.modules:
        log.debug("mlx was imported before mlxport: too late to give it torch's BLAS")
        return
    library = _torch_library()
    if library is not None:
        try:
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            log.debug("torch's BLAS cannot be loaded: %s", error)


def keep_memory() -> None:
    """Let this process keep the memory it frees, up to 2 GiB, for what it allocates next.

    For a process of our own: large arrays come and go by the hundred in a conversion, and glibc
    gives each back to the system, which clears every page before it is used again. Does nothing
    where the C library has no such setting.
    """
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # glibc; 1 means that the value was taken
            mallopt(_MMAP_THRESHOLD, 1 << 30)
            mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


def _torch_library() -> Path | None:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    library = Path(spec.origin).parent / "lib" / "libtorch_cpu.so"
    return library if library.is_file() else None
