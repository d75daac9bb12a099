"""What a conversion leaves behind for those who come after it: ``conversion.json`` as data.

The lowering writes it, parity reads it: which MLX module stands for which PyTorch module, and in
which axis order its values lie. Needs neither torch nor mlx.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mlxport.converter.errors import ConversionError
from mlxport.converter.plan.quantize_step import Quantized
from mlxport.converter.plan.structure import Signature
from mlxport.converter.plan.weight_plan import WeightPlan

# What every output folder holds, and what tells one from a folder of the user's own.
RECORD_FILE = "conversion.json"
FORMAT = "mlxport-conversion"
VERSION = 1


@dataclass(frozen=True)
class Merged:
    """How an axis was made of several that MLX stores in another sequence than PyTorch.

    Attributes:
        sizes: of the axes it was made of, in PyTorch's sequence.
        order: ``order[i]`` is which of them comes ``i``-th in MLX.
    """

    sizes: tuple[int, ...]
    order: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Shape, dtype and axis order of one tensor that passes a module's boundary.

    Attributes:
        shape: the logical (PyTorch) shape; a dynamic size by its name or expression (``"h // 2"``).
        dtype: the torch dtype's name without prefix (``"float32"``).
        order: ``order[i]`` is the PyTorch axis stored at MLX axis ``i``. In a model written by hand
            axes of size 1 may be missing, or stand there in addition (as -1).
        merged: how the last axis was made of several, where MLX does it in another sequence.
    """

    shape: tuple[int | str, ...]
    dtype: str
    order: tuple[int, ...]
    merged: Merged | None = None


@dataclass(frozen=True)
class ModuleRecord:
    """One module of the emitted model and the values that pass its boundary.

    Attributes:
        path: the qualified name in PyTorch (``"enc1.conv"``; ``""`` is the model itself).
        target: the attribute path in the MLX model (differs where a name had to change).
        inputs: tensor arguments in positional order, flattened.
        outputs: tensor results, flattened.
        results: which of the tensors PyTorch's module gives each output is, as some may be left
            out; None where it is all of them, empty where that is not known.
        since: where PyTorch has several modules in a row for this one (a convolution and the
            BatchNorm folded into it), the first of them; ``path`` is the last.
    """

    path: str
    target: str
    inputs: tuple[Layout, ...]
    outputs: tuple[Layout, ...]
    results: tuple[int, ...] | None = None
    since: str | None = None


@dataclass(frozen=True)
class DrawRecord:
    """One random draw of the emitted model.

    Attributes:
        kind: the function of ``mx.random`` that makes it.
        layout: of the drawn array, whatever the model makes of it.
    """

    kind: str
    layout: Layout


@dataclass(frozen=True)
class Digests:
    """What the weights are, a hexadecimal digest of each tensor's bytes in C order.

    Attributes:
        sources: key of the checkpoint -> of PyTorch's tensor.
        targets: MLX parameter -> of MLX's tensor, where its values are not just those of a source
            in another order: cast, folded, or part of the model.
        algorithm: of all of them.
    """

    sources: Mapping[str, str] = field(default_factory=dict)
    targets: Mapping[str, str] = field(default_factory=dict)
    algorithm: str = "xxh3_128"


@dataclass(frozen=True)
class Conversion:
    """Everything needed to repeat, reverse, verify or explain a conversion.

    Attributes:
        plan: the weight plan.
        modules: in the order of their first call; the model itself (path ``""``) last.
        inputs: names of the model's arguments, in order.
        signature: what the torch model takes and gives; None if its tensors stand side by side.
        layers: the files of ``mlxport.layers`` the model uses.
        transposes: how many transposes one call of the model executes.
        versions: package name -> version.
        source: where the weights came from (path, digest, factory).
        draws: the random draws that one call of the model makes, in order.
        dynamic: name of each dynamic size -> the least and the largest it may be, None if there is
            no largest; empty where every size is that of the example.
        conditions: what else must be true of these sizes (``"h % 4 == 0"``), Python in their names.
        digests: what the weights are; empty where none were written.
        quantized: which weights are quantised, how, and what it cost; None if none are.
        stem: what the files of the weights are called before their ending.
    """

    plan: WeightPlan
    modules: tuple[ModuleRecord, ...]
    inputs: tuple[str, ...]
    layers: tuple[str, ...] = ()
    transposes: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)
    signature: Signature | None = None
    draws: tuple[DrawRecord, ...] = ()
    dynamic: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    digests: Digests = field(default_factory=Digests)
    quantized: Quantized | None = None
    stem: str = "weights"

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON data."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "versions": dict(self.versions),
            "source": dict(self.source),
            "inputs": list(self.inputs),
            "signature": self.signature and self.signature.to_json(),
            "layers": list(self.layers),
            "transposes": self.transposes,
            "dynamic": {name: list(limits) for name, limits in self.dynamic.items()},
            "conditions": list(self.conditions),
            "modules": [asdict(module, dict_factory=_stated) for module in self.modules],
            "draws": [asdict(draw, dict_factory=_stated) for draw in self.draws],
            "quantized": self.quantized and self.quantized.to_json(),
            "stem": self.stem,
            "plan": self.plan.to_json(),
            "digests": asdict(self.digests),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Conversion:
        """Build a record from JSON data.

        Raises:
            ConversionError: it is not such a record, or one of a newer version.
        """
        if data.get("format") != FORMAT or data.get("version") != VERSION:
            raise ConversionError(
                f"expected {FORMAT} version {VERSION}, got {data.get('format')!r} version "
                f"{data.get('version')!r}. Is this the conversion.json of an mlxport output folder?"
            )
        return cls(
            plan=WeightPlan.from_json(data["plan"]),
            modules=tuple(_module_from_json(module) for module in data["modules"]),
            inputs=tuple(data["inputs"]),
            signature=data.get("signature") and Signature.from_json(data["signature"]),
            layers=tuple(data["layers"]),
            transposes=data["transposes"],
            dynamic={name: tuple(limits) for name, limits in data.get("dynamic", {}).items()},
            conditions=tuple(data.get("conditions", ())),
            quantized=data.get("quantized") and Quantized.from_json(data["quantized"]),
            stem=data.get("stem", "weights"),
            versions=dict(data["versions"]),
            source=dict(data["source"]),
            draws=tuple(
                DrawRecord(draw["kind"], _layout_from_json(draw["layout"]))
                for draw in data.get("draws", [])
            ),
            digests=Digests(**data.get("digests", {})),
        )


def _module_from_json(data: Mapping[str, Any]) -> ModuleRecord:
    def layouts(items: list[dict[str, Any]]) -> tuple[Layout, ...]:
        return tuple(_layout_from_json(item) for item in items)

    results = data.get("results")
    return ModuleRecord(
        data["path"],
        data["target"],
        layouts(data["inputs"]),
        layouts(data["outputs"]),
        None if results is None else tuple(results),
        data.get("since"),
    )


def _stated(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return fields as JSON data; that no axis was merged, no module folded goes without saying."""
    return {name: v for name, v in items if name not in ("merged", "since") or v is not None}


def _layout_from_json(data: Mapping[str, Any]) -> Layout:
    merged = data.get("merged")
    return Layout(
        tuple(data["shape"]),
        data["dtype"],
        tuple(data["order"]),
        merged and Merged(tuple(merged["sizes"]), tuple(merged["order"])),
    )
