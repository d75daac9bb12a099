"""The device MLX runs on meanwhile, and afterwards."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlxport.converter.errors import DeviceError, OptionsError
from mlxport.converter.output.device import DEVICES, on_device


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_the_device_is_that_of_before_afterwards(name: str) -> None:
    before = mx.default_device()
    with on_device(name):
        assert name == "auto" or mx.default_device() == mx.cpu
    assert mx.default_device() == before


@pytest.mark.parametrize("name", ["metal", "cuda"])
def test_one_that_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getattr(mx, name), "is_available", lambda: False)
    with pytest.raises(DeviceError, match=f"mlxport verify OUT --device {name}"), on_device(name):
        pass


def test_one_that_does_not_exist() -> None:
    with pytest.raises(OptionsError, match=", ".join(DEVICES)), on_device("tpu"):
        pass
