"""What of a pipeline on the Hub is fetched, from one on loopback."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "c0ffee" + 34 * "0"
PARTS = {"_class_name": "SomePipeline", "unet": ["diffusers", "UNet2DModel"]}
PARTS |= {"text_encoder": ["transformers", "X"], "scheduler": ["diffusers", "Y"]}
PARTS |= {"tokenizer": ["transformers", "Z"], "vae": ["diffusers", "V"]}
WANTED = [
    "README.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/pytorch_model.bin",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
    "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.fp16.safetensors",
]
OTHERS = [
    "all-in-one.safetensors",
    "safety/model.safetensors",  # no part by the index
    "text_encoder/model.fp16.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
    "unet/diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
    "unet/onnx/model.safetensors",
    "unet/code.py",
]


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's endpoint as fetching takes."""

    def do_GET(self) -> None:
        if "/resolve/" in self.path:
            self._send(self._content(), {"ETag": f'"{abs(hash(self.path)):x}"'})
        elif "/tree/" in self.path:
            names = (*WANTED, *OTHERS)
            tree = [{"type": "file", "path": n, "size": len(n), "oid": "0" * 40} for n in names]
            self._send(json.dumps(tree).encode(), {"Content-Type": "application/json"})
        else:
            files = [{"rfilename": name} for name in (*WANTED, *OTHERS)]
            described = {"id": "a/pipe", "sha": COMMIT, "siblings": files}
            self._send(json.dumps(described).encode(), {"Content-Type": "application/json"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _content(self) -> bytes:
        name = self.path.partition("/resolve/")[2].partition("/")[2]
        return json.dumps(PARTS).encode() if name == "model_index.json" else name.encode()

    def _send(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "X-Repo-Commit": COMMIT}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Keep stderr for what fails."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("address", ["hf://a/pipe", f"hf://a/pipe@{COMMIT}"])
def test_of_a_pipeline_what_its_folders_need_is_fetched(
    endpoint: str, tmp_path: Path, address: str
) -> None:
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "home"),
        "NO_PROXY": "127.0.0.1",
    }
    code = (
        "import sys; from mlxport.converter.torch_model.hub import resolved\n"
        "print(resolved(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, address],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    found = [file for file in folder.rglob("*") if file.is_file()]
    assert sorted(file.relative_to(folder).as_posix() for file in found) == WANTED
    assert (folder / "unet/config.json").read_text() == "unet/config.json"
