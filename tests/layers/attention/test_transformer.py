"""The stacks of `layers.transformer` and the whole against torch's, computing as in training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch

from mlxport import layers

# Fast paths not taken, and masks of two kinds together, which are deprecated and work.
pytestmark = [
    pytest.mark.filterwarnings("ignore:enable_nested_tensor"),
    pytest.mark.filterwarnings("ignore:Support for mismatched"),
]
FEATURES, HEADS, HIDDEN = 8, 2, 12
SOURCES = {
    "encoder": (torch.nn.TransformerEncoder, torch.nn.TransformerEncoderLayer),
    "decoder": (torch.nn.TransformerDecoder, torch.nn.TransformerDecoderLayer),
}
TARGETS = {"encoder": layers.TransformerEncoder, "decoder": layers.TransformerDecoder}
each_kind = pytest.mark.parametrize("kind", SOURCES)


def filled(module: Any) -> Any:
    """Give every parameter another value: torch's stacks begin as copies of one layer."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return module


def stacks(
    kind: str, norm: torch.nn.LayerNorm | None = None, **arguments: Any
) -> tuple[Any, Callable[..., Any]]:
    """A torch stack of two layers, and the constructor of ours, wanting `norm`."""
    arguments = {"dim_feedforward": HIDDEN, "dropout": 0.0, **arguments}
    stack, layer = SOURCES[kind]
    module = stack(layer(FEATURES, HEADS, **arguments), 2, norm)
    return filled(module), lambda **kw: TARGETS[kind](2, FEATURES, HEADS, **arguments, **kw)


def inputs(kind: str, shape: tuple[int, ...] = (4, 3), axis: int = 0) -> list[torch.Tensor]:
    longer = tuple(n + (i == axis) for i, n in enumerate(shape))
    both = [torch.randn(*shape, FEATURES), torch.randn(*longer, FEATURES)]
    return both[:1] if kind == "encoder" else both


NORMS: dict[str, tuple[Any, dict[str, Any] | None]] = {
    "none": (lambda: None, None),
    "plain": (lambda: torch.nn.LayerNorm(FEATURES), {}),
    "eps": (lambda: torch.nn.LayerNorm(FEATURES, 0.3), {"eps": 0.3}),
    "eps_0": (lambda: torch.nn.LayerNorm(FEATURES, 0.0), {"eps": 0.0}),
    "no_bias": (lambda: torch.nn.LayerNorm(FEATURES, bias=False), {"bias": False}),
    "no_affine": (
        lambda: torch.nn.LayerNorm(FEATURES, elementwise_affine=False),
        {"affine": False},
    ),
}


@each_kind
@pytest.mark.parametrize(("norm", "arguments"), NORMS.values(), ids=NORMS)
def test_final_norm(
    assert_module_parity: Callable[..., None],
    norm: Callable[[], torch.nn.LayerNorm | None],
    arguments: dict[str, Any] | None,
    kind: str,
) -> None:
    module, target = stacks(kind, norm())
    assert_module_parity(module, target(norm=arguments), *inputs(kind))


ARGUMENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "norm_first": {"norm_first": True, "activation": "gelu"},
    "no_bias": {"bias": False, "layer_norm_eps": 0.1},
}


@each_kind
@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
@pytest.mark.parametrize("layout", ["sequence_first", "batch_first", "no_batch"])
def test_every_constructor_argument(
    assert_module_parity: Callable[..., None], layout: str, arguments: dict[str, Any], kind: str
) -> None:
    first = layout == "batch_first"
    module, target = stacks(kind, batch_first=first, **arguments)
    shape = (4,) if layout == "no_batch" else (4, 3)
    assert_module_parity(module, target(), *inputs(kind, shape, int(first)))


@each_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(
    assert_module_parity: Callable[..., None], dtype: torch.dtype, kind: str
) -> None:
    module, target = stacks(kind, torch.nn.LayerNorm(FEATURES))
    tensors = [x.to(dtype) for x in inputs(kind)]
    assert_module_parity(module.to(dtype), target(norm={}), *tensors)


CAUSAL = torch.triu(torch.ones(4, 4), 1) > 0
ADDITIVE = torch.zeros(4, 4).masked_fill(CAUSAL, -torch.inf)
PADDING = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]]) > 0
ENCODED: dict[str, dict[str, Any]] = {
    "bool": {"mask": CAUSAL},
    "causal_hint": {"mask": ADDITIVE, "is_causal": True},
    "hint_before_the_mask": {"mask": torch.randn(4, 4), "is_causal": True},
    "no_hint": {"mask": ADDITIVE, "is_causal": False},
    "hint_and_padding": {
        "mask": torch.randn(4, 4),
        "is_causal": True,
        "src_key_padding_mask": PADDING,
    },
    "per_head": {"mask": torch.randn(6, 4, 4)},
    "padding": {"src_key_padding_mask": PADDING},
    "float_padding": {"src_key_padding_mask": torch.randn(3, 4), "mask": CAUSAL},
}


@pytest.mark.parametrize("keywords", ENCODED.values(), ids=ENCODED)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_encoder_masks(
    assert_module_parity: Callable[..., None], training: bool, keywords: dict[str, Any]
) -> None:
    # with gradients, as here, torch zeroes no padding in evaluation either
    module, target = stacks("encoder", batch_first=True)
    layer = target(enable_nested_tensor=training)
    assert_module_parity(module.train(training), layer, torch.randn(3, 4, FEATURES), **keywords)


@each_kind
def test_a_mask_that_torch_finds_to_be_causal(
    assert_module_parity: Callable[..., None], kind: str
) -> None:
    module, target = stacks(kind)
    keywords = {"mask" if kind == "encoder" else "tgt_mask": ADDITIVE}
    # torch no longer reads it then, so that there is no gradient for it to compare
    assert_module_parity(module, target(), *inputs(kind), gradients=False, **keywords)


PADDINGS = {
    "trailing": PADDING,
    "floating": torch.zeros(3, 4).masked_fill(PADDING, -torch.inf),
    "a_sequence_of_padding": PADDING | (torch.arange(3) == 2)[:, None],
    "none": torch.zeros_like(PADDING),
    "leading": PADDING.flip(1),
    "between": torch.tensor([[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]) > 0,
}
BUILT: dict[str, dict[str, Any]] = {
    "fused": {},
    "gelu": {"activation": "gelu"},
    "tanh": {"activation": torch.tanh},
    "norm_first": {"norm_first": True},
    "no_bias": {"bias": False},
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("build", BUILT.values(), ids=BUILT)
@pytest.mark.parametrize("padding", PADDINGS.values(), ids=PADDINGS)
def test_padding_in_inference(padding: torch.Tensor, build: dict[str, Any]) -> None:
    if build.get("norm_first") and padding.all(1).any():
        padding = padding & (torch.arange(4) > 0)  # torch's fused layer gives NaN, ours does not
    module, _ = stacks("encoder", torch.nn.LayerNorm(FEATURES), batch_first=True, **build)
    x = torch.randn(3, 4, FEATURES)
    with torch.no_grad():
        expected = module.eval()(x, src_key_padding_mask=padding).numpy()
    named = build | ({"activation": "tanh"} if build.get("activation") is torch.tanh else {})
    layer = layers.TransformerEncoder(
        2, FEATURES, HEADS, norm={}, dim_feedforward=HIDDEN, batch_first=True, **named
    )
    layer.load_weights([(k, mx.array(v.numpy())) for k, v in module.state_dict().items()])
    layer.eval()
    got = np.array(layer(mx.array(x.numpy()), src_key_padding_mask=mx.array(padding.numpy())))
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_padding_is_zeroed_where_torch_zeroes_it_alone() -> None:
    _, target = stacks("encoder", batch_first=True)
    x, masks = torch.randn(3, 4, FEATURES), {"src_key_padding_mask": PADDING}
    arrays = {name: mx.array(mask.numpy()) for name, mask in masks.items()}
    for asked in (True, False):
        layer = target(enable_nested_tensor=asked)
        zeroed = {}
        for training in (True, False):
            layer.train(training)
            got = np.array(layer(mx.array(x.numpy()), **arrays))
            zeroed[training] = not got[PADDING.numpy()].any()
        assert zeroed == {True: False, False: asked}


DECODED: dict[str, dict[str, Any]] = {
    "bool": {"tgt_mask": CAUSAL},
    "causal_hint": {"tgt_mask": torch.randn(4, 4), "tgt_is_causal": True},
    "no_hint": {"tgt_mask": ADDITIVE, "tgt_is_causal": False},
    "memory": {"memory_mask": torch.randn(4, 5)},
    "memory_hint": {"memory_mask": torch.randn(4, 5), "memory_is_causal": True},
    "padding": {"tgt_key_padding_mask": PADDING},
    "memory_padding": {"memory_key_padding_mask": torch.ones(3, 5).tril() == 0},
    "all": {
        "tgt_mask": torch.randn(6, 4, 4),
        "memory_mask": torch.rand(4, 5) > 0.8,
        "tgt_key_padding_mask": torch.randn(3, 4),
        "memory_key_padding_mask": torch.randn(3, 5),
    },
}


@pytest.mark.parametrize("keywords", DECODED.values(), ids=DECODED)
def test_decoder_masks(assert_module_parity: Callable[..., None], keywords: dict[str, Any]) -> None:
    module, target = stacks("decoder")
    assert_module_parity(module, target(), *inputs("decoder"), **keywords)


@each_kind
def test_masks_by_position(assert_module_parity: Callable[..., None], kind: str) -> None:
    module, target = stacks(kind)
    masks = [torch.randn(4, 4), torch.randn(3, 4)]
    if kind == "decoder":
        masks = [masks[0], torch.randn(4, 5), masks[1], torch.randn(3, 5)]
    assert_module_parity(module, target(), *inputs(kind), *masks)


@each_kind
def test_a_stack_without_layers_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="num_layers=0"):
        TARGETS[kind](0, FEATURES, HEADS)


SMALL = {"num_encoder_layers": 2, "num_decoder_layers": 1, "dim_feedforward": HIDDEN}
WHOLE: dict[str, dict[str, Any]] = {
    "plain": {},
    "norm_first": {"norm_first": True, "activation": "gelu"},
    "no_bias": {"bias": False, "layer_norm_eps": 0.1},
}


def transformers(**arguments: Any) -> tuple[Any, layers.Transformer]:
    arguments = {"dropout": 0.0, **SMALL, **arguments}
    module = filled(torch.nn.Transformer(FEATURES, HEADS, **arguments))
    return module, layers.Transformer(FEATURES, HEADS, **arguments)


@pytest.mark.parametrize("arguments", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("layout", ["sequence_first", "batch_first", "no_batch"])
def test_transformer(
    assert_module_parity: Callable[..., None], layout: str, arguments: dict[str, Any]
) -> None:
    first = layout == "batch_first"
    module, layer = transformers(batch_first=first, **arguments)
    shape = (4,) if layout == "no_batch" else (4, 3)
    tgt, src = inputs("decoder", shape, int(first))
    assert_module_parity(module, layer, src, tgt)


MASKED: dict[str, dict[str, Any]] = {
    "source": {"src_mask": torch.randn(5, 5)},
    "source_hint": {"src_mask": torch.randn(5, 5), "src_is_causal": True},
    "target": {"tgt_mask": CAUSAL},
    "target_hint": {"tgt_mask": torch.randn(4, 4), "tgt_is_causal": True},
    "memory": {"memory_mask": torch.randn(4, 5)},
    "memory_hint": {"memory_mask": torch.randn(4, 5), "memory_is_causal": True},
    "source_padding": {"src_key_padding_mask": torch.ones(3, 5).tril() == 0},
    "target_padding": {"tgt_key_padding_mask": PADDING},
    "memory_padding": {"memory_key_padding_mask": torch.ones(3, 5).tril() == 0},
}


@pytest.mark.parametrize("keywords", MASKED.values(), ids=MASKED)
def test_transformer_masks(
    assert_module_parity: Callable[..., None], keywords: dict[str, Any]
) -> None:
    module, layer = transformers()
    tgt, src = inputs("decoder")
    assert_module_parity(module, layer, src, tgt, **keywords)


def test_transformer_masks_by_position(assert_module_parity: Callable[..., None]) -> None:
    module, layer = transformers()
    tgt, src = inputs("decoder")
    shapes = [(5, 5), (4, 4), (4, 5), (3, 5), (3, 4), (3, 5)]
    assert_module_parity(module, layer, src, tgt, *(torch.randn(shape) for shape in shapes))


BAD = {
    "batches_differ": ((4, 3, FEATURES), (5, 2, FEATURES)),
    "source_features": ((4, 3, 6), (5, 3, FEATURES)),
    "target_features": ((4, 3, FEATURES), (5, 3, 6)),
}


@pytest.mark.parametrize(("src", "tgt"), BAD.values(), ids=BAD)
def test_inputs_that_torch_refuses_are_refused(src: tuple[int, ...], tgt: tuple[int, ...]) -> None:
    module, layer = transformers()
    with pytest.raises(RuntimeError):
        module(torch.zeros(src), torch.zeros(tgt))
    with pytest.raises(ValueError, match=r"\[Transformer\]"):
        layer(mx.zeros(src), mx.zeros(tgt))


class _Identity(nn.Module):
    def __call__(self, x: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        return x


def test_an_encoder_of_ones_own() -> None:
    layer = layers.Transformer(FEATURES, HEADS, custom_encoder=_Identity(), **SMALL).eval()
    src, tgt = mx.random.normal((5, 3, FEATURES)), mx.random.normal((4, 3, FEATURES))
    assert mx.array_equal(layer(src, tgt), layer.decoder(tgt, src)).item()


def test_a_decoder_of_ones_own() -> None:
    layer = layers.Transformer(FEATURES, HEADS, custom_decoder=_Identity(), **SMALL).eval()
    tgt = mx.random.normal((4, 3, FEATURES))
    assert layer(tgt, tgt) is tgt


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_causal_mask(assert_parity: Callable[..., None], dtype: torch.dtype) -> None:
    mlx_dtype = mx.bfloat16 if dtype == torch.bfloat16 else mx.float32
    got = layers.Transformer.generate_square_subsequent_mask(5, mlx_dtype)
    want = torch.nn.Transformer.generate_square_subsequent_mask(5, dtype=dtype)
    assert_parity(got, lambda x: x, want)


def test_fresh_parameters_spread_as_torchs() -> None:
    module = torch.nn.Transformer(64, 2, 1, 1, 128)
    layer = layers.Transformer(64, 2, 1, 1, 128)
    got = dict(nn.utils.tree_flatten(layer.parameters()))
    for name, parameter in module.named_parameters():
        if name.endswith("weight") and parameter.ndim > 1:
            assert got[name].std().item() == pytest.approx(parameter.std().item(), rel=0.1), name


def test_a_transformer_can_be_copied() -> None:
    _, layer = transformers()
    tgt, src = (mx.array(x.numpy()) for x in inputs("decoder"))
    assert mx.array_equal(copy.deepcopy(layer)(src, tgt), layer(src, tgt)).item()
