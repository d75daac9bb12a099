"""Check an MLX model written by hand against its torch model, and find the fault in it."""

import mlx.core as mx
import mlx.nn as nn
import torch

import mlxport


class Classifier(torch.nn.Module):
    """Scores ``(N, 10)`` of images ``(N, 3, H, W)``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.norm = torch.nn.GroupNorm(4, 16)
        self.head = torch.nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Average the features of all pixels and score them."""
        x = torch.nn.functional.silu(self.norm(self.stem(x)))
        scores: torch.Tensor = self.head(x.mean((2, 3)))
        return scores


class Port(nn.Module):
    """The same for MLX, of images ``(N, H, W, 3)``."""

    def __init__(self, pytorch_compatible: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        # by default MLX groups channels differently, which no name or shape shows
        self.group_norm = nn.GroupNorm(4, 16, pytorch_compatible=pytorch_compatible)
        self.head = nn.Linear(16, 10)

    def __call__(self, x: mx.array) -> mx.array:
        """Average the features of all pixels and score them."""
        return self.head(nn.silu(self.group_norm(self.stem(x))).mean(axis=(1, 2)))


def main() -> None:
    """Verify the port twice: with a planted fault, and without."""
    torch.manual_seed(0)
    torch_model, names = Classifier(), {"norm": "group_norm"}
    for right in (False, True):
        model = Port(pytorch_compatible=right)
        mlxport.load_weights(model, torch_model.state_dict(), rename=names)
        report = mlxport.verify(model.eval(), torch_model, torch.randn(2, 3, 20, 24), names=names)
        print(report.to_text() if right else report.verdict, end="\n\n")
        if report.passed is not right:
            raise SystemExit(3)


if __name__ == "__main__":
    main()
