"""Find the leaves of a captured model: the modules that do just what their torch.nn class does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.nn.utils import parametrize

from mlxport.converter.rules.parametrization import folds_of, plain, unfoldable
from mlxport.converter.rules.registry import Rule, rule_for

Calls = dict[str, list[Node]]  # call -> the ops it makes


def plain_path(path: str) -> str:
    """Strip the call numbers that torch.export gives modules called more than once."""
    return re.sub(r"@\d+", "", path)


def find_leaves(model: torch.nn.Module, program: ExportedProgram) -> dict[str, Rule]:
    """Return the rule of every module that does, at every call, just what its class stands for.

    That is the one op of the class's rule. What the class does around it in any case is left aside,
    and so is what makes a tensor that is folded (a weight norm, say), as long as nothing else reads
    what it is made of. A class whose rule the user registered stands whatever it does.

    Args:
        model: the torch module, in the mode it was captured in.
        program: what torch.export captured of it, not decomposed.
    """
    tensors = _placeholders(model, program)
    leaves = dict(_vouched(model))
    for path, calls in _calls(model, program).items():
        module = model.get_submodule(path)
        rule = _rule(module)
        if rule is not None and rule.leaf:
            sources = {id(tensor) for tensor in _folded(module)}
            given = {node for node, tensor in tensors.items() if id(tensor) in sources}
            own = {op for ops in calls.values() for op in ops}
            kept = own.issuperset(user for node in given for user in node.users)
            if kept and all(_only(_unmade(ops, given), rule) for ops in calls.values()):
                leaves[path] = rule
    return leaves


def _vouched(model: torch.nn.Module) -> Iterator[tuple[str, Rule]]:
    for path, module in model.named_modules(remove_duplicate=False):
        rule = rule_for(module) if path else None
        if rule is not None and rule.vouched:
            yield path, rule


def _placeholders(model: torch.nn.Module, program: ExportedProgram) -> dict[Node, torch.Tensor]:
    """Return the tensors of the model that the placeholders of a program stand for."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    held: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    held.update(model.named_buffers(remove_duplicate=False))
    nodes = (node for node in program.graph.nodes if node.op == "placeholder")
    return {node: held[names[node.name]] for node in nodes if names.get(node.name) in held}


def _calls(model: torch.nn.Module, program: ExportedProgram) -> dict[str, Calls]:
    """Return what the modules without modules below them compute, by path and call.

    The parts of a parametrisation are no modules below, but the parametrised module itself.
    """
    done: dict[str, Calls] = {}
    parents = {""}
    for node in program.graph.nodes:
        stack = list((node.meta.get("nn_module_stack") or {}).items())
        if node.op != "call_function" or not stack:
            continue
        entries = [(call, plain_path(path)) for call, (path, _) in stack]
        *above, (call, path) = list(_up_to_parametrised(model, entries))
        parents.update(outer for _, outer in above)
        done.setdefault(path, {}).setdefault(call, []).append(node)
    return {path: calls for path, calls in done.items() if path not in parents}


def _up_to_parametrised(
    model: torch.nn.Module, stack: Iterable[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """Yield the entries of a module stack, without those inside a parametrisation."""
    for call, path in stack:
        owner, inside, _ = path.rpartition(".parametrizations.")
        if inside and parametrize.is_parametrized(model.get_submodule(owner)):
            return
        yield call, path


def _rule(module: torch.nn.Module) -> Rule | None:
    folds = folds_of(module)
    if not folds:
        return rule_for(module)
    if any(unfoldable(module)):
        return None
    rule = rule_for(plain(module, folds))
    return None if rule is None or rule.around else rule


def _folded(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    state = module.state_dict(keep_vars=True)
    return (state[key] for fold in folds_of(module) for key in fold.sources)


def _unmade(ops: Sequence[Node], given: set[Node]) -> list[Node]:
    """Return the ops that read anything but the given tensors and what is made of them alone."""
    if not given:
        return list(ops)
    made = set(given)
    for node in ops:
        if made.issuperset(node.all_input_nodes):
            made.add(node)
    return [node for node in ops if node not in made]


def _only(ops: Sequence[Node], rule: Rule) -> bool:
    counted = [str(op.target) for op in ops if str(op.target) not in rule.around]
    return len(counted) == 1 and counted[0] in rule.ops
