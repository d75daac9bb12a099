"""Copy what accompanies the weights in a Hub-style folder: configuration, tokenizer, licence.

Needs no torch.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from mlxport.converter.errors import CheckpointError
from mlxport.converter.torch_model.hub import CARRIED, address_of, is_one

# What tells such a folder from one that merely holds a checkpoint.
_MARK = "config.json"


def carry_along(folder: Path, source: Path) -> None:
    """Copy configuration, tokenizer, README and licence; code is never copied.

    Args:
        folder: the output folder.
        source: what is converted: where it is a folder with a ``config.json``, files are copied.

    Raises:
        CheckpointError: one cannot be copied.
    """
    if not (source / _MARK).is_file():
        return
    for file in sorted(source.iterdir()):
        if is_one(file.name, CARRIED) and file.is_file() and file.suffix != ".py":
            if not _stays_inside(file):
                raise CheckpointError(f"{file} leads out of its folder, so it is not copied")
            try:
                shutil.copyfile(file, folder / file.name)
            except OSError as error:
                raise CheckpointError(f"{file}: cannot be copied: {error.strerror}") from error


def _stays_inside(file: Path) -> bool:
    """Tell whether a file is one of its folder; the Hub's cache links to the blobs beside it."""
    home = file.parent.resolve()
    whole = home.parents[1] if address_of(file) else home
    return file.resolve().is_relative_to(whole)
