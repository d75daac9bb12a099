"""Calls besides the example: what they are made of, and that each sees what the example hides."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
import torch
from click.testing import CliRunner

import mlxport
from mlxport.cli import main
from mlxport.converter import api
from mlxport.converter.errors import OptionsError
from mlxport.converter.parity.reference.trials import KINDS, Trials, batched

TOKENS = torch.tensor([[5, 3, 9, 3], [3, 7, 7, 5]])
MASK = torch.tensor([[True, True, False, False], [True, True, True, True]])


def made(kind: str, *tensors: torch.Tensor) -> tuple[Any, ...]:
    (trial,) = Trials.of([kind], None).of_kinds((tensors, {}))
    assert trial.case == f"{kind} inputs"
    return trial.given[0]


class TestKinds:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("kind", KINDS)
    def test_keep_shape_and_dtype_and_are_the_same_each_time(self, kind, dtype):
        example = torch.randn(2, 3, 8, 9).to(dtype)
        first, second = made(kind, example)[0], made(kind, example)[0]
        assert (first.shape, first.dtype) == (example.shape, dtype)
        assert torch.equal(first, second)
        assert first.isfinite().all()
        assert not torch.equal(first, example)

    def test_are_what_they_are_called(self):
        example = torch.randn(4, 3, 20, 20)
        assert made("constant", example)[0].unique().numel() == 1
        (impulse,) = made("impulse", example)
        assert [int(item.count_nonzero()) for item in impulse] == [1] * 4
        assert impulse.sum() == 4
        (normal,) = made("normal", example)
        assert (normal.mean().abs() < 0.1, 0.9 < normal.std() < 1.1) == (True, True)
        (large,) = made("large", example)
        beyond = (large.abs() > 10).float().mean()
        assert 0.03 < beyond < 0.09
        assert large.abs().max() > 1000

    def test_of_a_single_number_and_of_nothing(self):
        for kind in KINDS:
            number, nothing = made(kind, torch.tensor(2.0), torch.zeros(0, 3))
            assert number.shape == ()
            assert nothing.shape == (0, 3)

    def test_take_indices_from_the_example_and_leave_masks(self):
        for kind in KINDS:
            x, tokens, mask = made(kind, torch.randn(2, 4), TOKENS, MASK)
            assert x.shape == (2, 4)
            assert set(tokens.flatten().tolist()) <= {3, 5, 7, 9}
            assert torch.equal(mask, MASK)
        assert made("constant", TOKENS)[0].unique().tolist() == [9]

    def test_that_would_be_the_example_again_are_left_out(self):
        trials = Trials.of(KINDS, None).of_kinds(((TOKENS,), {}))
        assert [trial.case for trial in trials] == ["normal inputs", "constant inputs"]

    def test_leave_what_is_no_tensor(self):
        (trial,) = Trials.of(["impulse"], None).of_kinds((({"x": torch.ones(3)}, None), {"n": 2}))
        assert trial.given[0][1] is None
        assert trial.given[1] == {"n": 2}

    def test_unknown_kinds_and_sizes_are_refused(self):
        with pytest.raises(OptionsError, match="unknown kinds of inputs: odd, strange; there are"):
            Trials.of(["odd", "constant", "strange"], None)
        with pytest.raises(OptionsError, match="whole numbers from 1 to 65,536, got 0, -1"):
            Trials.of([], [0, 1, -1])


class TestBatched:
    def test_takes_the_items_in_turn_and_rolls_them(self):
        (x, fixed), _ = batched(((TOKENS, TOKENS), {}), 3, [True, False])
        assert x.tolist() == [[5, 3, 9, 3], [3, 7, 7, 5], [3, 5, 3, 9]]
        assert fixed is TOKENS

    def test_takes_items_away(self):
        (x,), _ = batched(((TOKENS,), {}), 1, [True])
        assert x.tolist() == [[5, 3, 9, 3]]


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 4, 3, padding=1)
        self.relu = torch.nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.conv(x))


class Port(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.relu = nn.ReLU()

    def __call__(self, x: mx.array) -> mx.array:
        return self.relu(self.conv(x))


ALL = {"input_kinds": [*KINDS], "batch_sizes": (1, 2)}
CASES = [*(f"{kind} inputs" for kind in KINDS), "batch size 1"]


@pytest.fixture(params=["converted", "by hand"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, torch.nn.Module]:
    torch.manual_seed(0)
    net = Net().eval()
    if request.param == "converted":
        return mlxport.convert(net, torch.randn(2, 2, 6, 7), dynamic=(0,), verify=False).model, net
    port = Port().eval()
    mlxport.load_weights(port, net.state_dict())
    return port, net


def replaced(layer: nn.Module, change: Any) -> None:
    call = type(layer).__call__
    altered = {"__call__": lambda self, x: change(call(self, x))}
    layer.__class__ = type(type(layer).__name__, (type(layer),), altered)


def test_all_hold_where_the_model_is_right(pair: tuple[Any, torch.nn.Module]) -> None:
    report = mlxport.verify(*pair, torch.randn(2, 2, 6, 7), **ALL)
    assert report.passed, report.verdict
    assert [other.case for other in report.others] == CASES
    assert report.verdict.endswith(f"; also on {', '.join(CASES)}")
    for other in report.others:
        assert {entry.path for entry in other.entries if entry.verdicts} == {"conv", "relu"}


# each is invisible on the example, and what sees it
HIDDEN = {
    "zeros that count": (lambda y: mx.where(y == 0, 1e-3, y), "relu"),
    "values cut off": (lambda y: mx.minimum(y, 100.0), "relu"),
    "a batch of one taken for none": (lambda y: y * 1.001 if len(y) == 1 else y, "relu"),
}


@pytest.mark.parametrize(
    ("fault", "case"),
    [("values cut off", "large inputs"), ("a batch of one taken for none", "batch size 1")],
)
def test_what_the_example_hides_is_found(
    pair: tuple[Any, torch.nn.Module], fault: str, case: str
) -> None:
    change, culprit = HIDDEN[fault]
    replaced(pair[0].relu, change)
    x = torch.randn(2, 2, 6, 7)
    assert mlxport.verify(*pair, x).run_passed
    report = mlxport.verify(*pair, x, **ALL)
    assert not report.passed
    assert report.culprit == culprit
    assert [other.case for other in report.others if not other.passed] == [case]
    assert f"\n(on {case}" in report.verdict


def test_what_only_an_impulse_shows_is_found(pair: tuple[Any, torch.nn.Module]) -> None:
    model, net = pair
    with torch.no_grad():
        net.conv.bias.zero_()
    model.conv.bias = mx.zeros_like(model.conv.bias)
    replaced(model.conv, lambda y: mx.where(y == 0, 1e-3, y))
    x = torch.randn(2, 2, 6, 7)
    assert mlxport.verify(model, net, x).passed
    report = mlxport.verify(model, net, x, input_kinds=["impulse"])
    assert report.culprit == "conv"


def test_a_run_that_breaks_off_fails(pair: tuple[Any, torch.nn.Module]) -> None:
    def only_two(y: mx.array) -> mx.array:
        if len(y) != 2:
            raise ValueError("two, please")
        return y

    replaced(pair[0].relu, only_two)
    report = mlxport.verify(*pair, torch.randn(2, 2, 6, 7), batch_sizes=(1, 2, 3))
    assert not report.passed
    assert [other.case for other in report.others] == ["batch size 1", "batch size 3"]
    assert "two, please" in report.verdict


def test_a_batch_that_is_fixed_is_said_to_be() -> None:
    net, x = Net().eval(), torch.randn(1, 2, 6, 7)
    report = mlxport.convert(net, x, batch_sizes=(1, 2)).report
    assert report is not None
    assert report.passed
    assert report.others == ()
    assert [note for note in report.notes if note.startswith("batch size 2 not judged")]


def test_a_batch_left_open_is_judged_at_one_and_two_unasked() -> None:
    net, x = Net().eval(), torch.randn(3, 2, 6, 7)
    report = mlxport.convert(net, x, dynamic=(0,)).report
    assert report is not None
    assert [other.case for other in report.others] == ["", "batch size 1", "batch size 2"]
    assert [other.sizes["n"] for other in report.others][1:] == [1, 2]


def test_what_pytorch_cannot_run_is_noted() -> None:
    class Pairs(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(2, -1, x.shape[1]).sum(0)

    class Ported(nn.Module):
        def __call__(self, x: mx.array) -> mx.array:
            return x.reshape(2, -1, x.shape[1]).sum(0)

    report = mlxport.verify(Ported().eval(), Pairs(), torch.randn(4, 3), batch_sizes=(1, 2))
    assert report.passed
    assert [other.case for other in report.others] == ["batch size 2"]
    assert report.notes[-1].startswith("batch size 1 not judged: PyTorch fails: RuntimeError")


def test_arrays_given_for_a_port_cannot_be_made_anew() -> None:
    port, net, x = Port().eval(), Net().eval(), torch.randn(2, 2, 6, 7)
    mlxport.load_weights(port, net.state_dict())
    array = mx.array(x.movedim(1, -1).contiguous().numpy())
    with pytest.raises(OptionsError, match="give a function"):
        mlxport.verify(port, net, x, mlx_inputs=array, input_kinds=["large"])
    report = mlxport.verify(
        port, net, x, mlx_inputs=lambda given: given.transpose(0, 2, 3, 1), input_kinds=["large"]
    )
    assert report.passed
    assert len(report.others) == 1


def test_the_folder_keeps_the_references_and_verifies_without_torch(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(0)
    torch.save(Net().state_dict(), tmp_path / "net.pt")
    source = "import torch\nclass Net(torch.nn.Module):\n"
    source += "    def __init__(self):\n        super().__init__()\n"
    source += "        self.conv = torch.nn.Conv2d(2, 4, 3, padding=1)\n"
    source += "        self.relu = torch.nn.ReLU()\n"
    source += "    def forward(self, x):\n        return self.relu(self.conv(x))\n"
    (tmp_path / "trial_nets.py").write_text(source)
    words = ["convert", str(tmp_path / "net.pt"), "--model", "trial_nets:Net", "--input", "2,2,6,7"]
    words += ["--input-kinds", "constant,large", "--batch-sizes", "1,3", "--dynamic", "0"]
    done = CliRunner().invoke(main, [*words, "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.stderr
    cases = ["constant inputs", "large inputs", "batch size 1"]  # 3 is judged anyhow
    assert " ".join(done.stdout.split()).endswith(f"; also on {', '.join(cases)}")
    report = api.verify_folder(tmp_path / "out")
    assert [other.case for other in report.others if other.case] == cases
    assert report.passed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--batch-sizes", "one"], "expected sizes like 1,2"),
        (["--input-kinds", "odd"], "unknown kinds of inputs: odd"),
    ],
)
def test_wrong_words_are_told(words, told) -> None:
    common = ["convert", "net.pt", "--model", "a:b", "--input", "1,2", "-o", "out"]
    done = CliRunner().invoke(main, [*common, *words])
    assert done.exit_code == 2
    assert told in done.stderr


def test_what_verify_is_given_counts(pair: tuple[Any, torch.nn.Module]) -> None:
    x = torch.randn(2, 2, 6, 7)
    plain = mlxport.verify(*pair, x)
    assert (plain.passed, plain.noise_multiple, plain.gradients) == (True, 8, ())
    strict = mlxport.verify(*pair, x, noise_multiple=1e-6)
    assert (strict.passed, strict.noise_multiple) == (False, 1e-6)
    assert mlxport.verify(*pair, x, noise_multiple=500).noise_multiple == 500
    derived = mlxport.verify(*pair, x, gradients=True)
    assert derived.passed
    assert derived.gradients
    for given, case in (
        ({"input_kinds": ["constant"]}, "constant inputs"),
        ({"batch_sizes": (2, 3)}, "batch size 3"),
    ):
        assert case in [other.case for other in mlxport.verify(*pair, x, **given).others]
        assert case not in [other.case for other in plain.others]
