"""PyTorch's fast path for attention, as users run it, and what MLX models give in its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten
from torch import nn

import mlxport
from mlxport.converter.parity.reference.record_reference import record_reference
from mlxport.converter.parity.report.report import Outcome
from mlxport.converter.parity.verdict.reference_file import load_reference, save_reference

# of torch's own: its nested tensors, masks of two kinds, encoders it does not fuse
pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor"),
]
X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
TRAILING = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]).bool()
BETWEEN = torch.tensor([[0, 1, 0, 0, 0], [0, 0, 0, 1, 1]]).bool()
ROW = torch.tensor([[0] * 5, [1] * 5]).bool()


def layer(**arguments: Any) -> nn.TransformerEncoderLayer:
    arguments = {"batch_first": True, "dim_feedforward": 12} | arguments
    return nn.TransformerEncoderLayer(8, 2, **arguments)


class Pooled(nn.Module):
    """A mean over all positions, so that padding counts."""

    def __init__(self, encoder: nn.Module, name: str = "src_key_padding_mask") -> None:
        super().__init__()
        self.encoder, self.name = encoder, name

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.encoder(x, **{self.name: mask}).mean(1)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, key_padding_mask=mask, need_weights=False)[0]


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.whole = nn.Transformer(8, 2, 1, 1, 12, batch_first=True)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.whole(x, x, src_key_padding_mask=mask)


FOLLOWED: dict[str, tuple[Callable[[], nn.Module], torch.Tensor]] = {
    "trailing": (lambda: Pooled(nn.TransformerEncoder(layer(), 2, nn.LayerNorm(8))), TRAILING),
    "floating": (
        lambda: Pooled(nn.TransformerEncoder(layer(), 1)),
        torch.zeros(2, 5).masked_fill(TRAILING, -torch.inf),
    ),
    "between": (lambda: Pooled(nn.TransformerEncoder(layer(), 1)), BETWEEN),
    "unchecked": (lambda: Pooled(nn.TransformerEncoder(layer(), 1, mask_check=False)), BETWEEN),
    "a_sequence_of_padding": (lambda: Pooled(nn.TransformerEncoder(layer(), 1)), ROW),
    "norm_first": (lambda: Pooled(nn.TransformerEncoder(layer(norm_first=True), 1)), TRAILING),
    "layer": (lambda: Pooled(layer()), TRAILING),
    "attention": (Attending, TRAILING),
    "transformer": (Whole, TRAILING),
    "frozen": (lambda: Pooled(nn.TransformerEncoder(layer(), 1)).requires_grad_(False), TRAILING),
}


@pytest.mark.parametrize(("build", "mask"), FOLLOWED.values(), ids=FOLLOWED)
def test_models_give_what_eval_computes(build: Callable[[], nn.Module], mask: torch.Tensor) -> None:
    model = build().eval()
    result = mlxport.convert(model, (X, mask))
    assert result.report.verdict.startswith("parity holds: ")
    for tried in (mask, torch.zeros_like(mask)):
        with torch.no_grad():
            expected = model(X, tried).numpy()
        got = np.array(result.model(mx.array(X.numpy()), mx.array(tried.numpy())))
        np.testing.assert_allclose(got, expected, atol=1e-6)
    assert torch.nn.TransformerEncoder.forward.__name__ == "forward"


def test_every_length_stays_open() -> None:
    model = Pooled(nn.TransformerEncoder(layer(), 1)).eval()
    result = mlxport.convert(model, (X, TRAILING), dynamic=(0, 1))
    for length in (1, 2, 7):
        x, mask = torch.randn(3, length, 8), torch.arange(length) >= torch.tensor([[1], [2], [9]])
        with torch.no_grad():
            expected = model(x, mask).numpy()
        got = np.array(result.model(mx.array(x.numpy()), mx.array(mask.numpy())))
        np.testing.assert_allclose(got, expected, atol=1e-6)


NOT_FOLLOWED: dict[str, tuple[Callable[[], nn.Module], torch.Tensor, str]] = {
    "added_to_the_scores": (lambda: Pooled(layer(), "src_mask"), torch.rand(5, 5), "NaN"),
    "query_without_keys": (lambda: Pooled(layer()), ROW, "NaN or infinity in 8 other places"),
    "approximate_gelu": (
        lambda: Pooled(layer(activation=nn.GELU("tanh"))),
        TRAILING,
        "other numbers, .* apart",
    ),
    "nothing_but_padding": (
        lambda: Pooled(nn.TransformerEncoder(layer(), 1)),
        torch.ones(2, 5).bool(),
        "it fails: RuntimeError",
    ),
}


@pytest.mark.parametrize(("build", "mask", "said"), NOT_FOLLOWED.values(), ids=NOT_FOLLOWED)
def test_the_verdict_says_what_is_not_followed(
    build: Callable[[], nn.Module], mask: torch.Tensor, said: str, tmp_path: Any
) -> None:
    model = build().eval()
    report = mlxport.convert(model, (X, mask)).report
    assert report.passed
    first = report.verdict.splitlines()[0]
    assert "not with the fast path that PyTorch takes in eval() without gradients (" in first
    assert report.to_json()["fast_path"] == report.fast_path != ""
    reference = record_reference(model, (X, mask), paths=[])
    assert re.match(said, reference.fast_path)
    save_reference(tmp_path / "reference.safetensors", reference)
    assert load_reference(tmp_path / "reference.safetensors").fast_path == reference.fast_path


def test_so_does_a_verdict_that_failed() -> None:
    build, mask, _ = NOT_FOLLOWED["query_without_keys"]
    model = build().eval()
    result = mlxport.convert(model, (X, mask), verify=False)
    weights = {n: a + 1 for n, a in tree_flatten(result.model.parameters())}
    result.model.load_weights(list(weights.items()))
    report = mlxport.verify(result.model, model, (X, mask))
    assert report.outcome is Outcome.FAILED
    assert "not with the fast path that PyTorch takes" in report.verdict.splitlines()[0]


def test_switched_off_by_the_user_it_is_no_reference() -> None:
    model = Pooled(nn.TransformerEncoder(layer(), 1)).eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        result = mlxport.convert(model, (X, TRAILING))
        with torch.no_grad():
            expected = model(X, TRAILING).numpy()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    got = np.array(result.model(mx.array(X.numpy()), mx.array(TRAILING.numpy())))
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert result.report.fast_path == ""
