"""Folders that timm writes for the Hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from click.testing import Result

from mlxport.converter.errors import CaptureError, CheckpointError
from mlxport.converter.graph.capture.dynamic import DynamicSizes
from mlxport.converter.model_folders.find_models import find_model
from mlxport.converter.tasks.sources import convert_found

Run = Callable[[str], Result]


def save(folder: str = "model") -> None:
    """Write a classifier with other arguments and classes than its architecture has."""
    import timm

    settings = {"img_size": 32, "depth": 1}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, **settings)
    timm.models.save_for_hf(model, folder, model_args=settings, safe_serialization=True)


def test_a_folder_converts_by_its_name_alone(run: Run) -> None:
    save()
    result = run("mlxport convert model -o out")
    assert result.exit_code == 0, result.stderr
    assert "parity holds" in result.stdout
    said = "Note: timm vit_tiny_patch16_224, by config.json; example inputs 2,3,32,32; open: batch"
    assert said in result.stderr


def test_inputs_and_axes_that_are_given_take_the_place_of_those_found(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    save()
    calls = []

    def given(*args: Any, **kwargs: Any) -> NoReturn:
        calls.append((args[3], kwargs["capturing"].dynamic))
        raise CaptureError("as if")

    monkeypatch.setattr(convert_found, "convert_checkpoint", given)
    for flags in ("", " --input 1,3,32,32", " --input 3,3,32,32 --dynamic 0"):
        assert run(f"mlxport convert model -o out{flags}").exit_code == 1
    batch = DynamicSizes((0,))
    assert calls == [
        (("2,3,32,32",), batch),
        (("2,3,32,32",), None),  # what cannot be captured so is tried at fixed sizes
        (("1,3,32,32",), None),
        (("3,3,32,32",), batch),
    ]


def test_a_dry_run_needs_no_more(run: Run) -> None:
    save()
    explained = run("mlxport explain model")
    assert explained.exit_code == 0, explained.stderr
    assert "mlx.nn.Conv2d" in explained.stdout
    result = run("mlxport convert model --dry-run")
    assert result.exit_code == 0, result.stderr
    assert "VisionTransformer" in result.stdout


def test_a_missing_library_is_named_with_its_extra(without: Callable[[str], None]) -> None:
    save()
    without("timm")
    with pytest.raises(CheckpointError, match=r"pip install 'mlxport\[timm\]'"):
        find_model(Path("model"))


def test_an_architecture_that_timm_does_not_know_is_told() -> None:
    save()
    config = Path("model/config.json")
    config.write_text(config.read_text().replace("vit_tiny_patch16_224", "no_such_net"))
    found = find_model(Path("model"))
    assert found is not None
    with pytest.raises(CheckpointError, match="cannot be built by it: RuntimeError: Unknown model"):
        found.factory.build()
