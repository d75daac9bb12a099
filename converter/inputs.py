"""Example inputs from what a user writes: ``1,1,32,48,40`` or ``int64:1,16``."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mlxport.converter.errors import OptionsError

DTYPES = {
    name: getattr(torch, name)
    for name in ("float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool")
}


def example_inputs(
    specs: Sequence[str], *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, ...]:
    """Return seeded example inputs: normal values, or 0 and 1 for integers and booleans.

    Args:
        specs: shapes, each with a dtype before it where it is not the model's own.
        seed: of the generator.
        dtype: of inputs that name none.

    Raises:
        OptionsError: a spec cannot be read; all of them are listed.
    """
    parsed, problems = [], []
    for spec in specs:
        try:
            parsed.append(_parse(spec, dtype))
        except ValueError:
            problems.append(
                f"{spec!r}: expected sizes like 1,1,32,48,40, or a dtype before them "
                f"({', '.join(DTYPES)}): int64:1,16"
            )
    if problems:
        raise OptionsError.listing("--input cannot be read:", problems)
    generator = torch.Generator().manual_seed(seed)
    return tuple(_sample(shape, kind, generator) for shape, kind in parsed)


def _parse(spec: str, default: torch.dtype) -> tuple[tuple[int, ...], torch.dtype]:
    name, _, sizes = spec.rpartition(":")
    if name and name not in DTYPES:
        raise ValueError(name)
    shape = tuple(int(size) for size in sizes.split(",")) if sizes else ()
    if any(size < 0 for size in shape):
        raise ValueError(sizes)
    return shape, DTYPES[name] if name else default


def _sample(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)
