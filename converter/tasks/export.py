"""Export the model of an output folder as an MLX function, for C++ and Swift. Needs no torch."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.writing.atomic import reserved, sync_folder
from mlxport.converter.errors import CheckpointError, ConversionError, OptionsError, ParityError
from mlxport.converter.output.code_digests import check_code as hold_to_digests
from mlxport.converter.output.contents import read_conversion
from mlxport.converter.output.device import on_device
from mlxport.converter.output.live_model import live_model, not_ending
from mlxport.converter.parity.run.caches import caches_as_arrays
from mlxport.converter.parity.run.interface import mlx_arguments, output_names
from mlxport.converter.parity.run.judge_arrays import judge_array
from mlxport.converter.parity.run.trace import arrays, mapped, mlx_dtype_name
from mlxport.converter.parity.verdict.judgement import DEFAULT_JUDGEMENT, Judgement
from mlxport.converter.parity.verdict.reference_data import Reference
from mlxport.converter.parity.verdict.reference_file import load_reference
from mlxport.converter.plan.record import Conversion, ModuleRecord

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportedArray:
    """One array an exported function takes or gives.

    Attributes:
        name: of the argument, or ``output`` with what is read of it.
        dtype: its dtype by name.
        shape: its shape, as MLX stores it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {self.shape}"


@dataclass(frozen=True)
class Exported:
    """An exported function.

    Attributes:
        path: the file.
        inputs: what it takes, all by position.
        outputs: what it gives, flattened.
        identical: whether it gave the very bits that ``model.py`` gives for the stored inputs.
            Otherwise it is within ``noise_multiple`` of PyTorch, as parity judges.
        shapeless: whether it takes other shapes.
        device: what it runs on; fixed when it is exported.
        warnings: what the user should look into.
    """

    path: Path
    inputs: tuple[ExportedArray, ...]
    outputs: tuple[ExportedArray, ...]
    identical: bool
    shapeless: bool
    device: str
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        agrees = "bit-identical to model.py" if self.identical else "not bit-identical to model.py"
        judged = "" if self.identical else ", but within PyTorch's noise as parity judges"
        return "\n".join(
            [
                f"{self.path}: {agrees} on the stored inputs{judged}; runs on {self.device}",
                *(f"takes {array}" for array in self.inputs),
                *(f"gives {array}" for array in self.outputs),
            ]
        )


def export_folder(
    folder: str | Path,
    path: str | Path,
    *,
    shapeless: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    judgement: Judgement = DEFAULT_JUDGEMENT,
    check_code: bool = False,
) -> Exported:
    """Export the model of an output folder; see ``mlxport.export_function``."""
    destination = Path(path)
    _check(destination, overwrite)
    with on_device(device):
        return _exported(Path(folder), destination, shapeless, judgement, check_code)


def _exported(
    folder: Path, destination: Path, shapeless: bool, judgement: Judgement, check_code: bool
) -> Exported:
    conversion = read_conversion(folder)
    if conversion.draws:
        raise ConversionError(
            f"{folder}: the model draws random numbers; an exported function would draw the same "
            "ones at every call. Give them to the model as an input instead."
        )
    if conversion.state:
        raise ConversionError(
            f"{folder}: the model keeps {', '.join(one.path for one in conversion.state)} from "
            "call to call; an exported function keeps nothing. Give it to the model as an input "
            "and return it from forward() instead."
        )
    if check_code:
        hold_to_digests(folder, conversion.code)
    reference = load_reference(folder / "reference.safetensors")
    with not_ending(folder / "model.py"):
        function = _Function(live_model(folder), conversion, reference)
    try:
        with reserved(destination) as temporary, not_ending(folder / "model.py"):
            identical = function.write(temporary, shapeless, judgement)
            os.replace(temporary, destination)
    except OSError as error:
        raise CheckpointError(
            f"{destination} cannot be written: {error.strerror or error}"
        ) from error
    sync_folder(destination.parent)
    names = output_names(conversion, reference)
    return Exported(
        destination,
        _described(function.names, function.inputs),
        _described(names, function.expected),
        identical,
        shapeless,
        "cpu" if mx.default_device() == mx.cpu else "gpu",
        (FIXED_SIZES,) if shapeless and not conversion.dynamic else (),
    )


FIXED_SIZES = (
    "for other shapes the function computes what model.py computes, which was itself compared with "
    "PyTorch on the shapes it was converted for only"
)


class _Function:
    """The model as a function from arrays to arrays, flat on both sides."""

    def __init__(self, model: Any, conversion: Conversion, reference: Reference) -> None:
        roots = [record for record in conversion.modules if record.path == ""]
        self.root: ModuleRecord = roots[0]
        self.model, self.conversion, self.reference = model, conversion, reference
        self.given = mlx_arguments(self.root, conversion, reference)
        self.inputs = list(arrays(self.given))
        signature = conversion.signature
        self.names = list(conversion.inputs if signature is None else signature.tensors())
        self.expected = self(*self.inputs)
        mx.eval(self.expected)

    def __call__(self, *inputs: mx.array) -> tuple[mx.array, ...]:
        waiting = iter(inputs)
        args, named = mapped(lambda x: next(waiting) if isinstance(x, mx.array) else x, self.given)
        with caches_as_arrays(self.model, self.conversion):
            return tuple(arrays(self.model(*args, **named)))

    def write(self, path: Path, shapeless: bool, judgement: Judgement) -> bool:
        """Write the function, hold what was written to model.py and to PyTorch.

        Returns:
            Whether it gives the very bits that model.py gives.

        Raises:
            ConversionError: MLX cannot export it, or not run what it exported.
            CheckpointError: the file cannot be written.
            ParityError: it computes something else.
        """
        metadata = json.dumps({"format": "mlxport", "inputs": self.names})
        try:
            with _without_addmm() if shapeless else nullcontext():
                mx.export_function(
                    str(path), self.__call__, *self.inputs, shapeless=shapeless, metadata=metadata
                )
            function: Any = mx.import_function(str(path))
            outputs = function(*self.inputs)
            mx.eval(outputs)
        except (ValueError, RuntimeError) as error:
            if "[write]" in str(error):  # MLX's, of a full disk
                raise CheckpointError(f"the function cannot be written: {error}") from error
            advice = f" Export it without {argument('shapeless')}: its shapes are then fixed."
            raise ConversionError(
                f"MLX cannot export {type(self.model).__name__}: {error}"
                f"{advice if shapeless else ''}"
            ) from error
        if shapeless:
            self._check_other_shapes(function)
        if _same_bits(outputs, self.expected):
            return True
        problems = [
            f"output {k}: {problem}"
            for k, output in enumerate(outputs)
            for problem in self._problems(k, output, judgement)
        ]
        if problems:
            raise ParityError.listing("the exported function differs from PyTorch:", problems)
        return False

    def _check_other_shapes(self, function: Callable[..., tuple[mx.array, ...]]) -> None:
        """Compare a shapeless function with model.py, each axis that may change doubled in turn.

        Of all inputs together, as a batch changes, and of each by itself, as the length of one of
        two sequences does. MLX exports some graphs shapeless that then compute nonsense for other
        shapes.

        Raises:
            ParityError: it gives something else there, or there is no axis to try.
        """
        name = type(self.model).__name__
        checked = 0
        for wider in _doubled(self.inputs):
            shapes = ", ".join(str(tuple(x.shape)) for x in wider)
            try:
                expected = self(*wider)
                mx.eval(expected)
            except Exception:  # whatever the model's code raises: it has no such sizes
                _logger.debug("%s does not take %s", name, shapes, exc_info=True)
                continue
            problem = _difference(function, wider, expected)
            if problem:
                raise ParityError(
                    f"MLX exports {name} without shapes, but the function is wrong for the inputs "
                    f"{shapes}: {problem}. Export it without {argument('shapeless')}, one file for "
                    "each shape."
                )
            checked += 1
        if not checked:
            raise ParityError(
                f"{name} takes no other shapes, so a shapeless function cannot be checked. "
                f"Export it without {argument('shapeless')}."
            )

    def _problems(self, k: int, output: mx.array, judgement: Judgement) -> Sequence[str]:
        value = self.reference.outputs[k]
        return judge_array(output, self.root.outputs[k], value, judgement).problems


def _doubled(inputs: Sequence[mx.array]) -> Iterator[list[mx.array]]:
    """Yield the inputs, twice as long along one axis: all that have it, then one at a time."""
    every = range(len(inputs))
    with_axis = [
        (axis, [n for n in every if inputs[n].ndim > axis])
        for axis in range(max(x.ndim for x in inputs))
    ]
    alone = [(axis, [n]) for axis, those in with_axis if len(those) > 1 for n in those]
    for axis, those in [*with_axis, *alone]:
        yield [mx.repeat(x, 2, axis) if n in those else x for n, x in enumerate(inputs)]


@contextmanager
def _without_addmm() -> Iterator[None]:
    """Let layers multiply and add in two steps.

    MLX 0.32.4 exports ``mx.addmm``, which Linear calls, with the bias spread to a fixed shape; for
    other shapes it then reads past its end.
    """
    addmm = mx.addmm
    setattr(mx, "addmm", lambda c, a, b: a @ b + c)  # noqa: B010 (it is typed as a constant)
    try:
        yield
    finally:
        setattr(mx, "addmm", addmm)  # noqa: B010


def _same_bits(ours: Sequence[mx.array], theirs: Sequence[mx.array]) -> bool:
    if [(a.dtype, a.shape) for a in ours] != [(b.dtype, b.shape) for b in theirs]:
        return False
    pairs = zip(ours, theirs, strict=True)
    return all(
        bool(mx.array_equal(a.reshape(-1).view(mx.uint8), b.reshape(-1).view(mx.uint8)))
        for a, b in pairs
    )


def _difference(
    function: Callable[..., tuple[mx.array, ...]],
    inputs: Sequence[mx.array],
    expected: Sequence[mx.array],
) -> str:
    """Say how a function differs from the model on some inputs, or nothing."""
    try:
        outputs = function(*inputs)
        mx.eval(outputs)
    except (ValueError, RuntimeError) as error:
        return str(error)
    if _same_bits(outputs, expected):
        return ""
    for k, (output, value) in enumerate(zip(outputs, expected, strict=True)):
        if output.dtype != value.dtype or output.shape != value.shape:
            return f"output {k} is {output.dtype} {output.shape}"
        if not _near(output, value):
            return f"output {k} holds other values"
    return ""


def _near(output: mx.array, value: mx.array) -> bool:
    """Whether two arrays differ by rounding alone: a thousandth of the norm, equal integers."""
    if not mx.issubdtype(value.dtype, mx.floating):
        return bool(mx.array_equal(output, value))
    ours, theirs = output.astype(mx.float32), value.astype(mx.float32)
    finite = mx.isfinite(theirs)
    if not mx.array_equal(mx.where(finite, 0, ours), mx.where(finite, 0, theirs), equal_nan=True):
        return False
    ours, theirs = mx.where(finite, ours, 0), mx.where(finite, theirs, 0)
    return bool(mx.linalg.norm(ours - theirs) <= 1e-3 * mx.linalg.norm(theirs))


def _described(names: Sequence[str], values: Sequence[mx.array]) -> tuple[ExportedArray, ...]:
    pairs = zip(names, values, strict=True)
    return tuple(ExportedArray(name, mlx_dtype_name(v), tuple(v.shape)) for name, v in pairs)


def _check(destination: Path, overwrite: bool) -> None:
    if destination.is_dir() or not destination.parent.is_dir():
        raise OptionsError(f"{destination} cannot be written: name a file in a folder that exists.")
    if destination.exists() and not overwrite:
        raise OptionsError(
            f"{destination} exists already. Name another file, or pass "
            f"{argument('overwrite', True)} to replace it."
        )
