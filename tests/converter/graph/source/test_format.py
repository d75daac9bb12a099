import ast
import subprocess
import sys

import pytest

from mlxport.converter.graph.source.format import statement

CASES = {
    "short": "f(x)",
    "call on a second line": "function(" + ", ".join(f"argument{i}" for i in range(7)) + ")",
    "call with one line each": "function(" + ", ".join(f"argument{i}" for i in range(12)) + ")",
    "keywords": "function(x, " + ", ".join(f"keyword{i}={i}" for i in range(9)) + ")",
    "list": "[" + ", ".join(f"nn.Conv3d({i}, {i}, 3)" for i in range(6)) + "]",
    "dict": "{" + ", ".join(f'"key{i}": nn.Conv3d({i}, {i}, 3)' for i in range(6)) + "}",
    "nested": "outer(" + "inner(" + ", ".join(f"argument{i}" for i in range(12)) + "), b)",
    "comprehension": (
        "[[nn.Conv3d(16, 32, 3, padding=1), nn.BatchNorm(32), nn.ReLU()] for _ in range(3)]"
    ),
    "long comprehension": "[["
    + ", ".join(f"nn.Conv3d({i}, {i}, 3)" for i in range(6))
    + "] for _ in range(3)]",
    "sum": " + ".join(f"self.layer{i}(argument{i})" for i in range(5)),
    "sum of products": " + ".join(f"weight{i} * self.layer{i}(x)" for i in range(5)),
    "difference": "first - " + " - ".join(f"argument_number_{i}" for i in range(6)),
}


@pytest.mark.parametrize("source", CASES.values(), ids=CASES.keys())
def test_ruff_leaves_the_lines_alone(source, tmp_path):
    tree = ast.parse(source, mode="eval").body
    lines = statement("value = ", tree, 4)
    text = "def body():\n" + "\n".join(lines) + "\n    return value\n"
    assert max(map(len, lines)) <= 88
    assert ast.dump(ast.parse(text).body[0].body[0].value) == ast.dump(tree)
    file = tmp_path / "body.py"
    file.write_text(text)
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--diff", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
