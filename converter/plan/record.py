"""The conversion record: ``conversion.json`` as data, to repeat, reverse or verify a conversion.

The lowering writes it, parity reads it: which MLX module stands for which PyTorch module, and in
which axis order its values lie. Needs neither torch nor mlx.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mlxport.converter.errors import ConversionError
from mlxport.converter.plan.json_data import from_data, named_format, to_data
from mlxport.converter.plan.quantize_step import Quantized
from mlxport.converter.plan.structure import Signature
from mlxport.converter.plan.weight_plan import WeightPlan

# Every output folder has this file; a folder without it is the user's and is never replaced.
RECORD_FILE = "conversion.json"
RECORD_FORMAT = "mlxport-conversion"
RECORD_VERSION = 1

# Tuples within tuples that a model takes or gives; all that goes through them recurses.
_DEEPEST = 100

_NO_ORDER = "order (or that of merged) is none of the axes of shape"

# What the files of the weights are called before their ending; the second as on the Hub.
Stem = Literal["weights", "model"]


@dataclass(frozen=True)
class Merged:
    """An axis that merges several, which MLX stores in another sequence than PyTorch.

    Attributes:
        sizes: of the merged axes, in PyTorch's sequence.
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
        merged: the axes merged into the last one, where MLX stores them in another sequence.
    """

    shape: tuple[int | str, ...]
    dtype: str
    order: tuple[int, ...]
    merged: Merged | None = None

    def is_possible(self) -> bool:
        """Whether the order is one of the axes that there are, as in every converted model."""
        if self.merged is None:
            return sorted(self.order) == [*range(len(self.shape))]
        return sorted(self.merged.order) == [*range(len(self.merged.sizes))]


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


BEGINNING = "_beginning"  # attribute of an emitted model: its state as it was loaded


@dataclass(frozen=True)
class StateRecord:
    """One array of the emitted model that a call writes, for later calls to read.

    Attributes:
        path: the qualified name of the buffer, or of the tensor in an attribute, in PyTorch.
        target: the attribute path in the MLX model.
        layout: of the array.
    """

    path: str
    target: str
    layout: Layout


@dataclass(frozen=True)
class CacheRecord:
    """The argument of a model that is a cache of keys and values, as mlx-lm's models take one.

    The signature and the record of the model itself speak of the tensors in it, as PyTorch's does.

    Attributes:
        argument: of ``forward``.
        layers: how many layers it has, each with keys and values.
        results: of the leaves of the result in PyTorch, which are its keys and values after a call:
            the keys of the first layer, its values, the keys of the second …
    """

    argument: str
    layers: int
    results: tuple[int, ...]


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
class AdapterRecord:
    """A LoRA adapter that was converted with its base.

    Attributes:
        config: the text of its ``adapter_config.json``.
        keys: of its tensors, as sources of the plan; all others are the base's.
        merged: whether it was added to the weights of the base.
    """

    config: str
    keys: tuple[str, ...]
    merged: bool = False


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Everything needed to repeat, reverse, verify or explain a conversion.

    Attributes:
        versions: package name -> version.
        source: where the weights came from (path, digest, factory).
        inputs: names of the model's arguments, in order.
        signature: what the torch model takes and gives; None if its tensors stand side by side.
        layers: the files of ``mlxport.layers`` the model uses.
        transposes: how many transposes one call of the model executes.
        dynamic: name of each dynamic size -> the least and the largest it may be, None if there is
            no largest; empty where every size is that of the example.
        conditions: what else must be true of these sizes (``"h % 4 == 0"``), Python in their names.
        modules: in the order of their first call; the model itself (path ``""``) last.
        draws: the random draws that one call of the model makes, in order.
        state: what one call of the model writes for later ones.
        cache: the argument that is a cache; None where none is.
        quantized: which weights are quantised, how, and what it cost; None if none are.
        adapter: the adapter beside the base, or merged into it; None where there is none.
        stem: what the files of the weights are called before their ending.
        plan: the weight plan.
        digests: what the weights are; empty where none were written.
        code: path in the output folder -> SHA-256, of ``model.py`` and the files of ``layers/``.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...]
    signature: Signature | None = None
    layers: tuple[str, ...] = ()
    transposes: int = 0
    dynamic: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    modules: tuple[ModuleRecord, ...]
    draws: tuple[DrawRecord, ...] = ()
    state: tuple[StateRecord, ...] = ()
    cache: CacheRecord | None = None
    quantized: Quantized | None = None
    adapter: AdapterRecord | None = None
    stem: Stem = "weights"
    plan: WeightPlan
    digests: Digests = field(default_factory=Digests)
    code: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Conversion({len(self.modules)} modules, {self.plan!r})"

    def __str__(self) -> str:
        lines = [f"from {self.source['path']}"] if "path" in self.source else []
        lines += [f"inputs: {', '.join(self.inputs)}"] if self.inputs else []
        if self.modules:
            lines.append(f"{len(self.modules)} modules, {self.transposes} transposes a call")
        lines += [f"{n}: {low} to {high or 'any'}" for n, (low, high) in self.dynamic.items()]
        lines += [f"{len(self.draws)} random draws"] if self.draws else []
        lines += [f"state: {', '.join(one.path for one in self.state)}"] if self.state else []
        lines += [f"cache: {self.cache.layers} layers"] if self.cache else []
        lines += [f"quantized: {self.quantized.settings}"] if self.quantized else []
        return "\n".join([*lines, repr(self.plan)])

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON data."""
        data = to_data(self, without_none=("merged", "since", "loading", "adapter", "cache"))
        return {"format": RECORD_FORMAT, "version": RECORD_VERSION, **data}

    @classmethod
    def from_json(cls, data: Any) -> Conversion:
        """Build a record from JSON data.

        Raises:
            ConversionError: it is not such a record, or one of a newer version; the message names
                the field that is wrong.
        """
        form, version = named_format(data)
        if (form, version) != (RECORD_FORMAT, RECORD_VERSION):
            raise ConversionError(
                f"expected {RECORD_FORMAT} version {RECORD_VERSION}, got {form!r} version "
                f"{version!r}. Is this the conversion.json of an mlxport output folder?"
            )
        conversion = from_data(cls, data)
        if conversion.signature is not None and conversion.signature.depth() > _DEEPEST:
            raise ConversionError("it is nested too deeply")
        if problems := [*conversion.plan.contradictions(), *conversion._contradictions()]:
            raise ConversionError.listing("it contradicts itself:", problems)
        return conversion

    def _contradictions(self) -> Iterator[str]:
        """Yield what no record of a conversion can say, one line each with its field."""
        for place, name in enumerate(self.layers):
            if not all(part.isidentifier() for part in name.split(".")):
                yield f"layers[{place}]: {name!r} is no module"
        if self.modules and [m.path for m in self.modules].count("") != 1:
            yield "modules: the model itself, of path '', stands there once"
        for place, module in enumerate(self.modules):
            for field_name in ("inputs", "outputs"):
                for number, layout in enumerate(getattr(module, field_name)):
                    if not layout.is_possible():
                        yield f"modules[{place}].{field_name}[{number}]: {_NO_ORDER}"
        if self.signature is not None and self.modules:
            taken = self.signature.taken()
            if len(taken) != len(self.inputs):
                yield (
                    f"inputs: {len(self.inputs)} names, and signature.arguments has "
                    f"{', '.join(taken) or 'none'} that hold tensors"
                )
        if self.cache is not None:
            yield from self._contradictions_of(self.cache)
        if self.adapter is not None and self.plan.specs:
            for place, key in enumerate(self.adapter.keys):
                if key not in self.plan.specs:
                    yield f"adapter.keys[{place}]: plan.specs has no {key}"
        for place, draw in enumerate(self.draws):
            if not draw.layout.is_possible():
                yield f"draws[{place}].layout: {_NO_ORDER}"
        for place, state in enumerate(self.state):
            if not state.layout.is_possible():
                yield f"state[{place}].layout: {_NO_ORDER}"
        for name, (low, high) in self.dynamic.items():
            if low < 0 or (high is not None and high < low):
                yield f"dynamic[{name!r}]: from {low} to {high}"

    def _contradictions_of(self, cache: CacheRecord) -> Iterator[str]:
        """Yield what the record of a cache says that its signature does not."""
        taken = {} if self.signature is None else self.signature.taken()
        argument = taken.get(cache.argument)
        layers = () if argument is None or argument.kind != "list" else argument.items
        pairs = [len(layer.tensors("")) for layer in layers]
        if pairs != [2] * cache.layers:
            yield f"cache: signature.arguments has no {cache.argument} of {cache.layers} layers"
        leaves = [] if self.signature is None else [*self.signature.result.leaves("")]
        tensors = {n for n, (_, leaf) in enumerate(leaves) if leaf.kind == "tensor"}
        places = {*cache.results}
        if not places <= tensors or len(places) != 2 * cache.layers:
            yield f"cache.results: not {2 * cache.layers} tensors of signature.result"
