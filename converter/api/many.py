"""Many checkpoints at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxport.converter.api.boundary import public
from mlxport.converter.api.checkpoints import convert_checkpoint
from mlxport.converter.arguments import argument
from mlxport.converter.environment import prepare
from mlxport.converter.errors import OptionsError
from mlxport.converter.torch_model.hub import resolved

if TYPE_CHECKING:
    from mlxport.converter.tasks.result import Converted
    from mlxport.converter.tasks.sources.convert_many import ConvertedMany, Job


@public
def convert_many(
    sources: Sequence[str | Path], output: str | Path, *, overwrite: bool = False, **options: Any
) -> ConvertedMany:
    """Convert many checkpoints, each into a folder of its own in ``output``.

    Where architectures agree, the model is captured once: the others convert by the first's plan,
    and are held to their own torch model all the same, at the example's sizes. One that fails
    does not end the rest. Called again, it goes on where it was: a folder that holds the output of
    the same file, by its digest, is left, whatever the options.

    Args:
        sources: as for ``convert_checkpoint``; patterns (``"runs/*/best.pt"``) and ``.txt`` files
            that name one a line, too. A folder of several models (a pipeline of diffusers, the
            folds of nnU-Net) is one each.
        output: the folder to write into; ``parity.json`` and ``parity.html`` there hold the
            reports of all.
        overwrite: convert anew what is there.
        options: those of ``convert_checkpoint``, for each.

    Returns:
        A row each: what was done, whether parity holds, or what went wrong; ``str()`` gives the
        table, ``.to_json()`` the rows as data.

    Raises:
        OptionsError: there is no source, or the output folder is that of one conversion.
    """
    prepare()
    from mlxport.converter.output.contents import read_conversion
    from mlxport.converter.tasks.sources.convert_found import example_of
    from mlxport.converter.tasks.sources.convert_many import convert_many as convert_each

    jobs = _jobs(sources, options)
    if options.get("adapter") is not None or options.get("package") is not None:
        raise OptionsError(
            f"{argument('adapter')} and {argument('package')} are for one source: convert it alone"
        )

    def convert(job: Job, folder: Path, plan: Path | None) -> Converted:
        given = {**options, "overwrite": overwrite}
        if plan is None:
            return convert_checkpoint(job.source, folder, **given)
        kept = {name: given[name] for name in _BY_PLAN if name in given}
        if job.found is None:
            model = options["model"]
            return convert_checkpoint(job.source, folder, plan=plan, verify_with=model, **kept)
        # without a cache, where the first had none
        found = job.found.plain if read_conversion(plan).cache is None else job.found
        inputs, kwargs = example_of(found, kept.get("inputs", ()), kept.get("kwargs"))
        kept |= {"inputs": inputs, "kwargs": kwargs, "key": kept.get("key") or found.key}
        return convert_checkpoint(job.source, folder, plan=plan, verify_with=found, **kept)

    return convert_each(jobs, Path(output), convert, overwrite=overwrite)


# what a conversion by a plan takes of the options of its first
_BY_PLAN = (
    *("inputs", "kwargs", "model_args", "key", "prefix", "rename", "drop", "allow_lossy_cast"),
    *("max_shard_size", "overwrite", "noise_multiple", "carry_along", "reference", "device"),
    *("input_kinds", "batch_sizes"),
)


@public
def holds_many(sources: Sequence[str | Path]) -> bool:
    """Tell whether sources are more than one to convert."""
    if len(sources) != 1:
        return True
    from mlxport.converter.tasks.sources.convert_many import jobs_of

    prepare()
    only = str(sources[0])
    return Path(only).suffix == ".txt" or len(jobs_of([resolved(only)], described=True)) > 1


def _jobs(sources: Sequence[str | Path], options: dict[str, Any]) -> dict[str, Job]:
    """Return what to convert; of one model for all, the architecture is one."""
    from dataclasses import replace

    from mlxport.converter.tasks.sources.convert_many import jobs_of

    ways = ("model", "plan", "target", "layers")
    described = not any(options.get(way) for way in ways)
    jobs = jobs_of([resolved(source) for source in sources], described=described)
    alters = ("quantize", "gradients", "dtype", "fold_batchnorm")
    if any(options.get(name) for name in alters):
        # these are decided and judged for each by itself
        return {name: replace(job, architecture="") for name, job in jobs.items()}
    if isinstance(options.get("model"), str):
        return {name: replace(job, architecture=options["model"]) for name, job in jobs.items()}
    return jobs
