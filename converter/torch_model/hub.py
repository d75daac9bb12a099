"""Checkpoints on the Hugging Face Hub: ``hf://owner/name[@revision]``, by way of its local cache.

Needs huggingface_hub only where such an address is given.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from mlxport.converter.errors import CheckpointError, ConversionError, OptionsError
from mlxport.converter.plan.json_data import read_json

_logger = logging.getLogger(__name__)

# pathlib makes one slash of two
_ADDRESS = re.compile(r"hf:/{1,2}(?P<repo>[^/@]+/[^/@]+?)(?:@(?P<revision>.+))?")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_CACHED = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)")

# What accompanies the weights of a model on the Hub and belongs with them wherever they go.
CARRIED = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "sentencepiece*.model",
    "*.tiktoken",
    "chat_template*",
    "README.md",
    "LICENSE*",
)
PIPELINE = "model_index.json"  # of diffusers: which folder holds what
# model.fp16.safetensors, model.fp16-00001-of-00002.safetensors, x.safetensors.index.fp16.json
_VARIANT = re.compile(r"\.(?!safetensors|bin|index)\w+(-\d{5}-of-\d{5})?\.\w+$")
_PIPELINE_PARTS = ("scheduler_config.json",)
# Beside the weights of an adapter, and no part of what is carried along.
_ADAPTER = "adapter_config.json"
_SAFETENSORS = ("*.safetensors", "*.safetensors.index.json")
_TORCH = ("*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt")


def resolved(source: str | Path) -> Path:
    """Return where a source is on this machine; what is on the Hub is fetched into its cache.

    Of a repository the files at its top are taken: the weights, as safetensors where there are
    any, and what belongs with them. Of a pipeline of diffusers (``model_index.json``) so are those
    of each folder in it, of variants (``fp16``) none where there are others. Offline
    (``HF_HUB_OFFLINE=1``, or no network) the cache alone is looked into.

    Args:
        source: a path, or ``hf://owner/name``, ``hf://owner/name@revision``.

    Raises:
        OptionsError: the address does not read so.
        CheckpointError: huggingface_hub is not installed, or there is no such repository or
            revision, or no access to it.
    """
    text = str(source)
    if not text.startswith("hf:/"):
        return Path(source)
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise OptionsError(f"{text}: expected hf://owner/name or hf://owner/name@revision")
    return _snapshot(match["repo"], match["revision"])


def address_of(path: Path) -> str:
    """Return the address of a file in the Hub's cache, with its commit; empty for other files."""
    for snapshots in path.absolute().parents:
        match = _CACHED.fullmatch(snapshots.parent.name)
        if snapshots.name == "snapshots" and match:
            commit = path.absolute().relative_to(snapshots).parts[0]
            return f"hf://{match['owner']}/{match['name']}@{commit}"
    return ""


def _snapshot(repository: str, revision: str | None) -> Path:
    address = f"hf://{repository}" + (f"@{revision}" if revision else "")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"{address}: huggingface_hub is not installed: pip install 'mlxport[hub]'"
        ) from error
    wanted = _wanted(repository, revision)
    with _fetching(address):
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))


@contextmanager
def _fetching(address: str) -> Iterator[None]:
    """Say what cannot be fetched, and why, whatever is raised meanwhile."""
    try:
        yield
    except ConversionError:
        raise
    except Exception as error:  # the Hub's own errors, the network's, the disk's
        reason = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
        raise CheckpointError(f"{address} cannot be fetched: {reason}") from error


def _wanted(repository: str, revision: str | None) -> list[str]:
    """Return the files to fetch; patterns for them where the Hub cannot be asked."""
    from huggingface_hub import HfApi

    try:
        files = HfApi().list_repo_files(repository, revision=revision)
    except Exception:  # snapshot_download says what is wrong, or finds it in the cache
        _logger.debug("the Hub does not list %s", repository, exc_info=True)
        return [*_SAFETENSORS, *CARRIED, _ADAPTER, PIPELINE, *_PIPELINE_PARTS]
    top = [file for file in files if "/" not in file]
    if PIPELINE in top:
        return [
            PIPELINE,
            *(file for file in top if is_one(file, CARRIED)),
            *_of_folders(files, _folders_of_pipeline(repository, revision)),
        ]
    weights = _weights(top)
    if not weights:
        raise CheckpointError(
            f"hf://{repository}: no weights at the top of this repository, which holds "
            f"{len(files)} files. Fetch the folder that is meant and name it."
        )
    return [*weights, *(file for file in top if is_one(file, (*CARRIED, _ADAPTER)))]


def _weights(files: Sequence[str]) -> list[str]:
    """Return the files of one folder that hold its weights, and their index."""
    names = {file: file.rpartition("/")[2] for file in files}
    weights = [file for file in files if is_one(names[file], _SAFETENSORS)]
    return weights or [file for file in files if is_one(names[file], _TORCH)]


def _folders_of_pipeline(repository: str, revision: str | None) -> set[str]:
    """Return the folders that a pipeline names as its parts."""
    from huggingface_hub import hf_hub_download

    with _fetching(f"hf://{repository}"):
        index = read_json(Path(hf_hub_download(repository, PIPELINE, revision=revision)))
    described = index if isinstance(index, dict) else {}
    return {name for name, part in described.items() if isinstance(part, list)}


def _of_folders(files: Sequence[str], wanted: Container[str]) -> Iterator[str]:
    """Yield what the folders of a pipeline need: configurations, tokenizers, weights once."""
    folders: dict[str, list[str]] = {}
    for file in files:
        folder, _, name = file.partition("/")
        if name and "/" not in name and folder in wanted:
            folders.setdefault(folder, []).append(file)
    for inside in folders.values():
        plain = [file for file in inside if not _is_variant(file)]
        yield from _weights(plain) or _weights(inside)
        yield from (
            file for file in inside if is_one(file.rpartition("/")[2], (*CARRIED, *_PIPELINE_PARTS))
        )


def _is_variant(file: str) -> bool:
    """Tell whether a file holds the weights in another precision, as diffusers names those."""
    return _VARIANT.search(file.rpartition("/")[2]) is not None


def check_repository(repository: str) -> None:
    """Find out whether a repository can be called so.

    Raises:
        OptionsError: it cannot.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise OptionsError(f"{repository!r}: expected the name of a repository, owner/name")


def upload(folder: Path, repository: str, files: Sequence[str], *, private: bool) -> str:
    """Upload files of a folder as one commit, and return its address.

    The repository is made where there is none. Who uploads is who huggingface_hub is logged in as.

    Args:
        folder: where they are.
        repository: ``owner/name``.
        files: paths in the folder; nothing else is uploaded.
        private: whether a repository that is made is private.

    Raises:
        CheckpointError: huggingface_hub is not installed, or it cannot upload.
    """
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
    except ImportError as error:
        raise CheckpointError(
            f"{repository}: huggingface_hub is not installed: pip install 'mlxport[hub]'"
        ) from error
    operations = [CommitOperationAdd(name, str(folder / name)) for name in files]
    try:
        hub = HfApi()
        hub.create_repo(repository, private=private, exist_ok=True)
        done = hub.create_commit(
            repository, operations, commit_message="Upload an MLX model converted by mlxport"
        )
        return str(done.commit_url)
    except Exception as error:  # the Hub's own errors, the network's, the disk's
        reason = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
        raise CheckpointError(f"{repository} cannot be uploaded: {reason}") from error


def is_one(name: str, patterns: tuple[str, ...]) -> bool:
    """Tell whether a file's name fits one of several patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
