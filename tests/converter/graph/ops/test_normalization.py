"""Normalisation against torch."""

import pytest
import torch
import torch.nn.functional as F

from mlxport.converter.graph.ir.context import Unsupported

HALVES = [torch.float16, torch.bfloat16]
SPATIAL = {"0-D": (), "1-D": (9,), "2-D": (5, 6), "3-D": (4, 5, 6)}
WITH_SPATIAL = {name: sizes for name, sizes in SPATIAL.items() if sizes}
spatial = pytest.mark.parametrize("sizes", SPATIAL.values(), ids=SPATIAL)
affine = pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])


def parameters(affine, channels=4):
    return [torch.randn(channels), torch.randn(channels)] if affine else []


def running(channels=4):
    return [torch.randn(channels), torch.rand(channels) + 0.5]


def batch_norm(**options):
    def fn(x, mean, var, *affine):
        return F.batch_norm(x, mean, var, *affine, **options)

    return fn


@affine
@spatial
def test_batch_norm(assert_op_parity, sizes, affine):
    x = torch.randn(3, 4, *sizes)
    assert_op_parity(batch_norm(), x, *running(), *parameters(affine))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_batch_norm_in_half_precision(assert_op_parity, dtype):
    x = torch.randn(3, 4, 5, 6, 7)
    assert_op_parity(batch_norm(), x, *running(), *parameters(True), dtype=dtype)


def test_batch_norm_with_another_eps(assert_op_parity):
    assert_op_parity(batch_norm(eps=0.3), torch.randn(3, 4, 5), *running())


def test_batch_norm_with_weight_and_without_bias(assert_op_parity):
    def fn(x, mean, var, weight):
        return F.batch_norm(x, mean, var, weight)

    assert_op_parity(fn, torch.randn(3, 4, 5), *running(), torch.randn(4))


@affine
@spatial
def test_batch_norm_without_running_statistics(assert_op_parity, sizes, affine):
    def fn(x, *affine):
        return F.batch_norm(x, None, None, *affine, training=True)

    assert_op_parity(fn, torch.randn(3, 4, *sizes), *parameters(affine))


@affine
@spatial
def test_batch_norm_at_training(assert_op_parity, sizes, affine):
    def fn(x, mean, var, weight=None, bias=None):
        given = x, weight, bias, mean, var, True, 0.3, 1e-5
        return torch.ops.aten._native_batch_norm_legit_functional.default(*given)

    assert_op_parity(fn, torch.randn(3, 4, *sizes), *running(), *parameters(affine))


def test_batch_norm_emits_arguments_by_name(lower_op):
    x = torch.randn(3, 4, 5)
    lowered = lower_op(batch_norm(), x, *running(), orders=[(0, 2, 1), None, None])
    assert lowered.body[0] == "x1 = batch_norm(a, running_mean=b, running_var=c)"
    assert lowered.orders == [(0, 2, 1)]


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
def test_statistics_of_native_batch_norm(assert_op_parity, affine):
    def fn(x, *affine):
        weight, bias = affine or (None, None)
        return torch.ops.aten._native_batch_norm_legit.no_stats(x, weight, bias, True, 0.1, 1e-3)

    assert_op_parity(fn, torch.randn(3, 4, 5, 6), *parameters(affine))


@affine
@pytest.mark.parametrize("sizes", WITH_SPATIAL.values(), ids=WITH_SPATIAL)
def test_instance_norm(assert_op_parity, sizes, affine):
    def fn(x, *affine):
        return F.instance_norm(x, None, None, *affine, eps=1e-3)

    assert_op_parity(fn, torch.randn(2, 4, *sizes), *parameters(affine))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_instance_norm_in_half_precision(assert_op_parity, dtype):
    assert_op_parity(F.instance_norm, torch.randn(2, 4, 5, 6, 7), dtype=dtype)


@affine
def test_instance_norm_by_running_statistics(assert_op_parity, affine):
    def fn(x, mean, var, *affine):
        return F.instance_norm(x, mean, var, *affine, use_input_stats=False)

    assert_op_parity(fn, torch.randn(2, 4, 5, 6), *running(), *parameters(affine))


def test_instance_norm_at_training_is_refused(lower_op):
    with pytest.raises(Unsupported, match="updates its running statistics"):
        lower_op(F.instance_norm, torch.randn(3, 4, 5), *running())


@affine
@spatial
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_norm(assert_op_parity, groups, sizes, affine):
    def fn(x, *affine):
        return F.group_norm(x, groups, *affine, eps=1e-6)

    assert_op_parity(fn, torch.randn(3, 4, *sizes), *parameters(affine))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_group_norm_in_half_precision(assert_op_parity, dtype):
    def fn(x):
        return F.group_norm(x, 2)

    assert_op_parity(fn, torch.randn(3, 4, 5, 6, 7), dtype=dtype)


@affine
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_layer_norm(assert_op_parity, dims, affine, dtype):
    shape = (2, 3, 4, 5)
    last = shape[-dims:]

    def fn(x, *affine):
        return F.layer_norm(x, last, *affine)

    extra = [torch.randn(last), torch.randn(last)] if affine else []
    assert_op_parity(fn, torch.randn(shape) * 3 + 1, *extra, dtype=dtype)


@pytest.mark.parametrize("size", [1, 7, 768, 5000])
@pytest.mark.parametrize("offset", [0, 100], ids=["centred", "far from zero"])
def test_layer_norm_over_many_values(assert_op_parity, size, offset):
    def fn(x):
        return F.layer_norm(x, (size,), eps=1e-6)

    assert_op_parity(fn, torch.randn(3, size) + offset)


def rms_norm(dims, **options):
    return lambda x, *weight: F.rms_norm(x, x.shape[-dims:], *weight, **options)


@pytest.mark.parametrize("affine", [True, False], ids=["weight", "plain"])
@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_rms_norm(assert_op_parity, dims, affine, dtype):
    x = torch.randn(2, 3, 4, 5) * 1e-2  # small enough for eps to count
    extra = [torch.randn(x.shape[-dims:])] if affine else []
    assert_op_parity(rms_norm(dims, eps=1e-4), x, *extra, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("dims", [1, 2])
def test_rms_norm_without_eps_takes_that_of_float32(lower_op, dims, dtype):
    # Not by parity: PyTorch's reference in float64 takes float64's.
    x = (torch.randn(2, 3, 4, 5) * 1e-3).to(dtype)
    eps = torch.finfo(torch.float32).eps
    assert torch.equal(rms_norm(dims)(x), rms_norm(dims, eps=eps)(x))
    native, ours = "mx.fast.rms_norm(a, None, 1.1920928955078125e-7)", "rms_norm(a, (4, 5))"
    assert lower_op(rms_norm(dims), x).source == (native if dims == 1 else ours)


def test_with_statistics_that_nobody_reads(assert_op_parity, lower_op):
    x, w = torch.randn(2, 4, 3, 3), torch.randn(4)
    layer = torch.ops.aten.native_layer_norm
    assert_op_parity(lambda x: layer(x, [3, 3], None, None, 1e-5)[0], x)
    group = torch.ops.aten.native_group_norm
    assert_op_parity(lambda x, w: group(x, w, w, 2, 4, 9, 2, 1e-5)[0], x, w)
    assert "statistics" not in lower_op(lambda x: layer(x, [3, 3], None, None, 1e-5)[0], x).source


@pytest.mark.parametrize("dims", [1, 2])
def test_statistics_of_layer_norm(dims, assert_op_parity):
    x = torch.randn(2, 4, 3, 5) + 2
    layer = torch.ops.aten.native_layer_norm
    assert_op_parity(lambda x: layer(x, x.shape[-dims:], None, None, 1e-5), x)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_statistics_of_group_norm(groups, assert_op_parity):
    x, w = torch.randn(2, 4, 3, 3) + 2, torch.randn(4)
    group = torch.ops.aten.native_group_norm
    assert_op_parity(lambda x, w: group(x, w, w, 2, 4, 9, groups, 1e-5), x, w)


EPS_OF_0 = {
    "layer_norm": lambda x: F.layer_norm(x, (6,), eps=0.0),
    "layer_norm of weights": lambda x: F.layer_norm(x, (6,), x[0, 0], x[0, 1], eps=0.0),
    "layer_norm of axes": lambda x: F.layer_norm(x, (4, 6), eps=0.0),
    "rms_norm": lambda x: F.rms_norm(x, (6,), eps=0.0),
    "group_norm": lambda x: F.group_norm(x, 2, eps=0.0),
    "instance_norm": lambda x: F.instance_norm(x, eps=0.0),
    "batch_norm": lambda x: F.batch_norm(x, x[0, :, 0], x[1, :, 0].square(), eps=0.0),
    "normalize": lambda x: F.normalize(x, dim=1, eps=0.0),
    "cosine_similarity": lambda x: F.cosine_similarity(x, x.flip(0), 2, eps=0.0),
    "pairwise_distance": lambda x: F.pairwise_distance(x, x.flip(0), eps=0.0),
}


@pytest.mark.parametrize("name", EPS_OF_0)
def test_an_eps_of_0_is_no_default(name, assert_op_parity):
    """At a scale where any usual eps would drown the variance."""
    assert_op_parity(EPS_OF_0[name], 1e-4 * torch.randn(3, 4, 6))
