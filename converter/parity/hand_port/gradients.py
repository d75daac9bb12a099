"""Verify the gradients of an MLX model written by hand.

There is no plan that says which parameter is which of PyTorch's, and in which layout: the names of
the paired modules and the types of the MLX layers do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from mlxport.converter.parity.hand_port.input_orders import MlxArguments
from mlxport.converter.parity.reference.recorded_values import tensors, torch_dtype_name
from mlxport.converter.parity.verdict.entry import BACKWARD, ParityEntry
from mlxport.converter.parity.verdict.judgement import Judgement
from mlxport.converter.parity.verify_gradients import TorchModel, verify_gradients
from mlxport.converter.plan.mlx_layouts import Slot, slots_of
from mlxport.converter.plan.record import Conversion, Layout, ModuleRecord
from mlxport.converter.plan.weight_plan import Entry as Planned
from mlxport.converter.plan.weight_plan import WeightPlan
from mlxport.converter.torch_model.calls import in_order


def verify_port_gradients(
    model: Any,
    conversion: Conversion,
    origin: TorchModel,
    pairs: Mapping[str, str],
    arguments: MlxArguments,
    *,
    judgement: Judgement,
) -> tuple[ParityEntry, ...]:
    """Judge the gradients of a port's inputs and parameters.

    Args:
        model: the MLX model, in eval mode.
        conversion: the record built for it; says in which order the outputs are stored.
        origin: the torch model and its reference.
        pairs: torch module -> MLX module.
        arguments: what the MLX model is called with. Where the user gave the arrays, nothing says
            which of them is which of PyTorch's inputs, and these gradients are not judged.
        judgement: what passes.

    Returns:
        An entry for each input and each parameter of PyTorch's. What has no counterpart, or is
        stored in a layout its MLX layer does not imply, is not judged, with the reason.
    """
    pairing = _Parameters(origin.module, model, pairs)
    entries = verify_gradients(
        model,
        _with_inputs(conversion, origin, arguments),
        origin,
        plan=WeightPlan(tuple(pairing.planned()), ties=pairing.ties()),
        given=(arguments.args, arguments.kwargs),
        judgement=judgement,
    )
    if any(not entry.path and entry.name == "gradients" for entry in entries):
        return entries  # PyTorch has none, and the entry says why
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.path] = counts.get(entry.path, 0) + 1
    left = []
    for name, reason in pairing.reasons.items():
        path = name.rpartition(".")[0]
        number = counts.get(path, 0)
        counts[path] = number + 1
        left.append(ParityEntry(path, 0, number, "", {}, {BACKWARD: reason}, f"gradient of {name}"))
    return (*entries, *left)


class _Parameters:
    """The parameters of both models, paired by the names of their modules.

    Attributes:
        reasons: parameter of PyTorch's -> why its gradient cannot be judged; filled by `planned`.
    """

    def __init__(self, module: torch.nn.Module, model: Any, pairs: Mapping[str, str]) -> None:
        named = module.named_parameters(remove_duplicate=False)
        self.torch = {name: p for name, p in named if p.is_floating_point()}
        self.slots = list(slots_of(model))
        self.paths = {target: path for path, target in reversed([*pairs.items()])}
        self.reasons: dict[str, str] = {}

    def planned(self) -> Iterator[Planned]:
        """Yield which parameter is which, and by which steps; note what is unknown."""
        taken = set()
        for slot in self.slots:
            name = self._counterpart(slot)
            if name is None or name in taken:
                continue
            taken.add(name)
            steps = slot.steps
            if steps is None and len(slot.shape) < 2:
                steps = ()  # in one axis there is nothing to say
            if slot.reason or steps is None:
                unknown = "its MLX layer is none whose layout is known"
                self.reasons[name] = slot.reason or unknown
            elif self._shape(slot) != tuple(self.torch[name].shape):
                self.reasons[name] = f"MLX's {slot.name} has shape {slot.shape}"
            else:
                yield Planned((name,), (slot.name,), steps)
        firsts = set(self.ties())
        for name in self.torch:
            if name not in taken and name not in firsts:
                self.reasons[name] = "no parameter of the MLX model stands for it"

    def ties(self) -> dict[str, str]:
        """Return each further name of one parameter -> its first."""
        first: dict[int, str] = {}
        named = [(name, first.setdefault(id(p), name)) for name, p in self.torch.items()]
        return {name: before for name, before in named if name != before}

    def _counterpart(self, slot: Slot) -> str | None:
        """Return PyTorch's parameter of the paired module, or else of the same name."""
        names = [slot.torch]
        if slot.group in self.paths:
            inner = slot.name[len(slot.group) + 1 :] if slot.group else slot.name
            names.insert(0, f"{self.paths[slot.group]}.{inner}")
        return next((name for name in names if name in self.torch), None)

    def _shape(self, slot: Slot) -> tuple[int, ...]:
        return slot.shape if slot.wanted is None else slot.wanted


def _with_inputs(conversion: Conversion, origin: TorchModel, arguments: MlxArguments) -> Conversion:
    """Return the record with the names, orders and dtypes of the model's inputs."""
    given = tensors(in_order(origin.module, origin.args, origin.kwargs))
    if len(arguments.orders) != len(given):
        return conversion
    signature = origin.reference.signature
    names = signature.tensors() if signature else [f"input[{k}]" for k in range(len(given))]
    layouts = tuple(
        Layout(tuple(x.shape), torch_dtype_name(x.dtype), order)
        for x, order in zip(given, arguments.orders, strict=True)
    )
    modules = tuple(
        ModuleRecord("", "", layouts, record.outputs) if record.path == "" else record
        for record in conversion.modules
    )
    return replace(conversion, modules=modules, inputs=tuple(names))
