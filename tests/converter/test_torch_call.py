import functools

from torch import nn

from mlxport.converter.torch_call import bound_arguments


class Two(nn.Module):
    def forward(self, a, b=None, *rest, flag=True, **more):
        return a


def test_keywords_come_in_the_order_of_forward():
    assert list(bound_arguments(Two(), (), {"b": 1, "a": 2}).items()) == [("a", 2), ("b", 1)]


def test_defaults_are_left_out_and_extras_kept_together():
    bound = bound_arguments(Two(), (1, 2, 3, 4), {"z": 5})
    assert bound == {"a": 1, "b": 2, "rest": (3, 4), "more": {"z": 5}}


def test_a_hidden_signature_gives_the_arguments_as_they_came():
    module = Two()
    module.forward = functools.partial(lambda a: a)
    assert bound_arguments(module, (1, 2), {"k": 3}) == {"x0": 1, "x1": 2, "x2": 3}
