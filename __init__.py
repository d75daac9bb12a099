"""mlxport: take a PyTorch model or checkpoint, give back a verified MLX one.

Every public name is imported on first use (PEP 562), so ``import mlxport`` loads neither torch
nor mlx, and verifying a converted model on a Mac never needs torch.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlxport import testing
    from mlxport.converter.api import (
        analyze,
        convert,
        convert_checkpoint,
        convert_layer,
        convert_many,
        convert_state_dict,
        explain,
        export_function,
        generate,
        inspect,
        load,
        load_weights,
        restore,
        sliding_window,
        verify,
    )
    from mlxport.converter.errors import ConversionError
    from mlxport.converter.plan.weight_plan import Entry
    from mlxport.converter.rules.registry import Axes, LayerSpec, Refusal
    from mlxport.converter.tasks.registrations import register_op, register_rule

__version__ = "0.1.0"

__all__ = [
    "Axes",
    "ConversionError",
    "Entry",
    "LayerSpec",
    "Refusal",
    "__version__",
    "analyze",
    "convert",
    "convert_checkpoint",
    "convert_layer",
    "convert_many",
    "convert_state_dict",
    "explain",
    "export_function",
    "generate",
    "inspect",
    "load",
    "load_weights",
    "register_op",
    "register_rule",
    "restore",
    "sliding_window",
    "testing",
    "verify",
]

_HOME = {
    "Axes": "mlxport.converter.rules.registry",
    "ConversionError": "mlxport.converter.errors",
    "Entry": "mlxport.converter.plan.weight_plan",
    "LayerSpec": "mlxport.converter.rules.registry",
    "Refusal": "mlxport.converter.rules.registry",
    "analyze": "mlxport.converter.api",
    "convert": "mlxport.converter.api",
    "convert_checkpoint": "mlxport.converter.api",
    "convert_layer": "mlxport.converter.api",
    "convert_many": "mlxport.converter.api",
    "convert_state_dict": "mlxport.converter.api",
    "explain": "mlxport.converter.api",
    "export_function": "mlxport.converter.api",
    "generate": "mlxport.converter.api",
    "inspect": "mlxport.converter.api",
    "load": "mlxport.converter.api",
    "load_weights": "mlxport.converter.api",
    "register_op": "mlxport.converter.tasks.registrations",
    "register_rule": "mlxport.converter.tasks.registrations",
    "restore": "mlxport.converter.api",
    "sliding_window": "mlxport.converter.api",
    "verify": "mlxport.converter.api",
}

import_module("mlxport.converter.environment").forbid_fast_math()


class _BeforeMlx:
    """Finds no module, but prepares the process when mlx is about to be imported, by whomever.

    Not at once: loading torch's BLAS takes longer than all of ``import mlxport`` may.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Called for every import, until that of mlx."""
        if name == "mlx.core":
            sys.meta_path.remove(_BeforeMlx)
            _prepare()


def _prepare() -> None:
    """Prepare the process for mlx, as long as it is not imported; log where it is."""
    import_module("mlxport.converter.environment").prepare()


if "mlx.core" in sys.modules:
    _prepare()
else:
    sys.meta_path.insert(0, _BeforeMlx)


def __getattr__(name: str) -> object:
    """Import a public name from the module that defines it, once.

    Raises:
        AttributeError: ``name`` is not public.
    """
    if name == "testing":
        return import_module("mlxport.testing")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
