"""What leaves a public call: a ConversionError that says whose fault it is."""

import inspect
import re

import pytest
import torch

import mlxport
from mlxport.converter import api
from mlxport.converter.api.boundary import public
from mlxport.converter.errors import CheckpointError, InternalError, UserCodeError


@public
def runs(job):
    return job()


def raising(error):
    def job():
        raise error

    return job


def test_a_fault_of_ours_is_called_one():
    with pytest.raises(InternalError, match=r"mlxport's own code, .*errors\.py:\d+ ") as raised:
        runs(lambda: mlxport.ConversionError.listing("", None))
    assert isinstance(raised.value.__cause__, TypeError)
    assert raised.value.exit_code == 1


def test_code_of_the_user_is_named_with_its_line():
    line = raising.__code__.co_firstlineno + 2
    found = rf"your own code raises, at {re.escape(__file__)}:{line} .*KeyError: 'mine'"
    with pytest.raises(UserCodeError, match=found):
        runs(raising(KeyError("mine")))


def test_what_the_system_refuses():
    with pytest.raises(CheckpointError, match="the system refuses"):
        api.boundary.public(open)("/no/such/file")


def test_memory():
    with pytest.raises(mlxport.ConversionError, match="more memory than there is"):
        runs(raising(MemoryError()))


@pytest.mark.parametrize("error", [mlxport.ConversionError("x"), UserWarning("x")], ids=type)
def test_passes(error):
    with pytest.raises(type(error)) as raised:
        runs(raising(error))
    assert raised.value is error


def test_arguments_are_pythons_affair():
    with pytest.raises(TypeError, match="nonsense"):
        mlxport.convert(torch.nn.Linear(1, 1), torch.ones(1, 1), nonsense=1)


def test_every_public_function_has_the_boundary():
    for name in api.__all__:
        code = inspect.getattr_static(api, name).__code__
        assert code.co_filename.endswith("boundary.py"), name
