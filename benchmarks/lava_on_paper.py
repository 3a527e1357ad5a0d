"""What values for 1.28 million examples should cost on accelerators: arithmetic from pieces.

    python -m benchmarks.lava_on_paper [--quick]

Nothing here was run on those machines. The counts are the program's own, measured on a small set
of the same kind: how often the annealed solver reads the cost, and how many iterations a label
distance takes. The rates are the machines' published ones, but for the H200's, of which 790
TFLOP/s of a large bfloat16 product and 4.3 TB/s were measured elsewhere; its TF32 rate is half of
that. One reading of the cost is

- a product of 2 n m d operations,
- n m exponentials,
- five passes over n m numbers, where tiles go through memory (the product writes them, the
  exponential reads and writes them, two sums read them); none with a fused kernel,
- two reductions of m numbers where rows are split over devices,

one after the other. A label distance holds its kernel and reads it twice an iteration; over all
pairs of classes the kernels have n m entries, once more from a product and exponentials.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import RESULTS, write_result

N, M, WIDTH, CLASSES = 1_280_000, 50_000, 512, 1000
PASSES, REDUCTIONS, ITEM = 5, 2, 4


class Machine(NamedTuple):
    """Rates of one device, and how many there are.

    Attributes:
        devices: over which rows are split.
        flops: of a large product, a second.
        exponentials: a second.
        memory: bytes a second.
        network: bytes a second in and out of a device, for reductions.
        latency: seconds of one hop of a reduction.
    """

    devices: int
    flops: float
    exponentials: float
    memory: float
    network: float
    latency: float


# 132 multiprocessors of 16 exponentials a cycle at 1.83 GHz; 1024 lanes at 1.5 GHz
_H200 = Machine(1, 395e12, 3.9e12, 4.3e12, 50e9, 5e-6)
MACHINES = {
    "1 H200, TF32": _H200,
    "1 H200, bfloat16 products": _H200._replace(flops=790e12),
    "8 TPU v5e, bfloat16 products": Machine(8, 197e12, 1.5e12, 0.819e12, 200e9, 1e-6),
    "64 H200, TF32": _H200._replace(devices=64),
}


def estimate(machine: Machine, readings: int, iterations: float) -> dict[str, float]:
    """Seconds of every part.

    Example:
        >>> found = estimate(MACHINES["1 H200, TF32"], readings=15, iterations=31)
        >>> round(found["product"], 3), round(found["tiles"], 2)
        (0.166, 0.3)
    """
    entries = N * M / machine.devices
    product = 2 * entries * WIDTH / machine.flops
    exponentials = entries / machine.exponentials
    tiles = PASSES * ITEM * entries / machine.memory
    reductions = 0.0
    if machine.devices > 1:
        # a ring: every number crosses a link twice, in as many hops as there are devices
        ring = 2 * ITEM * M / machine.network + 2 * machine.devices * machine.latency
        reductions = REDUCTIONS * ring
    found = {
        "product": product,
        "exponentials": exponentials,
        "tiles": tiles,
        "reductions": reductions,
        "readings": readings * (product + exponentials + tiles + reductions),
        "labels": product + exponentials + 2 * ITEM * entries * iterations / machine.memory,
    }
    return found | {"total": found["readings"] + found["labels"]}


def counts(size: int, classes: int) -> tuple[int, float]:
    """Readings of the cost by `lava`, and iterations of a label distance, on clustered features."""
    import jax.numpy as jnp
    from ott.geometry.geometry import Geometry

    from jaxinf.valuation import lava
    from jaxinf.valuation.distances import squared_distances
    from jaxinf.valuation.transport import solve_transport

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(classes, WIDTH)).astype(np.float32)
    y, yv = np.arange(size) % classes, np.arange(size // 4) % classes
    x, xv = (centres[c] + rng.standard_normal((len(c), WIDTH), np.float32) for c in (y, yv))
    found = lava(x, y, xv, yv, num_checks=0)
    # before the first ε, the full update after the last, and the look at its sums
    readings = int(found.num_iterations) + 3
    # a class of the size it has in the large problem: 1,280 examples and 50
    taken = []
    for other in range(4):
        left = centres[0] + rng.standard_normal((N // CLASSES, WIDTH), np.float32)
        right = centres[other] + rng.standard_normal((M // CLASSES, WIDTH), np.float32)
        cost = squared_distances(jnp.asarray(left), jnp.asarray(right)) / 2
        a, b = (jnp.full(count, 1 / count) for count in cost.shape)
        solved = solve_transport(Geometry(cost), a, b, epsilon=0.05 * float(cost.mean()))
        taken.append(int(solved.num_iterations))
    return readings, float(np.mean(taken))


def main() -> None:
    """Write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="counts from a smaller set")
    parser.add_argument("--output", type=Path, default=RESULTS / "lava_on_paper.json")
    arguments = parser.parse_args()
    readings, iterations = counts(*((200, 10) if arguments.quick else (4000, 100)))
    settings: dict[str, Any] = {"n": N, "m": M, "d": WIDTH, "classes": CLASSES}
    settings |= {"steps": readings, "iterations": iterations, "quick": arguments.quick}
    rows = [
        {"machine": name} | estimate(machine, readings, iterations)
        for name, machine in MACHINES.items()
    ]
    write_result(arguments.output, settings, rows)


if __name__ == "__main__":
    main()
