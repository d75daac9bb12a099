"""Models that draw random numbers: given PyTorch's to be verified, drawing their own after."""

import json

import mlx.core as mx
import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.errors import ParityError
from mlxport.converter.graph.translate import translate
from mlxport.converter.output.lineage import record_lineage
from mlxport.converter.output.live_model import load_source
from mlxport.converter.parity.verdict.entry import ALONE, IN_PLACE, WHOLE
from mlxport.converter.tasks.verify_folder import verify_folder


class Sample(nn.Module):
    """Draws from the posterior of a VAE."""

    def forward(self, mean, logvar):
        return mean + torch.randn_like(logvar) * torch.exp(0.5 * logvar)


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Conv3d(1, 6, 3, padding=1)
        self.mean = nn.Conv3d(6, 4, 1)
        self.logvar = nn.Conv3d(6, 4, 1)
        self.sample = Sample()
        self.decode = nn.Conv3d(4, 2, 3, padding=1)

    def forward(self, x):
        h = torch.tanh(self.encode(x))
        mean, logvar = self.mean(h), self.logvar(h)
        return self.decode(self.sample(mean, logvar)), mean, logvar


class Noise(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        return self.lin(x) + torch.randn_like(x) * x.abs()


class CalledTwice(nn.Module):
    """Both calls draw, and the model between and around them."""

    def __init__(self):
        super().__init__()
        self.noise = Noise()

    def forward(self, x):
        scale = torch.rand(4) + 0.5
        return self.noise(self.noise(x) * torch.rand_like(x)) / scale


class InALoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(Noise(), Noise(), nn.Tanh(), Noise())

    def forward(self, x):
        return self.layers(x + torch.randn(4, dtype=x.dtype))


class Masked(nn.Module):
    """Leaves channels and voxels out at random, as some models do at inference."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.gate = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.conv(x)
        kept = torch.bernoulli(torch.sigmoid(self.gate(x)))
        return x * kept * torch.empty(4, 1, 1).bernoulli_(0.5)


class Codes(nn.Module):
    """Picks rows by index: drawn alike, by weight, and in an order."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(16, 4)

    def forward(self, x):
        picked = torch.randint(0, 16, (x.shape[0], 3))
        chosen = torch.multinomial(torch.softmax(x, -1), 2)
        rows = self.table(picked) + x[:, None]
        return rows[:, torch.randperm(3)], self.table(chosen), chosen


class ManyDraws(nn.Module):
    """Reads what it drew in another order than it drew it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        x = self.conv(x)
        first, second = torch.randn_like(x), torch.randn_like(x)
        gumbel = nn.functional.gumbel_softmax(x, dim=1)
        free = torch.distributions.Normal(x, x.exp(), validate_args=False).rsample()
        low = torch.empty_like(x).uniform_(-1, 3)
        return second - 2 * first * free, gumbel * low, torch.normal(x, 0.1)


IMAGE = torch.linspace(-2, 2, 2 * 3 * 4 * 4).sin().reshape(2, 3, 4, 4)
ROWS = torch.linspace(-1, 1, 20).reshape(5, 4)
MODELS = {
    "vae": (VAE, torch.linspace(-2, 2, 64).cos().reshape(1, 1, 4, 4, 4), 1),
    "a submodule called twice": (CalledTwice, ROWS, 4),
    "a loop": (InALoop, ROWS, 4),
    "masks": (Masked, IMAGE, 2),
    "indices": (Codes, ROWS, 3),
    "many draws": (ManyDraws, IMAGE, 6),
}


def made(name, dtype=torch.float32):
    model, x, draws = MODELS[name]
    torch.manual_seed(0)
    return model().to(dtype), x.to(dtype), draws


CASES = [(name, dtype) for name in MODELS for dtype in (torch.float32, torch.bfloat16)]


@pytest.mark.parametrize(("name", "dtype"), [*CASES, ("vae", torch.float16)], ids=str)
def test_holds(name, dtype):
    model, x, draws = made(name, dtype)
    report = mlxport.convert(model, x).report
    assert report.passed, report.to_text()
    assert report.draws == draws
    assert report.reference_dtype == "float64"
    for entry in report.entries:
        assert {IN_PLACE, ALONE} <= set(entry.verdicts), f"{entry.path}: {entry.skipped}"
    for entry in report.outputs:
        assert {IN_PLACE, WHOLE} <= set(entry.verdicts)


def test_the_report_tells_of_the_draws():
    model, x, _ = made("a submodule called twice")
    report = mlxport.convert(model, x).report
    assert "4 random draws replayed" in report.verdict
    assert report.to_json()["draws"] == 4
    assert type(report).from_json(report.to_json()).draws == 4
    assert "replayed" not in mlxport.convert(nn.Linear(3, 2), torch.ones(1, 3)).report.verdict


def test_source():
    model, x, _ = made("vae")
    source = translate(model, (x,)).source
    assert "mean + mx.random.normal(logvar.shape).astype(exp.dtype) * exp" in source
    assert "replay" not in source


def test_the_model_draws_its_own_numbers():
    model, x, _ = made("vae")
    ours, given = mlxport.convert(model, x).model, mx.array(x.numpy())
    mx.random.seed(3)
    first, again = ours(given)[0], ours(given)[0]
    assert not mx.allclose(first, again)
    mx.random.seed(3)
    assert mx.array_equal(ours(given)[0], first)


def test_verified_once_more_on_another_input():
    model, x, _ = made("vae")
    converted = mlxport.convert(model, x)
    assert mlxport.verify(converted.model, model, x * 2 + 1).passed


def test_arguments_are_told_apart_by_what_was_drawn():
    torch.manual_seed(7)  # another state than that the model is tried in

    class Swapped(nn.Module):
        def forward(self, gate, x):
            return x.exp() + 2 * gate

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Swapped()

        def forward(self, x):
            x = torch.randn_like(x)
            return self.inner(torch.rand_like(x), x)

    converted = mlxport.convert(Net(), ROWS)
    assert "def __call__(self, gate: mx.array, x: mx.array)" in converted.source
    assert converted.report.passed


def test_results_are_told_apart_by_what_was_drawn():
    class Encoder(nn.Module):
        def forward(self, x):
            mean, logvar = x.chunk(2, -1)
            return logvar, mean + torch.randn_like(mean) * logvar.exp(), mean

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = Encoder()

        def forward(self, x):
            return self.encoder(x + torch.rand_like(x))

    report = mlxport.convert(Net(), ROWS).report
    assert report.passed
    judged = {entry.path: set(entry.verdicts) for entry in report.entries}
    assert judged == {"encoder": {IN_PLACE, ALONE}}


# -- wrong models --------------------------------------------------------------------------------

FAULTS = {
    "deviation forgotten": (" * exp\n", "\n", "sample"),
    "deviation squared": ("mx.exp(logvar * 0.5)", "mx.exp(logvar)", "sample"),
    "mean forgotten": ("return mean + ", "return ", "sample"),
    "drawn in another order": (
        "mx.random.normal(logvar.shape)",
        "mx.random.normal(logvar.shape).transpose(0, 3, 2, 1, 4)",
        "sample",
    ),
}


def faulty(old, new):
    model, x, _ = made("vae")
    converted = mlxport.convert(model, x)
    assert converted.source.count(old) == 1
    source = converted.source.replace(old, new)
    wrong = load_source(source, converted.conversion.layers).Model()
    wrong.update(converted.model.parameters())
    record_lineage(wrong.eval(), converted.conversion)
    return mlxport.verify(wrong, model, x)


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_use_fails(name):
    old, new, culprit = FAULTS[name]
    report = faulty(old, new)
    assert not report.passed
    assert report.culprit == culprit


DRAW = "mx.random.normal(logvar.shape)"
UNLIKE = {
    "left out": ("mx.ones_like(logvar)", "0 random draws of the 1"),
    "of another shape": ("mx.random.normal((4,))", r"asks for normal \(4,\) of float32"),
    "of another dtype": ("mx.random.normal(logvar.shape, dtype=mx.float16)", "of float16"),
    "of another kind": ("mx.random.uniform(shape=logvar.shape)", "asks for uniform"),
    "made twice": (f"{DRAW} + {DRAW}", "PyTorch made 1 only"),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_another_draw_than_pytorchs_is_reported(name):
    new, problem = UNLIKE[name]
    with pytest.raises(ParityError, match=problem):
        faulty(DRAW, new)


def test_a_draw_that_is_not_used_is_reported():
    class Unused(nn.Module):
        def forward(self, x):
            torch.randn(3)
            return x + torch.randn_like(x)

    with pytest.raises(ParityError, match="A draw whose numbers the model does not use"):
        mlxport.convert(Unused(), ROWS)


# -- folders -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    model, x, _ = made("vae")
    torch.save(model.state_dict(), tmp_path / "vae.pt")
    mlxport.convert_checkpoint(tmp_path / "vae.pt", tmp_path / "out", model=model, inputs=[x])
    return tmp_path / "out"


def test_a_folder_holds_the_draws(folder):
    report = verify_folder(folder)
    assert report.passed
    assert report.draws == 1


def test_a_folder_is_verified_without_torch(folder, run_without):
    code = (
        "from mlxport.converter.tasks.verify_folder import verify_folder\n"
        "import json\nprint(json.dumps(verify_folder(sys.argv[1]).to_json()))"
    )
    done = run_without(["torch"], code, str(folder))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["passed"] is True
    assert report["draws"] == 1


def test_a_folders_model_is_held_to_the_draws(folder):
    path = folder / "model.py"
    path.write_text(path.read_text().replace(" * exp\n", " * 1.0\n"))
    report = verify_folder(folder)
    assert not report.passed
    assert report.culprit == "sample"


def test_monai_autoencoder():
    networks = pytest.importorskip("monai.networks.nets", reason="MONAI is not installed")
    torch.manual_seed(0)
    model = networks.AutoencoderKL(
        3,
        1,
        1,
        num_res_blocks=(1, 1),
        channels=(4, 8),
        latent_channels=2,
        norm_num_groups=2,
        attention_levels=(False, True),
    )
    report = mlxport.convert(model, torch.randn(1, 1, 8, 8, 8)).report
    assert report.passed, report.to_text(failing_first=True, limit=10)
    assert report.draws == 1
