"""Leave-one-out truth of the convex set, for `benchmarks.lds`."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from benchmarks.lds_data import Part
from benchmarks.lds_sets import Problem
from benchmarks.mirrored_hypothesis import float64, logistic_loss
from jaxinf.influence.ground_truth import fit_convex, leave_one_out


def leave_one_out_truth(
    problem: Problem, left_out: int, store: Path | None, part: Part
) -> tuple[np.ndarray, np.ndarray]:
    """Exact influences float64[K, R] on the queries' losses, and the R rows that were left out.

    The objective is that of the set's training; every model is at its minimum, in float64.
    """
    path = None if store is None else store / f"{problem.name}_{part}_loo_{left_out}.npz"
    if path is not None and path.exists():
        with np.load(path) as saved:
            return saved["influences"], saved["rows"]
    count = problem.size.train
    rows = np.sort(np.random.default_rng(1).permutation(count)[:left_out])
    with float64():
        train, queries = (
            {"x": part["x"].reshape(len(part["y"]), -1).astype(np.float64), "y": part["y"]}
            for part in (problem.train, problem.queries)
        )
        start = {"w": jnp.zeros((train["x"].shape[1], 10)), "b": jnp.zeros(10)}
        fit = fit_convex(logistic_loss, start, train, l2=problem.penalty)
        truth = leave_one_out(
            logistic_loss, fit.params, queries, train, l2=problem.penalty, rows=rows, progress=True
        )
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, influences=truth.influences, rows=rows)
    return truth.influences, rows
