"""What a conversion is measured against, in a process of its own: torch.export, and the weights.

``python export_alone.py NETWORK CHECKPOINT COPY`` prints seconds as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import networks
import torch
from safetensors.torch import load_file, save_file


def seconds(run: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def main(network: str, checkpoint: str, copy: str) -> None:
    """Export a network twice, the first time as any process does; copy its weights."""
    model = getattr(networks, network)()
    _, args = networks.inputs(network)
    took = {
        name: seconds(lambda: torch.export.export(model, args, strict=False))
        for name in ("first", "again")
    }
    took["weights"] = seconds(
        lambda: save_file({k: v.clone() for k, v in load_file(checkpoint).items()}, copy)
    )
    print(json.dumps(took))


if __name__ == "__main__":
    main(*sys.argv[1:])
