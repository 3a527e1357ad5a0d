"""Fused sums over exp(x_i · y_j − W[class of i, class of j] + ...) on a GPU, in Pallas by Triton.

A program keeps a block of rows and walks over the columns (as in FlashAttention; for transport
FlashSinkhorn does the same); products are summed over slices of the features by the matrix units,
three TF32 products for one of float32, and labels are looked up in their table. Column sums of
different programs meet by atomic addition: their last bits depend on the order.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from jaxinf.valuation.kernel_blocks import NOTHING

# rows and columns of a block, and features that are multiplied at a time: the fastest of eight
# choices on an H200
ROWS, COLUMNS, SLICE = 64, 128, 32
_WARPS, _STAGES = 4, 3
_PRODUCTS = jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3


def row_lse(
    x: jax.Array,
    y: jax.Array,
    bias: jax.Array,
    labels: tuple[jax.Array, jax.Array, jax.Array],
    *,
    interpret: bool = False,
) -> jax.Array:
    """Log Σ_j exp(x_i · y_j + bias_j − W[k_i, l_j]), float[n]."""
    out = _call(_lse_rows, x, y, jnp.zeros(len(x)), bias, labels, interpret)
    return out[0][: len(x)]


def plan_sums(
    x: jax.Array,
    y: jax.Array,
    u: jax.Array,
    v: jax.Array,
    labels: tuple[jax.Array, jax.Array, jax.Array],
    *,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Row sums [n] and column sums [m] of exp(u_i + v_j + x_i · y_j − W[k_i, l_j])."""
    rows, columns = _call(_sum_rows, x, y, u, v, labels, interpret)
    return rows[: len(x)], columns[: len(y)]


def _call(
    kernel: Any,
    x: jax.Array,
    y: jax.Array,
    u: jax.Array,
    v: jax.Array,
    labels: tuple[jax.Array, jax.Array, jax.Array],
    interpret: bool,
) -> Any:
    from jax.experimental.pallas import triton

    n, m = len(x), len(y)
    up = lambda count, size: -(-count // size) * size
    rows, columns, width = up(n, ROWS), up(m, COLUMNS), up(x.shape[1], SLICE)
    fill = lambda a, count: jnp.pad(
        a.astype(jnp.float32), ((0, count - len(a)), (0, width - a.shape[1]))
    )
    line = lambda a, count: jnp.pad(
        jnp.maximum(a.astype(jnp.float32), NOTHING), (0, count - len(a)), constant_values=NOTHING
    )
    of_x, of_y, table = labels
    whole = lambda *shape: pl.BlockSpec(shape, lambda i: (0,) * len(shape))
    some = lambda *shape: pl.BlockSpec((ROWS, *shape), lambda i: (i,) + (0,) * len(shape))
    return pl.pallas_call(
        functools.partial(kernel, blocks=columns // COLUMNS, slices=width // SLICE),
        grid=(rows // ROWS,),
        in_specs=[
            *(some(width), whole(columns, width), some(), whole(columns)),
            *(some(), whole(columns), whole(*table.shape), whole(columns)),
        ],
        out_specs=[some(), whole(columns)],
        out_shape=[
            jax.ShapeDtypeStruct((rows,), jnp.float32),
            jax.ShapeDtypeStruct((columns,), jnp.float32),
        ],
        # column sums start from zeros that are handed in
        input_output_aliases={7: 1},
        compiler_params=triton.CompilerParams(num_warps=_WARPS, num_stages=_STAGES),
        interpret=interpret,
    )(
        fill(x, rows),
        fill(y, columns),
        line(u, rows),
        line(v, columns),
        jnp.pad(of_x, (0, rows - n)),
        jnp.pad(of_y, (0, columns - m)),
        table.astype(jnp.float32),
        jnp.zeros(columns, jnp.float32),
    )


def _block(
    x_ref: Any,
    y_ref: Any,
    v_ref: Any,
    of_x: jax.Array,
    of_y_ref: Any,
    table_ref: Any,
    block: jax.Array,
    slices: int,
) -> jax.Array:
    """v_j + x_i · y_j − W of a block of columns, float[ROWS, COLUMNS]."""
    at = pl.ds(block * COLUMNS, COLUMNS)

    def multiply(k: jax.Array, total: jax.Array) -> jax.Array:
        some = pl.ds(k * SLICE, SLICE)
        return total + jax.lax.dot_general(
            x_ref[:, some],
            y_ref[at, some],
            (((1,), (1,)), ((), ())),
            precision=_PRODUCTS,
            preferred_element_type=jnp.float32,
        )

    total = jax.lax.fori_loop(0, slices, multiply, jnp.zeros((ROWS, COLUMNS), jnp.float32))
    of_y = of_y_ref[at]
    return total + v_ref[at][None, :] - table_ref[of_x[:, None], of_y[None, :]]


def _lse_rows(
    x_ref: Any,
    y_ref: Any,
    u_ref: Any,
    v_ref: Any,
    of_x_ref: Any,
    of_y_ref: Any,
    table_ref: Any,
    zeros_ref: Any,
    rows_ref: Any,
    columns_ref: Any,
    *,
    blocks: int,
    slices: int,
) -> None:
    of_x = of_x_ref[...]

    def step(block: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        top, total = carry
        logits = _block(x_ref, y_ref, v_ref, of_x, of_y_ref, table_ref, block, slices)
        higher = jnp.maximum(top, jnp.max(logits, axis=1))
        fresh = jnp.sum(jnp.exp(logits - higher[:, None]), axis=1)
        return higher, total * jnp.exp(top - higher) + fresh

    start = jnp.full((ROWS,), NOTHING, jnp.float32), jnp.zeros((ROWS,), jnp.float32)
    top, total = jax.lax.fori_loop(0, blocks, step, start)
    rows_ref[...] = top + jnp.log(total)


def _sum_rows(
    x_ref: Any,
    y_ref: Any,
    u_ref: Any,
    v_ref: Any,
    of_x_ref: Any,
    of_y_ref: Any,
    table_ref: Any,
    zeros_ref: Any,
    rows_ref: Any,
    columns_ref: Any,
    *,
    blocks: int,
    slices: int,
) -> None:
    from jax.experimental.pallas import triton

    of_x, u = of_x_ref[...], u_ref[...]

    def step(block: jax.Array, total: jax.Array) -> jax.Array:
        logits = _block(x_ref, y_ref, v_ref, of_x, of_y_ref, table_ref, block, slices)
        plan = jnp.exp(u[:, None] + logits)
        at = pl.ds(block * COLUMNS, COLUMNS)
        triton.atomic_add(columns_ref, (at,), jnp.sum(plan, axis=0))
        return total + jnp.sum(plan, axis=1)

    rows_ref[...] = jax.lax.fori_loop(0, blocks, step, jnp.zeros((ROWS,), jnp.float32))
