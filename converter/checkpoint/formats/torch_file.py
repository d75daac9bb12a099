"""Read what ``torch.save`` and ``pickle`` write; code from the file never runs.

``.pt .pth .bin .ckpt .tar .pkl`` are all names for the same few formats.
"""

from __future__ import annotations

import io
import logging
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from mlxport.converter.checkpoint.checkpoint import Checkpoint, printable
from mlxport.converter.checkpoint.formats.inert_pickle import InertPickle, load_inert
from mlxport.converter.checkpoint.formats.mapped import mappings_of
from mlxport.converter.checkpoint.formats.pickle_opcodes import (
    UnsafePickleError,
    check_opcodes,
)
from mlxport.converter.checkpoint.formats.recognise import Format, is_mappable, stored_sizes
from mlxport.converter.checkpoint.formats.state_dict import find_state_dict, memory_of, to_tensors
from mlxport.converter.checkpoint.formats.torch_legacy import load_legacy
from mlxport.converter.errors import CheckpointError, ConversionError
from mlxport.converter.terminal import cleaned

_logger = logging.getLogger(__name__)

# A number that marks the format, its version, the writer's machine, the object, its storages.
_LEGACY_PICKLES = 5


def open_torch(path: Path, form: Format, key: str | None = None) -> Checkpoint:
    """Open a PyTorch file and find the state dict in it.

    Args:
        path: the file.
        form: its format, as ``recognise`` tells it.
        key: where in the file the state dict stands, for files that hold several.

    Raises:
        CheckpointError: the file is damaged, or holds tensors that are not plain ones.
        StateDictError: it holds no state dict, several, or none under ``key``.
    """
    loaded, notes = load_torch_file(path, form)
    try:
        found = find_state_dict(loaded, path, key)
        tensors = to_tensors(found.entries, path)
    except ConversionError:
        raise
    except Exception as error:  # a damaged pickle may put anything anywhere
        raise _damaged(path, error) from error
    storage = {name: memory_of(name, tensor) for name, tensor in tensors.items()}
    notes = (*notes, *found.notes)
    return Checkpoint(
        path,
        tensors,
        storage,
        notes,
        found.key,
        (path,),
        mappings_of(path),
        found.others,
        found.metadata,
        found.module,
        found.hints,
    )


def load_torch_file(path: Path, form: Format) -> tuple[Any, tuple[str, ...]]:
    """Return the object in a file, tensors left on disk where the format allows, and notes.

    Objects other than tensors, numbers, text and standard containers come as ``Placeholder``.

    Raises:
        CheckpointError: the file is damaged or cut short.
    """
    if path.suffix == ".safetensors":  # torch.load goes by the name
        raise CheckpointError(f"{path} was written by {form.value}: rename it to .pt")
    try:
        with _named_in_unicode(path) as named:
            return _load(named, form)
    except CheckpointError:
        raise
    except UnsafePickleError as error:
        raise CheckpointError(
            f"{path} will not be unpickled: {error}. torch.save writes nothing like it. If you "
            "trust the file, load it in PyTorch and save its state dict with safetensors."
        ) from error
    except Exception as error:  # torch, pickle and zipfile raise nearly anything on damaged files
        raise _damaged(path, error) from error


@contextmanager
def _named_in_unicode(path: Path) -> Iterator[Path]:
    """Give a name of a file that torch can open, which takes names in UTF-8 alone."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with TemporaryDirectory() as folder:
            link = Path(folder) / f"checkpoint{path.suffix.encode('ascii', 'replace').decode()}"
            link.symlink_to(path.absolute())
            yield link
    else:
        yield path


def _load(path: Path, form: Format) -> tuple[Any, tuple[str, ...]]:
    """Return the object in a file, and notes; whatever torch and pickle raise is raised."""
    if form is Format.PICKLE:
        return _load_pickle(path)
    if form is Format.TORCH_LEGACY:
        return _load_legacy(path)
    if not is_mappable(path):
        # read into memory, torch believes what the pickle says of a storage's length
        module = InertPickle(stored_sizes(path))
        return load_inert(str(path), module, mmap=False), _notes(module)
    _check_archive(path)
    return _load_by_torch(path, mmap=True)


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = cleaned(f"{type(error).__name__}: {error}".partition("\n")[0])
    return CheckpointError(
        f"{path}: damaged or cut short, it cannot be read ({reason}). "
        "Fetch or write the file again."
    )


def _check_archive(path: Path) -> None:
    """Check every pickle in a zip archive, whichever of them torch takes."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.lower().endswith(".pkl"):
                check_opcodes(io.BytesIO(archive.read(info)))


def _check_pickles(path: Path) -> None:
    """Check the pickles of a file of before PyTorch 1.6: its head, the object, its storages."""
    with path.open("rb") as file:
        for _ in range(_LEGACY_PICKLES):
            file.seek(check_opcodes(file))


def _load_legacy(path: Path) -> tuple[Any, tuple[str, ...]]:
    module = InertPickle()
    _check_pickles(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TypedStorage, which the format is made of
            return load_legacy(path, module), _notes(module)
    except Exception:  # rarely used forms: storages that are views of others
        _logger.debug("%s: read by torch, not mapped", path, exc_info=True)
        return _load_by_torch(path, mmap=False)


def _load_by_torch(path: Path, *, mmap: bool) -> tuple[Any, tuple[str, ...]]:
    try:
        return _load_weights_only(path, mmap), ()
    # AttributeError: torch cannot read its newest dtypes back from its oldest format
    except (pickle.UnpicklingError, AttributeError):
        _logger.debug("%s: torch refuses it with weights_only", path, exc_info=True)
        module = InertPickle()
        return load_inert(str(path), module, mmap=mmap), _notes(module)


def _load_weights_only(path: Path, mmap: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mmap)


def _load_pickle(path: Path) -> tuple[Any, tuple[str, ...]]:
    module = InertPickle()
    with path.open("rb") as file:
        return module.load(file, errors="surrogateescape"), _notes(module)


def _notes(module: InertPickle) -> tuple[str, ...]:
    if not (left_out := module.left_out()):
        return ()
    named = ", ".join(map(printable, left_out))
    return (
        f"objects of {named} were left out: they are no tensors, and code from a checkpoint never "
        "runs",
    )
