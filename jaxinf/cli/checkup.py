"""Self-checks against answers known beforehand, on the devices at hand."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinf.engine import data_mesh
from jaxinf.influence import attribute, forward_inf, forward_inf_jvp, grad_dot

Devices: TypeAlias = Sequence[Any]

_ROWS, _QUERIES, _WIDTH = 96, 3, 5


@dataclass(frozen=True)
class Check:
    """A check: what it measures is an error, which must not exceed what is allowed."""

    title: str
    measure: Callable[[Devices], float]
    allowed: float


@dataclass(frozen=True)
class Outcome:
    """The error measured; None, with the reason, where the check could not run."""

    measured: float | None
    passed: bool
    failure: str = ""

    @property
    def verdict(self) -> str:
        """In a word."""
        return "pass" if self.passed else "FAIL"


def device_groups() -> list[list[Any]]:
    """Devices that can share a mesh: the default backend's, and the CPU's where it is another."""
    groups = [jax.local_devices()]
    if jax.default_backend() != "cpu":
        groups.append(jax.local_devices(backend="cpu"))
    return groups


def run_check(check: Check, devices: Devices) -> Outcome:
    """Run one check; whatever goes wrong is an outcome, not an end."""
    try:
        # the default precision of GPUs and TPUs rounds products to 10 or 8 bits
        with jax.default_device(devices[0]), jax.default_matmul_precision("highest"):
            measured = float(check.measure(devices))
    except Exception as error:  # noqa: BLE001 - a broken device may raise anything
        return Outcome(None, False, f"{type(error).__name__}: {str(error).splitlines()[:1]}")
    return Outcome(measured, measured <= check.allowed)


def _closed_form(devices: Devices) -> float:
    """Squared loss of a linear model: the gradients' product is 4 r_q r_z ⟨x_q, x_z⟩."""
    train, queries = _examples(_ROWS, 0), _examples(_QUERIES, 1)
    weights = np.linspace(-1, 1, _WIDTH, dtype=np.float32)

    def loss(w: jax.Array, batch: dict[str, jax.Array]) -> jax.Array:
        return (batch["x"] @ w - batch["y"]) ** 2

    wide = [
        {key: value.astype(np.float64) for key, value in examples.items()}
        for examples in (queries, train)
    ]
    residual = [examples["x"] @ weights.astype(np.float64) - examples["y"] for examples in wide]
    expected = 4 * np.outer(*residual) * (wide[0]["x"] @ wide[1]["x"].T)
    return _error(_scores(grad_dot(loss), weights, queries, train, devices), expected)


def _jvp_is_gradients(devices: Devices) -> float:
    """Derivatives along a direction = per-example gradients contracted with it."""
    args = _network(), _examples(_QUERIES, 1), _examples(_ROWS, 0), devices
    along = _scores(forward_inf_jvp(_loss, optimizer=optax.sgd(1.0)), *args)
    return _error(along, _scores(grad_dot(_loss, scorer="gradients"), *args))


def _halving(devices: Devices) -> float:
    """The error of a finite step against its limit halves with the step: |ratio − 2|."""
    args = _network(), _examples(_QUERIES, 1), _examples(_ROWS, 0), devices

    def error(rate: float) -> float:
        sgd = optax.sgd(rate)
        finite = _scores(forward_inf(_loss, optimizer=sgd), *args)
        return _error(finite, _scores(forward_inf_jvp(_loss, optimizer=sgd), *args))

    return abs(error(0.02) / error(0.01) - 2)


def _sharded_is_single(devices: Devices) -> float:
    """Rows split over all devices of a kind score as on one."""
    args = _network(), _examples(_QUERIES, 1), _examples(_ROWS * len(devices), 0)
    method = forward_inf_jvp(_loss)
    return _error(_scores(method, *args, devices), _scores(method, *args, devices[:1]))


def _topk_is_sort(devices: Devices) -> float:
    """How many entries of the streaming top-k differ from a full sort, beyond round-off.

    The two are different programs, which XLA may fuse, and so round, differently.
    """
    args = _network(), _examples(_QUERIES, 1), _examples(_ROWS, 0)
    full, top = (
        attribute(
            grad_dot(_loss),
            *args,
            top_k=k,
            batch_size=32,
            mesh=data_mesh(devices),
            progress=False,
            diagnostics=False,
        )
        for k in (None, 7)
    )
    pairs = zip(
        (*full.proponents(7), *full.opponents(7)),
        (*top.proponents(7), *top.opponents(7)),
        strict=True,
    )
    return sum(int(np.count_nonzero(np.abs(a - b) > 1e-6 * np.abs(a).max())) for a, b in pairs)


def _store_is_memory(devices: Devices) -> float:
    """How many bits of scores change on their way through a store, and rows are scored twice."""
    args = _network(), _examples(_QUERIES, 1), _examples(_ROWS, 0)
    options: dict[str, Any] = {
        "mesh": data_mesh(devices),
        "batch_size": 32,
        "progress": False,
        "diagnostics": False,
    }
    memory = attribute(grad_dot(_loss), *args, **options).scores
    with tempfile.TemporaryDirectory() as folder:
        first, again = (
            attribute(grad_dot(_loss), *args, store=folder, **options) for _ in range(2)
        )
    changed = sum(int(np.count_nonzero(memory != run.scores)) for run in (first, again))
    return changed + again.plan.rows_scored


CHECKS = (
    Check("gradient products = closed form", _closed_form, 1e-5),
    Check("JVP = contracted gradients", _jvp_is_gradients, 1e-5),
    Check("finite step → JVP: |error ratio − 2| as lr halves", _halving, 0.2),
    Check("sharded = single device", _sharded_is_single, 1e-5),
    Check("streaming top-k = full sort: entries that differ", _topk_is_sort, 0),
    Check("store round trip: entries that differ", _store_is_memory, 0),
)


def _scores(attributor: Any, params: Any, queries: Any, train: Any, devices: Devices) -> np.ndarray:
    found = attribute(
        attributor,
        params,
        queries,
        train,
        mesh=data_mesh(devices),
        progress=False,
        diagnostics=False,
    )
    return np.asarray(found.scores)


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    """Norm of the difference over the norm."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _examples(count: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(count, _WIDTH)).astype(np.float32),
        "y": rng.normal(size=count).astype(np.float32),
    }


def _network() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {
        "inner": (rng.normal(size=(_WIDTH, 8)) / 2).astype(np.float32),
        "outer": (rng.normal(size=8) / 2).astype(np.float32),
    }


def _loss(params: dict[str, jax.Array], batch: dict[str, jax.Array]) -> jax.Array:
    outputs = jnp.tanh(batch["x"] @ params["inner"]) @ params["outer"]
    return (outputs - batch["y"]) ** 2
