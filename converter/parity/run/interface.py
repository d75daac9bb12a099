"""Pair the arguments and results of an MLX model and its modules with those of PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.run.layouts import to_mlx_order
from mlxport.converter.parity.verdict.reference_data import Call, Reference, ReferenceValue
from mlxport.converter.plan.record import Conversion, ModuleRecord
from mlxport.converter.plan.structure import Signature
from mlxport.converter.plan.tensor import Tensor


def mlx_arguments(
    root: ModuleRecord, conversion: Conversion, reference: Reference
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of the MLX model: the reference's inputs, as MLX stores them.

    Positional ones and those it takes by name only.

    Raises:
        ParityError: the reference was recorded with other arguments than the model was converted
            for; all differences are listed.
    """
    inputs = _by_name(conversion.signature, reference)
    given, wanted = [len(x.shape) for x in inputs], [len(x.order) for x in root.inputs]
    if given != wanted:
        raise ParityError(
            f"the reference was recorded with inputs of {given} axes, the converted model takes "
            f"{wanted}. Record it with the arguments the model was converted for."
        )
    arrays = iter([to_mlx_order(x, layout) for x, layout in zip(inputs, root.inputs, strict=True)])
    if conversion.signature is None:
        return list(arrays), {}
    signature, positional, named = conversion.signature, [], {}
    pairs = zip(signature.taken().items(), conversion.inputs, strict=True)
    for (name, structure), parameter in pairs:
        value = structure.build(lambda: next(arrays))
        if name in signature.keywords:
            named[parameter] = value
        else:
            positional.append(value)
    return positional, named


def output_names(conversion: Conversion, reference: Reference) -> list[str]:
    """Return the names of the model's output tensors (``output.logits``, ``output[1]``).

    Raises:
        ParityError: the reference has other outputs.
    """
    root = next(record for record in conversion.modules if record.path == "")
    layouts, values = root.outputs, reference.outputs
    if len(values) != len(layouts):
        raise ParityError(
            f"the model gives {len(values)} tensors in PyTorch, the conversion speaks of "
            f"{len(layouts)}. Record the reference of the model that was converted."
        )
    if conversion.signature is None:
        return [f"output[{k}]" for k in range(len(values))] if len(values) > 1 else ["output"]
    names = conversion.signature.result.tensors("output")
    recorded = names
    if reference.signature is not None:
        recorded = reference.signature.result.tensors("output")
    if recorded != names:
        raise ParityError(
            f"the model gives {', '.join(recorded)} in PyTorch, the conversion speaks of "
            f"{', '.join(names)}. Record the reference of the model that was converted."
        )
    return names


def pairing_problem(call: Call, record: ModuleRecord) -> str:
    """Say why a module's outputs cannot be paired with PyTorch's; empty where they can."""
    if record.results == () and record.outputs:
        return "which of its results is which cannot be told"
    last = max(record.results or (), default=-1)
    if last >= len(call.outputs) or (
        record.results is None and len(call.outputs) != len(record.outputs)
    ):
        return f"gives {len(call.outputs)} tensors in PyTorch, {len(record.outputs)} as converted"
    return ""


def paired_values(
    values: Sequence[ReferenceValue], record: ModuleRecord
) -> Sequence[ReferenceValue]:
    """Return those of the tensors PyTorch's module gives that its MLX counterpart gives too."""
    return values if record.results is None else [values[place] for place in record.results]


def _by_name(signature: Signature | None, reference: Reference) -> tuple[Tensor, ...]:
    """Return the reference's inputs in the order of the conversion."""
    if signature is None or reference.signature is None:
        return reference.inputs
    converted, given = signature.tensors(), reference.signature.tensors()
    problems = [f"{name}: a tensor is missing" for name in converted if name not in given]
    problems += [f"{name}: a tensor more" for name in given if name not in converted]
    fixed, now = signature.constants(), reference.signature.constants()
    for name in dict.fromkeys([*fixed, *now]):
        before, after = fixed.get(name), now.get(name)
        if (type(before), repr(before)) != (type(after), repr(after)):
            problems.append(
                f"{name}: {_constant_text(name, now)}, {_constant_text(name, fixed)} when converted"
            )
    if problems:
        raise ParityError.listing(
            "the arguments are not those the model was converted for:",
            problems,
            "Only tensors of the same names may change; convert the model again for others.",
        )
    named = dict(zip(given, reference.inputs, strict=True))
    return tuple(named[name] for name in converted)


def _constant_text(name: str, constants: Any) -> str:
    return repr(constants[name]) if name in constants else "not given"
