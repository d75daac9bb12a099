"""Put an adapter into the torch model to convert, and its tensors beside the checkpoint's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from mlxport.converter.checkpoint.keys.adapter import Adapter, base_and_adapter, open_adapter
from mlxport.converter.checkpoint.keys.bind import FLOATS
from mlxport.converter.graph.merge_adapter import merged, with_merges
from mlxport.converter.graph.translate import Translation
from mlxport.converter.options.adapter import AdapterOptions
from mlxport.converter.plan.record import AdapterRecord
from mlxport.converter.plan.torch_tensor import TORCH_DTYPE
from mlxport.converter.tasks.loading.load_source_model import LoadedModel
from mlxport.converter.torch_model.adapted import Adapted, put_adapter
from mlxport.converter.torch_model.loading_code import state_of

_REPLACED = "the adapter has another in its place"


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter that was put into a torch model.

    Attributes:
        adapter: as it was read.
        adapted: what it made of the model.
        merge: whether it is to be added to the weights.
    """

    adapter: Adapter
    adapted: Adapted
    merge: bool

    @property
    def record(self) -> AdapterRecord:
        """What the conversion says of it."""
        keys = tuple(self.adapter.checkpoint.tensors)
        return AdapterRecord(self.adapter.config_text, keys, self.merge)

    @contextmanager
    def as_translated(self, model: torch.nn.Module) -> Iterator[None]:
        """Let the model be for a while what is to be captured."""
        if not self.merge:
            yield
            return
        with merged(model, self.adapted.layers):
            yield

    def of_apart(self, translation: Translation, model: torch.nn.Module) -> Translation:
        """Return a translation whose plan has the sources of the model with its adapter apart."""
        if self.merge:
            translation = with_merges(translation, model, self.adapted.layers)
        return replace(translation, conversion=replace(translation.conversion, adapter=self.record))

    def beside(self, loaded: LoadedModel) -> LoadedModel:
        """Return what was loaded with the tensors of the adapter beside the checkpoint's."""
        base, ours = loaded.checkpoint, self.adapter.checkpoint
        keys = {name: loaded.state.keys.get(key, key) for name, key in self.adapted.keys.items()}
        replaced = (loaded.state.keys.get(key, key) for key in self.adapter.replaced)
        used = set(keys.values())
        ignored = {key: _REPLACED for key in replaced if key not in used}
        state = replace(loaded.state, keys=keys, ignored={**loaded.state.ignored, **ignored})
        return replace(loaded, checkpoint=base_and_adapter(base, ours), state=state)


def load_adapter(
    model: torch.nn.Module,
    options: AdapterOptions,
    *,
    dtype: str | None = None,
    allow_lossy_cast: bool = False,
) -> LoadedAdapter:
    """Put an adapter into a model; who needs the model as it was keeps its state.

    Where base and adapter stay apart, the parameters of the base take no gradients afterwards.

    Args:
        model: the base.
        options: which adapter, and whether it is merged.
        dtype: cast its floating-point tensors to this.
        allow_lossy_cast: round what replaces tensors of the base where its dtype cannot hold it.

    Raises:
        ConversionError: it cannot be read, or does not fit the model.
    """
    adapter = open_adapter(options.path)
    adapted = put_adapter(
        model,
        adapter,
        dtype=None if dtype is None else TORCH_DTYPE[FLOATS[dtype]],
        allow_lossy_cast=allow_lossy_cast,
        mergeable=options.merge,
    )
    if not options.merge:
        ours = set(adapter.checkpoint.tensors)
        for name, tensor in state_of(model).items():
            if isinstance(tensor, torch.nn.Parameter):
                tensor.requires_grad_(adapted.keys[name] in ours and tensor.is_floating_point())
    return LoadedAdapter(adapter, adapted, options.merge)
