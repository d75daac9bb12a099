"""Check the weights of an output folder against the digests in its record.

Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlxport.converter.checkpoint.checkpoint import Checkpoint, printable
from mlxport.converter.checkpoint.formats.mapped import Reader, read_anew
from mlxport.converter.checkpoint.formats.safetensors import open_safetensors
from mlxport.converter.checkpoint.writing.digest import ALGORITHM, digest_of
from mlxport.converter.errors import ConversionError
from mlxport.converter.output.contents import LEFT_OUT, open_weights, read_conversion
from mlxport.converter.plan.record import Conversion
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.plan.weight_plan import Entry


@dataclass(frozen=True)
class WeightsReport:
    """What the digests say of the weights in a folder.

    Attributes:
        checked: how many tensors have the values they were converted with.
        problems: what does not, one line a tensor: it differs, is missing, misshapen or was not
            there before.
        source: where the weights came from, as recorded.
    """

    checked: int
    problems: tuple[str, ...]
    source: Mapping[str, str]

    def __repr__(self) -> str:
        return f"<WeightsReport: {self.verdict.splitlines()[0]}>"

    @property
    def passed(self) -> bool:
        """Whether every tensor is the one that was written."""
        return not self.problems

    @property
    def verdict(self) -> str:
        """One sentence, and what is wrong line by line."""
        origin = f"{self.source.get('path', '?')} (SHA-256 {self.source.get('sha256', '?')})"
        if self.passed:
            return f"all {self.checked} tensors are those converted from {origin}"
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        return f"{len(self.problems)} tensors are not those converted from {origin}:\n{lines}"

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON data."""
        return {"passed": self.passed, **asdict(self)}


def verify_weights(folder: str | Path) -> WeightsReport:
    """Check weights against digests; see ``mlxport.verify_weights``."""
    path = Path(folder)
    conversion = read_conversion(path)
    digests = conversion.digests
    if not (digests.sources or digests.targets):
        raise ConversionError(
            f"{path}: its record holds no digests: it was written by an older mlxport, or without "
            "weights. Convert again to have them."
        )
    if digests.algorithm != ALGORITHM:
        raise ConversionError(
            f"{path}: its digests are of kind {digests.algorithm!r}, known is {ALGORITHM}. "
            "The record may come from a newer mlxport."
        )
    weights = open_weights(path)
    with Reader(weights.mapped) as read:
        results = list(_results(conversion, weights, read))
    if (path / LEFT_OUT).exists():
        results += _kept(open_safetensors(path / LEFT_OUT), digests.sources)
    problems = tuple(problem for problem in results if problem)
    return WeightsReport(len(results) - len(problems), problems, conversion.source)


def _results(conversion: Conversion, weights: Checkpoint, read: Reader) -> Iterator[str]:
    """Yield for every tensor what is wrong with it, empty where nothing is."""
    digests = conversion.digests
    waiting = dict.fromkeys(weights.tensors)
    for entry in conversion.plan.entries:
        for name in entry.targets:
            waiting.pop(name, None)
        if missing := [name for name in entry.targets if name not in weights.tensors]:
            yield from (f"missing     {printable(name)}" for name in missing)
            continue
        tensors = tuple(read(weights.tensors[name]) for name in entry.targets)
        if conversion.plan.moves(entry):
            yield from _moved(entry, tensors, conversion)
        else:
            for name, tensor in zip(entry.targets, tensors, strict=True):
                yield _judged(name, tensor, digests.targets.get(name))
        read.release(tensors)
    for name in conversion.plan.constants:
        known = waiting.pop(name, name) is None
        yield (
            _judged(name, read(weights.tensors[name]), digests.targets.get(name))
            if known
            else f"missing     {printable(name)}"
        )
    yield from (f"unexpected  {printable(name)}" for name in waiting)


def _moved(entry: Entry, tensors: tuple[Tensor, ...], conversion: Conversion) -> Iterator[str]:
    """Judge tensors whose values are PyTorch's in another order, by the digests of those."""
    names = ", ".join(entry.targets)
    try:
        found = entry.invert(tensors)
    except ConversionError as error:
        yield f"misshapen   {names}: {error}"
        return
    for key, tensor in zip(entry.sources, found, strict=True):
        spec = conversion.plan.specs.get(key)
        if spec is not None and (tensor.dtype, tensor.shape) != (spec.dtype, spec.shape):
            yield f"misshapen   {names}: gives {tensor.dtype} {tensor.shape} for {key}, not {spec}"
        else:
            yield _judged(names, tensor, conversion.digests.sources.get(key))


def _kept(left_out: Checkpoint, digests: Mapping[str, str]) -> Iterator[str]:
    for key, tensor in read_anew(left_out.tensors.items(), left_out.mapped):
        yield _judged(f"{key} (in {LEFT_OUT})", tensor, digests.get(key))


def _judged(name: str, tensor: Tensor, expected: str | None) -> str:
    if expected is None:
        return f"unknown     {printable(name)}: no digest of it was recorded"
    return "" if digest_of(tensor) == expected else f"differs     {printable(name)}"
