"""The device MLX runs on while a model is verified, converted or exported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx

from mlxport.converter.arguments import argument
from mlxport.converter.errors import DeviceError, OptionsError

DEVICES = ("auto", "cpu", "metal", "cuda")


@contextmanager
def on_device(name: str) -> Iterator[None]:
    """Let MLX run on a device, and afterwards on that it ran on before.

    Args:
        name: one of `DEVICES`; ``auto`` is MLX's default.

    Raises:
        DeviceError: it is not on this machine.
        OptionsError: there is no such device.
    """
    check_device(name)
    if name == "auto":
        yield
        return
    before = mx.default_device()
    mx.set_default_device(mx.Device(mx.cpu if name == "cpu" else mx.gpu))
    try:
        yield
    finally:
        mx.set_default_device(before)


def check_device(name: str) -> None:
    """Find out whether a device is on this machine, before anything is done.

    Raises:
        DeviceError: it is not.
        OptionsError: there is no such device.
    """
    if name not in DEVICES:
        raise OptionsError(f"{argument('device', name)}: expected one of {', '.join(DEVICES)}")
    present = {"cpu": True, "metal": mx.metal.is_available(), "cuda": _has_cuda()}
    if name != "auto" and not present[name]:
        found = ", ".join(device for device, there in present.items() if there)
        raise DeviceError(
            f"{argument('device', name)}: this machine has {found} only. What is converted here "
            f"can be verified on a machine with {name}: copy the output folder there, install mlx "
            f"and mlxport, and run: mlxport verify OUT --device {name}"
        )


def _has_cuda() -> bool:
    cuda = getattr(mx, "cuda", None)
    return bool(cuda is not None and cuda.is_available())
