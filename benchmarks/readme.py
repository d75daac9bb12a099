"""Put the table of ``benchmarks/results.md`` that the README quotes between its markers."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
QUOTED = "## Transposed convolution, float32, forward\n"
BEGIN, END = "<!-- from benchmarks/results.md, by `make bench` -->\n", "<!-- until here -->"


def quote() -> None:
    """Write the README anew.

    Raises:
        ValueError: a marker or the table is missing.
    """
    readme, results = ROOT / "README.md", ROOT / "benchmarks" / "results.md"
    table = results.read_text().partition(QUOTED)[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")]
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (rows and begin and end):
        raise ValueError(f"{readme} or {results} lacks a marker or the table {QUOTED.strip()!r}")
    readme.write_text("\n".join([before + begin, *rows, "", end + after]))


if __name__ == "__main__":
    quote()
