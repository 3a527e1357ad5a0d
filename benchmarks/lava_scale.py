"""Values of 1.28 million examples on one accelerator, end to end, and how near the floor that is.

    python -m benchmarks.lava_scale [--runs annealed:streamed,balanced:streamed] [--quick]

Rows of the output that are of other runs, on the same device and of the same size, are kept.

Synthetic features: a Gaussian per class, on the device; a tenth of the training labels are wrong,
so that the values can be seen to find something. From features to values: label distances of all
C x C pairs of classes, the transport, the calibrated gradients and the certificate. The first
call compiles; the second does not.

Accuracy: reductions of the cost with the potentials found are repeated for some rows in float64 on
the host. Floor of one reading of the cost: its products at the rate of a large product of the
same precision on the same device, or its exponentials, or the inputs read once, whichever is
longest.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, read_results, read_settings, write_result

# exponentials: 132 multiprocessors of 16 a cycle at 1.83 GHz; bytes a second: as measured elsewhere
EXPONENTIALS, BANDWIDTH = 3.9e12, 4.3e12


def make_sets(n: int, m: int, width: int, classes: int) -> tuple[Any, ...]:
    """(x, labels, xv, valid labels, which labels are wrong), features on the device."""
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    truth, valid = rng.integers(classes, size=n), rng.integers(classes, size=m)
    wrong = rng.random(n) < 0.1
    given = np.where(wrong, (truth + rng.integers(1, classes, size=n)) % classes, truth)
    keys = jax.random.split(jax.random.key(0), 3)
    centres = jax.random.normal(keys[0], (classes, width)) / np.sqrt(width) * 2
    noise = lambda key, count: jax.random.normal(key, (count, width)) / np.sqrt(width)
    x = jax.jit(lambda c: centres[c] + noise(keys[1], n))(jnp.asarray(truth))
    xv = jax.jit(lambda c: centres[c] + noise(keys[2], m))(jnp.asarray(valid))
    return jax.block_until_ready(x), given, jax.block_until_ready(xv), valid, wrong


def product_rate(size: int = 8192) -> float:
    """Operations a second of a large product in the precision that the cost is computed in."""
    import jax
    import jax.numpy as jnp

    from jaxinf.valuation.distances import float32_products

    a = jax.random.normal(jax.random.key(1), (size, size))
    multiply = jax.jit(lambda a: jnp.matmul(a, a.T, precision=float32_products()))
    jax.block_until_ready(multiply(a))
    best = np.inf
    for _ in range(3):
        began = time.perf_counter()
        jax.block_until_ready(multiply(a))
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def log_sum_error(found: Any, x: Any, y: Any, xv: Any, yv: Any, rows: int = 64) -> float:
    """Largest error of log Σ_j b_j exp((g_j − c_ij)/ε) on some rows, against float64."""
    import jax.numpy as jnp

    from jaxinf.valuation.distances import squared_distances

    at = np.linspace(0, len(y) - 1, rows).astype(int)
    epsilon, g = float(found.epsilon), np.asarray(found.g, np.float64)
    some, others = np.asarray(x[at], np.float64), np.asarray(xv, np.float64)
    squares = (some**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2 * some @ others.T
    table = np.asarray(found.label_distances, np.float64)
    between = table[np.searchsorted(found.train_classes, y[at])]
    between = between[:, np.searchsorted(found.valid_classes, yv)]
    exact = g - squares / 2 - between
    top = exact.max(1) / epsilon
    wanted = top + np.log(np.exp(exact / epsilon - top[:, None]).mean(1))
    ours = squared_distances(x[at], xv) / 2 + jnp.asarray(between, jnp.float32)
    logits = (found.g[None] - ours) / epsilon
    top = jnp.max(logits, axis=1)
    lse = top + jnp.log(jnp.mean(jnp.exp(logits - top[:, None]), axis=1))
    return float(np.max(np.abs(np.asarray(lse) - wanted)))


# the converged solver at the softest ε that still transports (docs/valuation.md)
OPTIONS: dict[str, dict[str, Any]] = {
    "annealed": {},
    "balanced": {"epsilon": 0.05, "threshold": 1e-3, "max_iterations": 127},
}


def measure(
    sets: tuple[Any, ...],
    solver: str,
    route: str,
    checks: int,
    rate: float,
    after_first: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Time `lava` twice on one route, and say what its values are worth.

    `after_first` is given what the first call, compiling included, says already.
    """
    import jax

    from jaxinf.valuation import lava
    from jaxinf.valuation.pose import between_classes
    from jaxinf.valuation.sides import read_sides

    x, y, xv, yv, wrong = sets
    n, m, width = len(y), len(yv), x.shape[1]
    calls = []
    for _ in range(2):
        began = time.perf_counter()
        found = lava(x, y, xv, yv, solver=solver, route=route, num_checks=checks, **OPTIONS[solver])
        jax.block_until_ready(found.values)
        calls.append(time.perf_counter() - began)
        print(f"{solver}, {route}: {calls[-1]:.1f} s", flush=True)
        if len(calls) == 1:
            after_first({"solver": solver, "route": route} | _figures(found, calls[0], wrong))
    began = time.perf_counter()
    # as `lava` does, so that its compiled program serves
    with jax.default_matmul_precision("highest"):
        sides = read_sides(x, y, xv, yv)
        jax.block_until_ready(between_classes(*sides, epsilon=0.05, label_weight=1.0, p=2))
    labels = time.perf_counter() - began
    readings = int(found.num_iterations)
    if solver == "annealed":
        # before the first ε, the full update after the last, and the look at its sums
        readings = (readings + 3) * (1 + checks)
    product = 2 * n * m * width / rate
    floor = max(product, n * m / EXPONENTIALS, 4 * (n + m) * width / BANDWIDTH)
    each = (calls[1] - labels) / readings
    memory = jax.devices()[0].memory_stats() or {}
    figures = _figures(found, calls[0], wrong)
    return (
        {"solver": solver, "route": route, "checks": checks}
        | figures
        | {
            "seconds": calls[1],
            "labels_s": labels,
            "readings": readings,
            "reading_s": each,
            "floor_s": floor,
            "fraction_of_floor": floor / each,
            "log_sum_error": log_sum_error(found, x, y, xv, yv),
            "device_peak_bytes": memory.get("peak_bytes_in_use"),
            "values": np.asarray(found.values),
        }
    )


def _figures(found: Any, first_call: float, wrong: np.ndarray) -> dict[str, Any]:
    """What one call says."""
    from sklearn.metrics import roc_auc_score

    certificate = found.certificate
    moved = certificate.finite_difference_error if len(certificate.checked) else None
    return {
        "converged": bool(found.converged),
        "iterations": int(found.num_iterations),
        "first_call_s": first_call,
        "marginal_error": float(certificate.marginal_error),
        "dual_gap": float(certificate.dual_gap),
        "finite_difference_error": None if moved is None else float(moved),
        "wrong_labels_auroc": float(roc_auc_score(wrong, -np.asarray(found.values))),
    }


def main() -> None:
    """Write the JSON after every route."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=1_280_000)
    parser.add_argument("--m", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--runs", default="annealed:streamed,annealed:kernel,balanced:streamed")
    parser.add_argument("--checks", type=int, default=1, help="of the annealed certificate")
    parser.add_argument("--quick", action="store_true", help="a small problem")
    parser.add_argument("--output", type=Path, default=RESULTS / "lava_scale.json")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.n, arguments.m, arguments.width, arguments.classes = 2000, 500, 16, 10
    import jax

    device = jax.devices()[0].device_kind
    rate = product_rate(512 if arguments.quick else 8192)
    print(f"{device}: {rate / 1e12:.1f} TFLOP/s of large products", flush=True)
    sets = make_sets(arguments.n, arguments.m, arguments.width, arguments.classes)
    settings = {name: getattr(arguments, name) for name in ("n", "m", "width", "classes")}
    settings |= {"device": device, "product_flops": rate, "quick": arguments.quick}
    same = all(
        read_settings(arguments.output).get(name) == settings[name]
        for name in ("n", "m", "width", "classes", "device", "quick")
    )
    runs = [tuple(run.split(":")) for run in arguments.runs.split(",")]
    before = read_results(arguments.output) if same else []
    rows = [row for row in before if (row["solver"], row["route"]) not in runs]
    firsts: dict[str, np.ndarray] = {}
    for solver, route in runs:
        # a check of a converged solution solves the problem twice more
        checks = arguments.checks if solver == "annealed" else 0
        so_far = lambda first: write_result(arguments.output, settings, [*rows, first])
        row = measure(sets, solver, route, checks, rate, so_far)
        values = row.pop("values")
        first = firsts.setdefault(solver, values)
        row["off_first_route"] = float(np.max(np.abs(values - first)) / np.ptp(first))
        rows.append(row)
        print(row, flush=True)
        write_result(arguments.output, settings, rows)


if __name__ == "__main__":
    main()
