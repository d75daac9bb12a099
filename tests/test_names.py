"""A name has one meaning, in the field's words, and every module says what it is for."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATHS = sorted(
    path
    for folder in ("converter", "layers", "testing")
    for path in [*(ROOT / folder).rglob("*.py"), ROOT / "cli.py"]
)
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in PATHS}

# One name for one thing: the command, the public function and the task that carries it out.
SAME_VERB = ("cli", "converter.api", "converter.tasks")
# One name for one operation: the rules and the handler that translate to it, the function itself.
LIBRARIES = sorted(m for m in MODULES if m.startswith("converter.rules.libraries."))
SAME_OP = ("layers", *LIBRARIES, "converter.rules", "converter.graph.ops")

# Other names that may be defined more than once, each with its reason.
EXEMPT: dict[str, str] = {
    "parse_renames": "the public function hands on to that of the keys",
}

# Words that mean nothing in particular, or something only in this project; the field has others.
PRIVATE_WORDS = {
    *("own", "made", "held", "told", "lies", "settle", "settled", "settling", "vouched"),
    *("util", "utils", "helper", "helpers", "manager", "misc", "stuff"),
}
# Names with such a word that somebody else gave.
GIVEN = {
    ("converter.graph.ir.sizes", "_helper_sqrt"),  # a method of torch's printer
    ("converter.parity.verdict.reference_file", "own"),  # a key of the file's header
}


@cache
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


def defined(node: ast.AST) -> Iterator[str]:
    """Names that a statement at the top level of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        # a TypeVar is part of one signature or two; a logger bears its module's name
        if re.search(r"\b(TypeVar|ParamSpec|getLogger)\b", ast.unparse(node.value or ast.Pass())):
            return
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))
    elif isinstance(node, ast.If | ast.Try | ast.ExceptHandler):
        for child in ast.iter_child_nodes(node):
            yield from defined(child)


def public_names(sources: dict[str, str]) -> dict[str, list[str]]:
    """Every public name with the modules that define it."""
    found: dict[str, list[str]] = defaultdict(list)
    for module, source in sources.items():
        names = {name for node in parsed(source).body for name in defined(node)}
        for name in sorted(name for name in names if not name.startswith("_")):
            found[name].append(module)
    return found


def one_meaning(modules: list[str]) -> bool:
    """Whether modules that define one name lie each in another part of a family of parts."""
    for family in (SAME_VERB, SAME_OP):
        parts = [next((p for p in family if f"{m}.".startswith(f"{p}.")), None) for m in modules]
        if None not in parts and len(set(parts)) == len(parts):
            return True
    return False


def collisions(sources: dict[str, str]) -> dict[str, list[str]]:
    """Names with several meanings, without those of ``EXEMPT``."""
    named = public_names(sources)
    return {
        name: modules
        for name, modules in named.items()
        if len(modules) > 1 and not one_meaning(modules) and name not in EXEMPT
    }


def words(name: str) -> set[str]:
    """The words of an identifier, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names of functions, classes, arguments and attributes, and what a module or class assigns."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef):
            yield from ((child.lineno, name) for child in node.body for name in defined(child))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def private_words(module: str, source: str) -> list[str]:
    """Identifiers of a module, its name included, that hold a word of ``PRIVATE_WORDS``."""
    named = [(1, module.rpartition(".")[2]), *identifiers(parsed(source))]
    return sorted(
        f"{module}:{line} {name}"
        for line, name in set(named)
        if words(name) & PRIVATE_WORDS and (module, name) not in GIVEN
    )


SOURCES = {module: path.read_text() for module, path in MODULES.items()}


def test_a_public_name_is_defined_once() -> None:
    assert collisions(SOURCES) == {}


def test_few_names_are_exempt_and_each_needs_to_be() -> None:
    assert len(EXEMPT) <= 5
    named = public_names(SOURCES)
    assert [n for n in EXEMPT if len(named[n]) < 2 or one_meaning(named[n])] == []
    assert all(EXEMPT.values())


@pytest.mark.parametrize("module", SOURCES)
def test_names_are_of_the_fields_words(module: str) -> None:
    assert private_words(module, SOURCES[module]) == []


@pytest.mark.parametrize("module", SOURCES)
def test_the_first_line_of_a_module_is_a_sentence(module: str) -> None:
    docstring = ast.get_docstring(parsed(SOURCES[module]))
    assert docstring, "say what the module is for"
    first = docstring.splitlines()[0]
    assert len(first) <= 100
    assert re.fullmatch(r"\S.*[.?]", first), first


COLLIDING = {
    "two of one room": ["converter.rules.conv", "converter.rules.pool"],
    "two of the layers": ["layers.norm.functions", "layers.pooling.functions"],
    "task and op": ["converter.tasks.restore", "layers.arrays.sorting"],
    "op and plan": ["converter.graph.ops.view", "converter.plan.steps"],
    "elsewhere": ["converter.plan.steps", "converter.graph.ir.value"],
}


@pytest.mark.parametrize("modules", COLLIDING.values(), ids=COLLIDING)
def test_the_checker_sees_two_meanings(modules: list[str]) -> None:
    assert collisions(dict.fromkeys(modules, "def f(): pass")) == {"f": modules}


SAME = {
    "a verb": ["cli", "converter.api.weights", "converter.tasks.restore"],
    "an op": ["layers.norm.functions", "converter.rules.norm", "converter.graph.ops.norm"],
}


@pytest.mark.parametrize("modules", SAME.values(), ids=SAME)
def test_the_checker_lets_the_same_meaning_pass(modules: list[str]) -> None:
    assert collisions(dict.fromkeys(modules, "def f(): pass")) == {}


DEFINITIONS = {
    "function": "def f(): pass",
    "class": "class f: pass",
    "constant": "f = 1",
    "annotated": "f: int = 1",
    "one of two": "e, f = 1, 2",
    "under a condition": "if True:\n    f = 1",
    "under try": "try:\n    import g\nexcept ImportError:\n    f = 1",
}


@pytest.mark.parametrize("source", DEFINITIONS.values(), ids=DEFINITIONS)
def test_the_checker_sees_a_definition(source: str) -> None:
    assert "f" in public_names({"a": source})


def test_the_checker_sees_private_words() -> None:
    source = "class OwnFiles:\n    own: int\n    def helper(self, made_by): self.told = 1"
    found = [line.partition(" ")[2] for line in private_words("vouched_leaf", source)]
    assert sorted(found) == sorted(["OwnFiles", "helper", "made_by", "own", "told", "vouched_leaf"])
    assert private_words("known", "def f(owner):\n    made = owner\n    return made") == []
