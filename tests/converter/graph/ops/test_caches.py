"""A cache that is only added to becomes an object; all else stays tensors, in and out."""

from __future__ import annotations

from functools import cache
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.errors import ConversionError
from mlxport.converter.plan.record import Conversion
from mlxport.layers.attention.cache import KVCache

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")

LAYERS, HEADS, SIZE = 3, 2, 4
WIDTH = HEADS * SIZE


class Attention(nn.Module):
    """Adds to one layer of a cache; what reads the cache besides is up to ``way``."""

    def __init__(self, number, way):
        super().__init__()
        self.number, self.way = number, way
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, x, cache, length):
        q, k, v = (
            layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        held = cache.layers[self.number].keys
        keys, values = cache.update(k, v, self.number)
        x = nn.functional.scaled_dot_product_attention(q, keys, values).mean(1)
        if self.way == "offset behind an update":
            x = x * length + torch.arange(x.shape[-2] + length)[-x.shape[-2] :, None]
        if self.way == "past read by something else":
            x = x + held.mean()
        return x


class Model(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.way = way
        self.layers = nn.ModuleList(Attention(number, way) for number in range(LAYERS))

    def forward(self, x, cache):
        length = cache.get_seq_length()
        order = reversed(self.layers) if self.way == "last layer first" else self.layers
        for layer in order:
            x = layer(x, cache, length)
        if self.way == "offset behind an update":
            x = x + length
        return (x, cache) if self.way == "in a tuple" else {"cache": cache, "x": x}


def example(past):
    held = transformers.DynamicCache()
    for number in range(LAYERS):
        held.update(*(torch.randn(2, HEADS, past, n * SIZE) for n in (1, 2)), number)
    return torch.randn(2, 3, WIDTH), held


@cache
def converted(way, length_is_open=True):
    model = Model(way).eval()
    dynamic = {"x": (0, 1), "cache": (0, 2) if length_is_open else (0,)}
    result = mlxport.convert(model, [*example(5)], dynamic=dynamic)
    assert result.report.passed, result.report.verdict
    return model, result


def test_layers_in_a_row_are_a_loop_over_modules_and_cache():
    _, result = converted("plain")
    assert "for layer, layer_cache in zip(self.layers, cache):" in result.source
    _, result = converted("last layer first")
    assert "zip(" not in result.source


AS_OBJECTS = ["plain", "in a tuple", "last layer first", "offset behind an update"]


@pytest.mark.parametrize("way", AS_OBJECTS)
def test_calls_one_after_the_other_give_what_pytorch_gives(way):
    model, result = converted(way)
    ours, theirs = result.model.make_cache(), example(0)[1]
    for length in (4, 1, 1, 2):
        x = torch.randn(2, length, WIDTH)
        given = result.model(mx.array(x.numpy()), cache=ours)
        found = given[0] if way == "in a tuple" else given["x"]
        assert len(given) == 1  # the cache is where the caller has it
        with torch.no_grad():
            expected = model(x, theirs)
        expected = expected[0] if way == "in a tuple" else expected["x"]
        assert np.allclose(np.array(found), expected.numpy(), atol=1e-5)
        for one, layer in zip(ours, theirs.layers, strict=True):
            assert np.allclose(np.array(one.state[0]), layer.keys.numpy(), atol=1e-5)
            assert np.allclose(np.array(one.state[1]), layer.values.numpy(), atol=1e-5)
    assert {"empty cache", "one token"} <= {other.case for other in result.report.others}


@pytest.mark.parametrize(
    ("way", "length_is_open"), [("past read by something else", True), ("plain", False)]
)
def test_what_is_not_only_added_to_is_tensors(way, length_is_open):
    _, result = converted(way, length_is_open)
    assert result.conversion.cache is None
    assert "KVCache" not in result.source
    x, past = example(5)
    pairs = [tuple(mx.array(t.numpy()) for t in (one.keys, one.values)) for one in past.layers]
    given = result.model(mx.array(x.numpy()), pairs)
    assert given["cache"][1][1].shape == (2, HEADS, 8, 2 * SIZE)


class Window(KVCache):
    max_size = 4


class Quantized(KVCache):
    bits = 4


def filled(cls=KVCache, length=2):
    layer = cls()
    layer.update_and_fetch(mx.zeros((2, HEADS, length, SIZE)), mx.zeros((2, HEADS, length, 8)))
    return layer


REFUSED = {
    "a layer missing": (lambda: [filled()], "cache: 1 layers. Expected 3"),
    "tensors": (lambda: [(mx.zeros(1),) * 2] * LAYERS, r"\[0\]: tuple has no update_and_fetch"),
    "uneven": (lambda: [filled(), filled(length=3), filled()], r"\[1\]: offset 3, of the first 2"),
    "one for all": (lambda: [filled()] * LAYERS, r"\[1\]: the object of an earlier layer"),
    "tensors first": (lambda: [(), filled(), filled()], r"\[0\]: tuple has no update_and_fetch"),
    "a window": (lambda: [filled(Window)] * LAYERS, r"\[0\]: Window does not keep all"),
    "quantised": (lambda: [filled(Quantized)] * LAYERS, r"\[1\]: Quantized does not keep all"),
}


def test_what_the_model_does_not_serve_is_refused():
    _, result = converted("plain")
    x = mx.zeros((2, 1, WIDTH))
    for given, message in REFUSED.values():
        with pytest.raises(ValueError, match=message):
            result.model(x, cache=given())
    with pytest.raises(ValueError, match="expected the same batch"):
        result.model(x[:1], cache=[filled() for _ in range(LAYERS)])
    with pytest.raises(TypeError):
        result.model(x, result.model.make_cache())  # by its name alone


class OneByOne:
    """A cache as another library writes it: two methods of `KVCache` and no more."""

    def __init__(self):
        self.parts, self.offset = [], 0

    def update_and_fetch(self, keys, values):
        self.parts.append((keys, values))
        self.offset += keys.shape[2]
        return tuple(mx.concatenate(list(one), axis=2) for one in zip(*self.parts, strict=True))


def test_any_object_of_the_interface_will_do_and_none_is_an_empty_one():
    _, result = converted("plain")
    x = mx.random.normal((2, 5, WIDTH))
    ours, others = result.model.make_cache(), [OneByOne() for _ in range(LAYERS)]
    for part in (x[:, :3], x[:, 3:]):
        given = [result.model(part, cache=one)["x"] for one in (ours, others)]
        assert mx.array_equal(*given)


def test_calls_share_nothing_but_the_cache_that_both_are_given():
    _, result = converted("plain")
    x, other = mx.random.normal((2, 5, WIDTH)), mx.random.normal((2, 4, WIDTH))
    ours, another = result.model.make_cache(), result.model.make_cache()
    assert len({id(layer) for layer in (*ours, *another)}) == 2 * LAYERS
    whole = result.model(x)["x"]
    first = result.model(x[:, :3], cache=ours)["x"]
    result.model(other, cache=another)
    assert mx.array_equal(result.model(x)["x"], whole)  # none is an empty one, at each call
    assert mx.array_equal(result.model(x, cache=result.model.make_cache())["x"], whole)
    second = result.model(x[:, 3:], cache=ours)["x"]
    assert mx.array_equal(first, result.model(x[:, :3])["x"])
    assert not mx.allclose(second, whole[:, 3:])  # this attention is not causal
    assert [layer.offset for layer in (*ours, *another)] == [5] * LAYERS + [4] * LAYERS


def forgets(self, keys, values):
    self.keys = None
    return ORIGINAL(self, keys, values)


def counts_from_one(self, keys, values):
    found = ORIGINAL(self, keys, values)
    self.keys = mx.roll(self.keys, 1, axis=2)
    return found


def gives_the_new(self, keys, values):
    ORIGINAL(self, keys, values)
    return keys, values


ORIGINAL = KVCache.update_and_fetch


@pytest.mark.parametrize("fault", [forgets, counts_from_one, gives_the_new])
def test_parity_sees_a_cache_that_keeps_something_else(monkeypatch, fault):
    monkeypatch.setattr(KVCache, "update_and_fetch", fault)
    dynamic = {"x": (0, 1), "cache": (0, 2)}
    result = mlxport.convert(Model("plain").eval(), [*example(5)], dynamic=dynamic)
    assert not result.report.passed


CONTRADICTIONS = {
    "an argument that is none": ({"argument": "x"}, "signature.arguments has no x of 3 layers"),
    "fewer layers": ({"layers": 2}, "no cache of 2 layers"),
    "a place twice": ({"results": [0, 0, 2, 3, 4, 5]}, "cache.results: not 6 tensors"),
    "a place beyond": ({"results": [0, 1, 2, 3, 4, 9]}, "cache.results: not 6 tensors"),
}


@pytest.mark.parametrize(("change", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_record_that_contradicts_itself_is_refused(change, message):
    record = converted("plain")[1].conversion
    data = record.to_json()
    assert Conversion.from_json(data).cache == record.cache
    with pytest.raises(ConversionError, match=message):
        Conversion.from_json({**data, "cache": {**data["cache"], **change}})
