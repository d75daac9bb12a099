"""Convert a torch model: translate it, move its weights, and compare MLX with PyTorch."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.nn as nn
import torch

from mlxport.converter.checkpoint.keys.bind import recorded
from mlxport.converter.checkpoint.keys.loading import beside_tensors
from mlxport.converter.errors import CaptureError, OptionsError
from mlxport.converter.graph.debug_folder import debugging
from mlxport.converter.graph.fold_batchnorm import translate_folded
from mlxport.converter.graph.lowering.weight_plan import state_tensors
from mlxport.converter.graph.translate import Translation, translate
from mlxport.converter.options.adapter import AdapterOptions
from mlxport.converter.options.capture import CaptureOptions
from mlxport.converter.options.judgement import JudgementOptions
from mlxport.converter.options.output import OutputOptions
from mlxport.converter.options.source import SourceOptions
from mlxport.converter.output.carry_along import carry_along
from mlxport.converter.output.contents import (
    source_of,
    stem_of,
    write_folder,
    write_json,
    write_report,
    write_weights,
)
from mlxport.converter.output.lineage import ModelLineage, lineage_of, record_lineage
from mlxport.converter.output.live_model import live_model, load_source
from mlxport.converter.output.whole_folder import OutputFolder
from mlxport.converter.parity.hand_port.verify import verify_hand_port
from mlxport.converter.parity.reference.record_reference import record_reference
from mlxport.converter.parity.reference.trials import Trials
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.run.verify import verify_at_sizes
from mlxport.converter.parity.verdict.judgement import Judgement
from mlxport.converter.parity.verdict.reference_data import Reference
from mlxport.converter.parity.verify_gradients import TorchModel, verify_gradients
from mlxport.converter.plan.quantize_step import Settings
from mlxport.converter.plan.record import Conversion, Stem
from mlxport.converter.plan.tensor import Tensor, to_mlx
from mlxport.converter.tasks.loading.load_adapter import LoadedAdapter, load_adapter
from mlxport.converter.tasks.loading.load_source_model import loaded_model, untried_loading
from mlxport.converter.tasks.quantize import (
    Whole,
    carrying,
    dequantized,
    live_weights,
    quantize_folder,
)
from mlxport.converter.tasks.record_references import Origin
from mlxport.converter.tasks.result import Converted
from mlxport.converter.timings import stage
from mlxport.converter.torch_model.caches import FilledCache, caches_as_tensors
from mlxport.converter.torch_model.calls import check_arguments
from mlxport.converter.torch_model.example_inputs import example_call
from mlxport.converter.torch_model.factory import Factory
from mlxport.converter.torch_model.model_kinds import as_torch_module
from mlxport.converter.torch_model.model_state import eval_mode, left_as_it_was


def convert_model(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    capturing: CaptureOptions,
    judging: JudgementOptions | None,
    adapting: AdapterOptions | None = None,
) -> Converted:
    """Convert a torch model in memory; see ``mlxport.convert``.

    Args:
        model: the torch model.
        args: positional example inputs.
        kwargs: keyword example inputs.
        capturing: how it is captured.
        judging: how the MLX model is compared with it; None to leave that out.
        adapting: the adapter that goes into it first; None for none.
    """
    model = as_torch_module(model)
    with left_as_it_was(model), eval_mode(model):
        adapter = None if adapting is None else load_adapter(model, adapting)
        translation, notes = _translated(model, args, kwargs, capturing, adapter=adapter)
        translation = _with_loading_code(translation, model)
        with stage("weights"):
            weights = _weights(translation, translation.conversion, state_tensors(model))
            module = load_source(
                translation.source, translation.conversion.layers, translation.user_files
            )
            built: nn.Module = module.Model()
            built.load_weights([(name, to_mlx(tensor)) for name, tensor in weights.items()])
            built.eval()
        conversion = translation.conversion
        if adapter is not None:
            plan = conversion.plan.renamed(adapter.adapted.keys)
            conversion = replace(conversion, plan=plan)
        lineage = record_lineage(built, conversion, translation.conversion.plan)
        report = None
        if judging is not None:
            with stage("verify"):
                trials = judging.trials
                origin = _origin(model, args, kwargs, translation, translation.conversion, trials)
                report = _verified(built, origin, origin.references(), judging.judgement)
                if judging.gradients:
                    report = _with_gradients(report, built, lineage, origin)
        name = type(model).__name__
        return Converted(lambda: built, translation.source, conversion, report, notes, name=name)


def convert_checkpoint(
    source: str | Path,
    output: str | Path,
    model: str | torch.nn.Module | Factory,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    *,
    reading: SourceOptions,
    capturing: CaptureOptions,
    judging: JudgementOptions,
    writing: OutputOptions,
    quantize: Settings | None = None,
    adapting: AdapterOptions | None = None,
    beside: Mapping[str, Any] | None = None,
) -> Converted:
    """Convert a checkpoint into an output folder; see ``mlxport.convert_checkpoint``.

    ``beside``: name of a file -> JSON data to be written into the folder too.
    """
    sources = (Path(source),)
    with ExitStack() as stack:
        to_folder = OutputFolder(Path(output), overwrite=writing.overwrite, sources=sources)
        folder = stack.enter_context(to_folder)
        loaded = stack.enter_context(loaded_model(source, model, reading))
        torch_model, checkpoint = loaded.model, loaded.checkpoint
        stack.enter_context(left_as_it_was(torch_model))
        stack.enter_context(eval_mode(torch_model))
        adapter = None
        if adapting is not None:
            adapter = load_adapter(torch_model, adapting, **reading.casting)
            loaded = adapter.beside(loaded)
            checkpoint = loaded.checkpoint
        args, named = example_call(torch_model, inputs, kwargs)
        stack.enter_context(caches_as_tensors((args, named)))
        stem = stem_of(checkpoint)
        translation, notes = _translated(torch_model, args, named, capturing, stem, adapter)
        _check_cached(kwargs or {}, translation.conversion)
        plan, state = loaded.bound(translation.conversion.plan), loaded.tensors()
        written = write_weights(
            folder,
            plan,
            checkpoint,
            loaded.original_keys,
            state=state,
            constants=translation.constants,
            max_shard_size=writing.max_shard_size,
        )
        conversion = replace(
            translation.conversion,
            plan=recorded(plan, checkpoint, loaded.original_keys),
            source=source_of(checkpoint, written.sha256, model=_name_of(model)),
            digests=written.digests,
        )
        with stage("verify"):
            origin = _origin(torch_model, args, named, translation, conversion, judging.trials)
            # stored with how far they move: where they are compared again there is no torch
            references = tuple(r.with_moved(r) if r.with_moved else r for r in origin.references())
        if writing.carry_along:
            carry_along(folder, Path(source))
        for file, data in (beside or {}).items():
            write_json(folder / file, data)
        conversion = write_folder(
            folder,
            translation.source,
            conversion,
            references,
            translation.user_files,
            writing.package,
            writing.reference,
        )
        built = live_model(folder)
        lineage = record_lineage(built, conversion, translation.conversion.plan)
        with stage("verify"):
            report = _verified(built, origin, references, judging.judgement)
            if judging.gradients:
                report = _with_gradients(report, built, lineage, origin)
        warnings = loaded.warnings
        if quantize is not None and report.passed:
            whole = Whole(
                folder=folder,
                model=torch_model,
                translation=translation,
                conversion=conversion,
                plan=plan,
                checkpoint=checkpoint,
                state=state,
                references=references,
                live=built,
                report=report,
                original_keys=loaded.original_keys,
                extent=writing.reference,
            )
            built, conversion, report = quantize_folder(
                whole, quantize, origin.references, max_shard_size=writing.max_shard_size
            )
            report = replace(report, notes=(*report.notes, *origin.notes))
        elif quantize is not None:
            warnings = (*warnings, "the weights were not quantized, as parity does not hold")
        write_report(folder, report)
        text = (folder / "model.py").read_text(encoding="utf-8")
    notes = (*checkpoint.notes, *notes, *beside_tensors(conversion.plan))
    name = type(torch_model).__name__
    return Converted(lambda: built, text, conversion, report, notes, warnings, name=name)


def _check_cached(kwargs: Mapping[str, Any], conversion: Conversion) -> None:
    """Hold a model to the cache that it was to fill itself: it grows from call to call.

    Raises:
        CaptureError: the model does something else with it.
    """
    filled = [name for name, value in kwargs.items() if isinstance(value, FilledCache)]
    if filled and conversion.cache is None:
        raise CaptureError(
            f"{', '.join(filled)}: the model does more with its cache than to add to it, or gives "
            "nothing else"
        )


def verify_model(
    model: nn.Module,
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    judging: JudgementOptions,
    **by_hand: Any,
) -> ParityReport:
    """Compare a converted model with its torch model; see ``mlxport.verify``.

    Args:
        model: the MLX model; one that was not converted goes to `verify_hand_port`.
        module: the torch model.
        args: positional inputs.
        kwargs: keyword inputs.
        judging: how it is judged.
        by_hand: what a model written by hand has to say (``names``, …); None says nothing.

    Raises:
        OptionsError: ``by_hand`` speaks of a model that was converted.
    """
    module = as_torch_module(module)
    check_arguments(module, args, kwargs or {})
    lineage = lineage_of(model)
    if lineage is None:
        options = {"judgement": judging.judgement, "trials": judging.trials, **by_hand}
        gradients = judging.gradients
        with left_as_it_was(module), eval_mode(module):
            return verify_hand_port(model, module, args, kwargs, gradients=gradients, **options)
    if said := [option for option, value in by_hand.items() if value is not None]:
        raise OptionsError(
            f"{', '.join(said)}: for models written by hand. {type(model).__name__} comes from "
            "mlxport.convert, which knows its layers and the order of their axes."
        )
    conversion, values = lineage.conversion, {}
    if conversion.quantized is not None:
        if judging.gradients:
            raise OptionsError("gradients: MLX gives none of quantized weights")
        values = dequantized(lineage.plan, live_weights(model))
    origin = Origin(module, args, kwargs, conversion, judging.trials)
    with left_as_it_was(module), eval_mode(module):
        with carrying(module, values):
            references = origin.references() if not values else tuple(origin.references())
            report = _verified(model, origin, references, judging.judgement)
        return _with_gradients(report, model, lineage, origin) if judging.gradients else report


def _name_of(model: str | torch.nn.Module | Factory) -> str:
    """Return what the record calls the model of a checkpoint."""
    if isinstance(model, Factory):
        return model.name
    return model if isinstance(model, str) else type(model).__qualname__


@stage("gradients")
def _with_gradients(
    report: ParityReport, built: nn.Module, lineage: ModelLineage, origin: Origin
) -> ParityReport:
    """Return the report of a converted model with its gradients judged, on the same arguments.

    Where the model raises already forwards, there are none to judge.
    """
    model, args, kwargs = origin.model, origin.args, origin.kwargs
    if not report.outputs_compared:
        note = "gradients not judged: no value of the outputs could be compared"
        return replace(report, notes=(*report.notes, note))
    entries = verify_gradients(
        built,
        lineage.conversion,
        TorchModel(model, args, kwargs, record_reference(model, args, kwargs, paths=())),
        plan=lineage.plan,
        judgement=Judgement(report.noise_multiple),
    )
    return replace(report, gradients=entries)


def _origin(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    translation: Translation,
    conversion: Conversion,
    trials: Trials,
) -> Origin:
    return Origin(
        model, args, kwargs, conversion, trials, sizes=translation.sizes, other=translation.other
    )


def _verified(
    built: nn.Module, origin: Origin, references: Iterable[Reference], judgement: Judgement
) -> ParityReport:
    """Judge a converted model by all its references, and note what could not be tried."""
    report = verify_at_sizes(built, origin.conversion, references, judgement=judgement)
    return replace(report, notes=(*report.notes, *origin.notes))


def _translated(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    capturing: CaptureOptions,
    stem: Stem = "weights",
    adapter: LoadedAdapter | None = None,
) -> tuple[Translation, tuple[str, ...]]:
    """Return the translation, and what there is to say of it."""
    if adapter is not None:
        with adapter.as_translated(model):
            translation, notes = _translated(model, args, kwargs, capturing, stem)
        return adapter.of_apart(translation, model), notes
    with debugging(capturing.debug_dir) as debug:
        options: dict[str, Any] = {
            "channels_last": capturing.channels_last,
            "dynamic": capturing.dynamic,
            "stem": stem,
            "debug": debug,
        }
        note = ""
        if capturing.fold_batchnorm:
            translation, note = translate_folded(model, args, kwargs, **options)
        else:
            translation = translate(model, args, kwargs, **options)
    gc.collect()  # graphs refer to themselves in circles, and parity needs the memory
    folding = [note] if note else []
    return translation, (*folding, *translation.notes, *_derived_note(translation.conversion))


def _derived_note(conversion: Conversion) -> Iterator[str]:
    """Say what does not follow when the weights of the MLX model change."""
    if derived := conversion.plan.derived:
        listed = "; ".join(f"{name} of {', '.join(keys)}" for name, keys in derived.items())
        yield (
            f"constants that the model had computed of its weights before: {listed}. In MLX they "
            "stay what they are when the weights change; convert the model before its first call "
            "to have them computed"
        )


def _with_loading_code(translation: Translation, model: torch.nn.Module) -> Translation:
    """Return the translation whose plan says that the model has code which loads checkpoints."""
    if (loading := untried_loading(model)) is None:
        return translation
    plan = replace(translation.conversion.plan, loading=loading)
    return replace(translation, conversion=replace(translation.conversion, plan=plan))


def _weights(
    translation: Translation, conversion: Conversion, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    return {**dict(conversion.plan.apply(state)), **translation.constants}
