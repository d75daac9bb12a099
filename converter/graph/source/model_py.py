"""Write ``model.py``, the source of the MLX model, from the lowered model."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlxport.converter.graph.ir.body import Body, Lowered
from mlxport.converter.graph.ir.caches import CacheValue, caches_among
from mlxport.converter.graph.ir.code import call, to_ast, to_source
from mlxport.converter.graph.ir.naming import ModelNames
from mlxport.converter.graph.ir.sizes import shape_text
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.source.attributes import Attribute, Built, ClassGroup, Parameter
from mlxport.converter.graph.source.body_code import write_body
from mlxport.converter.graph.source.cache_methods import cache_check, cache_method, cache_note
from mlxport.converter.graph.source.classes import find_classes
from mlxport.converter.graph.source.fixed_arguments import argument_list
from mlxport.converter.graph.source.format import WIDTH, Code, code_lines, docstring_text, statement
from mlxport.converter.graph.source.frozen import freezing_lines
from mlxport.converter.graph.source.load_function import load_function
from mlxport.converter.graph.source.size_checks import check_lines
from mlxport.converter.graph.source.state_methods import (
    beginning_lines,
    state_methods,
    state_note,
)
from mlxport.converter.timings import stage
from mlxport.converter.torch_model.calls import keyword_only

_MLX_IMPORTS = ("import mlx.core as mx", "import mlx.nn as nn")


@dataclass(frozen=True)
class ModelPy:
    """``model.py`` in its parts.

    Attributes:
        docstring: of the module.
        layers: file of ``layers/`` -> the names imported from it.
        classes: the source of every class, each after those it uses.
        name: name of the class of the model itself.
        stem: what the files of the weights are called before their ending.
        class_of: path of every module that is an instance of one of the classes -> its name.
    """

    docstring: str
    layers: Mapping[str, Sequence[str]]
    classes: tuple[str, ...]
    name: str
    stem: str
    class_of: Mapping[str, str]

    def text(self, *, quantized: bool = False) -> str:
        """Return the source.

        Args:
            quantized: whether its ``load`` reads quantised weights, as mlx-lm's does.
        """
        load = load_function(self.name, self.stem, quantized=quantized)
        code = "\n\n".join([*self.classes, load])
        return f"{self.docstring}\n{self._imports(quantized)}\n\n\n{code}"

    def _imports(self, quantized: bool) -> str:
        standard = ["import json"] if quantized else []
        lines = [*standard, "from pathlib import Path", "", *_MLX_IMPORTS]
        layers = [f"layers.{file} import {', '.join(names)}" for file, names in self.layers.items()]
        if not layers:
            return "\n".join(lines)
        inside = [f"    from .{line}" for line in layers]
        alone = [f"    from {line}" for line in layers]
        of_folder = "else:  # `import model` from within this folder"
        return "\n".join([*lines, "", "if __package__:", *inside, of_folder, *alone])


@stage("emit")
def write_model(lowered: Lowered, names: ModelNames, stem: str = "weights") -> ModelPy:
    """Return the source of the MLX model.

    Deterministic: the same lowered model gives the same text.

    Args:
        lowered: the model.
        names: its names.
        stem: what the files of the weights are called before their ending.
    """
    codes = {path: write_body(body, names) for path, body in lowered.bodies.items()}
    groups = find_classes(lowered, names, codes)
    root = groups[-1]
    buffers = {i.path for group in groups for i in group.instances if i.frozen}
    calls = {root.name: _root_call(lowered, names)}
    last = {root.name: [*freezing_lines(lowered, names), *beginning_lines(lowered, names)]}
    attributes = root.instances[0].attributes
    methods = {root.name: [*state_methods(lowered, names, attributes), *cache_method(lowered)]}
    classes = tuple(
        "\n".join(
            [
                *_class(group, names, buffers, calls.get(group.name), last.get(group.name, ())),
                *methods.get(group.name, ()),
                "",
            ]
        )
        for group in groups
    )
    layers = _layer_imports(classes, lowered.scope.imports)
    docstring = _module_docstring(root, lowered, names)
    class_of = {instance.path: group.name for group in groups for instance in group.instances}
    return ModelPy(docstring, layers, classes, root.name, stem, class_of)


def _module_docstring(root: ClassGroup, lowered: Lowered, names: ModelNames) -> str:
    body = lowered.bodies[""]
    torch_class = type(names.model)
    torch_name = docstring_text(f"{torch_class.__module__}.{torch_class.__qualname__}")
    sizes = lowered.size_names
    takes = _named_shapes(lowered.signature.tensors(), body.inputs, sizes)
    gives = _named_shapes(lowered.signature.result.tensors(""), body.outputs, sizes)
    logical = all(value.is_logical for value in (*body.inputs, *body.outputs))
    axes = "in PyTorch's order" if logical else "channels-last"
    return "\n".join(
        [
            f'"""{root.name} in MLX, converted from PyTorch.',
            "",
            f"Stands for ``{torch_name}``.",
            *_wrapped(f"Takes {takes}; gives {gives}; axes {axes}.", WIDTH),
            *_dynamic(lowered),
            *_fixed(lowered),
            *_unchecked(lowered),
            *state_note(lowered, names),
            *cache_note(lowered),
            '"""',
            "",
        ]
    )


def _named_shapes(names: Sequence[str], values: Sequence[Value], sizes: Mapping[str, str]) -> str:
    """Return names and shapes; a place in a tuple is no name."""
    named = [re.sub(r"^(\[\d+\])+|^\.", "", name) for name in names]
    pairs = [p for p in zip(named, values, strict=True) if not isinstance(p[1], CacheValue)]
    shaped = [f"{name} {shape_text(v.stored_shape, sizes)}".strip() for name, v in pairs]
    return docstring_text(", ".join(shaped))


def _dynamic(lowered: Lowered) -> list[str]:
    """Say which sizes may change, and what compiling makes of them."""
    names = list(lowered.size_names.values())
    if not names:
        return []
    limits = f", as long as {' and '.join(lowered.conditions)}" if lowered.conditions else ""
    what = f"size {names[0]}" if len(names) == 1 else f"sizes {', '.join(names)}"
    note = (
        f"The {what} may change from call to call{limits}. mx.compile traces each shape anew; "
        "with shapeless=True it would go on with the sizes of the first call."
    )
    return textwrap.wrap(note, WIDTH)


def _fixed(lowered: Lowered) -> list[str]:
    """Say which arguments of ``forward`` are fixed, as they were when the model was captured."""
    given = lowered.signature.constants().items()
    fixed = [f"{name}={to_source(to_ast(value))}" for name, value in given if value is not None]
    if not fixed:
        return []
    note = f"Fixed when converted: {', '.join(fixed)}."
    return _wrapped(note, WIDTH, break_on_hyphens=False)


def _wrapped(text: str, width: int, *, break_on_hyphens: bool = True) -> list[str]:
    """Return the lines of a docstring's text; a broken escape sequence would be another."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=break_on_hyphens)


def _unchecked(lowered: Lowered) -> list[str]:
    """Say whose values are looked up somewhere without a check, as PyTorch makes it."""
    names = lowered.signature.tensors()
    whose = (names[one] if isinstance(one, int) else one for one in lowered.unchecked)
    found = docstring_text(" and ".join(whose))
    if not found:
        return []
    note = (
        f"MLX checks no index: where a value of {found} is beyond what it is looked up in, PyTorch "
        "raises, and this model reads other memory."
    )
    return _wrapped(note, WIDTH)


def _layer_imports(classes: Sequence[str], imports: Mapping[str, str]) -> dict[str, list[str]]:
    """Return file of ``layers/`` -> the names that some classes import from it, in order.

    Args:
        classes: their source.
        imports: name of a function or class -> the file it comes from.
    """
    trees = (ast.parse(source) for source in classes)
    read = {n.id for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Name)}
    files: dict[str, list[str]] = {}
    for name in sorted(read & {*imports}):
        files.setdefault(imports[name], []).append(name)
    return dict(sorted(files.items()))


def _class(
    group: ClassGroup,
    names: ModelNames,
    buffers: Collection[str],
    call: _Call | None,
    last: Sequence[str],
) -> list[str]:
    instance = group.instances[0]
    lines = [f"class {group.name}(nn.Module):", *_class_docstring(group, names), ""]
    lines += _head("__init__", ["self", *group.parameters], "):")
    lines += ["        super().__init__()"]
    for name, attribute in instance.attributes.items():
        lines += statement(f"self.{name} = ", _construct(attribute), 8)
    lines += [f"        self.{name} = {value}" for name, value in group.settings.items()]
    freeze = f"self.freeze(keys={to_source(to_ast(list(instance.frozen)))}, recurse=False)"
    if instance.frozen:
        lines.append(f"        {freeze}")
    lines += [f"        {line}" for line in last]
    if instance.body is not None:
        code = group.code or instance.code
        lines += ["", *_method(instance.body, code, call or _Call.of(instance.body))]
    prefix = f"{instance.path}." if instance.path else ""
    below = any(path != instance.path and path.startswith(prefix) for path in buffers)
    if instance.frozen or below:
        lines += ["", *_unfreeze(freeze if instance.frozen else "self", below)]
    return lines


def _unfreeze(result: str, below: bool) -> Iterator[str]:
    """Yield the method that keeps PyTorch's buffers frozen, as MLX's BatchNorm does."""
    yield "    def unfreeze(self, *args, **kwargs):"
    yield '        """Unfreeze parameters; what PyTorch holds in buffers stays frozen."""'
    yield "        super().unfreeze(*args, **kwargs)"
    if below:
        yield "        for module in self.modules():"
        yield "            if module is not self:"
        yield "                module.unfreeze(keys=[], recurse=False)"
    yield f"        return {result}"


def _class_docstring(group: ClassGroup, names: ModelNames) -> list[str]:
    instance = group.instances[0]
    name = docstring_text(type(names.model.get_submodule(instance.path)).__qualname__)
    times = len(group.instances)
    first = f"PyTorch's ``{name}``" + (f", {times} times in the model." if times > 1 else ".")
    if instance.body is None:
        return [f'    """{first}"""']
    sizes = instance.body.sizes.names
    caches = ["a cache"] if caches_among(instance.body.inputs) else []
    takes = " and ".join(filter(None, [_shapes(instance.body.inputs, sizes), *caches]))
    gives = _shapes(instance.body.outputs, sizes)
    flow = f"Takes {takes}, gives {gives}"
    wrapped = textwrap.wrap(flow + (" at first." if times > 1 else "."), WIDTH - 4)
    return [f'    """{first}', "", *(f"    {line}" for line in wrapped), '    """']


def _shapes(values: Sequence[Value], sizes: Mapping[str, str]) -> str:
    arrays = [value for value in values if not isinstance(value, CacheValue)]
    return " and ".join(shape_text(value.stored_shape, sizes) for value in arrays)


@dataclass(frozen=True)
class _Call:
    """How a class is called: its parameters behind ``self``, and what is checked of them."""

    arguments: Sequence[str]
    checks: Sequence[str] = ()

    @classmethod
    def of(cls, body: Body) -> _Call:
        """Return how a class is called that stands inside of the model."""
        arguments = [f"{formal.name}: {formal.annotation}" for formal in body.parameters]
        named = [formal.keyword for formal in body.parameters]
        if any(named):
            arguments.insert(named.index(True), "*")
        return cls(arguments)


def _root_call(lowered: Lowered, names: ModelNames) -> _Call:
    """Return how the model itself is called."""
    body, signature = lowered.bodies[""], lowered.signature
    by_name = keyword_only(names.model, list(signature.arguments))
    cached = lowered.cached.name if lowered.cached else ""
    arguments, checks = argument_list(signature, body, by_name, cached)
    checks += cache_check(lowered)
    return _Call(arguments, [*checks, *check_lines(lowered.conditions, lowered.fixed, body)])


def _method(body: Body, code: Code, call: _Call) -> list[str]:
    head = _head("__call__", ["self", *call.arguments], f") -> {_annotation(body.result)}:")
    return [*head, *call.checks, *code_lines(code, 8)]


def _head(name: str, arguments: Sequence[str], tail: str) -> list[str]:
    """Return the lines of ``def``, broken the way ruff and black do."""
    head = f"    def {name}({', '.join(arguments)}{tail}"
    if len(head) <= WIDTH:
        return [head]
    inner = [f"        {', '.join(arguments)}"]
    if len(inner[0]) > WIDTH:
        inner = [f"        {argument}," for argument in arguments]
    return [f"    def {name}(", *inner, f"    {tail}"]


def _annotation(result: ast.expr | None) -> str:
    containers = {ast.Tuple: "tuple", ast.Dict: "dict", ast.List: "list"}
    return next((name for kind, name in containers.items() if isinstance(result, kind)), "mx.array")


def _construct(attribute: Attribute) -> ast.expr:
    if isinstance(attribute, Built):
        return call(
            attribute.target,
            *(_argument(arg) for arg in attribute.args),
            **{key: _argument(attribute.kwargs[key], key) for key in _in_order(attribute)},
        )
    items = [_construct(item) for item in attribute.items]
    if attribute.keys is not None:
        return ast.Dict([ast.Constant(key) for key in attribute.keys], items)
    if len(items) > 1 and len({to_source(item) for item in items}) == 1:
        return _repeated(items[0], len(items))
    return ast.List(items)


def _in_order(built: Built) -> list[str]:
    """Return the keyword arguments in the order of the constructor's signature."""
    order = list(built.defaults)
    return sorted(built.kwargs, key=lambda key: order.index(key) if key in order else len(order))


def _repeated(item: ast.expr, times: int) -> ast.expr:
    loop = ast.comprehension(
        ast.Name("_"), ast.Call(ast.Name("range"), [ast.Constant(times)], []), [], 0
    )
    return ast.ListComp(item, [loop])


def _argument(value: object, key: str = "") -> ast.expr:
    if isinstance(value, Parameter):
        return ast.Name(value.name)
    if key == "dtype":
        return ast.Attribute(ast.Name("mx"), str(value))
    return to_ast(value)
