"""Models that were fine-tuned: what were they tuned on, and which of it is behind this image?"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from jaxinf.errors import InputError, check_count, check_examples, check_positive
from jaxinf.influence import Attributor, forward_inf, normalise_by_loss
from jaxinf.influence.queries import QueryGroups, as_groups
from jaxinf.typing import Batch, Params, PerExampleLoss


def mirrored_tuning(
    loss_fn: PerExampleLoss, *, learning_rate: float = 1e-3, steps: int = 10
) -> Attributor:
    """Fine-tune on the generated image; by what share does each training image's loss fall?

    For a model that was fine-tuned: the tuning that made the image is mirrored by a short one on
    the image itself. It works at the weights from before the tuning; and at those from after it
    as a contrast with the image that the weights from before make from the same noise, not
    without. There it also finds what the model was tuned on where that is not behind the image:
    see the controls in docs/diffusion.md.

    Sign: positive = training on the image lowers the denoising loss of the generated one (a
    proponent). Unit: a share of the image's own loss.

    Cost: (1 + K) forward passes per training image and draw, and one more for the loss.

    Args:
        loss_fn: a `denoising_loss`.
        learning_rate: of Adam, on the generated image.
        steps: how many.

    Returns:
        An `Attributor`.

    Raises:
        InputError: for a rate or a number of steps that is not positive.

    Example:
        >>> from jaxinf.applications.diffusion import denoising_loss, draw_noise
        >>> error = lambda mean, x, noise, sigma, labels: jnp.mean((x - mean) ** 2, (1, 2, 3))
        >>> loss = denoising_loss(error, draw_noise(jax.random.key(0), 2, (2, 2, 1)))
        >>> batch = {"x": jnp.ones((1, 2, 2, 1)), "y": jnp.zeros(1, int)}
        >>> method = mirrored_tuning(loss, learning_rate=0.1, steps=5)
        >>> round(float(method.score(method.prepare(jnp.zeros(()), batch), batch)[0, 0]), 2)
        0.74
    """
    check_positive(learning_rate, "learning_rate")
    check_count(steps, "steps")
    tuned = forward_inf(loss_fn, optimizer=optax.adam(learning_rate), steps=steps)
    return normalise_by_loss(tuned, loss_fn)


def loss_fall(loss_fn: PerExampleLoss, before: Params) -> Attributor:
    """By what share has each training image's loss fallen since the weights `before`?

    The question of a fine-tuned model that knows nothing of the generated image: which images was
    it tuned on? Run it first: where the tuning was strong it finds them all, and what else is
    found must be held against it.

    Sign: positive = the loss fell. Unit: a share of the loss before. Every query gets the same
    scores.

    Cost: two forward passes per training image and draw, whatever the number of queries.

    Args:
        loss_fn: a `denoising_loss`.
        before: the weights from before the tuning; `attribute` gets those from after it.

    Returns:
        An `Attributor`.

    Example:
        >>> from jaxinf.applications.diffusion import denoising_loss, draw_noise
        >>> error = lambda mean, x, noise, sigma, labels: jnp.mean((x - mean) ** 2, (1, 2, 3))
        >>> loss = denoising_loss(error, draw_noise(jax.random.key(0), 2, (2, 2, 1)))
        >>> batch = {"x": jnp.ones((1, 2, 2, 1)), "y": jnp.zeros(1, int)}
        >>> method = loss_fall(loss, jnp.zeros(()))
        >>> method.score(method.prepare(jnp.ones(()), batch), batch).tolist()
        [[1.0]]
    """

    def prepare(params: Params, queries: Batch, train: Any = None) -> tuple[Any, ...]:
        count = as_groups(queries).weights.shape[0]
        loss = loss_fn if isinstance(loss_fn, Partial) else Partial(loss_fn)
        return loss, before, params, jnp.zeros((count, 1))

    def score(state: tuple[Any, ...], batch: Batch) -> jax.Array:
        loss, before, params, blank = state
        old = loss(before, batch)
        return blank + ((old - loss(params, batch)) / jnp.maximum(old, 1e-12))[None]

    return Attributor(prepare, score, None, loss_fn, lambda k: 2.0, "loss_fall")


def contrast_with(attributor: Attributor, plain: Batch) -> Attributor:
    """Scores of each generated image less those of an image that it is compared with.

    What both have in common (their class, most of it) falls out. Made for the images that the
    weights from before the tuning make from the same noise: `sample` with the same key.

    Sign: positive = more of a proponent of the generated image than of the other.

    Cost: that of twice as many queries.

    Args:
        attributor: any.
        plain: the K images to compare with, built like the queries and in their order.

    Returns:
        An `Attributor` without diagnostics.

    Raises:
        InputError: an empty `plain`; in `prepare`, another number of images than of queries, or
            groups of queries.

    Example:
        >>> from jaxinf.influence import grad_dot
        >>> loss = lambda w, batch: batch["x"] @ w
        >>> method = contrast_with(grad_dot(loss), {"x": jnp.array([[1.0, 0.0]])})
        >>> state = method.prepare(jnp.ones(2), {"x": jnp.array([[1.0, 1.0]])})
        >>> method.score(state, {"x": jnp.eye(2)}).tolist()
        [[0.0, 1.0]]
    """
    count = check_examples(plain, "plain")

    def prepare(params: Params, queries: Any, train: Any = None) -> Any:
        groups = as_groups(queries)
        if groups.weights.shape != (count, 1):
            raise InputError(
                f"{groups.size} queries of up to {groups.weights.shape[1]} images, {count} images "
                "to compare with: one for each image is needed, and no groups"
            )
        other = as_groups(jax.tree.map(jnp.asarray, plain))
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), groups, other)
        return attributor.prepare(params, QueryGroups(*both), train)

    def score(state: Any, batch: Batch) -> jax.Array:
        found = attributor.score(state, batch)
        return found[:count] - found[count:]

    passes = attributor.forward_passes
    return Attributor(
        prepare,
        score,
        None,
        attributor.loss_fn,
        None if passes is None else lambda k: passes(2 * k),
        f"{attributor.name}, contrast",
        plan=attributor.plan,
    )
