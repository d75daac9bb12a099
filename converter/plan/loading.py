"""What a torch model's own code does where a state dict is loaded, as data of the weight plan.

Needs neither torch nor mlx.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

# How torch.nn.Module calls the entry that get_extra_state gives.
_EXTRA_STATE = "_extra_state"


def is_extra_state(key: str) -> bool:
    """Tell whether a key of a state dict is that of a module's extra state."""
    return key.rpartition(".")[2] == _EXTRA_STATE


@dataclass(frozen=True)
class Loading:
    """The code of a model that ``load_state_dict`` runs, and what it did to one checkpoint.

    Such code (hooks, ``_load_from_state_dict``, ``set_extra_state``) may make any values of a
    checkpoint, by what else stands in it. A plan repeats none of it.

    Attributes:
        code: what there is, by the names it has in the model's source.
        modules: path of each module it belongs to -> the metadata that the checkpoint has of it,
            as JSON text; ``"null"`` for none.
        tried: whether it was run on a checkpoint. The plan of a model that was converted as it
            was in memory does not know what it does.
        computed: source key -> why its value is none of the checkpoint's under that key. What the
            checkpoint has there is left out.
        read: key -> digest of what it was given and what is in no tensor of the model.
        changed: what else it changed in the model (``"blocks.0.scale"``).
    """

    code: tuple[str, ...]
    modules: Mapping[str, str] = field(default_factory=dict)
    tried: bool = False
    computed: Mapping[str, str] = field(default_factory=dict)
    read: Mapping[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = ()

    def renamed(self, key: Callable[[str], str]) -> Loading:
        """Return the same with other keys."""
        computed = {key(name): why for name, why in self.computed.items()}
        read = {key(name): digest for name, digest in self.read.items()}
        return replace(self, computed=computed, read=read)
