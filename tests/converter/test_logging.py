"""What is logged: stages at info, what is swallowed on purpose at debug; nothing unless asked."""

import ast
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mlxport.converter.graph.fold_batchnorm import fold_batchnorm
from mlxport.converter.timings import measured, stage

ROOT = Path(__file__).parents[2]


def stages(log: pytest.LogCaptureFixture) -> list[str]:
    """Return the stages logged, without their durations."""
    records = [r for r in log.records if r.name == "mlxport.converter.timings"]
    assert all(record.levelno == logging.INFO for record in records)
    return [record.getMessage().rsplit(maxsplit=2)[0] for record in records]


@pytest.mark.parametrize("counted", [True, False], ids=["counted", "not counted"])
def test_stages_are_logged_with_their_paths(
    caplog: pytest.LogCaptureFixture, counted: bool
) -> None:
    with caplog.at_level(logging.INFO, "mlxport"):
        if counted:
            with measured(), stage("verify"), stage("alone"):
                pass
        else:
            with stage("verify"), stage("alone"):
                pass
    assert stages(caplog) == ["verify/alone took", "verify took"]


def test_a_stage_that_fails_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "mlxport"),
        pytest.raises(ZeroDivisionError),
        stage("capture"),
    ):
        _ = 1 / 0
    assert stages(caplog) == ["capture failed after"]


class Uncapturable(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no forward today")


def test_what_is_swallowed_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "mlxport"):
        fold_batchnorm(Uncapturable(), (torch.ones(1),), None)
    (record,) = [r for r in caplog.records if r.name == "mlxport.converter.graph.fold_batchnorm"]
    assert record.levelno == logging.DEBUG
    assert "no forward today" in caplog.text


SILENT = """
import logging
from mlxport.converter.timings import stage
with stage("capture"):
    logging.getLogger("mlxport.converter.anything").warning("not to be seen")
"""


def test_nothing_is_printed_unless_logging_is_configured() -> None:
    run = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")


# These say in their type all there is to know: no such attribute, no such encoding.
TELLING_NOTHING = {
    "(TypeError, ValueError)",  # of inspect.signature: forward hides its own
    "AttributeError",
    "UnicodeEncodeError",
    "tarfile.HeaderError",
}


def swallowed(source: str) -> Iterator[str]:
    """Yield the types of exceptions that are neither raised again, nor used, nor logged."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            inside = [n for statement in node.body for n in ast.walk(statement)]
            raised = any(isinstance(n, ast.Raise) for n in inside)
            names = {n.id for n in inside if isinstance(n, ast.Name)}
            if not raised and not names & {node.name, "_logger"}:
                yield ast.unparse(node.type) if node.type else "everything"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            yield ", ".join(map(ast.unparse, node.args))


SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("converter/**/*.py"))


@pytest.mark.parametrize("file", SOURCES)
def test_no_exception_is_swallowed_in_silence(file: str) -> None:
    assert {*swallowed((ROOT / file).read_text())} <= TELLING_NOTHING


CASES = {
    "in silence": ("try:\n    f()\nexcept OSError:\n    pass", ["OSError"]),
    "by suppress": ("with suppress(OSError, KeyError):\n    f()", ["OSError, KeyError"]),
    "raised again": ("try:\n    f()\nexcept OSError:\n    raise", []),
    "used": ("try:\n    f()\nexcept OSError as error:\n    notes.append(str(error))", []),
    "logged": ("try:\n    f()\nexcept OSError:\n    _logger.debug('no', exc_info=True)", []),
}


@pytest.mark.parametrize(("source", "expected"), CASES.values(), ids=CASES)
def test_the_check_tells_them_apart(source: str, expected: list[str]) -> None:
    assert [*swallowed(source)] == expected
