"""Find the leaves of a captured model: the modules that do just what their torch.nn class does."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.nn.utils import parametrize

from mlxport.converter.errors import InternalError
from mlxport.converter.graph.capture.idioms.recognise import idiom_rule
from mlxport.converter.graph.capture.sharing import Sharing, find_sharing, shared_modules
from mlxport.converter.graph.ir.sizes import is_symbolic
from mlxport.converter.plan.steps import Permute, TransposedConvWeight
from mlxport.converter.rules.parametrization import (
    build_spec,
    folding_obstacles,
    parametrized_tensors,
    without_parametrizations,
)
from mlxport.converter.rules.refusals import why_no_rule
from mlxport.converter.rules.registry import LayerSpec, Refusal, Rule, overridden, rule_for

_logger = logging.getLogger(__name__)

# ops whose layers in MLX compute floating values of integers
_OF_FLOATS = r"aten\.(avg_pool|hardtanh|upsample_(linear|bilinear|trilinear|bicubic))"

_DROPOUTS = frozenset(
    f"aten.{name}{inplace}.default"
    for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
    for inplace in ("", "_")
)

Calls = dict[str, list[Node]]  # call -> the ops it makes


def plain_path(path: str) -> str:
    """Strip the call numbers that torch.export gives modules called more than once."""
    return re.sub(r"@\d+", "", path)


@dataclass(frozen=True)
class Leaves:
    """Which modules of a captured model become one MLX layer each, and why the others do not.

    Attributes:
        rules: path -> the rule of each leaf.
        obstacles: path of every other called module without modules below -> why it is no leaf.
    """

    rules: Mapping[str, Rule]
    obstacles: Mapping[str, str]


def find_leaves(model: torch.nn.Module, program: ExportedProgram) -> tuple[Leaves, Sharing]:
    """Find the modules that do, at every call, just what their class stands for.

    That is the one op of the class's rule. What the class does around it in any case is left aside,
    and so is what makes a tensor that is folded (a weight norm, say), as long as nothing else reads
    what it is made of. A class whose rule the user registered stands whatever it does.

    A module is no leaf where a tensor of it stands in another module, or where other modules read
    one that the MLX layer keeps in a form of its own.

    Args:
        model: the torch module, in the mode it was captured in.
        program: what torch.export captured of it, not decomposed.

    Returns:
        The leaves, and what stands where of the things that bear several names.
    """
    nodes = _placeholders(model, program)
    found: dict[str, Rule] = {}
    obstacles: dict[str, str] = {}
    for path, calls in _calls(model, program).items():
        module = model.get_submodule(path)
        rule = _rule(module)
        obstacle = _why_no_rule(module) if rule is None else _obstacle(module, rule, calls, nodes)
        if rule is None or obstacle:
            rule = _recognised(module, calls, nodes)
        if rule is None:
            obstacles[path] = obstacle
        else:
            found[path] = rule
    sharing = find_sharing(model, found)
    for name, stands in sharing.tensors.items():
        path, _, tensor = name.rpartition(".")
        if found.pop(path, None) is not None:
            obstacles[path] = f"its {tensor} is shared, and stands in {stands}"
    trusted = dict(_trusted(model))
    obstacles = {path: why for path, why in obstacles.items() if path not in trusted}
    return Leaves({**found, **trusted}, obstacles), sharing


def _recognised(
    module: torch.nn.Module, calls: Calls, nodes: Mapping[int, Sequence[Node]]
) -> Rule | None:
    """Return a rule for what a module computes, where that is a layer of MLX under another name."""
    if any(folding_obstacles(module)) or parametrized_tensors(module):
        return None
    tensors = dict(_tensors(module))
    own = {node: name for name, t in tensors.items() for node in nodes.get(id(t), ())}
    rule = idiom_rule(module, calls.values(), own)
    return None if rule is None or _read_elsewhere(module, rule, calls, nodes) else rule


def _why_no_rule(module: torch.nn.Module) -> str:
    return "; ".join(folding_obstacles(module)) or overridden(module) or why_no_rule(module)


def _obstacle(
    module: torch.nn.Module, rule: Rule, calls: Calls, nodes: Mapping[int, Sequence[Node]]
) -> str:
    """Return why a module is no leaf, though there is a rule for it; empty where it is one.

    Args:
        module: the torch module.
        rule: the rule for its class.
        calls: the ops of each call of it.
        nodes: identity of a tensor -> the placeholders that stand for it.
    """
    if not rule.leaf:
        return f"in whole models {rule.name} is lowered op by op"
    given = {node for tensor in _folded(module) for node in nodes.get(id(tensor), ())}
    for ops in calls.values():
        found = _counted(_unmade(ops, given), rule)
        if found and re.match(_OF_FLOATS, found[0]) and not _takes_floats(ops, found[0]):
            return f"a call of it computes integers, where MLX's {rule.name} gives floats"
        if len(found) != 1 or found[0] not in rule.ops:
            listed = ", ".join(dict.fromkeys(found)) or "nothing"
            hooked = " (it has hooks)" if module._forward_hooks or module._forward_pre_hooks else ""
            return f"a call computes {listed}, where {rule.name} is one op{hooked}"
    return _read_elsewhere(module, rule, calls, nodes)


def _read_elsewhere(
    module: torch.nn.Module, rule: Rule, calls: Calls, nodes: Mapping[int, Sequence[Node]]
) -> str:
    """Return why a module is no layer where other modules read what its layer changes."""
    own = {op for ops in calls.values() for op in ops}
    read = {
        name
        for name, tensor in _tensors(module)
        for node in nodes.get(id(tensor), ())
        if not own.issuperset(node.users)
    }
    besides = any(str(op.target) in rule.side_effect_ops for op in own)
    if read and (besides or not _shows(rule, module, read)):
        return f"other modules read its {' and '.join(sorted(read))}, which the layer changes"
    return ""


def _takes_floats(ops: Sequence[Node], name: str) -> bool:
    node = next(op for op in ops if str(op.target) == name)
    given = [one.meta.get("val") for one in node.all_input_nodes]
    return not any(isinstance(x, torch.Tensor) and not x.is_floating_point() for x in given)


def drop_aside(
    model: torch.nn.Module, program: ExportedProgram, leaves: Mapping[str, Rule]
) -> None:
    """Take out of a program what leaves run for an effect that their layers do without."""
    for path, calls in _calls(model, program).items():
        aside = leaves[path].side_effect_ops if path in leaves else ()
        for node in reversed([op for ops in calls.values() for op in ops]):
            if str(node.target) in aside and not node.users:
                program.graph.erase_node(node)


def keep_dropouts(program: ExportedProgram) -> None:
    """Make aliases of dropouts that are off, which give their argument itself.

    Decomposition would take their nodes out, and with them the modules that drop in training.

    Args:
        program: what torch.export captured, not decomposed; changed in place.
    """
    for node in program.graph.nodes:
        if str(node.target) in _DROPOUTS and (node.args[2] is False or node.args[1] == 0):
            node.target, node.args, node.kwargs = torch.ops.aten.alias.default, node.args[:1], {}


def check_kept(
    model: torch.nn.Module,
    leaves: Mapping[str, Rule],
    before: ExportedProgram,
    after: ExportedProgram,
) -> None:
    """Refuse to lose a leaf that does something else in training.

    Args:
        model: the torch module.
        leaves: its leaves.
        before: the program as captured, of which what is not used may go.
        after: the program decomposed.

    Raises:
        InternalError: decomposition left no node of a leaf whose result is used.
    """
    kept = _calls(model, after)
    lost = [
        path
        for path, calls in _calls(model, before).items()
        if path in leaves
        and path not in kept
        and any(op.users for ops in calls.values() for op in ops)
    ]
    for path in lost:
        _logger.debug("%s: decomposition leaves no node of it", path)
    if changing := [path for path in lost if leaves[path].ops & _DROPOUTS]:
        raise InternalError(f"decomposition lost {', '.join(changing)}")


def without_moved(
    model: torch.nn.Module, found: Leaves, before: ExportedProgram, after: ExportedProgram
) -> Leaves:
    """Return the leaves without those that are given something else once a program is decomposed.

    Of what is written to in place, torch takes views anew where they are read: inside of a module
    that was given them.

    Args:
        model: the torch module.
        found: its leaves.
        before: the program as captured.
        after: the program decomposed.
    """
    given, now = _given_shapes(model, before), _given_shapes(model, after)
    moved = [
        path
        for path, rule in found.rules.items()
        if not rule.trusted and sorted(given.get(path, [])) != sorted(now.get(path, []))
    ]
    why = "it is given a view of what is written to in place, which is taken inside of it"
    rules = {path: rule for path, rule in found.rules.items() if path not in moved}
    return Leaves(rules, {**found.obstacles, **dict.fromkeys(moved, why)})


def _given_shapes(model: torch.nn.Module, program: ExportedProgram) -> dict[str, list[str]]:
    """Return the shapes of what modules are given, by path, of all calls."""
    signature = program.graph_signature
    stored = {*signature.inputs_to_parameters, *signature.inputs_to_buffers}
    shapes: dict[str, list[str]] = {}
    for path, calls in _calls(model, program).items():
        for ops in calls.values():
            inner = set(ops)
            given = {n: None for op in ops for n in op.all_input_nodes if n not in inner}
            tensors = [n.meta.get("val") for n in given if n.name not in stored]
            shapes.setdefault(path, []).extend(
                f"{t.shape} {t.dtype}" for t in tensors if isinstance(t, torch.Tensor)
            )
    return shapes


def stored_as(spec: LayerSpec, name: str, ndim: int) -> tuple[str, tuple[int, ...]] | None:
    """Return the parameter of an MLX layer that is a tensor of the torch module, and its axes.

    Args:
        spec: what is built for the module.
        name: the tensor, relative to the module.
        ndim: its number of axes.

    Returns:
        the parameter's name and which PyTorch axis each of its axes is; None where the layer keeps
        something else than the tensor with its axes in another order.
    """
    for entry in spec.entries:
        if entry.sources != (name,) or len(entry.targets) != 1:
            continue
        order = tuple(range(ndim))
        for step in entry.steps:
            if isinstance(step, Permute):
                order = tuple(order[axis] for axis in step.axes)
            elif isinstance(step, TransposedConvWeight) and step.groups == 1:
                order = (*order[1:], order[0])
            else:
                return None
        return entry.targets[0], order
    return None


def _shows(rule: Rule, module: torch.nn.Module, names: Iterable[str]) -> bool:
    """Whether a module's layer has these tensors as they are, but for the order of axes."""
    try:
        spec = build_spec(rule, module)
    except Refusal as reason:
        _logger.debug("%s: its rule refuses: %s", type(module).__name__, reason)
        return False
    tensors = dict(_tensors(module))
    return all(stored_as(spec, name, tensors[name].ndim) is not None for name in names)


def _trusted(model: torch.nn.Module) -> Iterator[tuple[str, Rule]]:
    for path, module in model.named_modules(remove_duplicate=False):
        rule = rule_for(module) if path else None
        if rule is not None and rule.trusted:
            yield path, rule


def _placeholders(model: torch.nn.Module, program: ExportedProgram) -> dict[int, list[Node]]:
    """Return the placeholders that stand for each tensor of the model, by its identity."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    held = dict(_tensors(model))
    nodes: dict[int, list[Node]] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and names.get(node.name) in held:
            nodes.setdefault(id(held[names[node.name]]), []).append(node)
    return nodes


def _tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _calls(model: torch.nn.Module, program: ExportedProgram) -> dict[str, Calls]:
    """Return what the modules without modules below them compute, by path and call.

    The parts of a parametrisation are no modules below, but the parametrised module itself.
    """
    stands = shared_modules(model)
    done: dict[str, Calls] = {}
    parents = {""}
    for node in program.graph.nodes:
        stack = list((node.meta.get("nn_module_stack") or {}).items())
        if node.op != "call_function" or not stack or _is_of_sizes(node):
            continue
        paths = [(call, plain_path(path)) for call, (path, _) in stack]
        entries = [(call, stands.get(path, path)) for call, path in paths]
        *above, (call, path) = list(_up_to_parametrised(model, entries))
        parents.update(outer for _, outer in above)
        done.setdefault(path, {}).setdefault(call, []).append(node)
    return {path: calls for path, calls in done.items() if path not in parents}


def _is_of_sizes(node: Node) -> bool:
    """Whether a node computes a size or checks one: that belongs to no module."""
    return is_symbolic(node) or str(node.target) == "aten._assert_scalar.default"


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
    folds = parametrized_tensors(module)
    if not folds:
        return rule_for(module)
    if any(folding_obstacles(module)):
        return None
    rule = rule_for(without_parametrizations(module, folds))
    return None if rule is None or rule.auxiliary_ops else rule


def _folded(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    state = module.state_dict(keep_vars=True)
    return (state[key] for fold in parametrized_tensors(module) for key in fold.sources)


def _unmade(ops: Sequence[Node], given: set[Node]) -> list[Node]:
    """Return the ops that read anything but the given tensors and what is made of them alone."""
    if not given:
        return list(ops)
    made = set(given)
    for node in ops:
        if made.issuperset(node.all_input_nodes):
            made.add(node)
    return [node for node in ops if node not in made]


def _counted(ops: Sequence[Node], rule: Rule) -> list[str]:
    """Return the names of the ops, without those that the rule leaves aside."""
    aside = rule.auxiliary_ops | rule.side_effect_ops
    return [str(op.target) for op in ops if str(op.target) not in aside]
