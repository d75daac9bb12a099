"""Run the model of an output folder again, and hold it to the references stored beside it.

Needs no torch.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mlxport.converter.errors import CheckpointError, ConversionError, ParityError
from mlxport.converter.output.code_digests import check_code as hold_to_digests
from mlxport.converter.output.contents import read_conversion
from mlxport.converter.output.device import on_device
from mlxport.converter.output.live_model import live_model, not_ending
from mlxport.converter.parity.report.metal_check import MetalCheck
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.run.check_metal import check_metal
from mlxport.converter.parity.run.state_runs import StateRuns
from mlxport.converter.parity.run.verify import verify_at_sizes
from mlxport.converter.parity.verdict.judgement import DEFAULT_JUDGEMENT, Judgement
from mlxport.converter.parity.verdict.reference_data import Reference
from mlxport.converter.parity.verdict.reference_file import load_reference
from mlxport.converter.plan.record import Conversion
from mlxport.converter.tasks.verify_weights import WeightsReport, verify_weights

_NAMED = 3  # of the tensors that changed


def verify_folder(
    folder: str | Path,
    *,
    device: str = "auto",
    judgement: Judgement = DEFAULT_JUDGEMENT,
    check_code: bool = False,
) -> ParityReport:
    """Run the model of an output folder and compare it with the references beside it.

    Args:
        folder: what ``mlxport convert`` wrote.
        device: ``auto``, ``cpu``, ``metal`` or ``cuda``.
        judgement: what passes.
        check_code: hold ``model.py`` and ``layers/`` to the digests in the record before they run.

    Raises:
        ConversionError: the folder is not such an output, holds no reference, or its weights do
            not fit its ``model.py``.
        DeviceError: the device is not on this machine.
    """
    with on_device(device):
        return _verified(Path(folder), judgement, check_code)


def metal_table(folder: str | Path, *, check_code: bool = False) -> MetalCheck:
    """Look the calls of a folder's model up in the table of Metal; see ``mlxport.metal_table``."""
    path = Path(folder)
    conversion = read_conversion(path)
    if check_code:
        hold_to_digests(path, conversion.code)
    reference = _references(path)[0]
    model = live_model(path)
    state = StateRuns(model, conversion.state)
    with not_ending(path / "model.py"), state.from_the_beginning():
        found = check_metal(model, conversion, reference)
    if found is None:
        raise ParityError(
            f"{folder}: the model raises on its stored inputs. Where, says: mlxport verify {folder}"
        )
    return found


def _verified(path: Path, judgement: Judgement, check_code: bool) -> ParityReport:
    conversion = read_conversion(path)
    if check_code:
        hold_to_digests(path, conversion.code)
    references = _references(path)
    changed = _changes(path, conversion)
    try:
        model = live_model(path)
    except ConversionError as error:
        if changed:
            raise ConversionError(f"{error}\n{changed}") from error
        raise
    with not_ending(path / "model.py"):
        report = verify_at_sizes(model, conversion, references, judgement=judgement, alone=False)
    return replace(report, changed=changed)


def _references(folder: Path) -> list[Reference]:
    others = folder.glob("reference-*.safetensors")  # reference-10 is behind reference-9
    in_order = sorted(others, key=lambda file: (len(file.name), file.name))
    stored = [folder / "reference.safetensors", *in_order]
    if not stored[0].exists():
        raise ConversionError(
            f"{folder} holds no reference to compare with: {stored[0].name} is not there. "
            "Conversions by a plan make none without the torch model. To have one, name it: "
            "mlxport convert CHECKPOINT --plan OTHER --verify-with PKG.MOD:FACTORY --input SIZES "
            "-o OUT. "
            "Whether the weights are those that were written says mlxport verify OUT --weights."
        )
    return [load_reference(file) for file in stored]


def _changes(folder: Path, conversion: Conversion) -> str:
    """Say which weights are no longer those that were written; empty where all are."""
    if not (conversion.digests.sources or conversion.digests.targets):
        return ""
    try:
        found = verify_weights(folder)
    except CheckpointError as error:
        return f"The weights are not those that were converted: {error}"
    return "" if found.passed else _said(found)


def _said(found: WeightsReport) -> str:
    problems = [" ".join(problem.split()) for problem in found.problems]
    rest = len(problems) - _NAMED
    listed = ", ".join(problems[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
    count = found.checked + len(problems)
    return (
        f"The weights are not those that were converted ({len(problems)} of {count} tensors: "
        f"{listed}). Convert again, or ask mlxport verify OUT --weights for the whole list."
    )
