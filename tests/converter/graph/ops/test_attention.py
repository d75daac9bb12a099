"""Scaled dot-product attention against torch."""

import re

import pytest
import torch
import torch.nn.functional as F

from mlxport.converter.graph.ir.context import Unsupported

NATIVE = "mx.fast.scaled_dot_product_attention"
SHAPES = {
    "self": ((2, 3, 5, 4), (2, 3, 5, 4), (2, 3, 5, 4)),
    "cross": ((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4)),
    "few keys": ((2, 3, 7, 4), (2, 3, 5, 4), (2, 3, 5, 4)),
    "other value size": ((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)),
    "one key": ((2, 3, 5, 4), (2, 3, 1, 4), (2, 3, 1, 4)),
    "3-D": ((3, 5, 4), (3, 7, 4), (3, 7, 4)),
    "2-D": ((5, 4), (7, 4), (7, 4)),
    "5-D": ((2, 2, 3, 5, 4), (2, 2, 3, 7, 4), (2, 2, 3, 7, 4)),
    "batch broadcasts": ((2, 3, 5, 4), (1, 3, 7, 4), (1, 3, 7, 4)),
    "heads broadcast": ((2, 1, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4)),
    "no keys": ((2, 3, 5, 4), (2, 3, 0, 4), (2, 3, 0, 4)),
    "no queries": ((2, 3, 0, 4), (2, 3, 5, 4), (2, 3, 5, 4)),
}
MASKS = {
    "full": (2, 3, 5, 7),
    "per head": (1, 3, 5, 7),
    "per sample": (2, 1, 1, 7),
    "3-D": (3, 5, 7),
    "shared": (5, 7),
    "per query": (5, 1),
}


def random(shapes):
    return [torch.randn(shape) for shape in shapes]


def attend(**options):
    return lambda *tensors: F.scaled_dot_product_attention(*tensors, **options)


@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_shapes(assert_op_parity, shapes, causal):
    assert_op_parity(attend(is_causal=causal), *random(shapes))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
def test_half_precision(assert_op_parity, causal, dtype):
    assert_op_parity(attend(is_causal=causal), *random(SHAPES["cross"]), dtype=dtype)


@pytest.mark.parametrize("scale", [0.3, 0.0, 2])
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_scale(assert_op_parity, scale, masked):
    mask = [torch.rand(5, 7) > 0.5] if masked else []
    assert_op_parity(attend(scale=scale), *random(SHAPES["cross"]), *mask)


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("shape", MASKS.values(), ids=MASKS)
def test_masks(assert_op_parity, shape, kind):
    mask = torch.rand(shape) > 0.4 if kind == "bool" else torch.randn(shape)
    assert_op_parity(attend(), *random(SHAPES["cross"]), mask)


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("name", ["3-D", "2-D", "5-D", "batch broadcasts", "no keys"])
def test_masks_of_other_ranks(assert_op_parity, name, kind):
    q, k, v = random(SHAPES[name])
    shape = (*q.shape[:-2], q.shape[-2], k.shape[-2])
    mask = torch.rand(shape) > 0.4 if kind == "bool" else torch.randn(shape)
    assert_op_parity(attend(), q, k, v, mask)


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_rows_masked_whole_are_zero(assert_op_parity, kind):
    keep = torch.rand(2, 1, 5, 7) > 0.3
    keep[0, 0, 2] = False
    mask = keep if kind == "bool" else torch.zeros(keep.shape).masked_fill(~keep, -torch.inf)
    assert_op_parity(attend(), *random(SHAPES["cross"]), mask)


@pytest.mark.parametrize("mask_dtype", [torch.float16, torch.float32, torch.bool], ids=str)
def test_masks_in_half_precision(assert_op_parity, mask_dtype):
    q, k, v = (x.half() for x in random(SHAPES["cross"]))
    assert_op_parity(attend(), q, k, v, torch.randint(0, 2, (5, 7)).to(mask_dtype))


@pytest.mark.parametrize("case", ["plain", "causal", "masked"])
@pytest.mark.parametrize("lead", [(2,), (), (2, 2)], ids=str)
def test_grouped_queries(assert_op_parity, lead, case):
    q, k, v = random(((*lead, 6, 5, 4), (*lead, 2, 5, 4), (*lead, 2, 5, 4)))
    mask = [torch.rand(5, 5) > 0.4] if case == "masked" else []
    assert_op_parity(attend(enable_gqa=True, is_causal=case == "causal"), q, k, v, *mask)


def expanded(x, count):
    *lead, heads, length, size = x.shape
    return x.unsqueeze(-3).expand(*lead, heads, count, length, size).flatten(-4, -3)


def interleaved(x, count):
    return x.repeat_interleave(count, dim=-3)


REPETITIONS = {"expand": expanded, "repeat_interleave": interleaved}


@pytest.mark.parametrize("case", ["plain", "causal", "masked"])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("lead", [(2,), (), (2, 2)], ids=str)
@pytest.mark.parametrize("repeated", REPETITIONS.values(), ids=REPETITIONS)
def test_repeated_heads_are_grouped_queries(
    assert_op_parity, lower_op, repeated, lead, heads, case
):
    def attends(q, k, v, mask=None):
        k, v = repeated(k, 3), repeated(v, 3)
        return attend(is_causal=case == "causal")(q, k, v, mask)

    q, k, v = random(((*lead, 3 * heads, 5, 4), (*lead, heads, 5, 4), (*lead, heads, 5, 4)))
    mask = [torch.rand(5, 5) > 0.4] if case == "masked" else []
    *_, attention = lower_op(attends, q, k, v, *mask).body
    assert re.search(r"scaled_dot_product_attention\(a, b, c\b", attention)
    assert_op_parity(attends, q, k, v, *mask)


def tiled(x, count):
    return x.repeat(*[1] * (x.ndim - 3), count, 1, 1)


def expanded_before(x, count):
    return x.unsqueeze(1).expand(x.shape[0], count, *x.shape[1:]).flatten(1, 2)


OTHER_REPETITIONS = {
    "heads one after the other": lambda k, v: (tiled(k, 3), tiled(v, 3)),
    "expanded before the heads": lambda k, v: (expanded_before(k, 3), expanded_before(v, 3)),
    "keys alone": lambda k, v: (expanded(k, 3), tiled(v, 3)),
    "values in another sequence": lambda k, v: (interleaved(k, 3), expanded_before(v, 3)),
    "heads flipped": lambda k, v: (expanded(k, 3).flip(1), expanded(v, 3)),
    "exchanged with the length": lambda k, v: (
        expanded(k.transpose(1, 2), 3).transpose(1, 2)[:, :, :6].repeat(1, 3, 1, 1),
        expanded(v, 3)[:, :, :6],
    ),
    "other counts": lambda k, v: (interleaved(k, 3), interleaved(interleaved(v[:, :1], 2), 3)),
    "twice": lambda k, v: (interleaved(interleaved(k[:, :1], 2), 3), expanded(v, 3)),
}


@pytest.mark.parametrize("repeats", OTHER_REPETITIONS.values(), ids=OTHER_REPETITIONS)
def test_other_repetitions_keep_their_meaning(assert_op_parity, repeats):
    def attends(q, k, v):
        k, v = repeats(k, v)
        return attend()(q, k, v)

    assert_op_parity(attends, *random(((2, 6, 6, 4), (2, 2, 6, 4), (2, 2, 6, 4))))


def test_repeated_heads_that_others_read_stay(assert_op_parity):
    def attends(q, k, v):
        k = expanded(k, 3)
        return attend()(q, k, expanded(v, 3)), k + q

    assert_op_parity(attends, *random(((2, 6, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4))))


@pytest.mark.parametrize(
    ("name", "causal", "source"),
    [
        ("self", False, f"{NATIVE}(a, b, c, scale=4 ** (-0.5))"),
        ("self", True, f'{NATIVE}(a, b, c, scale=4 ** (-0.5), mask="causal")'),
        ("cross", False, f"{NATIVE}(a, b, c, scale=4 ** (-0.5))"),
        ("cross", True, "scaled_dot_product_attention(a, b, c, is_causal=True)"),
        ("3-D", False, "scaled_dot_product_attention(a, b, c)"),
    ],
)
def test_what_is_emitted(lower_op, name, causal, source):
    assert lower_op(attend(is_causal=causal), *random(SHAPES[name])).source == source


def test_dropout_is_refused(lower_op):
    with pytest.raises(Unsupported, match=r"dropout_p=0\.1 is random"):
        lower_op(attend(dropout_p=0.1), *random(SHAPES["self"]))


FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("name", ["self", "cross", "few keys", "one key"])
def test_flash_attention_gives_the_logsumexp(assert_op_parity, name, causal, dtype):
    assert_op_parity(
        lambda q, k, v: FLASH(q, k, v, is_causal=causal), *random(SHAPES[name]), dtype=dtype
    )


def test_flash_attention_with_a_mask_a_scale_and_groups(assert_op_parity):
    mask = torch.randn(2, 1, 5, 7).masked_fill(torch.rand(2, 1, 5, 7) > 0.7, -torch.inf)
    mask[0, 0, 2] = -torch.inf  # a row without keys: PyTorch's kernel says 0
    q, k, v = random(((2, 6, 5, 4), (2, 2, 7, 4), (2, 2, 7, 4)))
    assert_op_parity(lambda *x: FLASH(*x[:3], attn_mask=x[3], scale=0.3), q, k, v, mask)


def test_a_logsumexp_that_is_not_used_is_not_computed(source_of):
    class Attention(torch.nn.Module):
        def forward(self, x):
            return FLASH(x, x, x)[0]

    source = source_of(Attention(), torch.randn(2, 3, 5, 4))
    assert NATIVE in source
    assert "scores_logsumexp" not in source
