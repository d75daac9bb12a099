"""Example inputs from what a user writes: ``1,1,32,48,40``, ``ids=int64:1,16:0..29999``, files."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from mlxport.converter.arguments import argument
from mlxport.converter.errors import OptionsError
from mlxport.converter.ranges import MOST_ELEMENTS
from mlxport.converter.torch_model.caches import FilledCache
from mlxport.converter.torch_model.calls import parameters_of

DTYPES = {
    name: getattr(torch, name)
    for name in ("float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool")
}
SUFFIXES = (".npy", ".npz", ".safetensors")

_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
_SPEC = re.compile(
    r"(?:(?P<name>[^\W\d]\w*)=)?(?:(?P<dtype>[^:,.]*[^\d:,.-][^:,.]*):)?(?P<sizes>-?\d+(?:,-?\d+)*)?"
    rf"(?::(?P<low>{_NUMBER})\.\.(?P<high>{_NUMBER}))?"
)


@dataclass(frozen=True)
class Spec:
    """An example input to be drawn.

    Attributes:
        shape: its shape.
        dtype: its dtype; None for the model's own.
        low: the smallest value; None for the default range.
        high: the largest value.
        name: the parameter of ``forward`` it is for; empty if it is positional.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | None = None
    low: float | None = None
    high: float | None = None
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Read ``[name=][dtype:]sizes[:low..high]``; no sizes are a tensor without axes.

        Raises:
            ValueError: it cannot be read; the message says why.
        """
        match = _SPEC.fullmatch(text)
        if match is None:
            raise ValueError(
                "expected [name=][dtype:]sizes[:low..high], such as 1,1,32,48,40 or "
                "ids=int64:1,16:0..29999"
            )
        dtype = match["dtype"]
        if dtype is not None and dtype not in DTYPES:
            raise ValueError(f"no dtype {dtype!r}; there are {', '.join(DTYPES)}")
        shape = tuple(map(int, match["sizes"].split(","))) if match["sizes"] else ()
        if any(size < 0 for size in shape):
            raise ValueError("a size is negative")
        if math.prod(shape) > MOST_ELEMENTS:
            raise ValueError(f"it has {math.prod(shape):,} elements, of at most {MOST_ELEMENTS:,}")
        kind = DTYPES[dtype] if dtype else None
        return cls(shape, kind, *_limits(match["low"], match["high"], kind), match["name"] or "")

    def draw(self, default: torch.dtype, generator: torch.Generator) -> torch.Tensor:
        """Return values: normal ones, or 0 and 1 for integers and booleans, where no range is set.

        Args:
            default: the dtype where none is set.
            generator: of random numbers.
        """
        dtype = self.dtype or default
        low, high = (0, 1) if self.low is None or self.high is None else (self.low, self.high)
        if not dtype.is_floating_point:
            values = torch.randint(int(low), int(high) + 1, self.shape, generator=generator)
        elif self.low is None:
            values = torch.randn(self.shape, generator=generator)
        else:
            values = low + (high - low) * torch.rand(self.shape, generator=generator)
        return values.to(dtype)


def example_call(
    model: torch.nn.Module,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments to capture a model on.

    Args:
        model: the torch model; floating inputs that name no dtype are drawn in its parameters'.
        inputs: in order: texts that `Spec.parse` reads; paths of files with values (``.npy`` holds
            one positional input; ``.npz`` and ``.safetensors`` hold inputs by name, save
            ``arr_0``, ``arr_1`` …, which numpy calls arrays without one); all else as it is.
        kwargs: further keyword arguments, as they are; a `FilledCache` is what the model fills.

    Raises:
        OptionsError: texts or files that cannot be read, names given twice or unknown to
            ``forward``; all of them are listed.
        CaptureError: the model fills no cache.
    """
    floating = (p.dtype for p in model.parameters() if p.dtype.is_floating_point)
    dtype = next(floating, torch.float32)
    call = _Call()
    generator = torch.Generator().manual_seed(0)
    for given in inputs:
        if isinstance(given, str):
            call.draw(given, dtype, generator)
        elif isinstance(given, Path):
            call.read(given)
        else:
            call.args.append(given)
    for name, value in (kwargs or {}).items():
        is_filled = isinstance(value, FilledCache)
        call.name("kwargs", name, value.of(model, generator) if is_filled else value)
    call.refuse_unknown(model)
    call.check()
    return tuple(call.args), call.kwargs


class _Call:
    """Arguments as they are collected, and what is wrong with them."""

    def __init__(self) -> None:
        self.args: list[Any] = []
        self.kwargs: dict[str, Any] = {}
        self.problems: list[str] = []

    def draw(self, text: str, dtype: torch.dtype, generator: torch.Generator) -> None:
        """Add what a text describes; without dtype of its own it has the given one."""
        try:
            spec = Spec.parse(text)
            values = spec.draw(dtype, generator)
        except (ValueError, RuntimeError) as error:  # torch's, where there is no memory for it
            self.problems.append(f"{text!r}: {error}".splitlines()[0])
            return
        self.name(repr(text), spec.name, values)

    def read(self, path: Path) -> None:
        """Add the tensors of a file."""
        try:
            tensors = _read(path)
        except Exception as error:  # whatever a damaged file makes its reader raise
            self.problems.append(f"{path}: {error}")
            return
        for name, tensor in tensors.items():
            self.name(str(path), "" if re.fullmatch(r"arr_\d+|", name) else name, tensor)

    def name(self, source: str, name: str, value: Any) -> None:
        """Add an argument; without a name it is positional."""
        if not name:
            self.args.append(value)
        elif name in self.kwargs:
            self.problems.append(f"{source}: {name} is given twice")
        else:
            self.kwargs[name] = value

    def refuse_unknown(self, model: torch.nn.Module) -> None:
        """Note the names that ``forward`` does not take."""
        parameters = parameters_of(model)
        if not parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        takes = [name for name, parameter in parameters.items() if parameter.kind in kinds]
        unknown = [name for name in self.kwargs if name not in takes]
        self.problems += [
            f"{name}: {type(model).__name__} takes {', '.join(takes)}" for name in unknown
        ]

    def check(self) -> None:
        """Raise what is wrong.

        Raises:
            OptionsError: anything.
        """
        if self.problems:
            given = f"{argument('inputs')}, {argument('kwargs')}"
            heading = f"the inputs ({given}) cannot be taken:"
            raise OptionsError.listing(heading, self.problems)


def _limits(
    low: str | None, high: str | None, dtype: torch.dtype | None
) -> tuple[float | None, float | None]:
    if low is None or high is None:
        return None, None
    if dtype is torch.bool:
        raise ValueError("bool takes no range")
    whole = dtype is not None and not dtype.is_floating_point
    if whole and not all(re.fullmatch(r"-?\d+", limit) for limit in (low, high)):
        raise ValueError(f"the range of {str(dtype).removeprefix('torch.')} has whole limits")
    limits = (int(low), int(high)) if whole else (float(low), float(high))
    if not all(map(math.isfinite, limits)):
        raise ValueError(f"the range {low}..{high} is not finite")
    if limits[0] > limits[1]:
        raise ValueError(f"the range {low}..{high} is empty")
    if dtype is not None:
        info: Any = torch.iinfo(dtype) if whole else torch.finfo(dtype)
        if limits[0] < info.min or limits[1] > info.max:
            raise ValueError(f"the range {low}..{high} is beyond {info.min}..{info.max}")
    return limits


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by name; the one of an ``.npy`` has none.

    Raises:
        Exception: it cannot be read.
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"expected one of {', '.join(SUFFIXES)}")
    loaded = np.load(path, allow_pickle=False)
    arrays = dict(loaded) if path.suffix == ".npz" else {"": loaded}
    return {name: torch.from_numpy(a.copy(order="C")) for name, a in arrays.items()}
