"""Infer the layer of each tensor without the model: by evidence, or by what the user says.

The shape of a weight alone does not say whether its first axis is a convolution's output or a
transposed convolution's input. What no evidence decides stays open: a name is only a hint.
Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.keys.folds import Source
from mlxport.converter.errors import OptionsError
from mlxport.converter.plan.steps import Step, bilinear_weight, conv_transpose_weight, conv_weight

_AS_IS = "as it is"
_CONVOLUTIONS = ("Conv", "ConvTranspose")
# The layers of torch.nn whose tensors MLX keeps in the same order, as the user may name them.
_KEPT = ("Linear", "Embedding", "LayerNorm", "RMSNorm", "Parameter")
_HINTS = {"up": "ConvTranspose", "deconv": "ConvTranspose", "trans": "ConvTranspose"}
# Counters that inference never reads -> why they are left out
COUNTERS = {"num_batches_tracked": "counts training batches", "n_averaged": "counts updates"}


@dataclass(frozen=True)
class Choice:
    """What the user says of some tensors: ``decoder.*.up.weight=ConvTranspose3d:2``.

    Attributes:
        glob: of names; ``*`` stands for any text.
        kind: class of torch.nn, the rank of a convolution optional.
        groups: of a transposed convolution; None where not said.
    """

    glob: str
    kind: str
    groups: int | None = None

    def __str__(self) -> str:
        groups = f":{self.groups}" if self.groups else ""
        return argument("layers", [f"{self.glob}={self.kind}{groups}"])


@dataclass(frozen=True)
class Reading:
    """What a tensor is taken for.

    Attributes:
        kind: class of torch.nn, or ``"as it is"``.
        steps: to MLX's layout; None where it is open or left out.
        evidence: why it is taken for that.
        options: where it is open, what ``layers=`` may say of it.
        ignored: why it is left out; empty where it is not.
    """

    kind: str
    steps: tuple[Step, ...] | None
    evidence: str
    options: tuple[str, ...] = ()
    ignored: str = ""


def parse_layers(options: Sequence[str]) -> list[Choice]:
    """Return the choices of ``GLOB=CLASS[:groups]`` texts.

    Raises:
        OptionsError: an option does not read so; all are listed.
    """
    choices, problems = [], []
    for option in options:
        glob, _, said = option.rpartition("=")
        kind, _, groups = said.partition(":")
        base = kind[:-2] if kind[-2:] in ("1d", "2d", "3d") else kind
        known = base in _CONVOLUTIONS or (base == kind and kind in (*_KEPT, "Bilinear"))
        grouped = not groups or (base in _CONVOLUTIONS and groups.isdecimal() and int(groups))
        if glob and known and grouped:
            choices.append(Choice(glob, kind, int(groups) if groups else None))
        else:
            problems.append(option)
    if problems:
        classes = ", ".join(
            ["Conv[1d|2d|3d]", "ConvTranspose[1d|2d|3d][:groups]", "Bilinear", *_KEPT]
        )
        raise OptionsError.listing(
            f"{argument('layers')}: expected GLOB=CLASS, with one of these classes: {classes}",
            problems,
        )
    return choices


def read_tensors(
    sources: Mapping[str, Source], choices: Sequence[Choice] = ()
) -> dict[str, Reading]:
    """Return name -> what the tensor is taken for; of choices the last that fits counts.

    Raises:
        OptionsError: a choice fits no tensor, or what is there speaks against it; all are listed.
    """
    readings: dict[str, Reading] = {}
    problems = []
    used: set[Choice] = set()
    widths = _next_widths(sources)
    for name, source in sources.items():
        fitting = [choice for choice in choices if fnmatchcase(name, choice.glob)]
        used.update(fitting)
        shape, bias = source.spec.shape, _bias(name, sources)
        plain = _plain(name, shape)
        if source.open:
            readings[name] = Reading("open", None, source.open)
        elif plain is not None:
            readings[name] = plain
        elif fitting:
            found = _chosen(fitting[-1], shape, bias)
            if isinstance(found, str):
                problems.append(f"{fitting[-1]}: {name} {shape} is none: {found}")
            else:
                readings[name] = found
        else:
            readings[name] = _by_evidence(name, shape, bias, widths[name])
    problems += [f"{choice}: there is no such tensor" for choice in choices if choice not in used]
    if problems:
        raise OptionsError.listing("the checkpoint speaks against these:", problems)
    return readings


def _bias(name: str, sources: Mapping[str, Source]) -> tuple[int, ...] | None:
    other = sources.get(f"{name.removesuffix('weight')}bias") if name.endswith("weight") else None
    return other.spec.shape if other else None


def _next_widths(sources: Mapping[str, Source]) -> dict[str, int | None]:
    """Return name -> the length of the next weight where that has one axis, as a norm's does."""
    widths: dict[str, int | None] = {}
    width = None
    for name, source in reversed(list(sources.items())):
        widths[name] = width
        if name.endswith("weight"):
            shape = source.spec.shape
            width = shape[0] if len(shape) == 1 else None
    return widths


def _plain(name: str, shape: tuple[int, ...]) -> Reading | None:
    """Return the reading of a tensor that is no convolution's weight."""
    last = name.rpartition(".")[2]
    if last in COUNTERS:
        return Reading("counter", None, "its name", ignored=COUNTERS[last])
    if len(shape) < 3:
        return Reading(_AS_IS, (), "fewer than 3 axes keep their order")
    if last != "weight":
        return Reading(_AS_IS, (), "torch.nn's convolutions call theirs 'weight'")
    return None


def _chosen(choice: Choice, shape: tuple[int, ...], bias: tuple[int, ...] | None) -> Reading | str:
    """Return what a choice makes of a tensor, or what speaks against it."""
    said = f"{choice}"
    if choice.kind in _KEPT:
        return Reading(choice.kind, (), said)
    rank = len(shape) - 2
    if choice.kind == "Bilinear":
        return Reading("Bilinear", bilinear_weight(), said) if rank == 1 else "it has 3 axes"
    base = choice.kind.removesuffix(f"{rank}d")
    if base not in _CONVOLUTIONS or rank > 3:
        return f"its rank is not {rank}"
    outputs = _outputs(base, shape, bias)
    if isinstance(outputs, str):
        return outputs
    groups = choice.groups or outputs or 1
    if base == "Conv":
        return Reading(f"Conv{rank}d", conv_weight(rank), said)
    if outputs not in (None, groups):
        return f"a bias of {bias} makes {outputs} groups"
    if shape[0] % groups:
        return f"{groups} groups do not divide {shape[0]} channels"
    return Reading(f"ConvTranspose{rank}d", conv_transpose_weight(groups), said)


def _outputs(base: str, shape: tuple[int, ...], bias: tuple[int, ...] | None) -> int | str | None:
    """Return the groups a bias gives, None without one, or why it speaks against the class."""
    if bias is None:
        return None
    if len(bias) != 1:
        return f"its bias has shape {bias}"
    if base == "Conv":
        return 1 if bias[0] == shape[0] else f"its bias has {bias[0]} values, not {shape[0]}"
    groups, rest = divmod(bias[0], shape[1]) if shape[1] else (0, 1)
    if rest or not groups or shape[0] % groups:
        return f"a bias of {bias[0]} values does not fit {shape[1]} output channels a group"
    return groups


def _by_evidence(
    name: str, shape: tuple[int, ...], bias: tuple[int, ...] | None, width: int | None
) -> Reading:
    """Return the one reading that shape and bias leave, or an open one."""
    rank = len(shape) - 2
    kinds = [f"{base}{rank}d" for base in _CONVOLUTIONS if rank <= 3]
    kinds += ["Bilinear"] if rank == 1 else []
    fitting: dict[str, Reading] = {}
    for kind in kinds:
        base = "Conv" if kind == "Bilinear" else kind[:-2]  # both have a bias of the first axis
        groups = _outputs(base, shape, bias)
        if not isinstance(groups, str):
            fitted = _chosen(Choice(name, kind), shape, bias)
            if isinstance(fitted, Reading):
                fitting[kind + (f":{groups}" if groups and base != "Conv" else "")] = fitted
    if bias is None or len(bias) != 1:
        kept = "LayerNorm" if bias == shape else "RMSNorm" if bias is None else "Parameter"
        fitting[kept] = Reading(kept, (), "")
    if len(fitting) == 1:
        ((label, reading),) = fitting.items()
        why = f"a bias of {'x'.join(map(str, bias or ()))} leaves no other layer of torch.nn"
        return Reading(label, reading.steps, why)
    hints = [f"its name hints at {kind}" for part, kind in _HINTS.items() if part in name.lower()]
    outputs = {shape[0]: "Conv", shape[1]: "ConvTranspose"} if shape[0] != shape[1] else {}
    if bias is None and width in outputs:
        hints.append(f"the norm after it has {width} values, a hint at {outputs[width]}")
    evidence = "; ".join(["shape and bias fit several layers", *hints])
    return Reading("open", None, evidence, tuple(f"{name}={kind}" for kind in fitting))
