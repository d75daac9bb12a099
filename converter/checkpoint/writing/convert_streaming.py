"""Convert weights as they are written: one tensor at a time, in one file or in shards.

Needs no torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import Checkpoint, MappedFile
from mlxport.converter.checkpoint.formats.mapped import Reader, read_anew
from mlxport.converter.checkpoint.writing.blocks import CHECKED
from mlxport.converter.checkpoint.writing.digest import examine
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.errors import CheckpointError, OptionsError, StateDictError
from mlxport.converter.plan.record import Digests
from mlxport.converter.plan.tensor import MLX_DTYPE, Tensor, TensorSpec
from mlxport.converter.plan.weight_plan import WeightPlan
from mlxport.converter.progress import counted
from mlxport.converter.timings import stage

STEM = "weights"
SHARD = 2 * 10**9
# As the ecosystem counts: decimal, unless it says "i".
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass
class Streamed:
    """What was learnt of weights on the way.

    Attributes:
        not_finite: the targets that hold NaN or infinity.
        sources: source key -> digest of the tensor.
        targets: target -> digest, where values were computed and the sources' do not tell.
    """

    not_finite: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """What the user should look into, one sentence each."""
        found = ", ".join(self.not_finite)
        return [f"these weights hold NaN or infinity: {found}"] if found else []

    def digests(self, original_keys: Mapping[str, str], left_out: Mapping[str, str]) -> Digests:
        """Return the record of them.

        Args:
            original_keys: key -> the checkpoint's name for it, where it is another.
            left_out: the digests of further tensors, under the checkpoint's names.
        """
        sources = {original_keys.get(key, key): digest for key, digest in self.sources.items()}
        return Digests({**sources, **left_out}, self.targets)


@stage("weights")
def stream_weights(
    folder: Path,
    plan: WeightPlan,
    checkpoint: Checkpoint,
    constants: Mapping[str, Tensor] | None = None,
    *,
    max_shard_size: int | None = None,
    stem: str = STEM,
) -> Streamed:
    """Write what a plan makes of a checkpoint; no more than one entry is in memory at a time.

    Args:
        folder: gets ``weights.safetensors``, or ``weights-00001-of-0000N.safetensors``, and
            ``weights.safetensors.index.json``: which tensor is where, the bytes and values of all.
        plan: its sources are keys of the checkpoint.
        checkpoint: the weights.
        constants: further tensors, by target name.
        max_shard_size: of the data in a file, in bytes; a file holds more only where a
            single tensor does. 2 GB if not given.
        stem: of the files' names, in place of ``weights``.

    Raises:
        StateDictError: MLX has no such dtype as some targets would have; all are listed.
        CheckpointError: a file cannot be written.
    """
    plan.check_keys(checkpoint.tensors)
    specs = plan.target_specs(checkpoint.specs)
    specs |= {name: TensorSpec.of(tensor) for name, tensor in (constants or {}).items()}
    _check_dtypes(specs)
    shards = split(specs, SHARD if max_shard_size is None else max_shard_size)
    streamed = Streamed()
    with Reader(checkpoint.mapped) as read:
        converted = _converted(plan, checkpoint, read, constants or {}, streamed)
        sized = counted(converted, {name: spec.nbytes for name, spec in specs.items()})
        try:
            _write(folder, stem, shards, sized, checkpoint.check_whole)
        except CheckpointError:  # what is cut short cannot be written, either
            checkpoint.check_whole()
            raise
    return streamed


def _write(
    folder: Path,
    stem: str,
    shards: list[dict[str, TensorSpec]],
    converted: Iterator[tuple[str, Tensor]],
    check: Callable[[], None],
) -> None:
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        name = f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
        name = name if len(shards) > 1 else f"{stem}.safetensors"
        part = islice(converted, len(shard))
        write_safetensors(folder / name, part, specs=shard, check=check)
        weight_map.update(dict.fromkeys(shard, name))
    next(converted, None)  # the last one is done with, too
    specs = [spec for shard in shards for spec in shard.values()]
    totals = {
        "total_size": sum(spec.nbytes for spec in specs),
        "total_parameters": sum(math.prod(spec.shape) for spec in specs),
    }
    index = {"metadata": totals, "weight_map": weight_map}
    path = folder / f"{stem}.safetensors.index.json"
    path.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _converted(
    plan: WeightPlan,
    checkpoint: Checkpoint,
    read: Reader,
    constants: Mapping[str, Tensor],
    streamed: Streamed,
) -> Iterator[tuple[str, Tensor]]:
    """Yield the targets; what was read for one is given back when the next is asked for."""
    bad: set[str] = set()
    unchecked = CHECKED

    def opened(key: str) -> Tensor:
        nonlocal unchecked
        tensor = read(checkpoint.tensors[key])
        unchecked += tensor.bits.nbytes
        if unchecked >= CHECKED:
            checkpoint.check_whole()
            unchecked = 0
        if key not in streamed.sources and key not in plan.computed:
            streamed.sources[key], finite = examine(tensor, checkpoint.check_whole)
            bad.update([] if finite else [key])
        return tensor

    for entry in plan.entries:
        sources = tuple(map(opened, entry.sources))
        for position, (name, tensor) in enumerate(
            zip(entry.targets, entry.apply(sources), strict=True)
        ):
            if plan.moves(entry):  # the values are those of one source
                finite = entry.sources[position] not in bad
            else:
                streamed.targets[name], finite = examine(tensor)
            streamed.not_finite += [] if finite else [name]
            yield name, tensor
        read.release(sources)
    checkpoint.check_whole()
    for name, tensor in constants.items():
        streamed.targets[name] = examine(tensor)[0]
        yield name, tensor


@stage("weights")
def stream_left_out(
    path: Path, tensors: Mapping[str, Tensor], mapped: tuple[MappedFile, ...] = ()
) -> dict[str, str]:
    """Write tensors as they are, in PyTorch's layout, and return their digests.

    Raises:
        CheckpointError: the file cannot be written.
    """
    digests: dict[str, str] = {}

    def examined() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in read_anew(tensors.items(), mapped):
            digests[name] = examine(tensor)[0]
            yield name, tensor

    specs = {name: TensorSpec.of(tensor) for name, tensor in tensors.items()}
    write_safetensors(path, examined(), {"format": "pt"}, specs=specs)
    return digests


def parse_size(size: int | str | None) -> int | None:
    """Return a size in bytes: ``"5GB"``, ``"512 MiB"`` or a number.

    Raises:
        OptionsError: it is none, not positive, or more than a file may have.
    """
    if size is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?B|)", str(size).strip().upper())
    value = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 1 <= value < 2**63:
        raise OptionsError(
            f"{argument('max_shard_size', size)}: expected a size such as 5GB or 512MiB"
        )
    return int(value)


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
            f"{argument('dtype', 'float32')} casts all floating-point weights.",
        )
