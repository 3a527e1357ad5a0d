"""The recipe of the paper's released code, trap for trap, so that its behaviour can be reproduced.

What the released leakage notebook does, and what to know of each step:

- One **ascent** step of **Adam**, lr 5e-3, on the query. A fresh Adam's first step is
  `lr · sign(g)`: the size of the gradient is gone.
- The step is in **train mode**, the query doubled to a batch of two. BatchNorm normalises by the
  query's own statistics, and its running statistics move too: scores do not vanish as lr → 0.
- Scores are in evaluation mode with the moved statistics: two effects in one number.
- The **absolute** difference of losses: a proponent and an opponent look alike.
- A query with a small loss is replaced by a random point on a sphere around it: the score is then
  about another input, and depends on a random draw.
- No normalisation: examples with large losses win for every query.

One trap more: the released code compares **half** the mean loss with its thresholds (it divides
by the length of a two-element list), so the stated 5e-3 and 1e-2 act on losses of 1e-2 and 2e-2.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.tree_util import Partial

from jaxinf.errors import InputError
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.directions import add, global_norm, map_queries
from jaxinf.influence.queries import QueryGroups, as_groups
from jaxinf.typing import Params, PyTree

_MAX_TRIALS = 200  # radius × 1.1^200 is 2e8 times the first: no input loss stays small there


class ReleasedState(NamedTuple):
    """The model with its state, and where each query moves both (leading axis K)."""

    loss_fn: Partial
    params: Params
    frozen: PyTree
    moved: Params
    moved_frozen: PyTree
    diagnostics: dict[str, jax.Array]


def released_forward_inf(
    stateful_loss: Any,
    *,
    key: jax.Array,
    learning_rate: float = 5e-3,
    inputs: str | int = "x",
    small_loss: float = 5e-3,
    accepted_loss: float = 1e-2,
    radius: float = 3.0,
    growth: float = 1.1,
) -> Attributor:
    """Forward-INF exactly as the paper's code runs it: `|loss(z; θ′) − loss(z; θ)|`.

    For reproduction. For use, `forward_inf`, `forward_inf_jvp` or `grad_cos` find more: the
    table at the top of this module says why, the leakage benchmark by how much.

    Sign: none; scores are ≥ 0 and higher = more affected.

    Cost: (1 + K) forward passes per training example. Memory: K copies of the parameters.

    Args:
        stateful_loss: `(params, state, batch, *, train) -> (float[B], state)`, as made by
            `jaxinf.adapters.stateful_from_linen` or `stateful_from_nnx`. `attribute` is then
            given `params=(params, state)`.
        key: for the random inputs of the small-loss fallback; query i uses `fold_in(key, i)`.
        learning_rate: of the Adam step.
        inputs: where a query's input is, which the fallback replaces: a key or a position.
        small_loss: the fallback is taken when half the query's train-mode loss is below this.
        accepted_loss: a random input is taken when half its loss is at least this.
        radius: of the first sphere, in the Euclidean norm of the input.
        growth: factor on the radius after each refused input.

    Returns:
        An `Attributor`. Its diagnostics, float[K] each: `loss_before` (train mode, of the input
        that the step was taken on), `step_norm`, `fallback_trials` (0 = not taken) and
        `fallback_radius`.

    Raises:
        InputError: for an `inputs` that the queries do not have.

    Example:
        >>> def loss(w, state, batch, *, train):
        ...     return (batch["x"] @ w - batch["y"]) ** 2, state
        >>> batch = {"x": jnp.array([[1.0, 0.0], [1.0, 1.0]]), "y": jnp.array([1.0, -1.0])}
        >>> method = released_forward_inf(loss, key=jax.random.key(0))
        >>> state = method.prepare((jnp.zeros(2), ()), batch)
        >>> print(jnp.round(method.score(state, batch), 2))
        [[0.01 0.01]
         [0.01 0.02]]

    Reference: ruoxi-jia-group/Forward-INF, data-leakage notebook, commit 0dee72e.
    """
    optimizer = optax.adam(learning_rate)
    carried = stateful_loss if isinstance(stateful_loss, Partial) else Partial(stateful_loss)

    @jax.jit
    def step(
        loss: Partial, params: Params, frozen: PyTree, group: QueryGroups, key: jax.Array
    ) -> tuple[Params, PyTree, dict[str, jax.Array]]:
        def train_loss(at: Params, batch: PyTree) -> tuple[jax.Array, PyTree]:
            doubled = jax.tree.map(lambda a: jnp.concatenate([a, a]), batch)
            losses, moved = loss(at, frozen, doubled, train=True)
            return jnp.mean(losses.astype(jnp.float32)), moved

        query = group.examples
        first, _ = train_loss(params, query)

        def refused(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            trials, _, value = carry
            enough = jnp.where(trials == 0, small_loss, accepted_loss)
            return (value / 2 < enough) & (trials < _MAX_TRIALS)

        def redraw(
            carry: tuple[jax.Array, jax.Array, jax.Array],
        ) -> tuple[jax.Array, jax.Array, jax.Array]:
            trials, _, _ = carry
            draw = jax.random.fold_in(key, trials)
            at = on_sphere(draw, _get(query, inputs), radius * growth**trials)
            value, _ = train_loss(params, _replace(query, inputs, at))
            return trials + 1, at, value

        start = (jnp.zeros((), jnp.int32), _get(query, inputs), first)
        trials, at, value = lax.while_loop(refused, redraw, start)
        used = _replace(query, inputs, at)
        gradient, moved_frozen = jax.grad(train_loss, has_aux=True)(params, used)
        gradient = jax.tree.map(jnp.negative, gradient)
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        return (
            add(params, updates),
            moved_frozen,
            {
                "loss_before": value,
                "step_norm": global_norm(updates),
                "fallback_trials": trials.astype(jnp.float32),
                "fallback_radius": jnp.where(
                    trials > 0, radius * growth ** jnp.maximum(trials - 1, 0), 0.0
                ),
            },
        )

    def prepare(params: PyTree, queries: PyTree, train: Any = None) -> ReleasedState:
        groups = as_groups(queries)
        try:
            _get(groups.examples, inputs)
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(
                f"queries have no inputs {inputs!r}: pass inputs= the key or the position of the "
                "model's input in a batch"
            ) from error
        model, frozen = params
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(groups.size))
        of_one = lambda query: step(carried, model, frozen, *query)
        moved, moved_frozen, diagnostics = map_queries(of_one, params, (groups, keys))
        return ReleasedState(carried, model, frozen, moved, moved_frozen, diagnostics)

    def score(state: ReleasedState, batch: PyTree) -> jax.Array:
        def losses(at: tuple[Params, PyTree]) -> jax.Array:
            found, _ = state.loss_fn(at[0], at[1], batch, train=False)
            return found.astype(jnp.promote_types(found.dtype, jnp.float32))

        base = losses((state.params, state.frozen))
        return jnp.abs(lax.map(losses, (state.moved, state.moved_frozen)) - base[None, :])

    return Attributor(
        prepare,
        score,
        lambda state, batch, key: state.diagnostics,
        _eval_loss(carried),
        lambda k: 1.0 + k,
        "released_forward_inf",
    )


def on_sphere(key: jax.Array, centre: jax.Array, radius: jax.Array | float) -> jax.Array:
    """A random point at distance `radius` from each row of `centre`."""
    direction = jax.random.normal(key, centre.shape, centre.dtype)
    axes = tuple(range(1, centre.ndim))
    norms = jnp.sqrt(jnp.sum(jnp.square(direction), axis=axes, keepdims=True))
    return centre + radius * direction / norms


def _eval_loss(loss: Partial) -> Any:
    return lambda params, batch: loss(*params, batch, train=False)[0]


def _get(batch: PyTree, inputs: str | int) -> jax.Array:
    return batch[inputs]


def _replace(batch: PyTree, inputs: str | int, value: jax.Array) -> PyTree:
    if isinstance(batch, dict):
        return batch | {inputs: value}
    parts = [value if i == inputs else part for i, part in enumerate(batch)]
    return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
