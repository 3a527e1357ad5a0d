"""Transport whose reductions are fused, so that no tile of the cost ever leaves the chip.

`row_lse` and `plan_sums` run as kernels on an accelerator and by the interpreter elsewhere, with
the same numbers. `KernelGeometry` is the cost that is read by them.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxinf.valuation import kernel_blocks, kernel_gpu
from jaxinf.valuation.geometry import ClassWiseGeometry

# class of each row, class of each column, and what a pair of classes costs
Labels = tuple[jax.Array, jax.Array, jax.Array]


def row_lse(
    x: Float[jax.Array, "n k"],
    y: Float[jax.Array, "m k"],
    bias: Float[jax.Array, " m"],
    labels: Labels | None = None,
) -> Float[jax.Array, " n"]:
    """Log Σ_j exp(x_i · y_j + bias_j − W[k_i, l_j]) for every row i, fused.

    Args:
        x: float[n, k].
        y: float[m, k].
        bias: float[m]; −inf leaves a column out.
        labels: classes int[n] and int[m], and W float[C, C'] (default: no such term).

    Returns:
        float[n], products and sums in float32.

    Example:
        >>> lse = row_lse(jnp.zeros((3, 2)), jnp.ones((4, 2)), jnp.zeros(4))
        >>> [round(each, 4) for each in lse.tolist()]
        [1.3863, 1.3863, 1.3863]
    """
    if jax.default_backend() == "gpu":
        return kernel_gpu.row_lse(x, y, bias, labels or _no_labels(x, y))
    x, y = _with_labels(x, y, labels)
    return kernel_blocks.row_lse(x, y, bias, interpret=jax.default_backend() == "cpu")


def plan_sums(
    x: Float[jax.Array, "n k"],
    y: Float[jax.Array, "m k"],
    u: Float[jax.Array, " n"],
    v: Float[jax.Array, " m"],
    labels: Labels | None = None,
) -> tuple[Float[jax.Array, " n"], Float[jax.Array, " m"]]:
    """Row and column sums of exp(u_i + v_j + x_i · y_j − W[k_i, l_j]), fused, from one product.

    Args:
        x: float[n, k].
        y: float[m, k].
        u: float[n]; −inf leaves a row out.
        v: float[m]; −inf leaves a column out.
        labels: as for `row_lse`.

    Returns:
        float[n] and float[m], in float32. On a GPU the last bits of the column sums may differ
        from run to run.

    Example:
        >>> x, y = jnp.zeros((2, 1)), jnp.ones((3, 1))
        >>> rows, columns = plan_sums(x, y, jnp.zeros(2), jnp.zeros(3))
        >>> rows.tolist(), columns.tolist()
        ([3.0, 3.0], [2.0, 2.0, 2.0])
    """
    if jax.default_backend() == "gpu":
        return kernel_gpu.plan_sums(x, y, u, v, labels or _no_labels(x, y))
    x, y = _with_labels(x, y, labels)
    return kernel_blocks.plan_sums(x, y, u, v, interpret=jax.default_backend() == "cpu")


def _no_labels(x: jax.Array, y: jax.Array) -> Labels:
    none = lambda points: jnp.zeros(len(points), jnp.int32)
    return none(x), none(y), jnp.zeros((1, 1))


def _with_labels(x: jax.Array, y: jax.Array, labels: Labels | None) -> tuple[jax.Array, jax.Array]:
    """The table as part of the product: x gets its class's row of it, y a one-hot column."""
    if labels is None:
        return x, y
    of_x, of_y, table = labels
    shares = jax.nn.one_hot(of_y, table.shape[1], dtype=y.dtype)
    return jnp.concatenate([x, -table[of_x]], axis=1), jnp.concatenate([y, shares], axis=1)


@jax.tree_util.register_pytree_node_class
class KernelGeometry(ClassWiseGeometry):
    """A `ClassWiseGeometry` whose reductions are fused; p must be 2, an inner product."""

    def apply_lse_kernel(self, f, g, eps, vec=None, axis=0):  # noqa: D102
        if vec is not None or self.p != 2:
            given: Any = vec
            return super().apply_lse_kernel(f, g, eps, given, axis)
        x, y, x_squares, y_squares, labels = self.as_inner_product(eps)
        if axis == 1:
            lse = row_lse(x, y, g / eps - y_squares, labels) - x_squares
        else:
            turned = None if labels is None else (labels[1], labels[0], labels[2].T)
            lse = row_lse(y, x, f / eps - x_squares, turned) - y_squares
        return eps * lse.astype(self.dtype), jnp.array([1.0])

    def plan_sums(
        self, u: Float[jax.Array, " n"], v: Float[jax.Array, " m"], epsilon: jax.Array
    ) -> tuple[Float[jax.Array, " n"], Float[jax.Array, " m"]]:
        """Row and column sums of exp(u_i + v_j − c_ij/ε)."""
        x, y, x_squares, y_squares, labels = self.as_inner_product(epsilon)
        rows, columns = plan_sums(x, y, u - x_squares, v - y_squares, labels)
        return rows.astype(self.dtype), columns.astype(self.dtype)

    def as_inner_product(
        self, epsilon: float | jax.Array = 1.0
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, Labels | None]:
        """The cost over ε as sx_i + sy_j − x̃_i · ỹ_j + W[k_i, l_j], for p = 2.

        Returns:
            x̃ float[n, k], ỹ float[m, k], sx float[n], sy float[m], and the labels with their
            table; None where they are shares, which x̃ and ỹ then hold.

        Example:
            >>> import numpy as np
            >>> none = jnp.zeros(2, jnp.int32)
            >>> g = KernelGeometry(jnp.eye(2), jnp.ones((2, 2)), none, none, jnp.ones((1, 1)))
            >>> x, y, sx, sy, (_, _, table) = g.as_inner_product()
            >>> np.allclose(sx[:, None] + sy[None, :] - x @ y.T + table, g.cost_matrix)
            True
        """
        weight = self.feature_weight / epsilon
        half = lambda side: weight * jnp.sum(side**2, axis=1) / 2
        x, y, table = weight * self.x, self.y, self.label_weight * self.label_distances / epsilon
        of_x, of_y = self.x_labels, self.y_labels
        if of_x.ndim == 1 and of_y.ndim == 1:
            return x, y, half(self.x), half(self.y), (of_x, of_y, table)
        to_classes = of_x @ table if of_x.ndim == 2 else table[of_x]
        shares = of_y if of_y.ndim == 2 else jax.nn.one_hot(of_y, table.shape[1])
        x = jnp.concatenate([x, -to_classes], axis=1)
        y = jnp.concatenate([y, shares.astype(self.dtype)], axis=1)
        return x, y, half(self.x), half(self.y), None
