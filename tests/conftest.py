"""Every test runs on 8 forced host devices, so that sharding is exercised on a laptop."""

import gc
import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# the tests compile far more than they compute, and without the MLIR emitters in half the time;
# jaxlib from 0.11 on aborts on the second flag
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false"
    * (tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11)),
)

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


# Linux gives a process 65,530 memory maps; compiled programs take them, and LLVM aborts without
_MEMORY_MAPS = 30_000


def pytest_runtest_teardown(item, nextitem):
    """Between files, drop compiled programs before the process runs out of memory maps."""
    maps = Path("/proc/self/maps")
    if (nextitem is not None and nextitem.path == item.path) or not maps.exists():
        return
    with maps.open() as lines:
        if sum(1 for _ in lines) > _MEMORY_MAPS:
            jax.clear_caches()
            gc.collect()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data sets beside the repo; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no {SHARED_DATA}: the real data sets lie beside the repo only in CI")
    return SHARED_DATA


@pytest.fixture
def x64():
    """Switch jax to float64 for one test."""
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else _x64():
        yield


def _x64():
    from jax.experimental import enable_x64

    return enable_x64()
