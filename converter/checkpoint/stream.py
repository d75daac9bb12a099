"""Convert weights as they are written: one tensor at a time, in one file or in shards.

Needs no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.finite import is_finite
from mlxport.converter.checkpoint.write import write_safetensors
from mlxport.converter.errors import OptionsError, StateDictError
from mlxport.converter.plan import WeightPlan
from mlxport.converter.tensor import MLX_DTYPE, Tensor, TensorSpec
from mlxport.converter.timings import stage

STEM = "weights"
# As the ecosystem counts: decimal, unless it says "i".
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@stage("weights")
def stream_weights(
    folder: Path,
    plan: WeightPlan,
    checkpoint: Checkpoint,
    constants: Mapping[str, Tensor] | None = None,
    *,
    max_shard_size: int | str | None = None,
) -> list[str]:
    """Write what a plan makes of a checkpoint; no more than one entry is in memory at a time.

    Args:
        folder: gets ``weights.safetensors``, or ``weights-00001-of-0000N.safetensors`` and their
            ``weights.safetensors.index.json``.
        plan: its sources are keys of the checkpoint.
        checkpoint: the weights.
        constants: further tensors, by target name.
        max_shard_size: of the data in a file, in bytes or as ``"5GB"``; a file holds more only
            where a single tensor does.

    Returns:
        The targets that hold NaN or infinity.

    Raises:
        StateDictError: MLX has no such dtype as some targets would have; all are listed.
        CheckpointError: a file cannot be written.
    """
    given = {name: TensorSpec.of(tensor) for name, tensor in checkpoint.tensors.items()}
    specs = plan.target_specs(given)
    specs |= {name: TensorSpec.of(tensor) for name, tensor in (constants or {}).items()}
    _check_dtypes(specs)
    not_finite: list[str] = []

    def pairs() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in plan.apply(checkpoint.tensors):
            if not is_finite(tensor):
                not_finite.append(name)
            yield name, tensor
        yield from (constants or {}).items()

    shards = split(specs, parse_size(max_shard_size))
    if len(shards) == 1:
        write_safetensors(folder / f"{STEM}.safetensors", pairs(), specs=specs)
        return not_finite
    rest = pairs()
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        name = f"{STEM}-{number:05}-of-{len(shards):05}.safetensors"
        write_safetensors(folder / name, islice(rest, len(shard)), specs=shard)
        weight_map.update(dict.fromkeys(shard, name))
    index = {
        "metadata": {"total_size": sum(spec.nbytes for spec in specs.values())},
        "weight_map": weight_map,
    }
    path = folder / f"{STEM}.safetensors.index.json"
    path.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return not_finite


def parse_size(size: int | str | None) -> int | None:
    """Return a size in bytes: ``"5GB"``, ``"512 MiB"`` or a number.

    Raises:
        OptionsError: it is none, or not positive.
    """
    if size is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?B|)", str(size).strip().upper())
    value = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if value < 1:
        raise OptionsError(f"--max-shard-size {size}: expected a size such as 5GB or 512MiB")
    return value


def split(specs: Mapping[str, TensorSpec], size: int | None) -> list[dict[str, TensorSpec]]:
    """Return the tensors in their order, in runs of at most ``size`` bytes or of one tensor."""
    shards: list[dict[str, TensorSpec]] = [{}]
    filled = 0
    for name, spec in specs.items():
        if size is not None and shards[-1] and filled + spec.nbytes > size:
            shards.append({})
            filled = 0
        shards[-1][name] = spec
        filled += spec.nbytes
    return shards


def _check_dtypes(specs: Mapping[str, TensorSpec]) -> None:
    if problems := [f"{n}: {s.dtype}" for n, s in specs.items() if s.dtype not in MLX_DTYPE]:
        raise StateDictError.listing(
            "MLX has no such dtype:",
            problems,
            "--dtype float32 (dtype='float32') casts all floating-point weights.",
        )
