"""Rules for batch, instance, group, layer, RMS and local response normalisation."""

from __future__ import annotations

from typing import Any

import mlx.nn as nn
import torch

from mlxport import layers
from mlxport.converter.rules.entries import entry_of, unchanged_entries
from mlxport.converter.rules.registry import Axes, LayerSpec, Refusal, changed, rule

_TRACKED = "num_batches_tracked"
_UNUSED = "counts training batches; only momentum=None needs it"
_BATCH_OPS = ("aten.batch_norm.default", "aten.add_.Tensor")
_INSTANCE_OPS = ("aten.instance_norm.default", "aten.unsqueeze.default", "aten.squeeze.dim")


@rule(
    torch.nn.BatchNorm1d,
    torch.nn.BatchNorm2d,
    ops=_BATCH_OPS,
    target="mlx.nn.BatchNorm, layers.BatchNorm",
)
@rule(torch.nn.BatchNorm3d, ops=_BATCH_OPS, target="layers.BatchNorm")
@rule(
    torch.nn.SyncBatchNorm,
    ops=_BATCH_OPS,
    target="layers.BatchNorm",
    restrictions="training takes the statistics of one process",
)
def batch_norm(module: Any) -> LayerSpec:
    """MLX's where it computes the same, otherwise ``layers.BatchNorm``."""
    _check_statistics(module)
    cumulative = module.momentum is None and module.track_running_stats
    defaults = {"eps": 1e-5, "momentum": 0.1, "affine": True, "track_running_stats": True}
    arguments = changed(
        defaults,
        eps=module.eps,
        momentum=module.momentum,
        affine=module.weight is not None,
        track_running_stats=module.track_running_stats,
    )
    arguments |= _bias(module)
    names = ("weight", "bias", "running_mean", "running_var")
    return LayerSpec(
        nn.BatchNorm if _mlx_computes_the_same(module) else layers.BatchNorm,
        (module.num_features,),
        arguments,
        unchanged_entries(module, *names, *((_TRACKED,) if cumulative else ())),
        {} if cumulative or not module.track_running_stats else {_TRACKED: _UNUSED},
    )


def _mlx_computes_the_same(module: Any) -> bool:
    """Return whether ``mlx.nn.BatchNorm`` computes the same as a module.

    It does for fewer than 5 dimensions, with all statistics in float32, and affine; but not in
    training, where an empty batch would turn its running statistics into NaN.
    """
    tensors = (module.weight, module.bias, module.running_mean, module.running_var)
    return (
        isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d))
        and all(t is not None and t.dtype == torch.float32 for t in tensors)
        and module.momentum is not None
        and module.eps > 0
        and not module.training
    )


@rule(
    torch.nn.InstanceNorm1d,
    torch.nn.InstanceNorm2d,
    torch.nn.InstanceNorm3d,
    ops=_INSTANCE_OPS,
    target="layers.InstanceNorm1d, InstanceNorm2d, InstanceNorm3d",
)
def instance_norm(module: Any) -> LayerSpec:
    """Our layer of the same name: MLX's has no statistics, needs a batch and sums imprecisely."""
    _check_statistics(module)
    rank = module._get_no_batch_dim() - 1
    defaults = {"eps": 1e-5, "momentum": 0.1, "affine": False, "track_running_stats": False}
    arguments = changed(
        defaults,
        eps=module.eps,
        momentum=module.momentum,
        affine=module.weight is not None,
        track_running_stats=module.track_running_stats,
    )
    return LayerSpec(
        (layers.InstanceNorm1d, layers.InstanceNorm2d, layers.InstanceNorm3d)[rank - 1],
        (module.num_features,),
        arguments | _bias(module),
        unchanged_entries(module, "weight", "bias", "running_mean", "running_var"),
        {_TRACKED: _UNUSED} if module.track_running_stats else {},
        rank=rank,
    )


@rule(torch.nn.GroupNorm, ops=["aten.group_norm.default"], target="layers.GroupNorm")
def group_norm(module: Any) -> LayerSpec:
    """``layers.GroupNorm``: MLX's sums imprecisely; for volumes on the CPU it is wrong."""
    arguments = changed(
        {"eps": 1e-5, "affine": True}, eps=module.eps, affine=module.weight is not None
    )
    return LayerSpec(
        layers.GroupNorm,
        (module.num_groups, module.num_channels),
        arguments | _bias(module),
        unchanged_entries(module, "weight", "bias"),
    )


@rule(
    torch.nn.LayerNorm, ops=["aten.layer_norm.default"], target="mlx.nn.LayerNorm, layers.LayerNorm"
)
def layer_norm(module: torch.nn.LayerNorm) -> LayerSpec:
    """MLX's over one axis, ``layers.LayerNorm`` over several or with an eps of 0."""
    shape = tuple(module.normalized_shape)
    arguments = changed(
        {"eps": 1e-5, "affine": True}, eps=module.eps, affine=module.weight is not None
    )
    one_axis = len(shape) == 1
    return LayerSpec(
        nn.LayerNorm if one_axis and module.eps > 0 else layers.LayerNorm,
        (shape[0] if one_axis else shape,),
        arguments | _bias(module),
        unchanged_entries(module, "weight", "bias"),
        axes=Axes.FEATURES_LAST if one_axis else Axes.LOGICAL,
    )


@rule(torch.nn.RMSNorm, ops=["aten.rms_norm.default"], target="mlx.nn.RMSNorm, layers.RMSNorm")
def rms_norm(module: torch.nn.RMSNorm) -> LayerSpec:
    """``mlx.nn.RMSNorm`` over one axis with a weight and an eps, ``layers.RMSNorm`` otherwise."""
    return rms_norm_spec(tuple(module.normalized_shape), module.eps, module.weight is not None)


def rms_norm_spec(shape: tuple[int, ...], eps: float | None, affine: bool) -> LayerSpec:
    """Return the spec of an RMS norm over the last axes.

    Args:
        shape: the sizes of the axes normalised over.
        eps: added to the mean square; None stands for the dtype's machine epsilon.
        affine: whether there is a parameter ``weight`` of that shape.
    """
    one_axis = len(shape) == 1
    axes = Axes.FEATURES_LAST if one_axis else Axes.LOGICAL
    entries = (entry_of("weight"),) if affine else ()
    if one_axis and affine and eps:
        return LayerSpec(nn.RMSNorm, shape, changed({"eps": 1e-5}, eps=eps), entries, axes=axes)
    arguments = changed({"eps": None, "affine": True}, eps=eps, affine=affine)
    return LayerSpec(
        layers.RMSNorm, (shape[0] if one_axis else shape,), arguments, entries, axes=axes
    )


def unit_offset_norm_spec(size: int, eps: float) -> LayerSpec:
    """Return the spec of an RMS norm over the last axis that scales by ``1 + weight``.

    Args:
        size: of the axis.
        eps: added to the mean square, above 0.
    """
    arguments = changed({"eps": 1e-6}, eps=eps)
    entries = (entry_of("weight"),)
    return LayerSpec(layers.UnitOffsetRMSNorm, (size,), arguments, entries, axes=Axes.FEATURES_LAST)


_LRN_OPS = (
    "aten.mul.Tensor",
    "aten.unsqueeze.default",
    "aten.view.default",
    "aten.pad.default",
    "aten.avg_pool2d.default",
    "aten.avg_pool3d.default",
    "aten.squeeze.dim",
    "aten.add.Tensor",
    "aten.pow.Tensor_Scalar",
    "aten.div.Tensor",
)


@rule(torch.nn.LocalResponseNorm, ops=_LRN_OPS, target="layers.LocalResponseNorm")
def local_response_norm(module: Any) -> LayerSpec:
    """``layers.LocalResponseNorm``: MLX has none."""
    return LayerSpec(layers.LocalResponseNorm, (module.size,), _response_arguments(module))


_CROSS_MAP_OPS = (
    "aten.empty.memory_format",
    "aten.resize_as_.default",
    "aten.pow.Tensor_Scalar_out",
    "aten.select.int",
    "aten.zero_.default",
    "aten.add_.Tensor",
    "aten.copy_.default",
    "aten.mul_.Tensor",
)


@rule(
    torch.nn.CrossMapLRN2d,
    ops=_CROSS_MAP_OPS,
    target="layers.CrossMapLRN2d",
    restrictions="gradients are the forward pass's derivative, which PyTorch's are not",
)
def cross_map_lrn(module: Any) -> LayerSpec:
    """``layers.CrossMapLRN2d``: MLX has none."""
    return LayerSpec(layers.CrossMapLRN2d, (module.size,), _response_arguments(module))


def _response_arguments(module: Any) -> dict[str, Any]:
    return changed(
        {"alpha": 1e-4, "beta": 0.75, "k": 1.0}, alpha=module.alpha, beta=module.beta, k=module.k
    )


def _bias(module: Any) -> dict[str, Any]:
    return {"bias": False} if module.weight is not None and module.bias is None else {}


def _check_statistics(module: Any) -> None:
    present = [
        name for name in ("running_mean", "running_var") if getattr(module, name) is not None
    ]
    if len(present) != (2 if module.track_running_stats else 0):
        raise Refusal(
            f"track_running_stats={module.track_running_stats}, but it has "
            f"{' and '.join(present) or 'no running statistics'}; build it anew with what it uses"
        )
