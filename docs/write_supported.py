"""Write the registries' tables of docs/supported.md anew: `make docs`.

The table of networks below them stays; `make docs-networks` measures that one.
"""

from __future__ import annotations

from pathlib import Path

from mlxport.converter.api.tables import support

PAGE = Path(__file__).parent / "supported.md"
NETWORKS = "\n## Networks\n"


def main() -> None:
    """Write the page."""
    _, heading, networks = PAGE.read_text().partition(NETWORKS)
    PAGE.write_text(support(form="markdown") + heading + networks)


if __name__ == "__main__":
    main()
