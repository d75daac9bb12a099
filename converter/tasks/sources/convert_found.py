"""Convert a model that a folder describes: as `convert_checkpoint` does, with what was found."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

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

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Way:
    """One way to capture a found model.

    Attributes:
        found: the model, with a cache or without.
        inputs: its example inputs, as `example_call` takes them.
        kwargs: its keyword inputs.
        capturing: how it is captured.
        opened: what is open that the user did not ask for, in words; empty for nothing.
    """

    found: FoundModel
    inputs: Sequence[Any]
    kwargs: Mapping[str, Any]
    capturing: CaptureOptions
    opened: str = ""

    def refused(self, error: Exception) -> str:
        """Say what is not to be had, and why."""
        reason = str(error).partition("\n")[0]
        if self.found.without_cache is not None:
            return f"there is no cache, as it cannot be captured with one: {reason}"
        return f"{self.opened} cannot be left open: {reason}"


def example_of(
    found: FoundModel, inputs: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> tuple[Sequence[Any], dict[str, Any]]:
    """Return the example call of a found model; inputs that the user gives take its place.

    Raises:
        OptionsError: neither gives any.
    """
    if inputs or kwargs:
        return inputs, {**found.plain.kwargs, **(kwargs or {})}
    if not found.inputs and not found.tensors:
        example = argument("inputs", ["1,3,64,64"])
        raise OptionsError(
            f"{found.description}: what {found.factory.name} takes does not follow from it. Give "
            f"its example inputs, in the order or by the names of its forward(): {example}"
        )
    return found.inputs, {**found.tensors, **found.kwargs}


def ways_of(
    found: FoundModel,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    capturing: CaptureOptions,
) -> Iterator[Way]:
    """Yield the ways to capture a found model: with a cache first, and what opens most.

    Inputs or axes of the user's are the one way there is, without a cache.

    Args:
        found: the model.
        inputs: example inputs in place of the found ones; none to take those.
        kwargs: further keyword inputs.
        capturing: how to capture it, with the axes that the user opens.

    Raises:
        OptionsError: as for `example_of`.
    """
    if inputs or kwargs or capturing.dynamic is not None:
        yield Way(found.plain, *example_of(found.plain, inputs, kwargs), capturing)
        return
    models = [found] if found.without_cache is None else [found, found.without_cache]
    for model in models:
        example = example_of(model, inputs, kwargs)
        for axes, words in zip(model.dynamic, model.opened, strict=True):
            sizes = DynamicSizes.of(axes, None)
            yield Way(model, *example, replace(capturing, dynamic=sizes), words)
    yield Way(found.plain, *example_of(found.plain, inputs, kwargs), capturing)


def in_first_way(
    ways: Iterator[Way], attempt: Callable[[Way], _Result]
) -> tuple[_Result, Way, tuple[str, ...]]:
    """Return what the first way gives that a model can be captured in.

    Args:
        ways: of one model.
        attempt: what is to be done.

    Returns:
        Its result, the way, and what was not to be had in those before it.

    Raises:
        ConversionError: as of the last way.
    """
    notes: tuple[str, ...] = ()
    way, following = next(ways), next(ways, None)
    while following is not None:
        try:
            return attempt(way), way, notes
        except (CaptureError, UnsupportedError) as error:
            _logger.info("not captured with dynamic=%s", way.capturing.dynamic, exc_info=True)
            notes += (way.refused(error),)
        way, following = following, next(ways, None)
    return attempt(way), way, notes


def of_found(
    found: FoundModel,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    capturing: CaptureOptions,
    task: Callable[..., _Result],
) -> _Result:
    """Return what a task gives of a found model, in the first way that it can be captured in.

    Args:
        found: the model.
        inputs: example inputs in place of the found ones; none to take those.
        kwargs: further keyword inputs.
        capturing: how to capture it, with the axes that the user opens.
        task: is given checkpoint, factory, inputs, keyword inputs and ``capturing``.

    Raises:
        ConversionError: as of the last way.
    """

    def attempt(way: Way) -> _Result:
        one = way.found
        return task(one.checkpoint, one.factory, way.inputs, way.kwargs, capturing=way.capturing)

    return in_first_way(ways_of(found, inputs, kwargs, capturing), attempt)[0]


def convert_found(
    found: FoundModel,
    output: str | Path,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    *,
    reading: SourceOptions,
    capturing: CaptureOptions,
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
        capturing: how to capture it, with the axes that the user opens.
        judging: how it is compared with PyTorch.
        writing: how the folder is written.
        quantize: how the weights are quantised; None to leave them.
        adapting: the adapter that is fitted; None for none.

    Raises:
        ConversionError: as of the last way.
    """
    reading = reading if found.key is None or reading.key else replace(reading, key=found.key)

    def convert(way: Way) -> Converted:
        return convert_checkpoint(
            way.found.checkpoint,
            output,
            way.found.factory,
            way.inputs,
            way.kwargs,
            reading=reading,
            capturing=way.capturing,
            judging=judging,
            writing=writing,
            quantize=quantize,
            adapting=adapting,
            beside=way.found.beside,
        )

    converted, way, notes = in_first_way(ways_of(found, inputs, kwargs, capturing), convert)
    more = () if inputs or kwargs else (f"example inputs {way.found.example}",)
    said = way.found.summary(*more, *([f"open: {way.opened}"] if way.opened else []))
    return replace(converted, notes=(said, *notes, *converted.notes))
