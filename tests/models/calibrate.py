"""How far right conversions stray from PyTorch's own noise, and faulty ones: `make calibrate`.

The default of ``noise_multiple`` stands between the two. Prints one table in Markdown; what it
printed last stands in docs/decisions.md, under decision 7. Names of networks as arguments leave the
others out; ``MLXPORT_SWEEP=1`` takes every sample PyTorch has of its layers in place of the first
of each class.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from networks import NETWORKS

sys.path.append(str(Path(__file__).parents[1] / "samples"))
from sample_database import samples
from test_faults import FAULTS, Net
from torch import nn

import mlxport
from mlxport.converter.errors import ConversionError
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.verdict.entry import ALONE, ParityEntry
from mlxport.converter.parity.verdict.judgement import NOISE_MULTIPLE

# MLX's CPU backend takes many times as long for half precision, so few networks are run in it
HALF = ("UNet3d", "StereoNet", "UNet", "VNet")
SWEEP = os.environ.get("MLXPORT_SWEEP") == "1"
SHARES = (50, 90, 99, 99.9, 100)


class Ratio(NamedTuple):
    """One verdict's ratio of error to noise, and where it was found."""

    ratio: float
    place: str


def trained(model: nn.Module) -> nn.Module:
    """Give a model weights as training would; see conftest.py."""
    return conftest.randomise.__wrapped__()(model)


def ratios(report: ParityReport, name: str) -> Iterator[tuple[str, Ratio]]:
    """Yield mode and ratio of every verdict of a report."""
    for entry in (*report.entries, *report.outputs):
        for mode, verdict in entry.verdicts.items():
            if verdict.ratio is not None:
                yield mode, Ratio(verdict.ratio, f"{name}, {entry.label}")


def of_networks(names: Collection[str] = ()) -> dict[tuple[str, str], list[Ratio]]:
    """Convert networks, all unless named, in every dtype; return the ratios by dtype and mode."""
    found: dict[tuple[str, str], list[Ratio]] = defaultdict(list)
    for name, network in NETWORKS.items():
        if names and name not in names:
            continue
        halves = (torch.bfloat16, torch.float16) if name in HALF else ()
        for dtype in (torch.float32, *halves):
            torch.manual_seed(0)
            kind = str(dtype).removeprefix("torch.")
            model, inputs = trained(network.build()).to(dtype), network.inputs()
            inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)
            try:
                report = mlxport.convert(model, inputs).report
            except (ConversionError, RuntimeError) as error:
                print(f"left out: {name} in {kind}: {str(error)[:200]!r}", file=sys.stderr)
                continue
            assert report is not None
            for mode, ratio in ratios(report, name):
                found[kind, mode].append(ratio)
            print(f"{name}, {kind}: {report.verdict}", file=sys.stderr, flush=True)
    return found


class Called(nn.Module):
    """A layer inside a network, as whole models have it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer(*args, **kwargs)


def of_layers() -> dict[tuple[str, str], list[Ratio]]:
    """Convert samples of torch's layers, the first of each class or all; return their ratios."""
    found: dict[tuple[str, str], list[Ratio]] = defaultdict(list)
    done: set[str] = set()
    for sample in samples():
        if sample.training or (sample.layer in done and not SWEEP):
            continue
        done.add(sample.layer)
        layer, call = sample.build()
        try:
            report = mlxport.convert(Called(layer).eval(), call.args, dict(call.kwargs)).report
        except (ConversionError, RuntimeError) as error:
            print(f"left out: {sample}: {str(error)[:200]!r}", file=sys.stderr)
            continue
        assert report is not None
        if not report.passed:
            print(f"{sample}: {report.verdict}", file=sys.stderr, flush=True)
        for mode, ratio in ratios(report, str(sample)):
            found["float32, layers", mode].append(ratio)
    return found


def of_faults() -> list[Ratio]:
    """Return the ratio of each planted fault, at the layer it was put into."""
    torch.manual_seed(0)
    module, inputs = trained(Net()), torch.randn(2, 2, 4, 5, 6)
    found = []
    for fault, layer in FAULTS.items():
        model = mlxport.convert(module, inputs, verify=False).model
        fault(model)
        entries = mlxport.verify(model, module, inputs).entries
        found.append(
            Ratio(max(map(alone, (e for e in entries if e.path == layer))), fault.__name__)
        )
    return found


def alone(entry: ParityEntry) -> float:
    """Return an entry's ratio on PyTorch's own input; one that cannot be measured is far off."""
    ratio = entry.verdicts[ALONE].ratio
    return float("inf") if ratio is None else ratio


def line(kind: str, mode: str, found: list[Ratio]) -> str:
    """Return a row: how many, the ratios below which a share of them lies, and the worst."""
    values = np.percentile([one.ratio for one in found], SHARES)
    cells = [kind, mode.replace("_", " "), f"{len(found):,}", *(f"{v:.2g}" for v in values)]
    return f"| {' | '.join(cells)} | {max(found).place} |"


def main() -> None:
    """Measure and print."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the networks' packages import and call
        networks, faults = of_networks(sys.argv[1:]) | of_layers(), of_faults()
    heads = ("dtype", "mode", "verdicts", *(f"{share:g} %" for share in SHARES), "the worst")
    print(f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", sep="\n")
    for (kind, mode), found in networks.items():
        print(line(kind, mode, found))
    print(f"\nThe default passes {NOISE_MULTIPLE:g}. Planted faults, alone, by ratio:")
    print(", ".join(f"{one.place} {one.ratio:.2g}" for one in sorted(faults)))


if __name__ == "__main__":
    import conftest  # makes torchvision importable beside a CPU build of torch

    main()
