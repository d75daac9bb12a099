"""Publish an output folder on the Hugging Face Hub: first the card and what would go, then it.

Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlxport.converter.errors import ConversionError, OptionsError, ParityError
from mlxport.converter.output.code_digests import check_code
from mlxport.converter.output.contents import read_conversion
from mlxport.converter.parity.report.files import REPORT, read_reports
from mlxport.converter.plan.record import Conversion
from mlxport.converter.tasks.publishing.model_card import (
    SOURCE_CARD,
    licence_of,
    model_card,
    write_card,
)
from mlxport.converter.tasks.verify_weights import verify_weights
from mlxport.converter.torch_model.hub import CARRIED, check_repository, is_one, upload

# What a conversion writes at the top of its folder, besides what it carries along.
_WRITTEN = (
    "__init__.py",
    "model.py",
    "py.typed",
    "pyproject.toml",
    "*.safetensors",
    "*.safetensors.index.json",
    "conversion.json",
    REPORT,
    "parity.html",
    SOURCE_CARD,
)


@dataclass(frozen=True)
class Published:
    """What was published, or would be.

    Attributes:
        repository: ``owner/name``.
        files: path in the folder -> its bytes.
        left: what is in the folder and was written by no conversion: it stays here.
        url: of the commit; empty where nothing was uploaded.
        warnings: what the user should look into.
    """

    repository: str
    files: dict[str, int]
    left: tuple[str, ...]
    url: str = ""
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        verb = "Published as" if self.url else "Would be published as"
        width = max(map(len, self.files), default=0)
        lines = [f"{verb} {self.repository}, {len(self.files)} files:"]
        lines += [f"  {name:{width}}  {size:>14,}" for name, size in self.files.items()]
        lines += [f"stays here: {', '.join(self.left)}"] if self.left else []
        lines += [self.url] if self.url else []
        return "\n".join(lines)


def publish(
    folder: str | Path,
    repository: str,
    *,
    base_model: str | None,
    licence: str | None,
    private: bool,
    yes: bool,
) -> Published:
    """Write the card of an output folder and, where asked, upload it; see ``mlxport publish``."""
    path = Path(folder)
    check_repository(repository)
    if base_model is not None:
        check_repository(base_model)
    conversion = read_conversion(path)
    if not (path / "model.py").is_file():
        raise OptionsError(
            f"{path} holds weights alone, no model.py: there is no model to publish. Convert with "
            "the model."
        )
    report = read_reports([path])[REPORT.partition(".")[0]] if (path / REPORT).exists() else None
    licence = licence or licence_of(path)
    text = model_card(repository, conversion, report, base_model=base_model, licence=licence)
    write_card(path, text)
    files, left = _files(path, conversion)
    warnings = [] if licence else ["no licence is known, so the card states none"]
    if report is None:
        warnings.append("there is no parity report in the folder, and the card says so")
    url = ""
    if yes:
        if report is not None and not report.passed:
            raise ParityError(f"what does not hold is not published: {report.verdict}")
        check_code(path, conversion.code)
        found = verify_weights(path)
        if not found.passed:
            raise ConversionError(f"not published, as {found.verdict}")
        url = upload(path, repository, list(files), private=private)
    return Published(repository, files, left, url, tuple(warnings))


def _files(folder: Path, conversion: Conversion) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return the files that a conversion wrote, and names of what else lies in the folder."""
    files, left = {}, []
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if not file.is_file() or "__pycache__" in file.parts:
            continue
        top = "/" not in name
        known = name in conversion.code or (top and is_one(name, (*_WRITTEN, *CARRIED)))
        if known and not file.is_symlink():
            files[name] = file.stat().st_size
        else:
            left.append(name)
    return files, tuple(left)
