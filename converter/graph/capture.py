"""Capture a PyTorch model by torch.export, with its module hierarchy.

The program is captured once and looked at twice: as captured, where a leaf module is the one op
its class stands for (that is how a leaf is recognised), and decomposed, where in-place ops are
gone and every op is one that has a handler or cannot be decomposed further.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram, default_decompositions, export, unflatten

from mlxport.converter.errors import CaptureError
from mlxport.converter.rules.registry import Rule, rule_for


@dataclass(frozen=True)
class Captured:
    """A model as torch.export sees it.

    Attributes:
        model: the torch module, in eval mode.
        root: the decomposed program with its module hierarchy (graph modules by qualified name).
        program: the decomposed program, flat.
        leaves: path -> the rule of each module that does just what its torch.nn class stands for.
    """

    model: torch.nn.Module
    root: torch.nn.Module
    program: ExportedProgram
    leaves: Mapping[str, Rule]

    def torch_module(self, path: str) -> torch.nn.Module:
        """Return the torch module of a path of the captured hierarchy."""
        return self.model.get_submodule(plain_path(path))


def plain_path(path: str) -> str:
    """Strip the call numbers that torch.export gives modules called more than once."""
    return re.sub(r"@\d+", "", path)


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
    with _eval_mode(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _try_forward(model, args, kwargs or {})
        try:
            captured = export(model, tuple(args), dict(kwargs or {}), strict=False)
            leaves = _leaves(model, unflatten(captured))
            program = captured.run_decompositions(_decompositions(handled))
            root = unflatten(program)
        except Exception as error:
            raise CaptureError(
                f"torch.export cannot capture {type(model).__name__}: {_reason(error)}"
            ) from error
    return Captured(model, root, program, leaves)


@contextmanager
def _eval_mode(model: torch.nn.Module) -> Iterator[None]:
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def _try_forward(model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    # cloned, as a model may write into its inputs
    copies = torch.utils._pytree.tree_map_only(
        torch.Tensor, torch.clone, (tuple(args), dict(kwargs))
    )
    try:
        with torch.no_grad():
            model(*copies[0], **copies[1])
    except Exception as error:
        shapes = ", ".join(str(tuple(a.shape)) for a in args if isinstance(a, torch.Tensor))
        raise CaptureError(
            f"{type(model).__name__} itself rejects the example input {shapes}: "
            f"{_reason(error)}\nGive shapes the model accepts (--input)."
        ) from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: " + " ".join(lines[:6]) if lines else type(error).__name__


def _decompositions(handled: Collection[str]) -> Any:
    table = default_decompositions()
    for op in list(table.keys()):
        if str(op) in handled:
            table.pop(op)
    return table


def _leaves(model: torch.nn.Module, root: torch.nn.Module) -> dict[str, Rule]:
    leaves = {}
    for path, captured in root.named_modules(remove_duplicate=False):
        graph = getattr(captured, "graph", None)
        if not path or graph is None:
            continue
        rule = rule_for(model.get_submodule(plain_path(path)))
        if rule is not None and rule.leaf and _does_only(graph, rule):
            leaves[path] = rule
    return leaves


def _does_only(graph: torch.fx.Graph, rule: Rule) -> bool:
    if any(node.op == "call_module" for node in graph.nodes):
        return False
    called = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    return len(called) == (1 if rule.ops else 0) and set(called) <= rule.ops
