"""Quantised weights: their settings, the step that quantises them, and what that costs.

The arithmetic is ``mx.quantize``'s, which ``mlx.nn.quantize`` calls for each layer. Needs no torch;
mlx only to compute.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from mlxport.converter.arguments import argument
from mlxport.converter.errors import OptionsError, PlanError
from mlxport.converter.plan.step import BaseStep
from mlxport.converter.plan.tensor import (
    MLX_DTYPE,
    DtypeName,
    Tensor,
    TensorSpec,
    from_mlx,
    to_mlx,
)
from mlxport.converter.ranges import is_whole

# mode -> group size and bits where they are not said, as in mlx.nn
_DEFAULTS = {"affine": (64, 4), "mxfp4": (32, 4), "mxfp8": (32, 8), "nvfp4": (16, 4)}
_MOST_BITS, _LARGEST_GROUP = 16, 1024  # beyond what MLX has, which it says itself
_PACKED = "U32"  # the words in which quantised values lie


@dataclass(frozen=True)
class Settings:
    """How weights are quantised, as ``mlx.nn.quantize`` takes it.

    Attributes:
        bits: of a value.
        group_size: values of a row that share a scale.
        mode: ``"affine"``, ``"mxfp4"``, ``"mxfp8"`` or ``"nvfp4"``.
    """

    bits: int
    group_size: int
    mode: str = "affine"

    def __str__(self) -> str:
        return f"{self.bits} bits in groups of {self.group_size} ({self.mode})"

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in the ``config.json`` of mlx-lm's models."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}


def parse_settings(given: str | Mapping[str, Any]) -> Settings:
    """Return the settings of ``bits=4,group_size=64,mode=affine``; what is not said is MLX's.

    Raises:
        OptionsError: it does not read so, or MLX has no such quantisation.
    """
    pairs = given
    if isinstance(given, str):
        parts = [part.partition("=") for part in given.split(",")]
        pairs = {name.strip(): value.strip() for name, _, value in parts}
    said = argument("quantize", given)
    expected = "expected bits=4,group_size=64 or mode=mxfp4, say"
    mode = pairs.get("mode", "affine") if isinstance(pairs, Mapping) else None
    if not isinstance(pairs, Mapping) or set(pairs) - {"bits", "group_size", "mode"}:
        raise OptionsError(f"{said}: {expected}")
    if mode not in _DEFAULTS:
        raise OptionsError(f"{said}: MLX's modes are {', '.join(_DEFAULTS)}")
    group_size, bits = _DEFAULTS[mode]
    try:
        bits = _whole(pairs.get("bits", bits))
        group_size = _whole(pairs.get("group_size", group_size))
    except (TypeError, ValueError) as error:
        raise OptionsError(f"{said}: {expected}") from error
    settings = Settings(bits, group_size, mode)
    _check(settings, said)
    return settings


def _whole(value: Any) -> int:
    if isinstance(value, str):
        return int(value)
    if not is_whole(value):
        raise TypeError(f"{value!r} is no whole number")
    return int(value)


def _check(settings: Settings, said: str) -> None:
    """Let MLX say whether it quantises so."""
    import mlx.core as mx

    if not (1 <= settings.bits <= _MOST_BITS and 1 <= settings.group_size <= _LARGEST_GROUP):
        raise OptionsError(
            f"{said}: expected bits from 1 to {_MOST_BITS}, group_size from 1 to {_LARGEST_GROUP}"
        )
    try:
        mx.eval(mx.quantize(mx.zeros((32, settings.group_size)), **settings.to_json()))
    except ValueError as error:
        raise OptionsError(f"{said}: {error}") from error


class Quantize(BaseStep, frozen=True):
    """Weights at some places to their quantised values, scales and (``affine``) biases.

    ``(…, n)`` becomes ``(…, n·bits/32)`` words and ``(…, n/group_size)`` scales. Backwards the
    values are those that the quantised ones stand for.

    Attributes:
        bits: of a value.
        group_size: values of a row that share a scale.
        mode: of ``mx.quantize``.
        at: which of the tensors are quantised, ascending; the others stay.
        dtypes: of those, before.
    """

    bits: Annotated[int, msgspec.Meta(ge=1, le=32)]
    group_size: Annotated[int, msgspec.Meta(ge=1)]
    mode: str
    at: tuple[int, ...]
    dtypes: tuple[DtypeName, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """The parameters a quantised weight becomes, as ``mlx.nn``'s layers name them."""
        return ("weight", "scales", *(("biases",) if self.mode == "affine" else ()))

    def apply(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Map PyTorch's tensors towards MLX's."""
        found: list[Tensor] = []
        for position, tensor in enumerate(tensors):
            found += self._quantized(tensor) if position in self.at else [tensor]
        return tuple(found)

    def invert(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Map MLX's tensors back towards PyTorch's."""
        waiting, found = list(tensors), list[Tensor]()
        dtypes = dict(zip(self.at, self.dtypes, strict=True))
        while waiting:
            dtype = dtypes.get(len(found))
            taken = waiting[: len(self.parts)] if dtype else waiting[:1]
            del waiting[: len(taken)]
            found.append(self._dequantized(taken, dtype) if dtype else taken[0])
        return tuple(found)

    def _quantized(self, tensor: Tensor) -> list[Tensor]:
        if _is_outline(tensor):
            return self._outlines(tensor)
        import mlx.core as mx

        return [from_mlx(part) for part in mx.quantize(to_mlx(tensor), **self._settings())]

    def _outlines(self, tensor: Tensor) -> list[Tensor]:
        *rows, size = tensor.shape
        scale = tensor.dtype if self.mode == "affine" else "U8"
        words, groups = size * self.bits // 32, size // self.group_size
        specs = [TensorSpec(_PACKED, (*rows, words))]
        specs += [TensorSpec(scale, (*rows, groups))] * (len(self.parts) - 1)
        return [spec.outline() for spec in specs]

    def _dequantized(self, parts: list[Tensor], dtype: str) -> Tensor:
        if len(parts) != len(self.parts):
            raise PlanError(f"plan step {self.kind!r} misses parts; the plan is damaged")
        if all(map(_is_outline, parts)):
            *rows, words = parts[0].shape
            return TensorSpec(dtype, (*rows, words * 32 // self.bits)).outline()
        import mlx.core as mx

        weight, scales, *biases = (to_mlx(part) for part in parts)
        return from_mlx(
            mx.dequantize(
                weight,
                scales,
                biases[0] if biases else None,
                **self._settings(),
                dtype=getattr(mx, MLX_DTYPE[dtype]),
            )
        )

    def _settings(self) -> dict[str, Any]:
        return Settings(self.bits, self.group_size, self.mode).to_json()


def _is_outline(tensor: Tensor) -> bool:
    return tensor.bits.size > 1 and not any(tensor.bits.strides)


@dataclass(frozen=True)
class Cost:
    """How far an output moves when weights are quantised, by PyTorch in float64.

    Attributes:
        name: of the module, or of the model's output.
        error: relative L2 distance.
        snr_db: the same as a signal-to-noise ratio; None where nothing moves.
        cosine: of the angle between both; None where one is zero.
    """

    name: str
    error: float
    snr_db: float | None
    cosine: float | None


@dataclass(frozen=True)
class Quantized:
    """What was quantised, and what it cost.

    Attributes:
        settings: how.
        layers: paths of the layers in the MLX model.
        left: layers that could have been -> why they were not.
        nbytes: of all weights before and after.
        before: the verdict on the model as it was, not quantised.
        costs: of the model's outputs; empty where they were not measured.
        layer_costs: of the modules' outputs.
    """

    settings: Settings
    layers: tuple[str, ...]
    left: Mapping[str, str] = field(default_factory=dict)
    nbytes: tuple[int, int] = (0, 0)
    before: str = ""
    costs: tuple[Cost, ...] = ()
    layer_costs: tuple[Cost, ...] = ()

    def summary(self) -> str:
        """Say how the weights are quantised and how far that moves the model, for a verdict."""
        worst = max(self.costs, key=lambda cost: cost.error, default=None)
        if worst is None:
            return str(self.settings)
        ratio = "" if worst.snr_db is None else f", {worst.snr_db:.1f} dB"
        moved = f"which moves {worst.name} by {worst.error:.1e}{ratio} (measured, not judged)"
        return f"{self.settings}, {moved}"

    def sentences(self) -> Iterator[str]:
        """Say what was quantised and what it cost, for a report."""
        before, after = (f"{size / 2**20:.4g} MiB" for size in self.nbytes)
        yield f"{_layers(self.layers)} quantized to {self.settings}, {before} to {after}"
        yield (
            "judged is whether MLX computes what PyTorch does with the dequantized weights; what "
            "quantization costs is measured, not judged"
        )
        for cost in self.costs:
            ratio = "" if cost.snr_db is None else f", {cost.snr_db:.1f} dB"
            yield f"quantized, {cost.name} is off by {cost.error:.1e}{ratio}"
        worst = max(self.layer_costs, key=lambda cost: cost.error, default=None)
        if worst is not None:
            yield f"most in {worst.name}: {worst.error:.1e}"
        if self.left:
            yield f"{_layers(self.left)} left: {_grouped(self.left)}"
        if self.before:
            yield f"before: {self.before}"


def _layers(paths: Collection[str]) -> str:
    return f"{len(paths)} layer{'' if len(paths) == 1 else 's'}"


def _grouped(left: Mapping[str, str]) -> str:
    places: dict[str, list[str]] = {}
    for path, why in left.items():
        places.setdefault(why, []).append(path)
    return "; ".join(f"{', '.join(paths)} ({why})" for why, paths in places.items())


def config_text(settings: Settings, config: Mapping[str, Any] | None = None) -> str:
    """Return the ``config.json`` of a quantised model, as mlx-lm writes it.

    Args:
        settings: how it is quantised.
        config: what else stands in it.
    """
    stated = settings.to_json()
    whole = {**(config or {}), "quantization": stated, "quantization_config": stated}
    return json.dumps(whole, indent=2) + "\n"
