"""Was the linear system solved? Said loudly where it was not.

A traced program cannot look at its own numbers, so nothing here speaks under a caller's `jax.jit`.
`attribute` prepares outside of any; whoever compiles `prepare` by hand reads `residual` in the
diagnostics of its state, which is computed afresh from the solution either way.
"""

import warnings

import jax
import numpy as np

from jaxinf.errors import InputError
from jaxinf.influence.passes import is_traced


class InfluenceWarning(UserWarning):
    """Scores were computed, but not to the accuracy that was asked for."""


def warn_unconverged(method: str, residual: jax.Array, tolerance: float, advice: str) -> None:
    """Warn of queries whose system is not solved to the tolerance. Silent under tracing.

    There the caller has the same residual in the diagnostics of the compiled state.

    Args:
        method: who solved it.
        residual: float[K], relative to the right side.
        tolerance: what was asked for.
        advice: what to do.
    """
    if is_traced(residual):
        return
    found = np.asarray(residual)
    bad = np.flatnonzero(~(found <= tolerance))
    if bad.size:
        warnings.warn(
            f"{method} is not converged for {bad.size} of {found.size} queries ({_listed(bad)}): "
            f"relative residual up to {float(found[bad].max()):.2g}, asked for {tolerance:.2g}; "
            f"{advice}",
            InfluenceWarning,
            stacklevel=3,
        )


def refuse_indefinite(curvature: jax.Array, damping: jax.Array | float) -> None:
    """Refuse a matrix that is not positive definite. Silent under tracing, where `cg` gives NaN.

    Args:
        curvature: the smallest curvature that was met, damping included; NaN for none that is
            not positive.
        damping: what was added already.

    Raises:
        InputError: some curvature is a number.
    """
    if is_traced(curvature) or np.isnan(np.asarray(curvature)).all():
        return
    smallest = float(np.nanmin(np.asarray(curvature)))
    had = float(np.asarray(damping))
    need = had + 1.1 * abs(smallest)
    raise InputError(
        f"the curvature matrix is not positive definite (curvature {smallest:.3g} with damping "
        f"{had:.3g}): "
        + (f"set damping above {need:.2g}, " if smallest < 0 else "set damping above 0, ")
        + "or take curvature='fisher' or a GaussNewton, which are never negative"
    )


def _listed(numbers: np.ndarray) -> str:
    return ", ".join(map(str, numbers[:5])) + (" ..." if numbers.size > 5 else "")
