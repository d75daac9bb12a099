"""Keep what the process has for all models (random states, defaults), and put it back."""

from __future__ import annotations

import linecache
import random
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.fx.graph_module


@contextmanager
def process_left_as_it_was() -> Iterator[None]:
    """Put back, at the end, what a model's code may change outside of the model.

    The random states of torch, NumPy and Python, torch's default dtype, whether gradients are
    recorded, and the filters of warnings. The sources of graphs that were built meanwhile, which
    torch.fx keeps for tracebacks as long as the process lives, go.
    """
    sources = set(linecache.cache)
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    fast = torch.backends.mha.get_fastpath_enabled()
    drawn, drawn_by_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices), warnings.catch_warnings():
        try:
            yield
        finally:
            random.setstate(drawn)
            np.random.set_state(drawn_by_numpy)
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(gradients)
            torch.backends.mha.set_fastpath_enabled(fast)
            _forget_sources(sources)


def _forget_sources(known: Collection[str]) -> None:
    """Drop the sources of ``torch.fx.GraphModule``s that are not among those known before."""
    kept = torch.fx.graph_module._loader.eval_cache
    for name in [*linecache.cache]:
        if name.startswith("<eval_with_key>") and name not in known:
            linecache.cache.pop(name, None)
            kept.pop(name, None)
