from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.nn as nn
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxport import layers
from mlxport.converter.errors import UnsupportedError
from mlxport.converter.rules.build import build_layer, spec_for

# torch says so of every even kernel with padding "same"; the result is what counts here
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

CONV = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d}
TRANSPOSED = {
    1: torch.nn.ConvTranspose1d,
    2: torch.nn.ConvTranspose2d,
    3: torch.nn.ConvTranspose3d,
}
NATIVE = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
OURS = {1: layers.Conv1d, 2: layers.Conv2d, 3: layers.Conv3d}

SETTINGS = {
    "plain": {},
    "no_bias": {"bias": False},
    "stride_padding": {"stride": 2, "padding": 1},
    "dilation": {"dilation": 2},
    "same": {"padding": "same"},
    "same_even_kernel": {"kernel_size": 4, "padding": "same"},
    "valid": {"padding": "valid"},
    "groups": {"groups": 2},
    "depthwise": {"groups": 4},
    "reflect": {"padding": 2, "padding_mode": "reflect"},
    "replicate": {"padding": "same", "padding_mode": "replicate"},
    "circular": {"padding": 1, "padding_mode": "circular", "groups": 2, "stride": 2},
    "mode_without_padding": {"padding_mode": "reflect"},
}


def sample(rank: int, channels: int = 4) -> torch.Tensor:
    return torch.randn(2, channels, *(6 + i for i in range(rank)))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kwargs", SETTINGS.values(), ids=SETTINGS)
def test_convolution(
    assert_layer_parity: Callable[..., None], rank: int, kwargs: dict[str, Any]
) -> None:
    module = CONV[rank](4, 8, **{"kernel_size": 3, **kwargs})
    assert_layer_parity(module, sample(rank), gradients=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("build", [CONV, TRANSPOSED], ids=["conv", "transposed"])
@pytest.mark.parametrize("groups", [1, 2])
def test_half_precision(
    assert_layer_parity: Callable[..., None],
    build: dict[int, Any],
    groups: int,
    dtype: torch.dtype,
) -> None:
    assert_layer_parity(build[3](4, 8, 3, groups=groups), sample(3), dtype=dtype, gradients=True)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_each_axis_has_its_own_setting(assert_layer_parity: Callable[..., None], rank: int) -> None:
    per_axis = {
        "kernel_size": (3, 1, 2),
        "stride": (2, 1, 3),
        "padding": (0, 2, 1),
        "dilation": (1, 3, 2),
    }
    module = CONV[rank](4, 8, **{name: value[:rank] for name, value in per_axis.items()})
    assert_layer_parity(module, sample(rank), gradients=True)
    module = TRANSPOSED[rank](4, 8, **{name: value[:rank] for name, value in per_axis.items()})
    assert_layer_parity(module, sample(rank), gradients=True)


TRANSPOSED_SETTINGS = {
    "plain": {},
    "no_bias": {"bias": False},
    "doubling": {"stride": 2, "padding": 1, "output_padding": 1},
    "doubling_by_matmul": {"kernel_size": 2, "stride": 2},
    "groups": {"groups": 2, "stride": 2},
    "depthwise": {"groups": 4},
    "dilation": {"dilation": 2},
    "padding_beyond_the_kernel": {"kernel_size": 1, "stride": 2, "padding": 1},
    "output_padding_above_padding": {"stride": 3, "output_padding": 2},
}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kwargs", TRANSPOSED_SETTINGS.values(), ids=TRANSPOSED_SETTINGS)
def test_transposed_convolution(
    assert_layer_parity: Callable[..., None], rank: int, kwargs: dict[str, Any]
) -> None:
    module = TRANSPOSED[rank](4, 8, **{"kernel_size": 3, **kwargs})
    assert_layer_parity(module, sample(rank), gradients=True)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_without_a_batch(assert_layer_parity: Callable[..., None], rank: int) -> None:
    """MLX's convolutions need a batch; ours do not."""
    assert_layer_parity(TRANSPOSED[rank](4, 8, 3), sample(rank)[0])
    module = CONV[rank](4, 8, 3, padding=1, padding_mode="circular")
    assert_layer_parity(module, sample(rank)[0])


@settings(max_examples=60)
@given(data=st.data())
def test_any_setting(assert_layer_parity: Callable[..., None], data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3), label="rank")
    groups = data.draw(st.integers(1, 3), label="groups")
    channels = [groups * data.draw(st.integers(1, 2), label="per group") for _ in range(2)]

    def per_axis(low: int, high: int, label: str) -> tuple[int, ...]:
        return tuple(data.draw(st.tuples(*[st.integers(low, high)] * rank), label=label))

    kwargs = {
        "kernel_size": per_axis(1, 3, "kernel"),
        "stride": per_axis(1, 3, "stride"),
        "padding": per_axis(0, 2, "padding"),
        "dilation": per_axis(1, 2, "dilation"),
        "groups": groups,
        "bias": data.draw(st.booleans(), label="bias"),
    }
    if data.draw(st.booleans(), label="transposed"):
        limits = zip(kwargs["stride"], kwargs["dilation"], strict=True)
        extra = tuple(max(limit) - 1 for limit in limits)
        module = TRANSPOSED[rank](*channels, output_padding=extra, **kwargs)
    else:
        mode = data.draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
        module = CONV[rank](*channels, padding_mode=mode, **kwargs)
    assert_layer_parity(module, sample(rank, channels[0]))


CALLS = [
    (torch.nn.Conv3d(1, 16, 3, stride=2, padding=1), nn.Conv3d, {"stride": 2, "padding": 1}),
    (torch.nn.Conv3d(4, 8, 1), nn.Conv3d, {}),
    (torch.nn.Conv3d(4, 8, (1, 3, 3), padding="same"), layers.Conv3d, {"padding": (0, 1, 1)}),
    (torch.nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d, {"groups": 2}),
    (torch.nn.Conv2d(4, 8, 3, padding_mode="reflect"), nn.Conv2d, {}),
    (torch.nn.Conv1d(4, 8, 3, padding="valid", bias=False), nn.Conv1d, {"bias": False}),
    (torch.nn.Conv2d(4, 8, 4, padding="same"), layers.Conv2d, {"padding": "same"}),
    (torch.nn.Conv3d(4, 8, 3, groups=4), layers.Conv3d, {"groups": 4}),
    (
        torch.nn.Conv1d(4, 8, 3, 2, 1, padding_mode="circular"),
        layers.Conv1d,
        {"stride": 2, "padding": 1, "padding_mode": "circular"},
    ),
    (
        torch.nn.ConvTranspose3d(4, 8, 3, stride=2, padding=1, output_padding=1),
        layers.ConvTranspose3d,
        {"stride": 2, "padding": 1, "output_padding": 1},
    ),
]


@pytest.mark.parametrize(("module", "target", "kwargs"), CALLS, ids=lambda value: str(value)[:60])
def test_constructor_call_is_what_a_person_would_write(
    module: torch.nn.Module, target: type, kwargs: dict[str, Any]
) -> None:
    spec = spec_for(module)
    assert spec.target is target
    assert dict(spec.kwargs) == kwargs
    assert list(spec.kwargs) == list(kwargs)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(
    ("module", "message"),
    [
        pytest.param(lambda: torch.nn.Conv2d(0, 4, 3), "in_channels=0", id="no_input"),
        pytest.param(lambda: torch.nn.Conv2d(4, 0, 3), "out_channels=0", id="no_output"),
        pytest.param(
            lambda: torch.nn.ConvTranspose1d(2, 2, 3, padding="same"), "cannot run", id="same"
        ),
    ],
)
def test_refusals(module: Callable[[], torch.nn.Module], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        build_layer(module())
