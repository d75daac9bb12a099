"""What a checkpoint is to the rest of mlxport, whichever file format it came from.

Needs no torch.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mlxport.converter.errors import CheckpointError
from mlxport.converter.plan.tensor import Tensor, TensorSpec
from mlxport.converter.timings import stage

_logger = logging.getLogger(__name__)

_BLOCK = 1 << 18


@dataclass(frozen=True)
class MappedFile:
    """A file, or a part of one, that is mapped into memory.

    Attributes:
        addresses: at which it lies there.
        path: the file.
        offset: in the file, of the first address.
        found: the file as it was when it was mapped.
    """

    addresses: range
    path: Path
    offset: int
    found: os.stat_result

    def cut_short(self, now: int) -> CheckpointError:
        """Return the error for a file that has fewer bytes now."""
        return cut_short(self.path, now, self.found.st_size)


def cut_short(path: Path, now: int, before: int) -> CheckpointError:
    """Return the error for a file that has fewer bytes than when it was opened."""
    return CheckpointError(
        f"{path}: cut short while it was read: {now} bytes, and {before} when it was opened. "
        "Convert again when nothing writes to it any more."
    )


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint, read lazily, and where they came from.

    Attributes:
        path: what was opened: a file, or the index of a sharded checkpoint.
        tensors: state dict key -> tensor. Looking at a shape or dtype reads no weights.
        storage: state dict key -> identity of the memory behind it; two keys with the same
            identity are the same tensor (same storage, offset, shape and strides) under two names.
        notes: what was left out or done on the way, one sentence each, for the user to read.
        key: where in a nested file the state dict was found (``"network_weights"``; ``"."`` is the
            file itself), None where the format has no nesting.
        files: the files read, for the digest.
        mapped: what of them is mapped into memory, where the tensors lie there.
        others: state dict key -> what stands there and is no tensor, as it was unpickled.
        metadata: path of a module -> what ``state_dict()`` noted of it (``{"version": 2}``); None
            where the format or the file holds none, as for ``load_state_dict``.
        module: the class of the pickled module it was taken from, empty for a state dict.
        hints: what kind of file it is, where that may be why it does not fit; a sentence each.
        dropped: key -> tensor, of those that were not to be taken.
        order: the keys as they stand in the file, those that were dropped included, by the names
            they have there; empty where none were.
        found: file -> how it was when it was opened, of those that are read later.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    storage: Mapping[str, Hashable]
    notes: tuple[str, ...] = ()
    key: str | None = None
    files: tuple[Path, ...] = ()
    mapped: tuple[MappedFile, ...] = ()
    others: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Mapping[str, Any]] | None = None
    module: str = ""
    hints: tuple[str, ...] = ()
    dropped: Mapping[str, Tensor] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    found: Mapping[Path, os.stat_result] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r}, {len(self.tensors)} tensors)"

    def __str__(self) -> str:
        under = f", under {self.key!r}" if self.key not in (None, ".") else ""
        shown = (f"{printable(name)}: {tensor}" for name, tensor in self.tensors.items())
        return "\n".join([f"{self.path}: {len(self.tensors)} tensors{under}", *shown, *self.notes])

    @cached_property
    def specs(self) -> Mapping[str, TensorSpec]:
        """State dict key -> dtype and shape; each tensor is asked once."""
        known: dict[TensorSpec, TensorSpec] = {}  # many tensors are alike
        specs = ((key, TensorSpec.of(tensor)) for key, tensor in self.tensors.items())
        return {key: known.setdefault(spec, spec) for key, spec in specs}

    def check_whole(self) -> None:
        """Check that no file became shorter since it was opened.

        What is mapped beyond the end of a file is zeros up to the end of a page, and ends the
        process from there on: so this is asked before and after tensors are read that lie there
        (`mapped.Reader` reads all but the largest from the file).

        Raises:
            CheckpointError: one did.
        """
        for file, before, now in self._now():
            # of another file of that name nothing follows: what was opened is there still
            if os.path.samestat(before, now) and now.st_size < before.st_size:
                raise cut_short(file, now.st_size, before.st_size)

    def check_unchanged(self) -> None:
        """Check that the files are those that were opened, and that nobody wrote to them since.

        Else some of what was read may be of before and some of after, the digest of the file too.

        Raises:
            CheckpointError: one was cut short, written to, or replaced by another.
        """
        self.check_whole()
        for file, before, now in self._now():
            if not os.path.samestat(before, now):
                why = "another file has taken its place"
            elif (before.st_size, before.st_mtime_ns) != (now.st_size, now.st_mtime_ns):
                why = "it was written to"
            else:
                continue
            raise CheckpointError(
                f"{file}: changed while it was read: {why}. Convert a copy of it, or convert again "
                "when nothing writes to it any more."
            )

    def _now(self) -> Iterator[tuple[Path, os.stat_result, os.stat_result]]:
        """Yield the files that are read later, as they were when they were opened and are now."""
        mapped = {file.path: file.found for file in self.mapped}
        for file, before in {**mapped, **self.found}.items():
            try:
                yield file, before, file.stat()
            except OSError as error:  # its name is gone; what was opened is there still
                _logger.debug("%s: %s", file, error)

    @stage("digest")
    def digest(self, stop: threading.Event | None = None) -> str:
        """Return the SHA-256 of the file, in hexadecimal.

        For several files it is the SHA-256 of what ``sha256sum FILES`` prints, the files sorted by
        name: one line ``<digest>  <name>`` each.

        Args:
            stop: once it is set, the rest is not read and the result means nothing.

        Raises:
            CheckpointError: a file cannot be read (any more).
        """
        files = sorted(self.files or (self.path,), key=lambda file: file.name)
        digests = [_sha256(file, stop or threading.Event()) for file in files]
        if len(files) == 1:
            return digests[0]
        lines = (f"{digest}  {file.name}\n" for digest, file in zip(digests, files, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def printable(name: object) -> str:
    """Return a name from a checkpoint as it may stand in a message: no control characters."""
    return name if isinstance(name, str) and name and name.isprintable() else repr(name)


def first_names(names: Sequence[str]) -> str:
    """Return how many tensors a state dict holds and the first of their names."""
    first = ", ".join(map(printable, names[:2])) + (", …" if len(names) > 2 else "")
    return f"{len(names)} tensors ({first})"


def _sha256(path: Path, stop: threading.Event) -> str:
    digest, block = hashlib.sha256(), bytearray(_BLOCK)
    view = memoryview(block)
    try:
        with path.open("rb", buffering=0) as file:
            while not stop.is_set() and (length := file.readinto(block)):
                digest.update(view[:length])
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()
