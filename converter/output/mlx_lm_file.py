"""The file by which mlx-lm runs a converted language model: it stands alone.

mlx-lm takes ``Model`` and ``ModelArgs`` from the file that ``config.json`` names as ``model_file``.
It loads that file by its path, so that it cannot import what lies beside it, and copies it alone
into the folders that it writes itself. So the layers that ``model.py`` imports stand in it, and
``Model`` is the class of ``model.py``, called as mlx-lm calls its models. Needs no torch.
"""

from __future__ import annotations

import ast
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlxport.converter.errors import ConversionError
from mlxport.converter.output.layer_code import merged_imports
from mlxport.converter.output.layer_files import layer_code, reached_layers
from mlxport.converter.plan.json_data import read_json
from mlxport.converter.plan.record import Conversion

_logger = logging.getLogger(__name__)

MODEL_FILE = "mlx_lm_model.py"
_CONFIG = "config.json"
_TOKENS, _LOGITS = "input_ids", "logits"
_NAMES = ("Model", "ModelArgs")
_SET = {"args", "model_type"}  # attributes of ``Model``
_ALWAYS = """\
from __future__ import annotations
import mlx.core as mx
import mlx.nn as nn
"""

_DOCSTRING = '''\
"""{name} for mlx-lm, which loads this file by its path: it stands alone.

``Model`` is the class of ``model.py``, with the layers that it uses, called as mlx-lm calls models.
"""'''

_ENDS = '''\
class ModelArgs:
    """What mlx-lm reads of ``config.json``; the sizes stand in the classes above."""

    def __init__(self, model_type: str):
        self.model_type = model_type

    @classmethod
    def from_dict(cls, config: dict) -> ModelArgs:
        """Return what a configuration says."""
        return cls(config.get("model_type", ""))


class Model({name}):
    """The model as mlx-lm calls it: tokens and a cache in, logits out."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.args = args
        self.model_type = args.model_type

    def __call__(self, inputs: mx.array, cache: list | None = None) -> mx.array:
        return super().__call__(inputs, cache=cache)["logits"]
'''

# what mlx-lm asks before it casts the weights
_CASTS = '''
    def cast_predicate(self, path: str) -> bool:
        """Tell whether a parameter may be cast: what PyTorch holds in buffers keeps its dtype."""
        return path.rpartition(".")[2] not in {buffers}
'''

# what mlx-lm asks before it quantises a layer
_QUANTIZES = '''
    def quant_predicate(self, path: str, module: nn.Module) -> bool:
        """Tell whether a layer may be quantised: others read the weight of some."""
        return not set(path.split(".")) & set({read})
'''

_LAYERS = '''
    @property
    def layers(self) -> list:
        """The blocks of the model, one for each layer of the cache."""
        return {blocks}
'''


def write_mlx_lm_file(folder: Path, source: str, conversion: Conversion) -> None:
    """Write the file for mlx-lm into an output folder, and name it in its ``config.json``.

    Nothing is written where the folder has no configuration, or mlx-lm does not run such a model.

    Args:
        folder: the output folder.
        source: the text of ``model.py``.
        conversion: the record.
    """
    path = folder / _CONFIG
    if not path.is_file() or (text := mlx_lm_text(source, conversion)) is None:
        return
    (folder / MODEL_FILE).write_text(text, encoding="utf-8")
    name_model_file(folder)


def name_model_file(folder: Path) -> None:
    """Name the file for mlx-lm in the ``config.json`` beside it, where both are there."""
    path = folder / _CONFIG
    if not path.is_file() or not (folder / MODEL_FILE).is_file():
        return
    try:
        config = read_json(path)
    except ConversionError:
        _logger.info("%s is no JSON: it names no file for mlx-lm", path, exc_info=True)
        return
    if isinstance(config, dict):
        stated = {**config, "model_file": MODEL_FILE}
        path.write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")


def mlx_lm_text(source: str, conversion: Conversion) -> str | None:
    """Return the text of the file for mlx-lm; None where mlx-lm does not run such a model.

    It runs one that takes tokens (``input_ids``) and a cache that grows, gives ``logits``, and has
    a list of as many blocks as its cache has layers.

    Args:
        source: the text of ``model.py``.
        conversion: the record.
    """
    blocks = _blocks(conversion)
    if blocks is None or not generates(conversion):
        return None
    tree = ast.parse(source)
    layers = reached_layers(source)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    imports = _imports(layers)
    bound = [name for file, names in layers.items() for name in layer_code(file).bound(names)]
    bound += [*(node.name for node in classes), *_NAMES, *_imported(imports)]
    if twice := [name for name, times in Counter(bound).items() if times > 1]:
        _logger.info("no file for mlx-lm: %s would be defined twice", ", ".join(sorted(twice)))
        return None
    name = classes[-1].name
    code = [layer_code(file).definitions(names) for file, names in layers.items()]
    code += [ast.get_source_segment(source, node) or "" for node in classes]
    ends = _ENDS.format(name=name)
    if blocks != "self.layers":
        ends += _LAYERS.format(blocks=blocks)
    if buffers := sorted({name for node in classes for name in _buffers(node)}):
        ends += _CASTS.format(buffers=json.dumps(buffers))
    if read := sorted({name for node in classes for name in _read_elsewhere(node)}):
        ends += _QUANTIZES.format(read=json.dumps(read))
    head = f"{_DOCSTRING.format(name=name)}\n\n{imports}"
    is_definition = isinstance(ast.parse(code[0]).body[0], ast.FunctionDef | ast.ClassDef)
    gap = "\n\n\n" if is_definition else "\n\n"  # as isort has it
    return f"{head}{gap}" + "\n\n\n".join([*code, ends])


def _buffers(cls: ast.ClassDef) -> Iterator[str]:
    """Yield the attributes that a class keeps frozen: buffers in PyTorch."""
    for node in ast.walk(cls):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self.freeze":
            for keyword in node.keywords:
                if keyword.arg == "keys":
                    yield from ast.literal_eval(keyword.value)


def _read_elsewhere(cls: ast.ClassDef) -> Iterator[str]:
    """Yield the attributes of a class whose weight is read by others than themselves."""
    for node in ast.walk(cls):
        if isinstance(node, ast.Attribute) and node.attr == "weight":
            owner = node.value
            while isinstance(owner, ast.Subscript):
                owner = owner.value
            if isinstance(owner, ast.Attribute):
                yield owner.attr


def _imported(imports: str) -> Iterator[str]:
    """Yield the names that imports bind."""
    for node in ast.parse(imports).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)


def _imports(layers: Mapping[str, set[str]]) -> str:
    nodes = [node for file, names in layers.items() for node in layer_code(file).outside(names)]
    always = [
        node for node in ast.parse(_ALWAYS).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    return merged_imports([*nodes, *always])


def generates(conversion: Conversion) -> bool:
    """Tell whether a model goes on with a text: it takes tokens and a cache, and gives logits.

    Args:
        conversion: its record.
    """
    signature, cache = conversion.signature, conversion.cache
    if signature is None or cache is None or signature.result.kind != "dict":
        return False
    if (
        conversion.state
        or {module.target.partition(".")[0] for module in conversion.modules} & _SET
    ):
        return False
    results = dict(zip(signature.result.keys, signature.result.items, strict=True))
    logits = results.get(_LOGITS)
    takes = [*signature.taken()]
    return takes == [_TOKENS, cache.argument] and logits is not None and logits.kind == "tensor"


def _blocks(conversion: Conversion) -> str | None:
    """Return the expression of a model's blocks; None where no list has as many as the cache.

    Of several such lists it is the outermost.
    """
    numbers: dict[str, set[int]] = {}
    for module in conversion.modules:
        above, _, last = module.target.rpartition(".")
        if last.isdecimal():
            numbers.setdefault(above, set()).add(int(last))
    expected = set(range(conversion.cache.layers)) if conversion.cache else set()
    found = [path for path, items in numbers.items() if items == expected]
    path = min(found, key=lambda path: path.count("."), default=None)
    if path is None or (path != "layers" and "layers" in numbers):
        return None
    return "self" + re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", f".{path}")
