"""Options of the source: how a checkpoint is read, and the arguments of its model.

Needs torch only to read what ``torch.save`` wrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.checkpoint.keys.bind import FLOATS
from mlxport.converter.checkpoint.keys.rename import (
    Dropped,
    ModuleNames,
    fits,
    renamed,
    without_dropped,
)
from mlxport.converter.errors import OptionsError


@dataclass(frozen=True)
class SourceOptions:
    """How a checkpoint is read, and the arguments of the model it is for.

    Attributes:
        model_args: keyword arguments for the factory of the model or the target.
        key: where in a nested checkpoint the state dict is; None where there is one only.
        prefix: the keys under this prefix alone are taken; None for all.
        rename: old key -> new key.
        drop: the keys that these patterns fit are left out, by the names in the file or, where
            none has it there, by the new ones.
        dtype: all floating-point weights are cast to this; None leaves them as they are.
        allow_lossy_cast: whether values may be rounded where a dtype cannot hold them.

    Raises:
        OptionsError: there is no such dtype.
    """

    model_args: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    prefix: str | None = None
    rename: ModuleNames = field(default_factory=dict)
    dtype: str | None = None
    allow_lossy_cast: bool = False
    drop: Dropped = ()

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in FLOATS:
            raise OptionsError(
                f"{argument('dtype', self.dtype)}: expected one of {', '.join(FLOATS)}"
            )

    def open(self, path: str | Path) -> tuple[Checkpoint, dict[str, str]]:
        """Open a checkpoint with its keys renamed.

        Returns:
            The checkpoint, and of each key that was renamed the name it has in the file.

        Raises:
            ConversionError: it cannot be read, or a pattern fits no key.
        """
        opened = open_checkpoint(path, self.key)
        patterns = self._dropping
        keys = (*opened.tensors, *opened.others)
        before = [pattern for pattern in patterns if any(fits(pattern, key) for key in keys)]
        checkpoint, original = renamed(without_dropped(opened, before), self.rename)
        after = [pattern for pattern in patterns if pattern not in before]
        left = without_dropped(replace(checkpoint, dropped={}), after)
        dropped = {original.get(key, key): tensor for key, tensor in left.dropped.items()}
        dropped = {**checkpoint.dropped, **dropped}
        return replace(left, dropped=dropped, order=tuple(opened.tensors) * bool(dropped)), original

    def without_dropped(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return a checkpoint, whose keys have no other names, without what is to be dropped.

        Raises:
            OptionsError: a pattern fits no key.
        """
        return without_dropped(checkpoint, self._dropping)

    @property
    def casting(self) -> dict[str, Any]:
        """How tensors are cast, as keywords of `load_adapter`."""
        return {"dtype": self.dtype, "allow_lossy_cast": self.allow_lossy_cast}

    @property
    def _dropping(self) -> tuple[str | re.Pattern[str], ...]:
        return (self.drop,) if isinstance(self.drop, (str, re.Pattern)) else tuple(self.drop)
