"""Tell whether a plan may be used on a checkpoint that PyTorch would hand to a model's own code.

Needs torch only for torch's tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import Checkpoint, printable
from mlxport.converter.checkpoint.keys.metadata import (
    digest_of_value,
    metadata_text,
    module_paths,
    translated,
)
from mlxport.converter.errors import StateDictError
from mlxport.converter.plan.loading import Loading, is_extra_state
from mlxport.converter.plan.weight_plan import WeightPlan

# The note of every way to weights without the torch model that would load them.
NO_LOADING_CODE = (
    "the values are the file's: what hooks of a torch model do in load_state_dict is not done here"
)


def check_computed(loading: Loading) -> None:
    """Check that the model's own code made nothing of the checkpoint that a plan is of.

    Raises:
        StateDictError: it made tensors or changed the model, or nobody has seen what it makes.
    """
    if not loading.tried:
        raise StateDictError.listing(
            "the plan is of a model that was converted without a checkpoint, and what this code of "
            "the model makes of one is not known:",
            loading.code,
            _advice(),
        )
    made = [f"{printable(key)}: {why}" for key, why in loading.computed.items()]
    made += [f"{printable(name)}: changed by {_all(loading)}" for name in loading.changed]
    if made:
        raise StateDictError.listing(
            "the model's own code made these when its checkpoint was loaded, and a plan cannot:",
            made,
            _advice(),
        )


def check_derived(derived: Mapping[str, Sequence[str]]) -> None:
    """Check that a plan's model keeps nothing that other weights would make other.

    Raises:
        StateDictError: it does; all of it is listed.
    """
    if derived:
        raise StateDictError.listing(
            "the plan's model keeps tensors outside of its state dict that were computed of its "
            "weights before it was converted:",
            [
                f"{printable(name)}: of {', '.join(map(printable, of))}"
                for name, of in derived.items()
            ],
            "Other weights make others, and a plan computes none: convert with "
            f"{argument('model')}, or make the plan of the model before its first call.",
        )


def beside_tensors(plan: WeightPlan) -> Iterator[str]:
    """Yield what there is to say of what a model takes from a checkpoint and is no tensor."""
    read = plan.loading.read if plan.loading else {}
    if lost := [printable(key) for key in read if key not in plan.specs]:
        yield (
            f"no tensor, and so not in the output folder: {', '.join(lost)}. Keep the checkpoint: "
            "restore cannot give it back"
        )


def check_same(
    loading: Loading,
    checkpoint: Checkpoint,
    keys: Mapping[str, str],
    original_keys: Mapping[str, str],
) -> None:
    """Check that what the model's own code looks at is as in the checkpoint that a plan is of.

    Args:
        loading: what it looked at there.
        checkpoint: another one.
        keys: source key of the plan -> key of the checkpoint.
        original_keys: key of the checkpoint -> that in its file, where keys were renamed.

    Raises:
        StateDictError: metadata of modules or what it reads differ; all of it is listed.
    """
    paths = module_paths({one: original_keys.get(key, key) for one, key in keys.items()})
    problems = []
    for path, noted in loading.modules.items():
        found = metadata_text(checkpoint, translated(path, paths))
        if found != noted:
            where = printable(path) if path else "the model"
            problems.append(f"the metadata of {where}: {noted} there, {found} here")
    for key, digest in loading.read.items():
        module, _, last = key.rpartition(".")
        here = keys.get(key) or ".".join(p for p in (translated(module, paths), last) if p)
        value = checkpoint.tensors.get(here, checkpoint.others.get(here))
        if value is None or not digest or digest_of_value(value) != digest:
            what = "the extra state" if is_extra_state(key) else "what is read"
            absent = "it is not in this checkpoint" if value is None else "another value here"
            problems.append(f"{what} {printable(key)}: {absent}")
    if problems:
        raise StateDictError.listing(
            f"the plan's model has code of its own that loads it ({_all(loading)}), and what it "
            "looks at differs from the checkpoint the plan was made for:",
            problems,
            _advice(),
        )


def _all(loading: Loading) -> str:
    return ", ".join(loading.code)


def _advice() -> str:
    return f"PyTorch runs this code on every checkpoint: convert with {argument('model')}."
