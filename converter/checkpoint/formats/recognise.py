"""Recognise the format of a file by its content, not by its extension.

Needs no torch.
"""

from __future__ import annotations

import logging
import os
import stat
import struct
import tarfile
import zipfile
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from mlxport.converter.checkpoint.checkpoint import printable
from mlxport.converter.checkpoint.formats.safetensors_header import LENGTH_BYTES, MAX_HEADER
from mlxport.converter.errors import CheckpointError
from mlxport.converter.terminal import cleaned

_logger = logging.getLogger(__name__)


class Format(Enum):
    """The formats that can hold a checkpoint mlxport reads."""

    SAFETENSORS = "safetensors"
    INDEX = "index of a sharded checkpoint"
    TORCH_ZIP = "torch.save"
    TORCH_LEGACY = "torch.save before PyTorch 1.6"
    PICKLE = "pickle"


# The file that makes a folder one of torch.distributed.checkpoint.
DISTRIBUTED = ".metadata"
# Of the files that DeepSpeed writes, and of the folders of them.
DEEPSPEED = (
    "DeepSpeed wrote this, a checkpoint in parts: put it together by the script in the folder "
    "above (python zero_to_fp32.py . pytorch_model.bin) and give what that writes."
)
# torch.save before 1.6 begins with this number, pickled, whatever the protocol.
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_COMPRESSED = "decompress it first"
_FIRST_BYTES = 512
# Where a member's local header in a zip archive gives the lengths of its last two parts.
_LENGTHS_AT = 26
_ALIGNMENT = 16
# What compression gains on weights is a fraction; even a file of zeros is not worth this much.
_MOST_GAIN = 64
_HARMLESS = 1 << 27
_LONGEST_SHOWN = 200

# How files begin that are taken for checkpoints -> what they are, and what to do.
_OTHER: dict[bytes, tuple[str, str]] = {
    b"version https://git-lfs": ("a Git LFS pointer, not the file", "run `git lfs pull`"),
    b"<": ("a web page or other markup", "the download failed: fetch it again"),
    b"\x1f\x8b": ("compressed by gzip", _COMPRESSED),
    b"BZh": ("compressed by bzip2", _COMPRESSED),
    b"\xfd7zXZ": ("compressed by xz", _COMPRESSED),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", _COMPRESSED),
    b"\x89HDF": ("an HDF5 file", "load it in PyTorch and torch.save its state dict"),
    b"GGUF": ("a GGUF file", "convert the PyTorch checkpoint it was made from"),
    b"\x93NUMPY": ("a NumPy array", "give the checkpoint of the whole model"),
}


def recognise(path: Path) -> Format:
    """Return the format of a file.

    Raises:
        CheckpointError: the file is missing, empty, cut short, or none of the formats; the message
            says what it is where that is known.
    """
    size = check_path(path).st_size
    try:
        with path.open("rb") as file:
            first = file.read(_FIRST_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if size == 0:
        raise CheckpointError(f"{path}: the file is empty")
    # Before the other beginnings: a header's length may look like any of them.
    if _is_safetensors(first):
        return Format.SAFETENSORS
    if first.startswith(b"PK"):
        return _zip_format(path)
    for beginning, (what, advice) in _OTHER.items():
        if first.startswith(beginning):
            raise CheckpointError(f"{path} is {what}: {advice}.")
    if _is_tar(first):
        raise CheckpointError(_describe_tar(path))
    if _LEGACY_MAGIC in first[:64]:
        return Format.TORCH_LEGACY
    if first.lstrip().startswith(b"{") and path.suffix == ".json":
        return Format.INDEX
    if path.suffix == ".safetensors":  # damaged: its reader says how
        return Format.SAFETENSORS
    if first[0] == 0x80 and first[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return Format.PICKLE
    raise CheckpointError(
        f"{path}: not a checkpoint mlxport knows (safetensors, torch.save, pickle), or its "
        f"beginning is damaged: it starts with {first[:8]!r}"
    )


def check_path(path: Path) -> os.stat_result:
    """Check that a path is one the system can have, and leads to a file or a folder.

    Raises:
        CheckpointError: it is not, there is nothing, or a device or a pipe, which cannot be read
            where it lies, and without end.
    """
    shown = str(path) if len(str(path)) <= _LONGEST_SHOWN else f"{str(path)[:_LONGEST_SHOWN]}…"
    shown = cleaned(shown)
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"{shown}: there is no such file or folder") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{shown}: cannot be read: {reason}") from error
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise CheckpointError(
            f"{shown} is a device, a pipe or a socket. A checkpoint is read where it lies: write "
            "it to a file first."
        )
    return found


def is_inflated(claimed: int, size: int) -> bool:
    """Tell whether a few bytes claim to be so many that no honest file does it."""
    return claimed > _HARMLESS and claimed > _MOST_GAIN * size


def check_unpacked(archive: zipfile.ZipFile, size: int, where: str) -> None:
    """Check that a zip archive does not unpack to far more than it is.

    Raises:
        CheckpointError: it does.
    """
    claimed = sum(info.file_size for info in archive.infolist())
    if is_inflated(claimed, size):
        raise CheckpointError(
            f"{where}: {size} bytes claim to unpack to {claimed}, which would fill the memory. "
            "If that is meant, unpack the archive and save the checkpoint anew in PyTorch."
        )


def stored_sizes(file: Path | BinaryIO) -> dict[str, int]:
    """Return the key of each storage in what torch.save wrote -> how many bytes it is."""
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
    return {i.filename.rpartition("/")[2]: i.file_size for i in infos if "/data/" in i.filename}


def is_mappable(path: Path) -> bool:
    """Tell whether the members of a zip archive can be read where they lie.

    Those torch.save writes can. In an archive packed again by another program they may be
    compressed, and mapped they would be noise; or lie where no number may begin.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            file.seek(info.header_offset + _LENGTHS_AT)
            name, extra = struct.unpack("<HH", file.read(4))
            start = info.header_offset + _LENGTHS_AT + 4 + name + extra
            is_data = "/data/" in info.filename
            if info.compress_type != zipfile.ZIP_STORED or (is_data and start % _ALIGNMENT):
                return False
    return True


def _is_safetensors(first: bytes) -> bool:
    length = int.from_bytes(first[:LENGTH_BYTES], "little")
    return first[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{" and length <= MAX_HEADER


def _is_tar(first: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(first, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _describe_tar(path: Path) -> str:
    try:
        with tarfile.open(path, "r:") as archive:
            names = archive.getnames()
    except (tarfile.TarError, OSError):
        _logger.debug("%s: its members cannot be listed", path, exc_info=True)
        names = []
    if {"storages", "tensors", "pickle"} <= set(names):
        return f"{path} was written by PyTorch 0.1. Load it there and save its state dict again."
    inside = ", ".join(map(printable, names[:5])) + (" …" if len(names) > 5 else "")
    return f"{path} is a tar archive ({inside or 'damaged'}): unpack it and name the checkpoint."


def _zip_format(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            check_unpacked(archive, path.stat().st_size, str(path))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{path}: cut short or damaged ({cleaned(str(error))}). torch.save writes a zip "
            "archive, and its directory stands at the end: fetch or write the file again."
        ) from error
    # torch puts all members into one folder, named after the file.
    members = {name.partition("/")[2] for name in names}
    if "constants.pkl" in members:
        raise CheckpointError(
            f"{path} is a TorchScript archive: a compiled program, not a checkpoint. Save its "
            "weights: torch.save(torch.jit.load(path).state_dict(), 'weights.pt')"
        )
    if "archive_format" in members or "models/model.json" in members:
        raise CheckpointError(
            f"{path} is an exported program (torch.export.save), not a checkpoint. Save its "
            "weights: torch.save(torch.export.load(path).state_dict, 'weights.pt')"
        )
    if "data.pkl" in members:
        return Format.TORCH_ZIP
    inside = ", ".join(map(printable, names[:5])) + (" …" if len(names) > 5 else "")
    raise CheckpointError(
        f"{path} is a zip archive, but torch.save did not write it ({inside or 'empty'}): "
        "unpack it and name the checkpoint."
    )
