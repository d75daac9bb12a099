import functools

import pytest
from torch import nn

from mlxport.converter.torch_model.calls import (
    bound_arguments,
    in_order,
    keyword_only,
    spread_arguments,
)


class Two(nn.Module):
    def forward(self, a, b=None, *rest, flag=True, **more):
        return a


def test_keywords_come_in_the_order_of_forward():
    assert list(bound_arguments(Two(), (), {"b": 1, "a": 2}).items()) == [("a", 2), ("b", 1)]


def test_defaults_are_left_out_and_extras_kept_together():
    bound = bound_arguments(Two(), (1, 2, 3, 4), {"z": 5})
    assert bound == {"a": 1, "b": 2, "rest": (3, 4), "more": {"z": 5}}


def test_what_is_kept_together_is_spread_in_the_order_of_forward():
    spread = spread_arguments(Two(), (1, 2, 3, 4), {"z": 5, "flag": False})
    assert list(spread.items()) == [
        ("a", 1),
        ("b", 2),
        ("rest_0", 3),
        ("rest_1", 4),
        ("flag", False),
        ("z", 5),
    ]


def test_a_call_is_put_into_the_order_of_forward():
    args, kwargs = in_order(Two(), [1], {"z": 5, "flag": False, "b": 2, "y": 6})
    assert args == (1,)
    assert list(kwargs.items()) == [("b", 2), ("flag", False), ("z", 5), ("y", 6)]
    assert in_order(Two(), (1,), None) == ((1,), {})


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), ()),
        (("a", "b"), ()),
        (("a",), ()),
        (("b",), ("b",)),
        (("a", "flag"), ("flag",)),
        (("a", "rest_0", "z"), ("rest_0", "z")),
        (("a", "b", "rest_0", "rest_1", "z"), ("z",)),
        (("a", "b", "rest_0", "rest_2"), ("rest_2",)),
    ],
)
def test_what_would_stand_elsewhere_is_taken_by_name_only(names, expected):
    assert keyword_only(Two(), names) == expected


def test_a_hidden_signature_gives_the_arguments_as_they_came():
    module = Two()
    module.forward = functools.partial(lambda a: a)
    assert bound_arguments(module, (1, 2), {"k": 3}) == {"x0": 1, "x1": 2, "x2": 3}
    assert spread_arguments(module, (1, 2), {"k": 3}) == {"x0": 1, "x1": 2, "x2": 3}


def test_a_hidden_signature_has_no_order():
    module = Two()
    module.forward = max
    assert in_order(module, (1,), {"z": 1, "b": 2}) == ((1,), {"z": 1, "b": 2})
    assert keyword_only(module, ("x0", "x1")) == ()
