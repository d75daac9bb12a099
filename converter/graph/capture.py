"""Capture a PyTorch model by torch.export, with its module hierarchy.

The program is captured once and looked at twice: as captured, where a leaf module is the one op
its class stands for (that is how a leaf is recognised), and decomposed, where in-place ops are
gone and every op is one that has a handler or cannot be decomposed further.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.export import ExportedProgram, default_decompositions, export, unflatten
from torch.export.graph_signature import OutputKind

from mlxport.converter.errors import CaptureError
from mlxport.converter.graph.arguments import Argument, Given, order_arguments, watch_calls
from mlxport.converter.graph.leaves import find_leaves, plain_path
from mlxport.converter.graph.results import Results, order_results
from mlxport.converter.graph.sharing import Sharing
from mlxport.converter.graph.signature import read_signature
from mlxport.converter.rules.registry import Rule
from mlxport.converter.structure import Signature
from mlxport.converter.torch_call import every_module_called, in_order


@dataclass(frozen=True)
class Captured:
    """A model as torch.export sees it.

    Attributes:
        model: the torch module, in eval mode.
        root: the decomposed program with its module hierarchy (graph modules by qualified name).
        program: the decomposed program, flat.
        leaves: path -> the rule of each module that does just what its torch.nn class stands for.
        arguments: path -> which argument of ``forward`` each input of a submodule is.
        signature: what the model takes and gives.
        results: captured path -> which result of ``forward`` each output is, for leaves whose
            class the user registered.
        sharing: where the modules and parameters stand that bear several names.
    """

    model: torch.nn.Module
    root: torch.nn.Module
    program: ExportedProgram
    leaves: Mapping[str, Rule]
    arguments: Mapping[str, tuple[Argument, ...]]
    signature: Signature
    sharing: Sharing
    results: Mapping[str, Results] = field(default_factory=dict)

    def torch_module(self, path: str) -> torch.nn.Module:
        """Return the torch module of a path of the captured hierarchy."""
        return self.model.get_submodule(plain_path(path))

    def place(self, path: str) -> str:
        """Return where the torch module of a path of the captured hierarchy stands."""
        return self.sharing.module(plain_path(path))


def capture(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    handled: Collection[str],
) -> Captured:
    """Capture a model on example inputs.

    Args:
        model: the torch module; captured in eval mode, its modes are restored.
        args: positional inputs.
        kwargs: keyword inputs.
        handled: names of the ATen ops that are not to be decomposed.

    Raises:
        CaptureError: torch.export cannot capture it, or the model rejects the inputs.
    """
    with eval_mode(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args, kwargs = in_order(model, args, kwargs)
        calls = _try_forward(model, args, kwargs)
        try:
            captured = export(model, args, kwargs, strict=False)
            leaves, sharing = find_leaves(model, captured)
            program = captured.run_decompositions(_decompositions(handled))
            root = unflatten(_without_mutations(program))
            signature = read_signature(model, args, kwargs, program)
            with _seeded():
                arguments = order_arguments(calls, root, *_copied(args, kwargs))
                vouched = {path for path, rule in leaves.items() if rule.vouched}
                results = order_results(model, root, vouched, *_copied(args, kwargs))
        except CaptureError:
            raise
        except Exception as error:
            raise CaptureError(
                f"torch.export cannot capture {type(model).__name__}: {_reason(error)}"
            ) from error
    return Captured(model, root, program, leaves, arguments, signature, sharing, results)


@contextmanager
def eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Keep a model and all its modules in eval mode for a while."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def _try_forward(
    model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Mapping[str, Sequence[Given]]:
    """Run the model once; return what its submodules were given."""
    calls, hooks = watch_calls(model)
    copied_args, copied_kwargs = _copied(args, kwargs)
    try:
        with torch.no_grad(), every_module_called(), _seeded():
            model(*copied_args, **copied_kwargs)
    except CaptureError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(a.shape)) for a in args if isinstance(a, torch.Tensor))
        raise CaptureError(
            f"{type(model).__name__} itself rejects the example input {shapes}: "
            f"{_reason(error)}\nGive shapes the model accepts (--input)."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return calls


@contextmanager
def _seeded() -> Iterator[None]:
    """Draw the same random numbers in every run, and leave the random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def _copied(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    """Copy the inputs, as a model may write into them."""
    copy = torch.utils._pytree.tree_map_only(torch.Tensor, torch.clone, (tuple(args), dict(kwargs)))
    return copy[0], copy[1]


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: " + " ".join(lines[:6]) if lines else type(error).__name__


def _decompositions(handled: Collection[str]) -> Any:
    table = default_decompositions()
    for op in list(table.keys()):
        if str(op) in handled:
            table.pop(op)
    return table


def _without_mutations(program: ExportedProgram) -> ExportedProgram:
    """Drop what the program writes back into its inputs, which unflattening cannot express.

    The results are complete without it; a caller of the MLX model keeps its inputs as they are.

    Raises:
        CaptureError: the model changes its own buffers when it runs.
    """
    signature = program.graph_signature
    if signature.buffers_to_mutate:
        raise CaptureError.listing(
            "the model changes its own buffers when it runs in eval mode:",
            sorted(signature.buffers_to_mutate.values()),
            "An MLX model made from it would not. Keep such state outside of forward().",
        )
    kept = [spec.kind is not OutputKind.USER_INPUT_MUTATION for spec in signature.output_specs]
    if all(kept):
        return program
    output = next(node for node in program.graph.nodes if node.op == "output")
    output.args = (tuple(itertools.compress(output.args[0], kept)),)
    signature.output_specs[:] = itertools.compress(signature.output_specs, kept)
    return program
