"""Write and read references: ``reference.safetensors``, for machines without torch.

Layer inputs are left out, they would be as large as all activations. Every array is stored as raw
bits; the metadata in the header says, as JSON, what each array is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlxport.converter.checkpoint.formats.safetensors import SafetensorsFile
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.errors import CheckpointError, ConversionError, EvidenceError
from mlxport.converter.parity.verdict.reference_data import (
    Call,
    Draw,
    NumpyArray,
    Reference,
    ReferenceValue,
)
from mlxport.converter.plan.json_data import (
    Count,
    Real,
    from_data,
    named_format,
    parse_json,
    to_data,
)
from mlxport.converter.plan.structure import Signature
from mlxport.converter.plan.tensor import STORAGE, DtypeName, Tensor

REFERENCE_FORMAT = "mlxport-reference"
REFERENCE_VERSION = 1

# numpy dtype -> the dtype's name in the file; those that only lend their bits to others come later
_PLAIN: dict[np.dtype[Any], str] = {}
for _name, _storage in STORAGE.items():
    _PLAIN.setdefault(_storage, _name)


@dataclass(frozen=True)
class _TensorHeader:
    """A tensor in the header: the name of its values in the file."""

    name: str
    dtype: DtypeName


@dataclass(frozen=True)
class _ValueHeader:
    """A value in the header; three of its fields are names of arrays in the file."""

    shape: tuple[Count, ...]
    dtype: str
    reference_dtype: str
    reference: str
    own: str
    indices: str | None
    moved: Real = 0.0


@dataclass(frozen=True)
class _CallHeader:
    """A call in the header."""

    path: str
    number: Count
    outputs: tuple[_ValueHeader, ...]
    draws: tuple[Count, Count] = (0, 0)


@dataclass(frozen=True)
class _DrawHeader:
    """A random draw in the header; ``values`` is the name of an array in the file."""

    kind: str
    shape: tuple[Count, ...]
    dtype: str
    values: str


@dataclass(frozen=True, kw_only=True)
class _Header:
    """The header of the file; fields as of `Reference`."""

    format: Literal["mlxport-reference"] = "mlxport-reference"
    version: Literal[1] = 1
    inputs: tuple[_TensorHeader, ...]
    outputs: tuple[_ValueHeader, ...]
    signature: Signature | None = None
    calls: tuple[_CallHeader, ...]
    draws: tuple[_DrawHeader, ...] = ()
    aliases: Mapping[str, str]
    dtype: str
    reference_dtype: str
    fallback: str
    seed: int
    sample: int
    versions: Mapping[str, str]
    sizes: Mapping[str, int] = field(default_factory=dict)
    case: str = ""
    fast_path: str = ""
    state: Mapping[str, _ValueHeader] = field(default_factory=dict)
    call: Count = 1


def save_reference(path: str | os.PathLike[str], reference: Reference) -> None:
    """Write a reference, without layer inputs, in place of whatever was in the file.

    Written beside the destination and then renamed, so a failure leaves the old file or none.

    Raises:
        EvidenceError: the file cannot be written.
    """
    writer = _Writer()
    header = _Header(
        inputs=tuple(writer.tensor(f"input.{k}", x) for k, x in enumerate(reference.inputs)),
        outputs=writer.values("output", reference.outputs),
        signature=reference.signature,
        calls=tuple(
            _CallHeader(
                call.path, call.number, writer.values(f"call.{k}", call.outputs), call.draws
            )
            for k, call in enumerate(reference.calls)
        ),
        draws=tuple(writer.draw(f"draw.{k}", draw) for k, draw in enumerate(reference.draws)),
        aliases=reference.aliases,
        dtype=reference.dtype,
        reference_dtype=reference.reference_dtype,
        fallback=reference.fallback,
        seed=reference.seed,
        sample=reference.sample,
        versions=reference.versions,
        sizes=reference.sizes,
        case=reference.case,
        fast_path=reference.fast_path,
        state=dict(
            zip(reference.state, writer.values("state", [*reference.state.values()]), strict=True)
        ),
        call=reference.call,
    )
    tensors = {name: Tensor(bits, _PLAIN[bits.dtype]) for name, bits in writer.arrays.items()}
    try:
        write_safetensors(
            Path(path), tensors, {"mlxport": json.dumps(to_data(header), allow_nan=False)}
        )
    except CheckpointError as error:
        raise EvidenceError(f"cannot write the reference: {error}") from error


def load_reference(path: str | os.PathLike[str]) -> Reference:
    """Read a reference.

    Returns:
        The reference; its arrays are read from the file when they are judged.

    Raises:
        EvidenceError: the file is missing, damaged, of another version or no reference.
    """
    where = os.fspath(path)
    try:
        file = SafetensorsFile(Path(path))
        data = parse_json(file.header.metadata.get("mlxport", "{}"))
        form, version = named_format(data)
        if (form, version) != (REFERENCE_FORMAT, REFERENCE_VERSION):
            raise EvidenceError(
                f"{where}: expected {REFERENCE_FORMAT} version {REFERENCE_VERSION}, got {form!r} "
                f"version {version!r}. It should be the reference.safetensors of an mlxport output "
                "folder."
            )
        header = from_data(_Header, data)
        taken = header.inputs if header.signature is None else header.signature.tensors()
        if len(taken) != len(header.inputs):
            raise ConversionError(
                f"inputs: {len(header.inputs)} tensors, and signature.arguments has "
                f"{', '.join(map(str, taken)) or 'none'}"
            )
        return _reference(header, {name: tensor.bits for name, tensor in file.items()})
    except EvidenceError:
        raise
    except CheckpointError as error:
        raise EvidenceError(f"cannot read the reference {where}: {error}") from error
    except ConversionError as error:
        raise EvidenceError(f"{where} is a damaged reference: {error}") from error
    except (KeyError, ValueError) as error:
        raise EvidenceError(f"{where} is a damaged reference: {error!r}") from error


class _Writer:
    """Collects the arrays of the file; equal index sets are stored once."""

    def __init__(self) -> None:
        self.arrays: dict[str, NumpyArray] = {}

    def tensor(self, name: str, tensor: Tensor) -> _TensorHeader:
        return _TensorHeader(self._put(name, tensor.bits), tensor.dtype)

    def values(self, prefix: str, values: Sequence[ReferenceValue]) -> tuple[_ValueHeader, ...]:
        return tuple(self._value(f"{prefix}.{k}", value) for k, value in enumerate(values))

    def draw(self, name: str, draw: Draw) -> _DrawHeader:
        values = draw.values if draw.dtype == "float64" else draw.values.astype(np.float32)
        return _DrawHeader(draw.kind, draw.shape, draw.dtype, self._put(name, values))

    def _value(self, name: str, value: ReferenceValue) -> _ValueHeader:
        indices = None
        if value.indices is not None:
            digest = hashlib.blake2b(value.indices.tobytes(), digest_size=16).hexdigest()
            indices = self._put(f"indices.{digest}", value.indices)
        # native values come from a narrower dtype; float32 represents the common ones exactly
        narrow = value.dtype in ("float16", "bfloat16", "float32")
        native = value.native.astype(np.float32) if narrow else value.native
        return _ValueHeader(
            value.shape,
            value.dtype,
            value.reference_dtype,
            self._put(f"{name}.reference", _pairs(value.reference)),
            self._put(f"{name}.own", _pairs(native)),
            indices,
            value.moved,
        )

    def _put(self, name: str, array: NumpyArray) -> str:
        # safetensors writes memory as it is laid out
        self.arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
        return name


def _pairs(values: NumpyArray) -> NumpyArray:
    # safetensors has no complex128
    return values.view(np.float64) if np.iscomplexobj(values) else values


def _reference(header: _Header, arrays: Mapping[str, NumpyArray]) -> Reference:
    def value(record: _ValueHeader) -> ReferenceValue:
        reference, native = arrays[record.reference], arrays[record.own]
        # all stays in the file until it is judged, layer by layer
        if record.dtype.startswith("complex"):
            reference = reference.view(np.complex128)
            native = native.astype(np.float64).view(np.complex128)
        indices = None if record.indices is None else arrays[record.indices]
        return ReferenceValue(
            record.shape,
            record.dtype,
            reference,
            native,
            indices,
            record.reference_dtype,
            record.moved,
        )

    def call(record: _CallHeader) -> Call:
        outputs = tuple(map(value, record.outputs))
        return Call(record.path, record.number, outputs, draws=record.draws)

    return Reference(
        inputs=tuple(Tensor(arrays[x.name], x.dtype) for x in header.inputs),
        outputs=tuple(map(value, header.outputs)),
        signature=header.signature,
        calls=tuple(map(call, header.calls)),
        draws=tuple(
            Draw(x.kind, x.shape, x.dtype, arrays[x.values].astype(np.float64))
            for x in header.draws
        ),
        aliases=header.aliases,
        dtype=header.dtype,
        reference_dtype=header.reference_dtype,
        fallback=header.fallback,
        seed=header.seed,
        sample=header.sample,
        versions=header.versions,
        sizes=header.sizes,
        case=header.case,
        fast_path=header.fast_path,
        state={name: value(record) for name, record in header.state.items()},
        call=header.call,
    )
