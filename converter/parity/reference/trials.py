"""Further calls of a torch model besides the example: other kinds of inputs, other batch sizes.

Their inputs are derived from the example's, so that indices stay ones the model knows and masks
stay masks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_map

from mlxport.converter.errors import OptionsError
from mlxport.converter.parity.reference.copies import perturbed
from mlxport.converter.parity.reference.moved import PERTURBED_RUNS, distance
from mlxport.converter.parity.reference.record_reference import record_native, record_reference
from mlxport.converter.parity.reference.recorded_values import RecordedCall, RecordedTensor, tensors
from mlxport.converter.parity.verdict.precision import PRECISIONS
from mlxport.converter.parity.verdict.reference_data import Reference, ReferenceValue
from mlxport.converter.ranges import integers
from mlxport.converter.torch_model.calls import CallArguments

_logger = logging.getLogger(__name__)

# powers of two, so that they are the same number in every dtype
_SEED = 20210  # another than people take for the example
_LARGE, _EVERY = 1024.0, 16
_LARGEST_BATCH = 2**16
_MOST_CALLS = 64


@dataclass(frozen=True)
class Trial:
    """One call besides the example.

    Attributes:
        case: what it is, in words (``"impulse inputs"``).
        given: positional and keyword arguments.
        batch_size: of the call, where that is another than the example's.
        before: the calls that come before this one, where it is one of a sequence.
    """

    case: str
    given: CallArguments
    batch_size: int | None = None
    before: tuple[CallArguments, ...] = ()


@dataclass(frozen=True)
class Trials:
    """Which calls besides the example are to be judged.

    Attributes:
        kinds: of inputs, from `KINDS`.
        batch_sizes: sizes of the first axis; None where nothing was said.
        calls: how many calls to make one after the other; None where nothing was said.
    """

    kinds: tuple[str, ...] = ()
    batch_sizes: tuple[int, ...] | None = None
    calls: int | None = None

    @classmethod
    def of(
        cls, kinds: Sequence[str], batch_sizes: Sequence[int] | None, calls: int | None = None
    ) -> Trials:
        """Return what a user asks for.

        Raises:
            OptionsError: an unknown kind, or a size that is none.
        """
        kinds = [kinds] if isinstance(kinds, str) else list(kinds)
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            raise OptionsError(
                f"unknown kinds of inputs: {', '.join(unknown)}; there are {', '.join(KINDS)}"
            )
        sizes = None
        if batch_sizes is not None:
            sizes = tuple(dict.fromkeys(integers("batch_sizes", batch_sizes, 1, _LARGEST_BATCH)))
        if calls is not None:
            (calls,) = integers("calls", [calls], 1, _MOST_CALLS)
        return cls(tuple(dict.fromkeys(kinds)), sizes, calls)

    def of_sequence(self, given: CallArguments, count: int) -> Iterator[Trial]:
        """Yield the calls of a sequence behind its first, which is the example.

        Their inputs are the example's, rolled along the last axis.

        Args:
            given: the example.
            count: of all calls.
        """
        calls = [tree_map(partial(_rolled, places=n), given) for n in range(count)]
        for number in range(1, count):
            yield Trial(f"call {number + 1}", calls[number], before=tuple(calls[:number]))

    def of_kinds(self, given: CallArguments) -> Iterator[Trial]:
        """Yield a call for each kind of inputs; a kind that would be the example again is left out.

        Args:
            given: the example.
        """
        floating = any(tensor.is_floating_point() for tensor in tensors(given))
        for number, kind in enumerate(self.kinds):
            if floating or kind in _OF_INDICES:
                generator = torch.Generator().manual_seed(_SEED + number)
                inputs = tree_map(lambda leaf, k=kind, g=generator: _input(leaf, k, g), given)
                yield Trial(f"{kind} inputs", inputs)


def _rolled(leaf: Any, places: int) -> Any:
    return leaf.roll(places, -1) if isinstance(leaf, torch.Tensor) and leaf.ndim else leaf


def batched(given: CallArguments, size: int, moves: Sequence[bool]) -> CallArguments:
    """Return a call with another batch size, its items those of the example in turn.

    Items beyond the example's are these again, rolled along their last axis.

    Args:
        given: the example.
        size: of the first axis.
        moves: of each tensor, whether its first axis is the batch.
    """
    flags = iter(moves)

    def of_size(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not next(flags):
            return leaf
        count = len(leaf)
        items = [leaf[n % count] for n in range(size)]
        rolled = [x.roll(n // count, -1) if x.ndim else x for n, x in enumerate(items)]
        return torch.stack(rolled)

    found: CallArguments = tree_map(of_size, given)
    return found


def narrowed(given: CallArguments, shapes: Sequence[Sequence[int]]) -> CallArguments:
    """Return a call with the first elements of each tensor along each axis.

    Args:
        given: the example.
        shapes: of each tensor, no size larger than the example's.
    """
    waiting = iter(shapes)

    def of_shape(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return leaf[tuple(map(slice, next(waiting)))].clone()

    found: CallArguments = tree_map(of_shape, given)
    return found


def _input(leaf: Any, kind: str, generator: torch.Generator) -> Any:
    if not isinstance(leaf, torch.Tensor) or not leaf.numel():
        return leaf
    if leaf.is_floating_point():
        return KINDS[kind](leaf, generator).to(leaf.dtype).to(leaf.device)
    if leaf.dtype == torch.bool or leaf.is_complex() or kind not in _OF_INDICES:
        return leaf
    return _OF_INDICES[kind](leaf, generator)


def _normal(leaf: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(leaf.shape, generator=generator)


def _constant(leaf: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.full(leaf.shape, 0.75)


def _impulse(leaf: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Zero but for a single one in every batch item, anywhere."""
    values = torch.zeros(leaf.shape)
    rows = values.view(len(values), -1) if values.ndim > 1 else values.view(1, -1)
    places = torch.randint(rows.shape[1], (len(rows), 1), generator=generator)
    rows.scatter_(1, places, 1.0)
    return values


def _large(leaf: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Normal, with one element of sixteen 1024 times as large, in float16 32 times."""
    values = torch.randn(leaf.shape, generator=generator)
    chosen = torch.rand(leaf.shape, generator=generator) * _EVERY < 1
    largest = 32.0 if leaf.dtype == torch.float16 else _LARGE
    return torch.where(chosen, values * largest, values)


def _redrawn(leaf: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    flat = leaf.reshape(-1)
    places = torch.randint(len(flat), (len(flat),), generator=generator)
    return flat[places.to(leaf.device)].reshape(leaf.shape)


def _of_one_value(leaf: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.full_like(leaf, int(leaf.max()))


MakeInput = Callable[[torch.Tensor, torch.Generator], torch.Tensor]

# kind -> floating values of a tensor's shape
KINDS: dict[str, MakeInput] = {
    "normal": _normal,
    "constant": _constant,
    "impulse": _impulse,
    "large": _large,
}
# kind -> integers, of those the example has; other kinds leave integers as they are
_OF_INDICES: dict[str, MakeInput] = {"normal": _redrawn, "constant": _of_one_value}


def recorded_trials(
    module: torch.nn.Module,
    trials: Iterable[Trial],
    paths: Sequence[str],
    notes: list[str],
    state: Sequence[str] = (),
) -> Iterator[Reference]:
    """Yield the reference of each trial, without layer inputs.

    Args:
        module: the torch model.
        trials: the calls.
        paths: of the submodules to record.
        notes: where PyTorch itself fails, a sentence is added.
        state: qualified names of the tensors that a call leaves for later ones.
    """
    for trial in trials:
        args, kwargs = trial.given
        try:
            reference = record_reference(
                module,
                args,
                kwargs,
                paths=paths,
                moving=False,
                state=state,
                before=trial.before,
            )
        except Exception as error:  # the model's code, whatever it raises
            first = (str(error).splitlines() or [""])[0]
            notes.append(f"{trial.case} not judged: PyTorch fails: {type(error).__name__}: {first}")
            _logger.debug("%s: PyTorch fails", trial.case, exc_info=True)
            continue
        yield replace(_with_perturbed_runs(module, trial, reference), case=trial.case)


def _with_perturbed_runs(module: torch.nn.Module, trial: Trial, reference: Reference) -> Reference:
    """Return the reference with the native values of the farthest of some perturbed runs.

    Where an input is constant or zero nearly everywhere, norms take the difference of equal
    numbers, and how exactly that is 0 is luck: one run is no measure of the noise there.
    """
    outputs, calls = list(reference.outputs), list(reference.calls)
    state = list(reference.state.values())
    for number in range(PERTURBED_RUNS):
        inner: dict[tuple[str, int], list[RecordedTensor]] = {}

        def keep(call: RecordedCall, inner: dict[Any, Any] = inner) -> None:
            inner[call.path, call.number] = call.outputs

        with perturbed(module, trial.given, number) as (args, kwargs):
            run = record_native(module, args, kwargs, reference, keep, trial.before)
        outputs, state = _farther(outputs, run.outputs), _farther(state, run.state)
        calls = [
            replace(c, outputs=tuple(_farther(c.outputs, inner.get((c.path, c.number), []))))
            for c in calls
        ]
    return replace(
        reference,
        outputs=tuple(outputs),
        calls=tuple(calls),
        state=dict(zip(reference.state, state, strict=True)),
    )


def _farther(
    values: Sequence[ReferenceValue], others: Sequence[RecordedTensor]
) -> list[ReferenceValue]:
    """Return the values with the native ones of another run, where these are farther off."""
    if [value.shape for value in values] != [other.shape for other in others]:
        return list(values)
    found = []
    for value, other in zip(values, others, strict=True):
        if value.dtype in PRECISIONS:
            before, now = (distance(values, value) for values in (value.native, other.values))
            value = replace(value, native=other.values) if now > before else value
        found.append(value)
    return found
