"""A fused log-sum-exp for accelerators, in Pallas: no tile of the cost ever leaves the chip.

    out_i = log Σ_j exp(h_j + (x_i · y_j) / ε − bias...)

A block of rows stays while blocks of columns pass by; the running maximum and sum are all that is
kept (as in FlashAttention; for transport FlashSinkhorn does the same in Triton). The label table
is part of the product: x gets the row of the table, y a one-hot column.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Float

from jaxinf.valuation.geometry import ClassWiseGeometry


def row_lse(
    x: Float[jax.Array, "n k"],
    y: Float[jax.Array, "m k"],
    bias: Float[jax.Array, " m"],
    *,
    block_rows: int = 128,
    block_columns: int = 128,
    interpret: bool | None = None,
) -> Float[jax.Array, " n"]:
    """Log Σ_j exp(x_i · y_j + bias_j) for every row i, fused.

    Args:
        x: float[n, k].
        y: float[m, k].
        bias: float[m]; −inf leaves a column out.
        block_rows: rows that one program of the kernel keeps.
        block_columns: columns that it reads at a time.
        interpret: run the kernel's steps as plain JAX (default: where there is no accelerator).

    Returns:
        float[n], products and sums in float32.

    Example:
        >>> lse = row_lse(jnp.zeros((3, 2)), jnp.ones((4, 2)), jnp.zeros(4))
        >>> [round(each, 4) for each in lse.tolist()]
        [1.3863, 1.3863, 1.3863]
    """
    if interpret is None:
        interpret = jax.default_backend() == "cpu"
    n, m = x.shape[0], y.shape[0]
    rows, columns = -(-n // block_rows) * block_rows, -(-m // block_columns) * block_columns
    width = max(16, 1 << (x.shape[1] - 1).bit_length())
    pad = lambda array, count: jnp.pad(
        array.astype(jnp.float32), ((0, count - len(array)), (0, width - array.shape[1]))
    )
    # minus infinity would make NaN of a block that holds nothing else
    floor = jnp.full(columns - m, -1e30, jnp.float32)
    biases = jnp.concatenate([jnp.maximum(bias.astype(jnp.float32), -1e30), floor])
    kernel = functools.partial(_row_block, block_columns=block_columns)
    out = pl.pallas_call(
        kernel,
        grid=(rows // block_rows,),
        in_specs=[
            pl.BlockSpec((block_rows, width), lambda i: (i, 0)),
            pl.BlockSpec((columns, width), lambda i: (0, 0)),
            pl.BlockSpec((1, columns), lambda i: (0, 0)),
        ],
        out_specs=pl.BlockSpec((block_rows, 1), lambda i: (i, 0)),
        out_shape=jax.ShapeDtypeStruct((rows, 1), jnp.float32),
        interpret=interpret,
    )(pad(x, rows), pad(y, columns), biases[None, :])
    return out[:n, 0]


def _row_block(x_ref: Any, y_ref: Any, bias_ref: Any, out_ref: Any, *, block_columns: int) -> None:
    x = x_ref[...]

    def step(block: jax.Array, carry: tuple[jax.Array, jax.Array]):
        top, total = carry
        at = pl.dslice(block * block_columns, block_columns)
        logits = jax.lax.dot_general(
            x,
            y_ref[at, :],
            (((1,), (1,)), ((), ())),
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )
        logits = logits + bias_ref[:, at]
        higher = jnp.maximum(top, jnp.max(logits, axis=1, keepdims=True))
        total = total * jnp.exp(top - higher)
        return higher, total + jnp.sum(jnp.exp(logits - higher), axis=1, keepdims=True)

    start = jnp.full((x.shape[0], 1), -1e30, jnp.float32), jnp.zeros((x.shape[0], 1), jnp.float32)
    top, total = jax.lax.fori_loop(0, bias_ref.shape[1] // block_columns, step, start)
    out_ref[...] = top + jnp.log(total)


@jax.tree_util.register_pytree_node_class
class KernelGeometry(ClassWiseGeometry):
    """A `ClassWiseGeometry` whose log-sum-exps are fused; p must be 2, an inner product."""

    def apply_lse_kernel(self, f, g, eps, vec=None, axis=0):  # noqa: D102
        if vec is not None or self.p != 2:
            given: Any = vec
            return super().apply_lse_kernel(f, g, eps, given, axis)
        x, y, x_squares, y_squares = as_inner_product(self)
        if axis == 1:
            lse = row_lse(x / eps, y, (g - y_squares) / eps) - x_squares / eps
        else:
            lse = row_lse(y / eps, x, (f - x_squares) / eps) - y_squares / eps
        return eps * lse.astype(self.dtype), jnp.array([1.0])


def as_inner_product(
    geometry: ClassWiseGeometry,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The cost as c = sx_i + sy_j − x̃_i · ỹ_j, for p = 2.

    Returns:
        x̃ float[n, d + C_y], ỹ float[m, d + C_y], sx float[n], sy float[m].

    Example:
        >>> import numpy as np
        >>> none = jnp.zeros(2, jnp.int32)
        >>> g = ClassWiseGeometry(jnp.eye(2), jnp.ones((2, 2)), none, none, jnp.ones((1, 1)))
        >>> x, y, sx, sy = as_inner_product(g)
        >>> np.allclose(sx[:, None] + sy[None, :] - x @ y.T, g.cost_matrix)
        True
    """
    labels, table = geometry.x_labels, geometry.label_distances
    to_classes = labels @ table if labels.ndim == 2 else table[labels]
    y_labels = geometry.y_labels
    shares = y_labels if y_labels.ndim == 2 else jax.nn.one_hot(y_labels, table.shape[1])
    weight = geometry.feature_weight
    x = jnp.concatenate([weight * geometry.x, -geometry.label_weight * to_classes], axis=1)
    y = jnp.concatenate([geometry.y, shares.astype(geometry.dtype)], axis=1)
    half = lambda side: weight * jnp.sum(side**2, axis=1) / 2
    return x, y, half(geometry.x), half(geometry.y)
