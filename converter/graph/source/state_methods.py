"""Write what the model's class has for its state: where it begins, and how it begins anew."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator

from mlxport.converter.graph.ir.body import Lowered
from mlxport.converter.graph.ir.code import to_source
from mlxport.converter.graph.ir.naming import ModelNames
from mlxport.converter.graph.source.format import WIDTH
from mlxport.converter.plan.record import BEGINNING

_BEGINNING = f"self.{BEGINNING}"


def beginning_lines(lowered: Lowered, names: ModelNames) -> list[str]:
    """Return the statement that keeps what the state is; none where the model has no state.

    Args:
        lowered: the model.
        names: its names.
    """
    arrays = [to_source(names.reference("", path)) for path in lowered.state]
    if not arrays:
        return []
    line = f"{_BEGINNING} = [{', '.join(arrays)}]"
    if len(line) <= WIDTH - 8:
        return [line]
    return [f"{_BEGINNING} = [", *(f"    {array}," for array in arrays), "]"]


def state_methods(
    lowered: Lowered, names: ModelNames, attributes: Collection[str]
) -> Iterator[str]:
    """Yield the lines of the methods that load and reset the state.

    Args:
        lowered: the model.
        names: its names.
        attributes: what else the class has; a method does not hide it.
    """
    beginning = beginning_lines(lowered, names)
    if not beginning:
        return
    reset = "reset_state" if "reset" in attributes else "reset"
    yield ""
    yield "    def load_weights(self, *args, **kwargs):"
    yield f'        """Load weights, among them the state that ``{reset}`` goes back to."""'
    yield "        super().load_weights(*args, **kwargs)"
    yield from (f"        {line}" for line in beginning)
    yield "        return self"
    yield ""
    yield f"    def {reset}(self):"
    yield '        """Forget all calls: the state is again what was loaded."""'
    for number, path in enumerate(lowered.state):
        array = to_source(names.reference("", path))
        yield from _assignment(array, f"{_BEGINNING}[{number}].astype({array}.dtype)")


def state_note(lowered: Lowered, names: ModelNames) -> list[str]:
    """Return the lines of the module's docstring that say what the model keeps from call to call.

    Args:
        lowered: the model.
        names: its names.
    """
    if not lowered.state:
        return []
    listed = [names.target(path) for path in lowered.state]
    named = ", ".join(listed[:-1]) + f" and {listed[-1]}" if len(listed) > 1 else listed[0]
    note = (
        f"Keeps {named} from call to call. To compile it: "
        "mx.compile(model, inputs=model.state, outputs=model.state)."
    )
    return textwrap.wrap(note, WIDTH, break_long_words=False, break_on_hyphens=False)


def _assignment(target: str, value: str) -> Iterator[str]:
    line = f"        {target} = {value}"
    if len(line) <= WIDTH:
        yield line
    else:
        yield f"        {target} = ("
        yield f"            {value}"
        yield "        )"
