"""Options of an adapter: where it is, and whether it stays apart from its base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlxport.converter.arguments import argument
from mlxport.converter.errors import OptionsError
from mlxport.converter.torch_model.hub import resolved


@dataclass(frozen=True)
class AdapterOptions:
    """Which adapter is converted with its base, and how.

    Attributes:
        path: the folder that PEFT saved it in; of the Hub, that in its cache.
        merge: whether it is added to the weights of the base.
    """

    path: Path
    merge: bool = False

    @classmethod
    def of(cls, adapter: str | Path | None, merge: bool) -> AdapterOptions | None:
        """Return the options that a user's values stand for; None without an adapter.

        Raises:
            OptionsError: something is to be merged and there is no adapter.
            CheckpointError: it is on the Hub and cannot be fetched.
        """
        if adapter is not None:
            return cls(resolved(adapter), merge)
        if merge:
            raise OptionsError(f"{argument('merge', True)} needs {argument('adapter')}")
        return None
