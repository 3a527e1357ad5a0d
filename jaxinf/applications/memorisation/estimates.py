"""Cheap estimates of memorisation: what an example does for itself in a few trained models.

Influence of an example on itself, with the model briefly trained and the figures averaged over a
few of them. What each is worth beside plainly leaving examples out is measured in
docs/memorisation.md.
"""

from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Float

from jaxinf.errors import InputError, check_count, check_examples, check_finite, check_positive
from jaxinf.influence.gradients import grad_dot
from jaxinf.influence.logra import logra
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.measures import doubt
from jaxinf.influence.self_influence import self_influence
from jaxinf.typing import Batch, Params, PerExampleLoss

Recipe: TypeAlias = Literal["doubt", "gradient", "step", "curvature"]
"""How an estimate is made; see `memorisation_estimate`."""

RECIPES: tuple[Recipe, ...] = get_args(Recipe)


def memorisation_estimates(
    loss_fn: PerExampleLoss,
    models: Params,
    train: Batch,
    *,
    recipe: Recipe = "step",
    learning_rate: float = 0.1,
    rank: int = 16,
    damping: float = 0.01,
    batch_size: int = 256,
) -> Float[np.ndarray, " C N"]:
    """Estimate in every model how far each training example is known by heart.

    The mean over models is the estimate. No example is left out of any. Models that have trained
    for a part of a full run serve best: later on, all examples are fitted alike. Recipes, with p
    the probability of the label:

    - `"doubt"`: 1 − p, the mean loss's bounded relative. No influence at all: the baseline.
    - `"gradient"`: squared norm of the loss gradient, the example's influence on itself by one
      step of SGD (GraNd, TracIn's self-influence).
    - `"step"`: Forward-INF on itself: how far p rises by one step of size `learning_rate` on the
      example alone, by a second forward pass.
    - `"curvature"`: the influence function of the example on its own margin, `logra`.

    Sign: positive = memorised, as `memorisation_scores`. Only the order is meant to agree.

    Cost per model: `"doubt"` 1 forward pass per example, `"gradient"` 3, `"step"` 4, `"curvature"`
    about 12.

    Args:
        loss_fn: cross-entropy, `(params, batch) -> float[B]`, in evaluation mode.
        models: parameters with a leading axis C over models trained on all of `train`, as from
            `stack_checkpoints` or `retrain_on_subsets`.
        train: N examples, a pytree of arrays.
        recipe: see above.
        learning_rate: of `"step"`.
        rank: of `logra`'s projections.
        damping: of its curvature, in units of the mean eigenvalue.
        batch_size: examples at a time.

    Returns:
        float64[C, N].

    Raises:
        InputError: for an unknown recipe, models that are not stacked, or scores that are not
            finite.

    Reference:
        Feldman and Zhang, NeurIPS 2020 (what is estimated); Paul et al., "Deep Learning on a Data
        Diet", NeurIPS 2021 (early losses and gradients averaged over models).

    Example:
        >>> loss = lambda w, batch: jax.nn.softplus(-batch["y"] * (batch["x"] @ w))
        >>> train = {"x": jnp.eye(2), "y": jnp.array([1.0, -1.0])}
        >>> models = jnp.array([[1.0, 1.0], [2.0, 0.0]])
        >>> memorisation_estimates(loss, models, train, recipe="doubt").round(2).tolist()
        [[0.27, 0.73], [0.12, 0.5]]
    """
    if recipe not in RECIPES:
        raise InputError(f"recipe is {recipe!r}: choose from {', '.join(RECIPES)}")
    check_positive(learning_rate, "learning_rate")
    check_count(batch_size, "batch_size")
    check_examples(train, "train")
    leaves = jax.tree.leaves(models)
    if not leaves or any(np.ndim(a) == 0 or a.shape[0] != leaves[0].shape[0] for a in leaves):
        raise InputError("models need one leading axis, over models: stack their parameters")
    score = _scorer(loss_fn, recipe, train, learning_rate, rank, damping, batch_size)
    scores = []
    for number in range(leaves[0].shape[0]):
        params = jax.tree.map(lambda a, c=number: jnp.asarray(a[c]), models)
        found = np.asarray(score(params), np.float64)
        check_finite(found, f"scores of model {number}", first_row=0)
        scores.append(found)
    return np.stack(scores)


def _scorer(
    loss_fn: PerExampleLoss,
    recipe: Recipe,
    train: Batch,
    learning_rate: float,
    rank: int,
    damping: float,
    batch_size: int,
) -> Any:
    loss = scoring_loss(loss_fn, None, "highest")
    held = jax.tree.map(jnp.asarray, train)
    if recipe == "doubt":
        return lambda params: _doubts(loss, params, held)
    if recipe == "step":
        return lambda params: _own_step(loss, batch_size, params, held, learning_rate)
    if recipe == "gradient":
        plain = grad_dot(loss_fn, scorer="gradients")
        return lambda params: self_influence(plain, params, train, batch_size=batch_size)
    method = logra(
        loss_fn,
        rank=rank,
        init="pca",
        damping=damping,
        measure="margin",
        with_self_score=True,
    )
    return lambda params: self_influence(method, params, train, batch_size=batch_size)


@jax.jit
def _doubts(loss: Partial, params: Params, train: Batch) -> jax.Array:
    return doubt(loss(params, train))


@partial(jax.jit, static_argnums=1)
def _own_step(
    loss: Partial, batch_size: int, params: Params, train: Batch, learning_rate: float
) -> jax.Array:
    """Rise of p by a step of SGD on the example alone."""

    def of_one(example: Batch) -> jax.Array:
        batch = jax.tree.map(lambda a: a[None], example)
        before, slopes = jax.value_and_grad(lambda at: loss(at, batch)[0])(params)
        moved = jax.tree.map(lambda p, g: p - learning_rate * g, params, slopes)
        return jnp.exp(-loss(moved, batch)[0]) - jnp.exp(-before)

    return lax.map(of_one, train, batch_size=batch_size)
