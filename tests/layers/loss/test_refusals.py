"""What torch's losses refuse, the layers refuse too, and say what they expected."""

from collections.abc import Callable

import mlx.core as mx
import pytest
import torch

from mlxport import layers


def test_huber_delta_is_real() -> None:
    with pytest.raises(TypeError, match="delta"):
        torch.nn.HuberLoss(delta=1 + 0j)
    with pytest.raises(TypeError, match=r"\[HuberLoss\] 'delta' must be a real number"):
        layers.HuberLoss(delta=1 + 0j)


@pytest.mark.parametrize("smoothing", [-0.1, 2.0])
@pytest.mark.parametrize("package", [torch.nn, layers], ids=["torch", "layers"])
def test_label_smoothing(package: object, smoothing: float) -> None:
    build: Callable[..., object] = package.LinearCrossEntropyLoss  # type: ignore[attr-defined]
    with pytest.raises((ValueError, RuntimeError), match="label_smoothing"):
        build(3, 2, label_smoothing=smoothing)


def test_linear_cross_entropy_of_other_features() -> None:
    with pytest.raises(RuntimeError, match="in_features"):
        torch.nn.LinearCrossEntropyLoss(3, 2)(torch.zeros(4, 5), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"\[linear_cross_entropy\].*\(4, 5\) and \(2, 3\)"):
        layers.LinearCrossEntropyLoss(3, 2)(mx.zeros((4, 5)), mx.zeros((4,), mx.int64))
