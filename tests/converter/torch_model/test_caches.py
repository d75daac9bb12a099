"""Caches of transformers, as PyTorch's pytrees see them while a call is given one."""

from __future__ import annotations

import re
from typing import Any

import import_torchvision  # noqa: F401  # of tests/models, which is on the path
import pytest
import torch
from torch.utils import _pytree as pytree

from mlxport.converter.errors import CaptureError
from mlxport.converter.torch_model.caches import caches_as_tensors
from mlxport.converter.torch_model.read_structure import read_structure

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")
cache_utils: Any = pytest.importorskip("transformers.cache_utils", reason="no transformers")


def filled(*layers: Any) -> Any:
    cache = transformers.DynamicCache()
    for i, layer in enumerate(layers):
        cache.layers.append(layer)
        cache.update(torch.full((1, 2, 3, 4), float(i)), torch.full((1, 2, 3, 4), -1.0 - i), i)
    return cache


def plain(count: int = 2) -> Any:
    return filled(*(cache_utils.DynamicLayer() for _ in range(count)))


def test_a_cache_is_its_tensors_and_is_built_anew_of_them():
    cache = plain()
    with caches_as_tensors([{"past": (cache,)}]):
        leaves, spec = pytree.tree_flatten(cache)
        names = read_structure(cache).tensors("past")
        copy = pytree.tree_map_only(torch.Tensor, torch.clone, cache)
    assert [float(leaf.max()) for leaf in leaves] == [0, -1, 1, -2]
    assert spec.num_leaves == 4
    assert names[:3] == ["past.layers[0].keys", "past.layers[0].values", "past.layers[1].keys"]
    assert type(copy) is transformers.DynamicCache
    keys, _ = copy.update(torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4), 1)
    assert keys.shape == (1, 2, 4, 4)
    assert cache.get_seq_length(1) == 3  # a copy grows alone
    assert torch.equal(keys[:, :, :3], cache.layers[1].keys)


def known(cls: type) -> list[Any]:
    import torch.fx._pytree as of_graphs

    tables = (pytree.SUPPORTED_NODES, pytree.SUPPORTED_SERIALIZED_TYPES, of_graphs.SUPPORTED_NODES)
    return [table.get(cls) for table in (*tables, of_graphs.SUPPORTED_NODES_EXACT_MATCH)]


def test_pytorch_knows_of_the_class_what_it_knew_before(monkeypatch: pytest.MonkeyPatch):
    cls, cache = transformers.DynamicCache, plain()
    before = known(cls)
    with caches_as_tensors([cache]):
        with caches_as_tensors([cache]):
            assert known(cls) != before
        assert len(pytree.tree_leaves(cache)) == 4
    assert known(cls) == before
    with pytest.raises(RuntimeError, match="the call fails"), caches_as_tensors([cache]):
        raise RuntimeError("the call fails")
    assert known(cls) == before
    node = pytree.NodeDef(cls, lambda c: ([], None), lambda leaves, context: None, None)
    monkeypatch.setitem(pytree.SUPPORTED_NODES, cls, node)  # as another library may have
    with caches_as_tensors([cache]):
        assert len(pytree.tree_leaves(cache)) == 4
    assert pytree.SUPPORTED_NODES[cls] is node


def test_a_call_without_a_cache_changes_nothing():
    before = known(transformers.DynamicCache)
    with caches_as_tensors([torch.ones(2), {"x": [1]}]):
        assert known(transformers.DynamicCache) == before


REFUSED = {
    "no layers": (lambda: transformers.DynamicCache(), "no layers"),
    "empty": (
        lambda: transformers.DynamicCache(config=transformers.LlamaConfig(num_hidden_layers=2)),
        "layer 0: empty\n  layer 1: empty",
    ),
    "a window": (
        lambda: filled(cache_utils.DynamicLayer(), cache_utils.DynamicSlidingWindowLayer(2)),
        "layer 1: a DynamicSlidingWindowLayer",
    ),
}


@pytest.mark.parametrize(("cache", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_keys_or_drops_some_is_refused(cache: Any, message: str):
    with (
        pytest.raises(CaptureError, match=re.escape(message) + "\nA DynamicCache passes"),
        caches_as_tensors([cache()]),
    ):
        pytest.fail("it was taken")
