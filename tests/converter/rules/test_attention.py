from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
import torch
from torch.nn import MultiheadAttention

from mlxport import layers
from mlxport.converter.errors import UnsupportedError
from mlxport.converter.rules.build import build_layer, spec_for
from mlxport.converter.rules.registry import Axes

CONSTRUCTORS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one_head": {"num_heads": 1},
    "no_bias": {"bias": False},
    "bias_kv": {"add_bias_kv": True},
    "zero_attention": {"add_zero_attn": True},
    "kdim": {"kdim": 5},
    "vdim": {"vdim": 3},
    "kdim_of_the_query": {"kdim": 8, "vdim": 8},
    "batch_first": {"batch_first": True},
    "everything": {
        "bias": False,
        "add_bias_kv": True,
        "add_zero_attn": True,
        "kdim": 5,
        "vdim": 3,
        "batch_first": True,
    },
}
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def filled(**arguments: Any) -> MultiheadAttention:
    module = MultiheadAttention(**{"embed_dim": 8, "num_heads": 2, **arguments})
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return module


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("padding", ["none", "bool", "float"])
@pytest.mark.parametrize("arguments", CONSTRUCTORS.values(), ids=CONSTRUCTORS)
def test_multihead_attention(
    assert_layer_parity: Callable[..., None],
    arguments: dict[str, Any],
    padding: str,
    dtype: torch.dtype,
) -> None:
    module = filled(**arguments)
    inputs = [torch.randn(4, 3, n) for n in (8, module.kdim, module.vdim)]
    masked = torch.rand(3, 4) < 0.3
    if module.batch_first:
        inputs = [x.transpose(0, 1).contiguous() for x in inputs]
    if padding != "none":
        inputs.append(masked if padding == "bool" else torch.randn(3, 4))
    assert_layer_parity(module, *inputs, dtype=dtype, gradients=dtype == torch.float32)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_the_mode_is_kept(training: bool) -> None:
    layer = build_layer(filled(dropout=0.5).train(training))
    x = mx.random.normal((4, 3, 8))
    assert mx.array_equal(layer(x, x, x)[0], layer(x, x, x)[0]).item() == (not training)


@pytest.mark.parametrize(
    ("module", "args", "kwargs"),
    [
        (MultiheadAttention(8, 2), (8, 2), {}),
        (MultiheadAttention(8, 2, kdim=8, vdim=8), (8, 2), {}),
        (MultiheadAttention(8, 2, vdim=3), (8, 2), {"vdim": 3}),
        (
            MultiheadAttention(8, 4, 0.1, False, True, True, 5, 6, True),
            (8, 4),
            {
                "dropout": 0.1,
                "bias": False,
                "add_bias_kv": True,
                "add_zero_attn": True,
                "kdim": 5,
                "vdim": 6,
                "batch_first": True,
            },
        ),
    ],
    ids=["plain", "sizes_of_the_query", "vdim", "everything"],
)
def test_constructor_call_is_what_a_person_would_write(
    module: MultiheadAttention, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    spec = spec_for(module)
    assert spec.target is layers.MultiheadAttention
    assert (spec.args, dict(spec.kwargs), spec.axes) == (args, kwargs, Axes.LOGICAL)


@pytest.mark.parametrize("arguments", CONSTRUCTORS.values(), ids=CONSTRUCTORS)
def test_every_tensor_keeps_its_name_and_its_bits(arguments: dict[str, Any]) -> None:
    module = filled(**arguments)
    entries = spec_for(module).entries
    assert {entry.sources for entry in entries} == {(key,) for key in module.state_dict()}
    assert all(entry.targets == entry.sources and not entry.steps for entry in entries)


def exchanged() -> MultiheadAttention:
    module = filled()
    module.out_proj = torch.nn.Linear(8, 5)
    return module


def hooked() -> MultiheadAttention:
    module = filled()
    module.out_proj.register_forward_hook(lambda *_: None)
    return module


def reheaded() -> MultiheadAttention:
    module = filled()
    module.num_heads = 4
    return module


REFUSED = {
    "other_output": (exchanged, "out_proj: out_features is 5, not 8"),
    "hook_inside": (hooked, "out_proj: a forward hook"),
    "heads_set_later": (reheaded, "head_dim is 4, not 2"),
    "dropout_above_1": (lambda: filled(dropout=1.5), "not from 0 to 1"),
}


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals(build: Callable[[], torch.nn.Module], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        build_layer(build())


def test_an_output_projection_of_the_usual_kind_is_the_same() -> None:
    module = filled()
    module.out_proj = torch.nn.Linear(8, 8)  # torch's own is a Linear by another name
    x = torch.randn(4, 3, 8)
    got = build_layer(module)(*[mx.array(x.numpy())] * 3)[0]
    want = mx.array(module(x, x, x)[0].detach().numpy())
    assert mx.allclose(got, want, atol=1e-5).item()
