"""The files of an output folder: write them, read them, verify the model in them.

Never imports torch: this is what runs on the Mac.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.formats.index import open_index
from mlxport.converter.checkpoint.formats.safetensors import open_safetensors
from mlxport.converter.checkpoint.keys.bind import left_out
from mlxport.converter.checkpoint.writing.convert_streaming import stream_left_out, stream_weights
from mlxport.converter.checkpoint.writing.digest import digesting
from mlxport.converter.errors import ConversionError, PlanError
from mlxport.converter.options.output import Extent
from mlxport.converter.output.code_digests import code_digests
from mlxport.converter.output.layer_files import layer_files
from mlxport.converter.output.mlx_lm_file import write_mlx_lm_file
from mlxport.converter.output.package import package_text, write_package
from mlxport.converter.parity.report.files import REPORT, write_page
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.verdict.reference_data import Reference
from mlxport.converter.parity.verdict.reference_file import save_reference
from mlxport.converter.parity.verdict.thinning import within
from mlxport.converter.plan.json_data import indented_json, read_json
from mlxport.converter.plan.quantize_step import config_text
from mlxport.converter.plan.record import RECORD_FILE, Conversion, Digests, Stem
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.plan.weight_plan import WeightPlan
from mlxport.converter.timings import stage
from mlxport.converter.torch_model.hub import address_of

WEIGHTS = "weights.safetensors"
STEMS = get_args(Stem)
LEFT_OUT = "left_out.safetensors"
_SMALL_REFERENCE = 256 * 1024  # bytes of references that are stored whatever the weights measure


@stage("write")
def write_folder(
    folder: Path,
    source: str,
    conversion: Conversion,
    references: Sequence[Reference],
    user_files: Mapping[str, str] | None = None,
    package: str | None = None,
    reference: Extent = "bounded",
) -> Conversion:
    """Write everything of an output folder but the weights and the parity report.

    Args:
        folder: where.
        source: the text of ``model.py``.
        conversion: the record.
        references: what PyTorch computed, at the example's sizes first.
        user_files: name -> text of the user's files that model.py imports from ``layers``.
        package: name of the package that pip is to install of it, if any.
        reference: how much is stored of the references.

    Returns:
        The record as it was written, with the digests of the code.
    """
    (folder / "model.py").write_text(source, encoding="utf-8")
    (folder / "__init__.py").write_text(package_text(source), encoding="utf-8")
    layers = layer_files(source, user_files)
    if layers:
        (folder / "layers").mkdir()
        (folder / "layers" / "__init__.py").write_text(
            '"""MLX layers that model.py uses; copies from mlxport."""\n', encoding="utf-8"
        )
    for name, text in layers.items():
        (folder / "layers" / name).parent.mkdir(exist_ok=True)
        (folder / "layers" / name).write_text(text, encoding="utf-8")
    if not user_files:
        write_mlx_lm_file(folder, source, conversion)
    if package is not None:
        write_package(folder, package, source, conversion.stem)
    return write_evidence(folder, conversion, references, reference)


def write_quantized(
    folder: Path,
    source: str,
    conversion: Conversion,
    references: Sequence[Reference],
    reference: Extent = "bounded",
) -> Conversion:
    """Write anew what is another once the weights in a folder are quantised; see `write_folder`."""
    (folder / "model.py").write_text(source, encoding="utf-8")
    write_config(folder, conversion)
    return write_evidence(folder, conversion, references, reference)


def write_config(folder: Path, conversion: Conversion) -> None:
    """Write the ``config.json`` by which quantised weights are loaded, where they are quantised.

    Raises:
        ConversionError: the one that was carried along is no JSON object.
    """
    if conversion.quantized is None:
        return
    path = folder / "config.json"
    config = _read_config(path) if path.exists() else None
    path.write_text(config_text(conversion.quantized.settings, config), encoding="utf-8")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
    except ConversionError as error:
        raise ConversionError(f"the checkpoint's {path.name}: {error}") from error
    if not isinstance(config, dict):
        raise ConversionError(f"the checkpoint's {path.name}: expected a JSON object, got another")
    return config


def write_evidence(
    folder: Path, conversion: Conversion, references: Sequence[Reference], extent: Extent
) -> Conversion:
    """Write the record, with the digests of the code, and what PyTorch computed."""
    if extent == "bounded":
        weights = sum(file.stat().st_size for file in weight_files(folder))
        references = within(references, max(weights, _SMALL_REFERENCE))
    conversion = replace(conversion, code=code_digests(folder))
    write_json(folder / "conversion.json", conversion.to_json())
    for number, reference in enumerate(references, 1):
        name = "reference.safetensors" if number == 1 else f"reference-{number}.safetensors"
        save_reference(folder / name, reference)
    return conversion


@dataclass(frozen=True)
class WrittenWeights:
    """What is to be recorded of weights that were written.

    Attributes:
        sha256: of the files they came from.
        digests: of every tensor.
        warnings: what the user should look into, one sentence each.
    """

    sha256: str
    digests: Digests
    warnings: tuple[str, ...]


def write_weights(
    folder: Path,
    plan: WeightPlan,
    checkpoint: Checkpoint,
    original_keys: Mapping[str, str] | None = None,
    *,
    state: Mapping[str, Tensor] | None = None,
    constants: Mapping[str, Tensor] | None = None,
    max_shard_size: int | None = None,
    stem: Stem | None = None,
) -> WrittenWeights:
    """Write what a plan makes of a checkpoint and, for ``mlxport restore``, what it leaves out.

    Args:
        folder: where.
        plan: its keys are the checkpoint's.
        checkpoint: the weights.
        original_keys: key of ``checkpoint`` -> that in the file, where keys were renamed.
        state: the tensors to take, if those of the checkpoint are not all.
        constants: further tensors, by the name of their parameter.
        max_shard_size: of the data in a file.
        stem: of the files' names; the checkpoint's if not given.
    """
    tensors = checkpoint if state is None else replace(checkpoint, tensors=state)
    with digesting(checkpoint) as digest:
        streamed = stream_weights(
            folder,
            plan,
            tensors,
            constants,
            max_shard_size=max_shard_size,
            stem=stem or stem_of(checkpoint),
        )
        rest = left_out(plan, checkpoint, original_keys)
        kept = stream_left_out(folder / LEFT_OUT, rest, checkpoint.mapped) if rest else {}
        sha256 = digest()
        checkpoint.check_unchanged()
        return WrittenWeights(
            sha256, streamed.digests(original_keys or {}, kept), tuple(streamed.warnings)
        )


def stem_of(checkpoint: Checkpoint) -> Stem:
    """Return what files of weights are called: as the checkpoint's, where those have MLX's name."""
    name = checkpoint.path.name
    return "model" if name.startswith("model.safetensors") else "weights"


def source_of(checkpoint: Checkpoint, sha256: str, **more: str) -> dict[str, str]:
    """Return what the record says of where weights came from.

    Args:
        checkpoint: the weights.
        sha256: of their files.
        more: what else is known, by name.
    """
    source = {"path": checkpoint.path.name, "sha256": sha256, **more}
    source |= {"hub": address} if (address := address_of(checkpoint.path)) else {}
    return source | ({"key": checkpoint.key} if checkpoint.key else {})


@stage("write")
def write_report(folder: Path, report: ParityReport) -> None:
    """Write ``parity.json`` and, for people, ``parity.html``."""
    for name in (REPORT, "parity.html"):
        write_page(folder / name, {"parity": report})


def open_weights(folder: Path) -> Checkpoint:
    """Open the MLX weights of an output folder, in one file or in shards.

    Raises:
        CheckpointError: they are missing or damaged.
    """
    for stem in STEMS:
        if (folder / f"{stem}.safetensors").exists():
            return open_safetensors(folder / f"{stem}.safetensors")
        index = folder / f"{stem}.safetensors.index.json"
        if index.exists():
            return open_index(index, open_safetensors)
    return open_safetensors(folder / WEIGHTS)  # says that it is missing


def weight_files(folder: Path) -> list[Path]:
    """Return the files of an output folder that hold its MLX weights."""
    return sorted(file for stem in STEMS for file in folder.glob(f"{stem}*.safetensors"))


def read_conversion(folder: Path) -> Conversion:
    """Read the ``conversion.json`` of an output folder.

    Raises:
        ConversionError: it is missing or not what it should be.
    """
    path = folder / "conversion.json"
    try:
        return Conversion.from_json(read_json(path))
    except OSError as error:
        raise ConversionError(
            f"{path} cannot be read: {error.strerror}. Give a folder that `mlxport convert` wrote."
        ) from error
    except ConversionError as error:
        raise ConversionError(f"{path} is damaged: {error}") from error


@contextmanager
def naming_the_record(folder: Path) -> Iterator[None]:
    """Carry out a plan that was read from a folder: where it cannot be, name the file.

    Raises:
        PlanError: steps do not fit the tensors that the plan itself speaks of.
    """
    try:
        yield
    except PlanError as error:
        raise PlanError(f"{folder / RECORD_FILE} is damaged: {error}") from error


def write_json(path: Path, data: Any) -> None:
    """Write strict JSON: no NaN, no infinity."""
    text = indented_json(data)
    path.write_text(text + "\n", encoding="utf-8")
