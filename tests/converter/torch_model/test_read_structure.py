from collections import OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from mlxport.converter.errors import CaptureError
from mlxport.converter.torch_model.read_structure import read_structure, signature_of

X = torch.ones(2)
Pair = namedtuple("Pair", "mean scale")


@dataclass
class Output:
    logits: Any = None
    loss: Any = None
    states: Any = None


class Attributes(OrderedDict):
    """Read by attribute, as the outputs of transformers and diffusers are."""


class Odd:
    def __init__(self, x):
        self.x = x


class TinyCache:
    pass


@dataclass
class Unregistered:
    x: Any


torch.export.register_dataclass(Output, serialized_type_name="mlxport.tests.Output")
pytree.register_pytree_node(
    Attributes,
    lambda d: (list(d.values()), list(d)),
    lambda v, k: Attributes(zip(k, v, strict=True)),
)
pytree.register_pytree_node(Odd, lambda d: ([d.x], None), lambda v, _: Odd(*v))

VALUES = {
    "a tensor": (X, ["y"], X),
    "a tuple": ((X, None), ["y[0]"], (X, None)),
    "a named tuple": (Pair(X, X), ["y.mean", "y.scale"], (X, X)),
    "a list": ([X, 3], ["y[0]"], [X, 3]),
    "a deque": (deque([X]), ["y[0]"], [X]),
    "a dict": ({"b": X, "a": {0: X}}, ['y["b"]', 'y["a"][0]'], {"b": X, "a": {0: X}}),
    "an ordered dict": (OrderedDict(b=X), ['y["b"]'], {"b": X}),
    "a default dict": (defaultdict(list, b=X), ['y["b"]'], {"b": X}),
    "a size": ((X, X.shape), ["y[0]"], (X, (2,))),
    "a dataclass": (
        Output(X, None, (X,)),
        ["y.logits", "y.states[0]"],
        {"logits": X, "states": (X,)},
    ),
    "read by attribute": (Attributes(logits=X), ["y.logits"], {"logits": X}),
    "torch's own": (torch.max(X[None], 0), ["y[0]", "y[1]"], (X, X)),
}


@pytest.mark.parametrize(("value", "names", "plain"), VALUES.values(), ids=VALUES)
def test_values_have_names_and_a_plain_form(value, names, plain):
    structure = read_structure(value)
    assert structure.tensors("y") == names
    built = structure.build(lambda: X)
    assert type(built) is type(plain)
    assert pytree.tree_flatten(built)[1] == pytree.tree_flatten(plain)[1]


REFUSED = {
    "a dtype": (torch.float32, "a dtype"),
    "an object": ((X, Odd(X)), "a Odd, which has no counterpart"),
    "a key": ({(1, 2): X}, r"key \(1, 2\) \(tuple\)"),
    "a cache": ([TinyCache()], "a TinyCache.*pass use_cache=False"),
    "a dataclass": (Unregistered(X), r"register_dataclass\(Unregistered\) first"),
    "an array": (X.numpy(), "a ndarray.*torch.from_numpy"),
    "a sparse tensor": (X.to_sparse(), "a nested or sparse tensor"),
}


@pytest.mark.parametrize(("value", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_counterpart_is_refused(value, message):
    with pytest.raises(CaptureError, match=message):
        read_structure(value)


def test_a_signature_names_what_a_call_is_given():
    class Net(nn.Module):
        def forward(self, x, *rest, flag=True, mask=None, **more):
            return x

    given = ((X, X, (X,)), {"mask": X, "extra": {"a": X}})
    signature = signature_of(Net(), given, Pair(X, None))
    assert signature.tensors() == ["x", "rest_0", "rest_1[0]", "mask", 'extra["a"]']
    assert signature.result.tensors("output") == ["output.mean"]
