"""Hub-style folders, and repositories of the Hugging Face Hub by way of its cache."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import huggingface_hub
import mlx.core as mx
import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import nn

import mlxport
from mlxport.cli import main
from mlxport.converter import api
from mlxport.converter.errors import CheckpointError, OptionsError
from mlxport.converter.torch_model.hub import address_of, resolved

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BESIDE = {
    "config.json": '{"model_type": "small", "hidden_size": 64}',
    "tokenizer.json": "{}",
    "tokenizer_config.json": "{}",
    "special_tokens_map.json": "{}",
    "vocab.txt": "a",
    "merges.txt": "a b",
    "README.md": "# Small",
    "LICENSE": "MIT",
}
NOT_CARRIED = {
    "modeling_small.py": "raise SystemExit('code ran')",
    "tokenizer_small.py": "raise SystemExit('code ran')",
    "training_args.json": "{}",
    ".gitattributes": "",
}


def small() -> nn.Sequential:
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))


def fill(folder: Path, name: str = "model.safetensors") -> None:
    """Make a folder as those on the Hub."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in {**BESIDE, **NOT_CARRIED}.items():
        (folder / file).write_text(text)
    save_file(small().state_dict(), folder / name)


def split_in_shards(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number, (key, tensor) in enumerate(state.items(), 1):
        name = f"model-{number:05}-of-{len(state):05}.safetensors"
        save_file({key: tensor}, folder / name)
        weight_map[key] = name
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    fill(tmp_path / "small")
    return tmp_path / "small"


def convert(source: Any, output: Path, **options: Any) -> Any:
    return api.convert_checkpoint(source, output, model=small(), inputs=["2,64"], **options)


# -- folders -------------------------------------------------------------------------------------


def test_what_belongs_with_the_weights_is_carried_along(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert convert(source, out).report.passed
    names = {path.name for path in out.iterdir()}
    assert {*BESIDE} <= names
    assert not {*NOT_CARRIED} & names
    assert all((out / name).read_text() == text for name, text in BESIDE.items())


@pytest.mark.parametrize(
    "options",
    [{}, {"plan": "out"}],
    ids=["evidence", "plan"],
)
def test_it_is_whatever_says_the_layout(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    if "plan" in options:
        convert(source, tmp_path / "out")
    api.convert_checkpoint(source, tmp_path / "two", **options)
    assert {*BESIDE} <= {path.name for path in (tmp_path / "two").iterdir()}


def test_it_is_left_behind_where_that_is_asked(source: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(source, tmp_path / "out", carry_along=False)
    assert not {*BESIDE} & {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize("left", [True, False])
def test_the_old_name_of_the_keyword_warns(source: Path, tmp_path: Path, left: bool) -> None:
    with pytest.warns(DeprecationWarning, match=f"say carry_along={not left}") as caught:
        api.convert_checkpoint(source, tmp_path / "out", weights_only=left)
    assert caught[0].filename == __file__
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert ({*BESIDE} & names == set()) is left


FLAGS = {
    "by default": ((), True, ""),
    "said": (("--carry-along",), True, ""),
    "left": (("--no-carry-along",), False, ""),
    "left, by the old name": (("--weights-only",), False, "now called --no-carry-along"),
}


@pytest.mark.parametrize(("flags", "carried", "warning"), FLAGS.values(), ids=FLAGS)
def test_the_command_line_carries_it_along_or_not(
    source: Path, tmp_path: Path, flags: tuple[str, ...], carried: bool, warning: str
) -> None:
    arguments = ["convert", str(source), "-o", str(tmp_path / "out"), *flags]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    assert ("Warning" in result.stderr) is bool(warning)
    assert warning in result.stderr
    assert ({*BESIDE} <= {path.name for path in (tmp_path / "out").iterdir()}) is carried


def test_a_folder_without_config_gives_its_weights_alone(source: Path, tmp_path: Path) -> None:
    (source / "config.json").unlink()
    convert(source, tmp_path / "out")
    assert not {*BESIDE} & {path.name for path in (tmp_path / "out").iterdir()}


def test_a_file_that_leads_elsewhere_is_not_copied(source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (source / "README.md").unlink()
    (source / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"README\.md leads out of its folder"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shards", [False, True], ids=["one file", "shards"])
def test_the_weights_are_named_as_they_were(source: Path, tmp_path: Path, shards: bool) -> None:
    if shards:
        split_in_shards(source)
    out, two = tmp_path / "out", tmp_path / "two"
    size = "4KB" if shards else None
    result = convert(source, out, max_shard_size=size)
    assert result.report.passed
    assert (out / "model.safetensors").exists() != shards
    index = json.loads((out / "model.safetensors.index.json").read_text())
    files = {path.name for path in out.glob("model*.safetensors")}
    assert set(index["weight_map"].values()) == files
    assert index["metadata"]["total_size"] == 4 * index["metadata"]["total_parameters"] > 0
    assert not [*out.glob("weights*")]
    x = mx.ones((2, 64))
    assert mx.array_equal(mlxport.load(out)(x), result.model(x))
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'mlxport')))\n"
        "import mlx.core as mx, model\n"
        "print(model.load()(mx.ones((2, 64))).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=out, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert mx.allclose(mx.array(json.loads(done.stdout)), result.model(x))
    assert api.verify_folder(out).passed
    mlxport.restore(out, tmp_path / "back.safetensors")
    state, expected = load_file(tmp_path / "back.safetensors"), small().state_dict()
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    torch.save(expected, tmp_path / "other.pt")
    api.convert_checkpoint(tmp_path / "other.pt", two, plan=out)  # model.py looks for these names
    assert mx.array_equal(mlxport.load(two)(x), result.model(x))


def test_safetensors_come_before_what_torch_wrote(source: Path) -> None:
    split_in_shards(source)
    torch.save(small().state_dict(), source / "pytorch_model.bin")
    index = json.dumps({"weight_map": dict.fromkeys(small().state_dict(), "pytorch_model.bin")})
    (source / "pytorch_model.bin.index.json").write_text(index)
    found = mlxport.inspect(source)
    assert Path(found.path).name == "model.safetensors.index.json"
    assert any("pytorch_model.bin.index.json" in note for note in found.notes)


def test_a_quantized_model_has_both_in_its_config(source: Path, tmp_path: Path) -> None:
    result = convert(source, tmp_path / "q", quantize="bits=4,group_size=32")
    config = json.loads((tmp_path / "q/config.json").read_text())
    assert config["hidden_size"] == 64
    assert config["quantization"]["bits"] == 4
    assert {*mx.load(str(tmp_path / "q/model.safetensors"))} >= {"layers.0.scales"}
    x = mx.ones((2, 64))
    assert mx.array_equal(mlxport.load(tmp_path / "q")(x), result.model(x))


# -- the Hub ---------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache with one repository in it, laid out as huggingface_hub does; no network."""
    cache = tmp_path / "cache"
    repository = cache / "models--someone--small"
    snapshot = repository / "snapshots" / COMMIT
    fill(repository / "blobs")
    snapshot.mkdir(parents=True)
    for number, blob in enumerate(sorted((repository / "blobs").iterdir())):
        content = blob.rename(blob.with_name(f"{number:040}"))
        (snapshot / blob.name).symlink_to(Path("../../blobs") / content.name)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def add_adapter(cache: Path) -> Path:
    """Put a second repository into the cache, with an adapter of the first one's model."""
    repository = cache / "models--someone--tuned"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["0"]}
    (snapshot / "adapter_config.json").write_text(json.dumps(config))
    names = {"lora_A": (2, 64), "lora_B": (32, 2)}
    tensors = {
        f"base_model.model.0.{name}.weight": torch.randn(shape) for name, shape in names.items()
    }
    save_file(tensors, snapshot / "adapter_model.safetensors")
    return snapshot


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "apart"])
def test_an_adapter_may_be_on_the_hub(merge: bool, cache: Path, tmp_path: Path) -> None:
    snapshot = add_adapter(cache)
    address = "hf://someone/tuned"
    result = convert("hf://someone/small", tmp_path / "out", adapter=address, merge=merge)
    assert result.report.passed
    assert not (tmp_path / "out/adapter_config.json").exists()
    x = torch.ones(2, 64)
    live = mlxport.convert(small(), x, adapter=address, merge=merge)
    near = mlxport.convert(small(), x, adapter=snapshot, merge=merge)
    assert mx.array_equal(live.model(mx.ones((2, 64))), near.model(mx.ones((2, 64))))
    again = api.convert_checkpoint(
        "hf://someone/small", tmp_path / "two", plan=tmp_path / "out", adapter=address
    )
    assert mx.array_equal(again.model(mx.ones((2, 64))), result.model(mx.ones((2, 64))))
    assert "LoRALinear" in str(mlxport.explain(small(), x, "0", adapter=address))


def test_of_an_adapter_the_configuration_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["adapter_config.json", "adapter_model.safetensors", "README.md", "optimizer.pt"]
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: files)
    wanted: list[str] = []

    def fetched(*_: Any, allow_patterns: list[str], **__: Any) -> str:
        wanted.extend(allow_patterns)
        return "there"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    assert resolved("hf://someone/tuned") == Path("there")
    assert sorted(wanted) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.parametrize(
    "address", ["hf://someone/small", "hf://someone/small@main", f"hf://someone/small@{COMMIT}"]
)
def test_a_repository_is_found_in_the_cache(cache: Path, address: str) -> None:
    assert resolved(address) == cache / "models--someone--small/snapshots" / COMMIT
    assert resolved(Path(address)) == resolved(address)  # pathlib makes one slash of two


def test_it_converts_and_is_named_in_the_record(cache: Path, tmp_path: Path) -> None:
    result = convert("hf://someone/small", tmp_path / "out")
    assert result.report.passed
    assert result.conversion.source["hub"] == f"hf://someone/small@{COMMIT}"
    assert {*BESIDE, "model.safetensors"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())


def test_everything_else_takes_it_too(cache: Path, tmp_path: Path) -> None:
    address = "hf://someone/small"
    assert len(mlxport.inspect(address).tensors) == 4
    result = convert(address, tmp_path / "out")
    again = mlxport.convert_state_dict(address, result.conversion)
    assert mx.array_equal(again["layers.0.weight"], result.model.layers[0].weight)
    mlxport.load_weights(result.model, address)
    assert api.analyze_checkpoint(address, model=small(), inputs=["2,64"]).covered


def test_the_command_line_offline(cache: Path, tmp_path: Path) -> None:
    """In a process of its own, which reads the environment as users set it."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from mlxport.cli import main\n"
        "main(['convert', 'hf://someone/small', '-o', 'out'], standalone_mode=False)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/model.safetensors").exists()
    assert (tmp_path / "out/tokenizer.json").exists()


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("hf://someone", OptionsError, "expected hf://owner/name"),
        ("hf://someone/small/inner", OptionsError, "expected hf://owner/name"),
        ("hf://someone/small@", OptionsError, "expected hf://owner/name"),
        ("hf://someone/other", CheckpointError, "hf://someone/other cannot be fetched"),
        ("hf://someone/small@v2", CheckpointError, "hf://someone/small@v2 cannot be fetched"),
    ],
)
def test_what_cannot_be_found(
    cache: Path, address: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        resolved(address)
    result = CliRunner().invoke(main, ["inspect", address])
    assert result.exit_code == (2 if error is OptionsError else 1)
    assert "Traceback" not in result.stderr


def test_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'mlxport\[hub\]'"):
        resolved("hf://someone/small")


LISTED: dict[str, tuple[list[str], list[str]]] = {
    "safetensors before torch's": (
        ["model.safetensors", "pytorch_model.bin", "config.json", "onnx/model.safetensors"],
        ["model.safetensors", "config.json"],
    ),
    "torch's where there is nothing else": (
        ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin", "a.py", "vocab.txt"],
        ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin", "vocab.txt"],
    ),
}


@pytest.mark.parametrize(("files", "wanted"), LISTED.values(), ids=LISTED)
def test_online_it_fetches_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: list[str], wanted: list[str]
) -> None:
    asked: dict[str, Any] = {}

    def download(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr(
        huggingface_hub.HfApi, "list_repo_files", lambda self, name, revision: files
    )
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolved("hf://a/b@v1") == tmp_path
    assert asked == {"repository": "a/b", "revision": "v1", "allow_patterns": wanted}


def test_a_repository_without_weights_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["unet/model.safetensors", "README.md"]
    monkeypatch.setattr(
        huggingface_hub.HfApi, "list_repo_files", lambda self, name, revision: files
    )
    with pytest.raises(CheckpointError, match="no weights at the top"):
        resolved("hf://a/b")


def test_files_elsewhere_have_no_address(tmp_path: Path) -> None:
    assert address_of(tmp_path / "snapshots/x/model.safetensors") == ""
