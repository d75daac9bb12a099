"""Load a checkpoint's weights into a torch model, without losing a bit unasked."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import Checkpoint, printable
from mlxport.converter.checkpoint.keys.match import match_keys
from mlxport.converter.checkpoint.writing.finite import non_finite
from mlxport.converter.errors import StateDictError
from mlxport.converter.plan.tensor import same_bits
from mlxport.converter.plan.torch_tensor import TORCH_DTYPE, tensor_to_torch
from mlxport.converter.timings import stage

# The floating-point dtypes a model can run in.
_RUNNING = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


class NonFiniteWarning(UserWarning):
    """Weights hold NaN or infinity."""


@stage("read")
def load_into_model(
    model: torch.nn.Module,
    checkpoint: Checkpoint,
    *,
    prefix: str | None = None,
    allow_lossy_cast: bool = False,
) -> dict[str, str]:
    """Load the weights into the model, all or nothing, and return model key -> checkpoint key.

    Where all floating-point tensors of the checkpoint share one dtype, the model's parameters and
    buffers take it on: nothing is rounded. Where they do not, the model keeps its dtypes and the
    values are cast; a cast that could round is refused. Parameters keep their identity, and so
    their ties. The checkpoint is copied, not shared.

    Args:
        model: changed in place.
        checkpoint: the weights.
        prefix: take the checkpoint's keys under this prefix alone.
        allow_lossy_cast: round where the model's dtype cannot hold the checkpoint's values.

    Raises:
        StateDictError: keys or shapes do not fit, dtypes are of another kind, a cast would round,
            or the model has tensors without values; all problems of a kind are listed.

    Warns:
        NonFiniteWarning: weights hold NaN or infinity; all of them are named.
    """
    targets = _targets(model)
    ties = {name: id(target) for name, target in targets.items()}
    keys = match_keys(
        {key: tensor.shape for key, tensor in checkpoint.tensors.items()},
        {name: tuple(target.shape) for name, target in targets.items()},
        prefix=prefix,
        ties=ties,
    )
    dtypes = _dtypes(keys, targets, checkpoint, allow_lossy_cast)
    _check_ties(keys, ties, checkpoint)
    used = dict.fromkeys(keys.values())
    if names := non_finite((key, checkpoint.tensors[key]) for key in used):
        listed = ", ".join(map(printable, names))
        message = f"these weights hold NaN or infinity: {listed}"
        warnings.warn(message, NonFiniteWarning, stacklevel=2)
    for name, key in keys.items():
        value = tensor_to_torch(checkpoint.tensors[key])
        # .data keeps the Parameter object, which the model may hold in several places.
        targets[name].data = value.to(targets[name].device, dtypes[name])
    return keys


def _targets(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return state dict key -> the model's own tensor, not a copy."""
    entries = model.state_dict(keep_vars=True).items()
    targets = {name: value for name, value in entries if isinstance(value, torch.Tensor)}
    # A checkpoint does not hold the non-persistent buffers: these the model itself must have.
    for name, tensor in {**dict(model.named_buffers()), **targets}.items():
        if torch.nn.parameter.is_lazy(tensor) or tensor.is_meta:
            raise StateDictError(
                f"{name} and perhaps other tensors of the model have no values or no shape yet. "
                "Build the model on the CPU, not on the meta device, and call it once where it "
                "is lazy."
            )
    return targets


def _dtypes(
    keys: Mapping[str, str],
    targets: Mapping[str, torch.Tensor],
    checkpoint: Checkpoint,
    allow_lossy_cast: bool,
) -> dict[str, torch.dtype]:
    """Return model key -> the dtype it is to have."""
    given = {name: TORCH_DTYPE[checkpoint.tensors[key].dtype] for name, key in keys.items()}
    floats = {dtype for dtype in given.values() if dtype.is_floating_point}
    adopted = floats if len(floats) == 1 and floats <= _RUNNING else set()
    result: dict[str, torch.dtype] = {}
    misfits, lossy = [], []
    for name, theirs in given.items():
        ours = targets[name].dtype
        result[name] = theirs if theirs in adopted else ours
        if _kind(theirs) != _kind(ours):
            misfits.append(f"{printable(name)}: expected {ours}, got {theirs}")
        elif not _holds(result[name], theirs):
            lossy.append(f"{printable(name)}: {theirs} to {ours}")
    if misfits:
        raise StateDictError.listing(
            "these tensors have dtypes of another kind than the model's:",
            misfits,
            "The checkpoint belongs to another model, or to a quantised form of it.",
        )
    if lossy and not allow_lossy_cast:
        raise StateDictError.listing(
            f"{len(lossy)} tensors could be rounded when cast to the model's dtypes:",
            lossy,
            f"Cast the model first (model.float()), or pass {argument('allow_lossy_cast', True)}.",
        )
    return result


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_floating_point or dtype.is_complex:
        return "complex" if dtype.is_complex else "floating"
    return "bool" if dtype == torch.bool else "integer"


def _holds(wide: torch.dtype, narrow: torch.dtype) -> bool:
    """Tell whether every value of ``narrow`` is a value of ``wide``, both of one kind."""
    if wide == narrow:
        return True
    if not narrow.is_floating_point and not narrow.is_complex:
        ours, theirs = torch.iinfo(wide), torch.iinfo(narrow)
        return ours.min <= theirs.min and ours.max >= theirs.max
    if narrow.itemsize == 1:
        # 8-bit floats reach no further than float16, but for the exponents of float8_e8m0fnu.
        return wide in _RUNNING - ({torch.float16} if narrow == torch.float8_e8m0fnu else set())
    return wide in _RUNNING and torch.promote_types(wide, narrow) == wide


def _check_ties(keys: Mapping[str, str], ties: Mapping[str, int], checkpoint: Checkpoint) -> None:
    """Check that what the model holds once has one value in the checkpoint."""
    first: dict[int, str] = {}
    problems = []
    for name, key in keys.items():
        other = first.setdefault(ties[name], key)
        if checkpoint.storage[key] != checkpoint.storage[other] and not same_bits(
            checkpoint.tensors[key], checkpoint.tensors[other]
        ):
            problems.append(f"{printable(other)} and {printable(key)}")
    if problems:
        raise StateDictError.listing(
            "the model has one tensor where the checkpoint has two that differ:",
            problems,
            "Build the model without tying them.",
        )
