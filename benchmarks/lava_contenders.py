"""One solver of the class-wise transport problem per process, all on the same files.

Every contender gets features, label costs, ε and the number of iterations that it needs for the
stated marginal error (found beforehand, not timed), and is timed from features to potentials. The
pipelines are timed from features to values, label distances included.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import serve

SIDES = ("x", "y", "xv", "yv")


def make_inputs(folder: Path, size: int, width: int, classes: int, seed: int = 0) -> None:
    """Write features of `classes` clusters, a fifth of the training labels wrong."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, width))
    y, yv = rng.integers(classes, size=size), rng.integers(classes, size=size)
    x = (centres[y] + rng.normal(size=(size, width))).astype(np.float32)
    xv = (centres[yv] + rng.normal(size=(size, width))).astype(np.float32)
    wrong = rng.choice(size, size // 5, replace=False)
    y[wrong] = (y[wrong] + 1 + rng.integers(classes - 1, size=len(wrong))) % classes
    table = ((centres[:, None] - centres[None]) ** 2).sum(-1) / 2 + width
    apart = (x**2).sum(1).mean() / 2 + (xv**2).sum(1).mean() / 2 - x.mean(0) @ xv.mean(0)
    epsilon = 0.05 * (apart + table[y][:, yv].mean())
    np.savez(folder / "inputs.npz", x=x, y=y, xv=xv, yv=yv, table=table.astype("f"), e=epsilon)


def marginal_error(inputs: Any, f: np.ndarray, g: np.ndarray) -> float:
    """Σ|row sums − a| + Σ|column sums − b| of the plan of f and g, in float64, tile by tile."""
    x, y, xv, yv = (inputs[name] for name in SIDES)
    n, m = len(x), len(xv)
    squares = (xv.astype(np.float64) ** 2).sum(1) / 2
    columns, rows = np.zeros(m), 0.0
    for start in range(0, n, 500):
        part = slice(start, start + 500)
        left = x[part].astype(np.float64)
        cost = (left**2).sum(1)[:, None] / 2 + squares - left @ xv.T.astype(np.float64)
        cost += inputs["table"][y[part]][:, yv]
        plan = np.exp((f[part, None] + g - cost) / float(inputs["e"])) / n / m
        columns += plan.sum(0)
        rows += np.abs(plan.sum(1) - 1 / n).sum()
    return float(rows + np.abs(columns - 1 / m).sum())


Run = Callable[[], tuple[Any, Any]]


def jaxinf_solver(inputs: Any, config: dict[str, Any]) -> Callable[[int], Run]:
    """Ours, over as many host devices as the contender's name asks for."""
    import jax

    devices = 1 if config["contender"].endswith("one_device") else config["cores"]
    jax.config.update("jax_num_cpu_devices", devices)
    import jax.numpy as jnp

    from jaxinf.engine.mesh import data_mesh
    from jaxinf.valuation.geometry import ClassWiseGeometry
    from jaxinf.valuation.pose import Posed
    from jaxinf.valuation.routes import solver_for
    from jaxinf.valuation.sides import Side

    x, y, xv, yv = (inputs[name] for name in SIDES)
    mesh = data_mesh() if devices > 1 else None

    def prepared(_: int) -> Run:
        def run() -> tuple[Any, Any]:
            weights = [jnp.full(len(side), 1 / len(side)) for side in (x, xv)]
            classes = np.arange(len(inputs["table"]))
            arrays = [jnp.asarray(a) for a in (x, xv, y.astype("i4"), yv.astype("i4"))]
            geometry = ClassWiseGeometry(*arrays, jnp.asarray(inputs["table"]))
            sides = (
                Side(arrays[0], arrays[2], classes, weights[0]),
                Side(arrays[1], arrays[3], classes, weights[1]),
            )
            posed = Posed(geometry, *sides, jnp.float32(inputs["e"]))
            solve = solver_for(
                posed,
                tau=1.0,
                threshold=config["threshold"],
                max_iterations=20_000,
                route=config.get("route", "auto"),
                max_cost_bytes=4 << 30,
                mesh=mesh,
            )
            found = solve(weights[0], jnp.zeros(len(xv))).transport
            return np.asarray(found.f), np.asarray(found.g)

        return run

    return prepared


def ott_solver(inputs: Any, config: dict[str, Any]) -> Callable[[int], Run]:
    """Ott's own Sinkhorn on the materialised cost."""
    import jax
    import jax.numpy as jnp
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    from jaxinf.valuation.geometry import ClassWiseGeometry

    x, y, xv, yv = (inputs[name] for name in SIDES)
    epsilon = float(inputs["e"])

    @jax.jit
    def solve(x, xv, y, yv, table):
        cost = ClassWiseGeometry(x, xv, y, yv, table).cost_matrix
        problem = LinearProblem(Geometry(cost, epsilon=epsilon))
        found = Sinkhorn(threshold=config["threshold"], max_iterations=20_000)(problem)
        return found.f + epsilon * jnp.log(len(x)), found.g + epsilon * jnp.log(len(xv))

    def prepared(_: int) -> Run:
        def run() -> tuple[Any, Any]:
            f, g = solve(*map(jnp.asarray, (x, xv, y, yv, inputs["table"])))
            return np.asarray(f), np.asarray(g)

        return run

    return prepared


def geomloss_solver(inputs: Any, config: dict[str, Any]) -> Callable[[int], Run]:
    """Geomloss's loop and soft minimum: its annealing by 0.5, then as many steps as it takes."""
    import torch
    from geomloss.sinkhorn_divergence import epsilon_schedule, max_diameter, sinkhorn_loop
    from geomloss.sinkhorn_samples import softmin_tensorized

    torch.set_num_threads(config["cores"])
    x, y, xv, yv = (torch.from_numpy(inputs[name]) for name in SIDES)
    table, epsilon = torch.from_numpy(inputs["table"]), float(inputs["e"])

    def prepared(steps: int) -> Run:
        def run() -> tuple[Any, Any]:
            cost = (torch.cdist(x, xv) ** 2 / 2 + table[y][:, yv])[None]
            diameter = max_diameter(x, xv)
            schedule = [
                e for e in epsilon_schedule(2, diameter, epsilon**0.5, 0.5) if e > epsilon
            ] + [epsilon] * steps
            logs = [torch.full((1, len(side)), -np.log(len(side))) for side in (x, xv)]
            _, _, g, f = sinkhorn_loop(
                softmin_tensorized,
                *logs,
                None,
                None,
                cost,
                cost.transpose(1, 2).contiguous(),
                schedule,
                None,
                debias=False,
            )
            return f[0].numpy(), g[0].numpy()

        return run

    return prepared


def pot_solver(inputs: Any, config: dict[str, Any]) -> Callable[[int], Run]:
    """POT's Sinkhorn, in the log domain or (`pot_kernel`) on the bare kernel."""
    import ot

    x, y, xv, yv = (inputs[name] for name in SIDES)
    epsilon = float(inputs["e"])
    method = "sinkhorn" if config["contender"] == "pot_kernel" else "sinkhorn_log"

    def prepared(steps: int) -> Run:
        def run() -> tuple[Any, Any]:
            cost = ot.dist(x, xv) / 2 + inputs["table"][y][:, yv]
            a, b = (np.full(len(side), 1 / len(side), np.float32) for side in (x, xv))
            _, log = ot.sinkhorn(
                a,
                b,
                cost.astype(np.float32),
                epsilon,
                method=method,
                numItermax=steps,
                stopThr=0,
                log=True,
                warn=False,
            )
            if method == "sinkhorn":
                logs = np.log(log["u"]), np.log(log["v"])
            else:
                logs = log["log_u"], log["log_v"]
            f, g = (epsilon * part for part in logs)
            return f + epsilon * np.log(len(x)), g + epsilon * np.log(len(xv))

        return run

    return prepared


def jaxinf_pipeline(inputs: Any, config: dict[str, Any]) -> Callable[[int], Run]:
    """`lava` from features to values, with its defaults."""
    import jax

    jax.config.update("jax_num_cpu_devices", config["cores"])
    from jaxinf.engine.mesh import data_mesh
    from jaxinf.valuation import lava

    mesh = data_mesh()
    options = config.get("options", {})

    def prepared(_: int) -> Run:
        def run() -> tuple[Any, Any]:
            on = None if options.get("solver") == "reference" else mesh
            found = lava(*(inputs[name] for name in SIDES), mesh=on, **options)
            return np.asarray(found.values), found.converged

        return run

    return prepared


def released_pipeline(inputs: Any, config: dict[str, Any]) -> Callable[[int], Run]:
    """The released code's calls of geomloss: label costs, within the sides too, then the outer."""
    import torch

    from benchmarks.geomloss_reference import class_costs, outer_potentials

    torch.set_num_threads(config["cores"])
    x, y, xv, yv = (torch.from_numpy(inputs[name]) for name in SIDES)

    def prepared(_: int) -> Run:
        def run() -> tuple[Any, Any]:
            class_costs([(x, y), (x, y)])
            class_costs([(xv, yv), (xv, yv)])
            table = class_costs([(x, y), (xv, yv)])
            f, g = outer_potentials(x, y, xv, yv, table)
            others = (f.sum() - f) / (len(f) - 1)
            return (others - f).numpy(), g.numpy()

        return run

    return prepared


CONTENDERS = {
    "jaxinf": jaxinf_solver,
    "jaxinf_one_device": jaxinf_solver,
    "ott": ott_solver,
    "geomloss": geomloss_solver,
    "pot_log": pot_solver,
    "pot_kernel": pot_solver,
    "jaxinf_lava": jaxinf_pipeline,
    "jaxinf_lava_reference": jaxinf_pipeline,
    "released_lava": released_pipeline,
}


def work(config: dict[str, Any]) -> None:
    """Serve one contender: `steps` to try or to time."""
    inputs = dict(np.load(Path(config["folder"]) / "inputs.npz"))
    prepared = CONTENDERS[config["contender"]](inputs, config)

    def answer(steps: int, check: bool, times: int = 1) -> dict[str, Any]:
        run = prepared(steps)
        seconds = []
        for _ in range(times):
            began = time.perf_counter()
            f, g = run()
            seconds.append(time.perf_counter() - began)
        reply: dict[str, Any] = {"seconds": seconds}
        if check:
            reply["marginal_error"] = marginal_error(inputs, np.asarray(f), np.asarray(g))
        return reply

    serve(answer)


if __name__ == "__main__":
    work(json.loads(sys.argv[sys.argv.index("--worker") + 1]))
