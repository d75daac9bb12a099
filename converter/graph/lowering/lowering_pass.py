"""What the parts of one pass over a captured model share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlxport.converter.graph.capture.capture import Captured
from mlxport.converter.graph.ir.body import Lowered
from mlxport.converter.graph.ir.naming import ModelNames
from mlxport.converter.graph.ir.provenance import Provenance
from mlxport.converter.graph.ir.scopes import ModelScope
from mlxport.converter.graph.ir.value import Order
from mlxport.converter.graph.lowering.arrays import Arrays
from mlxport.converter.graph.lowering.constants.constant_folding import ConstantFolding
from mlxport.converter.graph.lowering.problems import Tally


@dataclass(frozen=True)
class LoweringPass:
    """One pass: what is lowered, and what it becomes.

    Attributes:
        captured: the model.
        names: the attribute paths in MLX of its modules.
        lowered: gains what is lowered.
        arrays: reads the model's tensors.
        tally: gains what is met on the way.
        folding: what is the same at every call, kept from pass to pass.
    """

    captured: Captured
    names: ModelNames
    lowered: Lowered
    arrays: Arrays
    tally: Tally
    folding: ConstantFolding

    @classmethod
    def starting(
        cls,
        captured: Captured,
        preferences: Mapping[Provenance, Order],
        tally: Tally,
        folding: ConstantFolding,
    ) -> LoweringPass:
        """Return a pass at its start.

        Args:
            captured: the model.
            preferences: provenance -> the axis order to store that array in.
            tally: of the passes before.
            folding: of the passes before.
        """
        names, lowered = ModelNames(captured.model), Lowered(scope=ModelScope(preferences))
        return cls(captured, names, lowered, Arrays(captured, names, lowered), tally, folding)
