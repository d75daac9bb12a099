"""Capture a PyTorch model by torch.export, with its module hierarchy.

The program is captured once and looked at twice: as captured, where a leaf module is the one op
its class stands for (that is how a leaf is recognised), and decomposed, where in-place ops are
gone and every op is one that has a handler or cannot be decomposed further.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch.export import ExportedProgram

from mlxport.converter.environment import warn_of_untested_torch
from mlxport.converter.errors import CaptureError, ConversionError, InternalError, OptionsError
from mlxport.converter.graph.capture.arguments import Argument, ArgumentsOrder, watch_capture
from mlxport.converter.graph.capture.decompose import decompose
from mlxport.converter.graph.capture.dynamic import DynamicSizes
from mlxport.converter.graph.capture.export_program import (
    export_failure,
    export_program,
    quiet,
    torch_step,
    unflattened,
)
from mlxport.converter.graph.capture.grown_caches import replace_caches
from mlxport.converter.graph.capture.guard_lines import GuardLines
from mlxport.converter.graph.capture.idioms.attended_rows import note_attended_rows
from mlxport.converter.graph.capture.leaves import (
    check_kept,
    drop_aside,
    find_leaves,
    keep_dropouts,
    plain_path,
    without_moved,
)
from mlxport.converter.graph.capture.literals.literal_values import LiteralValues
from mlxport.converter.graph.capture.out_arguments import check_out_arguments
from mlxport.converter.graph.capture.results import ModuleResults, ResultsOrder
from mlxport.converter.graph.capture.sharing import Sharing, by_every_name
from mlxport.converter.graph.capture.signature import read_signature
from mlxport.converter.graph.capture.sizes.fixed_sizes import fixed_sizes
from mlxport.converter.graph.capture.sizes.size_watch import SizeWatch
from mlxport.converter.graph.capture.state.buffer_writes import (
    BufferWrites,
    assignments_as_writes,
    attributes_as_buffers,
    changed_besides,
    written_by_several_names,
)
from mlxport.converter.graph.capture.state.state_writes import write_state
from mlxport.converter.graph.capture.table_guards import unchecked_values
from mlxport.converter.graph.capture.tensor_kinds import (
    check_attributes,
    check_input_kinds,
    check_tensor_kinds,
)
from mlxport.converter.graph.capture.trial_runs import Tried, call_once, copied, try_forward
from mlxport.converter.graph.capture.writes import complete_stacks, has_writes, replace_writes
from mlxport.converter.graph.ir.caches import CachedArgument
from mlxport.converter.graph.ir.inputs import FixedSize
from mlxport.converter.plan.structure import Signature
from mlxport.converter.rules.registry import Rule
from mlxport.converter.timings import stage
from mlxport.converter.torch_model.calls import every_module_called, in_order, spread_arguments
from mlxport.converter.torch_model.model_state import eval_mode, left_as_it_was, trial_run
from mlxport.converter.torch_model.seeding import seeded

_logger = logging.getLogger(__name__)

SizeCheck: TypeAlias = Callable[[ExportedProgram, Signature, GuardLines], None]


@dataclass(frozen=True)
class Captured:
    """A model as torch.export sees it.

    Attributes:
        model: the torch module, in eval mode.
        root: the decomposed program with its module hierarchy (graph modules by qualified name).
        program: the decomposed program, flat.
        leaves: path -> the rule of each module that does just what its torch.nn class does.
        arguments: path -> which argument of ``forward`` each input of a submodule is.
        signature: what the model takes and gives.
        results: captured path -> which result of ``forward`` each output is, for leaves whose
            class the user registered and for modules that give several tensors; those that
            cannot be told are left out.
        several: paths of the modules that give several tensors.
        sharing: the places of modules and parameters with several names.
        exported: the program before it was decomposed, with its guards.
        obstacles: path of every other called module without modules below -> why it is no leaf.
        fixed: the sizes of the inputs that the program is fixed to.
        unchecked: whose values decide what is looked up in an array: inputs by place, others by
            name.
        guard_lines: the lines of the model at which torch.export decided by sizes.
        state: qualified names of the buffers that it writes.
        cached: the argument that is a cache which the program updates; None where there is none.
    """

    model: torch.nn.Module
    root: torch.nn.Module
    program: ExportedProgram
    leaves: Mapping[str, Rule]
    arguments: Mapping[str, tuple[Argument, ...]]
    signature: Signature
    sharing: Sharing
    exported: ExportedProgram
    results: Mapping[str, ModuleResults] = field(default_factory=dict)
    several: Collection[str] = ()
    obstacles: Mapping[str, str] = field(default_factory=dict)
    fixed: tuple[FixedSize, ...] = ()
    unchecked: Sequence[int | str] = ()
    guard_lines: GuardLines = field(default_factory=GuardLines)
    state: Sequence[str] = ()
    cached: CachedArgument | None = None

    def torch_module(self, path: str) -> torch.nn.Module:
        """Return the torch module of a path of the captured hierarchy."""
        return self.model.get_submodule(plain_path(path))

    def results_order(self, path: str, count: int) -> list[int]:
        """Return the outputs of a captured module in the order of ``forward``."""
        known = self.results.get(path)
        return known.order() if known and len(known.places) == count else list(range(count))

    def result_places(self, path: str, count: int) -> tuple[int, ...] | None:
        """Return which results of ``forward`` these are, in its order; empty if that is unknown.

        None where ``forward`` gives one tensor.
        """
        known = self.results.get(path)
        if known is not None and len(known.places) == count:
            return tuple(sorted(known.places))
        return () if plain_path(path) in self.several else None

    def place(self, path: str) -> str:
        """Return the place of the torch module at a path of the captured hierarchy."""
        return self.sharing.module(plain_path(path))


@stage("capture")
def capture(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    handled: Collection[str],
    dynamic: DynamicSizes | None = None,
    check_sizes: SizeCheck | None = None,
) -> Captured:
    """Capture a model on example inputs.

    Args:
        model: the torch module; captured in eval mode, its modes are restored. One that can only
            be captured after its first call is left as that call leaves it.
        args: positional inputs.
        kwargs: keyword inputs.
        handled: names of the ATen ops that are not to be decomposed.
        dynamic: which sizes of the inputs are dynamic; none if not given.
        check_sizes: is given what torch.export captured, before all that takes long, where sizes
            are dynamic; what it raises goes through.

    Raises:
        CaptureError: torch.export cannot capture it, or the model rejects the inputs.
    """
    warn_of_untested_torch(torch.__version__)
    with eval_mode(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args, kwargs = in_order(model, args, kwargs)
        check_input_kinds(model, args, kwargs)
        with stage("two runs"):
            tried = try_forward(model, args, kwargs)
        call, writes = (model, args, kwargs), BufferWrites()
        try:
            if not tried.same:  # else what it keeps in attributes decides nothing
                attributes_as_buffers(model, tried.changes)
            buffers = [name for name, _ in model.named_buffers(remove_duplicate=False)]
            _check_state(model, tried, buffers)
            return _captured(*call, tried, handled, dynamic, check_sizes, writes)
        except OptionsError:
            raise
        except Exception as error:  # ours, or raised by steps that a model's caches upset
            if not (tried.changes and tried.same):
                raise
            changed, writes = writes, BufferWrites()
            told = _other_form(model, changed.unlike) if changed.unlike else error
            call_once(*call, told)
            captured = _captured(*call, tried, handled, dynamic, check_sizes, writes)
            if captured.state:  # which begins as it was before that call
                raise told from error
            return captured


def _captured(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tried: Tried,
    handled: Collection[str],
    dynamic: DynamicSizes | None,
    check_sizes: SizeCheck | None,
    writes: BufferWrites,
) -> Captured:
    """Capture a model, in eval mode, of which it is known what its modules are given."""
    calls, several = tried.calls, tried.several
    shapes: Any = dynamic.for_export(model, args, kwargs) if dynamic else None
    captured, traced, lines, sizes_read = _exported(model, args, kwargs, shapes, writes)
    if not tried.same and writes.unlike:
        raise _other_form(model, writes.unlike)
    check_tensor_kinds(model, captured)
    _add_root(model, captured)
    check_out_arguments(type(model).__name__, captured)
    if dynamic:
        dynamic.unite(captured, model, args, kwargs)
        dynamic.check(captured, lines)
        if check_sizes is not None:
            check_sizes(captured, read_signature(model, args, kwargs, captured), lines)
    found, sharing = find_leaves(model, captured)
    leaves = found.rules
    fixed = fixed_sizes(
        captured,
        reads=sizes_read.outside(
            [model.get_submodule(path) for path, rule in leaves.items() if not rule.idiom]
        ),
        leaves=leaves,
        wanted=dynamic.wanted(model, args, kwargs) if dynamic else (),
    )
    unchecked = unchecked_values(captured)
    drop_aside(model, captured, leaves)
    keep_dropouts(captured)
    replace_writes(captured)
    with stage("decompose"):
        program = _decomposed(model, captured, handled, tried.changes)
    if has_writes(captured):
        found = without_moved(model, found, captured, program)
        leaves = found.rules
    check_kept(model, leaves, captured, program)
    if unlike := writes.read_again(program):
        raise _other_form(model, unlike)
    note_attended_rows(program)
    with stage("unflatten"):
        state = write_state(model, program)
        signature = read_signature(model, args, kwargs, program)
        cached = replace_caches(program, signature, spread_arguments(model, args, kwargs))
        if cached is not None:
            signature = replace(signature, keywords=(*signature.keywords, cached.name))
        root = torch_step(model, "tell its modules apart", lambda: unflattened(program))
    _check_state(model, tried, state)
    with stage("compare"), seeded(), trial_run(model):
        calls = by_every_name(model, calls)
        trusted = {path for path, rule in leaves.items() if rule.trusted}
        observed = by_every_name(model, dict.fromkeys(trusted | (several - leaves.keys())))
        of_arguments = ArgumentsOrder(calls, traced, root)
        of_results = ResultsOrder(tried.results, root, observed.keys())
        if hooks := [*of_arguments.hooks, *of_results.hooks]:
            _run_with(hooks, root, *copied(args, kwargs))
    return Captured(
        model,
        root,
        program,
        leaves,
        by_every_name(model, of_arguments.found()),
        signature,
        sharing,
        captured,
        of_results.found(),
        several,
        found.obstacles,
        fixed,
        unchecked,
        lines,
        state,
        cached,
    )


def _run_with(hooks: Sequence[Any], root: torch.nn.Module, args: Any, kwargs: Any) -> None:
    """Run a captured program once, with hooks that go then."""
    try:
        with torch.no_grad():
            root(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()


def _decomposed(
    model: torch.nn.Module,
    captured: ExportedProgram,
    handled: Collection[str],
    changed: Sequence[str],
) -> ExportedProgram:
    """Return a captured program decomposed to ops that have a handler, or none to decompose to."""
    try:
        program = torch_step(model, "decompose it", lambda: decompose(captured, handled))
    except CaptureError as error:
        if several := written_by_several_names(model, changed):
            raise CaptureError.listing(
                f"{type(model).__name__} writes into buffers that stand in several places, which "
                "torch.export takes for several:",
                several,
                "Let the module that has them stand in one place, and call it from there.",
            ) from error
        raise
    complete_stacks(program)
    return program


def _other_form(model: torch.nn.Module, unlike: Mapping[str, str]) -> ConversionError:
    """Return why a model is refused whose state has another form after a call."""
    return CaptureError.listing(
        f"{type(model).__name__} keeps from call to call what is of another form after each:",
        [f"{name}: {difference}" for name, difference in unlike.items()],
        "State of an MLX model made here has one shape and dtype. Make room for the longest "
        "sequence and count what is filled, or pass it in and return it from forward().",
    )


def _check_state(model: torch.nn.Module, tried: Tried, state: Sequence[str]) -> None:
    """Refuse a model whose results depend on the calls before by more than its state.

    Args:
        model: the torch module.
        tried: what two runs of it have shown.
        state: qualified names of the buffers that are state, or may be.

    Raises:
        CaptureError: they do.
    """
    if tried.same:
        return
    changed = changed_besides(model, tried.changes, state)
    if tried.changes and not changed:
        return
    raise CaptureError.listing(
        f"{type(model).__name__} gives another result when it is called again on the same "
        "input. What it changes in itself on the way:",
        changed or ["nothing: it may draw random numbers other than torch's"],
        "An MLX model made here keeps state from call to call in what are buffers, or tensors in "
        "attributes, of one shape and dtype. Keep it there, or pass it in and return it from "
        "forward().",
    )


def _exported(
    model: torch.nn.Module,
    args: Any,
    kwargs: Any,
    shapes: Any,
    writes: BufferWrites,
    *,
    by_axis: bool = True,
) -> tuple[ExportedProgram, Any, GuardLines, SizeWatch]:
    """Return what torch.export captures, and what was seen on the way.

    Args:
        model: the torch module, in eval mode.
        args: positional inputs.
        kwargs: keyword inputs.
        shapes: torch.export's ``dynamic_shapes``.
        writes: is told what the model assigns to its buffers.
        by_axis: whether reads of one size are told from those of all, by a shape of our kind.
    """
    watch = SizeWatch(by_axis)
    try:
        with (
            stage("torch.export"),
            quiet(),
            left_as_it_was(model),
            every_module_called(),
            watch_capture(model) as traced,
            GuardLines.watched() as lines,
            assignments_as_writes(model, writes),
            watch,
            LiteralValues(),
        ):
            return export_program(model, args, kwargs, shapes), traced, lines, watch
    except ConversionError:
        raise
    except Exception as error:  # torch's own or the model's
        check_attributes(model, error)
        failure = export_failure(model, args, kwargs, shapes, error)
        if not (by_axis and isinstance(failure, InternalError)):
            raise failure from error
        _logger.debug("%s takes no shape but torch's", type(model).__name__, exc_info=True)
    return _exported(model, args, kwargs, shapes, writes, by_axis=False)


def _add_root(model: torch.nn.Module, program: ExportedProgram) -> None:
    """Let every op's stack of modules begin with the model, which that of a GraphModule's lacks."""
    for node in program.graph.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        if stack and next(iter(stack.values()))[0] != "":
            cls = f"{type(model).__module__}.{type(model).__qualname__}"
            node.meta["nn_module_stack"] = {"L__self__": ("", cls), **stack}
