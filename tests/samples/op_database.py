"""The samples of operations that `torch.testing` keeps for PyTorch's own tests.

Every ATen op that a model may call has its cases there: broadcast and empty shapes, 0-d arrays,
negative axes, every argument. A sample is one call of a function of PyTorch's.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo.core import OpInfo, SampleInput
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

# Ops whose result is whatever lay in memory, or PyTorch's own random numbers.
UNDEFINED = re.compile(
    r"empty|^(rand|bernoulli|multinomial|normal|uniform|exponential|cauchy|geometric|log_normal)"
    r"|dropout|^argsort$"  # argsort: the places alone are its result, sort holds the values to them
)

# How many samples of each op are taken, in how many dtypes; a few by default.
SWEEP = int(os.environ.get("MLXPORT_SWEEP", "0"))
DTYPES = [torch.float32]
if SWEEP:
    # Their first samples leave no choice, others depend on the windows or vectors that are drawn.
    UNDEFINED = re.compile(UNDEFINED.pattern + r"|fractional_max_pool|_lowrank$")
    DTYPES += [torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]

# PyTorch's kernel overflows in half precision; the decomposition that is converted does not.
OVERFLOWING = {("nn.functional.soft_margin_loss", torch.float16)}

# Ops that leave open which of equal values' places they give: their values alone are compared.
TIES = {"kthvalue", "median", "mode", "msort", "nanmedian", "sort", "topk"}


@dataclass(frozen=True)
class OpSample:
    """One sample of an op, by its place in the database."""

    op: str
    dtype: torch.dtype
    index: int

    def __str__(self) -> str:
        return f"{self.op}-{str(self.dtype).removeprefix('torch.')}-{self.index}"

    def call(self) -> tuple[Callable[..., Any], list[torch.Tensor]]:
        """Return the call as a function of its tensors, and the tensors."""
        info, sample = _INFOS[self.op], _samples(self.op, self.dtype)[self.index]
        leaves, spec = tree_flatten((sample.input, tuple(sample.args), dict(sample.kwargs)))
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

        def call(*tensors: torch.Tensor) -> Any:
            given = list(leaves)
            for place, tensor in zip(places, tensors, strict=True):
                given[place] = tensor
            first, args, kwargs = tree_unflatten(given, spec)
            result = sample.output_process_fn_grad(info.op(first, *args, **kwargs))
            return result[0] if info.name in TIES and isinstance(result, tuple) else result

        return call, [leaves[i].detach() for i in places]

    def exact(self) -> bool:
        """Whether PyTorch computes the sample, and gives arrays, in float64 as in its own dtype.

        Raises:
            Exception: PyTorch rejects the sample.
        """
        function, tensors = self.call()
        own = tree_leaves(function(*(x.clone() for x in tensors)))
        if not all(isinstance(x, torch.Tensor) for x in own):
            raise TypeError("a result is no array")
        try:
            wide = [x.double() if x.is_floating_point() else x for x in tensors]
            return len(tree_leaves(function(*wide))) == len(own)
        except (RuntimeError, NotImplementedError):
            return False


def ops() -> Iterator[tuple[str, torch.dtype]]:
    """Every op, in every dtype of the sweep that PyTorch computes it in."""
    for dtype in DTYPES:
        for name, info in _INFOS.items():
            served = dtype in info.supported_dtypes("cpu") and (name, dtype) not in OVERFLOWING
            if served and not UNDEFINED.search(info.name):
                yield name, dtype


def op_samples(op: str, dtype: torch.dtype) -> list[OpSample]:
    """The first samples of an op."""
    return [OpSample(op, dtype, index) for index in range(len(_samples(op, dtype)))]


def _names() -> dict[str, OpInfo]:
    return {".".join(filter(None, (op.name, op.variant_test_name))): op for op in op_db}


_INFOS = _names()


@functools.cache
def _samples(name: str, dtype: torch.dtype) -> list[SampleInput]:
    """The first samples with a dense array of a dtype that MLX has among their arguments."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of its own samples
        torch.manual_seed(0)
        made = _INFOS[name].sample_inputs("cpu", dtype, requires_grad=False)
        return list(itertools.islice(filter(_is_dense, made), SWEEP or 1))


def _is_dense(sample: SampleInput) -> bool:
    tensors = [
        x
        for x in tree_leaves((sample.input, sample.args, sample.kwargs))
        if isinstance(x, torch.Tensor)
    ]
    wide = (torch.float64, torch.complex128)
    plain = all(x.layout == torch.strided and not x.is_quantized for x in tensors)
    return bool(tensors) and plain and not any(x.dtype in wide for x in tensors)
