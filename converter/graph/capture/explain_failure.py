"""Say in words of the model's author why torch cannot capture or run it, where, and what to do."""

from __future__ import annotations

import linecache
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

import torch
from torch.fx import Node

from mlxport.converter.arguments import argument
from mlxport.converter.torch_model.control_flow import MOST_STEPS

_TORCH = Path(torch.__file__).parent
_HERE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Place:
    """A line of source that ran when something went wrong.

    Attributes:
        file: its file.
        line: its number.
        function: the function it is in.
    """

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """Return the file, the number and the text of the line."""
        return f"{self.file}:{self.line}" + (f" (`{self.source}`)" if self.source else "")

    @property
    def source(self) -> str:
        """The text of the line; empty where the file cannot be read."""
        return linecache.getline(self.file, self.line).strip()


@dataclass(frozen=True)
class _Kind:
    """A complaint of torch's: when it is meant, what it says of the model, what to do."""

    meant: Callable[[Exception, list[Place]], bool]
    what: str
    advice: str


def uncapturable(model: str, error: Exception) -> str:
    """Return why torch.export cannot capture a model.

    Args:
        model: its class.
        error: what torch.export raised; not one that came through a higher-order op.
    """
    places = list(_places(error))
    own = _in_users_code(places)
    for kind in _KINDS:
        if kind.meant(error, places):
            what, advice = kind.what, kind.advice
            return f"torch.export cannot capture {model}: it {what}{_at(own)}. {advice}"
    return f"torch.export cannot capture {model}{_at(own)}: {reason(error)}"


def rejected(model: str, inputs: str, error: Exception) -> str:
    """Return why a model does not run on its example inputs.

    Args:
        model: its class.
        inputs: the inputs in words.
        error: what the model raised.
    """
    if why := higher_order_refusal(model, error):
        return why
    places = list(_places(error))
    advice = f"Give shapes the model accepts ({argument('inputs')})."
    for pattern, better in _rejections():
        if re.search(pattern, str(error)):
            advice = better
    place = _at(_in_users_code(places))
    return f"{model} itself rejects the example input {inputs}{place}: {reason(error)}\n{advice}"


def running_line() -> Place | None:
    """Return the line of the model that runs now; None where none of its code does."""
    places = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        places.append(Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        if frame.f_code.co_filename == str(_HERE / "capture" / "capture.py"):
            break  # who asked for the capture is no line of the model
        frame = frame.f_back
    return _in_users_code(places[::-1])


def undecomposable(model: str, step: str, error: Exception) -> str:
    """Return why torch cannot go on with what torch.export captured.

    Args:
        model: its class.
        step: what torch was to do with it.
        error: what torch raised.
    """
    own = _at(_in_users_code(list(_places(error))))
    return f"torch.export captures {model}, but torch cannot {step}{own}: {reason(error)}"


def higher_order_refusal(model: str, error: Exception) -> str | None:
    """Return why a model is refused whose error came through a higher-order op; else None.

    Args:
        model: its class.
        error: what was raised while it ran or was captured.
    """
    places = list(_places(error))
    for place in places:
        if (name := _from_file(place.file)) is not None:
            called, why = why_refused(name)
            return f"{model} calls {called}{_at(_in_users_code(places))}: {why}."
    return None


def reason(error: Exception) -> str:
    """Return an error in one line, without torch's remarks on debugging."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [line for line in lines if line and not re.match(_REMARKS, line)]
    return f"{type(error).__name__}: " + " ".join(kept[:6]) if kept else type(error).__name__


_REMARKS = (
    r"For (more|extended|C\+\+)|If you suspect|The error above|consider using|The following call|"
    r"Caused by|File \""
)


def _places(error: BaseException | None) -> Iterator[Place]:
    """Yield the lines an error came through, the innermost last; those of its causes follow."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        trace: TracebackType | None = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            yield Place(code.co_filename, trace.tb_lineno, code.co_name)
            trace = trace.tb_next
        error = error.__cause__ or error.__context__


def _in_users_code(places: list[Place]) -> Place | None:
    """Return the innermost line that is neither torch's nor ours: the model's."""
    found = [
        place
        for place in places
        if Path(place.file).is_file()
        and not {_TORCH, _HERE} & set(Path(place.file).parents)
        and "contextlib" not in place.file
    ]
    return found[-1] if found else None


def _at(place: Place | None) -> str:
    return "" if place is None else f", at {place}"


def _by_values(error: Exception) -> bool:
    return type(error).__name__.startswith("GuardOnDataDependent")


def _branching(error: Exception, places: list[Place]) -> bool:
    own = _in_users_code(places)
    source = own.source if own else ""
    return _by_values(error) and bool(re.search(r"\b(if|elif|while|assert|_assert)\b", source))


def _with_nested(error: Exception, places: list[Place]) -> bool:
    own = _in_users_code(places)
    line = own.source if own and "NotImplemented to Tensor" in str(error) else ""
    return bool(re.search("nested|jagged", f"{error} {line}", re.IGNORECASE))


def _called(name: str) -> Callable[[Exception, list[Place]], bool]:
    return lambda error, places: _by_values(error) and any(p.function == name for p in places)


def _says(pattern: str) -> Callable[[Exception, list[Place]], bool]:
    return lambda error, places: bool(re.search(pattern, str(error)))


_KINDS = (
    _Kind(
        _called("_detect_is_causal_mask"),
        "hands nn.TransformerEncoder or nn.TransformerDecoder a mask without saying whether it is "
        "causal, and they look at its values to find out",
        "Say it: pass is_causal=False (right for every mask) or, for a causal one, is_causal=True.",
    ),
    _Kind(
        _branching,
        "decides by the values of a tensor what to compute",
        "A converted model computes the same for all values: use torch.where or a mask in place of "
        "the branch, drop the check, or decide before the call and pass a Python argument (it is "
        "fixed by the conversion).",
    ),
    _Kind(
        lambda error, places: _by_values(error),
        "makes a Python number or a size of the values of a tensor",
        "Sizes of a converted model do not depend on values: keep the value a tensor (0-d tensors "
        "take part in arithmetic; no .item(), int(), float(), .tolist()), or pass a Python "
        "argument (it is fixed by the conversion).",
    ),
    _Kind(
        _says(r"\.numpy\(\) is not supported"),
        "leaves PyTorch for NumPy",
        "Compute with torch's own functions in forward(), or do this before or after the model.",
    ),
    _Kind(
        _with_nested,
        "computes with nested tensors, which MLX has not",
        "A padded tensor and a mask hold the same.",
    ),
    _Kind(
        _says(r"Constant \S+ is mutated in the forward method"),
        "writes into a tensor it keeps as a plain attribute",
        "Register it as a buffer (register_buffer(name, tensor, persistent=False)), which becomes "
        "state of the MLX model.",
    ),
)


def _rejections() -> Iterator[tuple[str, str]]:
    """Yield what the errors of models read like, and what to do about it."""
    indices = argument("inputs", ["int64:1,16:0..99"])
    yield (
        r"index out of range",
        f"Integers go beyond an embedding or an axis: set their range, {indices}.",
    )
    yield r"scalar types: Long, Int", f"Indices are integers: {indices}."
    yield (
        r"have the same dtype|expected scalar type|expected m1 and m2",
        "Give floating inputs in the model's own dtype.",
    )
    yield (
        r"unexpected keyword argument|missing \d+ required|positional arguments? but",
        f"Give the arguments of its forward() ({argument('inputs')}, by name "
        f"{argument('inputs', ['mask=bool:1,16'])}).",
    )
    yield (
        r"Need attn_mask if specifying the is_causal hint",
        "is_causal only says what attn_mask is: pass the mask with it, or leave both out.",
    )


# -- higher-order ops: torch.cond and its like hand a graph of its own to an op --------------------

_CHOOSES = "which graph runs is decided by a value"
_LOOP = (
    f"up to {MOST_STEPS} steps are written out one by one, here there are more: write it with "
    "batched ops"
)

# what torch calls the op -> what people call it, and what to write instead
_HIGHER_ORDER = {
    "cond": (
        "torch.cond",
        "where sides give tensors of the same shapes and dtypes and a tensor decides, both are "
        "computed; here a size decides, or they do not: choose with torch.where, or decide before "
        "the call",
    ),
    "switch": ("torch.switch", f"{_CHOOSES}: decide before the call"),
    "while_loop": (
        "while_loop",
        "the number of its steps is decided by values: write a Python loop over a fixed number",
    ),
    "map_impl": ("map", _LOOP),
    "map": ("map", _LOOP),
    "scan": ("scan", _LOOP),
    "associative_scan": (
        "associative_scan",
        "combine_mode='generic' is written out; or use torch.cumsum, torch.cumprod",
    ),
    "flex_attention": (
        "flex_attention",
        "use torch.nn.functional.scaled_dot_product_attention with a mask",
    ),
}


def is_higher_order(node: Node) -> bool:
    """Whether a node calls an op that takes sub-graphs."""
    return isinstance(node.target, torch._ops.HigherOrderOperator)


def why_refused(name: str) -> tuple[str, str]:
    """Return what people call a higher-order op, and why it is not supported.

    Args:
        name: what torch calls it.
    """
    known = _HIGHER_ORDER.get(name)
    called, instead = known or (name, "write what it computes as ops of the model itself")
    return called, f"a higher-order op with a graph of its own, not supported yet; {instead}"


def _from_file(file: str) -> str | None:
    """Return the higher-order op that a file of torch's own implements; None if it is of none."""
    path = file.replace("\\", "/")
    if path.endswith("/torch/nn/attention/flex_attention.py"):
        return "flex_attention"
    folder, _, name = path.rpartition("/")
    if not folder.endswith("/torch/_higher_order_ops"):
        return None
    name = name.removesuffix(".py")
    return name if name in _HIGHER_ORDER else None
