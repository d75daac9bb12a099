"""Train a small 3-D U-Net, convert it on the command line, and look at both models' answers."""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import torch
import torch.nn.functional as F

import mlxport
from mlxport.examples.slices import BLUE_ORANGE, GREY, VIRIDIS, Panel, draw
from mlxport.examples.unet3d import UNet3d

SIZE, TRAINING_SIZE = (32, 48, 40), (16, 24, 20)
CHECKPOINT, OUTPUT, PICTURE = Path("unet3d.pt"), Path("out"), Path("out/parity.png")
CONVERT = "mlxport convert unet3d.pt --model examples.unet3d:UNet3d --input 1,1,32,48,40 -o out/"
VERIFY = "mlxport verify out/"


def phantom(seed: int, size: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a noisy ``(1, 1, D, H, W)`` volume of ellipsoids and the ``(1, D, H, W)`` classes."""
    generator = torch.Generator().manual_seed(seed)
    axes = [torch.linspace(-1, 1, length) for length in size]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    classes = torch.zeros(size, dtype=torch.long)
    for _ in range(5):
        centre = torch.rand(3, 1, 1, 1, generator=generator) * 1.2 - 0.6
        radii = torch.rand(3, 1, 1, 1, generator=generator) * 0.4 + 0.15
        classes[((grid - centre) / radii).square().sum(0) < 1] = 1
    noise = torch.randn(size, generator=generator)
    return (classes + 0.5 * noise)[None, None], classes[None]


def train(steps: int) -> tuple[UNet3d, float]:
    """Return a U-Net trained for a moment, and its last loss."""
    torch.manual_seed(0)
    model, loss = UNet3d(), torch.tensor(0.0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        volume, classes = phantom(step, TRAINING_SIZE)
        loss = F.cross_entropy(model(volume), classes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval(), loss.item()


def run(command: str) -> str:
    """Run a command of mlxport as a shell would, and return what it printed."""
    print(f"$ {command}", flush=True)
    words = [sys.executable, "-m", "mlxport.cli", *shlex.split(command)[1:]]
    return subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE).stdout


def draw_answers(model: UNet3d) -> None:
    """Draw what both models say of a volume neither has seen."""
    volume, _ = phantom(-1, SIZE)
    with torch.inference_mode():
        expected = model(volume)[0, 1].numpy()
    actual = np.array(mlxport.load(OUTPUT)(mx.array(volume.numpy())))[0, 1]
    difference = actual - expected
    largest = float(np.abs(difference).max())
    scores = (float(expected.min()), float(expected.max()))
    panels = [
        Panel("input", volume[0, 0].numpy(), GREY, (-1.0, 2.0)),
        Panel("score, PyTorch", expected, VIRIDIS, scores),
        Panel("score, MLX", actual, VIRIDIS, scores),
        Panel("MLX - PyTorch", difference, BLUE_ORANGE, (-largest, largest)),
    ]
    heading = f"Scores of the ellipsoids in a volume not trained on: they differ by {largest:.1e}"
    draw(panels, heading, PICTURE)


def main() -> None:
    """Train, convert, draw, verify."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30, help="of training; 30 take seconds")
    model, loss = train(parser.parse_args().steps)
    # A metric beside the weights, as training code saves it: a NumPy scalar.
    torch.save({"state_dict": model.state_dict(), "loss": np.float64(loss)}, CHECKPOINT)
    print(f"Trained to a cross entropy of {loss:.3f}, saved {CHECKPOINT}")
    print(run(CONVERT + " --overwrite" * OUTPUT.exists()))
    verdict, *_ = run(VERIFY).splitlines()
    draw_answers(model)
    print(verdict, f"Slices of both models' answers: {PICTURE}", sep="\n\n")


if __name__ == "__main__":
    main()
