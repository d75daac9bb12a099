"""Run a model on its example inputs, before it is captured.

One that fills caches or replaces buffers when it is first called may have to be captured as that
call leaves it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram, export
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only

from mlxport.converter.errors import CaptureError
from mlxport.converter.graph.capture.arguments import Given, watch_calls
from mlxport.converter.graph.capture.explain_failure import rejected, running_line
from mlxport.converter.graph.capture.results import GivenResult, watch_results
from mlxport.converter.torch_model.calls import every_module_called, spread_arguments
from mlxport.converter.torch_model.control_flow import (
    Sides,
    WrittenOut,
    control_flow_written_out,
)
from mlxport.converter.torch_model.model_state import ModelState, left_as_it_was, trial_run
from mlxport.converter.torch_model.read_structure import read_structure
from mlxport.converter.torch_model.seeding import SeedingWatch, seeded
from mlxport.converter.torch_model.tensor_state import bitwise_equal

_logger = logging.getLogger(__name__)

SAME_RESULT = 1e-4  # kernels may add in another order each time; state changes results by more


@dataclass(frozen=True)
class Tried:
    """What two runs of a model have shown.

    Attributes:
        calls: path -> what each submodule was given at first.
        results: path -> what each submodule gave, in both runs.
        changes: what the model changes in itself, by name.
        same: whether both runs gave the same result.
    """

    calls: Mapping[str, Sequence[Given]]
    results: Mapping[str, Sequence[GivenResult]]
    changes: Sequence[str]
    same: bool = True

    @property
    def several(self) -> set[str]:
        """The paths of the submodules that give several tensors."""
        return {
            path
            for path, given in self.results.items()
            if any(len(result.tensors) > 1 for result in given)
        }


def try_forward(model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tried:
    """Run a model, twice.

    What the model changes in itself on the way is put back.

    Raises:
        CaptureError: the model rejects its inputs, takes or gives what has no counterpart in MLX,
            draws random numbers of its own, or has conditions whose sides are not apart.
    """
    with control_flow_written_out() as written_out:
        tried = _tried(model, args, kwargs)
        if "torch.cond" in written_out.called:
            _check_control_flow(model, args, kwargs, written_out)
    return tried


def _tried(model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tried:
    known = {id(parameter) for parameter in model.parameters()}
    with trial_run(model) as before:
        calls, hooks = watch_calls(model)
        results, of_results = watch_results(model)
        hooks += of_results
        seeding = SeedingWatch(running_line)
        try:
            with seeding:
                first = _run(model, args, kwargs)
            _refuse_seeded_draws(type(model).__name__, seeding)
            _refuse_new_parameters(model, known)
            _check("takes", list(spread_arguments(model, args, kwargs).values()))
            _check("returns", first)
            again = _run(model, args, kwargs)
        except CaptureError:
            raise
        except Exception as error:  # the model's code, whatever it raises
            raise CaptureError(
                rejected(type(model).__name__, _inputs(model, args, kwargs), error)
            ) from error
        finally:
            for hook in hooks:
                hook.remove()
        changes = before.changes()
    return Tried(calls, results, changes, _same(first, again))


# Of a condition: the chosen side alone, and both in either order.
_WAYS = (Sides(both=False), Sides(), Sides(last_first=True))


def _check_control_flow(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    written_out: WrittenOut,
) -> None:
    """Hold what computes both sides of conditions to what computes one; none may touch the other.

    Raises:
        CaptureError: they differ.
    """
    name, ops = type(model).__name__, ", ".join(sorted(written_out.called))
    for negated in (False, True):
        results = []
        for sides in _WAYS:
            with trial_run(model), written_out.computing(sides._replace(negated=negated)):
                results.append(_run(model, args, kwargs))
        if not all(_same(results[0], result, exact=True) for result in results[1:]):
            raise CaptureError(
                f"{name} calls {ops}, and gives something else where both sides of a condition are "
                "computed than where one is: its functions change what the other side reads, or "
                "draw random numbers. Let them compute their results from their arguments alone."
            )


def _refuse_new_parameters(model: torch.nn.Module, known: Collection[int]) -> None:
    made = [name for name, parameter in model.named_parameters() if id(parameter) not in known]
    if made:
        raise CaptureError.listing(
            f"{type(model).__name__} makes parameters when it is called, of new random values:",
            made,
            "Call it once, and load its weights, before you convert it. If it makes them at every "
            "call, make them in __init__ instead.",
        )


def _refuse_seeded_draws(name: str, seeding: SeedingWatch) -> None:
    """Refuse a model whose random numbers are no others from call to call, or in a stream apart.

    MLX's generator gives none of them: where they are always the same they are constants.
    """
    if places := list(dict.fromkeys(seeding.of_generators)):
        raise CaptureError.listing(
            f"{name} draws random numbers from a torch.Generator that it names:",
            places,
            "MLX has one generator and gives other numbers. Draw without generator=, and "
            "mx.random draws in the MLX model; or draw once outside of forward() and keep the "
            "numbers in a buffer, or pass them in.",
        )
    if places := list(dict.fromkeys(seeding.of_seeds)):
        raise CaptureError.listing(
            f"{name} seeds PyTorch's random numbers itself, and so draws the same each time:",
            places,
            "MLX's generator gives other numbers. Draw them once in __init__ and keep them in a "
            "buffer, or leave the seed to who calls the model.",
        )


def copied(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    """Copy the inputs, as a model may write into them."""
    copy = tree_map_only(torch.Tensor, torch.clone, (tuple(args), dict(kwargs)))
    return copy[0], copy[1]


def _run(model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    copied_args, copied_kwargs = copied(args, kwargs)
    with torch.no_grad(), every_module_called(), seeded():
        return tree_map_only(torch.Tensor, torch.clone, model(*copied_args, **copied_kwargs))


def _check(verb: str, value: Any) -> None:
    try:
        read_structure(value)
    except CaptureError as error:
        raise CaptureError(f"the model {verb} {error}") from error


def _inputs(model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    def spoken(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
        return repr(value)

    given = spread_arguments(model, args, kwargs).items()
    return ", ".join(
        f"{name}={' '.join(spoken(leaf) for leaf in tree_leaves(value))}" for name, value in given
    )


def _same(one: Any, other: Any, exact: bool = False) -> bool:
    (a, first), (b, second) = tree_flatten(one), tree_flatten(other)
    return first == second and all(_equal(x, y, exact) for x, y in zip(a, b, strict=True))


def _equal(a: Any, b: Any, exact: bool) -> bool:
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return type(a) is type(b) and bool(a == b or a != a)
    if (
        exact
        or a.is_nested
        or a.layout is not torch.strided
        or not a.is_floating_point()
        or a.itemsize == 1
    ):
        return bitwise_equal(a, b)
    if a.shape != b.shape:
        return False
    scale = float(a.abs().nan_to_num(posinf=0.0).max()) if a.numel() else 0.0
    return torch.allclose(a, b, rtol=0.0, atol=SAME_RESULT * scale, equal_nan=True)


def call_once(
    model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], error: Exception
) -> None:
    """Call a model once, and leave what that changes in it; whoever called puts it back.

    What it keeps then may depend on the sizes of its inputs, but not on values: those of the
    example would be part of the converted model. So it is also called on other inputs with other
    parameters, and has to keep the same.

    Args:
        model: the torch module, as it was before its first call.
        args: positional inputs.
        kwargs: keyword inputs.
        error: why it cannot be captured as it was.

    Raises:
        Exception: the error, where calling the model first is no remedy.
    """
    _logger.debug("%s is captured as its first call leaves it", type(model).__name__)
    try:
        with left_as_it_was(model):
            other = _others(model, args, kwargs)
        state = ModelState(model)
        with state.watching():
            _called(model, *copied(args, kwargs))
        kept = _exported(model, args, kwargs)
    except Exception as failure:  # the model's code and torch.export, whatever they raise
        _logger.debug("nor as its first call leaves it", exc_info=True)
        raise error from failure
    parameters = {id(parameter) for parameter in model.parameters()}
    if _read(kept).keys() != _read(other).keys() or any(
        not bitwise_equal(tensor, _read(other)[name])
        for name, tensor in _read(kept).items()
        if id(tensor) not in parameters
    ):
        state.restore()
        raise error


def _others(
    model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> ExportedProgram:
    """Return the program after a first call with other parameters and on other inputs."""
    before = {parameter: parameter.data for parameter in model.parameters()}
    for parameter, data in before.items():
        parameter.data = _moved(data)
    given = tree_map_only(torch.Tensor, _moved, copied(args, kwargs))
    _called(model, *given)
    for parameter, data in before.items():
        parameter.data = data
    return _exported(model, args, kwargs)


def _moved(tensor: torch.Tensor) -> torch.Tensor:
    """Return other values that a model takes as well."""
    if tensor.is_floating_point() or tensor.is_complex():
        return tensor * 0.75 + tensor.abs().mean() / 8
    return tensor.flip(tuple(range(tensor.ndim)))


def _called(model: torch.nn.Module, args: Any, kwargs: Any) -> None:
    with torch.no_grad(), every_module_called(), seeded():
        model(*args, **kwargs)


def _exported(model: torch.nn.Module, args: Any, kwargs: Any) -> ExportedProgram:
    with left_as_it_was(model), every_module_called():
        return export(model, *copied(args, kwargs), strict=False)


def _read(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Return the tensors a program reads besides its inputs."""
    tensors = {**program.state_dict, **program.constants}
    return {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
