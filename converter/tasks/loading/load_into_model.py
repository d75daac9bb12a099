"""Load a checkpoint's weights into a torch model, as its own ``load_state_dict`` does.

Without losing a bit unasked.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import Checkpoint, printable
from mlxport.converter.checkpoint.keys.kinds import recognised
from mlxport.converter.checkpoint.keys.match import is_counter, match_keys
from mlxport.converter.checkpoint.keys.metadata import (
    digest_of_value,
    metadata_text,
    module_paths,
    translated,
)
from mlxport.converter.checkpoint.writing.finite import non_finite
from mlxport.converter.errors import StateDictError
from mlxport.converter.plan.loading import Loading, is_extra_state
from mlxport.converter.plan.tensor import Tensor, same_bits
from mlxport.converter.plan.torch_tensor import TORCH_DTYPE, tensor_from_torch, tensor_view
from mlxport.converter.tasks.loading.attempts import Offered, attempts_of, holds_unknown
from mlxport.converter.tasks.loading.dtypes import RUNNING, check_ties, dtypes_of, take_on
from mlxport.converter.tasks.loading.load_state_dict import Attempt, LoadingError, load_state_dict
from mlxport.converter.timings import stage
from mlxport.converter.torch_model.loading_code import (
    listed_code,
    loading_code,
    state_of,
)
from mlxport.converter.torch_model.model_state import ModelState

_logger = logging.getLogger(__name__)


class NonFiniteWarning(UserWarning):
    """Weights hold NaN or infinity."""


@dataclass(frozen=True)
class LoadedState:
    """What a model made of a checkpoint.

    Attributes:
        keys: path of a tensor of the model -> the checkpoint's key of its value. What the model's
            code computed has the key it stands in for, or one that the checkpoint does not have.
        ignored: checkpoint key -> why no tensor of the model has its value.
        loading: what the model's own code did; None where it has none.
    """

    keys: Mapping[str, str]
    ignored: Mapping[str, str] = field(default_factory=dict)
    loading: Loading | None = None


@stage("read")
def load_into_model(
    model: torch.nn.Module,
    checkpoint: Checkpoint,
    *,
    prefix: str | None = None,
    allow_lossy_cast: bool = False,
    original_keys: Mapping[str, str] | None = None,
) -> LoadedState:
    """Load the weights by the model's ``load_state_dict(strict=True)``, all or nothing.

    Keys are matched first. Where all floating-point tensors of the checkpoint share one dtype, the
    model's parameters and buffers take it on: nothing is rounded. Where they do not, the model
    keeps its dtypes and the values are cast; a cast that could round is refused. Parameters keep
    their identity, and so their ties, unless the model's own code assigns others. The checkpoint
    is copied, not shared.

    Where the model has code of its own that takes part (hooks, ``_load_from_state_dict``,
    ``set_extra_state``), its word counts: it is given the checkpoint's keys as they are before
    matched ones are tried. It may leave the model half loaded where it fails: who needs the model
    then keeps its state.

    Args:
        model: changed in place.
        checkpoint: the weights.
        prefix: take the checkpoint's keys under this prefix alone.
        allow_lossy_cast: round where the model's dtype cannot hold the checkpoint's values.
        original_keys: key of the checkpoint -> that in its file, where keys were renamed.

    Raises:
        StateDictError: keys or shapes do not fit, dtypes are of another kind, a cast would round,
            the model's code refuses, or the model has tensors without values; all problems of a
            kind are listed.

    Warns:
        NonFiniteWarning: weights hold NaN or infinity; all of them are named.
        UserWarning: the model's code lets tensors be missing; all of them are named.
    """
    targets = _targets(model)
    run = _Run(model, checkpoint, original_keys or {}, allow_lossy_cast)
    hints = recognised(checkpoint)
    offered = Offered.of(model, checkpoint, prefix)
    found: Mapping[str, str] | None = None
    try:
        found = match_keys(
            offered.shapes,
            offered.wanted(targets),
            prefix=prefix,
            ties={name: id(target) for name, target in targets.items()},
            hints=hints,
        )
    except StateDictError:
        if not run.code:
            raise
    if run.code:
        loaded = run.by_loading_code(attempts_of(offered, found, targets), hints)
    else:
        loaded = run.by_keys(found or {}, targets)
    _check_finite(model, checkpoint, loaded)
    return loaded


def _targets(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return path -> the model's own tensor, not a copy."""
    targets = state_of(model)
    # A checkpoint does not hold the non-persistent buffers: these the model itself must have.
    for name, tensor in {**dict(model.named_buffers()), **targets}.items():
        if torch.nn.parameter.is_lazy(tensor) or tensor.is_meta:
            raise StateDictError(
                f"{name} and perhaps other tensors of the model have no values or no shape yet. "
                "Build the model on the CPU, not on the meta device, and call it once where it "
                "is lazy."
            )
    return targets


class _Run:
    """One loading of a checkpoint into a model."""

    def __init__(
        self,
        model: torch.nn.Module,
        checkpoint: Checkpoint,
        original_keys: Mapping[str, str],
        allow_lossy_cast: bool,
    ) -> None:
        self.model, self.checkpoint = model, checkpoint
        self.original_keys, self.allow_lossy_cast = original_keys, allow_lossy_cast
        self.all_code = loading_code(model)
        self.code = [code for code in self.all_code if not code.is_torchs]

    def by_keys(self, keys: Mapping[str, str], targets: Mapping[str, torch.Tensor]) -> LoadedState:
        """Load into a model without code of its own: what can go wrong is found before."""
        dtypes = dtypes_of(keys, targets, self.checkpoint, self.allow_lossy_cast)
        check_ties(keys, {name: id(target) for name, target in targets.items()}, self.checkpoint)
        take_on(targets, dtypes)
        filled = {name: target for name, target in targets.items() if name not in keys}
        attempt = Attempt(keys, {}, filled)
        try:
            arrived = self._load(attempt, private=False)
        except LoadingError as error:
            raise self._refused(error, attempt) from error
        if self.all_code:  # PyTorch's own may know an older form
            return self._judged(attempt, arrived, {}, ())
        return LoadedState(keys)

    def by_loading_code(self, attempts: Sequence[Attempt], hints: Sequence[str]) -> LoadedState:
        """Load into a model that has code of its own, by the first attempt that it accepts."""
        state = ModelState(self.model)
        errors: list[tuple[LoadingError, Attempt]] = []
        for attempt in attempts:
            targets = state_of(self.model)
            before = {
                name: target.detach().clone()
                for name, target in targets.items()
                if name not in attempt.keys and name not in attempt.filled
            }
            try:
                take_on(targets, self._adopted(attempt, targets))
                if len(attempts) == 1:
                    arrived = self._load(attempt, private=True)
                else:
                    with state.watching():
                        arrived = self._load(attempt, private=True)
            except LoadingError as error:
                _logger.debug("not loaded under %s names", len(attempt.keys), exc_info=True)
                errors.append((error, attempt))
                state.restore()
                continue
            names = {*targets, *state_of(self.model)}
            changed = [label for label in state.changes() if label not in names]
            return self._judged(attempt, arrived, before, changed)
        least, of_it = min(errors, key=lambda pair: pair[0].count)
        raise self._refused(least, of_it, hints) from least

    def _load(self, attempt: Attempt, *, private: bool) -> dict[str, str]:
        return load_state_dict(
            self.model, self.checkpoint, attempt, in_files=self.original_keys, private=private
        )

    def _adopted(
        self, attempt: Attempt, targets: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.dtype]:
        """Return path -> dtype where the checkpoint has one floating-point dtype for all."""
        keys = [key for name, key in attempt.keys.items() if not is_extra_state(name)]
        dtypes = {TORCH_DTYPE[self.checkpoint.tensors[key].dtype] for key in keys}
        floats = {dtype for dtype in dtypes if dtype.is_floating_point}
        if len(floats) != 1 or not floats <= RUNNING:
            return {}
        (dtype,) = floats
        return {name: dtype for name, target in targets.items() if target.is_floating_point()}

    def _judged(
        self,
        attempt: Attempt,
        arrived: Mapping[str, str],
        before: Mapping[str, torch.Tensor],
        changed: Sequence[str],
    ) -> LoadedState:
        """Tell what of the model is the checkpoint's and what its code made."""
        targets = state_of(self.model)
        keys = {n: k for n in targets if (k := self._source(n, targets[n], attempt, arrived))}
        used, computed, built = set(keys.values()), {}, []
        dtypes_of(keys, targets, self.checkpoint, self.allow_lossy_cast)
        self._check_ties(keys, attempt, targets)
        for name, target in targets.items():
            if name in keys or name in attempt.filled:
                continue
            place = attempt.keys.get(name)
            if place is None and is_counter(name):
                continue
            if place is None or place in used:
                place = self._new_key(name)
            if name in before and _same_values(before[name], target):
                built.append(name)
                computed[name] = "it is not in the checkpoint, and is as the model was built"
            else:
                computed[name] = f"by {self._responsible(name)}"
            keys[name] = place
        if built:
            listed = ", ".join(map(printable, built))
            message = (
                f"{self._responsible('')} lets these be missing from the checkpoint, they are as "
                f"the model was built: {listed}"
            )
            warnings.warn(message, UserWarning, stacklevel=2)
        given = (*attempt.keys.values(), *attempt.others.values())
        read = {key: self._value(key) for key in given if key not in set(keys.values())}
        why = f"read by {self._responsible('')}" if self.code else ""
        if not self.code and not computed:
            return LoadedState(keys)
        loading = Loading(
            listed_code(self.code or self.all_code),
            self._metadata(attempt),
            tried=True,
            computed={keys[name]: reason for name, reason in computed.items()},
            read={key: digest_of_value(value) for key, value in read.items()},
            changed=tuple(changed),
        )
        return LoadedState(keys, dict.fromkeys(read, why), loading)

    def _source(
        self,
        name: str,
        target: torch.Tensor,
        attempt: Attempt,
        arrived: Mapping[str, str],
    ) -> str | None:
        """Return the key whose value a tensor has now; None where it has none's."""
        key, named = arrived.get(name), attempt.keys.get(name)
        storage = self.checkpoint.storage
        if named is not None and (key is None or storage[key] == storage[named]):
            key = named
        if key is None:
            return None
        given = tensor_view(self.checkpoint.tensors[key])
        if (given.shape, target.shape) == ((1,), ()):
            given = given[0]
        if given.shape != target.shape:
            return None
        return key if _same_values(given.to(target.dtype), target) else None

    def _check_ties(
        self, keys: Mapping[str, str], attempt: Attempt, targets: Mapping[str, torch.Tensor]
    ) -> None:
        """Check that what the model holds once is not one of two values of the checkpoint."""
        tied = {id(targets[name]) for name in keys}
        both = {n: k for n, k in attempt.keys.items() if n in targets and id(targets[n]) in tied}
        check_ties(both, {name: id(target) for name, target in targets.items()}, self.checkpoint)

    def _new_key(self, name: str) -> str:
        while name in self.checkpoint.tensors:
            name += " (computed)"
        return name

    def _value(self, key: str) -> Any:
        tensors = self.checkpoint.tensors
        return tensors[key] if key in tensors else self.checkpoint.others[key]

    def _responsible(self, name: str) -> str:
        """Name the code that may have made a tensor: of its module or one above, else all."""
        code = self.code or self.all_code
        near = [c for c in code if not c.path or name.startswith(f"{c.path}.")]
        return ", ".join(listed_code(near or code)) or "load_state_dict"

    def _metadata(self, attempt: Attempt) -> dict[str, str]:
        """Return path in the file of modules with code of their own -> what is noted of them."""
        original = {n: self.original_keys.get(k, k) for n, k in attempt.keys.items()}
        paths = module_paths(original)
        files = dict.fromkeys(translated(code.path, paths) for code in self.code)
        return {path: metadata_text(self.checkpoint, path) for path in files}

    def _refused(
        self, error: LoadingError, attempt: Attempt, hints: Sequence[str] = ()
    ) -> StateDictError:
        name = type(self.model).__name__
        code = f", with {self._responsible('')}," if self.code else ""
        advice = list(hints)
        if names := [attempt.keys.get(name, name) for name in error.unexpected]:
            advice.append(f"{argument('drop', names)} leaves {'them' if names[1:] else 'it'} out.")
        unknown = [key for key, value in self.checkpoint.others.items() if holds_unknown(value)]
        if unknown:
            advice.append(
                "Not handed over, as code from a checkpoint never runs: objects in "
                f"{', '.join(map(printable, unknown))}."
            )
        refusal = StateDictError.listing(
            f"{name}.load_state_dict(strict=True){code} refuses the checkpoint:",
            error.complaints,
            "\n".join(advice),
        )
        assert isinstance(refusal, StateDictError)
        return refusal


def _same_values(one: torch.Tensor, other: torch.Tensor) -> bool:
    return same_bits(tensor_from_torch(one), tensor_from_torch(other))


def _check_finite(model: torch.nn.Module, checkpoint: Checkpoint, loaded: LoadedState) -> None:
    """Warn of values that are not finite: the checkpoint's, or those the model's code made."""
    computed = loaded.loading.computed if loaded.loading else {}
    targets = state_of(model)

    def values() -> Iterator[tuple[str, Tensor]]:
        for name, key in {key: name for name, key in loaded.keys.items()}.items():
            if name in computed:
                yield key, tensor_from_torch(targets[key])
            else:
                yield name, checkpoint.tensors[name]

    if names := non_finite(values()):
        listed = ", ".join(map(printable, names))
        message = f"these weights hold NaN or infinity: {listed}"
        warnings.warn(message, NonFiniteWarning, stacklevel=3)
