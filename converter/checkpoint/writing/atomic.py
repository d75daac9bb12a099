"""Replace a file or a folder in one step, or leave it as it was.

Needs no torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mlxport.converter.errors import CheckpointError

_logger = logging.getLogger(__name__)

# What the names of unfinished files and folders end in: mlxport's, whoever left them.
MARK = "mlxport-partial"

# Bytes of a name that are left beside mark and number, of the 255 that a file system takes.
_LONGEST = 220

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
    with reserved(path) as temporary:
        with temporary.open("r+b") as file:
            yield file
            file.flush()
            _flush_to_drive(file.fileno())
        os.replace(temporary, path)
    sync_folder(path.parent)


def replace_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; a link that stands there is replaced, not followed.

    Raises:
        CheckpointError: the file cannot be written.
    """
    try:
        with atomic_file(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def reserved(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Give a new empty file or folder beside ``path``; it vanishes, unless it is renamed.

    It is locked as long as this lasts, which tells what a living process writes from what a killed
    one left. The latter is removed here, of those that were to become this ``path``.

    Raises:
        OSError: the folder cannot be written.
    """
    _sweep(path)
    temporary, descriptor = _create(path, folder)
    try:
        yield temporary
    finally:
        if folder:
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        os.close(descriptor)


def sibling(path: Path, purpose: str) -> Path:
    """Return a free hidden name beside ``path``, on the same file system."""
    return path.with_name(f"{_stem(path)}{secrets.token_hex(4)}.{purpose}")


def _stem(path: Path) -> str:
    """Return how hidden names beside a path begin; no name is too long that the path's is not."""
    name = path.name
    while len(os.fsencode(name)) > _LONGEST:
        name = name[:-1]
    return f".{name}."


def _create(path: Path, folder: bool) -> tuple[Path, int]:
    """Return a new file or folder that is locked, and the descriptor that holds the lock."""
    while True:
        temporary = sibling(path, MARK)
        if folder:
            temporary.mkdir()
        else:
            temporary.touch(exist_ok=False)
        try:
            descriptor = os.open(temporary, os.O_RDONLY)
        except FileNotFoundError as error:
            _logger.debug("swept away before it was locked: %s", error)
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            _logger.debug("%s is not locked: %s", temporary, error)
        if temporary.exists():
            return temporary, descriptor
        os.close(descriptor)


def _sweep(path: Path) -> None:
    """Remove what processes that live no more left of their writing to a path."""
    ours = re.compile(rf"{re.escape(_stem(path))}[0-9a-f]{{8}}\.{MARK}")
    try:
        names = os.listdir(path.parent)
    except OSError as error:
        _logger.debug("nothing is swept in %s: %s", path.parent, error)
        return
    for name in filter(ours.fullmatch, names):
        _remove_abandoned(path.parent / name)


def _remove_abandoned(temporary: Path) -> None:
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(temporary, flags)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
    except OSError as error:  # a living process writes it, or nothing tells
        _logger.debug("%s stays: %s", temporary, error)


def _flush_to_drive(descriptor: int) -> None:
    """Write what the system holds of a file to its drive, and what that holds in its cache.

    On macOS fsync leaves the second out; where a file system has no F_FULLFSYNC it is all there is.
    """
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            _logger.debug("no F_FULLFSYNC there: %s", error)
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system lets folders be synchronised."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            _flush_to_drive(descriptor)
        finally:
            os.close(descriptor)
    except (PermissionError, IsADirectoryError) as error:
        _logger.debug("%s is not synchronised: %s", folder, error)


def sync_tree(folder: Path) -> None:
    """Make every file below a folder durable, and the folders with them."""
    for path, _, files in os.walk(folder, topdown=False):
        for name in files:
            with open(os.path.join(path, name), "rb") as file:
                _flush_to_drive(file.fileno())
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
