"""Convert a model that a folder describes: as `convert_checkpoint` does, with what was found."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlxport.converter.arguments import argument
from mlxport.converter.errors import CaptureError, OptionsError, UnsupportedError
from mlxport.converter.graph.capture.dynamic import DynamicSizes
from mlxport.converter.model_folders.found_model import FoundModel
from mlxport.converter.options.adapter import AdapterOptions
from mlxport.converter.options.capture import CaptureOptions
from mlxport.converter.options.judgement import JudgementOptions
from mlxport.converter.options.output import OutputOptions
from mlxport.converter.options.source import SourceOptions
from mlxport.converter.plan.quantize_step import Settings
from mlxport.converter.tasks.convert import convert_checkpoint
from mlxport.converter.tasks.result import Converted

_logger = logging.getLogger(__name__)


def example_of(
    found: FoundModel, inputs: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> tuple[Sequence[Any], dict[str, Any]]:
    """Return the example call of a found model; inputs that the user gives take its place.

    Raises:
        OptionsError: neither gives any.
    """
    if inputs or kwargs:
        return inputs, {**found.kwargs, **(kwargs or {})}
    if not found.inputs and not found.tensors:
        example = argument("inputs", ["1,3,64,64"])
        raise OptionsError(
            f"{found.description}: what {found.factory.name} takes does not follow from it. Give "
            f"its example inputs, in the order or by the names of its forward(): {example}"
        )
    return found.inputs, {**found.tensors, **found.kwargs}


def convert_found(
    found: FoundModel,
    output: str | Path,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    *,
    reading: SourceOptions,
    ways: Sequence[CaptureOptions],
    judging: JudgementOptions,
    writing: OutputOptions,
    quantize: Settings | None = None,
    adapting: AdapterOptions | None = None,
) -> Converted:
    """Convert a found model in the first way that it can be captured in.

    Args:
        found: the model.
        output: the folder to write.
        inputs: example inputs in place of the found ones; none to take those.
        kwargs: further keyword inputs.
        reading: how the checkpoint is read.
        ways: how to capture it, what opens most first.
        judging: how it is compared with PyTorch.
        writing: how the folder is written.
        quantize: how the weights are quantised; None to leave them.
        adapting: the adapter that is fitted; None for none.

    Raises:
        ConversionError: as of the last way.
    """
    args, named = example_of(found, inputs, kwargs)
    reading = reading if found.key is None or reading.key else replace(reading, key=found.key)
    notes: tuple[str, ...] = ()
    # at fixed sizes, or with axes of the user's, nothing is said of what is open
    found_ways = [DynamicSizes.of(axes, None) for axes in found.dynamic]
    for number, capturing in enumerate(ways, 1):
        try:
            converted = convert_checkpoint(
                found.checkpoint,
                output,
                found.factory,
                args,
                named,
                reading=reading,
                capturing=capturing,
                judging=judging,
                writing=writing,
                quantize=quantize,
                adapting=adapting,
                beside=found.beside,
            )
        except (CaptureError, UnsupportedError) as error:
            if number == len(ways):
                raise
            _logger.info("not captured with dynamic=%s", capturing.dynamic, exc_info=True)
            reason = str(error).partition("\n")[0]
            notes += (f"{found.opened[number - 1]} cannot be left open: {reason}",)
        else:
            opened = found.opened[number - 1 : number] if capturing.dynamic in found_ways else ()
            more = () if inputs or kwargs else (f"example inputs {found.example}",)
            said = found.summary(*more, *(f"open: {words}" for words in opened))
            return replace(converted, notes=(said, *notes, *converted.notes))
    raise AssertionError("there is a way at least")
