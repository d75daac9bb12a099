"""What the README shows is what happens."""

import re
from pathlib import Path

import pytest

from mlxport.cli import main
from mlxport.converter.errors import ConversionError, DeviceError, OptionsError, ParityError

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language; of none, those that are commands."""
    fenced = README.split("```")[1::2]
    return [text for info, _, text in (b.partition("\n") for b in fenced) if info == language]


def test_the_python_in_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("parity holds")


def test_every_command_in_it_exists() -> None:
    text = "\n".join([*re.findall(r"`[^`\n]+`", README), *blocks("")])
    assert set(re.findall(r"(?:^|[`$] ?)mlxport ([a-z]+)", text, re.MULTILINE)) == {*main.commands}


def test_every_option_in_it_exists() -> None:
    params = [param for command in main.commands.values() for param in command.params]
    known = {name for param in params for name in (*param.opts, *param.secondary_opts)}
    assert set(re.findall(r"--[a-z][a-z-]+", README)) <= known | {"--help"}


@pytest.mark.parametrize("error", [ConversionError, OptionsError, ParityError, DeviceError])
def test_exit_codes_are_all_there(error: type[ConversionError]) -> None:
    assert f"\n| {error.exit_code} | " in README


def test_its_pictures_are_there_and_described() -> None:
    pictures = re.findall(r"!\[(.*?)\]\((.*?)\)", README)
    assert [path for _, path in pictures] == ["docs/terminal.png", "docs/parity.png"]
    for described, path in pictures:
        assert len(described) > 40
        assert (ROOT / path).read_bytes().startswith(b"\x89PNG")


def test_the_figures_in_it_are_the_measured_ones() -> None:
    """`make bench` writes both; a table changed by hand, or in one place alone, is told."""
    results = (Path(__file__).parents[1] / "benchmarks" / "results.md").read_text()
    table = results.partition("\n## Transposed convolution, float32, forward\n")[2]
    measured = [line for line in table.partition("\n## ")[0].splitlines() if line[:1] == "|"]
    _, begin, rest = README.partition("<!-- from benchmarks/results.md, by `make bench` -->\n")
    quoted, end, _ = rest.partition("<!-- until here -->\n")
    assert begin
    assert end
    assert len(measured) > 10
    assert quoted.split("\n") == ["", *measured, "", ""]
