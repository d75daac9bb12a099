"""Write the card of an output folder: ``README.md`` as the Hugging Face Hub reads it.

Needs no torch.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from mlxport.converter.checkpoint.writing.atomic import replace_text
from mlxport.converter.output.mlx_lm_file import MODEL_FILE
from mlxport.converter.parity.report.markdown import escaped, worst_tables
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.report.text import pass_or_fail
from mlxport.converter.plan.record import Conversion
from mlxport.converter.terminal import cleaned

CARD = "README.md"
# What a card of the source's own is called beside ours.
SOURCE_CARD = "README_of_the_source.md"

_HUB = re.compile(r"hf://(?P<repository>[^@]+)")
_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_LICENCE = re.compile(r"^license: *([^\s#]+)", re.MULTILINE)
_MARK = "Converted from PyTorch by mlxport"


def model_card(
    repository: str,
    conversion: Conversion,
    report: ParityReport | None,
    *,
    base_model: str | None,
    licence: str | None,
) -> str:
    """Return the text of a card.

    Args:
        repository: ``owner/name``.
        conversion: the record of the folder.
        report: the parity report; None where parity was not judged.
        base_model: the repository the weights come from; that of the record if not given.
        licence: its identifier on the Hub, as ``apache-2.0``; none is stated if not given.
    """
    match = _HUB.match(conversion.source.get("hub", ""))
    base_model = base_model or (match["repository"] if match else None)
    for_mlx_lm = MODEL_FILE in conversion.code
    facts = {
        "library_name": "mlx",
        "pipeline_tag": "text-generation" if for_mlx_lm else None,
        "base_model": base_model,
        "license": licence,
    }
    front = [f"{key}: {json.dumps(value)}" for key, value in facts.items() if value]
    name = repository.rpartition("/")[2]
    versions = ", ".join(f"{key} {value}" for key, value in conversion.versions.items())
    origin = conversion.source.get("model") or conversion.source.get("path", "a checkpoint")
    return "\n".join(
        [
            "---",
            *front,
            "tags:",
            "- mlx",
            "---",
            "",
            f"# {name}",
            "",
            f"{_MARK} from `{_code(origin)}`, {_code(versions)}."
            + (
                f" The weights are those of [{base_model}](https://huggingface.co/{base_model})."
                if base_model
                else ""
            ),
            "",
            "## Use",
            "",
            "```python",
            "import sys",
            "",
            "from huggingface_hub import snapshot_download",
            "",
            f'sys.path.insert(0, snapshot_download("{repository}"))',
            "import model",
            "",
            "net = model.load()",
            "```",
            "",
            *(_by_mlx_lm(repository) if for_mlx_lm else ()),
            "`model.py` needs mlx alone. It is code: read it before you run it.",
            "",
            "## Parity with PyTorch",
            "",
            *_parity(report),
            "",
        ]
    )


def _by_mlx_lm(repository: str) -> list[str]:
    return [
        "mlx-lm runs it too:",
        "",
        "```python",
        "from mlx_lm import generate, load",
        "",
        f'net, tokenizer = load("{repository}", trust_remote_code=True)',
        'print(generate(net, tokenizer, "Once upon a time"))',
        "```",
        "",
    ]


def _code(text: str) -> str:
    """Return text from a record, which may be a stranger's, for between backticks."""
    return cleaned(text).replace("`", "'")


def _parity(report: ParityReport | None) -> list[str]:
    if report is None:
        return ["Parity was not judged: there is no report beside the weights."]
    outcome = pass_or_fail(report.passed)
    where = ", ".join(
        escaped(f"{key} {report.environment[key]}")
        for key in ("backend", "device", "mlx", "reference torch")
        if key in report.environment
    )
    return [
        f"**{outcome}**: {escaped(report.verdict)}",
        "",
        f"Held to PyTorch in {report.reference_dtype}{f', on {where}' if where else ''}. "
        "`mlxport verify` repeats it, with the reference in this folder.",
        "",
        *worst_tables(report),
    ]


def write_card(folder: Path, text: str) -> None:
    """Write a card into a folder; a card of the source's that is there is kept beside it.

    Raises:
        CheckpointError: it cannot be written.
    """
    card = folder / CARD
    theirs = card.is_file() and not card.is_symlink()
    if theirs and _MARK not in card.read_text(encoding="utf-8", errors="replace"):
        card.rename(folder / SOURCE_CARD)
    replace_text(card, text)


def licence_of(folder: Path) -> str | None:
    """Return the licence that a card in the folder states, ours or the source's."""
    for name in (SOURCE_CARD, CARD):
        if (folder / name).is_file():
            text = (folder / name).read_text(encoding="utf-8", errors="replace")
            front = _FRONT.match(text)
            found = _LICENCE.search(front[1]) if front else None
            if found:
                return found[1].strip("\"'")
    return None
