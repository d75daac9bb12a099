"""`layers.MultiheadAttention` against torch's, which computes as in training: with gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxport import layers

# Masks of two kinds together are deprecated in torch, and work.
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched")
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
EMBED, HEADS = 8, 2
MASKS = ["none", "bool", "float"]


def filled(module: torch.nn.Module) -> Any:
    """Give every parameter another value, biases too."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / max(parameter.shape[-1], 1) ** 0.5)
    return module


def pair(**arguments: Any) -> tuple[torch.nn.MultiheadAttention, layers.MultiheadAttention]:
    arguments = {"embed_dim": EMBED, "num_heads": HEADS, **arguments}
    module = filled(torch.nn.MultiheadAttention(**arguments))
    return module, layers.MultiheadAttention(**arguments)


def sequence(
    length: int, features: int = EMBED, batch: int | None = 3, batch_first: bool = False
) -> torch.Tensor:
    if batch is None:
        return torch.randn(length, features)
    return torch.randn((batch, length, features) if batch_first else (length, batch, features))


def mask_of(kind: str, *shape: int) -> torch.Tensor | None:
    """Mask about half of it, but, where there is more than one, not the first column."""
    masked = torch.rand(shape) < 0.5
    if shape[-1] > 1:
        masked[..., 0] = False
    floating = torch.randn(shape).masked_fill(masked, -torch.inf)
    return {"none": None, "bool": masked, "float": floating}[kind]


CONSTRUCTORS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one_head": {"num_heads": 1},
    "head_per_feature": {"num_heads": EMBED},
    "no_bias": {"bias": False},
    "bias_kv": {"add_bias_kv": True},
    "zero_attention": {"add_zero_attn": True},
    "bias_kv_and_zero_attention": {"add_bias_kv": True, "add_zero_attn": True, "bias": False},
    "kdim": {"kdim": 5},
    "vdim": {"vdim": 3},
    "kdim_and_vdim": {"kdim": 5, "vdim": 3, "add_bias_kv": True},
    "kdim_of_the_query": {"kdim": EMBED, "vdim": EMBED},
    "separate_no_bias": {"kdim": 5, "bias": False},
}


@pytest.mark.parametrize("need_weights", [True, False], ids=["weights", "no_weights"])
@pytest.mark.parametrize("layout", ["sequence_first", "batch_first", "no_batch"])
@pytest.mark.parametrize("arguments", CONSTRUCTORS.values(), ids=CONSTRUCTORS)
def test_every_constructor_argument(
    assert_module_parity: Callable[..., None],
    arguments: dict[str, Any],
    layout: str,
    need_weights: bool,
) -> None:
    first = layout == "batch_first"
    batch = None if layout == "no_batch" else 3
    module, layer = pair(**arguments, batch_first=first)
    query = sequence(4, EMBED, batch, first)
    key = sequence(5, arguments.get("kdim", EMBED), batch, first)
    value = sequence(5, arguments.get("vdim", EMBED), batch, first)
    assert_module_parity(module, layer, query, key, value, need_weights=need_weights)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("need_weights", [True, False], ids=["weights", "no_weights"])
@pytest.mark.parametrize("attn", ["none", "bool", "float", "bool_per_head", "float_per_head"])
@pytest.mark.parametrize("padding", MASKS)
@pytest.mark.parametrize("batch", [3, None], ids=["batch", "no_batch"])
def test_masks(
    assert_module_parity: Callable[..., None],
    batch: int | None,
    padding: str,
    attn: str,
    need_weights: bool,
    dtype: torch.dtype,
) -> None:
    module, layer = pair()
    kind, per_head = attn.removesuffix("_per_head"), attn.endswith("_per_head")
    lead = ((batch or 1) * HEADS,) if per_head else ()
    masks = {
        "attn_mask": mask_of(kind, *lead, 4, 6),
        "key_padding_mask": mask_of(padding, *([batch] if batch else []), 6),
    }
    assert_module_parity(
        module.to(dtype),
        layer,
        sequence(4, batch=batch).to(dtype),
        sequence(6, batch=batch).to(dtype),
        sequence(6, batch=batch).to(dtype),
        need_weights=need_weights,
        **{k: v.to(dtype) if is_floating(v) else v for k, v in masks.items()},
    )


def is_floating(mask: torch.Tensor | None) -> bool:
    return mask is not None and mask.is_floating_point()


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("need_weights", [True, False], ids=["weights", "no_weights"])
def test_a_query_with_every_key_masked(
    assert_module_parity: Callable[..., None], need_weights: bool, kind: str
) -> None:
    module, layer = pair()
    masked = torch.zeros(4, 4, dtype=torch.bool)
    masked[1] = True
    mask = masked if kind == "bool" else torch.zeros(4, 4).masked_fill(masked, -torch.inf)
    x = sequence(4)
    assert_module_parity(module, layer, x, x, x, attn_mask=mask, need_weights=need_weights)
    y = layer(*[mx.array(x.numpy())] * 3, attn_mask=mx.array(mask.numpy()), need_weights=False)[0]
    np.testing.assert_array_equal(np.array(y[1, 0]), np.array(layer.out_proj.bias))


@pytest.mark.parametrize("average", [True, False], ids=["averaged", "per_head"])
@pytest.mark.parametrize("batch", [3, None], ids=["batch", "no_batch"])
def test_weights(
    assert_module_parity: Callable[..., None], batch: int | None, average: bool
) -> None:
    module, layer = pair(add_zero_attn=True)
    x = sequence(4, batch=batch)
    assert_module_parity(module, layer, x, x, x, average_attn_weights=average)
    heads = () if average else (HEADS,)
    weights = layer(*[mx.array(x.numpy())] * 3, average_attn_weights=average)[1]
    assert weights.shape == (*([batch] if batch else []), *heads, 4, 5)


@pytest.mark.parametrize("need_weights", [True, False], ids=["weights", "no_weights"])
@pytest.mark.parametrize("padding", ["none", "bool"])
@pytest.mark.parametrize("appended", ["none", "add_bias_kv", "add_zero_attn"])
@pytest.mark.parametrize("keys", [3, 4, 6])
def test_the_causal_hint_is_taken_where_torch_takes_it(
    assert_module_parity: Callable[..., None],
    keys: int,
    appended: str,
    padding: str,
    need_weights: bool,
) -> None:
    module, layer = pair(**({} if appended == "none" else {appended: True}))
    assert_module_parity(
        module,
        layer,
        sequence(4),
        sequence(keys),
        sequence(keys),
        attn_mask=mask_of("float", 4, keys),  # not the causal one: it shows which is taken
        key_padding_mask=mask_of(padding, 3, keys),
        need_weights=need_weights,
        is_causal=True,
    )


@pytest.mark.parametrize("sizes", [(0, 3, 3), (2, 0, 3), (2, 3, 0)], ids=str)
@pytest.mark.parametrize("need_weights", [True, False], ids=["weights", "no_weights"])
def test_nothing_to_attend_with_or_to(
    assert_module_parity: Callable[..., None], sizes: tuple[int, int, int], need_weights: bool
) -> None:
    batch, queries, keys = sizes
    module, layer = pair()
    q, k, v = (sequence(n, batch=batch) for n in (queries, keys, keys))
    assert_module_parity(module, layer, q, k, v, need_weights=need_weights, gradients=False)


@st.composite
def calls(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[Any, ...], dict[str, Any]]:
    """Arguments of the constructor and of the call; masks may leave a query without any key."""
    heads, features = draw(st.sampled_from([(1, 3), (2, 4), (3, 6)]))
    same = draw(st.booleans())
    kdim, vdim = (None, None) if same else draw(st.tuples(*[st.sampled_from([None, 2, 5])] * 2))
    batch, first = draw(st.sampled_from([(None, False), (1, True), (2, False), (3, True)]))
    queries, keys = draw(st.tuples(*[st.integers(2, 5)] * 2))
    torch.manual_seed(draw(st.integers(0, 1000)))
    query = sequence(queries, features, batch, first)
    key = sequence(keys, kdim or features, batch, first)
    value = sequence(keys, vdim or features, batch, first)
    shared = draw(st.sampled_from(["nothing", "key_value", "query_key", "all"])) if same else ""
    if shared == "key_value":
        value = key
    elif shared in ("query_key", "all"):
        keys, key = queries, query
        value = query if shared == "all" else torch.randn_like(query)
    lead = ((batch or 1) * heads,) if draw(st.booleans()) else ()
    attn_mask = _any_mask(draw, *lead, queries, keys)
    arguments = {
        "embed_dim": features,
        "num_heads": heads,
        "kdim": kdim,
        "vdim": vdim,
        "batch_first": first,
        "bias": draw(st.booleans()),
        "add_bias_kv": draw(st.booleans()),
        "add_zero_attn": draw(st.booleans()),
    }
    keywords = {
        "attn_mask": attn_mask,
        "key_padding_mask": _any_mask(draw, *([batch] if batch else []), keys),
        "need_weights": draw(st.booleans()),
        "average_attn_weights": draw(st.booleans()),
        "is_causal": attn_mask is not None and draw(st.booleans()),
    }
    return arguments, (query, key, value), keywords


def _any_mask(draw: st.DrawFn, *shape: int) -> torch.Tensor | None:
    masked = torch.rand(shape) < draw(st.sampled_from([0.0, 0.4, 0.8, 1.0]))
    floating = torch.randn(shape).masked_fill(masked, -torch.inf)
    return {"none": None, "bool": masked, "float": floating}[draw(st.sampled_from(MASKS))]


@settings(max_examples=150)
@given(calls())
def test_everything_at_once(
    assert_module_parity: Callable[..., None],
    call: tuple[dict[str, Any], tuple[Any, ...], dict[str, Any]],
) -> None:
    arguments, inputs, keywords = call
    module, layer = pair(**arguments)
    assert_module_parity(module, layer, *inputs, **keywords)


@pytest.mark.parametrize("need_weights", [True, False], ids=["weights", "no_weights"])
@pytest.mark.parametrize("p", [0.0, 1.0])
def test_dropout_of_nothing_and_of_everything(
    assert_module_parity: Callable[..., None], p: float, need_weights: bool
) -> None:
    module, layer = pair(dropout=p)
    x = sequence(4)
    assert_module_parity(module.train(), layer, x, x, x, need_weights=need_weights, gradients=False)


@pytest.mark.parametrize("need_weights", [True, False], ids=["weights", "no_weights"])
def test_dropout_is_active_in_training_only(
    assert_module_parity: Callable[..., None], need_weights: bool
) -> None:
    module, layer = pair(dropout=0.5)
    x = sequence(4)
    assert_module_parity(module.eval(), layer, x, x, x, need_weights=need_weights)
    array = mx.array(x.numpy())
    layer.train()
    first, second = (layer(array, array, array, need_weights=need_weights)[0] for _ in range(2))
    assert not mx.allclose(first, second).item()


def test_dropout_drops_weights_and_rescales_the_others() -> None:
    _, layer = pair(dropout=0.25)
    x = mx.random.normal((40, 5, EMBED))
    want = layer.eval()(x, x, x, average_attn_weights=False)[1]
    got = layer.train()(x, x, x, average_attn_weights=False)[1]
    kept = got != 0
    assert mx.allclose(got, mx.where(kept, want / 0.75, 0), atol=1e-6).item()
    assert kept.astype(mx.float32).mean().item() == pytest.approx(0.75, abs=0.02)


def test_dropout_without_weights_keeps_the_mean_and_the_query_without_keys() -> None:
    _, layer = pair(dropout=0.25)
    x = mx.random.normal((4, 1, EMBED))
    mask = mx.zeros((4, 4), mx.bool_)
    mask[1] = True
    want = layer.eval()(x, x, x, attn_mask=mask, need_weights=False)[0]
    layer.train()
    many = [layer(x, x, x, attn_mask=mask, need_weights=False)[0] for _ in range(1500)]
    assert mx.array_equal(many[0][1], want[1]).item()
    np.testing.assert_allclose(np.mean(many, axis=0), np.array(want), atol=0.1)


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_dropout_without_weights_is_not_of_keys_that_are_masked(kind: str) -> None:
    _, layer = pair(dropout=1e-12)
    masked = mx.array(np.tri(4, k=-1, dtype=bool))  # none of the first query's, and so on
    masked[1] = True
    mask = masked if kind == "bool" else mx.where(masked, -mx.inf, 0.0)
    x = mx.random.normal((4, 3, EMBED))
    want = layer.eval()(x, x, x, attn_mask=mask, need_weights=False)[0]
    got = layer.train()(x, x, x, attn_mask=mask, need_weights=False)[0]
    assert mx.allclose(got, want, atol=1e-6).item()


ACCEPTED: dict[str, dict[str, Any]] = {
    "half_padding_beside_float_mask": {
        "attn_mask": torch.randn(4, 4),
        "key_padding_mask": torch.randn(3, 4).half(),
    },
    "half_mask_beside_bool_padding": {
        "attn_mask": torch.randn(4, 4).half(),
        "key_padding_mask": torch.eye(4)[:3] > 0,
    },
    "any_shape_where_the_hint_is_taken": {
        "attn_mask": torch.randn(2, 9),
        "is_causal": True,
        "need_weights": False,
    },
}


@pytest.mark.parametrize("keywords", ACCEPTED.values(), ids=ACCEPTED)
def test_what_torch_accepts_is_accepted(
    assert_module_parity: Callable[..., None], keywords: dict[str, Any]
) -> None:
    module, layer = pair()
    x = sequence(4)
    assert_module_parity(module, layer, x, x, x, gradients=False, **keywords)


def test_compiled_and_copied() -> None:
    _, layer = pair()
    x = mx.random.normal((4, 3, EMBED))
    want = layer(x, x, x, need_weights=False)[0]
    twin = copy.deepcopy(layer)
    got = mx.compile(lambda x: twin(x, x, x, need_weights=False)[0])(x)
    assert mx.allclose(got, want, atol=1e-6).item()


@pytest.mark.parametrize("arguments", CONSTRUCTORS.values(), ids=CONSTRUCTORS)
def test_fresh_parameters_spread_as_torchs(arguments: dict[str, Any]) -> None:
    size = {"embed_dim": 64, **arguments}
    size["num_heads"] = 1
    module = torch.nn.MultiheadAttention(**size)
    layer = layers.MultiheadAttention(**size)
    for name, parameter in module.named_parameters():
        array = layer
        for part in name.split("."):
            array = array[part]
        assert array.std().item() == pytest.approx(parameter.std().item(), rel=0.3), name
