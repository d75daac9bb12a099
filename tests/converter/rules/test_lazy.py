from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mlxport.converter.errors import UnsupportedError
from mlxport.converter.rules.build import build_layer
from mlxport.converter.rules.registry import RULES, rule_for

T = torch.nn
LAZY: dict[type, tuple[Any, ...]] = {
    T.LazyLinear: (3,),
    T.LazyConv1d: (3, 3),
    T.LazyConv2d: (3, 3),
    T.LazyConv3d: (3, 3),
    T.LazyConvTranspose1d: (3, 3),
    T.LazyConvTranspose2d: (3, 3),
    T.LazyConvTranspose3d: (3, 3),
    T.LazyBatchNorm1d: (),
    T.LazyBatchNorm2d: (),
    T.LazyBatchNorm3d: (),
    T.LazyInstanceNorm1d: (),
    T.LazyInstanceNorm2d: (),
    T.LazyInstanceNorm3d: (),
}
ALL = pytest.mark.parametrize("cls", LAZY, ids=lambda cls: cls.__name__)


def build(cls: type) -> torch.nn.Module:
    module: torch.nn.Module = cls(*LAZY[cls])
    return module


def test_every_lazy_class_is_here() -> None:
    lazy = [c for c in RULES if issubclass(c, T.modules.lazy.LazyModuleMixin)]
    assert set(lazy) == LAZY.keys()


@ALL
def test_refused_before_the_first_pass(cls: type) -> None:
    with pytest.raises(UnsupportedError, match=rf"{cls.__name__}: it is uninitialised: run the"):
        build_layer(build(cls))


@ALL
def test_its_plain_class_after_it(assert_layer_parity: Callable[..., None], cls: type) -> None:
    module = build(cls)
    rank = int(cls.__name__[-2]) if cls.__name__.endswith("d") else 0
    x = torch.randn(2, 4, *[5] * rank)
    module(x)
    plain = getattr(T, cls.__name__.removeprefix("Lazy"))
    assert type(module) is plain
    assert rule_for(module) is RULES[plain]
    assert_layer_parity(module, x)


def test_a_chain_with_a_lazy_layer_says_where() -> None:
    with pytest.raises(UnsupportedError, match=r"(?s)Sequential: .*1: LazyLinear: it is uninit"):
        build_layer(T.Sequential(T.Linear(3, 4), T.LazyLinear(5)))
