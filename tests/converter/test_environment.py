"""What is settled before mlx is imported. Each case runs in a process of its own."""

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

import mlxport
from mlxport.converter.environment import (
    FAST_MATH,
    TESTED_TORCH,
    UntestedTorchWarning,
    warn_of_untested_torch,
)

ROOT = Path(__file__).parents[2]

LINUX_ONLY = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="MLX's own BLAS is replaced on Linux only"
)
RESOLVED = """
import ctypes, os, sys
{before}
from mlxport.converter.environment import prepare
prepare()
maps = open("/proc/self/maps").read()
fast = {{os.environ.get(name) for name in ("MLX_ENABLE_TF32", "MLX_CONV_WINOGRAD")}}
print(*fast, "libtorch_cpu" in maps, "torch" in sys.modules)
"""


def run(before="", **environment):
    env = {k: v for k, v in os.environ.items() if k not in FAST_MATH} | environment
    done = subprocess.run(
        [sys.executable, "-c", RESOLVED.format(before=before)],
        capture_output=True, text=True, env=env, check=True,
    )  # fmt: skip
    return done.stdout.split()


@LINUX_ONLY
def test_fast_math_is_off_and_torchs_blas_is_loaded_without_torch():
    assert run() == ["0", "True", "False"]


@LINUX_ONLY
@pytest.mark.parametrize("import_it", ["import mlxport", ""], ids=["import", "prepare"])
def test_the_users_settings_are_kept(import_it):
    assert run(import_it, MLX_ENABLE_TF32="1", MLX_CONV_WINOGRAD="1")[0] == "1"
    assert {*run(import_it, MLX_CONV_WINOGRAD="1")[:2]} == {"0", "1"}


@LINUX_ONLY
def test_torchs_blas_can_be_switched_off():
    assert run(MLXPORT_TORCH_BLAS="0")[1] == "False"


@LINUX_ONLY
def test_after_mlx_it_is_too_late_and_nothing_is_loaded():
    assert run("import mlx.core")[1] == "False"


SYMBOL = """
import ctypes, logging, sys
logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s %(message)s")
{code}
address = ctypes.cast(ctypes.CDLL(None).sgemm_, ctypes.c_void_p).value
for line in open("/proc/self/maps"):
    first, _, last = line.split()[0].partition("-")
    if int(first, 16) <= address < int(last, 16):
        print(line.rpartition("/")[2].strip())
print("torch" in sys.modules)
"""
TOO_LATE = (
    "DEBUG mlxport.converter.environment mlx was imported before mlxport: too late to give it "
    "torch's BLAS"
)


def blas_of(code, **environment):
    """What the name `sgemm_` stands for after the code, whether torch is there, and the log."""
    done = subprocess.run(
        [sys.executable, "-c", SYMBOL.format(code=code)],
        capture_output=True, text=True, env=dict(os.environ) | environment,
    )  # fmt: skip
    log = [line for line in done.stderr.splitlines() if " mlxport.converter.environment " in line]
    if "undefined symbol" in done.stderr:
        return None, None, log
    assert done.returncode == 0, done.stderr
    library, torch_imported = done.stdout.split()
    return library, torch_imported == "True", log


@LINUX_ONLY
@pytest.mark.parametrize(
    ("code", "torch_imported"),
    [
        ("import mlxport; import mlx.core", False),
        ("from mlxport.layers import ConvTranspose3d", False),
        ("import torch; import mlxport; import mlx.core", True),
        ("import mlxport; import torch; import mlx.core", True),
        ("from mlxport.cli import main; main(['layers', 'Bilinear'], standalone_mode=False)", None),
    ],
    ids=["mlxport", "layers", "torch first", "torch between", "command line"],
)
def test_mlx_gets_torchs_blas_however_it_is_imported(code, torch_imported):
    library, found, log = blas_of(
        f"import io; sys.stdout = io.StringIO()\n{code}\nsys.stdout = sys.__stdout__"
    )
    assert library == "libtorch_cpu.so"
    assert torch_imported is None or found is torch_imported
    assert log == []


@LINUX_ONLY
def test_the_switch_leaves_mlx_its_own():
    code = "import mlxport; import mlx.core"
    library, _, log = blas_of(code, MLXPORT_TORCH_BLAS="0")
    assert library != "libtorch_cpu.so"
    assert log == []


@LINUX_ONLY
@pytest.mark.parametrize("before", ["", "import torch; "], ids=["alone", "with torch"])
def test_that_it_is_too_late_is_said_once(before):
    later = "from mlxport.converter.environment import prepare; prepare(); import mlxport.layers"
    _, _, log = blas_of(f"{before}import mlx.core; import mlxport; {later}")
    assert log == [TOO_LATE]


@LINUX_ONLY
@pytest.mark.parametrize(("switch", "blas"), [("1", "torch's"), ("0", "MLX's own")])
def test_a_parity_report_says_which_it_was(switch, blas):
    code = (
        "from mlxport.converter.parity.run.environment import environment; "
        "print(environment({}).get('BLAS'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True,
        env=dict(os.environ) | {"MLXPORT_TORCH_BLAS": switch},
    )  # fmt: skip
    assert done.stdout.strip() == blas


@LINUX_ONLY
def test_mlx_computes_rightly_with_either_blas():
    code = (
        "{prepare}\nimport mlx.core as mx, numpy as np\n"
        "a = np.random.default_rng(0).normal(size=(65, 33)).astype('float32')\n"
        "exact = a.astype('float64') @ a.T.astype('float64')\n"
        "got = np.array(mx.array(a) @ mx.array(a).T)\n"
        "print(np.abs(got - exact).max() / np.abs(exact).max() < 1e-6)"
    )
    prepared = "from mlxport.converter.environment import prepare\nprepare()"
    for text in (code.format(prepare=""), code.format(prepare=prepared)):
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
        assert done.stdout.strip() == "True", done.stderr


FAULTS = """
import numpy as np, sys
from mlxport.converter.environment import keep_memory
if sys.argv[1:]:
    keep_memory()
import torch

def faults():
    with open("/proc/self/stat") as file:
        return int(file.read().rpartition(")")[2].split()[7])

{first}
before = faults()
{then}
print(faults() - before)
"""


def page_faults(first: str, then: str, *, keep: bool, env: Mapping[str, str] | None = None) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(first=first, then=then), *(["keep"] * keep)],
        capture_output=True, text=True, check=True, env={**os.environ, **(env or {})},
    )  # fmt: skip
    return int(done.stdout)


@LINUX_ONLY
@pytest.mark.parametrize("size", [1 << 24, (1 << 27) + 1], ids=["128 MiB", "beyond 1 GiB"])
def test_freed_memory_is_kept_for_what_comes_next(size: int) -> None:
    made = f"np.ones({size})"
    without, kept = (page_faults(made, f"{made}; {made}", keep=keep) for keep in (False, True))
    assert kept * 10 < without


def lends_large_pages() -> bool:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return setting.exists() and "[never]" not in setting.read_text()


@LINUX_ONLY
@pytest.mark.skipif(not lends_large_pages(), reason="the system lends no large pages")
@pytest.mark.parametrize(
    ("env", "large"),
    [
        pytest.param({}, True, id="by default"),
        pytest.param({"THP_MEM_ALLOC_ENABLE": "0"}, False, id="not where unwanted"),
    ],
)
def test_torch_has_its_arrays_in_large_pages(env: dict[str, str], large: bool) -> None:
    faults = page_faults("", "torch.ones(1 << 25)", keep=True, env=env)
    assert (faults < 10_000) == large  # 32,768 pages of 4 KiB


@pytest.fixture
def not_warned():
    warn_of_untested_torch.cache_clear()
    yield
    warn_of_untested_torch.cache_clear()


@pytest.mark.parametrize("version", ["2.12.1", "2.1.13", "3.13.0", "2.99.0.dev20991231+cu139", "2"])
def test_a_torch_that_was_not_tested_is_named_once(version, not_warned):
    with pytest.warns(UntestedTorchWarning, match=rf"torch {re.escape(version)}: .*2\.13"):
        warn_of_untested_torch(version)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_untested_torch(version)


@pytest.mark.parametrize("version", ["2.13.0", "2.13.0+cpu", "2.13.1+cu130", "2.13.0a0+git1a2b3c4"])
def test_no_build_of_a_tested_torch_is_named(version, not_warned):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_untested_torch(version)


def test_what_captures_a_model_warns(monkeypatch, not_warned):
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    call = torch.nn.Linear(2, 3), torch.randn(4, 2)
    with pytest.warns(UntestedTorchWarning, match=r"torch 2\.99\.0"):
        mlxport.convert(*call, verify=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mlxport.convert(*call, verify=False)


def test_the_tested_releases_are_those_of_the_metadata():
    pinned = re.search(r"^torch==(\d+\.\d+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned[1] in TESTED_TORCH
    assert f'"torch>={TESTED_TORCH[0]}"' in (ROOT / "pyproject.toml").read_text()


def test_a_process_of_our_own_looks_for_cycles_less_often():
    code = """
import gc
from mlxport.converter.environment import collect_rarely
print(*gc.get_threshold())
collect_rarely()
print(*gc.get_threshold())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = (list(map(int, line.split())) for line in done.stdout.splitlines())
    assert after[0] > 10 * before[0]
    assert after[1:] == before[1:]
