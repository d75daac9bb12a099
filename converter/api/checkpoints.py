"""Checkpoints: convert them into output folders, or tell what that would give."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence, Sized
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlxport.converter.api.boundary import public
from mlxport.converter.arguments import argument
from mlxport.converter.environment import prepare
from mlxport.converter.errors import OptionsError
from mlxport.converter.exclusive import exclusive
from mlxport.converter.timings import stage, timed
from mlxport.converter.torch_model.hub import resolved

if TYPE_CHECKING:
    import mlx.nn
    import torch

    from mlxport.converter.checkpoint.keys.rename import Dropped, Patterns
    from mlxport.converter.graph.capture.dynamic import DynamicAxes
    from mlxport.converter.model_folders.found_model import FoundModel
    from mlxport.converter.options.capture import CaptureOptions
    from mlxport.converter.options.source import SourceOptions
    from mlxport.converter.tasks.analysis.coverage import Analysis
    from mlxport.converter.tasks.analysis.explanation import Explanation
    from mlxport.converter.tasks.result import Converted


@public
@exclusive
@timed
def convert_checkpoint(
    source: str | Path,
    output: str | Path,
    *,
    model: str | torch.nn.Module | None = None,
    inputs: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    plan: str | Path | None = None,
    verify_with: str | torch.nn.Module | FoundModel | None = None,
    target: str | mlx.nn.Module | None = None,
    layers: Sequence[str] = (),
    model_args: Mapping[str, Any] | None = None,
    key: str | None = None,
    prefix: str | None = None,
    rename: Patterns | None = None,
    drop: Dropped = (),
    dtype: Literal["float16", "bfloat16", "float32"] | None = None,
    allow_lossy_cast: bool = False,
    max_shard_size: int | str | None = None,
    overwrite: bool = False,
    channels_last: bool = False,
    noise_multiple: float | None = None,
    gradients: bool = False,
    fold_batchnorm: bool = False,
    dynamic: DynamicAxes | None = None,
    dynamic_shapes: Any = None,
    quantize: str | Mapping[str, Any] | None = None,
    carry_along: bool = True,
    package: str | None = None,
    reference: Literal["bounded", "full"] = "bounded",
    input_kinds: Sequence[str] = (),
    batch_sizes: Sequence[int] | None = None,
    calls: int | None = None,
    debug_dir: str | Path | None = None,
    device: str = "auto",
    adapter: str | Path | None = None,
    merge: bool = False,
    weights_only: bool | None = None,
) -> Converted:
    """Convert a PyTorch checkpoint into an output folder with a verified MLX model.

    Args:
        source: ``.safetensors``, ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` or a folder of these, or
            ``hf://owner/name[@revision]``, a repository of the Hugging Face Hub (from its cache
            where there is no network; needs ``mlxport[hub]``). A folder that says which model it
            holds needs nothing else: it is built by the library it is of, example inputs follow
            from its configuration, and the axes that such models leave open are open.
        output: the folder to write: ``model.py``, ``layers/``, ``weights.safetensors``,
            ``conversion.json``, ``reference.safetensors``, ``parity.json``.
        model: the torch model, or ``pkg.mod:factory`` that gives it, whatever a folder says.
        inputs: example inputs in order, in place of those of a folder. Texts are random values,
            ``[name=][dtype:]sizes[:low..high]``: ``"1,1,32,48,40"``, ``"int64:1,16:0..29999"``,
            ``"mask=bool:1,16"`` for a keyword argument, ``"int64::0..999"`` without axes. Integers
            are 0 or 1 without a range, floats normal. ``Path``s are files of values: ``.npy`` a
            positional input, ``.npz`` and ``.safetensors`` inputs by name. All else as for
            ``convert``.
        kwargs: further keyword inputs, as for ``convert``.
        plan: instead of ``model`` and ``inputs``, the output folder of another checkpoint of the
            same architecture, or its ``conversion.json``. Its ``model.py`` is copied; there is no
            parity report, as its reference is of other weights. Needs no torch to read
            ``.safetensors``.
        verify_with: with ``plan``, the torch model, or ``pkg.mod:factory`` that gives it, to hold
            the result to: judged on ``inputs``, which runs the ``model.py`` beside the plan, and
            with a reference of its own.
        target: instead of ``model``, an MLX model written by hand, or ``pkg.mod:factory`` that
            gives it. Its layers say the layout and names are matched as by ``load_weights``, all
            or nothing. Weights alone are written, under its names, for ``model.load_weights``.
        layers: with none of these, weights alone are converted (``weights.safetensors``
            and ``conversion.json``), each by evidence or by what is said here:
            ``"decoder.*.up.weight=ConvTranspose3d:2"``, the last that fits; ``"*=Conv"`` for most.
            What stays open is an error. ``mlxport inspect`` shows it.
        model_args: keyword arguments for the factory of the model or the target.
        key: where in a nested checkpoint the state dict is.
        prefix: take the checkpoint's keys under this prefix alone.
        rename: old key -> new key, as for ``load_weights``; the record keeps the old ones.
        drop: leave out the keys that these patterns of ``rename`` fit: ``"criterion"``,
            ``["*.position_ids"]``. ``restore`` gives them back all the same.
        dtype: cast all floating-point weights, and the model, to this.
        allow_lossy_cast: round where the model's dtype cannot hold the checkpoint's values.
        max_shard_size: write the weights in files of at most this size: bytes, or ``"5GB"``.
        overwrite: replace an existing output folder.
        channels_last: the MLX model takes and gives channels-last arrays.
        noise_multiple: how many times PyTorch's own rounding noise passes (default 8).
        gradients: as for ``convert``; judged here alone, as the folder's reference holds none.
        fold_batchnorm: as for ``convert``. Another checkpoint converts by the plan, folded too;
            ``restore`` cannot give the folded tensors back.
        dynamic: axes whose size may change from call to call, in every input that has them and
            more than one element there: ``(0,)`` is the batch, ``(0, 2, 3)`` the batch and both
            sides of an image. Sizes that are equal in the example along one axis are one size;
            ``{"ids": (0, 1), "mask": 0}``, axes per argument of ``forward``, leaves it to
            torch.export which go together. Parity is judged at a second set of sizes too.
        dynamic_shapes: the same in torch.export's own words, in place of ``dynamic``.
        quantize: quantise ``Linear`` and ``Embedding`` layers as ``mlx.nn.quantize`` does:
            ``"bits=4,group_size=64,mode=affine"``, or these in a dict. Parity is judged before, and
            again with the quantised weights in both MLX and PyTorch; what they cost is measured.
        carry_along: of a folder with a ``config.json``, copy this, the tokenizer, README and
            licence into the output folder.
        package: write what pip needs to install the folder as a package of this name, with its type
            hints. By plain import every output folder is a package.
        reference: how much ``reference.safetensors`` keeps for ``verify``: ``"bounded"``, no more
            bytes than the weights have (or 256 KiB, and 256 values of each layer), or ``"full"``,
            all the values that are judged here.
        input_kinds: as for ``convert``; the references of these runs are stored too.
        batch_sizes: as for ``convert``; stored too.
        calls: as for ``convert``; stored too.
        debug_dir: as for ``convert``; outside of the output folder.
        device: as for ``convert``.
        adapter: as for ``convert``, of the model that ``source`` is the checkpoint of. With
            ``plan``, one to take the place of that in the plan, with tensors and scales as there.
        merge: as for ``convert``.
        weights_only: the old name of ``carry_along=False``; goes with the next release.

    Returns:
        The live model, its record, the parity report, which may say that parity failed, and how
        long each stage took.

    Raises:
        ConversionError: anything that keeps the model from being converted; nothing is written.
        DeviceError: the device is not on this machine.
    """
    prepare()
    carry_along = _carries_along(carry_along, weights_only)
    _check_ways(model=model, plan=plan, target=target, layers=layers)
    found = None
    if model is None and plan is None and target is None and not layers:
        source = resolved(source)
        found = _described(source)
    if verify_with is not None and plan is None:
        raise OptionsError(f"{argument('verify_with')} goes with {argument('plan')}")
    if verify_with is not None:
        _check_of_the_plan(
            channels_last=channels_last,
            dynamic=dynamic,
            dynamic_shapes=dynamic_shapes,
            gradients=gradients,
            fold_batchnorm=fold_batchnorm,
            quantize=quantize,
            debug_dir=debug_dir,
            merge=merge,
        )
    elif model is None and found is None:
        _check_without_model(
            quantize=quantize,
            inputs=inputs,
            kwargs=kwargs,
            model_args=None if target is not None else model_args,
            channels_last=channels_last,
            dynamic=dynamic,
            dynamic_shapes=dynamic_shapes,
            gradients=gradients,
            fold_batchnorm=fold_batchnorm,
            input_kinds=input_kinds,
            batch_sizes=batch_sizes,
            calls=calls,
            noise_multiple=noise_multiple,
            debug_dir=debug_dir,
            device=None if device == "auto" else device,
            adapter=None if plan is not None else adapter,
            merge=merge,
        )
    if (verify_with is not None or (model is not None and found is None)) and not (
        inputs or kwargs
    ):
        example = argument("inputs", ["1,1,32,48,40"])
        needy = argument("model" if verify_with is None else "verify_with")
        raise OptionsError(f"{needy} needs an example input: {example}")
    if plan is not None and dtype is not None:
        raise OptionsError(
            f"{argument('plan')} keeps the dtypes of its model: for others convert with "
            f"{argument('model')} and {argument('dtype')}"
        )
    with stage("imports"):
        from mlxport.converter.options.output import OutputOptions
        from mlxport.converter.options.source import SourceOptions

    reading = SourceOptions(
        model_args or {}, key, prefix, rename or {}, dtype, allow_lossy_cast, drop
    )
    writing = OutputOptions.of(
        overwrite=overwrite,
        max_shard_size=max_shard_size,
        carry_along=carry_along,
        package=package,
        reference=reference,
    )
    if package is not None and model is None and plan is None and found is None:
        raise OptionsError(
            f"{argument('package', package)} needs a model: give {argument('model')} or "
            f"{argument('plan')}; without one weights alone are written"
        )
    source = resolved(source)
    if plan is not None:
        with stage("imports"):
            from mlxport.converter.tasks.convert_by_plan import convert_by_plan

        from mlxport.converter.options.adapter import AdapterOptions

        adapting = AdapterOptions.of(adapter, False)
        added = None if adapting is None else adapting.path
        if verify_with is None:
            return convert_by_plan(source, output, plan, reading, writing, adapter=added)
        from mlxport.converter.model_folders.found_model import FoundModel
        from mlxport.converter.options.judgement import JudgementOptions
        from mlxport.converter.output.device import on_device
        from mlxport.converter.tasks.verify_by_model import ByModel

        judging = JudgementOptions.of(
            noise_multiple=noise_multiple,
            gradients=False,
            input_kinds=input_kinds,
            batch_sizes=batch_sizes,
        )
        beside = verify_with.beside if isinstance(verify_with, FoundModel) else {}
        by = verify_with.factory if isinstance(verify_with, FoundModel) else verify_with
        by_model = ByModel(source, by, inputs, kwargs, reading, judging, reference, adapting)
        with on_device(device):
            return convert_by_plan(
                source,
                output,
                plan,
                reading,
                writing,
                verify=by_model.verify,
                beside=beside,
                adapter=added,
            )
    if target is not None:
        with stage("imports"):
            from mlxport.converter.tasks.convert_for_target import convert_for_target

        return convert_for_target(source, output, target, reading, writing)
    if model is None and found is None:
        with stage("imports"):
            from mlxport.converter.tasks.convert_weights import convert_weights

        return convert_weights(source, output, layers, reading, writing)
    with stage("imports"):
        from mlxport.converter.options.adapter import AdapterOptions
        from mlxport.converter.options.capture import CaptureOptions
        from mlxport.converter.options.judgement import JudgementOptions
        from mlxport.converter.output.device import on_device
        from mlxport.converter.tasks.convert import convert_checkpoint
    from mlxport.converter.plan.quantize_step import parse_settings

    capturing = CaptureOptions.of(
        channels_last=channels_last,
        fold_batchnorm=fold_batchnorm,
        dynamic=dynamic,
        dynamic_shapes=dynamic_shapes,
        debug_dir=debug_dir,
    )
    _check_outside(capturing.debug_dir, Path(output))
    judging = JudgementOptions.of(
        noise_multiple=noise_multiple,
        gradients=gradients,
        input_kinds=input_kinds,
        batch_sizes=batch_sizes,
        calls=calls,
    )
    settings = None if quantize is None else parse_settings(quantize)
    with on_device(device):
        if found is not None:
            from mlxport.converter.tasks.sources.convert_found import convert_found

            return convert_found(
                found,
                output,
                inputs,
                kwargs,
                reading=reading,
                capturing=capturing,
                judging=judging,
                writing=writing,
                quantize=settings,
                adapting=AdapterOptions.of(adapter, merge),
            )
        assert model is not None
        return convert_checkpoint(
            source,
            output,
            model,
            inputs,
            kwargs,
            reading=reading,
            capturing=capturing,
            judging=judging,
            writing=writing,
            quantize=settings,
            adapting=AdapterOptions.of(adapter, merge),
        )


def _described(source: Path) -> FoundModel | None:
    """Return the model that a folder describes; None where it does not say what it holds."""
    with stage("model"):
        from mlxport.converter.model_folders.find_models import find_model

        return find_model(source)


def _check_outside(debug_dir: Path | None, output: Path) -> None:
    """Refuse to write into the output folder, which is made whole or not at all."""
    if debug_dir is not None and debug_dir.resolve().is_relative_to(output.resolve()):
        raise OptionsError(
            f"{argument('debug_dir', str(debug_dir))} lies in the output folder {output}: name one "
            "outside of it"
        )


def _carries_along(carry_along: bool, weights_only: bool | None) -> bool:
    """Return what the keyword says, or its old name."""
    if weights_only is None:
        return carry_along
    warnings.warn(
        f"weights_only is now called carry_along: say {argument('carry_along', not weights_only)}",
        DeprecationWarning,
        stacklevel=6,  # the caller of convert_checkpoint, which is wrapped
    )
    return not weights_only


def _check_ways(**ways: Any) -> None:
    """Refuse more than one statement of what the weights are."""
    if sum(said is not None and said != () for said in ways.values()) > 1:
        *first, last = map(argument, ways)
        raise OptionsError(f"{', '.join(first)} and {last} each say what the weights are: give one")


def _check_without_model(*, quantize: Any, **options: Any) -> None:
    """Refuse what speaks of a model that runs."""
    if quantize is not None:
        raise OptionsError(
            f"{argument('quantize')} needs {argument('model')} and {argument('inputs')}: what it "
            "costs is measured by running the model. A plan quantizes as its own model was."
        )
    if given := [name for name, value in options.items() if _is_given(value)]:
        raise OptionsError(
            f"without {argument('model')} there is no model to run: leave out "
            f"{', '.join(map(argument, given))}, or name the model"
        )


def _check_of_the_plan(**options: Any) -> None:
    """Refuse what was decided when the plan was made."""
    if given := [name for name, value in options.items() if _is_given(value)]:
        raise OptionsError(
            f"{argument('plan')} keeps what its own conversion chose: leave out "
            f"{', '.join(map(argument, given))}"
        )


def _is_given(value: Any) -> bool:
    is_empty = isinstance(value, Sized) and len(value) == 0
    return value is not None and value is not False and not is_empty


@public
@exclusive
def analyze_checkpoint(
    source: str | Path,
    *,
    model: str | torch.nn.Module | None = None,
    inputs: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    model_args: Mapping[str, Any] | None = None,
    key: str | None = None,
    prefix: str | None = None,
    rename: Patterns | None = None,
    drop: Dropped = (),
    dtype: Literal["float16", "bfloat16", "float32"] | None = None,
    allow_lossy_cast: bool = False,
    channels_last: bool = False,
    dynamic: DynamicAxes | None = None,
    dynamic_shapes: Any = None,
    adapter: str | Path | None = None,
    merge: bool = False,
) -> Analysis:
    """Tell what ``convert_checkpoint`` would do with the same arguments; write nothing.

    Raises:
        ConversionError: checkpoint or adapter does not fit the model, or that cannot be captured.
    """
    prepare()
    source = resolved(source)
    found = _described(source) if model is None else None
    key = key or (found.key if found else None)
    if found is None and (model is None or not (inputs or kwargs)):
        raise OptionsError(_needs_a_model("an analysis"))
    from mlxport.converter.options.adapter import AdapterOptions
    from mlxport.converter.tasks.analysis.analyze import analyze_checkpoint
    from mlxport.converter.tasks.sources.convert_found import of_found

    reading, capturing = _read_and_captured(
        (model_args or {}, key, prefix, rename or {}, dtype, allow_lossy_cast, drop),
        channels_last=channels_last,
        dynamic=dynamic,
        dynamic_shapes=dynamic_shapes,
    )
    task = partial(analyze_checkpoint, reading=reading, adapting=AdapterOptions.of(adapter, merge))
    if found is not None:
        return of_found(found, inputs, kwargs, capturing, task)
    assert model is not None
    return task(source, model, inputs, kwargs, capturing=capturing)


@public
@exclusive
def explain_checkpoint(
    source: str | Path,
    path: str | None = None,
    *,
    model: str | torch.nn.Module | None = None,
    inputs: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    model_args: Mapping[str, Any] | None = None,
    key: str | None = None,
    prefix: str | None = None,
    rename: Patterns | None = None,
    drop: Dropped = (),
    dtype: Literal["float16", "bfloat16", "float32"] | None = None,
    allow_lossy_cast: bool = False,
    channels_last: bool = False,
    dynamic: DynamicAxes | None = None,
    dynamic_shapes: Any = None,
    adapter: str | Path | None = None,
) -> Explanation:
    """Return what ``convert_checkpoint`` makes of each module, and why; write nothing.

    Arguments are those of ``convert_checkpoint``, ``path`` and ``adapter`` those of ``explain``.

    Raises:
        OptionsError: the model has no module at ``path``; those with similar names are listed.
        ConversionError: checkpoint or adapter does not fit the model, or that cannot be captured.
    """
    prepare()
    source = resolved(source)
    found = _described(source) if model is None else None
    key = key or (found.key if found else None)
    if found is None and model is None:
        raise OptionsError(_needs_a_model("an explanation"))
    from mlxport.converter.options.adapter import AdapterOptions
    from mlxport.converter.tasks.analysis.explain import explain_checkpoint
    from mlxport.converter.tasks.sources.convert_found import of_found

    reading, capturing = _read_and_captured(
        (model_args or {}, key, prefix, rename or {}, dtype, allow_lossy_cast, drop),
        channels_last=channels_last,
        dynamic=dynamic,
        dynamic_shapes=dynamic_shapes,
    )
    task = partial(
        explain_checkpoint,
        path=path,
        reading=reading,
        adapting=AdapterOptions.of(adapter, False),
    )
    if found is not None:
        return of_found(found, inputs, kwargs, capturing, task)
    assert model is not None
    return task(source, model, inputs, kwargs, capturing=capturing)


def _needs_a_model(what: str) -> str:
    return (
        f"{what} needs the model and its inputs: {argument('model')} and {argument('inputs')}, "
        "or a folder that says what it holds"
    )


def _read_and_captured(
    reading: tuple[Any, ...], **capturing: Any
) -> tuple[SourceOptions, CaptureOptions]:
    """Return the options of what reads a checkpoint and captures its model, but writes nothing."""
    from mlxport.converter.options.capture import CaptureOptions
    from mlxport.converter.options.source import SourceOptions

    return SourceOptions(*reading), CaptureOptions.of(**capturing)
