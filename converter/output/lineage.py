"""Which conversion a live MLX model comes from, so that it can be verified again.

Kept beside the models, not on them: a converted model holds what its ``model.py`` gives it and
nothing else. The key is the model's class. Every conversion and every ``load`` executes its
``model.py`` anew, so that a class belongs to one conversion; copies of a model share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from mlxport.converter.plan.record import Conversion
from mlxport.converter.plan.weight_plan import WeightPlan

if TYPE_CHECKING:
    import mlx.nn as nn


@dataclass(frozen=True)
class ModelLineage:
    """Where a live model comes from.

    Attributes:
        conversion: the record of its conversion.
        plan: of its weights, by the names of the torch model, where the record has the
            checkpoint's.
    """

    conversion: Conversion
    plan: WeightPlan


_LINEAGES: WeakKeyDictionary[type[nn.Module], ModelLineage] = WeakKeyDictionary()


def record_lineage(
    model: nn.Module, conversion: Conversion, plan: WeightPlan | None = None
) -> ModelLineage:
    """Note which conversion a live model, and with it every copy of it, comes from.

    Args:
        model: the live model, made by executing a ``model.py``.
        conversion: the record of its conversion.
        plan: of its weights, by the names of the torch model; the record's if not given.

    Returns:
        What `lineage_of` gives from now on.
    """
    lineage = ModelLineage(conversion, conversion.plan if plan is None else plan)
    _LINEAGES[type(model)] = lineage
    return lineage


def lineage_of(model: nn.Module) -> ModelLineage | None:
    """Return where a live model comes from; None where no conversion in this process made it.

    A subclass of a converted model comes from the same conversion.
    """
    return next((_LINEAGES[cls] for cls in type(model).__mro__ if cls in _LINEAGES), None)
