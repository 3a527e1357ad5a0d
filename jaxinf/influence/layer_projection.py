"""Low-rank projections of a linear layer's gradient, on both of its sides."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxinf.influence.inverse_hessian.layers import Traffic


class Factors(NamedTuple):
    """Of one layer: what projects its inputs [I, r] and its slopes [O, r']."""

    entering: Float[jax.Array, "I r"]
    slopes: Float[jax.Array, "O s"]


def random_factors(key: jax.Array, sides: list[tuple[int, int]], rank: int) -> list[Factors]:
    """Orthogonal columns, scaled so that inner products of gradients are kept on average.

    Args:
        key: layer l draws from `fold_in(key, l)`.
        sides: (I, O) of each layer.
        rank: r; a side of at most so many is kept whole, and rotated.

    Example:
        >>> factors = random_factors(jax.random.key(0), [(3, 2)], 2)[0]
        >>> factors.entering.shape, factors.slopes.shape
        ((3, 2), (2, 2))
    """

    def draw(key: jax.Array, size: int) -> jax.Array:
        columns = min(rank, size)
        normal = jax.random.normal(key, (size, columns))
        orthogonal, upper = jnp.linalg.qr(normal)
        # without the signs the columns would not be evenly distributed
        signs = jnp.where(jnp.diag(upper) < 0, -1.0, 1.0)
        return orthogonal * signs[None] * jnp.sqrt(size / columns)

    found = []
    for number, (inputs, outputs) in enumerate(sides):
        left, right = jax.random.split(jax.random.fold_in(key, number))
        found.append(Factors(draw(left, inputs), draw(right, outputs)))
    return found


def principal_factors(entering: jax.Array, slopes: jax.Array, rank: int) -> Factors:
    """The eigenvectors of the largest eigenvalues of both second moments, [I, I] and [O, O].

    Example:
        >>> factors = principal_factors(jnp.diag(jnp.array([1.0, 4.0])), jnp.eye(1), 1)
        >>> abs(factors.entering).tolist()
        [[0.0], [1.0]]
    """
    largest = lambda moment: jnp.linalg.eigh(moment)[1][:, -rank:]
    return Factors(largest(entering), largest(slopes))


def project_layer(part: Traffic, factors: Factors) -> Float[jax.Array, "B d"]:
    """`Lᵀ (Σ_t a_t s_tᵀ) R` of each example, laid end to end; the sum is never formed in full.

    Args:
        part: what passed through the layer.
        factors: L and R.

    Returns:
        float[B, r · s].
    """
    with jax.default_matmul_precision("highest"):
        left, right = (
            a.astype(jnp.result_type(a.dtype, jnp.float32))
            @ side.astype(jnp.result_type(a.dtype, jnp.float32))
            for a, side in zip(part, factors, strict=True)
        )
        return jnp.einsum("btr,bts->brs", left, right).reshape(left.shape[0], -1)


def squared_norms(part: Traffic) -> Float[jax.Array, " B"]:
    """Of each example's gradient; from inner products of positions where that is less.

    Example:
        >>> part = Traffic(jnp.ones((1, 2, 3)), jnp.ones((1, 2, 1)))
        >>> squared_norms(part).tolist()
        [12.0]
    """

    def one(example: Traffic) -> jax.Array:
        a, s = example
        if a.shape[0] ** 2 < a.shape[1] * s.shape[1]:
            return jnp.sum((a @ a.T) * (s @ s.T))
        return jnp.sum(jnp.square(a.T @ s))

    with jax.default_matmul_precision("highest"):
        return jax.lax.map(one, part)
