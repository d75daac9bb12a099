"""The tokenizer of an output folder: what of the tokens is text, and which end it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlxport.converter.errors import CheckpointError
from mlxport.converter.tasks.generation.carried_tokenizer import CarriedTokenizer

tokenizers: Any = pytest.importorskip("tokenizers", reason="tokenizers is not installed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer of two words that puts a special token before each text."""
    words = {"<s>": 0, "one": 1, "two": 2}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<s>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_what_is_put_before_a_text_is_no_text(folder: Path) -> None:
    tokenizer = CarriedTokenizer.of(folder)
    assert tokenizer.encode("two one") == [0, 2, 1]
    assert tokenizer.decode([0, 2, 1, 0]) == "two one"


ENDS: dict[str, tuple[dict[str, Any], set[int]]] = {
    "a number": ({"config.json": {"eos_token_id": 2}}, {2}),
    "a list": ({"config.json": {"eos_token_id": [0, 2]}}, {0, 2}),
    "the first file that names any": (
        {"generation_config.json": {"eos_token_id": 1}, "config.json": {"eos_token_id": 2}},
        {1},
    ),
    "the second where the first names none": (
        {"generation_config.json": {"eos_token_id": None}, "config.json": {"eos_token_id": 2}},
        {2},
    ),
    "no number": ({"config.json": {"eos_token_id": ["2", True]}}, set()),
    "no object": ({"config.json": [2]}, set()),
    "no file": ({}, set()),
}


@pytest.mark.parametrize(("files", "ends"), ENDS.values(), ids=ENDS)
def test_ends_are_named_beside_it(files: dict[str, Any], ends: set[int], folder: Path) -> None:
    for name, data in files.items():
        (folder / name).write_text(json.dumps(data))
    assert CarriedTokenizer.of(folder).ends == ends


def test_a_file_that_is_no_json_names_none(folder: Path) -> None:
    (folder / "generation_config.json").write_text("{")
    (folder / "config.json").write_text('{"eos_token_id": 1}')
    assert CarriedTokenizer.of(folder).ends == {1}


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no tokenizer\.json"):
        CarriedTokenizer.of(tmp_path)
