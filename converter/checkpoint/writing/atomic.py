"""Replace a file or a folder in one step, or leave it as it was.

Needs no torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_logger = logging.getLogger(__name__)

# renameat2 and renamex_np: exchange the two names.
_AT_FDCWD = -100
_EXCHANGE = 2


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write that becomes ``path`` when all went well, and vanishes otherwise.

    What was at ``path`` stays whole until it is replaced. The content is on disk before the name.

    Raises:
        OSError: the folder cannot be written or is full.
    """
    temporary = sibling(path, "partial")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sibling(path: Path, purpose: str) -> Path:
    """Return a free hidden name beside ``path``, on the same file system."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{purpose}")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system lets folders be synchronised."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except (PermissionError, IsADirectoryError) as error:
        _logger.debug("%s is not synchronised: %s", folder, error)


def sync_tree(folder: Path) -> None:
    """Make every file below a folder durable, and the folders with them."""
    for path, _, files in os.walk(folder, topdown=False):
        for name in files:
            with open(os.path.join(path, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(path))


def swap_folders(new: Path, old: Path) -> Path:
    """Put ``new`` in the place of ``old`` and return where the old content is now.

    In one step on Linux and macOS where the file system can exchange two names; elsewhere in two
    renames, the first undone if the second fails.

    Raises:
        OSError: neither works; both folders are as they were.
    """
    if _exchange(new, old):
        return new
    aside = sibling(old, "old")
    os.rename(old, aside)
    try:
        os.rename(new, old)
    except BaseException:
        os.rename(aside, old)
        raise
    return aside


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names atomically; False where the system cannot."""
    names = os.fsencode(one), os.fsencode(other)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            return int(libc.renamex_np(*names, ctypes.c_uint(_EXCHANGE))) == 0
        here = ctypes.c_int(_AT_FDCWD)
        flags = ctypes.c_uint(_EXCHANGE)
        return int(libc.renameat2(here, names[0], here, names[1], flags)) == 0
    except (OSError, AttributeError, TypeError) as error:
        _logger.debug("the system does not exchange two names at once: %s", error)
        return False
