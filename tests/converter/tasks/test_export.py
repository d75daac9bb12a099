"""An exported function computes what model.py does, or is not written."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import mlxport
from mlxport.cli import main
from mlxport.converter import api
from mlxport.converter.errors import ConversionError, OptionsError, ParityError
from mlxport.converter.tasks import export
from mlxport.examples.unet3d import UNet3d

Folder = Callable[..., Path]


class Several(nn.Module):
    """Takes a dict and a keyword, gives a nesting."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(
        self, given: dict[str, torch.Tensor], *, scale: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        y = self.linear(given["x"]) * scale
        return {"y": y, "more": (y > given["shift"], y.argmax(-1))}


class Draws(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + torch.rand_like(x)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Convert a model into a folder."""
    monkeypatch.chdir(tmp_path)

    def run(model: nn.Module, *inputs: object, **kwargs: object) -> Path:
        torch.save(model.state_dict(), "model.pt")
        result = api.convert_checkpoint(
            "model.pt", "out", model=model, inputs=inputs, kwargs=kwargs
        )
        assert result.report is not None
        assert result.report.passed
        return Path("out")

    return run


def test_it_gives_the_bits_of_the_model(folder: Folder) -> None:
    out = folder(UNet3d(widths=(2, 4)), "1,1,8,6,7")
    exported = mlxport.export_function(out, "unet.mlxfn")
    assert exported.identical
    assert [str(array) for array in exported.inputs] == ["x float32 (1, 1, 8, 6, 7)"]
    x = mx.random.normal((1, 1, 8, 6, 7))
    (y,) = mx.import_function("unet.mlxfn")(x)
    assert mx.array_equal(y, mlxport.load(out)(x))
    assert [path.name for path in Path().glob(".unet*")] == []


def test_nested_arguments_and_results_are_flat(folder: Folder) -> None:
    given = {"x": torch.randn(2, 3), "shift": torch.zeros(4)}
    out = folder(Several(), given, scale=torch.tensor(2.0))
    exported = mlxport.export_function(out, "several.mlxfn")
    assert [array.name for array in exported.inputs] == ['given["x"]', 'given["shift"]', "scale"]
    assert [(array.dtype, array.shape) for array in exported.outputs] == [
        ("float32", (2, 4)),
        ("bool", (2, 4)),
        ("int64", (2,)),
    ]
    function, metadata = mx.import_function("several.mlxfn", return_metadata=True)
    assert json.loads(metadata)["inputs"] == [array.name for array in exported.inputs]
    x, shift, scale = mx.ones((2, 3)), mx.full((4,), 0.5), mx.array(3.0)
    expected = mlxport.load(out)({"x": x, "shift": shift}, scale=scale)
    y, above, best = function(x, shift, scale)
    assert mx.array_equal(y, expected["y"])
    assert mx.array_equal(above, expected["more"][0])
    assert mx.array_equal(best, expected["more"][1])


def test_a_shapeless_function_takes_other_shapes(folder: Folder) -> None:
    out = folder(nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)), "2,3")
    addmm = mx.addmm
    assert not mlxport.export_function(out, "fixed.mlxfn").shapeless
    exported = mlxport.export_function(out, "free.mlxfn", shapeless=True)
    assert exported.shapeless
    assert mx.addmm is addmm
    assert exported.warnings == (export.FIXED_SIZES,)
    x = mx.random.normal((5, 3))
    (y,) = mx.import_function("free.mlxfn")(x)
    assert mx.allclose(y, mlxport.load(out)(x), atol=1e-6)
    with pytest.raises(ValueError, match="No imported function found which matches"):
        mx.import_function("fixed.mlxfn")(x)


def test_a_shapeless_function_that_is_wrong_for_other_shapes_is_refused(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder(nn.Sequential(nn.LayerNorm(3), nn.GELU()), "2,3")
    imported = mx.import_function

    def right_for_one(path: str) -> Callable[..., tuple[mx.array, ...]]:
        function = imported(path)
        return lambda x: tuple(y + (x.shape[0] != 2) for y in function(x))

    monkeypatch.setattr(mx, "import_function", right_for_one)
    with pytest.raises(ParityError, match=r"wrong for the inputs \(4, 3\)"):
        mlxport.export_function(out, "no.mlxfn", shapeless=True)
    assert not Path("no.mlxfn").exists()


class Apart(nn.Module):
    """Takes two sequences, each of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return self.linear(queries) + keys.sum(0)


@pytest.mark.parametrize("place", [0, 1], ids=["queries", "keys"])
def test_lengths_of_one_input_are_tried_by_themselves(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    out = folder(Apart(), torch.randn(4, 3), torch.randn(2, 3))
    imported = mx.import_function

    def right_where_both_change(path: str) -> Callable[..., tuple[mx.array, ...]]:
        function = imported(path)

        def run(*x: mx.array) -> tuple[mx.array, ...]:
            changed = [len(one) != size for one, size in zip(x, (4, 2), strict=True)]
            return tuple(y + (changed[place] and not changed[1 - place]) for y in function(*x))

        return run

    monkeypatch.setattr(mx, "import_function", right_where_both_change)
    shapes = [(8, 3), (2, 3)] if place == 0 else [(4, 3), (4, 3)]
    with pytest.raises(ParityError, match=re.escape(", ".join(map(str, shapes)))):
        mlxport.export_function(out, "no.mlxfn", shapeless=True)


class Fixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table


def test_a_model_of_one_shape_cannot_be_shapeless(folder: Folder) -> None:
    with pytest.raises(ParityError, match="takes no other shapes"):
        mlxport.export_function(folder(Fixed(), "2,3"), "no.mlxfn", shapeless=True)


def test_what_mlx_cannot_export_shapeless_is_refused(folder: Folder) -> None:
    out = folder(nn.Sequential(nn.Linear(3, 4), nn.ConstantPad1d(1, 0.5)), "1,2,3")
    with pytest.raises(ConversionError, match=r"cannot export .* without shapeless="):
        mlxport.export_function(out, "no.mlxfn", shapeless=True)
    assert not Path("no.mlxfn").exists()


def test_random_draws_are_refused(folder: Folder) -> None:
    out = folder(Draws(), "2,3")
    with pytest.raises(ConversionError, match="draws random numbers"):
        mlxport.export_function(out, "no.mlxfn")


def test_a_function_that_computes_something_else_is_not_written(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), "2,3")
    imported = mx.import_function

    def wrong(path: str) -> Callable[..., tuple[mx.array, ...]]:
        function = imported(path)
        return lambda *inputs: tuple(1.001 * y for y in function(*inputs))

    monkeypatch.setattr(mx, "import_function", wrong)
    with pytest.raises(ParityError, match="output 0: error"):
        mlxport.export_function(out, "no.mlxfn")
    assert list(Path().glob("*no.mlxfn*")) == []


def test_other_bits_within_the_noise_are_said_to_be_so(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), "2,3")
    imported = mx.import_function

    def near(path: str) -> Callable[..., tuple[mx.array, ...]]:
        function = imported(path)
        return lambda *inputs: tuple(y * (1 + 2**-23) for y in function(*inputs))

    monkeypatch.setattr(mx, "import_function", near)
    exported = mlxport.export_function(out, "near.mlxfn")
    assert not exported.identical
    assert "not bit-identical" in str(exported)


def test_an_existing_file_is_replaced_only_when_asked(folder: Folder) -> None:
    out = folder(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), "2,3")
    Path("mine.mlxfn").write_text("mine")
    with pytest.raises(OptionsError, match="overwrite=True"):
        mlxport.export_function(out, "mine.mlxfn")
    assert Path("mine.mlxfn").read_text() == "mine"
    mlxport.export_function(out, "mine.mlxfn", overwrite=True)
    assert Path("mine.mlxfn").stat().st_size > 100
    with pytest.raises(OptionsError, match="name a file"):
        mlxport.export_function(out, "no_such_folder/x.mlxfn")


def test_nothing_is_replaced_by_default(tmp_path: Path) -> None:
    (tmp_path / "there.mlxfn").write_bytes(b"here")
    with pytest.raises(OptionsError, match="exists already"):
        export.export_folder(tmp_path, tmp_path / "there.mlxfn")


def test_code_that_was_edited_is_refused_only_where_it_is_to_be_checked(folder: Folder) -> None:
    out = folder(nn.Linear(3, 2), torch.randn(4, 3))
    (out / "model.py").write_text((out / "model.py").read_text() + "# edited\n")
    with pytest.raises(ConversionError, match=r"model\.py"):
        export.export_folder(out, "x.mlxfn", check_code=True)
    assert not Path("x.mlxfn").exists()
    assert export.export_folder(out, "x.mlxfn").identical


NAN, INF = float("nan"), float("inf")
NEAR = {
    "equal": ([1.0, -2.0], [1.0, -2.0], True),
    "rounded": ([1.0005, -2.0], [1.0, -2.0], True),
    "more than rounded": ([1.01, -2.0], [1.0, -2.0], False),
    "rounded beside the infinite": ([INF, 1e-3, NAN], [INF, 1.0001e-3, NAN], True),
    "infinite otherwise": ([INF, 1.0], [-INF, 1.0], False),
    "infinite alone": ([INF, 1.0], [1.0, 1.0], False),
    "finite alone": ([1.0, 1.0], [INF, 1.0], False),
    "nan alone": ([NAN, 1.0], [1.0, 1.0], False),
    "equal integers": ([1000, 2], [1000, 2], True),
    "other integers": ([1000, 2], [1001, 2], False),
}


@pytest.mark.parametrize(("ours", "theirs", "near"), NEAR.values(), ids=NEAR)
def test_other_shapes_are_held_to_rounding(
    ours: list[float], theirs: list[float], near: bool
) -> None:
    output, value = mx.array(ours), mx.array(theirs)
    problem = export._difference(lambda: (output,), [], [value])
    assert problem == ("" if near else "output 0 holds other values")


def test_the_command_needs_no_torch(folder: Folder) -> None:
    folder(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), "2,3")
    code = (
        "import sys; sys.modules['torch'] = None\nfrom mlxport.cli import main\n"
        "main(['export', 'out', '-o', 'model.mlxfn'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "bit-identical to model.py" in done.stdout
    assert "float32 (2, 3)" in done.stdout


def test_the_command_fails_as_the_others_do(folder: Folder) -> None:
    folder(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), "2,3")
    result = CliRunner().invoke(main, ["export", "nowhere", "-o", "x.mlxfn"])
    assert result.exit_code == 1
    assert "nowhere" in result.stderr
