"""Digests of what conversions write, to compare two commits: `python tests/models/digests.py OUT`.

A change that is to alter nothing alters none of them: neither the text of ``model.py``, the
record, the weights nor the verdicts of any network, layer sample, op sample or checkpoint. Where
layer files lie does not count, only which names are imported from them.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "models"), str(TESTS / "samples")]

Digests = dict[str, Any]

# Fields of a record that name versions, places on the disk or layer files.
VOLATILE = ("versions", "layers", "source")


def digest(value: bytes | str) -> str:
    """Return a short digest of a text or of bytes."""
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).hexdigest()[:16]


def record_digest(record: dict[str, Any]) -> str:
    """Return the digest of a ``conversion.json``, without its volatile fields."""
    kept = {name: value for name, value in record.items() if name not in VOLATILE}
    return digest(json.dumps(kept, sort_keys=True))


def source_text(text: str) -> str:
    """Return emitted source with the imports of layer files reduced to the names imported."""
    imported = re.compile(r"^ *from \.?layers\.[\w.]+ import \(?([^()]*?)\)?$", re.MULTILINE)
    names = sorted(n.strip() for m in imported.finditer(text) for n in m[1].split(",") if n.strip())
    return f"{names}\n{imported.sub('', text)}"


def folder_digests(folder: Path) -> Digests:
    """Return the digests of an output folder and its verdicts, entry by entry."""
    digests: Digests = {"files": sorted(path.name for path in folder.iterdir())}
    for path in sorted(folder.glob("*.safetensors")):
        if not path.name.startswith("reference"):
            digests[path.name] = digest(path.read_bytes())
    if (folder / "model.py").exists():
        digests["model.py"] = digest(source_text((folder / "model.py").read_text()))
    record = json.loads((folder / "conversion.json").read_text())
    digests["conversion.json"] = record_digest(record)
    if (folder / "parity.json").exists():
        report = json.loads((folder / "parity.json").read_text())
        found = [verdict_of(entry) for kind in ("outputs", "entries") for entry in report[kind]]
        digests["parity.json"] = digest(json.dumps(found))
        digests["passed"] = report["passed"]
    return digests


def verdict_of(entry: dict[str, Any]) -> list[Any]:
    """Return which verdicts an entry of a report holds, without their figures."""
    verdicts = entry["verdicts"]
    return [entry["path"], entry.get("call"), {mode: v["passed"] for mode, v in verdicts.items()}]


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Give a model weights as training would."""
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif tensor.ndim > 1:
                tensor.normal_(std=tensor[0].numel() ** -0.5)
            else:
                tensor.uniform_(-0.5, 1.5)
    return model.eval()


def networks() -> Iterator[tuple[str, Callable[[], Digests]]]:
    """Every network of the tests, as a folder, and by its source with its batch left open."""
    from networks import NETWORKS

    import mlxport

    def converted(network: Any) -> Digests:
        torch.manual_seed(0)
        model, inputs = randomise(network.build()), network.inputs()
        with tempfile.TemporaryDirectory() as folder:
            checkpoint, output = Path(folder) / "weights.safetensors", Path(folder) / "out"
            save_file({k: v.clone() for k, v in model.state_dict().items()}, checkpoint)
            mlxport.convert_checkpoint(checkpoint, output, model=model, inputs=inputs)
            digests = folder_digests(output)
        variants = {"channels_last": {"channels_last": True}, "folded": {"fold_batchnorm": True}}
        if network.batch:
            inputs = tuple(torch.cat([x, x]) for x in inputs)
            variants["open"] = {"dynamic": (0,)}
        for name, options in variants.items():
            digests[name] = outcome(lambda options=options: emitted(model, inputs, options))
        return digests

    def emitted(model: torch.nn.Module, inputs: Any, options: dict[str, Any]) -> str:
        made = mlxport.convert(model, inputs, verify=False, **options)
        return digest(source_text(made.source) + record_digest(made.conversion.to_json()))

    for name, network in NETWORKS.items():
        yield f"network {name}", lambda network=network: converted(network)


def layers() -> Iterator[tuple[str, Callable[[], Digests]]]:
    """PyTorch's samples of its layers: the MLX layer as it prints itself, and its weights."""
    from mlx.utils import tree_flatten
    from sample_database import samples

    import mlxport

    def converted(sample: Any) -> Digests:
        torch.manual_seed(0)
        layer = mlxport.convert_layer(sample.build()[0])
        weights = {name: digest(str(array.tolist())) for name, array in tree_flatten(layer)}
        return {"layer": digest(re.sub(r" at 0x\w+", "", repr(layer))), "weights": weights}

    for sample in samples():
        yield f"layer {sample}", lambda sample=sample: converted(sample)


def ops() -> Iterator[tuple[str, Callable[[], Digests]]]:
    """PyTorch's samples of its operations: the statements emitted, in several axis orders."""
    import op_parity
    from op_database import op_samples
    from op_database import ops as database

    def lowered(op: str, dtype: torch.dtype) -> Digests:
        found: Digests = {}
        for sample in op_samples(op, dtype)[:1]:
            torch.manual_seed(0)
            function, tensors = sample.call()
            program = op_parity.exported(function, tensors)
            for i, orders in enumerate(op_parity.orders_to_try(tensors)):
                found[f"{sample} {i}"] = outcome(partial(statements, program, orders))
        return found

    def statements(program: Any, orders: Any) -> str:
        return digest("\n".join(op_parity._lower(program, orders, ()).body))

    for op, dtype in database():
        yield f"op {op} {dtype}", lambda op=op, dtype=dtype: lowered(op, dtype)


def checkpoints() -> Iterator[tuple[str, Callable[[], Digests]]]:
    """A U-Net in several kinds of file: by a plan, by evidence, restored, and inspected."""
    import mlxport
    from mlxport.examples.unet3d import UNet3d

    def converted(name: str) -> Digests:
        torch.manual_seed(0)
        model = randomise(UNet3d())
        state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        with tempfile.TemporaryDirectory() as folder:
            path, out = Path(folder) / name, Path(folder)
            if name.endswith(".safetensors"):
                save_file(state, path)
            else:
                torch.save({"state_dict": state, "epoch": 3}, path)
            digests: Digests = {
                "inspected": digest(str(mlxport.inspect(path).to_json()["tensors"]))
            }
            made = mlxport.convert_checkpoint(
                path, out / "a", model=model, inputs=["1,1,16,24,20"], max_shard_size="40KB"
            )
            digests["folder"] = folder_digests(out / "a")
            digests["notes"] = [*made.notes]
            mlxport.convert_checkpoint(path, out / "b", plan=out / "a")
            digests["by plan"] = folder_digests(out / "b")
            mlxport.restore(out / "a", out / "back.safetensors")
            digests["restored"] = digest((out / "back.safetensors").read_bytes())
            digests["by evidence"] = outcome(
                lambda: (
                    mlxport.convert_checkpoint(path, out / "c", layers=["*=Conv"])
                    and folder_digests(out / "c")
                )
            )
        return digests

    for name in ("unet.safetensors", "unet.pt"):
        yield f"checkpoint {name}", lambda name=name: converted(name)


def outcome(function: Callable[[], Any]) -> Any:
    """Return what a function gives, or the kind of its refusal."""
    try:
        return function()
    except Exception as error:
        return f"{type(error).__name__}"


PARTS = {"networks": networks, "layers": layers, "ops": ops, "checkpoints": checkpoints}


def main(output: Path, parts: list[str]) -> None:
    """Write the digests of the named parts, or of all, as JSON."""
    import mlx.core as mx

    mx.disable_compile()  # which alters no digest, and builds a kernel for each constant
    warnings.simplefilter("ignore")
    found: Digests = {}
    for part in parts or PARTS:
        if part == "networks":
            mx.enable_compile()
        for name, digests_of in PARTS[part]():
            found[name] = outcome(digests_of)
            output.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
            print(name, flush=True)
        mx.disable_compile()


if __name__ == "__main__":
    import import_torchvision  # noqa: F401

    main(Path(sys.argv[1]), sys.argv[2:])
