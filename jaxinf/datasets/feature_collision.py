"""Poison with right labels: images that a network takes for the attacker's target."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.tree_util import register_dataclass
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from jaxinf.datasets.arrays import Examples, as_mask, cast_back, check_labelled, value_bounds
from jaxinf.errors import InputError, check_finite


@register_dataclass
@dataclass(frozen=True, eq=False)
class FeatureCollision:
    """Examples some of which collide with the target in feature space, and the truth about them.

    Attributes:
        examples: as given, with `"x"` replaced; every label is still right to the eye.
        is_poisoned: bool[N], which inputs were changed.
        rows: int64[n], the same as row numbers, ascending.
        distance_before: float32[n], distance in feature space from each base to the target.
        distance_after: float32[n], the same from each poison.
    """

    examples: Examples
    is_poisoned: Bool[np.ndarray, " N"]
    rows: Int[np.ndarray, " n"]
    distance_before: Float[np.ndarray, " n"]
    distance_after: Float[np.ndarray, " n"]


def feature_collision(
    examples: Mapping[str, Any],
    target: ArrayLike,
    feature_fn: Callable[[jax.Array], jax.Array],
    *,
    base_class: int,
    count: int,
    max_change: float,
    num_steps: int = 100,
    value_range: tuple[float, float] | None = None,
    seed: int,
) -> FeatureCollision:
    """Change inputs of one class a little, until a network sees the target in them.

    For each base b among `count` examples of the class, `||f(x) - f(t)||²` is minimised over the
    x with `|x - b| <= max_change` everywhere, by projected Adam; all bases at once. A model that
    is trained on the poisons learns to give the target their class.

    Args:
        examples: `{"x": [N, ...], "y": int[N]}`.
        target: an input, of the shape of one row of `"x"`; not of the base class, for an attack.
        feature_fn: float32[B, ...] -> float[B, ...], the hidden layer attacked: one row of
            features per row of inputs, in the units of `"x"`. Differentiable.
        base_class: the label of the examples that are changed; they keep it.
        count: how many of them, drawn at random.
        max_change: the most by which any entry may change, in the units of `"x"`, positive.
        num_steps: steps of Adam; each moves an entry by about a tenth of `max_change` at most.
        value_range: entries stay within it; by default 0 to 255 for uint8, and otherwise the
            smallest to the largest value of `"x"`.
        seed: which examples.

    Returns:
        The examples, the truth, and how near the poisons came. Integer inputs are rounded, and
        distances are measured after that.

    Raises:
        InputError: for a target unlike the inputs, fewer examples of the class than `count`,
            numbers out of range, or features that are not one finite row per input.

    Reference:
        After Shafahi et al., "Poison Frogs! Targeted Clean-Label Poisoning Attacks on Neural
        Networks", NeurIPS 2018 (arXiv 1804.00792), equation 1. Theirs is a penalty on the change
        in place of a bound, and forward-backward splitting in place of Adam.

    Example:
        >>> clean = {"x": np.zeros((4, 2), np.float32), "y": np.array([0, 0, 1, 1])}
        >>> sum_of = lambda x: x.sum(axis=1, keepdims=True)
        >>> found = feature_collision(clean, np.float32([1, 0]), sum_of, base_class=0, count=2,
        ...     max_change=0.4, value_range=(-1, 1), seed=0)
        >>> found.examples["x"][0].round(2), found.distance_after.round(2)
        (array([0.4, 0.4], dtype=float32), array([0.2, 0.2], dtype=float32))
    """
    host, total = check_labelled(examples)
    inputs = host["x"]
    goal = np.asarray(target)
    if goal.shape != inputs.shape[1:]:
        raise InputError(
            f"target has shape {goal.shape}: give one input, of shape {inputs.shape[1:]}"
        )
    check_finite(inputs, "examples['x']", first_row=0)
    check_finite(goal, "target")
    if not (max_change > 0 and np.isfinite(max_change)):
        raise InputError(
            f"max_change is {max_change}: give a positive number, in the inputs' units"
        )
    if num_steps < 1:
        raise InputError(f"num_steps is {num_steps}: at least 1")
    candidates = np.flatnonzero(host["y"] == base_class)
    if not 1 <= count <= len(candidates):
        raise InputError(
            f"count is {count}: class {base_class} has {len(candidates)} examples to draw from"
        )
    rows = np.sort(np.random.default_rng(seed).choice(candidates, size=count, replace=False))
    low, high = value_bounds(inputs, value_range)
    bases = inputs[rows].astype(np.float32)
    wanted = _features(feature_fn, jnp.asarray(goal, jnp.float32)[None])
    before = _distance(feature_fn, bases, wanted)
    moved = _collide(
        feature_fn, jnp.asarray(bases), wanted, max_change, low, high, num_steps=num_steps
    )
    poisons = cast_back(np.asarray(moved), inputs.dtype)
    changed = inputs.copy()
    changed[rows] = poisons
    return FeatureCollision(
        examples={**host, "x": changed},
        is_poisoned=as_mask(rows, total),
        rows=rows,
        distance_before=before,
        distance_after=_distance(feature_fn, poisons.astype(np.float32), wanted),
    )


@partial(jax.jit, static_argnums=0, static_argnames="num_steps")
def _collide(
    feature_fn: Callable[[jax.Array], jax.Array],
    bases: jax.Array,
    wanted: jax.Array,
    max_change: float,
    low: float,
    high: float,
    *,
    num_steps: int,
) -> jax.Array:
    # Adam moves an entry by about its rate, whatever the gradient: a decaying tenth of the bound
    schedule = optax.cosine_decay_schedule(0.1, num_steps)
    optimizer = optax.adam(lambda step: schedule(step) * max_change)
    floor = jnp.maximum(bases - max_change, jnp.minimum(bases, low))
    ceiling = jnp.minimum(bases + max_change, jnp.maximum(bases, high))

    def objective(x: jax.Array) -> jax.Array:
        # a sum over rows: every row descends along its own gradient
        return jnp.sum((_features(feature_fn, x) - wanted) ** 2)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        x, state = carry
        updates, state = optimizer.update(jax.grad(objective)(x), state, x)
        return (jnp.clip(x + updates, floor, ceiling), state), None

    (x, _), _ = lax.scan(step, (bases, optimizer.init(bases)), length=num_steps)
    return x


def _features(feature_fn: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    found = feature_fn(x)
    if not found.ndim or found.shape[0] != x.shape[0]:
        raise InputError(
            f"feature_fn turned inputs of shape {x.shape} into {found.shape}: one row per input "
            "is needed"
        )
    return found.reshape(x.shape[0], -1)


def _distance(
    feature_fn: Callable[[jax.Array], jax.Array], x: np.ndarray, wanted: jax.Array
) -> np.ndarray:
    distance = np.asarray(
        jnp.linalg.norm(_features(feature_fn, jnp.asarray(x)) - wanted, axis=1), np.float32
    )
    if not np.isfinite(distance).all():
        raise InputError("feature_fn gave NaN or infinite features")
    return distance
