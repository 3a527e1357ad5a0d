"""What values of 1.28 million examples should cost on 64 GPUs and on 8 TPU chips.

    python -m benchmarks.lava_on_paper [--measured benchmarks/results/lava_scale.json]

Only the line of one H200 was run; the others are worked out from its pieces, which
`benchmarks.lava_scale` measured: seconds of one reading of the cost and how often it is read, what
share of the floor of a reading is reached, seconds of the label distances, what compiling adds.

- 64 H200: readings of a device's share of the rows, in proportion; classes are dealt to devices
  whole, so label distances take the share of the fullest. Every process compiles what one does.
- 8 TPU v5e: the floor of a reading by the chip's published rates, over the share of its floor that
  the H200 reached; label distances by the same two ratios. A product of float32's accuracy takes
  six bfloat16 products there. Compiling was not measured.
- Reductions were measured nowhere: a ring by the published rate of the links, two of m numbers a
  reading for the annealed solver, one for a converged one.

The tensors that a device holds are counted from the shapes of the program's own arguments.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import RESULTS, write_result

FLOAT = 4
# entries of the cost in one tile on an accelerator (`jaxinf.valuation.geometry.tile_entries`)
TILE = 1 << 26


class Machine(NamedTuple):
    """Published rates of one device, and how many there are.

    Attributes:
        devices: over which rows are split.
        flops: of a large product of float32's accuracy, a second; 0 takes what was measured.
        exponentials: a second.
        memory: bytes a second.
        network: bytes a second in and out of a device, for reductions.
        latency: seconds of one hop of a reduction.
        kind: the devices that were measured, or others.
    """

    devices: int
    flops: float
    exponentials: float
    memory: float
    network: float
    latency: float
    kind: str


# 132 multiprocessors of 16 exponentials a cycle at 1.83 GHz
_H200 = Machine(1, 0.0, 3.9e12, 4.8e12, 50e9, 5e-6, "NVIDIA H200")
MACHINES = {
    "1 H200 (measured)": _H200,
    "64 H200": _H200._replace(devices=64),
    # 197 bfloat16 TFLOP/s; 1024 lanes at 1.5 GHz; links of 1,600 Gbit/s
    "8 TPU v5e": Machine(8, 197e12 / 6, 1.5e12, 0.819e12, 200e9, 1e-6, "TPU v5e"),
}


class Measured(NamedTuple):
    """One solver's row of `benchmarks.lava_scale`, and the size of its problem.

    Attributes:
        n: training examples.
        m: validation examples.
        width: of the features.
        classes: on both sides.
        flops: of a large product on that device, a second.
        solver: its name.
        readings: of the cost, in one solve without a certificate.
        reading: seconds of one.
        labels: seconds of all label distances.
        compiling: seconds by which the first call is longer.
    """

    n: int
    m: int
    width: int
    classes: int
    flops: float
    solver: str
    readings: int
    reading: float
    labels: float
    compiling: float


def measured_solvers(document: dict[str, Any]) -> list[Measured]:
    """The streamed rows that were measured to the end."""
    settings = document["settings"]
    sizes = [settings[name] for name in ("n", "m", "width", "classes", "product_flops")]
    return [
        Measured(
            *sizes,
            solver=row["solver"],
            readings=row["readings"] // (1 + row["checks"]),
            reading=row["reading_s"],
            labels=row["labels_s"],
            compiling=row["first_call_s"] - row["seconds"],
        )
        for row in document["results"]
        if row["route"] == "streamed" and "reading_s" in row
    ]


def floor_of(machine: Machine, found: Measured) -> float:
    """Seconds of one reading, were products, exponentials or memory all that it takes.

    Example:
        >>> one = Measured(10**6, 10**4, 500, 10, 1e14, "annealed", 10, 0.2, 1.0, 5.0)
        >>> round(floor_of(MACHINES["1 H200 (measured)"], one), 3)
        0.1
    """
    entries = found.n * found.m / machine.devices
    product = 2 * entries * found.width / (machine.flops or found.flops)
    inputs = FLOAT * (found.n / machine.devices + found.m) * found.width / machine.memory
    return max(product, entries / machine.exponentials, inputs)


def estimate(machine: Machine, found: Measured) -> dict[str, Any]:
    """Seconds of every part.

    Example:
        >>> one = Measured(10**6, 10**4, 500, 10, 1e14, "annealed", 10, 0.2, 1.0, 5.0)
        >>> estimate(MACHINES["1 H200 (measured)"], one)["total"]
        3.0
    """
    of_one = floor_of(_H200, found)
    floor = floor_of(machine, found)
    # the same share of the floor everywhere
    reading = floor / of_one * found.reading
    if machine.kind == _H200.kind:
        fullest = -(-found.classes // machine.devices)
        labels = found.labels * fullest / found.classes
    else:
        labels = floor / of_one * found.labels
    reductions = 0.0
    if machine.devices > 1:
        # a ring: every number crosses a link twice, in as many hops as there are devices
        ring = 2 * FLOAT * found.m / machine.network + 2 * machine.devices * machine.latency
        reductions = (2 if found.solver == "annealed" else 1) * ring
    return {
        "solver": found.solver,
        "readings": found.readings,
        "floor": floor,
        "share_of_floor": of_one / found.reading,
        "reading": reading,
        "reductions": reductions,
        "labels": labels,
        "total": found.readings * (reading + reductions) + labels,
        "compiling": found.compiling if machine.kind == _H200.kind else None,
    }


def tensors(devices: int, found: Measured) -> list[dict[str, Any]]:
    """What one device holds of a streamed solve, largest first, from shapes alone.

    Example:
        >>> one = Measured(10**6, 10**4, 500, 10, 1e14, "annealed", 10, 0.2, 1.0, 5.0)
        >>> held = tensors(8, one)
        >>> held[0]["name"], held[0]["shape"], held[0]["bytes"]
        ('tile of the cost', [6710, 10000], 268400000)
        >>> held[1]["shape"], held[1]["split"]
        ([125000, 500], True)
    """
    import jax
    import jax.numpy as jnp

    from jaxinf.valuation.geometry import ClassWiseGeometry

    rows = -(-found.n // devices)
    shape = jax.ShapeDtypeStruct
    x, y = (shape((count, found.width), jnp.float32) for count in (rows, found.m))
    of_x, of_y = (shape((count,), jnp.int32) for count in (rows, found.m))
    table = shape((found.classes, found.classes), jnp.float32)
    geometry = jax.eval_shape(ClassWiseGeometry, x, y, of_x, of_y, table)
    tile = jax.eval_shape(
        ClassWiseGeometry.tile_cost,
        geometry,
        tuple(shape((max(8, TILE // found.m), *a.shape[1:]), a.dtype) for a in (x, of_x)),
    )
    # masses and potentials have the geometry's own lengths
    of_rows, of_columns = (shape((count,), geometry.dtype) for count in geometry.shape)
    held = {
        "training features": (geometry.x, True),
        "training classes": (geometry.x_labels, True),
        "masses a": (of_rows, True),
        "potentials f": (of_rows, True),
        "validation features": (geometry.y, False),
        "validation classes": (geometry.y_labels, False),
        "label distances": (geometry.label_distances, False),
        "masses b": (of_columns, False),
        "potentials g": (of_columns, False),
        "tile of the cost": (tile, False),
    }
    listed = [
        {
            "name": name,
            "shape": list(array.shape),
            "split": split,
            "bytes": int(array.size * array.dtype.itemsize),
        }
        for name, (array, split) in held.items()
    ]
    return sorted(listed, key=lambda tensor: -tensor["bytes"])


def main() -> None:
    """Write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measured", type=Path, default=RESULTS / "lava_scale.json")
    parser.add_argument("--output", type=Path, default=RESULTS / "lava_on_paper.json")
    arguments = parser.parse_args()
    document = json.loads(arguments.measured.read_text())
    solvers = measured_solvers(document)
    names = ("n", "m", "width", "classes", "device", "product_flops")
    settings: dict[str, Any] = {name: document["settings"][name] for name in names}
    settings["measured"] = document["date"]
    settings["device_peak_bytes"] = max(
        (row.get("device_peak_bytes") or 0 for row in document["results"]), default=0
    )
    rows = [
        {"machine": name, "tensors": tensors(machine.devices, found)} | estimate(machine, found)
        for found in solvers
        for name, machine in MACHINES.items()
    ]
    write_result(arguments.output, settings, rows)


if __name__ == "__main__":
    main()
