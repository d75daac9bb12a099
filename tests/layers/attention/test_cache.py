"""A cache of keys and values: what calls add one after the other, and the masks between."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlxport.layers.attention.cache import ROOM_STEP, KVCache

LENGTHS = {
    "one by one": [1, 1, 1],
    "a prompt first": [5, 1, 1],
    "over the room": [ROOM_STEP - 1, 1, 1, 2],
    "more than the room": [3, 2 * ROOM_STEP, 1],
    "nothing": [4, 0, 1],
}


def arrays(length, size=4):
    return mx.random.normal((2, 3, length, size))


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_what_is_fetched_is_all_that_was_added(lengths):
    cache, keys, values = KVCache(), [], []
    for length in lengths:
        keys.append(arrays(length))
        values.append(arrays(length, 6).astype(mx.float16))
        fetched = cache.update_and_fetch(keys[-1], values[-1])
        assert mx.array_equal(fetched[0], mx.concatenate(keys, axis=2))
        assert mx.array_equal(fetched[1], mx.concatenate(values, axis=2))
        assert fetched[1].dtype == mx.float16
        assert cache.offset == sum(len(k[0, 0]) for k in keys)
    assert cache.keys.shape[2] <= sum(lengths) + ROOM_STEP * len(lengths)


def test_places_taken_back_are_written_anew():
    cache = KVCache()
    assert cache.empty()
    assert cache.state == ()
    first, other = arrays(5), arrays(2)
    cache.update_and_fetch(first, first)
    assert cache.is_trimmable()
    assert cache.trim(2) == 2
    keys, _ = cache.update_and_fetch(other, other)
    assert mx.array_equal(keys, mx.concatenate([first[:, :, :3], other], axis=2))
    assert cache.trim(9) == 5
    assert cache.offset == 0


OTHERS = {
    "batch": mx.zeros((1, 3, 2, 4)),
    "heads": mx.zeros((2, 1, 2, 4)),
    "head size": mx.zeros((2, 3, 2, 1)),
    "dtype": mx.zeros((2, 3, 2, 4), mx.float16),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("place", [0, 1], ids=["keys", "values"])
def test_what_does_not_fit_is_refused_and_changes_nothing(other, place):
    cache, first = KVCache(), arrays(5)
    cache.update_and_fetch(first, first)
    added = [arrays(2), arrays(2)]
    added[place] = other
    with pytest.raises(ValueError, match="expected the same batch, heads, head size and dtype"):
        cache.update_and_fetch(*added)
    assert cache.offset == 5
    assert all(mx.array_equal(one, first) for one in cache.state)


def test_state_is_what_is_filled_and_can_be_set():
    cache, again = KVCache(), KVCache()
    cache.update_and_fetch(arrays(5), arrays(5))
    again.state = cache.state
    more = arrays(1)
    assert again.offset == 5
    assert again.keys.shape[2] == 5
    for one, two in zip(
        cache.update_and_fetch(more, more), again.update_and_fetch(more, more), strict=True
    ):
        assert mx.array_equal(one, two)


def test_what_mlx_lm_asks_of_a_cache_it_keeps():
    cache = KVCache()
    assert (cache.nbytes, cache.size(), cache.meta_state) == (0, 0, "")
    cache.update_and_fetch(arrays(5), arrays(5))
    assert cache.size() == 5
    assert cache.nbytes == 2 * cache.keys.nbytes


@pytest.mark.parametrize("past", [0, 3], ids=["no past", "a past"])
@pytest.mark.parametrize("window", [None, 1, 2, 9])
@pytest.mark.parametrize("length", [1, 4])
def test_masks_are_causal_within_the_window(past, window, length):
    cache = KVCache()
    cache.update_and_fetch(arrays(past), arrays(past))
    mask = cache.make_mask(length, return_array=True, window_size=window)
    if window is None and length == 1:
        assert mask is None
        return
    reads = [
        [0 <= past + i - j < (window or 99) for j in range(past + length)] for i in range(length)
    ]
    assert mask.tolist() == reads
    plain = cache.make_mask(length, window_size=window)
    assert plain == "causal" if window is None else mx.array_equal(plain, mask)
