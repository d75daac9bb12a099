"""Notice where Python code reads sizes while a model is captured.

A size that the model's own code reads becomes a number of the captured program, or decides which
ops are in it; the program does not tell which. What torch.nn's own layers read does not matter, as
long as such a layer is converted as a whole.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_TORCH = f"{Path(torch.__file__).parent}/"
# where torch's code stands for a model's: its layers, and what runs a GraphModule node by node
_LIBRARY = (
    f"{_TORCH}nn/",
    f"{_TORCH}functional.py",
    f"{_TORCH}_tensor.py",
    f"{_TORCH}fx/interpreter.py",
)
# These read sizes of weights alone.
_OF_WEIGHTS = tuple(
    f"{_TORCH}nn/utils/{name}.py"
    for name in ("parametrizations", "parametrize", "spectral_norm", "weight_norm")
)
_CONVERTER = f"{Path(__file__).parents[2]}/"
_READING = frozenset(
    (
        "__len__",
        "_shape_as_tensor",
        "nbytes",
        "nelement",
        "numel",
        "shape",
        "size",
        "storage",
        "stride",
        "untyped_storage",
    )
)
# They refuse sizes, or fill in a size that is not given, which the op they call shows.
_CHECKING = frozenset(
    (
        "_list_with_default",
        "_verify_batch_size",
        "_verify_spatial_size",
        "batch_norm",
        "group_norm",
        "instance_norm",
    )
)

_CHECKING_FILES = (f"{_TORCH}nn/modules/batchnorm.py", f"{_TORCH}nn/modules/instancenorm.py")


@dataclass(eq=False)
class SizeWatch(TorchFunctionMode):
    """While active, notes the modules in whose ``forward`` Python reads the size of a tensor.

    Attributes:
        reads: of each read, the modules that were running, the innermost first.
    """

    reads: list[tuple[torch.nn.Module, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch's; note it where it tells a size."""
        if _name(function) in _READING:
            self._note()
        return function(*args, **(kwargs or {}))

    def decided_by(self, leaves: Collection[torch.nn.Module]) -> bool:
        """Whether a size was read elsewhere than within some modules."""
        known = set(map(id, leaves))
        return any(not known & set(map(id, modules)) for modules in self.reads)

    def _note(self) -> None:
        frame: Any = sys._getframe(1)
        while _passes_on(frame.f_code):
            frame = frame.f_back
        path, name = frame.f_code.co_filename, frame.f_code.co_name
        if path.startswith(_TORCH) and (not path.startswith(_LIBRARY) or name in _CHECKING):
            return  # torch's own machinery
        if path.startswith(_CONVERTER) or path in _CHECKING_FILES or path in _OF_WEIGHTS:
            return
        self.reads.append(tuple(_running(frame)))


def _passes_on(code: Any) -> bool:
    """Whether a frame only hands a call on: this watch's, or that of a mode of the capture."""
    return bool(code.co_name == "__torch_function__" or code.co_filename == f"{_TORCH}overrides.py")


def _name(function: Any) -> str:
    """Return what is called: of a property's getter, the property."""
    name: str = getattr(function, "__name__", "")
    if name == "__get__":
        name = getattr(getattr(function, "__self__", None), "__name__", "")
    return name


def _running(frame: Any) -> Iterable[torch.nn.Module]:
    """Yield the modules whose ``forward`` a frame lies in."""
    while frame is not None:
        if frame.f_code.co_name == "forward":
            module = frame.f_locals.get("self")
            if isinstance(module, torch.nn.Module):
                yield module
        frame = frame.f_back
