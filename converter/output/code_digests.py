"""Which code an output folder holds, by digests: whether it is what the record says was written.

A digest beside what it is of tells damage, mistakes and files that came later. Whoever can write
the folder can write both; only a record kept elsewhere tells forgery. Needs no torch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from importlib.machinery import all_suffixes
from pathlib import Path

from mlxport.converter.errors import ConversionError
from mlxport.converter.plan.record import RECORD_FILE

_CACHES = "__pycache__"  # nothing in there is run; see `live_model`
_BUILT = "build"  # what pip leaves of installing the folder as a package, which imports none of it


def code_digests(folder: Path) -> dict[str, str]:
    """Return path in the folder -> SHA-256, of every file that Python would import.

    Raises:
        ConversionError: a file cannot be read.
    """
    found = {}
    for above, folders, names in os.walk(folder):
        passed_over = {_CACHES, _BUILT} if Path(above) == folder else {_CACHES}
        folders[:] = sorted({*folders} - passed_over)
        for name in sorted(names):
            if name.endswith(tuple(all_suffixes())):
                file = Path(above, name)
                found[file.relative_to(folder).as_posix()] = _sha256(file)
    return found


def check_code(folder: Path, recorded: Mapping[str, str]) -> None:
    """Hold the code of an output folder to the digests in its record, before any of it runs.

    Args:
        folder: the output folder.
        recorded: what ``conversion.json`` says: path -> SHA-256.

    Raises:
        ConversionError: a file differs, is missing or was not written by the conversion; all are
            listed.
    """
    if not recorded:
        raise ConversionError(
            f"{folder / RECORD_FILE} has no digests of the model's code: an older mlxport wrote "
            "it. Read model.py and layers/ yourself, or convert again."
        )
    found = code_digests(folder)
    problems = [
        f"{'differs' if name in found else 'missing':<11} {name}"
        for name, digest in recorded.items()
        if found.get(name) != digest
    ]
    problems += [f"unexpected  {name}" for name in found if name not in recorded]
    if problems:
        raise ConversionError.listing(
            f"{folder}: the code is not what {RECORD_FILE} says was written:",
            problems,
            "Nothing of it was run. Read the files, or fetch or convert the folder again.",
        )


def _sha256(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ConversionError(f"{file}: cannot be read: {error.strerror}") from error
