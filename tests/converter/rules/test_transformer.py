from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlxport import layers
from mlxport.converter.errors import UnsupportedError
from mlxport.converter.rules.build import build_layer, spec_for
from mlxport.converter.rules.registry import Axes
from mlxport.layers.attention.transformer_layers import ACTIVATIONS

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor")


def filled(module: nn.Module) -> nn.Module:
    """Give every parameter another value: torch's stacks begin as copies of one layer."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return module


def encoder_layer(**arguments: Any) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(8, 2, **{"dim_feedforward": 12, **arguments})


def decoder_layer(**arguments: Any) -> nn.TransformerDecoderLayer:
    return nn.TransformerDecoderLayer(8, 2, **{"dim_feedforward": 12, **arguments})


def encoder(norm: nn.Module | None = None, **arguments: Any) -> nn.TransformerEncoder:
    return nn.TransformerEncoder(encoder_layer(**arguments), 2, norm)


def decoder(norm: nn.Module | None = None, **arguments: Any) -> nn.TransformerDecoder:
    return nn.TransformerDecoder(decoder_layer(**arguments), 2, norm)


def transformer(**arguments: Any) -> nn.Transformer:
    return nn.Transformer(8, 2, 2, 1, **{"dim_feedforward": 12, **arguments})


BUILDERS = [encoder_layer, decoder_layer, encoder, decoder, transformer]
each_builder = pytest.mark.parametrize("build", BUILDERS, ids=lambda f: f.__name__)
ARGUMENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "norm_first": {"norm_first": True, "activation": "gelu"},
    "no_bias": {"bias": False, "layer_norm_eps": 0.1},
    "eps_0": {"layer_norm_eps": 0.0},
    "batch_first": {"batch_first": True},
}


def inputs(module: nn.Module) -> list[torch.Tensor]:
    encodes = isinstance(module, nn.TransformerEncoderLayer | nn.TransformerEncoder)
    return [torch.randn(4, 3, 8) for _ in range(1 if encodes else 2)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
@each_builder
def test_parity(
    assert_layer_parity: Callable[..., None],
    build: Callable[..., nn.Module],
    arguments: dict[str, Any],
    dtype: torch.dtype,
) -> None:
    module = filled(build(**arguments))
    assert_layer_parity(module, *inputs(module), dtype=dtype, gradients=dtype == torch.float32)


@each_builder
def test_training_without_dropout(
    assert_layer_parity: Callable[..., None], build: Callable[..., nn.Module]
) -> None:
    module = filled(build(dropout=0.0))
    assert_layer_parity(module, *inputs(module), train=True, gradients=True)


NORMS: dict[str, Callable[[], nn.LayerNorm]] = {
    "plain": lambda: nn.LayerNorm(8),
    "eps": lambda: nn.LayerNorm(8, 0.3),
    "eps_0": lambda: nn.LayerNorm(8, 0.0),
    "no_bias": lambda: nn.LayerNorm(8, bias=False),
    "no_affine": lambda: nn.LayerNorm(8, elementwise_affine=False),
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("build", [encoder, decoder], ids=lambda f: f.__name__)
def test_final_norm(
    assert_layer_parity: Callable[..., None],
    build: Callable[..., nn.Module],
    norm: Callable[[], nn.LayerNorm],
) -> None:
    module = filled(build(norm()))
    assert_layer_parity(module, *inputs(module), gradients=True)


ACTIVATION: dict[str, list[Any]] = {
    "relu": [F.relu, torch.relu, nn.ReLU(), nn.ReLU(inplace=True)],
    "gelu": [F.gelu, nn.GELU()],
    "gelu_tanh": [nn.GELU("tanh")],
    "celu": [F.celu, nn.CELU()],
    "elu": [F.elu, nn.ELU()],
    "hardsigmoid": [F.hardsigmoid, nn.Hardsigmoid()],
    "hardswish": [F.hardswish, nn.Hardswish()],
    "leaky_relu": [F.leaky_relu, nn.LeakyReLU()],
    "log_sigmoid": [F.logsigmoid, nn.LogSigmoid()],
    "mish": [F.mish, nn.Mish()],
    "relu6": [F.relu6, nn.ReLU6()],
    "selu": [F.selu, torch.selu, nn.SELU()],
    "sigmoid": [F.sigmoid, torch.sigmoid, nn.Sigmoid()],
    "silu": [F.silu, nn.SiLU()],
    "softplus": [F.softplus, nn.Softplus()],
    "softsign": [F.softsign, nn.Softsign()],
    "tanh": [F.tanh, torch.tanh, nn.Tanh()],
}


@pytest.mark.parametrize(
    ("name", "activation"),
    [(name, activation) for name, forms in ACTIVATION.items() for activation in forms],
)
def test_activations(assert_layer_parity: Callable[..., None], name: str, activation: Any) -> None:
    module = filled(encoder(activation=activation))
    assert spec_for(module).kwargs.get("activation", "relu") == name
    assert_layer_parity(module, 3 * torch.randn(4, 3, 8))


def test_every_name_of_an_activation_has_its_torch_function() -> None:
    assert set(ACTIVATION) == set(ACTIVATIONS)


@each_builder
def test_every_tensor_keeps_its_name_and_its_bits(build: Callable[..., nn.Module]) -> None:
    module = build()
    entries = spec_for(module).entries
    assert {entry.sources for entry in entries} == {(key,) for key in module.state_dict()}
    assert all(entry.targets == entry.sources and not entry.steps for entry in entries)


@pytest.mark.parametrize(
    ("build", "target", "args", "kwargs"),
    [
        (lambda: nn.TransformerEncoderLayer(8, 2), layers.TransformerEncoderLayer, (8, 2), {}),
        (
            lambda: nn.TransformerDecoderLayer(8, 2, 12, 0.2, "gelu", 1e-3, True, True, False),
            layers.TransformerDecoderLayer,
            (8, 2),
            {
                "dim_feedforward": 12,
                "dropout": 0.2,
                "activation": "gelu",
                "layer_norm_eps": 1e-3,
                "batch_first": True,
                "norm_first": True,
                "bias": False,
            },
        ),
        (lambda: encoder(), layers.TransformerEncoder, (2, 8, 2), {"dim_feedforward": 12}),
        (
            lambda: decoder(nn.LayerNorm(8)),
            layers.TransformerDecoder,
            (2, 8, 2),
            {"dim_feedforward": 12, "norm": {}},
        ),
        (
            lambda: encoder(nn.LayerNorm(8, 1e-6, bias=False)),
            layers.TransformerEncoder,
            (2, 8, 2),
            {"dim_feedforward": 12, "norm": {"eps": 1e-6, "bias": False}},
        ),
        (
            lambda: nn.Transformer(8, 2, 6, 1),
            layers.Transformer,
            (8, 2),
            {"num_decoder_layers": 1},
        ),
    ],
    ids=["encoder_layer", "decoder_layer", "encoder", "decoder", "final_norm", "transformer"],
)
def test_constructor_call_is_what_a_person_would_write(
    build: Callable[[], nn.Module], target: type, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    spec = spec_for(build())
    assert (spec.target, spec.args, dict(spec.kwargs)) == (target, args, kwargs)
    assert spec.axes is Axes.LOGICAL


def test_layers_taken_out_are_not_missed(assert_layer_parity: Callable[..., None]) -> None:
    module = filled(nn.TransformerEncoder(encoder_layer(), 3))
    module.layers = module.layers[:2]
    assert_layer_parity(module, torch.randn(4, 3, 8))


def test_masks_of_a_built_layer_mean_what_torchs_do() -> None:
    module = filled(transformer()).eval()
    src, tgt = torch.randn(5, 3, 8), torch.randn(4, 3, 8)
    keywords = {
        "tgt_mask": torch.ones(4, 4).triu(1) > 0,
        "src_key_padding_mask": torch.rand(3, 5) > 0.7,
    }
    arrays = {name: mx.array(mask.numpy()) for name, mask in keywords.items()}
    got = build_layer(module)(mx.array(src.numpy()), mx.array(tgt.numpy()), **arrays)
    want = module(src, tgt, **keywords).detach().numpy()
    np.testing.assert_allclose(np.array(got), want, atol=1e-5)


class Own(nn.TransformerEncoderLayer):
    def _ff_block(self, x: torch.Tensor) -> torch.Tensor:
        return x


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lambda": (lambda: encoder_layer(activation=lambda x: x), "its activation, .*lambda"),
    "slope": (lambda: decoder_layer(activation=nn.LeakyReLU(0.3)), "its activation, LeakyReLU"),
    "learned_slope": (lambda: encoder(activation=nn.PReLU()), "its activation, PReLU"),
    "function_of_numpy": (lambda: transformer(activation=np.tanh), "its activation"),
    "final_rms_norm": (lambda: encoder(nn.RMSNorm(8)), "its norm is a RMSNorm"),
    "no_layers": (lambda: nn.TransformerDecoder(decoder_layer(), 0), "it has no layers"),
    "no_encoder_layers": (lambda: nn.Transformer(8, 2, 0, 1), "it has no layers"),
    "no_decoder_layers": (lambda: nn.Transformer(8, 2, 1, 0), "its decoder has no layers"),
    "custom_encoder": (
        lambda: nn.Transformer(8, 2, custom_encoder=nn.Identity()),
        "its encoder is a Identity",
    ),
}


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        spec_for(build())


def test_a_subclass_with_a_computation_of_its_own_has_no_rule() -> None:
    with pytest.raises(UnsupportedError):
        spec_for(Own(8, 2))
