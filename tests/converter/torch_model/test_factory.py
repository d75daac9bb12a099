import pytest
from torch import nn

from mlxport.converter.errors import OptionsError
from mlxport.converter.torch_model.factory import make_model

SOURCE = """
from torch import nn

class Net(nn.Linear):
    def __init__(self, inputs=2, outputs=3):
        super().__init__(inputs, outputs)

class Holder:
    build = staticmethod(lambda: Net())

ready = Net()
number = 3

def fails():
    raise RuntimeError("no such width")

def not_a_model():
    return {}
"""


@pytest.fixture(autouse=True)
def in_a_folder_with_a_module(tmp_path, monkeypatch):
    (tmp_path / "factory_under_test.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("name", ["Net", "Holder.build", "ready"])
def test_the_current_folder_is_searched(name):
    model = make_model(f"factory_under_test:{name}")
    assert isinstance(model, nn.Module)


def test_arguments_reach_the_factory():
    assert make_model("factory_under_test:Net", {"outputs": 7}).out_features == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("factory_under_test", "expected pkg.mod:factory"),
        (":Net", "expected pkg.mod:factory"),
        ("no_such_module:Net", "No module named 'no_such_module'"),
        ("factory_under_test:Missing", "has no attribute 'Missing'"),
        ("factory_under_test:number", "expected a class or function, got 3"),
        ("factory_under_test:fails", "RuntimeError: no such width"),
        ("factory_under_test:not_a_model", "expected a torch.nn.Module, got a dict"),
    ],
)
def test_what_gives_no_model_is_a_usage_error(name, message):
    with pytest.raises(OptionsError, match=message) as caught:
        make_model(name)
    assert caught.value.exit_code == 2
