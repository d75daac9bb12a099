"""Output folders of models that keep state: verified call by call, loaded, restored, converted."""

import mlx.core as mx
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mlx.utils import tree_flatten
from safetensors.torch import load_file, save_file
from torch import nn

import mlxport
from mlxport.cli import main
from mlxport.converter.errors import ConversionError, OptionsError

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


class Follows(nn.Module):
    """Keeps a moving average and, outside of its state dict, how often it was called."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("mean", torch.full((3,), 0.25))
        self.register_buffer("count", torch.zeros((), dtype=torch.int32), persistent=False)

    def forward(self, x):
        x = self.linear(x)
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        self.count += 1
        return (x - self.mean) * self.count


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("state")
    model = Follows().eval()
    save_file(model.state_dict(), folder / "source.safetensors")
    result = mlxport.convert_checkpoint(
        folder / "source.safetensors", folder / "out", model=model, inputs=[X], calls=11
    )
    assert result.report.passed
    return folder, model, result


def _calls(model, count):
    return [np.array(model(mx.array(X.numpy()))) for _ in range(count)]


@pytest.fixture
def expected(converted):
    model = Follows().eval()
    model.load_state_dict(converted[1].state_dict())
    with torch.no_grad():
        return model, [model(X).numpy() for _ in range(3)]


def test_the_record_says_what_is_kept(converted):
    _, _, result = converted
    kept = {state.path: (state.target, state.layout.dtype) for state in result.conversion.state}
    assert kept == {"mean": ("mean", "float32"), "count": ("count", "int32")}
    assert [run.case for run in result.report.others] == [f"call {n}" for n in range(2, 12)]
    assert "2 arrays of state" in result.report.verdict
    states = [entry.label for entry in result.report.others[-1].entries if entry.layer == "state"]
    assert states == ["state mean", "state count"]


def test_the_stored_calls_are_verified_in_their_order(converted):
    folder, _, _ = converted
    report = CliRunner().invoke(main, ["verify", str(folder / "out")])
    assert report.exit_code == 0, report.output
    assert "also on call 2, call 3" in report.output
    assert "call 9, call 10, call 11" in report.output


def test_a_wrong_state_fails_though_the_outputs_of_the_call_are_right(converted):
    model = Follows().eval()
    live = mlxport.convert(model, X).model
    cls = type(live)

    class Wrong(cls):
        def __call__(self, x):
            result = super().__call__(x)
            self.mean = self.mean + 1e-3
            return result

    live.__class__ = Wrong
    report = mlxport.verify(live, model, X, calls=1)
    assert [entry.label for entry in report.failed_entries] == ["state mean"]
    assert not mlxport.verify(live, model, X, calls=2).others[0].passed


def test_verifying_begins_anew_and_leaves_the_state(converted):
    folder, model, _ = converted
    live = mlxport.load(folder / "out")
    _calls(live, 2)
    count, mean = live.count.item(), np.array(live.mean)
    assert mlxport.verify(live, model, X).passed
    assert (live.count.item(), np.array(live.mean).tolist()) == (count, mean.tolist())


def test_state_is_saved_loaded_and_restored(converted, expected, tmp_path):
    folder, model, _ = converted
    followed, outputs = expected
    live = mlxport.load(folder / "out")
    for given, wanted in zip(_calls(live, 3), outputs, strict=True):
        np.testing.assert_allclose(given, wanted, atol=1e-5)
    live.save_weights(str(tmp_path / "now.safetensors"))

    mlxport.restore(folder / "out", tmp_path / "begun.safetensors")
    begun = load_file(tmp_path / "begun.safetensors")
    assert all(torch.equal(begun[key], value) for key, value in model.state_dict().items())
    now = tmp_path / "now.safetensors"
    mlxport.restore(folder / "out", tmp_path / "went_on.safetensors", weights=now)
    went_on = load_file(tmp_path / "went_on.safetensors")
    torch.testing.assert_close(went_on["mean"], followed.mean)

    again = mlxport.load(folder / "out")
    again.load_weights(str(now))
    np.testing.assert_array_equal(_calls(again, 1)[0], _calls(live, 1)[0])
    again.reset()  # to what was loaded
    assert (again.count.item(), live.count.item()) == (3, 4)
    live.reset()
    assert live.count.item() == 0

    plan = mlxport.convert_checkpoint(
        tmp_path / "went_on.safetensors", tmp_path / "two", plan=folder / "out/conversion.json"
    )
    np.testing.assert_allclose(np.array(plan.model.mean), followed.mean.numpy(), atol=1e-6)


def test_state_is_not_trained_and_follows_the_dtype(converted):
    folder, _, _ = converted
    live = mlxport.load(folder / "out")
    live.unfreeze()
    trained = [name for name, _ in tree_flatten(live.trainable_parameters())]
    assert sorted(trained) == ["linear.bias", "linear.weight"]
    live.set_dtype(mx.float16)
    live.reset()
    assert live(mx.array(X.numpy()).astype(mx.float16)).dtype == mx.float16
    assert (live.mean.dtype, live.count.dtype) == (mx.float16, mx.int32)


def test_a_function_keeps_nothing(converted, tmp_path):
    folder, _, _ = converted
    with pytest.raises(ConversionError, match="the model keeps mean, count from call to call"):
        mlxport.export_function(folder / "out", tmp_path / "out.mlxfn")


def test_calls_are_judged_of_any_converted_model_and_of_no_other():
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    result = mlxport.convert(model, X, calls=2)
    assert [run.case for run in result.report.others] == ["call 2"]
    assert not mlxport.convert(model, X).report.others
    with pytest.raises(OptionsError, match="calls"):
        mlxport.convert(model, X, calls=0)
    port = mlxport.convert_layer(model)
    with pytest.raises(OptionsError, match="calls: for models that mlxport converted"):
        mlxport.verify(port, model, X, calls=2)
