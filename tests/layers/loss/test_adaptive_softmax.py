"""The adaptive softmax against torch: what the rule's tests do not call, and odd targets."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers import AdaptiveLogSoftmaxWithLoss


def pair(bias: bool = True) -> tuple[torch.nn.Module, AdaptiveLogSoftmaxWithLoss]:
    arguments = (8, 20, [4, 9, 15])
    module = torch.nn.AdaptiveLogSoftmaxWithLoss(*arguments, div_value=2.0, head_bias=bias)
    layer = AdaptiveLogSoftmaxWithLoss(*arguments, div_value=2.0, head_bias=bias)
    state = [(name, mx.array(t.detach().numpy())) for name, t in module.state_dict().items()]
    layer.load_weights(state)
    return module, layer


@pytest.mark.parametrize("bias", [False, True])
def test_log_prob(assert_parity: Callable[..., None], bias: bool) -> None:
    module, layer = pair(bias)
    x = torch.randn(6, 8)
    exact = torch.nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 9, 15], 2.0, bias).double()
    exact.load_state_dict(module.state_dict())
    got = layer.log_prob(mx.array(x.numpy()))
    assert_parity(got, lambda x: (exact if x.dtype == torch.float64 else module).log_prob(x), x)
    np.testing.assert_allclose(np.exp(np.array(got)).sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("cluster", ["none", "all", "some"])
def test_predict(cluster: str) -> None:
    module, layer = pair()
    with torch.no_grad():  # how much the head likes its three clusters
        module.head.bias[4:] = {"none": -20.0, "all": 20.0, "some": 0.5}[cluster]
    layer.head.bias = mx.array(module.head.bias.detach().numpy())
    x = torch.randn(40, 8) * 2
    want = module.predict(x)
    in_clusters = int((module.head(x).argmax(dim=1) >= 4).sum())
    assert {"none": in_clusters == 0, "all": in_clusters == 40, "some": 0 < in_clusters < 40}[
        cluster
    ]
    got = layer.predict(mx.array(x.numpy()))
    assert got.dtype == mx.int64
    np.testing.assert_array_equal(np.array(got), want.numpy())


def test_target_out_of_range_is_nan() -> None:
    _, layer = pair()
    output, loss = layer(mx.zeros((4, 8)), mx.array([0, 19, 20, -1]))
    assert mx.isnan(output).tolist() == [False, False, True, True]
    assert mx.isnan(loss).item()


@pytest.mark.parametrize("shapes", [((4, 8), (3,)), ((4, 8), (4, 1)), ((4, 8), ()), ((8,), (8,))])
def test_refuses_shapes(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    _, layer = pair()
    with pytest.raises(ValueError, match=r"input must be \(N, in_features\)"):
        layer(mx.zeros(shapes[0]), mx.zeros(shapes[1], mx.int32))


@pytest.mark.parametrize("cutoffs", [[], [0, 4], [4, 4], [5, 4], [20]], ids=str)
def test_refuses_cutoffs(cutoffs: list[int]) -> None:
    with pytest.raises(ValueError, match=r"'cutoffs' must increase, from 1 to 19"):
        AdaptiveLogSoftmaxWithLoss(8, 20, cutoffs)
