import sys

import mlx.core as mx
import pytest

from mlxport.converter.errors import ConversionError
from mlxport.converter.output.live_model import live_model, load_folder, load_source

SOURCE = """
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn

if __package__:
    from .layers.windows.geometry import ints_per_axis
else:
    from layers.windows.geometry import ints_per_axis


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = mx.zeros((2,))

    def __call__(self, x):
        return x * self.weight


def load(folder=Path(__file__).parent):
    model = Net()
    model.load_weights(str(Path(folder) / "weights.safetensors"))
    return model
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.py").write_text(SOURCE)
    (tmp_path / "layers" / "windows").mkdir(parents=True)
    for folder in ("layers", "layers/windows"):
        (tmp_path / folder / "__init__.py").write_text("")
    copy = tmp_path / "layers" / "windows" / "geometry.py"
    copy.write_text("ints_per_axis = 'the copy beside the model'\n")
    mx.save_safetensors(str(tmp_path / "weights.safetensors"), {"weight": mx.array([2.0, 3.0])})
    return tmp_path


def test_a_folder_is_loaded_with_its_own_layers_and_weights(folder):
    assert load_folder(folder).ints_per_axis == "the copy beside the model"
    assert live_model(folder)(mx.ones((2,))).tolist() == [2.0, 3.0]


def test_a_folder_of_an_older_version_is_loaded(folder):
    inside = SOURCE.index("if __package__")
    rest = SOURCE[SOURCE.index("\n\nclass") :]
    text = SOURCE[:inside] + "from layers.windows.geometry import ints_per_axis\n" + rest
    (folder / "model.py").write_text(text)
    assert load_folder(folder).ints_per_axis == "the copy beside the model"
    assert live_model(folder)(mx.ones((2,))).tolist() == [2.0, 3.0]


def test_source_is_loaded_with_mlxports_layers():
    from mlxport.layers.windows.geometry import ints_per_axis

    assert load_source(SOURCE, ("windows.geometry",)).ints_per_axis is ints_per_axis


def test_a_package_of_the_users_called_layers_is_left_alone(folder, monkeypatch):
    own = type(sys)("layers")
    monkeypatch.setitem(sys.modules, "layers", own)
    path = list(sys.path)
    load_folder(folder)
    load_source(SOURCE, ("windows.geometry",))
    assert sys.modules["layers"] is own
    assert "layers.windows.geometry" not in sys.modules
    assert not any(name.startswith("mlxport_model") for name in sys.modules)
    assert sys.path == path


def test_two_folders_do_not_mix(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "model.py").write_text("name = 'other'\n")
    assert load_folder(other).name == "other"
    assert load_folder(folder).ints_per_axis == "the copy beside the model"


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ConversionError, match=r"there is no model\.py"):
        load_folder(tmp_path)
