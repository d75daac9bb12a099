"""The steps of ``proof.py``: what is verified and what is timed; each runs in its own process.

    python benchmarks/proof_steps.py NAME DEVICE FOLDER

prints one line of JSON. A process each, as a fault in a GPU's driver may end it.
"""

from __future__ import annotations

import json
import math
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conv_transpose import Shape

ROOT = Path(__file__).parents[1]
# Of tests/models/networks.py: volumes, pictures, text and sound.
EXAMPLES = ("UNet3d", "StereoNet")
NETWORKS = (
    "DynUNet",
    "SegResNet, deconv",
    "ResNet-50",
    "UNet2DConditionModel",
    "BERT",
    "SpeechT5 HiFi-GAN",
)
HAND_PORT = "a port by hand"
UNET = "3-D U-Net, converted"
K2 = {"kernel_size": 2, "stride": 2, "bias": False}
# Configurations of issues of PyTorch, with what is known of their sizes.
ISSUES = {
    "pytorch 194495, 194496: 3-D k2 s2, 32 channels, at 64³": (
        ("ConvTranspose", (32, 32), (64, 64, 64), K2, "float32"),
        "k2 s2 without bias in float32 is theirs, the sizes are ours",
    ),
    "pytorch 194496: 3-D k2 s2, 64 channels, at 64³": (
        ("ConvTranspose", (64, 64), (64, 64, 64), K2, "float32"),
        "k2 s2 without bias in float32 is theirs, the sizes are ours",
    ),
    "pytorch 192213: Conv3d k(1,3,3), 512 channels": (
        ("Conv", (512, 512), (7, 130, 514), {"kernel_size": (1, 3, 3)}, "float16"),
        "",
    ),
    "pytorch 192213: Conv3d k3, 512 channels": (
        ("Conv", (512, 512), (7, 130, 514), {"kernel_size": 3}, "float16"),
        "",
    ),
}
CONVOLUTIONS = {
    "Conv3d k3 p1, 32 channels at 32³": ((32, 32), (32, 32, 32)),
    "Conv3d k3 p1, 128 channels at 16³": ((128, 128), (16, 16, 16)),
    "Conv3d k3 p1, 1 to 16 channels at 32³": ((1, 16), (32, 32, 32)),
}
SECONDS = 1.5  # of measuring for one row
# Multiply-adds of one call: what a CPU is not asked for, and what is called only twice.
MOST_ON_A_CPU, MANY = 5e9, 4e11

Result = dict[str, Any]


def rows() -> dict[str, tuple[Shape, str, str]]:
    """Return name -> shape, dtype and remark of every layer that is timed."""
    from conv_transpose import SHAPES, Shape

    found = {name: (shape, "float32", "") for name, shape in SHAPES.items()}
    for name, (channels, sizes) in CONVOLUTIONS.items():
        settings = {"kernel_size": 3, "padding": 1}
        found[name] = (Shape(channels, sizes, settings, "Conv"), "float32", "")
    for name, ((kind, channels, sizes, settings, dtype), remark) in ISSUES.items():
        found[name] = (Shape(channels, sizes, settings, kind), dtype, remark)
    return found


def verify_network(name: str, device: str, folder: Path) -> Result:
    """Convert a network on the CPU and hold it to the stored reference on the device."""
    sys.path.insert(0, str(ROOT / "tests" / "models"))
    import import_torchvision  # noqa: F401
    import torch
    from networks import NETWORKS as KNOWN

    import mlxport
    from mlxport.converter.api import verify_folder

    torch.manual_seed(0)
    network = KNOWN[name]
    model = network.build().eval()
    checkpoint, out = folder / f"{name}.pt", folder / name
    torch.save(model.state_dict(), checkpoint)
    converted = mlxport.convert_checkpoint(
        checkpoint, out, model=model, inputs=network.inputs(), overwrite=True, device="cpu"
    )
    report = verify_folder(out, device=device)
    failed = [str(entry) for entry in report.failed_entries]
    assert converted.report is not None
    return {
        "passed": report.passed,
        "verdict": report.verdict,
        "worst": report.worst_ratio if math.isfinite(report.worst_ratio) else None,
        "failed": failed[:20],
        "on the CPU": converted.report.verdict,
        "environment": dict(report.environment),
    }


def verify_hand_port() -> Result:
    """Run the example that finds the fault planted in a port by hand, and none without it."""
    try:
        runpy.run_path(str(ROOT / "examples" / "hand_port.py"), run_name="__main__")
    except SystemExit as ended:
        return {"passed": False, "verdict": f"examples/hand_port.py ends with {ended.code}"}
    return {"passed": True, "verdict": "the planted fault is found; without it parity holds"}


def multiply_adds(shape: Shape) -> float:
    """Return the useful multiply-adds of one call."""
    kernel = shape.settings["kernel_size"]
    kernel = kernel if isinstance(kernel, tuple) else (kernel,) * len(shape.sizes)
    groups = shape.settings.get("groups", 1)
    return math.prod(shape.sizes) * math.prod(kernel) * math.prod(shape.channels) / groups


def time_layer(name: str) -> Result:
    """Time one layer by each way that runs; of one that does not, give the error."""
    import mlx.core as mx
    from conv_transpose import torch_device, ways

    shape, dtype, remark = rows()[name]
    work = multiply_adds(shape)
    result = {"dtype": dtype, "remark": remark, "torch on": torch_device()}
    if mx.default_device().type == mx.cpu and work > MOST_ON_A_CPU:
        return {**result, "skipped": f"{work / 1e9:,.0f} thousand million multiply-adds: for a GPU"}
    least = 1 if work > MANY else 3
    return {**result, **timed(ways(shape, dtype, derivative=False), least)}


def time_unet() -> Result:
    """Time the converted U-Net of the examples beside the one by hand, and PyTorch's."""
    import mlx.core as mx
    import torch
    from conv_transpose import forward, torch_device, torch_forward
    from emitted import SIZES, WIDTHS
    from unet_by_hand import UNet3d as ByHand

    import mlxport
    from mlxport.examples.unet3d import UNet3d

    torch.manual_seed(0)
    module, x = UNet3d(widths=WIDTHS).eval(), torch.randn(1, 1, *SIZES)
    model = mlxport.convert(module, x, channels_last=True, verify=False).model
    by_hand = ByHand(widths=WIDTHS)
    by_hand.eval()
    values = mx.array(x.movedim(1, -1).numpy())
    given = module.to(torch_device()), x.to(torch_device())
    runs = {
        "native": forward(by_hand, values),
        "ours": forward(model, values),
        "compiled": forward(mx.compile(model), values),
        "torch": torch_forward(*given),
    }
    remark = "mlx.nn: the same network by hand, over the layers of mlx.nn"
    return {"dtype": "float32", "remark": remark, "torch on": torch_device(), **timed(runs)}


def timed(runs: dict[str, Callable[[], object]], least: int = 3) -> Result:
    """Return the least seconds of each way, and why others do not run."""
    from timing import side_by_side

    errors = {}
    for way, run in list(runs.items()):
        try:
            run()
        except Exception as error:  # MLX's or PyTorch's, on a device we do not know
            print(f"{way}: {error}", file=sys.stderr)
            errors[way] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            del runs[way]
    return {"seconds": side_by_side(runs, SECONDS, least) if runs else {}, "errors": errors}


def names() -> dict[str, str]:
    """Return the steps in order -> ``"verify"`` or ``"time"``; what takes longest comes last."""
    verified = [*EXAMPLES, HAND_PORT, *NETWORKS]
    layers = [name for name in rows() if name not in ISSUES]
    return dict.fromkeys(verified, "verify") | dict.fromkeys([UNET, *layers, *ISSUES], "time")


def run(name: str, device: str, folder: Path) -> Result:
    """Run one step."""
    from mlxport.converter.output.device import on_device

    if name in (*EXAMPLES, *NETWORKS):
        return verify_network(name, device, folder)
    with on_device(device):
        if name == HAND_PORT:
            return verify_hand_port()
        return time_unet() if name == UNET else time_layer(name)


def main() -> None:
    """Run the step named on the command line and print what it found."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from mlxport.converter.environment import prepare

    prepare()
    name, device, folder = sys.argv[1:]
    found = run(name, device, Path(folder))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
