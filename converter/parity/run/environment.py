"""Describe where a parity check ran: machine, backend, versions and settings."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping

import mlx.core as mx
import numpy as np

from mlxport import __version__
from mlxport.converter.environment import FAST_MATH, prepare


def environment(reference_versions: Mapping[str, str]) -> dict[str, str]:
    """Describe this machine and what runs on it.

    Args:
        reference_versions: package -> version where the reference was recorded; torch need not be
            on this machine.
    """
    gpu = mx.default_device().type == mx.DeviceType.gpu
    info = mx.device_info(mx.default_device())
    return {
        "mlxport": __version__,
        "mlx": mx.__version__,  # type: ignore[attr-defined]
        "backend": ("metal" if mx.metal.is_available() else "cuda") if gpu else "cpu",
        "device": str(info.get("device_name", platform.processor() or "unknown")),
        **({"BLAS": _blas()} if not gpu and sys.platform.startswith("linux") else {}),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        **{name: os.environ.get(name, "unset (1)") for name in FAST_MATH},
        **{f"reference {name}": version for name, version in reference_versions.items()},
    }


def _blas() -> str:
    return "torch's" if prepare() else "MLX's own"
