"""Which dtypes a torch model takes on from a checkpoint, without losing a bit unasked."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import Checkpoint, printable
from mlxport.converter.errors import StateDictError
from mlxport.converter.plan.tensor import same_bits
from mlxport.converter.plan.torch_tensor import TORCH_DTYPE

# The floating-point dtypes a model can run in.
RUNNING = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


def dtypes_of(
    keys: Mapping[str, str],
    targets: Mapping[str, torch.Tensor],
    checkpoint: Checkpoint,
    allow_lossy_cast: bool,
) -> dict[str, torch.dtype]:
    """Return model key -> the dtype it is to have.

    Args:
        keys: model key -> key of the checkpoint.
        targets: model key -> the model's tensor.
        checkpoint: the weights.
        allow_lossy_cast: whether values may be rounded.

    Raises:
        StateDictError: dtypes are of another kind, or a cast would round; all are listed.
    """
    given = {name: TORCH_DTYPE[checkpoint.tensors[key].dtype] for name, key in keys.items()}
    floats = {dtype for dtype in given.values() if dtype.is_floating_point}
    adopted = floats if len(floats) == 1 and floats <= RUNNING else set()
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
        has_float64 = torch.float64 in given.values()
        raise StateDictError.listing(
            f"{len(lossy)} tensors could be rounded when cast to the model's dtypes:",
            lossy,
            f"Cast the model first (model.float()), or pass {argument('allow_lossy_cast', True)}."
            + f" {argument('dtype', 'float32')} casts all, as MLX has no float64." * has_float64,
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
        return wide in RUNNING - ({torch.float16} if narrow == torch.float8_e8m0fnu else set())
    return wide in RUNNING and torch.promote_types(wide, narrow) == wide


def check_ties(keys: Mapping[str, str], ties: Mapping[str, int], checkpoint: Checkpoint) -> None:
    """Check that what the model holds once has one value in the checkpoint.

    Args:
        keys: model key -> key of the checkpoint.
        ties: model key -> identity of its tensor.
        checkpoint: the weights.

    Raises:
        StateDictError: it has two; all of them are listed.
    """
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


def take_on(targets: Mapping[str, torch.Tensor], dtypes: Mapping[str, torch.dtype]) -> None:
    """Give tensors of a model other dtypes."""
    for name, dtype in dtypes.items():
        # .data keeps the Parameter object, which the model may hold in several places.
        if targets[name].dtype != dtype:
            targets[name].data = targets[name].data.to(dtype)
