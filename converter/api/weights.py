"""State dicts and weights by themselves: look into them, convert them, load them into models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxport.converter.api.boundary import public
from mlxport.converter.arguments import argument
from mlxport.converter.environment import prepare
from mlxport.converter.errors import OptionsError
from mlxport.converter.exclusive import exclusive
from mlxport.converter.torch_model.hub import resolved

if TYPE_CHECKING:
    import mlx.core as mx
    import mlx.nn

    from mlxport.converter.checkpoint.keys.rename import Dropped, ModuleNames
    from mlxport.converter.plan.record import Conversion
    from mlxport.converter.plan.weight_plan import WeightPlan
    from mlxport.converter.tasks.fit_target import Loaded
    from mlxport.converter.tasks.inspection import Inspection


@public
@exclusive
def convert_state_dict(
    source: str | Path | Mapping[str, Any],
    plan: str | Path | Conversion | WeightPlan,
    *,
    key: str | None = None,
    prefix: str | None = None,
    allow_lossy_cast: bool = False,
    drop: Dropped = (),
) -> dict[str, mx.array]:
    """Convert a state dict by the plan of a conversion of the same architecture, in memory.

    Args:
        source: a mapping from keys to torch tensors or numpy arrays, or a checkpoint's path.
        plan: an output folder, its ``conversion.json``, or a ``convert`` result's ``.conversion``.
        key: where in a nested checkpoint the state dict is.
        prefix: take the keys under this prefix alone.
        allow_lossy_cast: round where the plan's dtypes cannot hold the values.
        drop: leave out the keys that these patterns fit, as for ``convert_checkpoint``.

    Returns:
        MLX parameter name -> array, as ``mlx.nn.Module.load_weights`` takes it (``.items()``).

    Raises:
        StateDictError: keys, shapes or dtypes do not fit the plan; all problems are listed.
    """
    prepare()
    from mlxport.converter.options.source import SourceOptions
    from mlxport.converter.tasks.convert_by_plan import convert_state_dict

    source = source if isinstance(source, Mapping) else resolved(source)
    reading = SourceOptions(key=key, prefix=prefix, allow_lossy_cast=allow_lossy_cast, drop=drop)
    return convert_state_dict(source, plan, reading)


@public
def inspect(
    source: str | Path,
    *,
    key: str | None = None,
    prefix: str | None = None,
    rename: ModuleNames | None = None,
    drop: Dropped = (),
    layers: Sequence[str] = (),
    target: str | mlx.nn.Module | None = None,
    plan: str | Path | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> Inspection:
    """Tell what is in a checkpoint, what each tensor is taken for, and on what evidence.

    Args:
        source: as for ``convert_checkpoint``.
        key: where in a nested checkpoint the state dict is.
        prefix: look at the keys under this prefix alone.
        rename: old key -> new key, as for ``load_weights``.
        drop: leave out the keys that these patterns fit, as for ``convert_checkpoint``.
        layers: as for ``convert_checkpoint``.
        target: as for ``convert_checkpoint``: where each tensor would go, and what does not fit.
        plan: as for ``convert_checkpoint``: what its steps make of each tensor.
        model_args: keyword arguments for the factory of the target.

    Returns:
        A row for each tensor, or where the checkpoint holds several state dicts and ``key`` names
        none, what it may name; ``.to_text()`` is a table, ``.to_json()`` data.

    Raises:
        ConversionError: the checkpoint cannot be read.
    """
    prepare()
    source = resolved(source)
    if target is None and model_args:
        raise OptionsError(
            f"{argument('model_args')} without {argument('target')}: nothing takes them"
        )
    if (target is not None) + (plan is not None) + bool(layers) > 1:
        ways = f"{argument('plan')}, {argument('target')} and {argument('layers')}"
        raise OptionsError(f"{ways} each say what the weights are: give one")
    from mlxport.converter.options.source import SourceOptions

    reading = SourceOptions(model_args or {}, key, prefix, rename or {}, drop=drop)
    if plan is not None:
        from mlxport.converter.tasks.convert_by_plan import inspect_by_plan

        return inspect_by_plan(source, plan, reading)
    if target is not None:
        from mlxport.converter.tasks.convert_for_target import inspect_for_target

        return inspect_for_target(source, target, reading)
    from mlxport.converter.tasks.convert_weights import inspect

    return inspect(source, layers, reading)


@public
@exclusive
def load_weights(
    model: mlx.nn.Module,
    source: str | Path | Mapping[str, Any],
    *,
    rename: ModuleNames | None = None,
    key: str | None = None,
    prefix: str | None = None,
    drop: Dropped = (),
    strict: bool = True,
) -> Loaded:
    r"""Load PyTorch's weights into an MLX model written by hand; its layers say the layout.

    A tensor goes to the parameter of its name, else to the one ``rename`` sends it to, else by
    structure: a layer whose parameters' names and shapes only one layer of the checkpoint has. What
    was matched by structure is in the result. An MLX ``Sequential`` may add its ``layers`` to
    names. Weight norm is folded. All or nothing, unless ``strict=False``.

    Args:
        model: changed in place; its modes and dtypes do not matter.
        source: a checkpoint's path, or a mapping from keys to torch tensors or numpy arrays.
        rename: old name -> new name: ``*`` stands for text without a dot, ``**`` for any; a
            compiled regular expression, or text after ``re:``, fits the whole key. A name that fits
            nothing in the checkpoint goes on from those that the names before it gave.
            ``{"*.q + *.k + *.v": "*.qkv"}`` joins tensors, ``{"*.qkv": "*.q + *.k + *.v"}`` splits
            one, in PyTorch's layout along the axis that the layers' shapes leave. None as the new
            name does nothing: ``verify`` takes the same ``names``.
        key: where in a nested checkpoint the state dict is.
        prefix: take the keys under this prefix alone, without it.
        drop: leave out the keys that these patterns fit, as for ``convert_checkpoint``.
        strict: load nothing unless everything fits; otherwise what fits.

    Returns:
        What was loaded from where, and what was not.

    Raises:
        OptionsError: a name of ``rename`` fits nothing, several tensors get one name, or what is to
            be joined lacks a part.
        StateDictError: tensors are missing, unexpected or misshapen, cannot be joined or split, or
            a layer does not say its layout; all of them are listed and the model is as it was.
        CheckpointError: the source cannot be read, or was written to meanwhile; the model is as it
            was.

    Warns:
        UserWarning: float64 became float32, as MLX computes in that.
    """
    prepare()
    from mlxport.converter.options.source import SourceOptions
    from mlxport.converter.tasks.load_weights import load_weights

    source = source if isinstance(source, Mapping) else resolved(source)
    reading = SourceOptions(key=key, prefix=prefix, rename=rename or {}, drop=drop)
    return load_weights(model, source, reading, strict=strict)


@public
def parse_renames(options: Sequence[str]) -> dict[str | re.Pattern[str], str]:
    """Return what ``rename=`` takes of ``OLD=NEW`` texts.

    Raises:
        OptionsError: one has no ``=``.
    """
    from mlxport.converter.checkpoint.keys.rename import parse_renames

    return parse_renames(options)
