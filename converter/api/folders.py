"""Output folders: load, verify, restore and export what a conversion wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlxport.converter.api.boundary import public
from mlxport.converter.environment import prepare
from mlxport.converter.exclusive import exclusive

if TYPE_CHECKING:
    import mlx.nn

    from mlxport.converter.parity.report.metal_check import MetalCheck
    from mlxport.converter.parity.report.report import ParityReport
    from mlxport.converter.tasks.export import Exported
    from mlxport.converter.tasks.publishing.publish import Published
    from mlxport.converter.tasks.restored import Restored
    from mlxport.converter.tasks.verify_weights import WeightsReport


@public
@exclusive
def load(folder: str | Path, *, check_code: bool = False) -> mlx.nn.Module:
    """Return the MLX model of an output folder, with its weights, in eval mode.

    Runs the folder's ``model.py``, with all that you may do: read one from a stranger first.
    ``verify`` and ``mlxport.testing.assert_parity`` know its layers, as of one just converted.

    Args:
        folder: what ``mlxport convert`` wrote.
        check_code: hold ``model.py`` and ``layers/`` to the digests in ``conversion.json`` before
            they run.

    Raises:
        ConversionError: the folder holds no converted model, or other code than was written.
    """
    prepare()
    from mlxport.converter.output.code_digests import check_code as hold_to_digests
    from mlxport.converter.output.contents import read_conversion
    from mlxport.converter.output.lineage import record_lineage
    from mlxport.converter.output.live_model import live_model

    conversion = read_conversion(Path(folder))
    if check_code:
        hold_to_digests(Path(folder), conversion.code)
    model: mlx.nn.Module = live_model(folder)
    record_lineage(model, conversion)
    return model


@public
@exclusive
def verify_folder(
    folder: str | Path,
    *,
    device: str = "auto",
    noise_multiple: float | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    check_code: bool = False,
) -> ParityReport:
    """Run the model of an output folder and compare it with the reference stored in it.

    Runs the folder's ``model.py``, with all that you may do: read one from a stranger first. Such
    code can forge any verdict, too; ``mlxport verify`` at least runs it in a process of its own.
    Needs mlx, not torch. Where the weights are no longer those that were written, by the digests
    in ``conversion.json``, the verdict says that too.

    Args:
        folder: what ``mlxport convert`` wrote.
        device: ``auto``, ``cpu``, ``metal`` or ``cuda``.
        noise_multiple: how many times PyTorch's own rounding noise passes (default 8).
        output: a file to write the report to: ``.html``, ``.md`` or ``.json``.
        overwrite: replace that file if it exists.
        check_code: hold ``model.py`` and ``layers/`` to the digests in ``conversion.json`` before
            they run.

    Raises:
        ConversionError: the folder holds no converted model, no reference, or other code than was
            written.
        DeviceError: the device is not on this machine.
        OptionsError: the report cannot be written there.
    """
    prepare()
    from mlxport.converter.parity.report.files import check_page, write_page
    from mlxport.converter.parity.verdict.judgement import Judgement
    from mlxport.converter.tasks.verify_folder import verify_folder

    judgement = Judgement.of(noise_multiple)
    if output is not None:
        check_page(Path(output), overwrite=overwrite)
    found = verify_folder(folder, device=device, judgement=judgement, check_code=check_code)
    if output is not None:
        write_page(Path(output), {Path(output).stem: found}, overwrite=overwrite)
    return found


@public
@exclusive
def metal_table(folder: str | Path, *, check_code: bool = False) -> MetalCheck:
    """Look the calls of a converted model up in the table of what MLX's Metal backend takes.

    On any machine, with no GPU and no torch: the table was read from MLX's sources, and the model
    is run lazily on the inputs stored in the folder. Only a run on Metal shows that it is right
    there.

    Args:
        folder: what ``mlxport convert`` wrote.
        check_code: as for ``verify_folder``.

    Raises:
        ConversionError: the folder holds no converted model, or no reference.
        ParityError: the model raises where it is run.
    """
    prepare()
    from mlxport.converter.tasks.verify_folder import metal_table

    return metal_table(folder, check_code=check_code)


@public
def verify_weights(folder: str | Path) -> WeightsReport:
    """Check the weights of an output folder against the digests in its ``conversion.json``.

    Weights that were only moved are moved back and compared with the digest of PyTorch's tensor,
    cast and folded ones with the digest of what was written. Needs no torch.

    Args:
        folder: what ``mlxport convert`` wrote.

    Raises:
        ConversionError: the folder is damaged or holds no digests.
    """
    from mlxport.converter.tasks.verify_weights import verify_weights

    return verify_weights(folder)


@public
def report(
    sources: Sequence[str | Path], output: str | Path | None = None, *, overwrite: bool = False
) -> dict[str, ParityReport]:
    """Read parity reports of one model, and write them as a page side by side.

    Args:
        sources: files that ``convert`` and ``verify`` wrote, or output folders.
        output: the page to write: ``.html``, ``.md`` or ``.json``; none if not given.
        overwrite: replace an existing file.

    Returns:
        The reports by their names: the files', or where these are alike their folders'.

    Raises:
        EvidenceError: a file holds no report; all of them are listed.
        OptionsError: the page cannot be written.
    """
    from mlxport.converter.parity.report.files import read_reports, write_page

    reports = read_reports([Path(source) for source in sources])
    if output is not None:
        write_page(Path(output), reports, overwrite=overwrite)
    return reports


@public
@exclusive
def restore(
    source: str | Path,
    output: str | Path,
    *,
    weights: str | Path | None = None,
    from_live: mlx.nn.Module | None = None,
    adapter: bool = False,
    partial: bool = False,
    overwrite: bool = False,
) -> Restored:
    """Write the PyTorch checkpoint that an output folder was made from, or one trained from it.

    Keys, shapes, dtypes and bits are those of the checkpoint. Tied tensors share their memory again
    in ``.pt`` and are written under each of their names in ``.safetensors``. Needs no torch for
    ``.safetensors``.

    Args:
        source: the output folder, or the ``conversion.json`` in it. Its weights may have been
            trained further.
        weights: MLX weights to give back in place of the folder's: a ``.safetensors`` file as
            ``save_weights`` writes it, the index of several, or a folder with either.
        from_live: the model that the folder loads as, trained; its weights are given back.
        adapter: write the adapter that was converted with its base, as a folder that PEFT reads
            (``adapter_config.json``, ``adapter_model.safetensors``), and not the checkpoint of
            the base.
        output: the file to write: ``.safetensors``, or ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` as
            ``torch.save`` writes them.
        partial: write the rest where tensors cannot be given back, as a norm was folded into them.
        overwrite: replace an existing file.

    Returns:
        The keys that were written, and what is lost or rounded.

    Raises:
        ConversionError: tensors cannot be given back, or the folder is damaged; all are listed and
            nothing is written.
    """
    prepare()
    from mlxport.converter.tasks.restore import restore

    return restore(
        source,
        output,
        weights=weights,
        from_live=from_live,
        adapter=adapter,
        partial=partial,
        overwrite=overwrite,
    )


@public
@exclusive
def export_function(
    folder: str | Path,
    path: str | Path,
    *,
    shapeless: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    noise_multiple: float | None = None,
    check_code: bool = False,
) -> Exported:
    """Export the model of an output folder as one file with weights, for MLX in C++ and Swift.

    Runs the folder's ``model.py``, with all that you may do: read one from a stranger first.
    Written by ``mx.export_function`` and compared with ``model.py`` on the stored inputs. Takes and
    gives arrays by position, flattened. Needs mlx, not torch.

    Args:
        folder: what ``mlxport convert`` wrote.
        path: the file to write, ``model.mlxfn``.
        shapeless: take other shapes too; MLX cannot export every model so.
        overwrite: replace an existing file.
        device: what the function is to run on, ``auto``, ``cpu``, ``metal`` or ``cuda``: it is
            fixed in the file.
        noise_multiple: how many times PyTorch's own rounding noise passes (default 8), where the
            bits are not those of ``model.py``.
        check_code: hold ``model.py`` and ``layers/`` to the digests in ``conversion.json`` before
            they run.

    Raises:
        ConversionError: MLX cannot export the model, or the folder holds none; nothing is written.
        ParityError: the exported function computes something else; nothing is written.
        DeviceError: the device is not on this machine.
    """
    prepare()
    from mlxport.converter.parity.verdict.judgement import Judgement
    from mlxport.converter.tasks.export import export_folder

    return export_folder(
        folder,
        path,
        shapeless=shapeless,
        overwrite=overwrite,
        device=device,
        judgement=Judgement.of(noise_multiple),
        check_code=check_code,
    )


@public
@exclusive
def publish(
    folder: str | Path,
    repository: str,
    *,
    base_model: str | None = None,
    licence: str | None = None,
    private: bool = False,
    yes: bool = False,
) -> Published:
    """Write the card of an output folder, ``README.md``, and upload the folder where asked.

    Only what a conversion writes or carries along is uploaded; what else lies in the folder stays.
    Before that the code and the weights are held to the digests in the record. An index of the
    weights with their totals is written beside them.

    Args:
        folder: what ``mlxport convert`` wrote.
        repository: ``owner/name`` on the Hugging Face Hub.
        base_model: the repository the weights come from; known where they came from the Hub.
        licence: its identifier on the Hub; that of the card that was carried along if not given.
        private: make the repository private, where there is none yet.
        yes: upload, by huggingface_hub and as who that is logged in as.

    Returns:
        What was uploaded or would be.

    Raises:
        OptionsError: the names of repositories are none, or the folder holds no model.
        ConversionError: it holds other code or weights than were written.
        ParityError: the report in it says that parity failed, and it was to be uploaded.
        CheckpointError: it cannot be uploaded.
    """
    prepare()
    from mlxport.converter.tasks.publishing.publish import publish

    return publish(
        folder, repository, base_model=base_model, licence=licence, private=private, yes=yes
    )
