"""A reference in a file: ``reference.safetensors``, for machines without torch.

Layer inputs are left out, they would be as large as all activations. Every array is stored as its
raw bits; the header's metadata holds, as JSON, what each array belongs to.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlxport.converter.checkpoint.formats.safetensors import SafetensorsFile
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.errors import CheckpointError, ParityError
from mlxport.converter.parity.verdict.reference_data import (
    Call,
    Draw,
    NumpyArray,
    Reference,
    ReferenceValue,
)
from mlxport.converter.plan.structure import Signature
from mlxport.converter.plan.tensor import STORAGE, Tensor

REFERENCE_FORMAT = "mlxport-reference"
REFERENCE_VERSION = 1

# numpy dtype -> the dtype's name in the file; those that only lend their bits to others come later
_PLAIN: dict[np.dtype[Any], str] = {}
for _name, _storage in STORAGE.items():
    _PLAIN.setdefault(_storage, _name)


def save_reference(path: str | os.PathLike[str], reference: Reference) -> None:
    """Write a reference, without layer inputs, in place of whatever the file held.

    Written beside the destination and then renamed, so a failure leaves the old file or none.

    Raises:
        ParityError: the file cannot be written.
    """
    writer = _Writer()
    header = {
        "format": REFERENCE_FORMAT,
        "version": REFERENCE_VERSION,
        "inputs": [writer.tensor(f"input.{k}", x) for k, x in enumerate(reference.inputs)],
        "outputs": writer.values("output", reference.outputs),
        "signature": reference.signature and reference.signature.to_json(),
        "calls": [
            {
                "path": call.path,
                "number": call.number,
                "outputs": writer.values(f"call.{k}", call.outputs),
                "draws": list(call.draws),
            }
            for k, call in enumerate(reference.calls)
        ],
        "draws": [writer.draw(f"draw.{k}", draw) for k, draw in enumerate(reference.draws)],
        "aliases": dict(reference.aliases),
        "dtype": reference.dtype,
        "reference_dtype": reference.reference_dtype,
        "fallback": reference.fallback,
        "seed": reference.seed,
        "sample": reference.sample,
        "versions": dict(reference.versions),
        "sizes": dict(reference.sizes),
        "case": reference.case,
    }
    tensors = {name: Tensor(bits, _PLAIN[bits.dtype]) for name, bits in writer.arrays.items()}
    try:
        write_safetensors(Path(path), tensors, {"mlxport": json.dumps(header, allow_nan=False)})
    except CheckpointError as error:
        raise ParityError(f"cannot write the reference: {error}") from error


def load_reference(path: str | os.PathLike[str]) -> Reference:
    """Read a reference.

    Returns:
        The reference; its arrays are read from the file when they are judged.

    Raises:
        ParityError: the file is missing, damaged, of another version or no reference.
    """
    try:
        file = SafetensorsFile(Path(path))
        header = _checked(json.loads(file.header.metadata.get("mlxport", "{}")), path)
        return _reference(header, {name: tensor.bits for name, tensor in file.items()})
    except (CheckpointError, ValueError) as error:
        raise ParityError(f"cannot read the reference {os.fspath(path)}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ParityError(f"{os.fspath(path)} is a damaged reference: {error!r}") from error


def _checked(header: Any, path: str | os.PathLike[str]) -> Mapping[str, Any]:
    form, version = header.get("format"), header.get("version")
    if (form, version) != (REFERENCE_FORMAT, REFERENCE_VERSION):
        raise ParityError(
            f"{os.fspath(path)}: expected {REFERENCE_FORMAT} version {REFERENCE_VERSION}, got "
            f"{form!r} version {version!r}. "
            "It should be the reference.safetensors of an mlxport output folder."
        )
    return dict(header)


class _Writer:
    """Collects the arrays of the file; equal index sets are stored once."""

    def __init__(self) -> None:
        self.arrays: dict[str, NumpyArray] = {}

    def tensor(self, name: str, tensor: Tensor) -> dict[str, str]:
        return {"name": self._put(name, tensor.bits), "dtype": tensor.dtype}

    def values(self, prefix: str, values: Sequence[ReferenceValue]) -> list[dict[str, Any]]:
        return [self._value(f"{prefix}.{k}", value) for k, value in enumerate(values)]

    def draw(self, name: str, draw: Draw) -> dict[str, Any]:
        held = draw.values if draw.dtype == "float64" else draw.values.astype(np.float32)
        return {
            "kind": draw.kind,
            "shape": list(draw.shape),
            "dtype": draw.dtype,
            "values": self._put(name, held),
        }

    def _value(self, name: str, value: ReferenceValue) -> dict[str, Any]:
        indices = None
        if value.indices is not None:
            digest = hashlib.blake2b(value.indices.tobytes(), digest_size=16).hexdigest()
            indices = self._put(f"indices.{digest}", value.indices)
        # own values come from a narrower dtype, and float32 holds the common ones without loss
        narrow = value.dtype in ("float16", "bfloat16", "float32")
        native = value.native.astype(np.float32) if narrow else value.native
        return {
            "shape": list(value.shape),
            "dtype": value.dtype,
            "reference_dtype": value.reference_dtype,
            "reference": self._put(f"{name}.reference", _pairs(value.reference)),
            "own": self._put(f"{name}.own", _pairs(native)),
            "indices": indices,
        }

    def _put(self, name: str, array: NumpyArray) -> str:
        # safetensors writes the memory as it lies
        self.arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
        return name


def _pairs(values: NumpyArray) -> NumpyArray:
    # safetensors has no complex128
    return values.view(np.float64) if np.iscomplexobj(values) else values


def _reference(header: Mapping[str, Any], arrays: Mapping[str, NumpyArray]) -> Reference:
    def value(data: Mapping[str, Any]) -> ReferenceValue:
        reference, native = arrays[data["reference"]], arrays[data["own"]]
        # all stays in the file until it is judged, layer by layer
        if data["dtype"].startswith("complex"):
            reference = reference.view(np.complex128)
            native = native.astype(np.float64).view(np.complex128)
        indices = None if data["indices"] is None else arrays[data["indices"]]
        shape = tuple(data["shape"])
        return ReferenceValue(
            shape, data["dtype"], reference, native, indices, data["reference_dtype"]
        )

    def values(items: Sequence[Mapping[str, Any]]) -> tuple[ReferenceValue, ...]:
        return tuple(value(item) for item in items)

    return Reference(
        inputs=tuple(Tensor(arrays[x["name"]], x["dtype"]) for x in header["inputs"]),
        outputs=values(header["outputs"]),
        signature=header.get("signature") and Signature.from_json(header["signature"]),
        calls=tuple(
            Call(c["path"], c["number"], values(c["outputs"]), draws=tuple(c.get("draws", (0, 0))))
            for c in header["calls"]
        ),
        draws=tuple(_draw(data, arrays) for data in header.get("draws", [])),
        aliases=dict(header["aliases"]),
        dtype=header["dtype"],
        reference_dtype=header["reference_dtype"],
        fallback=header["fallback"],
        seed=header["seed"],
        sample=header["sample"],
        versions=dict(header["versions"]),
        sizes=dict(header.get("sizes", {})),
        case=header.get("case", ""),
    )


def _draw(data: Mapping[str, Any], arrays: Mapping[str, NumpyArray]) -> Draw:
    values = arrays[data["values"]].astype(np.float64)
    return Draw(data["kind"], tuple(data["shape"]), data["dtype"], values)
