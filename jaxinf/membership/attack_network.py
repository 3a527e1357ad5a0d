"""The network of the weakly supervised attack: trained from several starts at once."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from jaxinf.models.mlp import MLP
from jaxinf.typing import AnyArray, Params

HIDDEN = (512, 256, 128)
LEARNING_RATE = 1e-3
BATCH_SIZE = 32
PATIENCE = 3


class Plan(NamedTuple):
    """What one start trains on, in which order: places of rows.

    Attributes:
        order: int32[epochs, T], the training rows, in the order of each epoch.
        held_out: int32[V], the rows that decide when to stop.
    """

    order: Int[AnyArray, "*S epochs T"]
    held_out: Int[AnyArray, "*S V"]


def plan(key: jax.Array, members: np.ndarray, nonmembers: np.ndarray, max_epochs: int) -> Plan:
    """Thin the larger class at random to the smaller, hold a tenth of both out, order the epochs.

    Drawn on the host: a permutation's sort takes longer to compile than everything else here, and
    would be compiled anew for every number of pseudo-members.

    Example:
        >>> made = plan(jax.random.key(0), np.arange(12), np.arange(90, 100), max_epochs=2)
        >>> made.order.shape, made.held_out.shape, int((made.order[0] >= 90).sum()) in range(8, 11)
        ((2, 18), (2,), True)
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
    per_class = min(len(members), len(nonmembers))
    chosen = [rng.permutation(rows)[:per_class] for rows in (members, nonmembers)]
    rows = rng.permutation(np.concatenate(chosen)).astype(np.int32)
    cut = 9 * len(rows) // 10
    order = np.stack([rng.permutation(rows[:cut]) for _ in range(max_epochs)])
    return Plan(order, rows[cut:])


class _Progress(NamedTuple):
    """Where the training of one network stands; `kept` are the weights that score."""

    epoch: jax.Array
    stale: jax.Array
    best: jax.Array
    kept: Params
    kept_loss: jax.Array
    params: Params
    optimizer: optax.OptState


@functools.partial(jax.jit, static_argnames=("num_unlabeled", "keep_best"))
def train_and_score(
    features: Float[jax.Array, "T 2d"],
    targets: Float[jax.Array, "N 2d"],
    keys: jax.Array,
    plans: Plan,
    *,
    num_unlabeled: int,
    keep_best: bool,
) -> tuple[Float[jax.Array, "S N"], Int[jax.Array, " S"], Float[jax.Array, " S"]]:
    """Train a network per key, all of them at once, and let it score the targets.

    Args:
        features: of unlabelled pairs, which a plan uses as members, then of known non-members.
        targets: to be scored.
        keys: [S], of the first weights.
        plans: with a leading axis S.
        num_unlabeled: how many of the features are unlabelled pairs'.
        keep_best: weights of the lowest held-out loss, and the difference of both logits as the
            score; else the last weights, the sigmoid of the member logit, and the held-out loss
            as the sum of its batches' means.

    Returns:
        Scores float[S, N], epochs int[S], held-out losses of the kept weights float[S].
    """
    model = MLP(HIDDEN, 2)
    optimizer = optax.adam(LEARNING_RATE)
    labels = (jnp.arange(features.shape[0]) < num_unlabeled).astype(jnp.int32)
    max_epochs, num_train = plans.order.shape[1:]
    num_held_out = plans.held_out.shape[1]

    def mean_loss(params: Params, rows: AnyArray, weights: jax.Array) -> jax.Array:
        logits: Any = model.apply({"params": params}, features[rows])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows])
        return jnp.sum(losses * weights)

    def one_seed(key: jax.Array, own: Plan) -> tuple[jax.Array, jax.Array, jax.Array]:
        params = torch_init(model, key, features)

        def epoch(now: _Progress) -> _Progress:
            def step(carry: tuple[Params, optax.OptState], batch: tuple[jax.Array, jax.Array]):
                params, state = carry
                updates, state = optimizer.update(jax.grad(mean_loss)(params, *batch), state)
                return (optax.apply_updates(params, updates), state), None

            batches = _padded(jnp.asarray(own.order)[now.epoch]), _weights(num_train)
            (params, state), _ = jax.lax.scan(step, (now.params, now.optimizer), batches)
            weights = jnp.full(num_held_out, 1 / num_held_out, features.dtype)
            loss = mean_loss(params, own.held_out, weights)
            judged = loss
            if not keep_best:
                weights = _weights(num_held_out).ravel()[:num_held_out] / num_held_out
                judged = mean_loss(params, own.held_out, weights)
            better = judged < now.best
            keep = better | (not keep_best)
            return _Progress(
                epoch=now.epoch + 1,
                stale=jnp.where(better, 0, now.stale + 1),
                best=jnp.where(better, judged, now.best),
                kept=jax.tree.map(lambda a, b: jnp.where(keep, a, b), params, now.kept),
                kept_loss=jnp.where(keep, loss, now.kept_loss),
                params=params,
                optimizer=state,
            )

        infinite = jnp.full((), jnp.inf, features.dtype)
        zero = jnp.zeros((), jnp.int32)
        start = _Progress(zero, zero, infinite, params, infinite, params, optimizer.init(params))
        end = jax.lax.while_loop(
            lambda now: (now.epoch < max_epochs) & (now.stale < PATIENCE), epoch, start
        )
        logits: Any = model.apply({"params": end.kept}, targets)
        score = logits[:, 1] - logits[:, 0] if keep_best else jax.nn.sigmoid(logits[:, 1])
        return score, end.epoch, end.kept_loss

    return jax.vmap(one_seed)(keys, plans)


def torch_init(model: MLP, key: jax.Array, features: jax.Array) -> Params:
    """Weights and biases uniform in ±1/√fan-in, as `torch.nn.Linear` starts."""
    shapes = jax.eval_shape(model.init, key, features[:1])["params"]
    start = {}
    for number, (name, layer) in enumerate(sorted(shapes.items())):
        bound = layer["kernel"].shape[0] ** -0.5
        keys = jax.random.split(jax.random.fold_in(key, number))
        start[name] = {
            leaf: jax.random.uniform(k, layer[leaf].shape, features.dtype, -bound, bound)
            for leaf, k in zip(("kernel", "bias"), keys, strict=True)
        }
    return start


def _padded(order: jax.Array) -> jax.Array:
    """Cut into batches; the last one, ragged, is filled up with rows that `_weights` gives 0."""
    num_batches = -(-order.shape[0] // BATCH_SIZE)
    places = jnp.minimum(jnp.arange(num_batches * BATCH_SIZE), order.shape[0] - 1)
    return order[places].reshape(num_batches, BATCH_SIZE)


def _weights(count: int) -> jax.Array:
    """Weights of `count` rows in batches, so that every batch's weights sum to one."""
    num_batches = -(-count // BATCH_SIZE)
    real = np.arange(num_batches * BATCH_SIZE).reshape(num_batches, BATCH_SIZE) < count
    return jnp.asarray(real / real.sum(axis=1, keepdims=True), float)
