"""Torch models and layers in memory: convert, analyze, verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxport.converter.api.boundary import public
from mlxport.converter.environment import prepare
from mlxport.converter.exclusive import exclusive
from mlxport.converter.timings import stage, timed

if TYPE_CHECKING:
    import mlx.nn
    import torch

    from mlxport.converter.checkpoint.keys.rename import ModuleNames
    from mlxport.converter.graph.capture.dynamic import DynamicAxes
    from mlxport.converter.parity.hand_port.input_orders import MlxInputs, OrderSpec
    from mlxport.converter.parity.report.report import ParityReport
    from mlxport.converter.tasks.analysis.coverage import Analysis
    from mlxport.converter.tasks.analysis.explanation import Explanation
    from mlxport.converter.tasks.result import Converted


@public
@exclusive
@timed
def convert(
    module: torch.nn.Module,
    example_inputs: torch.Tensor | Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    channels_last: bool = False,
    verify: bool = True,
    noise_multiple: float | None = None,
    gradients: bool = False,
    fold_batchnorm: bool = False,
    dynamic: DynamicAxes | None = None,
    dynamic_shapes: Any = None,
    input_kinds: Sequence[str] = (),
    batch_sizes: Sequence[int] | None = None,
    calls: int | None = None,
    debug_dir: str | Path | None = None,
    device: str = "auto",
    adapter: str | Path | None = None,
    merge: bool = False,
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
        verify: compare the MLX model with PyTorch, layer by layer, in float64.
        noise_multiple: how many times PyTorch's own rounding noise passes (default 8).
        gradients: compare the gradients of inputs and parameters with PyTorch's too, in eval mode.
        fold_batchnorm: make one layer of every convolution or linear layer and the BatchNorm
            behind it, where nothing else reads what is between them: faster, rounded otherwise,
            and for inference alone. ``.notes`` tell what was folded and what was not.
        dynamic: axes whose size may change from call to call, in every input that has them and
            more than one element there: ``(0,)`` is the batch, ``(0, 2, 3)`` the batch and both
            sides of an image. Sizes that are equal in the example along one axis are one size;
            ``{"ids": (0, 1), "mask": 0}``, axes per argument of ``forward``, leaves it to
            torch.export which go together. Parity is judged at a second set of sizes too.
        dynamic_shapes: the same in torch.export's own words, in place of ``dynamic``.
        input_kinds: kinds of inputs to judge besides the example: ``"normal"``, ``"constant"``,
            ``"impulse"`` (one 1 among zeros), ``"large"`` (some values 1024 times the others).
            Integers are drawn from the example's, masks stay as they are.
        batch_sizes: sizes of the first axis to judge besides; 1 and 2 where ``dynamic`` leaves the
            batch open and nothing is said. Of a batch that is fixed the report says so.
        calls: how many calls to judge one after the other, each with what the one before left in
            the model; 4 of a model that keeps state where nothing is said, else 1. Inputs behind
            the first are the example's, rolled along the last axis.
        debug_dir: a folder to write down in, as text, what each stage gives: the captured graphs,
            which modules become layers and why the others do not, each pass of the lowering, the
            bodies of the classes. Made if there is none; of a conversion that fails it holds what
            was reached. The result is the same without.
        device: what MLX runs on while the model is judged, ``auto`` (MLX's default), ``cpu``,
            ``metal`` or ``cuda``. Where it refuses a call of the model, parity fails, and the
            report names layer and line.
        adapter: a folder that PEFT saved a LoRA adapter of this model in
            (``adapter_config.json``, ``adapter_model.safetensors``). PEFT is not needed. The MLX
            model has its matrices beside the layers, trained where all else is frozen, and is
            held to the torch model with the adapter; so it is with ``merge``.
        merge: add the adapter to the weights, in float64, rounded once.

    Returns:
        The live model (``.model``), its source (``.source``), the record of the conversion
        (``.conversion``), the parity report (``.report``), and how long it took (``.timings``).

    Raises:
        CaptureError: torch.export cannot capture the model.
        UnsupportedError: modules or ops have no MLX counterpart; every one is listed.
        DeviceError: the device is not on this machine.
        CheckpointError: the adapter cannot be read, or is of another kind (DoRA).
        StateDictError: the adapter does not fit the model; all problems are listed.
    """
    with stage("imports"):
        prepare()
        from mlxport.converter.options.adapter import AdapterOptions
        from mlxport.converter.options.capture import CaptureOptions
        from mlxport.converter.options.judgement import JudgementOptions
        from mlxport.converter.output.device import on_device
        from mlxport.converter.tasks.convert import convert_model

    capturing = CaptureOptions.of(
        channels_last=channels_last,
        fold_batchnorm=fold_batchnorm,
        dynamic=dynamic,
        dynamic_shapes=dynamic_shapes,
        debug_dir=debug_dir,
    )
    judging = JudgementOptions.of(
        noise_multiple=noise_multiple,
        gradients=gradients,
        input_kinds=input_kinds,
        batch_sizes=batch_sizes,
        calls=calls,
    )
    adapting = AdapterOptions.of(adapter, merge)
    positional = _positional(example_inputs)
    judged = judging if verify else None
    with on_device(device):
        return convert_model(module, positional, kwargs, capturing, judged, adapting)


@public
@exclusive
def analyze(
    module: torch.nn.Module,
    example_inputs: torch.Tensor | Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    channels_last: bool = False,
    dynamic: DynamicAxes | None = None,
    dynamic_shapes: Any = None,
    adapter: str | Path | None = None,
    merge: bool = False,
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
        adapter: as in ``convert``.
        merge: as in ``convert``.

    Returns:
        Modules by class, ops, shares that are covered, everything unsupported; ``str()`` gives it
        for reading, ``.to_json()`` as data.

    Raises:
        ConversionError: the adapter cannot be read, or does not fit the model.
        CaptureError: torch.export cannot capture the model.
    """
    prepare()
    from mlxport.converter.options.adapter import AdapterOptions
    from mlxport.converter.options.capture import CaptureOptions
    from mlxport.converter.tasks.analysis.analyze import analyze_model

    capturing = CaptureOptions.of(
        channels_last=channels_last, dynamic=dynamic, dynamic_shapes=dynamic_shapes
    )
    adapting = AdapterOptions.of(adapter, merge)
    return analyze_model(module, _positional(example_inputs), kwargs, capturing, adapting)


@public
@exclusive
def explain(
    module: torch.nn.Module,
    example_inputs: torch.Tensor | Sequence[Any] = (),
    path: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    channels_last: bool = False,
    dynamic: DynamicAxes | None = None,
    dynamic_shapes: Any = None,
    adapter: str | Path | None = None,
) -> Explanation:
    """Return what ``convert`` makes of each module of a torch model, and why.

    The model is captured and lowered as for a conversion; no weight becomes an MLX array and
    nothing is written. The torch model runs on the inputs.

    Args:
        module: the torch model.
        example_inputs: a tensor, or the positional inputs in a tuple or list.
        path: qualified name of one module (``"encoder.0.conv"``; ``""`` is the model itself), which
            is then explained in full; all modules in one line each, if not given.
        kwargs: keyword inputs.
        channels_last: as in ``convert``.
        dynamic: as in ``convert``.
        dynamic_shapes: as in ``convert``.
        adapter: as in ``convert``; explained as it is apart from its base.

    Returns:
        For each module whether it is a layer, by which rule or why not, its class and lines in
        ``model.py``, the axis orders it takes and gives, its transposes and what happens to its
        tensors; ``str()`` gives it for reading, ``.to_json()`` as data.

    Raises:
        OptionsError: the model has no module at ``path``; those with similar names are listed.
        ConversionError: the adapter cannot be read, or does not fit the model.
        CaptureError: torch.export cannot capture the model.
    """
    prepare()
    from mlxport.converter.options.adapter import AdapterOptions
    from mlxport.converter.options.capture import CaptureOptions
    from mlxport.converter.tasks.analysis.explain import explain_model

    capturing = CaptureOptions.of(
        channels_last=channels_last, dynamic=dynamic, dynamic_shapes=dynamic_shapes
    )
    adapting = AdapterOptions.of(adapter, False)
    return explain_model(module, _positional(example_inputs), kwargs, path, capturing, adapting)


@public
@exclusive
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
    from mlxport.converter.torch_model.model_kinds import checked_module

    return build_layer(checked_module(module))


@public
@exclusive
def verify(
    model: mlx.nn.Module,
    module: torch.nn.Module,
    example_inputs: torch.Tensor | Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    names: ModuleNames | None = None,
    mlx_inputs: MlxInputs | None = None,
    inputs_order: OrderSpec | Sequence[OrderSpec] | None = None,
    outputs_order: OrderSpec | Sequence[OrderSpec] | None = None,
    noise_multiple: float | None = None,
    gradients: bool = False,
    input_kinds: Sequence[str] = (),
    batch_sizes: Sequence[int] | None = None,
    calls: int | None = None,
) -> ParityReport:
    """Compare an MLX model, converted or written by hand, with its torch model on these inputs.

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
            in MLX leaves modules out whose boundaries differ. A name may fit tensors alone, and
            modules whose tensors are joined or split are not judged.
        mlx_inputs: what to call the MLX model with: an array, arrays in a tuple or list, by name in
            a dict, or a function that makes these of PyTorch's inputs as arrays. By default
            PyTorch's inputs, logical or channels-last, whichever runs and agrees.
        inputs_order: instead, ``"logical"``, ``"channels_last"``, or PyTorch's axes in the order in
            which MLX stores them, ``(0, 2, 3, 1)``; for all inputs, or for each in a list.
        outputs_order: the same of the model's outputs.
        noise_multiple: how many times PyTorch's own rounding noise passes (default 8).
        gradients: as for ``convert``. Of a model written by hand, parameters are paired by the
            modules they belong to; what has no counterpart is listed, not judged.
        input_kinds: as for ``convert``.
        batch_sizes: as for ``convert``; of a model written by hand none unless they are said.
        calls: as for ``convert``; the first begins anew, and the model is left with the state that
            it had. Not of a model written by hand.

    Raises:
        OptionsError: ``names`` or an order does not fit, or stands beside a converted model.
        ParityError: the model is in training mode, fails on the inputs, or does not fit the torch
            model: no submodule has a counterpart.
    """
    prepare()
    from mlxport.converter.options.judgement import JudgementOptions
    from mlxport.converter.tasks.convert import verify_model

    judging = JudgementOptions.of(
        noise_multiple=noise_multiple,
        gradients=gradients,
        input_kinds=input_kinds,
        batch_sizes=batch_sizes,
        calls=calls,
    )
    return verify_model(
        model,
        module,
        _positional(example_inputs),
        kwargs,
        judging,
        names=names,
        mlx_inputs=mlx_inputs,
        inputs_order=inputs_order,
        outputs_order=outputs_order,
    )


def _positional(example_inputs: Any) -> tuple[Any, ...]:
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs)
    return (example_inputs,)
