"""Bundles as MONAI lays them out, with random weights; what is computed in them is not run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from click.testing import Result

import mlxport
from mlxport.converter.errors import CheckpointError
from mlxport.converter.model_folders.find_models import find_model

Run = Callable[[str], Result]

NETWORK = {
    **{"_target_": "UNet", "spatial_dims": 3, "in_channels": "@channels", "out_channels": 2},
    **{"channels": [4, 8], "strides": "$@unet::strides", "norm": "batch", "_desc_": "a U-Net"},
}
CONFIG = {"channels": 1, "unet": {"strides": [2]}, "network_def": NETWORK, "device": "$torch.cpu()"}


def save(config: dict[str, Any], name: str = "inference.json") -> torch.nn.Module:
    from monai.networks.nets import UNet

    model = UNet(3, 1, 2, (4, 8), (2,), norm="batch").eval()
    for folder in ("configs", "models"):
        Path("bundle", folder).mkdir(parents=True)
    torch.save(model.state_dict(), "bundle/models/model.pt")
    Path("bundle/configs", name).write_text(json.dumps(config))  # which is YAML too
    made: torch.nn.Module = model
    return made


def test_a_bundle_converts_by_its_name_alone(run: Run) -> None:
    model = save(CONFIG)
    result = run("mlxport convert bundle -o out")
    assert result.exit_code == 0, result.stderr
    assert "parity holds" in result.stdout
    said = "Note: MONAI UNet, by inference.json; example inputs 2,1,4,4,4; open: batch and patch"
    assert said in result.stderr
    x = torch.randn(1, 1, 6, 4, 8)
    with torch.no_grad():
        want = model(x)
    np.testing.assert_allclose(np.array(mlxport.load("out")(mx.array(x.numpy()))), want, atol=1e-5)


@pytest.mark.parametrize("name", ["inference.json", "inference.yaml", "inference.yml"])
def test_configurations_of_each_kind_are_read(name: str) -> None:
    model = save(CONFIG, name)
    found = find_model(Path("bundle"))
    assert found is not None
    assert found.checkpoint == Path("bundle/models/model.pt")
    assert found.factory.build().state_dict().keys() == model.state_dict().keys()


def test_literals_behind_the_sign_of_code_are_literals() -> None:
    save({"network_def": {**NETWORK, "in_channels": "$1", "strides": "$(2,)"}})
    found = find_model(Path("bundle"))
    assert found is not None
    assert found.inputs == ("2,1,4,4,4",)


REFUSED = {
    "code": ({"in_channels": "$__import__('os').system('touch ran')"}, "is computed, by"),
    "arithmetic": ({"in_channels": "$@channels + 1"}, "is computed, by '$@channels + 1'"),
    "a macro": ({"in_channels": "%other.json::x"}, "is computed, by"),
    "nothing there": ({"in_channels": "@nothing"}, "refers to nothing, which is not there"),
    "itself": ({"in_channels": "@network_def::in_channels"}, "refers to itself"),
    "elsewhere": ({"_target_": "os.system"}, "which is no class of monai.networks"),
    "no network": ({"_target_": "monai.networks.utils.one_hot"}, "no class of monai.networks"),
    "no target": ({"_target_": None}, "names no _target_"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_have_to_be_run_is_refused(case: str) -> None:
    change, said = REFUSED[case]
    save({**CONFIG, "network_def": {**NETWORK, **change}})
    with pytest.raises(CheckpointError) as caught:
        find_model(Path("bundle"))
    assert said in str(caught.value)
    assert not Path("ran").exists()


@pytest.mark.parametrize("given", [{}, {"pretrained": True}], ids=["by default", "as it says"])
def test_no_other_weights_are_fetched(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("torch.utils.model_zoo.load_url", lambda url, **_: fetched.append(url))
    settings = {"_target_": "EfficientNetBN", "model_name": "efficientnet-b0", **given}
    save({"network_def": settings})
    found = find_model(Path("bundle"))
    assert found is not None
    found.factory.build()
    assert not fetched


def test_yaml_makes_no_objects() -> None:
    save({})
    Path("bundle/configs/inference.json").unlink()
    Path("bundle/configs/inference.yaml").write_text("a: !!python/object/apply:os.mkdir [ran]")
    with pytest.raises(CheckpointError, match="cannot be built by it: ConstructorError"):
        find_model(Path("bundle"))
    assert not Path("ran").exists()


def test_a_size_that_the_network_is_built_for_stays() -> None:
    settings = {
        **{"_target_": "monai.networks.nets.UNETR", "in_channels": 1, "out_channels": 2},
        **{"img_size": [32, 32, 32], "feature_size": 4, "hidden_size": 24, "mlp_dim": 48},
        **{"num_heads": 3, "spatial_dims": 3},
    }
    save({"network_def": settings})
    found = find_model(Path("bundle"))
    assert found is not None
    assert found.inputs == ("2,1,32,32,32",)
    assert found.dynamic == ((0,),)


def test_a_missing_library_is_named_with_its_extra(without: Callable[[str], None]) -> None:
    save(CONFIG)
    without("monai")
    with pytest.raises(CheckpointError, match=r"pip install 'mlxport\[monai\]'"):
        find_model(Path("bundle"))
