"""Open a checkpoint of any format mlxport reads; the format is recognised by content.

Needs torch only for files that torch wrote.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.formats.index import open_index
from mlxport.converter.checkpoint.formats.recognise import (
    DEEPSPEED,
    DISTRIBUTED,
    Format,
    check_path,
    recognise,
)
from mlxport.converter.checkpoint.formats.safetensors import open_safetensors
from mlxport.converter.errors import CheckpointError, ConversionError, OptionsError
from mlxport.converter.plan.record import RECORD_FILE
from mlxport.converter.timings import stage

# The endings of checkpoints in a folder, from the one to prefer to the one to take for want of it.
_ENDINGS = (
    (".safetensors.index.json",),
    (".safetensors",),
    (".index.json",),
    (".pt", ".pth", ".bin", ".ckpt", ".pytorch", ".tar", ".pkl"),
)
_SHOWN = 10  # of a folder's entries, where none is a checkpoint


@stage("read")
def open_checkpoint(path: str | Path, key: str | None = None) -> Checkpoint:
    """Open a checkpoint: a file, the index of a sharded one, or a folder that holds one.

    Only headers and structure are read; tensors stay on disk where the format allows that
    (safetensors, ``torch.save`` since 1.6). Nothing of the checkpoint is ever run.

    Args:
        path: the file or folder; a folder may be one of ``torch.distributed.checkpoint``.
        key: where the state dict stands in a file that holds several mappings of tensors
            (``"ema"``, ``"nets/generator"``; ``"."`` is the outermost).

    Raises:
        CheckpointError: the file is missing, damaged, or of a format that is no checkpoint; the
            message says which.
        StateDictError: the file holds no state dict, several, or none under ``key``.
        OptionsError: ``key`` was given for a format without nesting.
    """
    path = Path(path)
    check_path(path)
    folder = path.parent if path.name == DISTRIBUTED else path
    if (folder / DISTRIBUTED).is_file():
        from mlxport.converter.checkpoint.formats.distributed import open_distributed

        return open_distributed(folder, key)
    if not path.is_dir():
        return _watched(_open_file(path, key))
    chosen, beside = _choose(path)
    checkpoint = _watched(_open_file(chosen, key))
    passed_over = sorted(file.name for file in beside if file not in checkpoint.files)
    if not passed_over:
        return checkpoint
    note = f"{chosen.name} was read; also in {path}, not read: {', '.join(passed_over)}"
    return dataclasses.replace(checkpoint, notes=(note, *checkpoint.notes))


def _watched(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with how its files, which are read later, are now."""
    try:
        found = {file: file.stat() for file in checkpoint.files}
    except OSError as error:
        raise CheckpointError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return dataclasses.replace(checkpoint, found=found)


def _open_file(path: Path, key: str | None) -> Checkpoint:
    form = recognise(path)
    if form in (Format.SAFETENSORS, Format.INDEX):
        if key is not None:
            raise OptionsError(
                f"{path} is a {form.value} file, a flat list of tensors: nothing in it is named by "
                f"a key. Leave out {argument('key', key)}."
            )
        return open_safetensors(path) if form is Format.SAFETENSORS else open_index(path, _shard)
    # Only now: on a Mac without torch, safetensors files still open.
    from mlxport.converter.checkpoint.formats.torch_file import open_torch

    return open_torch(path, form, key)


def _shard(path: Path) -> Checkpoint:
    if recognise(path) is Format.INDEX:
        raise CheckpointError(f"{path}: an index, where an index expects a shard")
    return _open_file(path, None)


def _choose(folder: Path) -> tuple[Path, list[Path]]:
    """Return the one checkpoint in a folder, and everything there that looks like one."""
    try:
        files = sorted(file for file in folder.iterdir() if file.is_file())
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error.strerror}") from error
    if any(file.name == RECORD_FILE for file in files):
        raise CheckpointError(
            f"{folder} is an output of mlxport, not a PyTorch checkpoint: `mlxport restore` turns "
            "it back into one."
        )
    kinds = [[file for file in files if file.name.endswith(ends)] for ends in _ENDINGS]
    beside = [file for kind in kinds for file in kind]
    first = next((kind for kind in kinds if kind), [])
    if len(first) != 1 and (parts := _parts_of_deepspeed(folder)):
        raise CheckpointError(f"{folder}: {parts} files of DeepSpeed. {DEEPSPEED}")
    if not first:
        raise _without_checkpoint(folder)
    if len(first) > 1:
        raise CheckpointError.listing(
            f"{folder}: there are {len(first)} checkpoints in this folder:",
            [file.name for file in first],
            "Name the one that is meant.",
        )
    return first[0], beside


def _without_checkpoint(folder: Path) -> ConversionError:
    """Return the error that names what is in a folder, and the folders in it to name instead."""
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    endings = tuple(ending for endings in _ENDINGS for ending in endings)
    within = sorted({file.parent for file in folder.glob("*/*") if file.name.endswith(endings)})
    if within:
        advice = f"Name a folder in it that holds one: {', '.join(map(str, within[:3]))}"
    else:
        advice = "The files of one end in " + ", ".join(endings)
    heading = f"{folder}: there is no checkpoint in this folder"
    shown = entries[:_SHOWN] + [f"{len(entries) - _SHOWN} more"] * (len(entries) > _SHOWN)
    return CheckpointError.listing(f"{heading}{', only:' if shown else '.'}", shown, advice)


def _parts_of_deepspeed(folder: Path) -> int:
    """Return how many files of DeepSpeed are in a folder or those within."""
    names = (f"{below}*_{kind}_states.pt" for below in ("", "*/") for kind in ("model", "optim"))
    return sum(1 for name in names for _ in folder.glob(name))
