"""How messages name arguments: keywords for who calls the library, flags on the command line."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mlxport.cli import _flag, main
from mlxport.converter.arguments import argument, spelled

ROOT = Path(__file__).parents[2]

NAMED = {
    "a switch": (("overwrite", True), "overwrite=True", "--overwrite"),
    "a switch that is off": (("carry_along", False), "carry_along=False", "--no-carry-along"),
    "any value": (("model",), "model=", "--model"),
    "a text": (("dtype", "float32"), "dtype='float32'", "--dtype float32"),
    "a text a shell takes apart": (("key", "a b"), "key='a b'", "--key 'a b'"),
    "a number": (("noise_multiple", 8), "noise_multiple=8", "--noise-multiple 8"),
    "none": (("prefix", None), "prefix=None", "--prefix None"),
    "one of several": (("layers", ["*=Conv"]), "layers=['*=Conv']", "--layer '*=Conv'"),
    "several": (
        ("inputs", ["1,2", "n=3"]),
        "inputs=['1,2', 'n=3']",
        "--input 1,2 --input n=3",
    ),
    "axes": (("dynamic", (0, 2)), "dynamic=(0, 2)", "--dynamic 0,2"),
    "pairs": (("rename", {"a.*": "b.*"}), "rename={'a.*': 'b.*'}", "--rename 'a.*=b.*'"),
    "data": (
        ("kwargs", {"use_cache": False}),
        "kwargs={'use_cache': False}",
        """--kwargs '{"use_cache": false}'""",
    ),
    "of another name": (
        ("channels_last", True),
        "channels_last=True",
        "--layout channels_last",
    ),
    "of Python alone": (("strict", False), "strict=False", "strict=False"),
}


@pytest.mark.parametrize(("named", "keyword", "flag"), NAMED.values(), ids=NAMED)
def test_an_argument_reads_as_its_reader_writes_it(named, keyword, flag):
    assert argument(*named) == keyword
    with spelled(_flag):
        assert argument(*named) == flag
    assert argument(*named) == keyword


def test_a_spelling_ends_with_what_it_was_for():
    with pytest.raises(ZeroDivisionError), spelled(lambda name, value: "flag"):
        _ = 1 / 0
    assert argument("model") == "model="


FLAGS = {
    flag
    for command in main.commands.values()
    for option in command.params
    if isinstance(option, click.Option)
    for flag in (*option.opts, *option.secondary_opts)
    if flag.startswith("--")
}
# a command to be run elsewhere is given whole, with its flags
COMMAND = re.compile(
    r"mlxport (convert CHECKPOINT|verify|verify OUT|layers)( --?[a-z-]+( [A-Z.:]+)?)+"
)


# a model.py is the same whether the command or Python wrote it, so its errors say both
EMITTED = {"converter/graph/source/size_checks.py": {"--dynamic"}}


def texts(source: str) -> Iterator[str]:
    """Yield the strings of a module that are no docstrings."""
    tree = ast.parse(source)
    docs = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def flags_in(source: str) -> set[str]:
    found = {f for text in texts(source) for f in re.findall(r"--[a-z-]+", COMMAND.sub("", text))}
    return found & FLAGS


def test_the_library_knows_no_flags():
    folders = [ROOT / name for name in ("converter", "layers", "testing")]
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    found = {str(path.relative_to(ROOT)): flags_in(path.read_text()) for path in paths}
    speaking = {path: flags for path, flags in found.items() if flags}
    assert speaking == EMITTED, "say argument(keyword)"


SPOKEN = {
    "a message": ('raise E("pass --overwrite")', {"--overwrite"}),
    "part of one": ('f"{path}: pass --key {key}"', {"--key"}),
    "a default": ('def f(said="--model"): ...', {"--model"}),
    "a docstring": ('def f():\n    "Read ``--rename OLD=NEW``."', set()),
    "a command": ('f"run: mlxport verify OUT --device {name}"', set()),
    "another's flag": ('"git --no-pager"', set()),
}


@pytest.mark.parametrize(("source", "found"), SPOKEN.values(), ids=SPOKEN)
def test_the_search_sees_a_flag(source, found):
    assert flags_in(source) == found
