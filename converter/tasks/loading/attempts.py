"""In which ways a checkpoint is handed to a torch model that has loading code of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.formats.inert_pickle import Placeholder
from mlxport.converter.checkpoint.keys.match import is_counter, prefix_pairs
from mlxport.converter.plan.loading import is_extra_state
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.tasks.loading.load_state_dict import Attempt
from mlxport.converter.torch_model.loading_code import extra_states


@dataclass(frozen=True)
class Offered:
    """What a checkpoint offers to a model.

    Attributes:
        tensors: the checkpoint's.
        others: what is no tensor, without what holds objects of unknown classes.
        extra: the keys of the extra state that the model takes.
        prefix: what stands before the keys that are meant.
    """

    tensors: Mapping[str, Tensor]
    others: Mapping[str, Any]
    extra: Sequence[str]
    prefix: str

    @classmethod
    def of(cls, model: torch.nn.Module, checkpoint: Checkpoint, prefix: str | None) -> Offered:
        """Return what a checkpoint offers to a model, under a prefix or all of it."""
        dotted = f"{prefix}." if prefix and not prefix.endswith(".") else prefix or ""
        known = {k: v for k, v in checkpoint.others.items() if not holds_unknown(v)}
        return cls(checkpoint.tensors, known, extra_states(model), dotted)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Key -> shape; none of extra state, whatever it is."""
        shapes = {key: tensor.shape for key, tensor in self.tensors.items()}
        if not self.extra:
            return shapes
        extra = {key for key in (*shapes, *self.others) if is_extra_state(key)}
        return {**shapes, **dict.fromkeys(extra, ())}

    def wanted(self, targets: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
        """Path of the model -> shape, and the keys of the extra state it takes."""
        shapes: dict[str, tuple[int, ...]] = {k: tuple(t.shape) for k, t in targets.items()}
        return {**shapes, **dict.fromkeys(self.extra, ())}

    def named(self, strip: str, add: str) -> Attempt | None:
        """Return all of it under other names; None where keys do not begin with ``strip``."""
        if not all(key.startswith(strip) for key in self.tensors if key.startswith(self.prefix)):
            return None

        def name(key: str) -> str:
            return add + key.removeprefix(self.prefix).removeprefix(strip)

        return Attempt(
            {name(key): key for key in self.tensors if key.startswith(self.prefix)},
            {name(key): key for key in self.others if key.startswith(self.prefix)},
        )


def holds_unknown(value: Any) -> bool:
    """Tell whether there are objects in a value for which placeholders stand."""
    if isinstance(value, dict):
        return any(map(holds_unknown, (*value, *value.values())))
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(holds_unknown, value))
    return isinstance(value, Placeholder) or (
        isinstance(value, type) and issubclass(value, Placeholder)
    )


def attempts_of(
    offered: Offered, found: Mapping[str, str] | None, targets: Mapping[str, torch.Tensor]
) -> list[Attempt]:
    """Return the ways of handing a checkpoint to a model with loading code, in their order.

    Args:
        offered: by the checkpoint.
        found: path of the model -> key, where they could be matched.
        targets: path -> tensor of the model.
    """
    wanted = offered.wanted(targets)
    pairs = [("", "")]
    if not offered.prefix:
        firsts = {key.partition(".")[0] for key in offered.tensors}
        pairs += [*prefix_pairs(offered.shapes, wanted)[:2], *((f"{f}.", "") for f in firsts)][:3]
    as_they_are = [a for a in (offered.named(*pair) for pair in dict.fromkeys(pairs)) if a]
    matched = None
    if found is not None:
        filled = {n: t for n, t in targets.items() if n not in found and is_counter(n)}
        given = {n: k for n, k in found.items() if k in offered.tensors}
        others = {n: k for n, k in found.items() if k not in offered.tensors}
        matched = Attempt(given, others, filled)
        if all(key == offered.prefix + name for name, key in found.items()):
            return [matched]  # no other names, but for counters
    ways = [as_they_are[0], *([matched] if matched else []), *as_they_are[1:]]
    with_extra = set(offered.extra)
    result = []
    for attempt in ways:
        result.append(attempt)
        fewer = {name: key for name, key in attempt.others.items() if name in with_extra}
        if len(fewer) < len(attempt.others):
            result.append(replace(attempt, others=fewer))
    return result
