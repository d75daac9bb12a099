"""What every step of a weight plan has: its name in JSON, and a way forwards and backwards."""

from __future__ import annotations

import re

import msgspec

from mlxport.converter.plan.tensor import Tensors


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class BaseStep(
    msgspec.Struct,
    frozen=True,
    tag_field="kind",
    tag=_snake_case,
    forbid_unknown_fields=True,
    gc=False,  # of numbers and names: no cycles to look for in 100,000 of them
):
    """One operation on the tensors of a plan's entry, reversible but for the folds.

    In JSON it is its fields and its ``kind``, the name of its class in snake case.
    """

    @property
    def kind(self) -> str:
        """Its name in JSON."""
        return str(self.__struct_config__.tag)

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        raise NotImplementedError

    def invert(self, tensors: Tensors) -> Tensors:
        """Map MLX's tensors back towards PyTorch's."""
        raise NotImplementedError

    def __str__(self) -> str:
        values = {name: _brief(getattr(self, name)) for name in self.__struct_fields__}
        if list(values) == ["axes"]:
            return f"{self.kind}{values['axes']}"
        if list(values) == ["source", "target"]:
            return f"{self.kind}({values['source']} -> {values['target']})"
        return f"{self.kind}({', '.join(f'{name}={text}' for name, text in values.items())})"


def _brief(value: object) -> str:
    return f"({', '.join(map(str, value))})" if isinstance(value, tuple) else str(value)
