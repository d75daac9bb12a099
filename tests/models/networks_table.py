"""Convert the networks and write their table in docs/supported.md: `make docs-networks`."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from networks import NETWORKS, Network
from torch import nn

import mlxport
from mlxport.converter.tasks.convert import Converted

PAGE = Path(__file__).parents[2] / "docs" / "supported.md"
SECTION = "\n## Networks\n"
TEXT = """
Whole networks that the tests convert, in small, with weights drawn at random. Parity holds for each
in float32: every layer in place and alone, the model whole and compiled.

- layers, ops: what one call runs as layers, and op by op between them;
- transposes: what one call of the converted model executes, and for what;
- ratio: the worst error of any layer or output, in multiples of PyTorch's own noise, of which 8
  pass; measured when this table was written.

| network | of | parameters | layers | ops | batch size | transposes | ratio |
|---|---|---|---|---|---|---|---|
"""


def row(name: str, network: Network, model: nn.Module, converted: Converted) -> list[str]:
    """Return a network's cells."""
    package = f"{network.package} {version(network.package)}" if network.package else "this project"
    analysis = mlxport.analyze(model, network.inputs())
    report = converted.report
    assert report is not None
    transposes = converted.conversion.transposes
    return [
        name,
        package,
        f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        f"{len({(entry.path, entry.call) for entry in report.entries}):,}",
        f"{analysis.ops_covered.total:,}",
        "any" if network.batch else "fixed",
        f"{transposes}: {network.why}" if transposes else "0",
        f"{max(e.ratio for e in (*report.entries, *report.outputs)):.1f}x",
    ]


def main() -> None:
    """Convert every network and write the table; the rest of the page stays."""
    lines = []
    for name, network in NETWORKS.items():
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = network.build().eval()
            converted = mlxport.convert(model, network.inputs())
            lines.append(f"| {' | '.join(row(name, network, model, converted))} |")
        print(lines[-1], flush=True)
    registries = PAGE.read_text().partition(SECTION)[0]
    PAGE.write_text(registries + SECTION + TEXT + "\n".join(lines) + "\n")


if __name__ == "__main__":
    import import_torchvision  # noqa: F401

    main()
