"""The output folder of a conversion: whole, or not there.

Needs no torch.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.writing.atomic import (
    reserved,
    swap_folders,
    sync_folder,
    sync_tree,
)
from mlxport.converter.errors import CheckpointError, ConversionError, OptionsError
from mlxport.converter.plan.json_data import named_format, read_json
from mlxport.converter.plan.record import RECORD_FILE, RECORD_FORMAT
from mlxport.converter.timings import stage

_logger = logging.getLogger(__name__)

# The disk, a quota or a limit is used up.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class OutputFolder:
    """Builds a folder beside its destination and moves it there when all went well.

    ``with OutputFolder(Path("out")) as folder: (folder / "model.py").write_text(source)``

    On any exception the unfinished folder is removed and what was at the destination stays.

    Args:
        destination: where the folder is to stand; parents are made.
        overwrite: replace an output folder that stands there. The old one is exchanged for the new
            in one step where the system can do that, then removed.
        sources: what is being read meanwhile; it must not be in the folder to be replaced.

    Raises:
        OptionsError: something stands at the destination and may not be replaced. Raised at once,
            before any work.
        CheckpointError: the folder cannot be written.
    """

    def __init__(
        self, destination: Path, *, overwrite: bool = False, sources: Iterable[Path] = ()
    ) -> None:
        try:
            self.destination = Path(os.path.realpath(destination))
        except ValueError as error:
            raise OptionsError(f"{destination!r} cannot be an output folder: {error}") from error
        self.overwrite = overwrite
        self.sources = tuple(Path(os.path.realpath(source)) for source in sources)
        self._check()

    def __enter__(self) -> Path:
        above = self.destination.parents
        self._new_parents = [folder for folder in above if not folder.exists()]
        self._reserved = ExitStack()
        try:
            if not self.destination.parent.exists():
                self.destination.parent.mkdir(parents=True, exist_ok=True)
            self._building = self._reserved.enter_context(reserved(self.destination, folder=True))
        except OSError as error:
            self._remove_parents()
            raise self._unwritable(error) from error
        return self._building

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
            elif isinstance(error, OSError) and self._is_writing(error):
                raise self._unwritable(error) from error
        except OSError as failure:
            raise self._unwritable(failure) from failure
        finally:
            self._reserved.close()
            if not self.destination.exists():
                self._remove_parents()

    def _remove_parents(self) -> None:
        """Remove the parents that were made for the destination, as long as they hold nothing."""
        for folder in self._new_parents:
            try:
                folder.rmdir()
            except OSError as error:
                _logger.debug("%s remains: %s", folder, error)
                return

    @stage("finish")
    def _finish(self) -> None:
        sync_tree(self._building)
        self._check()  # again: the destination may have appeared meanwhile
        if self.destination.exists():
            old = swap_folders(self._building, self.destination)
            sync_folder(self.destination.parent)
            self._remove(old)
        else:
            os.rename(self._building, self.destination)
            sync_folder(self.destination.parent)

    def _remove(self, old: Path) -> None:
        try:
            shutil.rmtree(old)
        except OSError as error:
            _logger.debug("%s cannot be removed: %s", old, error)
        if old.exists():
            message = f"{self.destination} is complete, but the old one remains as {old}"
            warnings.warn(message, stacklevel=4)

    def _check(self) -> None:
        if self.destination == self.destination.parent:
            raise OptionsError(f"{self.destination} cannot be an output folder: name a new one.")
        try:
            self.destination.lstat()
        except (FileNotFoundError, NotADirectoryError) as error:
            _logger.debug("%s is free: %s", self.destination, error)
            return
        except OSError as error:
            raise OptionsError(
                f"{self.destination} cannot be an output folder: {error.strerror}"
            ) from error
        if not self.overwrite:
            raise OptionsError(
                f"{self.destination} exists already. Name another folder, or pass "
                f"{argument('overwrite', True)} to replace it."
            )
        if not self._is_replaceable():
            raise OptionsError(
                f"{self.destination} exists and is not an output of mlxport ({RECORD_FILE} is not "
                "in it, or not mlxport's), so it will not be replaced. Remove it yourself, or name "
                "another folder."
            )
        if inside := [s for s in self.sources if s.is_relative_to(self.destination)]:
            raise OptionsError(
                f"{', '.join(map(str, inside))} is in {self.destination}, which is to be "
                "replaced. Move it out, or name another folder."
            )

    def _is_replaceable(self) -> bool:
        """Whether the destination is an output of this or another version, or empty."""
        if not self.destination.is_dir():
            return False
        try:
            if not any(self.destination.iterdir()):
                return True
            form, version = named_format(read_json(self.destination / RECORD_FILE))
        except (OSError, ConversionError) as error:
            _logger.debug("%s: no record can be read: %s", self.destination, error)
            return False
        return form == RECORD_FORMAT and isinstance(version, int)

    def _is_writing(self, error: OSError) -> bool:
        """Whether an error is one of writing the folder: nothing else fills disks here."""
        file = error.filename if isinstance(error.filename, str) else ""
        return error.errno in _FULL or Path(file).is_relative_to(self._building)

    def _unwritable(self, error: OSError) -> CheckpointError:
        return CheckpointError(f"{self.destination} cannot be written: {error.strerror or error}")
