"""The attention function itself; its parity with torch is tested through the op's handler too."""

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mlxport.layers.attention.dot_product import scaled_dot_product_attention


def both(shapes: list[tuple[int, ...]], mask: torch.Tensor | None, **options: object) -> float:
    """Relative error against torch in float64."""
    tensors = [torch.randn(shape) for shape in shapes]
    arrays = [mx.array(x.numpy()) for x in tensors]
    array = None if mask is None else mx.array(mask.numpy())
    got = np.array(scaled_dot_product_attention(*arrays, mask=array, **options))
    wide = mask.double() if mask is not None and mask.is_floating_point() else mask
    renamed = {"attn_mask": wide, **options}
    want = F.scaled_dot_product_attention(*(x.double() for x in tensors), **renamed).numpy()
    assert got.shape == want.shape
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 2, 3)], ids=str)
@pytest.mark.parametrize("kind", ["none", "causal", "bool", "float"])
def test_matches_torch(lead: tuple[int, ...], kind: str) -> None:
    mask = {"bool": torch.rand(5, 7) > 0.4, "float": torch.randn(*lead, 5, 7)}.get(kind)
    shapes = [(*lead, 5, 4), (*lead, 7, 4), (*lead, 7, 6)]
    assert both(shapes, mask, is_causal=kind == "causal") < 1e-6


def test_grouped_queries() -> None:
    assert both([(2, 6, 5, 4), (2, 2, 7, 4), (2, 2, 7, 4)], None, enable_gqa=True) < 1e-6


def test_causal_and_mask_are_refused_together() -> None:
    x = mx.ones((1, 1, 2, 4))
    with pytest.raises(ValueError, match="either a mask or is_causal"):
        scaled_dot_product_attention(x, x, x, mask=mx.ones((2, 2)), is_causal=True)


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_query_without_any_key_gives_zeros_and_finite_gradients(kind: str) -> None:
    allowed = torch.rand(5, 7) > 0.4
    allowed[1] = False
    mask = allowed if kind == "bool" else torch.zeros(5, 7).masked_fill(~allowed, -torch.inf)
    tensors = [torch.randn(2, size, 4, requires_grad=True) for size in (5, 7, 7)]
    want = F.scaled_dot_product_attention(*tensors, attn_mask=mask)
    gradients = torch.autograd.grad(want, tensors, torch.ones_like(want))
    got, ours = mx.vjp(
        lambda *x: scaled_dot_product_attention(*x, mask=mx.array(mask.numpy())),
        [mx.array(x.detach().numpy()) for x in tensors],
        [mx.ones(want.shape)],
    )
    assert not np.array(got[0])[:, 1].any()
    for x, y in zip([*got, *ours], [want, *gradients], strict=True):
        np.testing.assert_allclose(np.array(x), y.detach().numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_no_keys_give_zeros(masked: bool) -> None:
    q, k, v = mx.ones((2, 3, 5, 4)), mx.ones((2, 3, 0, 4)), mx.ones((2, 3, 0, 6))
    mask = mx.ones((0, 5), dtype=mx.bool_).T if masked else None
    y = scaled_dot_product_attention(q, k, v, mask=mask)
    assert y.shape == (2, 3, 5, 6)
    assert not mx.any(y).item()
