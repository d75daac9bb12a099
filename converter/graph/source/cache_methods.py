"""Write what the model's class has for its cache: how one is made, and how it is checked."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from mlxport.converter.graph.ir.body import Lowered
from mlxport.converter.graph.ir.caches import CACHE, LENGTH_AXIS, caches_among
from mlxport.converter.graph.ir.sizes import size_text
from mlxport.converter.graph.source.format import WIDTH


def cache_method(lowered: Lowered) -> Iterator[str]:
    """Yield the lines of the method that makes an empty cache."""
    if lowered.cached is None:
        return
    yield ""
    yield "    def make_cache(self) -> list:"
    yield '        """Return an empty cache, to be given to all calls on one text."""'
    yield f"        return [KVCache() for _ in range({lowered.cached.layers})]"


def cache_check(lowered: Lowered) -> list[str]:
    """Return the lines that make a cache where none is given, and refuse what is none."""
    if lowered.cached is None:
        return []
    return [
        f"        if {CACHE} is None:",
        f"            {CACHE} = self.make_cache()",
        f"        check_cache({CACHE}, {lowered.cached.layers})",
    ]


def cache_note(lowered: Lowered) -> list[str]:
    """Return the lines of the module's docstring that say how the model is given a cache."""
    if lowered.cached is None:
        return []
    first = caches_among(lowered.bodies[""].inputs)[0]
    length = size_text(first.shape[LENGTH_AXIS], lowered.size_names)
    note = (
        f"A cache keeps the keys and values of one text from call to call, {length} of "
        "them before a call: "
        f"{CACHE} = model.make_cache(), then model(…, {CACHE}={CACHE}) for the prompt and for each "
        "token behind it. Without one a call is the whole text. mx.compile takes no cache."
    )
    return textwrap.wrap(note, WIDTH, break_long_words=False, break_on_hyphens=False)
