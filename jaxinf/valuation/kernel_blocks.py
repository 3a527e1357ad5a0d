"""Fused sums over exp(x_i · y_j + ...) in portable Pallas: a grid of blocks, visited in order.

Rows of blocks are walked one after the other, as a TPU does and as the interpreter does
elsewhere. What is summed over a row of blocks, or over all of them, lies in an output block that
stays on the chip while the grid returns to it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

# of a block: what a TPU's vector unit likes
ROWS, COLUMNS = 256, 512
# in place of minus infinity, of which a block that holds nothing else would make NaN
NOTHING = -1e30


def row_lse(x: jax.Array, y: jax.Array, bias: jax.Array, *, interpret: bool) -> jax.Array:
    """Log Σ_j exp(x_i · y_j + bias_j), float[n]: by a running maximum and a running sum."""
    top, total = _call(_lse_block, x, y, None, bias, (1, 1), interpret)
    return (top + jnp.log(total))[: len(x), 0]


def plan_sums(
    x: jax.Array, y: jax.Array, u: jax.Array, v: jax.Array, *, interpret: bool
) -> tuple[jax.Array, jax.Array]:
    """Row sums [n] and column sums [m] of exp(u_i + v_j + x_i · y_j), from one product."""
    rows, columns = _call(_sums_block, x, y, u, v, (1, None), interpret)
    return rows[: len(x), 0], columns[0, : len(y)]


def _call(
    kernel: Any,
    x: jax.Array,
    y: jax.Array,
    u: jax.Array | None,
    v: jax.Array,
    outputs: tuple[int | None, int | None],
    interpret: bool,
) -> Any:
    """Run a kernel over the grid; an output of None is one vector for all columns."""
    n, m, width = len(x), len(y), -(-x.shape[1] // 128) * 128
    size = min(ROWS, -(-n // 8) * 8), min(COLUMNS, -(-m // 128) * 128)
    rows, columns = (-(-count // each) * each for count, each in zip((n, m), size, strict=True))
    fill = lambda a, count, value=0.0: jnp.pad(
        jnp.maximum(a.astype(jnp.float32), NOTHING),
        [(0, count - len(a)), *([(0, width - a.shape[1])] if a.ndim == 2 else [])],
        constant_values=value,
    )
    of_rows = pl.BlockSpec((size[0], width), lambda i, j: (i, 0))
    column = pl.BlockSpec((size[0], 1), lambda i, j: (i, 0))
    everywhere = pl.BlockSpec((1, columns), lambda i, j: (0, 0))
    given: list[Any] = [fill(x, rows), fill(y, columns)]
    specs: list[Any] = [of_rows, pl.BlockSpec((size[1], width), lambda i, j: (j, 0))]
    if u is not None:
        given.append(fill(u, rows, NOTHING)[:, None])
        specs.append(column)
    given.append(fill(v, columns, NOTHING)[None, :])
    specs.append(pl.BlockSpec((1, size[1]), lambda i, j: (0, j)))
    shape = lambda kind: jax.ShapeDtypeStruct((rows, 1) if kind else (1, columns), jnp.float32)
    return pl.pallas_call(
        functools.partial(kernel, columns=size[1]),
        grid=(rows // size[0], columns // size[1]),
        in_specs=specs,
        out_specs=[column if kind else everywhere for kind in outputs],
        out_shape=[shape(kind) for kind in outputs],
        interpret=interpret,
    )(*given)


def _products(x_ref: Any, y_ref: Any) -> jax.Array:
    return jax.lax.dot_general(
        x_ref[...],
        y_ref[...],
        (((1,), (1,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def _lse_block(
    x_ref: Any, y_ref: Any, bias_ref: Any, top_ref: Any, total_ref: Any, *, columns: int
) -> None:
    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        top_ref[...] = jnp.full_like(top_ref, NOTHING)
        total_ref[...] = jnp.zeros_like(total_ref)

    logits = _products(x_ref, y_ref) + bias_ref[...]
    top = top_ref[...]
    higher = jnp.maximum(top, jnp.max(logits, axis=1, keepdims=True))
    fresh = jnp.sum(jnp.exp(logits - higher), axis=1, keepdims=True)
    total_ref[...] = total_ref[...] * jnp.exp(top - higher) + fresh
    top_ref[...] = higher


def _sums_block(
    x_ref: Any, y_ref: Any, u_ref: Any, v_ref: Any, rows_ref: Any, columns_ref: Any, *, columns: int
) -> None:
    row, column = pl.program_id(0), pl.program_id(1)

    @pl.when(column == 0)
    def _() -> None:
        rows_ref[...] = jnp.zeros_like(rows_ref)

    @pl.when((row == 0) & (column == 0))
    def _() -> None:
        columns_ref[...] = jnp.zeros_like(columns_ref)

    plan = jnp.exp(u_ref[...] + (v_ref[...] + _products(x_ref, y_ref)))
    rows_ref[...] += jnp.sum(plan, axis=1, keepdims=True)
    at = (slice(None), pl.ds(column * columns, columns))
    columns_ref[at] += jnp.sum(plan, axis=0, keepdims=True)
