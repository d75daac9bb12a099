"""What mlxport offers: convert, verify, load, and what it supports.

Importing this module loads neither torch nor mlx; each function imports what it needs, so that
verifying a converted model needs no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlxport.converter.environment import prepare
from mlxport.converter.errors import OptionsError

if TYPE_CHECKING:
    import mlx.core as mx
    import mlx.nn
    import torch

    from mlxport.converter.analysis import Analysis
    from mlxport.converter.checkpoint.rename import Patterns
    from mlxport.converter.converted import Converted
    from mlxport.converter.export import Exported
    from mlxport.converter.load_weights import Loaded
    from mlxport.converter.parity.arrangements import Axes, Inputs
    from mlxport.converter.parity.pairing import Names
    from mlxport.converter.parity.report import ParityReport
    from mlxport.converter.plan import WeightPlan
    from mlxport.converter.record import Conversion
    from mlxport.converter.restore import Restored
    from mlxport.converter.weights_only import Inspection


def convert(
    module: torch.nn.Module,
    example_inputs: torch.Tensor | Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    channels_last: bool = False,
    verify: bool = True,
    noise_multiple: float | None = None,
    gradients: bool = False,
    dynamic: Sequence[int] | int | None = None,
    dynamic_shapes: Any = None,
) -> Converted:
    """Convert a torch model into a live, verified MLX model.

    The model is captured by ``torch.export`` in eval mode; its modes are left as they are.

    Inputs may be tensors of any dtype, None, booleans, numbers and strings, and tuples, lists,
    dicts and dataclasses of them (those of your own registered by
    ``torch.export.register_dataclass``). The MLX model takes the arguments that hold tensors,
    under PyTorch's names; by name only, where an argument before them is missing. All others are
    fixed at the values given here; its docstring says which. It gives what the torch model gives:
    tuples (named ones too), lists, dicts; dataclasses and the outputs of transformers and
    diffusers as dicts of their fields, without those that are None.

    Args:
        module: the torch model.
        example_inputs: a tensor, or the positional inputs in a tuple or list.
        kwargs: keyword inputs.
        channels_last: the MLX model takes and gives channels-last arrays; otherwise its inputs and
            outputs have PyTorch's axes.
        verify: hold the MLX model to PyTorch, layer by layer, in float64.
        noise_multiple: how many times PyTorch's own rounding noise passes (default 32).
        gradients: hold the gradients of inputs and parameters to PyTorch's too, in eval mode.
        dynamic: axes whose size may change from call to call, in every input that has them and
            more than one element there: ``(0,)`` is the batch, ``(0, 2, 3)`` the batch and both
            sides of an image. torch.export finds out which sizes go together. Parity is then
            judged at a second set of sizes too.
        dynamic_shapes: the same in torch.export's own words, in place of ``dynamic``.

    Returns:
        The live model (``.model``), its source (``.source``), the record of the conversion
        (``.conversion``) and the parity report (``.report``).

    Raises:
        CaptureError: torch.export cannot capture the model.
        UnsupportedError: modules or ops have no MLX counterpart; every one is listed.
    """
    prepare()
    from mlxport.converter.conversion import convert_model

    return convert_model(
        module,
        _positional(example_inputs),
        kwargs,
        channels_last=channels_last,
        verify=verify,
        noise_multiple=noise_multiple,
        gradients=gradients,
        dynamic=dynamic,
        dynamic_shapes=dynamic_shapes,
    )


def analyze(
    module: torch.nn.Module,
    example_inputs: torch.Tensor | Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    channels_last: bool = False,
    dynamic: Sequence[int] | int | None = None,
    dynamic_shapes: Any = None,
) -> Analysis:
    """Tell what ``convert`` would make of a torch model, and what has no MLX counterpart.

    The model is captured and lowered as for a conversion, so that the two give the same answers;
    no weight becomes an MLX array and nothing is written. The torch model runs on the inputs.

    Args:
        module: the torch model.
        example_inputs: a tensor, or the positional inputs in a tuple or list.
        kwargs: keyword inputs.
        channels_last: as in ``convert``.
        dynamic: as in ``convert``.
        dynamic_shapes: as in ``convert``.

    Returns:
        Modules by class, ops, shares that are covered, everything unsupported; ``str()`` gives it
        for reading, ``.to_json()`` as data.

    Raises:
        CaptureError: torch.export cannot capture the model.
    """
    prepare()
    from mlxport.converter.analyze import analyze_model

    return analyze_model(
        module,
        _positional(example_inputs),
        kwargs,
        channels_last=channels_last,
        dynamic=dynamic,
        dynamic_shapes=dynamic_shapes,
    )


def analyze_checkpoint(
    source: str | Path,
    *,
    model: str | torch.nn.Module | None,
    inputs: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    model_args: Mapping[str, Any] | None = None,
    key: str | None = None,
    prefix: str | None = None,
    allow_lossy_cast: bool = False,
    channels_last: bool = False,
    dynamic: Sequence[int] | int | None = None,
    dynamic_shapes: Any = None,
) -> Analysis:
    """Tell what ``convert_checkpoint`` would do with the same arguments; write nothing.

    Raises:
        ConversionError: the checkpoint does not fit the model, or the model cannot be captured.
    """
    prepare()
    if model is None or not (inputs or kwargs):
        raise OptionsError("an analysis needs the model and its inputs: --model and --input")
    from mlxport.converter.analyze import analyze_checkpoint

    return analyze_checkpoint(
        source,
        model=model,
        inputs=inputs,
        kwargs=kwargs,
        model_args=model_args,
        key=key,
        prefix=prefix,
        allow_lossy_cast=allow_lossy_cast,
        channels_last=channels_last,
        dynamic=dynamic,
        dynamic_shapes=dynamic_shapes,
    )


def convert_checkpoint(
    source: str | Path,
    output: str | Path,
    *,
    model: str | torch.nn.Module | None = None,
    inputs: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    plan: str | Path | None = None,
    layers: Sequence[str] = (),
    model_args: Mapping[str, Any] | None = None,
    key: str | None = None,
    prefix: str | None = None,
    rename: Patterns | None = None,
    dtype: Literal["float16", "bfloat16", "float32"] | None = None,
    allow_lossy_cast: bool = False,
    max_shard_size: int | str | None = None,
    overwrite: bool = False,
    channels_last: bool = False,
    noise_multiple: float | None = None,
    gradients: bool = False,
    dynamic: Sequence[int] | int | None = None,
    dynamic_shapes: Any = None,
) -> Converted:
    """Convert a PyTorch checkpoint into an output folder with a verified MLX model.

    Args:
        source: ``.safetensors``, ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` or a folder of these.
        output: the folder to write: ``model.py``, ``layers/``, ``weights.safetensors``,
            ``conversion.json``, ``reference.safetensors``, ``parity.json``.
        model: the torch model, or ``pkg.mod:factory`` that gives it.
        inputs: example inputs in order. Texts stand for random values,
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
        layers: with neither model nor plan, weights alone are converted (``weights.safetensors``
            and ``conversion.json``), each by evidence or by what is said here:
            ``"decoder.*.up.weight=ConvTranspose3d:2"``, the last that fits; ``"*=Conv"`` for most.
            What stays open is an error. ``mlxport inspect`` shows it.
        model_args: keyword arguments for the factory.
        key: where in a nested checkpoint the state dict lies.
        prefix: take the checkpoint's keys under this prefix alone.
        rename: old key -> new key, as for ``load_weights``; the record keeps the old ones.
        dtype: cast all floating-point weights, and the model, to this.
        allow_lossy_cast: round where the model's dtype cannot hold the checkpoint's values.
        max_shard_size: write the weights in files of at most this size: bytes, or ``"5GB"``.
        overwrite: replace an existing output folder.
        channels_last: the MLX model takes and gives channels-last arrays.
        noise_multiple: how many times PyTorch's own rounding noise passes (default 32).
        gradients: as for ``convert``; judged here alone, as the folder's reference holds none.
        dynamic: axes whose size may change from call to call, in every input that has them and
            more than one element there: ``(0,)`` is the batch, ``(0, 2, 3)`` the batch and both
            sides of an image. torch.export finds out which sizes go together. Parity is then
            judged at a second set of sizes too.
        dynamic_shapes: the same in torch.export's own words, in place of ``dynamic``.

    Returns:
        The live model, its record and the parity report, which may say that parity failed.

    Raises:
        ConversionError: anything that keeps the model from being converted; nothing is written.
    """
    prepare()
    common: dict[str, Any] = {"key": key, "prefix": prefix, "rename": rename}
    common |= {"overwrite": overwrite, "max_shard_size": max_shard_size}
    of_model = inputs or kwargs or model_args or channels_last or noise_multiple is not None
    of_model = of_model or gradients
    if model is None and (of_model or dynamic is not None or dynamic_shapes is not None):
        raise OptionsError(
            "without --model there is no model to run: leave out --input, --input-file, --kwargs, "
            "--model-args, --layout, --dynamic, --gradients and --noise-multiple, or name the model"
        )
    if (model is not None) + (plan is not None) + bool(layers) > 1:
        raise OptionsError("--model, --plan and --layer each say what the weights are: give one")
    if plan is not None:
        if dtype is not None:
            raise OptionsError(
                "--plan keeps the dtypes of its model: for others convert with --model and --dtype"
            )
        from mlxport.converter.transfer import convert_by_plan

        return convert_by_plan(source, output, plan, allow_lossy_cast=allow_lossy_cast, **common)
    if model is None:
        from mlxport.converter.weights_only import convert_weights

        return convert_weights(source, output, layers=layers, dtype=dtype, **common)
    if not (inputs or kwargs):
        raise OptionsError("--model needs an example input: --input 1,1,32,48,40 (inputs=[…])")
    from mlxport.converter.conversion import convert_checkpoint

    return convert_checkpoint(
        source,
        output,
        model=model,
        inputs=inputs,
        kwargs=kwargs,
        model_args=model_args,
        dtype=dtype,
        allow_lossy_cast=allow_lossy_cast,
        channels_last=channels_last,
        noise_multiple=noise_multiple,
        gradients=gradients,
        dynamic=dynamic,
        dynamic_shapes=dynamic_shapes,
        **common,
    )


def convert_state_dict(
    source: str | Path | Mapping[str, Any],
    plan: str | Path | Conversion | WeightPlan,
    *,
    key: str | None = None,
    prefix: str | None = None,
    allow_lossy_cast: bool = False,
) -> dict[str, mx.array]:
    """Convert a state dict by the plan of a conversion of the same architecture, in memory.

    Args:
        source: a mapping from keys to torch tensors or numpy arrays, or a checkpoint's path.
        plan: an output folder, its ``conversion.json``, or a ``convert`` result's ``.conversion``.
        key: where in a nested checkpoint the state dict lies.
        prefix: take the keys under this prefix alone.
        allow_lossy_cast: round where the plan's dtypes cannot hold the values.

    Returns:
        MLX parameter name -> array, as ``mlx.nn.Module.load_weights`` takes it (``.items()``).

    Raises:
        StateDictError: keys, shapes or dtypes do not fit the plan; all problems are listed.
    """
    prepare()
    from mlxport.converter.transfer import convert_state_dict

    return convert_state_dict(
        source, plan, key=key, prefix=prefix, allow_lossy_cast=allow_lossy_cast
    )


def convert_layer(module: torch.nn.Module) -> Any:
    """Convert one torch.nn layer into its MLX counterpart, weights included.

    Spatial layers take and give channels-last arrays; arguments mean what they mean in torch. The
    result is an ``mlx.nn.Module``; of a ``ModuleList`` or ``ParameterList`` a list, of a
    ``ModuleDict`` or ``ParameterDict`` a dict.

    Raises:
        UnsupportedError: the layer, or this configuration of it, has no MLX counterpart.
    """
    prepare()
    from mlxport.converter.rules.build import build_layer

    return build_layer(module)


def verify(
    model: mlx.nn.Module,
    module: torch.nn.Module,
    example_inputs: torch.Tensor | Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    names: Names | None = None,
    mlx_inputs: Inputs | None = None,
    inputs_order: Axes | Sequence[Axes] | None = None,
    outputs_order: Axes | Sequence[Axes] | None = None,
    noise_multiple: float | None = None,
    gradients: bool = False,
) -> ParityReport:
    """Hold an MLX model to its torch model, on these inputs: a converted one, or one of your own.

    Of a model written by hand, submodules are paired by name, and the order in which each stores
    its axes is found by shape and values; its own outputs may lie in PyTorch's order, channels-last
    or sequence-first, anything else has to be said. What has no counterpart is listed in the
    report, not judged.

    Args:
        model: the MLX model, in eval mode, with the torch model's weights.
        module: the torch model.
        example_inputs: a tensor, or the positional inputs in a tuple or list. Best random, and of
            sizes that all differ: equal sizes and symmetric values tell axes apart less well.
        kwargs: keyword inputs.
        names: name of a submodule in PyTorch -> in the MLX model, where they differ:
            ``{"encoder.*": "enc.*"}``, patterns as in ``load_weights(rename=)``. None as the name
            in MLX leaves modules out whose boundaries differ.
        mlx_inputs: what to call the MLX model with: an array, arrays in a tuple or list, by name in
            a dict, or a function that makes these of PyTorch's inputs as arrays. By default
            PyTorch's inputs, logical or channels-last, whichever runs and agrees.
        inputs_order: instead, ``"logical"``, ``"channels_last"``, or PyTorch's axes in the order in
            which MLX stores them, ``(0, 2, 3, 1)``; for all inputs, or for each in a list.
        outputs_order: the same of the model's outputs.
        noise_multiple: how many times PyTorch's own rounding noise passes (default 32).
        gradients: as for ``convert``; of a converted model only.

    Raises:
        OptionsError: ``names`` or an order does not fit, or stands beside a converted model.
        ParityError: the model is in training mode, fails on the inputs, or does not fit the torch
            model: no submodule has a counterpart.
    """
    prepare()
    from mlxport.converter.conversion import verify_model

    return verify_model(
        model,
        module,
        _positional(example_inputs),
        kwargs,
        names=names,
        mlx_inputs=mlx_inputs,
        inputs_order=inputs_order,
        outputs_order=outputs_order,
        noise_multiple=noise_multiple,
        gradients=gradients,
    )


def verify_folder(
    folder: str | Path,
    *,
    device: str = "auto",
    noise_multiple: float | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
) -> ParityReport:
    """Run the model of an output folder and hold it to the reference stored in it.

    Needs mlx, not torch.

    Args:
        folder: what ``mlxport convert`` wrote.
        device: ``auto``, ``cpu``, ``metal`` or ``cuda``.
        noise_multiple: how many times PyTorch's own rounding noise passes (default 32).
        output: a file to write the report to: ``.html``, ``.md`` or ``.json``.
        overwrite: replace that file if it exists.

    Raises:
        ConversionError: the folder holds no converted model.
        DeviceError: the device is not on this machine.
        OptionsError: the report cannot be written there.
    """
    prepare()
    from mlxport.converter.folder import verify_folder
    from mlxport.converter.parity.pages import check_page, write_page

    if output is not None:
        check_page(Path(output), overwrite=overwrite)
    found = verify_folder(folder, device=device, noise_multiple=noise_multiple)
    if output is not None:
        write_page(Path(output), {Path(output).stem: found}, overwrite=overwrite)
    return found


def report(
    sources: Sequence[str | Path], output: str | Path | None = None, *, overwrite: bool = False
) -> dict[str, ParityReport]:
    """Read parity reports of one model, and write them as a page side by side.

    Args:
        sources: files that ``convert`` and ``verify`` wrote, or output folders.
        output: the page to write: ``.html``, ``.md`` or ``.json``; none if not given.
        overwrite: replace an existing file.

    Returns:
        The reports by their names: the files', or where these are alike their folders'.

    Raises:
        ParityError: a file holds no report; all of them are listed.
        OptionsError: the page cannot be written.
    """
    from mlxport.converter.parity.pages import read_reports, write_page

    reports = read_reports([Path(source) for source in sources])
    if output is not None:
        write_page(Path(output), reports, overwrite=overwrite)
    return reports


def inspect(
    source: str | Path,
    *,
    key: str | None = None,
    prefix: str | None = None,
    rename: Patterns | None = None,
    layers: Sequence[str] = (),
) -> Inspection:
    """Tell what is in a checkpoint, what each tensor is taken for, and on what evidence.

    Args:
        source: as for ``convert_checkpoint``.
        key: where in a nested checkpoint the state dict lies.
        prefix: look at the keys under this prefix alone.
        rename: old key -> new key, as for ``load_weights``.
        layers: as for ``convert_checkpoint``.

    Returns:
        A row for each tensor; ``.to_text()`` is a table, ``.to_json()`` data.

    Raises:
        ConversionError: the checkpoint cannot be read, or holds several state dicts.
    """
    prepare()
    from mlxport.converter.weights_only import inspect

    return inspect(source, key=key, prefix=prefix, rename=rename, layers=layers)


def load_weights(
    model: mlx.nn.Module,
    source: str | Path | Mapping[str, Any],
    *,
    rename: Patterns | None = None,
    key: str | None = None,
    prefix: str | None = None,
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
            compiled regular expression, or text after ``re:``, fits the whole key.
        key: where in a nested checkpoint the state dict lies.
        prefix: take the keys under this prefix alone, without it.
        strict: load nothing unless everything fits; otherwise what fits.

    Returns:
        What was loaded from where, and what was not.

    Raises:
        StateDictError: tensors are missing, unexpected or misshapen, or a layer does not say its
            layout; all of them are listed and the model is as it was.

    Warns:
        UserWarning: float64 became float32, as MLX computes in that.
    """
    prepare()
    from mlxport.converter.load_weights import load_weights

    return load_weights(model, source, rename=rename, key=key, prefix=prefix, strict=strict)


def restore(
    source: str | Path, output: str | Path, *, partial: bool = False, overwrite: bool = False
) -> Restored:
    """Write the PyTorch checkpoint that an output folder was made from.

    Keys, shapes, dtypes and bits are those of the checkpoint. Tied tensors share their memory again
    in ``.pt`` and are written under each of their names in ``.safetensors``. Needs no torch for
    ``.safetensors``.

    Args:
        source: the output folder, or the ``conversion.json`` in it. Its weights may have been
            trained further.
        output: the file to write: ``.safetensors``, or ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` as
            ``torch.save`` writes them.
        partial: write the rest where tensors cannot be given back, as a norm was folded into them.
        overwrite: replace an existing file.

    Returns:
        The keys that were written, and what is lost or rounded.

    Raises:
        ConversionError: tensors cannot be given back, or the folder is damaged; all are listed and
            nothing is written.
    """
    prepare()
    from mlxport.converter.restore import restore

    return restore(source, output, partial=partial, overwrite=overwrite)


def export_function(
    folder: str | Path,
    path: str | Path,
    *,
    shapeless: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    noise_multiple: float | None = None,
) -> Exported:
    """Export the model of an output folder as one file with weights, for MLX in C++ and Swift.

    Written by ``mx.export_function`` and held to ``model.py`` on the stored inputs. It takes and
    gives arrays by position, flattened. Needs mlx, not torch.

    Args:
        folder: what ``mlxport convert`` wrote.
        path: the file to write, ``model.mlxfn``.
        shapeless: take other shapes too; MLX cannot export every model so.
        overwrite: replace an existing file.
        device: what the function is to run on, ``auto``, ``cpu``, ``metal`` or ``cuda``: it is
            fixed in the file.
        noise_multiple: how many times PyTorch's own rounding noise passes (default 32), where the
            bits are not those of ``model.py``.

    Raises:
        ConversionError: MLX cannot export the model, or the folder holds none; nothing is written.
        ParityError: the exported function computes something else; nothing is written.
        DeviceError: the device is not on this machine.
    """
    prepare()
    from mlxport.converter.export import export_folder

    return export_folder(
        folder,
        path,
        shapeless=shapeless,
        overwrite=overwrite,
        device=device,
        noise_multiple=noise_multiple,
    )


def load(folder: str | Path) -> mlx.nn.Module:
    """Return the MLX model of an output folder, with its weights, in eval mode.

    Raises:
        ConversionError: the folder holds no converted model.
    """
    prepare()
    from mlxport.converter.loading import live_model

    model: mlx.nn.Module = live_model(folder)
    return model


def _positional(example_inputs: Any) -> tuple[Any, ...]:
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs)
    return (example_inputs,)


def parse_renames(options: Sequence[str]) -> dict[str | re.Pattern[str], str]:
    """Return what ``rename=`` takes of ``OLD=NEW`` texts.

    Raises:
        OptionsError: one has no ``=``.
    """
    from mlxport.converter.checkpoint.rename import parse_renames

    return parse_renames(options)


def support(
    search: str = "",
    *,
    form: Literal["text", "json", "markdown"] = "text",
    imports: Sequence[str] = (),
) -> str:
    """Return the table of supported torch.nn classes and ATen operations.

    Args:
        search: show only the rows that hold this text (``form="text"`` only).
        form: ``"text"`` for a terminal, ``"json"``, or ``"markdown"`` (``docs/supported.md``).
        imports: modules that register rules and handlers of their own.

    Raises:
        OptionsError: a module cannot be imported.
    """
    prepare()
    if imports:
        from mlxport.converter.factory import import_registrations

        import_registrations(imports)
    from mlxport.converter.support import as_json, as_markdown, as_text

    if form == "json":
        return json.dumps(as_json(), indent=1)
    return as_markdown() if form == "markdown" else as_text(search)
