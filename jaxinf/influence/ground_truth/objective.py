"""The objective that ground truth is about: one weight per example, and a penalty.

J(θ) = (1/N) Σᵢ weightᵢ · ℓ(zᵢ; θ) + (mass/N) · ℓ(query; θ) + (l2/2) ‖θ‖²

The divisor N stays the number of training examples whatever is left out or added. So leaving out
and adding are the same change with opposite signs, and the mirror is exact to first order.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from jaxtyping import Float

from jaxinf.adapters import check_loss_shape
from jaxinf.errors import InputError, check_examples, check_finite, check_params
from jaxinf.influence.queries import QueryGroups, group_loss
from jaxinf.typing import Batch, Params, PerExampleLoss


class Problem(NamedTuple):
    """A training problem with a single minimum.

    Attributes:
        loss_fn: per-example loss, at the highest matrix precision.
        params: where to start, and the structure of the parameters.
        train: pytree with leading axis N.
        l2: penalty on all parameters.
    """

    loss_fn: Partial
    params: Params
    train: Batch
    l2: jax.Array

    @property
    def size(self) -> int:
        """N, the number of training examples."""
        return jax.tree.leaves(self.train)[0].shape[0]


def make_problem(loss_fn: PerExampleLoss, params: Params, train: Batch, l2: float) -> Problem:
    """Check a problem and bring it to the device.

    Raises:
        InputError: for parameters or examples that cannot be used, or a negative penalty.
    """
    check_params(params)
    check_examples(train, "train")
    check_finite(train, "train", first_row=0)
    if not 0 <= l2 < float("inf"):
        raise InputError(f"l2 is {l2}: a finite number, not negative")
    carried = loss_fn if isinstance(loss_fn, Partial) else Partial(loss_fn)
    check_loss_shape(carried, params, train)
    # one object for every call: what is compiled for a loss is found again
    loss = Partial(_precise, carried)
    params, train = jax.tree.map(jnp.asarray, (params, train))
    return Problem(loss, params, train, jnp.asarray(l2, ravel_pytree(params)[0].dtype))


def objective(
    problem: Problem,
    params: Params,
    weights: Float[jax.Array, " N"] | None = None,
    added: tuple[QueryGroups, jax.Array] | None = None,
) -> Float[jax.Array, ""]:
    """J at `params`.

    Args:
        problem: the loss, the training set and the penalty.
        params: where to evaluate it.
        weights: float[N], one per training example; 1 by default.
        added: a query (leading axis n) and its mass, in training examples.

    Returns:
        A scalar.
    """
    losses = problem.loss_fn(params, problem.train)
    total = jnp.sum(losses if weights is None else weights.astype(losses.dtype) * losses)
    if added is not None:
        query, mass = added
        total += mass.astype(total.dtype) * group_loss(problem.loss_fn, params, query)
    flat = ravel_pytree(params)[0]
    return total / problem.size + problem.l2 / 2 * jnp.vdot(flat, flat, precision="highest")


def _precise(loss_fn: Partial, params: Params, batch: Batch) -> Float[jax.Array, " B"]:
    with jax.default_matmul_precision("highest"):
        losses = loss_fn(params, batch)
    return losses.astype(jnp.promote_types(losses.dtype, jnp.float32))
