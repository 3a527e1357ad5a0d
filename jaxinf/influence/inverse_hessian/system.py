"""The linear system of influence functions, and what a solver makes of it."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Float

from jaxinf.errors import InputError
from jaxinf.influence.curvature import (
    Curvature,
    GaussNewton,
    Vectors,
    fisher_product,
    gauss_newton_product,
    gradient_squares,
    hessian_product,
    penalty_product,
)
from jaxinf.influence.passes import TrainingRows
from jaxinf.influence.vectors import row_norms
from jaxinf.typing import Params

_TRACE_PROBES = 32

DampingUnit = Literal["absolute", "mean_eigenvalue"]


def damping_name(damping: float, unit: DampingUnit) -> str:
    """What to call it in the name of a method.

    Example:
        >>> damping_name(0.1, "mean_eigenvalue")
        'damping=0.1 × mean eigenvalue'
    """
    return f"damping={damping:g}" + ("" if unit == "absolute" else " × mean eigenvalue")


@dataclass(frozen=True)
class System:
    """A + damping · I, with A the mean curvature over the training set plus the penalty's.

    Attributes:
        loss: per-example loss.
        measure: what the Fisher matrix takes gradients of.
        params: where the curvature is taken.
        rows: the training set.
        curvature: which matrix.
        penalty: scalar function of the parameters within the objective, or None.
        damping: scalar.
    """

    loss: Partial
    measure: Partial
    params: Params
    rows: TrainingRows
    curvature: Curvature
    penalty: Partial | None
    damping: jax.Array | float

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

    @property
    def dtype(self) -> Any:
        """Of the vectors: float32, or wider where the parameters are."""
        return jnp.result_type(jnp.float32, *jax.tree.leaves(self.params))

    def product(self, vectors: Vectors) -> Vectors:
        """The whole matrix times each row: one pass over the training set."""
        total = self.rows.total(lambda batch, mask: self._block(batch, mask, vectors))
        return self._complete(total / self.rows.count, vectors)

    def block_products(self) -> Iterator[Callable[[Vectors], Vectors]]:
        """The product estimated on one block, block after block, round and round."""
        blocks = itertools.chain.from_iterable(itertools.repeat(self.rows))
        for batch, mask in blocks:
            yield lambda vectors, batch=batch, mask=mask: self._complete(
                self._block(batch, mask, vectors) / jnp.sum(mask), vectors
            )

    def fisher_diagonal(self) -> Float[jax.Array, " P"]:
        """Mean squared gradient of each parameter, from per-example gradients: one pass."""
        squares = lambda batch, mask: gradient_squares(self.measure, self.params, batch, mask)
        return self.rows.total(squares) / self.rows.count

    def residual(self, vectors: Vectors, right_sides: Vectors) -> Float[jax.Array, " K"]:
        """‖g − (A + damping) u‖ / ‖g‖, computed afresh; 0 where g is 0."""
        left = row_norms(right_sides - self.product(vectors))
        size = row_norms(right_sides)
        return jnp.where(size > 0, left / jnp.where(size > 0, size, 1), left)

    def _block(self, batch: Any, mask: Any, vectors: Vectors) -> Vectors:
        if isinstance(self.curvature, GaussNewton):
            split = (Partial(self.curvature.outputs), Partial(self.curvature.loss))
            return gauss_newton_product(split, self.params, batch, mask, vectors)
        if self.curvature == "fisher":
            return fisher_product(self.measure, self.params, batch, mask, vectors)
        return hessian_product(self.loss, self.params, batch, mask, vectors)

    def _complete(self, mean: Vectors, vectors: Vectors) -> Vectors:
        damped = mean + self.damping * vectors
        if self.penalty is None:
            return damped
        return damped + penalty_product(self.penalty, self.params, vectors)


class Solution(NamedTuple):
    """Of K systems.

    Attributes:
        vectors: float[K, P].
        residual: float[K], relative to the right side, computed afresh from the solution.
        iterations: float[K], passes over the training set that each took.
    """

    vectors: Vectors
    residual: Float[jax.Array, " K"]
    iterations: Float[jax.Array, " K"]


class Solver(NamedTuple):
    """A way to solve, with its settings.

    Attributes:
        setup: `system -> (float[K, P] -> Solution)`. What all right sides share is done once, in
            the first call; what is not positive definite is refused.
        name: with the settings, for plans and stores.
        tolerance: relative residual up to which a solution counts as one; None for any.
        advice: what to do where it is larger.
        needs: the curvature that it is made for, or None for any.
    """

    setup: Callable[[System], Callable[[Vectors], Solution]]
    name: str
    tolerance: float | None = None
    advice: str = ""
    needs: Literal["fisher"] | None = None


def mean_eigenvalue(system: System) -> jax.Array:
    """Trace of the undamped curvature over min(N, P), the most eigenvalues that may not vanish.

    Exact for the Fisher matrix; otherwise Hutchinson's estimate from 32 random sign vectors.
    """
    most = min(system.rows.count, system.size)
    if system.curvature == "fisher" and system.penalty is None:
        return jnp.sum(system.fisher_diagonal()) / most
    shape = (_TRACE_PROBES, system.size)
    signs = jax.random.rademacher(jax.random.key(0), shape, system.dtype)
    products = system.product(signs) - system.damping * signs
    return jnp.mean(jnp.sum(signs * products, axis=1)) / most


def check_positive(value: float, name: str) -> None:
    """Refuse a setting that is not positive."""
    if not value > 0:
        raise InputError(f"{name} must be positive, not {value}")
