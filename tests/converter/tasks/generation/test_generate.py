"""A converted language model goes on with a text as transformers does, and says why it stops."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from language_models import write_language_model

import mlxport
from mlxport.cli import main
from mlxport.converter.errors import CheckpointError, ConversionError, OptionsError

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")

PROMPT, MOST = "w3 w1", 20  # the most places the model has


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("written")
    model = write_language_model(folder / "model", "GPT-2")
    mlxport.convert_checkpoint(folder / "model", folder / "out")
    return folder / "out", model


@pytest.fixture
def out(written: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of the output, to be changed."""
    shutil.copytree(written[0], tmp_path / "out")
    return tmp_path / "out"


def by_transformers(model: Any, folder: Path, count: int) -> tuple[list[int], str]:
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    ids = torch.tensor([tokenizer.encode(PROMPT)])
    found = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False
    )[0]
    text = tokenizer.decode(found, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return found[ids.shape[1] :].tolist(), text


def test_tokens_and_text_are_those_of_transformers(written: tuple[Path, Any]) -> None:
    folder, model = written
    tokens, text = by_transformers(model, folder, 9)
    generated = mlxport.generate(folder, PROMPT, max_tokens=9, check_code=True)
    assert list(generated.tokens) == [token for token in tokens if token != 1]
    assert str(generated) == text
    assert generated.ended == ("end of text" if 1 in tokens else "max_tokens")
    assert len(generated.prompt_tokens) == len(PROMPT)


@pytest.mark.parametrize("as_list", [True, False], ids=["a list", "a number"])
def test_a_token_that_ends_the_text_is_not_part_of_it(as_list: bool, out: Path) -> None:
    (out / "generation_config.json").unlink()
    plain = mlxport.generate(out, PROMPT, max_tokens=4)
    last = plain.tokens[-1]
    config = json.loads((out / "config.json").read_text())
    config["eos_token_id"] = [49, last] if as_list else last
    (out / "config.json").write_text(json.dumps(config))
    generated = mlxport.generate(out, PROMPT)
    assert generated.tokens == plain.tokens[: plain.tokens.index(last)]
    assert generated.ended == "end of text"


def without_ends(folder: Path) -> None:
    for name in ("generation_config.json", "config.json"):
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**settings, "eos_token_id": None}))


def test_it_ends_where_the_model_takes_no_more(out: Path) -> None:
    without_ends(out)
    generated = mlxport.generate(out, PROMPT)
    assert len(generated.prompt_tokens) + len(generated.tokens) == MOST + 1
    assert "expected h + length <= 20" in generated.ended
    with pytest.raises(OptionsError, match=r"does not take its 21 tokens: input_ids .* <= 20"):
        mlxport.generate(out, "w" * 21)


def test_the_command_prints_the_text(written: tuple[Path, Any]) -> None:
    folder, model = written
    _, text = by_transformers(model, folder, 5)
    arguments = ["generate", str(folder), "--prompt", PROMPT, "--max-tokens", "5"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{text}\n"
    assert result.stderr.startswith("5 tokens given, ")
    data = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert data["prompt"] + data["text"] == text


def test_it_needs_no_torch(written: tuple[Path, Any]) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; import mlxport; "
        f"print(mlxport.generate({str(written[0])!r}, {PROMPT!r}, max_tokens=5))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == f"{mlxport.generate(written[0], PROMPT, max_tokens=5)}\n", done.stderr


def no_cache(folder: Path) -> None:
    record = json.loads((folder / "conversion.json").read_text())
    del record["cache"]
    (folder / "conversion.json").write_text(json.dumps(record))


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


REFUSED: dict[str, tuple[Any, type[ConversionError], str]] = {
    "no cache": (no_cache, ConversionError, "its model does not go on with a text"),
    "no tokenizer": (no_tokenizer, CheckpointError, r"holds no tokenizer\.json.*save_pretrained"),
    "damaged": (damaged_tokenizer, CheckpointError, "cannot be read as a tokenizer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_go_on_is_refused(case: str, out: Path) -> None:
    change, error, said = REFUSED[case]
    change(out)
    with pytest.raises(error, match=said):
        mlxport.generate(out, PROMPT)


def test_a_missing_package_is_named(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(CheckpointError, match=r"pip install 'mlxport\[generate\]'"):
        mlxport.generate(out, PROMPT)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"prompt": ""}, "makes no token"), ({"max_tokens": 0}, "expected at least 1")],
    ids=["no text", "no tokens"],
)
def test_what_asks_for_nothing_is_refused(
    options: dict[str, Any], said: str, written: tuple[Path, Any]
) -> None:
    with pytest.raises(OptionsError, match=said):
        mlxport.generate(written[0], **{"prompt": PROMPT, **options})


def test_code_is_held_to_the_record_before_it_runs(out: Path) -> None:
    with (out / "model.py").open("a") as file:
        file.write("raise SystemExit\n")
    with pytest.raises(ConversionError, match="differs     model"):
        mlxport.generate(out, PROMPT, check_code=True)
    with pytest.raises(ConversionError, match=r"model\.py ends the process"):
        mlxport.generate(out, PROMPT)
