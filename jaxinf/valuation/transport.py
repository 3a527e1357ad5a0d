"""Entropic optimal transport by one sweep over the cost per iteration.

    min over P ≥ 0 of <P, c> + ε KL(P | a ⊗ b) + ρ_a KL(P1 | a) + ρ_b KL(Pᵀ1 | b)

The plan is P = a_i b_j exp((f_i + g_j − c_ij)/ε), so f and g are the derivatives of the optimal
cost in the masses a and b (ott's potentials are f + ε log a and g + ε log b). A Sinkhorn
iteration needs the rows of the Gibbs kernel once for f and once more for g; here g takes its sums
from the rows that f has just used, so that every entry of the cost is read once per iteration
instead of twice, and with rows split over devices one reduction of m numbers is all that crosses.

Where the cost fits in memory, its exponential is kept for a stage of iterations (the *absorbed*
kernel: Schmitzer 2019, "Stabilized sparse scaling algorithms for entropy regularized transport
problems", section 3.1), and an iteration is two products with a vector.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float
from ott.geometry.geometry import Geometry

from jaxinf.valuation.geometry import ClassWiseGeometry

# iterations between two refreshes of the absorbed kernel, and between two looks at the error
STAGE = 16


class Transport(NamedTuple):
    """A solved (or given up) problem.

    Attributes:
        f: float[n], derivative of the cost in the first masses.
        g: float[m], derivative in the second.
        marginal_error: float, Σ_j |column sum of the plan − its target|; rows are exact.
        num_iterations: int32.
        converged: bool, whether the error reached the threshold.
        columns: float[m], column sums of the plan of f and g.
    """

    f: Float[jax.Array, " n"]
    g: Float[jax.Array, " m"]
    marginal_error: Float[jax.Array, ""]
    num_iterations: jax.Array
    converged: jax.Array
    columns: Float[jax.Array, " m"]


class _State(NamedTuple):
    f: jax.Array
    g: jax.Array
    columns: jax.Array
    error: jax.Array
    relaxation: jax.Array
    stage: jax.Array
    iterations: jax.Array


# (f, g, relaxation) -> (new f, column sums of the plan of new f and g)
Sweep = Callable[[jax.Array, jax.Array, jax.Array | float], tuple[jax.Array, jax.Array]]


def solve_transport(
    geometry: Geometry,
    a: Float[jax.Array, " n"],
    b: Float[jax.Array, " m"],
    *,
    epsilon: float | jax.Array,
    tau_a: float = 1.0,
    tau_b: float = 1.0,
    threshold: float | jax.Array = 1e-3,
    max_iterations: int | jax.Array = 2000,
    init: Float[jax.Array, " m"] | None = None,
    axis_name: str | None = None,
    make_sweep: Callable[[ClassWiseGeometry, "Problem"], "Sweep"] | None = None,
) -> Transport:
    """Solve one transport problem to a stated marginal error.

    Args:
        geometry: a `ClassWiseGeometry` is streamed; any other ott geometry with a cost matrix
            is held in memory, with its exponential.
        a: float[n] masses, a sum of one over all devices. Zero masks a row.
        b: float[m] masses, a sum of one. Zero masks a column.
        epsilon: strength of the entropic term, in the units of the cost.
        tau_a: ρ_a/(ρ_a + ε): 1 keeps the first marginal, 0 frees it.
        tau_b: the same for the second; below 1 is semi-relaxed transport.
        threshold: the marginal error at which to stop.
        max_iterations: where to give up.
        init: float[m], g to start from (default 0).
        axis_name: the mesh axis over which the rows are split, if they are; the second side is
            whole on every device.
        make_sweep: how a `ClassWiseGeometry` is read (default: `streamed_sweep`).

    Returns:
        The potentials and how well they solve the problem. Not differentiable by itself:
        `class_wise_distance` is.
    """
    dtype = geometry.dtype
    a, b = a.astype(dtype), b.astype(dtype)
    epsilon = jnp.asarray(epsilon, dtype)
    problem = Problem(a, b, epsilon, tau_a, tau_b, axis_name)
    make_sweep = make_sweep or streamed_sweep
    streamed = make_sweep(geometry, problem) if isinstance(geometry, ClassWiseGeometry) else None
    cost = jnp.zeros(()) if streamed else jnp.asarray(geometry.cost_matrix)

    def sweep_for(f: jax.Array, g: jax.Array) -> Sweep:
        if streamed:
            return streamed
        # columns of no mass keep g = 0, where the kernel may overflow: nothing goes there
        exponents = (f[:, None] + g[None, :] - cost) / epsilon
        kernel = jnp.exp(jnp.where((b > 0)[None, :], exponents, -jnp.inf))
        return absorbed_sweep(kernel, f, g, problem)

    def start(g: jax.Array) -> jax.Array:
        if streamed:
            return jnp.zeros_like(a)  # an unrelaxed sweep asks nothing of f
        logits = (jnp.log(b) + g / epsilon)[None, :] - cost / epsilon
        return -tau_a * epsilon * jax.nn.logsumexp(logits, axis=1)

    def body(state: _State) -> _State:
        sweep = sweep_for(state.f, state.g)
        # short stages first: far from the solution the absorbed kernel goes stale at once
        length = jnp.minimum(2**state.stage, STAGE)

        def iterate(i: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            f, g, columns = carry
            # the last iteration is plain: its rows are exact, so the columns tell the whole error
            relaxation = jnp.where(i == length - 1, 1, state.relaxation)
            moved = problem.over_relax(g, problem.update(g, columns), state.relaxation)
            if not streamed:
                # an absorbed kernel resolves what lies near the potentials that it was made for
                moved = jnp.clip(moved, state.g - 20 * epsilon, state.g + 20 * epsilon)
            g = jnp.where(state.iterations + i > 0, moved, g)
            f, columns = sweep(f, g, relaxation)
            return f, g, columns

        start_of_stage = state.f, state.g, state.columns
        f, g, columns = jax.lax.fori_loop(0, length, iterate, start_of_stage)
        error = problem.error(g, columns)
        return _State(
            f,
            g,
            columns,
            error,
            _relaxation(state, error, length),
            state.stage + 1,
            state.iterations + length,
        )

    def goes_on(state: _State) -> jax.Array:
        return (
            (state.error > threshold)
            & (state.iterations < max_iterations)
            & ~jnp.isnan(state.error)
        )

    infinite = jnp.asarray(jnp.inf, dtype)
    one = jnp.asarray(1, dtype)
    zero = jnp.asarray(0, jnp.int32)
    g = jnp.zeros_like(b) if init is None else init.astype(dtype)
    state = _State(start(g), g, b, infinite, one, zero, zero)
    state = jax.lax.while_loop(goes_on, body, state)
    return Transport(
        state.f, state.g, state.error, state.iterations, state.error <= threshold, state.columns
    )


class Problem(NamedTuple):
    """Masses and penalties, and what Sinkhorn does with the sums of the plan."""

    a: jax.Array
    b: jax.Array
    epsilon: jax.Array
    tau_a: float = 1.0
    tau_b: float = 1.0
    axis_name: str | None = None

    def relax_rows(self, f: jax.Array, lse: jax.Array, relaxation: jax.Array | float) -> jax.Array:
        """New f from lse_j(log b_j + (g_j − c_ij)/ε)."""
        return self.over_relax(f, -self.tau_a * self.epsilon * lse, relaxation)

    def over_relax(
        self, old: jax.Array, new: jax.Array, relaxation: jax.Array | float
    ) -> jax.Array:
        """Beyond the new potential by (ω − 1) times its change, and by no more than 10 ε."""
        limit = 10 * self.epsilon
        return new + jnp.clip((relaxation - 1) * (new - old), -limit, limit)

    def reduce(self, columns: jax.Array) -> jax.Array:
        """Sum over the devices that hold the rows."""
        return columns if self.axis_name is None else jax.lax.psum(columns, self.axis_name)

    def update(self, g: jax.Array, columns: jax.Array) -> jax.Array:
        """New g from the column sums of the plan. Columns of no mass keep g = 0.

        A column that next to no row reaches gets a better price by 40 ε at a time: what the
        kernel holds would overflow at more.
        """
        ratio = jnp.where(self.b > 0, _log(columns) - _log(self.b), 0)
        ratio = jnp.maximum(ratio, -40)
        return self.tau_b * (g - self.epsilon * ratio)

    def target(self, g: jax.Array) -> jax.Array:
        """What the column sums should be; those of a soft marginal depend on its price g.

        A free marginal (τ = 0) has no target.
        """
        if self.tau_b in (0, 1):
            return self.b
        return self.b * jnp.exp(-g * (1 - self.tau_b) / (self.tau_b * self.epsilon))

    def error(self, g: jax.Array, columns: jax.Array) -> jax.Array:
        """Σ|columns − target|. A free marginal has nothing to meet, and its price is 0."""
        if self.tau_b == 0:
            return jnp.sum(jnp.where(self.b > 0, jnp.abs(g), 0))
        return jnp.sum(jnp.abs(columns - self.target(g)))


def streamed_sweep(geometry: ClassWiseGeometry, problem: Problem) -> Sweep:
    """The kernel is computed anew in each sweep, a tile of rows at a time."""

    def sweep(
        f: jax.Array, g: jax.Array, relaxation: jax.Array | float
    ) -> tuple[jax.Array, jax.Array]:
        # a column of no mass is at minus infinity
        priced = jnp.log(problem.b) + g / problem.epsilon

        def tile(columns: jax.Array, cost: jax.Array, f: jax.Array, a: jax.Array) -> Any:
            logits = priced[None, :] - cost / problem.epsilon
            top = jax.lax.stop_gradient(jnp.max(logits, axis=1))
            # one exponential per entry serves the rows and the columns
            kernel = jnp.exp(logits - top[:, None])
            rows = jnp.sum(kernel, axis=1)
            lse = top + jnp.log(rows)
            f = problem.relax_rows(f, lse, relaxation)
            scale = a * jnp.exp(f / problem.epsilon + lse) / rows
            return columns + scale @ kernel, f

        zeros = jnp.zeros(geometry.shape[1], geometry.dtype)
        columns, f = geometry.over_tiles(tile, zeros, (f, 0.0), (problem.a, 0.0))
        return f, problem.reduce(columns)

    return sweep


def two_pass_sweep(geometry: Geometry, problem: Problem) -> Sweep:
    """By two log-sum-exps of the geometry's own: rows from g, then columns from the new f."""
    apply: Any = geometry.apply_lse_kernel

    def sweep(
        f: jax.Array, g: jax.Array, relaxation: jax.Array | float
    ) -> tuple[jax.Array, jax.Array]:
        epsilon = problem.epsilon
        priced = epsilon * jnp.log(problem.b) + g
        lse = apply(jnp.zeros_like(f), priced, epsilon, axis=1)[0] / epsilon
        f = problem.relax_rows(f, lse, relaxation)
        priced = epsilon * jnp.log(problem.a) + f
        over_rows = apply(priced, jnp.zeros_like(g), epsilon, axis=0)[0]
        return f, problem.reduce(problem.b * jnp.exp((over_rows + g) / epsilon))

    return sweep


def absorbed_sweep(
    kernel: Float[jax.Array, "n m"], f0: jax.Array, g0: jax.Array, problem: Problem
) -> Sweep:
    """The kernel exp((f0 + g0 − c)/ε) is given: an iteration is two products with a vector."""

    def sweep(
        f: jax.Array, g: jax.Array, relaxation: jax.Array | float
    ) -> tuple[jax.Array, jax.Array]:
        drift = (g - g0) / problem.epsilon
        top = jnp.max(jnp.where(problem.b > 0, drift, -jnp.inf))
        moved = problem.b * jnp.exp(jnp.minimum(drift - top, 0))
        rows = jnp.maximum(kernel @ moved, jnp.finfo(kernel.dtype).tiny)
        lse = top + jnp.log(rows) - f0 / problem.epsilon
        f = problem.relax_rows(f, lse, relaxation)
        scale = problem.a * jnp.exp(f / problem.epsilon + lse) / rows
        return f, problem.reduce((scale @ kernel) * moved)

    return sweep


def _relaxation(state: _State, error: jax.Array, length: jax.Array) -> jax.Array:
    """Over-relaxation for the next stage, from how fast the error fell in this one.

    An iteration relaxed by ω whose error falls by λ each time has λ ω² μ = (λ + ω − 1)², where μ
    is the factor of the plain iteration; the best ω is 2 / (1 + √(1 − μ)) (Young 1954; for
    Sinkhorn Lehmann et al. 2022, "A note on overrelaxation in the Sinkhorn algorithm", eq. 5).
    """
    omega = state.relaxation
    factor = (error / state.error) ** (1 / length.astype(error.dtype))
    plain = (factor + omega - 1) ** 2 / (factor * omega**2)
    best = 2 / (1 + jnp.sqrt(1 - jnp.clip(plain, 0, 0.9999)))
    # the first stages are no measure of the rate; past the best ω the formula does not hold
    measured = (length >= STAGE // 4) & (factor > omega - 1)
    proposed = jnp.where(measured, jnp.clip(best, 1, 1.95), omega)
    return jnp.where(factor < 1, proposed, 1).astype(omega.dtype)


def _log(mass: jax.Array) -> jax.Array:
    """log, bounded below: a column that no row reaches yet gets a better price, not infinity."""
    return jnp.log(jnp.maximum(mass, jnp.finfo(mass.dtype).tiny))
