"""From a torch model to MLX source, weight plan and record: the graph room in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch

from mlxport.converter.graph import ops
from mlxport.converter.graph.capture import capture, eval_mode
from mlxport.converter.graph.emit import emit
from mlxport.converter.graph.lower import lower
from mlxport.converter.graph.naming import Names
from mlxport.converter.graph.weights import constants, weight_plan
from mlxport.converter.record import Conversion
from mlxport.converter.tensor import Tensor


@dataclass(frozen=True)
class Translation:
    """A model translated, before any weight has moved.

    Attributes:
        source: the text of ``model.py``.
        conversion: the record; its plan's sources are keys of the model's state dict.
        constants: target name -> values that no state dict holds, as stored.
        own: name -> text of files of the user's own that go into ``layers/``.
    """

    source: str
    conversion: Conversion
    constants: Mapping[str, Tensor]
    own: Mapping[str, str] = field(default_factory=dict)


def translate(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    channels_last: bool = False,
) -> Translation:
    """Translate a torch model, captured on example inputs.

    Args:
        model: the torch module; its modes are left as they are.
        args: positional inputs.
        kwargs: keyword inputs.
        channels_last: the MLX model takes and gives channels-last arrays, without transposes.

    Raises:
        CaptureError: torch.export cannot capture the model.
        UnsupportedError: modules or ops without MLX counterpart, all of them listed.
    """
    with eval_mode(model):  # rules look at the mode too
        captured = capture(model, args, kwargs, handled=ops.registry.OPS)
        lowered = lower(captured, channels_last_ends=channels_last)
    names = Names(model)
    source = emit(lowered, names)
    conversion = Conversion(
        plan=weight_plan(lowered, names),
        modules=tuple(lowered.records),
        inputs=tuple(formal.name for formal in lowered.bodies[""].parameters),
        signature=lowered.signature,
        layers=lowered.layer_files(),
        transposes=lowered.transposes,
        draws=tuple(lowered.draws),
        versions={name: version(name) for name in ("mlxport", "torch", "mlx")},
    )
    own = {name: file.text for name, file in lowered.own.items()}
    return Translation(source, conversion, constants(lowered, names), own)
