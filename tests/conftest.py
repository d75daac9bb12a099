"""What every test runs under: exact float32, few threads, one seed, repeatable examples."""

import os
import random
import sys

# Each of these is read once, at the first import of mlx and of torch.
os.environ["MLX_ENABLE_TF32"] = "0"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the test processes already share the cores

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,  # the first call of a kernel is slow, and no test here asserts time
    suppress_health_check=[HealthCheck.too_slow],  # nor how long an example takes to draw
)
settings.register_profile("explore", settings.get_profile("ci"), derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_configure() -> None:
    """Run MLX on the device of ``MLXPORT_TEST_DEVICE`` (``cpu`` or ``gpu``), if it is given."""
    if device := os.environ.get("MLXPORT_TEST_DEVICE"):
        import mlx.core as mx

        if not mx.is_available(getattr(mx, device)):
            raise pytest.UsageError(f"MLXPORT_TEST_DEVICE={device}: MLX has no such device here")
        mx.set_default_device(mx.Device(getattr(mx, device)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs Metal where there is none, and say so."""
    marked = [item for item in items if item.get_closest_marker("metal")]
    if not marked:
        return
    import mlx.core as mx  # only now: a run without such tests need not load it

    if not mx.metal.is_available():
        reason = "needs an Apple GPU: not run here"
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start every test from the same random state, whatever ran before it in this process."""
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
    if mlx_random := sys.modules.get("mlx.core"):
        mlx_random.random.seed(0)
