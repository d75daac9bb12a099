"""Publishing: the card, what would go and what stays, and an upload to an endpoint of our own."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter import api
from mlxport.converter.errors import CheckpointError, ConversionError, OptionsError, ParityError
from mlxport.converter.output.contents import read_conversion
from mlxport.converter.output.mlx_lm_file import MODEL_FILE
from mlxport.converter.tasks.publishing.model_card import model_card

HUB_CARD = "---\nlicense: apache-2.0\ntags: []\n---\n# Theirs\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(3, 2, 2, stride=2))
    torch.save(net.state_dict(), folder / "net.pt")
    mlxport.convert_checkpoint(folder / "net.pt", folder / "out", model=net, inputs=["1,2,8,8"])
    return folder


@pytest.fixture
def out(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written / "out", tmp_path / "out")
    return tmp_path / "out"


def test_the_card_says_what_the_hub_and_a_reader_need(out: Path) -> None:
    done = api.publish(out, "me/net", base_model="them/net", licence="mit")
    assert done.url == ""
    card = (out / "README.md").read_text()
    front = card.split("---\n")[1].splitlines()
    assert front == [
        'library_name: "mlx"',
        'base_model: "them/net"',
        'license: "mit"',
        "tags:",
        "- mlx",
    ]
    assert "**PASS**: parity holds: 1 output and 2 layer calls" in card
    assert "| 1 | ConvTranspose2d | 1x2x12x12 |" in card
    assert 'snapshot_download("me/net")' in card
    assert done.warnings == ()


def test_the_card_of_a_language_model_says_how_mlx_lm_runs_it(out: Path) -> None:
    record = read_conversion(out)
    options: dict[str, Any] = {"base_model": None, "licence": None}
    assert "mlx_lm" not in model_card("me/net", record, None, **options)
    record = replace(record, code={**record.code, MODEL_FILE: "0" * 64})
    card = model_card("me/net", record, None, **options)
    assert 'pipeline_tag: "text-generation"' in card.split("---\n")[1]
    assert 'net, tokenizer = load("me/net", trust_remote_code=True)' in card


def test_the_index_has_the_totals(out: Path) -> None:
    api.publish(out, "me/net")
    index = json.loads((out / "weights.safetensors.index.json").read_text())
    parameters = 2 * 3 * 9 + 3 + 3 * 2 * 4 + 2
    assert index["metadata"] == {
        "total_size": 4 * parameters,
        "total_parameters": parameters,
    }
    assert set(index["weight_map"].values()) == {"weights.safetensors"}
    assert api.verify_weights(out).passed
    assert mlxport.load(out)(mx.zeros((1, 2, 8, 8))).shape == (1, 2, 12, 12)


def test_what_no_conversion_wrote_stays_here(out: Path) -> None:
    (out / "secrets.env").write_text("x")
    (out / "layers" / "notes.txt").write_text("x")
    (out / "json.py").write_text("x")
    (out / "LICENSE").symlink_to("/etc/hostname")
    (out / "layers" / "__pycache__").mkdir()
    (out / "layers" / "__pycache__" / "x.pyc").write_text("x")
    done = api.publish(out, "me/net")
    assert {*done.left} == {"secrets.env", "layers/notes.txt", "json.py", "LICENSE"}
    assert {"model.py", "layers/conv/transpose.py", "README.md", "parity.json"} <= {*done.files}


def test_the_card_of_the_source_is_kept_and_its_licence_taken(out: Path) -> None:
    (out / "README.md").write_text(HUB_CARD)
    for _ in range(2):  # once more, over our own
        done = api.publish(out, "me/net")
        assert 'license: "apache-2.0"' in (out / "README.md").read_text()
        assert (out / "README_of_the_source.md").read_text() == HUB_CARD
        assert "README_of_the_source.md" in done.files


@pytest.mark.parametrize("exists", [True, False], ids=["of a file", "of nothing"])
def test_nothing_is_written_through_a_link(exists: bool, out: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    if exists:
        theirs.write_text("kept")
    (out / "README.md").symlink_to(theirs)
    api.publish(out, "me/net")
    assert theirs.exists() is exists
    assert not exists or theirs.read_text() == "kept"
    assert (out / "README.md").is_file()
    assert not (out / "README.md").is_symlink()


def test_a_card_that_cannot_be_written_is_told(out: Path) -> None:
    (out / "README.md").mkdir()
    with pytest.raises(CheckpointError, match=r"README\.md cannot be written"):
        api.publish(out, "me/net")


def test_the_base_is_known_of_what_came_from_the_hub(out: Path) -> None:
    record = json.loads((out / "conversion.json").read_text())
    record["source"]["hub"] = "hf://them/net@" + "0" * 40
    (out / "conversion.json").write_text(json.dumps(record))
    api.publish(out, "me/net")
    assert 'base_model: "them/net"' in (out / "README.md").read_text()


def test_without_a_report_nothing_is_claimed(out: Path) -> None:
    (out / "parity.json").unlink()
    done = api.publish(out, "me/net", licence="mit")
    assert done.warnings == ("there is no parity report in the folder, and the card says so",)
    card = (out / "README.md").read_text()
    assert "Parity was not judged" in card
    assert "PASS" not in card
    assert "verified" not in card


def fail(out: Path) -> None:
    report = json.loads((out / "parity.json").read_text())
    report["outputs"][0]["verdicts"]["whole"]["problems"] = ["made up"]
    (out / "parity.json").write_text(json.dumps(report))


def change_weights(out: Path) -> None:
    weights = mx.load(str(out / "weights.safetensors"))
    mx.save_safetensors(str(out / "weights.safetensors"), {n: w + 1 for n, w in weights.items()})


def change_code(out: Path) -> None:
    with (out / "model.py").open("a") as file:
        file.write("# more\n")


REFUSED: dict[str, tuple[Callable[[Path], object], type[ConversionError], str]] = {
    "parity failed": (fail, ParityError, "what does not hold is not published: parity FAILED"),
    "other weights": (change_weights, ConversionError, "not published, as 4 tensors are not those"),
    "other code": (change_code, ConversionError, r"differs     model\.py"),
}


@pytest.mark.parametrize(("change", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_uploaded(
    change: Callable[[Path], object], error: type[ConversionError], message: str, out: Path
) -> None:
    change(out)
    with pytest.raises(error, match=message):
        api.publish(out, "me/net", yes=True)


@pytest.mark.parametrize("name", ["net", "me/net/more", "/net", "me/", "me/a b", "../x"])
def test_what_is_no_repository(name: str, out: Path) -> None:
    for given in ({"repository": name}, {"repository": "me/net", "base_model": name}):
        with pytest.raises(OptionsError, match="expected the name of a repository"):
            api.publish(out, **given)
    assert not (out / "README.md").exists()


def test_weights_alone_are_no_model(written: Path, tmp_path: Path) -> None:
    layers = ["*=Conv", "1.*=ConvTranspose2d"]
    mlxport.convert_checkpoint(written / "net.pt", tmp_path / "w", layers=layers)
    with pytest.raises(OptionsError, match="holds weights alone"):
        api.publish(tmp_path / "w", "me/net")


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as one commit needs; all files go by the commit itself."""

    asked: list[tuple[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        path = self.path.partition("?")[0]
        lines = [json.loads(line) for line in body.splitlines() if line] if body else []
        self.asked.append((path, lines))
        home = f"http://{self.headers['Host']}/me/net"
        if path.endswith("/preupload/main"):
            given = [file["path"] for file in lines[0]["files"]]
            files = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in given]
            self.answer({"files": files})
        elif path.endswith("/commit/main"):
            self.answer({"commitUrl": f"{home}/commit/abc", "commitOid": "abc", "success": True})
        elif path.endswith("/repos/create"):
            self.answer({"url": home})
        else:
            self.answer({"errors": [], "warnings": []})

    def do_GET(self) -> None:
        self.answer({"id": "me/net", "sha": "0" * 40, "siblings": []})

    def answer(self, data: Any) -> None:
        text = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    asked: list[tuple[str, Any]] = []
    handler = type("OneHub", (Hub,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def command(out: Path, endpoint: str, *flags: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": "hf_of_the_test",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(out.parent / "home"),
        "NO_PROXY": "127.0.0.1",
    }
    words = [sys.executable, "-m", "mlxport", "publish", str(out), "me/net", *flags]
    return subprocess.run(
        words, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_it_uploads_what_it_listed(out: Path, hub: tuple[str, list[tuple[str, Any]]]) -> None:
    endpoint, asked = hub
    (out / "secrets.env").write_text("x")
    done = command(out, endpoint, "--yes", "--license", "mit", "--private")
    assert done.returncode == 0, done.stderr
    assert f"{endpoint}/me/net/commit/abc" in done.stdout
    (created,) = [lines[0] for path, lines in asked if path.endswith("/repos/create")]
    assert created["name"] == "net"
    assert created.get("private") or created["visibility"] == "private"
    (commit,) = [lines for path, lines in asked if path.endswith("/commit/main")]
    sent = {
        line["value"]["path"]: base64.b64decode(line["value"]["content"])
        for line in commit
        if line["key"] == "file"
    }
    assert {*sent} == {
        path.relative_to(out).as_posix()
        for path in out.rglob("*")
        if path.is_file() and path.name != "secrets.env"
    }
    assert all((out / name).read_bytes() == content for name, content in sent.items())


def test_nothing_leaves_without_yes(out: Path, hub: tuple[str, list[tuple[str, Any]]]) -> None:
    endpoint, asked = hub
    done = command(out, endpoint)
    assert done.returncode == 0, done.stderr
    assert "Would be published as me/net" in done.stdout
    assert asked == []


def test_an_endpoint_that_is_away_is_told(out: Path) -> None:
    done = command(out, "http://127.0.0.1:1", "--yes")
    assert done.returncode == 1
    assert "Error: me/net cannot be uploaded: " in done.stderr
