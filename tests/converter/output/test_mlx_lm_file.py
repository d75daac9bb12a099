"""The file for mlx-lm stands alone, runs the class of model.py, and is what mlx-lm's tools take."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from language_models import write_language_model

import mlxport
from mlxport.converter.output.mlx_lm_file import MODEL_FILE, mlx_lm_text
from mlxport.converter.plan.record import CacheRecord, Conversion, ModuleRecord
from mlxport.converter.plan.structure import Signature, Structure

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")

TOKENS = 12


def write(folder: Path, architecture: str) -> Any:
    """Write the folder of a model, and convert it beside; return the torch model."""
    model = write_language_model(folder / "model", architecture)
    result: Any = mlxport.convert_checkpoint(folder / "model", folder / "out")
    assert result.report.passed
    return model


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    write(folder, "Llama")
    return folder / "out"


def loaded(folder: Path) -> ModuleType:
    """Load the file as mlx-lm does: by its path, in no package, and not among the modules."""
    file = json.loads((folder / "config.json").read_text())["model_file"]
    spec = importlib.util.spec_from_file_location("custom_model", folder / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_stands_alone(llama: Path) -> None:
    tree = ast.parse((llama / MODEL_FILE).read_text())
    modules = [
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    roots = {str(name).partition(".")[0] for name in modules}
    assert roots - sys.stdlib_module_names == {"mlx"}
    assert not any(getattr(node, "level", 0) for node in ast.walk(tree))
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F,I,E1,E3,E7,W"]
    done = subprocess.run(
        [*command, str(llama / MODEL_FILE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_class_of_the_model_runs(llama: Path) -> None:
    module, ours = loaded(llama), mlxport.load(llama)
    config = json.loads((llama / "config.json").read_text())
    model = module.Model(module.ModelArgs.from_dict(config))
    model.load_weights(str(llama / "model.safetensors"))  # all of them, and no more
    assert type(model).__mro__[1].__name__ == type(ours).__name__
    assert model.model_type == "llama"
    assert len(model.layers) == 2
    assert model.layers is model.model.layers
    ids = mx.array([[3, 1, 4, 1, 5]])
    assert mx.array_equal(model(ids), ours(ids)["logits"])
    cache, theirs = model.make_cache(), ours.make_cache()
    for part in (ids[:, :3], ids[:, 3:4], ids[:, 4:]):
        assert mx.array_equal(model(part, cache=cache), ours(part, cache=theirs)["logits"])


def test_buffers_are_not_cast(llama: Path) -> None:
    module = loaded(llama)
    model = module.Model(module.ModelArgs("llama"))
    assert not model.cast_predicate("model.rotary_emb.inv_freq")
    assert model.cast_predicate("model.layers.0.self_attn.q_proj.weight")


TENSOR = Structure("tensor")
LOGITS = Structure.container("dict", (".logits",), (TENSOR,), ("logits",))
PAST = Structure.container("list", ("[0]",), (TENSOR,))
SOURCE = "import mlx.nn as nn\n\n\nclass Net(nn.Module):\n    pass\n\n\nModel = Net\n"


def record(**changes: Any) -> Conversion:
    paths = changes.pop("paths", ("blocks.0", "blocks.1", "blocks.1.experts.0"))
    takes = changes.pop("takes", {"input_ids": TENSOR, "past": PAST})
    given: dict[str, Any] = {
        "signature": Signature(takes, changes.pop("gives", LOGITS)),
        "cache": CacheRecord("past", 2, (1, 2, 3, 4)),
        "modules": tuple(ModuleRecord(path, path, (), ()) for path in paths),
    }
    return Conversion(inputs=(), plan=mlxport_plan(), **{**given, **changes})


def mlxport_plan() -> Any:
    from mlxport.converter.plan.weight_plan import WeightPlan

    return WeightPlan()


NOT_FOR_IT: dict[str, dict[str, Any]] = {
    "no cache": {"cache": None},
    "no list of as many blocks": {"paths": ("blocks.0", "blocks.1", "blocks.2")},
    "another list called layers": {"paths": ("blocks.0", "blocks.1", "layers.0")},
    "another input": {"takes": {"input_ids": TENSOR, "token_type_ids": TENSOR, "past": PAST}},
    "logits alone": {"gives": TENSOR},
    "a module called args": {"paths": ("blocks.0", "blocks.1", "args")},
    "no logits": {"gives": Structure.container("dict", (".x",), (TENSOR,), ("x",))},
}


@pytest.mark.parametrize("case", NOT_FOR_IT)
def test_there_is_none_for_what_mlx_lm_does_not_run(case: str) -> None:
    assert "return self.blocks" in (mlx_lm_text(SOURCE, record()) or "")
    assert mlx_lm_text(SOURCE, record(**NOT_FOR_IT[case])) is None


def test_a_layer_whose_weight_others_read_is_not_quantised() -> None:
    read = "def __call__(self, x):\n        return x @ self.heads[0].out.weight"
    text = mlx_lm_text(SOURCE.replace("pass", read), record()) or ""
    assert 'return not set(path.split(".")) & set(["out"])' in text
    assert "quant_predicate" not in (mlx_lm_text(SOURCE, record()) or "")


def test_there_is_none_where_a_name_would_stand_for_two() -> None:
    for name in ("ModelArgs", "nn", "mx"):
        assert mlx_lm_text(SOURCE.replace("class Net", f"class {name}"), record()) is None


# -- mlx-lm itself ---------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run one of mlx-lm's commands."""

    def command(line: str) -> None:
        name, *arguments = line.split()
        monkeypatch.setattr(sys, "argv", [f"mlx_lm.{name}", *arguments, "--trust-remote-code"])
        importlib.import_module(f"mlx_lm.{name}").main()

    return command


@pytest.mark.parametrize("architecture", ["Llama", "Qwen2", "Phi"])
@pytest.mark.filterwarnings("ignore")  # of what mlx-lm imports and calls
def test_the_tools_of_mlx_lm_take_the_folder(
    architecture: str, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlx_lm = pytest.importorskip("mlx_lm", reason="mlx-lm is not installed beside our mlx")
    from mlx_lm.generate import generate_step

    monkeypatch.chdir(tmp_path)
    torch_model = write(tmp_path, architecture)
    ids = torch.tensor([[3, 9, 4]])
    want = torch_model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=TOKENS,
        min_new_tokens=TOKENS,
        do_sample=False,
    )

    def tokens(folder: str) -> np.ndarray:
        model, _ = mlx_lm.load(folder, trust_remote_code=True)
        assert type(model).__mro__[1].__name__ == type(torch_model).__name__

        def without_end(logits: mx.array) -> mx.array:
            logits[:, 1] = -mx.inf
            return logits.argmax(-1)

        prompt = mx.array(ids[0].numpy())
        steps = generate_step(prompt, model, max_tokens=TOKENS, sampler=without_end)
        return np.array([int(token) for token, _ in steps])

    np.testing.assert_array_equal(tokens("out"), want[0, 3:].numpy())
    run("convert --hf-path out --mlx-path quantized -q --q-group-size 64")
    assert len(tokens("quantized")) == TOKENS
    Path("data").mkdir()
    texts = [{"text": " ".join(f"w{i % 40 + 3}" for i in range(n, n + 9))} for n in range(4)]
    for part in ("train", "valid"):
        Path(f"data/{part}.jsonl").write_text("\n".join(map(json.dumps, texts)))
    run(
        "lora --model out --train --data data --iters 1 --batch-size 2 --num-layers 2 "
        "--val-batches 1 --learning-rate 1e-2 --adapter-path adapter"
    )
    run("fuse --model out --adapter-path adapter --save-path fused")
    before, after = (mx.load(f"{folder}/model.safetensors") for folder in ("out", "fused"))
    assert before.keys() == after.keys()
    assert len(tokens("fused")) == TOKENS
    moved = {key for key in before if not mx.array_equal(before[key], after[key])}
    assert moved
    assert all("layers" in key for key in moved)
