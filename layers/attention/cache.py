"""A cache of keys and values with the interface of mlx-lm's, so that either may be passed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

ROOM_STEP = 256  # places that are made at a time
# what mlx-lm's caches have that keep a part of what they are given, or keep it quantised
_OTHERWISE = ("max_size", "chunk_size", "bits")


class KVCache:
    """The keys and values of one attention layer, of all calls so far.

    Room is made in blocks of `ROOM_STEP` places, so that a call of one token writes into an array
    that is there instead of copying what is in it.

    Attributes:
        keys: ``(batch, heads, room, head size)``; None before the first call.
        values: the same, of a head size of its own.
        offset: how many places are filled.
    """

    def __init__(self) -> None:
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.offset = 0

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Add the keys and values of a call; return those of all calls.

        Args:
            keys: ``(batch, heads, length, head size)``.
            values: the same, of a head size of its own.

        Raises:
            ValueError: they are of another batch, dtype, or have other heads, than those of earlier
                calls.
        """
        start = self.offset
        for held, added in ((self.keys, keys), (self.values, values)):
            if held is not None and _but_for_length(held) != _but_for_length(added):
                raise ValueError(
                    f"the cache holds keys or values {held[..., :start, :].shape} of {held.dtype}, "
                    f"those of this call are {added.shape} of {added.dtype}: expected the same "
                    "batch, heads, head size and dtype. Begin with an empty cache."
                )
        self.offset = start + keys.shape[2]
        self.keys = _with(self.keys, keys, start)
        self.values = _with(self.values, values, start)
        return self.keys[..., : self.offset, :], self.values[..., : self.offset, :]

    def make_mask(
        self,
        N: int,  # noqa: N803  # mlx-lm's name
        return_array: bool = False,
        window_size: int | None = None,
    ) -> mx.array | str | None:
        """Return the mask for a call of ``N`` more tokens, made before it updates the cache.

        Args:
            N: how many tokens.
            return_array: give an array, where ``"causal"`` would do.
            window_size: how many places back a token reads, itself among them; None for all.

        Returns:
            ``(N, offset + N)``, true where a token reads a place; ``"causal"``, or None for all
            places of a single token.
        """
        if window_size is None and N == 1:
            return None
        if window_size is None and not return_array:
            return "causal"
        places = mx.arange(self.offset + N)[None]
        rows = mx.arange(self.offset, self.offset + N)[:, None]
        causal: mx.array = rows >= places
        return causal if window_size is None else causal & (rows < places + window_size)

    @property
    def state(self) -> tuple[mx.array, mx.array] | tuple[()]:
        """The keys and values that are filled; nothing before the first call."""
        if self.keys is None or self.values is None:
            return ()
        return self.keys[..., : self.offset, :], self.values[..., : self.offset, :]

    @state.setter
    def state(self, state: tuple[mx.array, mx.array]) -> None:
        self.keys, self.values = state
        self.offset = self.keys.shape[2]

    @property
    def meta_state(self) -> str:
        """What mlx-lm stores beside `state`: nothing."""
        return ""

    @property
    def nbytes(self) -> int:
        """How many bytes the arrays take, with their room."""
        return sum(array.nbytes for array in (self.keys, self.values) if array is not None)

    def size(self) -> int:
        """Return how many places are filled."""
        return self.offset

    def empty(self) -> bool:
        """Tell whether no call has been made."""
        return self.keys is None

    def is_trimmable(self) -> bool:
        """Tell whether `trim` takes the last places back: always."""
        return True

    def trim(self, n: int) -> int:
        """Take back the last ``n`` places, or as many as there are; return how many."""
        n = min(self.offset, n)
        self.offset -= n
        return n


def check_cache(cache: Sequence[Any], layers: int) -> None:
    """Refuse what a model converted for a cache that grows cannot be given as one.

    Args:
        cache: one object for each layer: a `KVCache`, or mlx-lm's.
        layers: how many the model has.

    Raises:
        ValueError: there are more or fewer; one does not keep all keys and values as they are (a
            window, a quantised cache); they do not hold equally many; or one object is there for
            several layers.
    """
    problems = [] if len(cache) == layers else [f"{len(cache)} layers"]
    offsets = [getattr(layer, "offset", None) for layer in cache]
    for number, layer in enumerate(cache):
        kind = type(layer).__name__
        if not hasattr(layer, "update_and_fetch"):
            problems.append(f"[{number}]: {kind} has no update_and_fetch")
        elif any(hasattr(layer, name) for name in _OTHERWISE):
            problems.append(f"[{number}]: {kind} does not keep all keys and values as they are")
        elif not isinstance(offsets[number], int):
            problems.append(f"[{number}]: the offset of {kind} is no number")
        elif offsets[number] != offsets[0]:
            problems.append(f"[{number}]: offset {offsets[number]}, of the first {offsets[0]}")
        elif any(layer is earlier for earlier in cache[:number]):
            problems.append(f"[{number}]: the object of an earlier layer, each needs its own")
    if problems:
        raise ValueError(
            f"cache: {'; '.join(problems)}. Expected {layers} layers of one offset, each a "
            "KVCache: model.make_cache() gives them."
        )


def _but_for_length(array: mx.array) -> tuple[int, int, int, mx.Dtype]:
    batch, heads, _, size = array.shape
    return batch, heads, size, array.dtype


def _with(room: mx.array | None, added: mx.array, start: int) -> mx.array:
    """Return an array with some places written behind those that are filled, made longer first."""
    stop = start + added.shape[2]
    if room is None or stop > room.shape[2]:
        batch, heads, length, size = added.shape
        more = mx.zeros((batch, heads, -(-length // ROOM_STEP) * ROOM_STEP, size), added.dtype)
        room = more if room is None else mx.concatenate([room[..., :start, :], more], axis=2)
    room[..., start:stop, :] = added
    return room
