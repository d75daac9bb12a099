"""The MLX side of the pair of models under test, written by hand. Imports no torch."""

import mlx.core as mx
import mlx.nn as nn

from mlxport.converter.plan.record import Conversion, Layout, ModuleRecord
from mlxport.converter.plan.weight_plan import WeightPlan

LAST = (0, 2, 3, 1)


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm(channels)
        self.act = nn.ReLU()

    def __call__(self, x):
        return self.act(self.norm(self.conv(x)))


class Split(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.head = nn.Conv2d(channels, classes, 1)

    def __call__(self, x):
        y = self.head(x)
        return y, {"mean": y.mean(axis=(1, 2))}


class Twin(nn.Module):
    """(N, 2, H, W) -> logits stored (N, H, W, 3), their mean (N, 3), classes (N, H, W)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.acts = {"N": nn.ReLU()}
        self.blocks = [Block(4), Block(4)]
        self.shared = nn.Conv2d(4, 4, 1)
        self.split = Split(4, 3)

    def __call__(self, x):
        x = x.transpose(0, 2, 3, 1)
        y = self.acts["N"](self.stem(x))
        y = self.shared(self.blocks[0](y))
        y = self.between(self.shared(self.blocks[1](y)))
        logits, rest = self.split(y)
        return logits, [rest["mean"], mx.argmax(logits, axis=-1).astype(mx.int64)]

    def between(self, y):
        return y


def conversion(n=2, h=6, w=5, dtype="float32"):
    """What the lowering would have written about `Twin`."""

    def nhwc(channels):
        return Layout((n, channels, h, w), dtype, LAST)

    def record(path, inputs, outputs, target=None):
        return ModuleRecord(path, path if target is None else target, inputs, outputs)

    def same(path, channels=4):
        return record(path, (nhwc(channels),), (nhwc(channels),))

    def block(path):
        return [same(f"{path}.{name}") for name in ("conv", "norm", "act")] + [same(path)]

    mean = Layout((n, 3), dtype, (0, 1))
    classes = Layout((n, h, w), "int64", (0, 1, 2))
    modules = [
        record("stem", (nhwc(2),), (nhwc(4),)),
        same("acts.N"),
        *block("blocks.0"),
        same("shared"),
        *block("blocks.1"),
        same("shared"),
        record("split.head", (nhwc(4),), (nhwc(3),)),
        record("split", (nhwc(4),), (nhwc(3), mean)),
        record("", (Layout((n, 2, h, w), dtype, (0, 1, 2, 3)),), (nhwc(3), mean, classes)),
    ]
    return Conversion(plan=WeightPlan(), modules=tuple(modules), inputs=("x",))
