import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import nn

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.reference.record_reference import record_reference
from mlxport.converter.parity.run.verify import verify_bundle
from mlxport.converter.parity.verdict.reference_file import load_reference, save_reference

TWIN = Path(__file__).parents[1] / "mlx_twin.py"


class Everything(nn.Module):
    """Gives a tensor of every kind of dtype, one of them transposed in memory, one empty."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(3, 5)

    def forward(self, x, index):
        y = self.lin(x)
        return y.T, y.half(), y.bfloat16(), y > 0, index + 1, torch.complex(y, -y), y[:0], y.sum()


@pytest.fixture
def reference():
    args = (torch.randn(40, 3), torch.arange(4))
    return record_reference(Everything(), args, paths=["lin"], sample=50, keep_inputs=True)


def assert_same_values(one, two):
    for a, b in zip(one, two, strict=True):
        assert (a.shape, a.dtype, a.reference_dtype) == (b.shape, b.dtype, b.reference_dtype)
        for x, y in ((a.reference, b.reference), (a.native, b.native), (a.indices, b.indices)):
            assert (x is None) == (y is None)
            if x is not None:
                assert x.dtype == y.dtype or (x is a.native and y.dtype == np.float32)
                np.testing.assert_array_equal(x, y)


def test_values_stay_in_the_file_until_they_are_judged(tmp_path):
    module = nn.Sequential(*(nn.Linear(64, 64) for _ in range(20)))
    paths = [str(number) for number in range(20)]
    reference = record_reference(module, (torch.randn(512, 64),), paths=paths)
    save_reference(tmp_path / "reference.safetensors", reference)
    tracemalloc.start()
    again = load_reference(tmp_path / "reference.safetensors")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(v.native.nbytes for call in again.calls for v in call.outputs) > 2_000_000
    assert peak < 500_000
    assert_same_values(reference.calls[3].outputs, again.calls[3].outputs)


def test_round_trip(reference, tmp_path):
    path = tmp_path / "reference.safetensors"
    save_reference(path, reference)
    again = load_reference(path)
    for one, two in zip(reference.inputs, again.inputs, strict=True):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one.bits, two.bits)
    assert_same_values(reference.outputs, again.outputs)
    assert [value.dtype for value in again.outputs] == [
        "float32",
        "float16",
        "bfloat16",
        "bool",
        "int64",
        "complex64",
        "float32",
        "float32",
    ]
    for one, two in zip(reference.calls, again.calls, strict=True):
        assert (one.path, one.number) == (two.path, two.number)
        assert_same_values(one.outputs, two.outputs)
        assert one.inputs is not None
        assert two.inputs is None
        assert two.alone == ()
    assert again.calls[0].outputs[0].indices is not None
    for name in ("dtype", "reference_dtype", "fallback", "seed", "sample"):
        assert getattr(again, name) == getattr(reference, name)
    assert again.versions == reference.versions
    assert again.versions["torch"] == torch.__version__
    assert again.aliases == reference.aliases


def test_what_was_set_otherwise_comes_back(reference, tmp_path):
    changes = {
        "dtype": "bfloat16",
        "reference_dtype": "bfloat16",
        "fallback": "no float64 there",
        "seed": 7,
        "sample": 9,
        "sizes": {"batch": 2},
        "case": "impulse inputs",
        "fast_path": "gives NaN",
        "versions": {"torch": "1"},
        "aliases": {"twin": "lin"},
        "call": 3,
    }
    path = tmp_path / "reference.safetensors"
    save_reference(path, replace(reference, **changes))
    again = load_reference(path)
    assert {name: getattr(again, name) for name in changes} == changes
    assert again.signature == reference.signature


def test_a_bfloat16_input_keeps_its_bits(tmp_path):
    x = torch.randn(4, 3, dtype=torch.bfloat16)
    path = tmp_path / "r.safetensors"
    save_reference(path, record_reference(nn.Identity(), (x.T,), paths=[]))
    kept = load_reference(path).inputs[0]
    assert kept.dtype == "BF16"
    np.testing.assert_array_equal(kept.bits, x.T.contiguous().view(torch.uint16).numpy())


def test_equal_sample_positions_are_stored_once(tmp_path):
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 5))
    reference = record_reference(net, (torch.randn(40, 3),), paths=["0", "1", "2"], sample=50)
    path = tmp_path / "r.safetensors"
    save_reference(path, reference)
    with safe_open(str(path), framework="np") as file:
        assert sum(name.startswith("indices") for name in file.keys()) == 1  # noqa: SIM118


class TestWriting:
    def test_leaves_nothing_beside_the_file(self, reference, tmp_path):
        save_reference(tmp_path / "r.safetensors", reference)
        assert [path.name for path in tmp_path.iterdir()] == ["r.safetensors"]

    def test_that_fails_keeps_the_old_file(self, reference, tmp_path, monkeypatch):
        path = tmp_path / "r.safetensors"
        path.write_text("old")

        def fail(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(ParityError, match=r"cannot write .*r\.safetensors.*: No space left"):
            save_reference(path, reference)
        assert path.read_text() == "old"
        assert [p.name for p in tmp_path.iterdir()] == ["r.safetensors"]


class TestReading:
    def test_a_missing_file(self, tmp_path):
        with pytest.raises(ParityError, match=r"cannot read .*none\.safetensors"):
            load_reference(tmp_path / "none.safetensors")

    def test_another_kind_of_file(self, tmp_path):
        path = tmp_path / "w.safetensors"
        save_file({"w": np.zeros(3)}, path, {"format": "mlx"})
        with pytest.raises(ParityError, match="expected mlxport-reference version 1, got None"):
            load_reference(path)

    def test_no_safetensors_at_all(self, tmp_path):
        path = tmp_path / "w.safetensors"
        path.write_bytes(b"nonsense")
        with pytest.raises(ParityError, match="cannot read"):
            load_reference(path)

    def test_another_version(self, reference, tmp_path):
        self.damage(reference, tmp_path, lambda header: header.update(version=2))
        with pytest.raises(ParityError, match="version 2"):
            load_reference(tmp_path / "r.safetensors")

    @pytest.mark.parametrize(
        "change",
        [
            lambda header: header.pop("calls"),
            lambda header: header["outputs"][0].update(reference="gone"),
            lambda header: header.update(inputs=3),
        ],
        ids=["a key gone", "an array gone", "another type"],
    )
    def test_a_damaged_header(self, reference, tmp_path, change):
        self.damage(reference, tmp_path, change)
        with pytest.raises(ParityError, match="is a damaged reference"):
            load_reference(tmp_path / "r.safetensors")

    def damage(self, reference, tmp_path, change):
        path = tmp_path / "r.safetensors"
        save_reference(path, reference)
        with safe_open(str(path), framework="np") as file:
            header = json.loads(file.metadata()["mlxport"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        change(header)
        save_file(arrays, path, {"mlxport": json.dumps(header)})


ELSEWHERE = """
import json, runpy, sys
if sys.argv.pop() == "without":
    sys.modules["torch"] = None  # importing it raises ImportError
from mlxport.converter.parity.run import call_alone as alone
from mlxport.converter.parity.run import layouts as boundary
from mlxport.converter.parity.verdict import compare
from mlxport.converter.parity.verdict import entry
from mlxport.converter.parity.verdict import precision
from mlxport.converter.parity.verdict import reference_data as recording
from mlxport.converter.parity.report import report
from mlxport.converter.parity.report import text
from mlxport.converter.parity.run import trace
from mlxport.converter.parity.verdict.reference_file import load_reference
from mlxport.converter.parity.run.verify import verify_bundle
from mlxport.converter.plan.record import Conversion
folder, twin = sys.argv[1:]
conversion = Conversion.from_json(json.load(open(folder + "/conversion.json")))
model = runpy.run_path(twin)["Twin"]()
model.load_weights(folder + "/weights.safetensors")
report = verify_bundle(model.eval(), conversion, load_reference(folder + "/reference.safetensors"))
print(json.dumps(report.to_json(), allow_nan=False))
"""


def test_verifies_where_torch_cannot_be_imported(twin, make_net, make_twin, tmp_path):
    net, conversion = make_net(), twin.conversion()
    model = make_twin(net)
    paths = [record.path for record in conversion.modules]
    reference = record_reference(net, (torch.randn(2, 2, 6, 5),), paths=paths, sample=40)
    save_reference(tmp_path / "reference.safetensors", reference)
    (tmp_path / "conversion.json").write_text(json.dumps(conversion.to_json()))

    def elsewhere(torchs="without"):
        model.save_weights(str(tmp_path / "weights.safetensors"))
        command = [sys.executable, "-c", ELSEWHERE, str(tmp_path), str(TWIN), torchs]
        # the same BLAS with torch and without, so that every digit is the same
        environment = {**os.environ, "MLXPORT_TORCH_BLAS": "0"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    here = verify_bundle(model, conversion, reference).to_json()
    assert elsewhere() == elsewhere("with")
    assert elsewhere()["passed"] is True
    assert here["passed"] is True
    assert here["environment"]["reference torch"] == torch.__version__
    model.blocks[1].norm.running_mean = model.blocks[1].norm.running_mean + 1e-3
    assert elsewhere()["culprit"] == "blocks.1.norm"
