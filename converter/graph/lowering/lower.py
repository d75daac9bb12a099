"""Lower a captured model: every leaf module by its rule, everything else op by op.

A whole model is lowered several times (``lower_model.py``): the axis orders that its consumers
demand in one pass are what the next one tries, and it is kept where it saves transposes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from mlxport.converter.graph.capture.capture import Captured
from mlxport.converter.graph.ir.body import Lowered
from mlxport.converter.graph.lowering.axis_orders import AxisPreferences, of_parts, unanimous
from mlxport.converter.graph.lowering.constants.constant_folding import ConstantFolding
from mlxport.converter.graph.lowering.lower_model import lower_model
from mlxport.converter.graph.lowering.lowering_pass import LoweringPass
from mlxport.converter.graph.lowering.move_columns import of_columns, served_columns
from mlxport.converter.graph.lowering.problems import Tally, raise_gaps
from mlxport.converter.timings import stage


@dataclass(frozen=True)
class PassOutcome:
    """One pass of the lowering.

    Attributes:
        lowered: what it gave.
        preferences: the axis orders it was to store arrays in.
        kept: whether it is the best so far.
        tally: what was met on the way, in this pass and those before.
    """

    lowered: Lowered
    preferences: AxisPreferences
    kept: bool
    tally: Tally


# Called after each pass of the lowering.
PassWatch: TypeAlias = Callable[[PassOutcome], None]


@stage("lower")
def lower(
    captured: Captured, *, channels_last_ends: bool = False, watch: PassWatch | None = None
) -> Lowered:
    """Lower a captured model.

    Args:
        captured: the model.
        channels_last_ends: take inputs and give outputs channels-last, without transposes.
        watch: is called with each pass.

    Raises:
        UnsupportedError: modules or ops without support, all of them listed.
    """
    lowered, tally = attempt(captured, channels_last_ends=channels_last_ends, watch=watch)
    raise_gaps(type(captured.model).__name__, tally.gaps())
    return lowered


def attempt(
    captured: Captured, *, channels_last_ends: bool = False, watch: PassWatch | None = None
) -> tuple[Lowered, Tally]:
    """Lower a captured model as far as it goes, and return what was met on the way.

    Where there are problems, the lowered model goes on with what PyTorch says, and cannot run.
    """
    tally, folding = Tally(), ConstantFolding()
    preferences: AxisPreferences = {}

    def lowered_by(preferences: AxisPreferences) -> Lowered:
        state = LoweringPass.starting(captured, preferences, tally, folding)
        return lower_model(state, channels_last_ends=channels_last_ends)

    def watched(lowered: Lowered, preferences: AxisPreferences, *, kept: bool) -> bool:
        if watch is not None:
            watch(PassOutcome(lowered, preferences, kept, tally))
        return kept

    best = lowered_by(preferences)
    watched(best, preferences, kept=True)
    for more in (unanimous, of_parts, unanimous, of_columns):
        for added in more(best.scope.demands, preferences):
            wanted = {**preferences, **added}
            tried = lowered_by(wanted)
            fewest = best.transposes + (more is unanimous)
            better = tried.transposes < fewest and served_columns(tried, wanted)
            if watched(tried, wanted, kept=better):
                best, preferences = tried, wanted
                break
    return best, tally
