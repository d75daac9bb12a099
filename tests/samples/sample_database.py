"""PyTorch's own samples of its layers, ``torch.testing._internal.common_modules.module_db``.

Every sample is a way to construct a layer and the inputs of one forward pass, written by the people
who test PyTorch itself; the error samples are what its constructors and forward passes reject.
"""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.testing._internal.common_modules import (
    ErrorModuleInput,
    FunctionInput,
    ModuleErrorEnum,
    ModuleInfo,
    ModuleInput,
    module_db,
)
from torch.utils._pytree import tree_map_only

INFOS: dict[str, ModuleInfo] = {info.module_cls.__name__: info for info in module_db}


@dataclass(frozen=True)
class Call:
    """The inputs of one forward pass, as ``torch.nn.Module.forward`` names and orders them."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def run(self, layer: Callable[..., Any]) -> Any:
        """Call a layer on a copy of the inputs, which some layers write to."""
        args, kwargs = copy.deepcopy((self.args, dict(self.kwargs)))
        return layer(*args, **kwargs)

    def map(self, kind: type[Any], function: Callable[[Any], Any]) -> Call:
        """Return the call with every value of a type, however deep in tuples, mapped."""
        return Call(*tree_map_only(kind, function, (self.args, dict(self.kwargs))))

    def to(self, dtype: torch.dtype) -> Call:
        """Return the call with floating-point inputs of a dtype."""
        return self.map(torch.Tensor, lambda x: x.to(dtype) if x.is_floating_point() else x)


@dataclass(frozen=True)
class Sample:
    """One sample of the database, by its place there.

    Attributes:
        layer: the name of the class in ``torch.nn``.
        training: the mode the module runs in; False where both are the same to it.
        index: its place among the samples of its class in that mode.
    """

    layer: str
    training: bool
    index: int

    def __str__(self) -> str:
        described = re.sub(r"[^\w.]+", "_", self._inputs.desc).strip("_")
        parts = [self.layer, f"{self.index:03}", described, "train" if self.training else ""]
        return "-".join(part for part in parts if part)

    def build(self) -> tuple[torch.nn.Module, Call]:
        """Construct the module in float32, with seeded weights, and its inputs."""
        module, call = construct(self.layer, self._inputs)
        module.float().train(self.training)
        if isinstance(module, torch.nn.modules.lazy.LazyModuleMixin):
            call.run(module)  # which makes it a layer of the plain class
        return module, call

    @property
    def _inputs(self) -> ModuleInput:
        return _inputs(self.layer, self.training)[self.index]


@dataclass(frozen=True)
class ErrorSample:
    """One sample that PyTorch rejects, by its place in the database."""

    layer: str
    index: int

    def __str__(self) -> str:
        where = "constructor" if self.in_constructor else "forward"
        return f"{self.layer}-{self.index:02}-{where}"

    @property
    def in_constructor(self) -> bool:
        """Whether the constructor rejects it; otherwise the forward pass does."""
        return bool(self._error.error_on is ModuleErrorEnum.CONSTRUCTION_ERROR)

    @property
    def raises(self) -> tuple[type[Exception], str]:
        """PyTorch's exception, and a regular expression for its message."""
        return self._error.error_type, self._error.error_regex

    @property
    def arguments(self) -> FunctionInput:
        """The arguments of the constructor."""
        return copy.deepcopy(self._error.module_error_input.constructor_input)

    def build(self) -> tuple[torch.nn.Module, Call]:
        """Construct the module, in training mode, and the inputs it rejects."""
        return construct(self.layer, self._error.module_error_input)

    @property
    def _error(self) -> ErrorModuleInput:
        return _error_inputs(self.layer)[self.index]


def samples() -> Iterator[Sample]:
    """All samples; of classes that differ between the modes, those of both."""
    for name, info in INFOS.items():
        for training in (False, True) if info.train_and_eval_differ else (False,):
            yield from (Sample(name, training, i) for i in range(len(_inputs(name, training))))


def error_samples() -> Iterator[ErrorSample]:
    """All samples that PyTorch rejects."""
    for name in INFOS:
        yield from (ErrorSample(name, i) for i in range(len(_error_inputs(name))))


def construct(layer: str, inputs: ModuleInput) -> tuple[torch.nn.Module, Call]:
    """Construct a module, with seeded weights, and the inputs of its forward pass."""
    torch.manual_seed(0)
    arguments, given = copy.deepcopy((inputs.constructor_input, inputs.forward_input))
    module = INFOS[layer].module_cls(*arguments.args, **arguments.kwargs)
    # by position as far as that goes: MLX's layers call their first input x
    bound = inspect.signature(module.forward).bind(*given.args, **given.kwargs)
    return module, Call(bound.args, bound.kwargs)


@functools.cache
def _inputs(name: str, training: bool) -> list[ModuleInput]:
    return _generated(INFOS[name], INFOS[name].module_inputs_func, training)


@functools.cache
def _error_inputs(name: str) -> list[ErrorModuleInput]:
    info = INFOS[name]
    if info.module_error_inputs_func is None:
        return []
    return _generated(info, info.module_error_inputs_func, False)


def _generated(info: ModuleInfo, function: Callable[..., list[Any]], training: bool) -> list[Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return function(
            info, device="cpu", dtype=torch.float32, requires_grad=False, training=training
        )
