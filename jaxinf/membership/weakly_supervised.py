"""The weakly supervised attack: a classifier of known non-members and pseudo-members."""

import functools
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from jaxinf.errors import InputError, check_count, check_key
from jaxinf.membership.pseudo_members import check_pairs, refuse_overlap, select_pseudo_members
from jaxinf.models.mlp import MLP
from jaxinf.typing import AnyArray, Params

Variant: TypeAlias = Literal["best", "released"]
"""Which weights score: those of the best epoch, or the paper's code to the letter."""

_HIDDEN = (512, 256, 128)
_LEARNING_RATE = 1e-3
_BATCH_SIZE = 32
_PATIENCE = 3


@dataclass(frozen=True)
class WeaklySupervised:
    """Scores of a weakly supervised attack, and how much they owe to chance.

    Attributes:
        scores: float[N], the mean over the attack seeds, higher = more likely a member.
        seed_scores: float[S, N], of each attack seed.
        threshold: the cosine similarity from which on unlabelled pairs were pseudo-members.
        num_pseudo_members: how many were.
        num_per_class: how many of each class every seed trained and validated on.
        epochs: int[S], how many each seed trained for.
        validation_loss: float[S], of the weights that score, in nats.
    """

    scores: Float[jax.Array, " N"]
    seed_scores: Float[jax.Array, "S N"]
    threshold: float
    num_pseudo_members: int
    num_per_class: int
    epochs: np.ndarray
    validation_loss: np.ndarray


def weakly_supervised_attack(
    nonmember_features: Float[AnyArray, "M 2d"],
    unlabeled_features: Float[AnyArray, "U 2d"],
    target_features: Float[AnyArray, "N 2d"],
    *,
    key: jax.Array,
    threshold_std: float = 1.5,
    num_seeds: int = 8,
    variant: Variant = "best",
    max_epochs: int = 15,
    min_count: int = 100,
) -> Float[jax.Array, " N"]:
    """The mean score of `repeat_weakly_supervised_attack`: same arguments, same errors.

    Returns:
        float[N], higher = more likely a member.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> pairs = rng.normal(size=(90, 4)).astype(np.float32)
        >>> scores = weakly_supervised_attack(pairs[:40], pairs[40:80], pairs[80:],
        ...     key=jax.random.key(0), threshold_std=-1.0, num_seeds=1, max_epochs=1, min_count=20)
        >>> scores.shape
        (10,)
    """
    return repeat_weakly_supervised_attack(
        nonmember_features,
        unlabeled_features,
        target_features,
        key=key,
        threshold_std=threshold_std,
        num_seeds=num_seeds,
        variant=variant,
        max_epochs=max_epochs,
        min_count=min_count,
    ).scores


def repeat_weakly_supervised_attack(
    nonmember_features: Float[AnyArray, "M 2d"],
    unlabeled_features: Float[AnyArray, "U 2d"],
    target_features: Float[AnyArray, "N 2d"],
    *,
    key: jax.Array,
    threshold_std: float = 1.5,
    num_seeds: int = 8,
    variant: Variant = "best",
    max_epochs: int = 15,
    min_count: int = 100,
) -> WeaklySupervised:
    """Score each pair by a network that tells known non-members from pseudo-members (WSA).

    Features are [image ‖ text], both halves as the encoders give them (scale them to unit norm
    for CLIP). Unlabelled pairs with a similarity of at least mean + λ · std of the known
    non-members' pass for members; the larger class is thinned at random to the smaller; 10 % is
    held out at random; an MLP 2d → 512 → 256 → 128 → 2 with ReLU learns by cross-entropy, Adam
    1e-3, batches of 32, for at most 15 epochs, until the held-out loss has not fallen for 3. The
    attack is repeated from `num_seeds` random starts (thinning, split, weights, order), all in
    one compiled program.

    "best" keeps the weights of the lowest held-out loss and scores by the difference of the two
    logits. "released" does as the paper's code: the last weights, after the patience has run
    out, score by the sigmoid of the member logit alone (which saturates into ties), and the
    held-out loss that stops the training is the sum of the batches' means.

    Neither known non-members nor unlabelled pairs may be among the targets: the network has
    learnt how to answer for them. If known non-members and targets come from different corpora,
    this network learns to tell the corpora, and only `membership_report`'s controls will say so.

    Args:
        nonmember_features: number[M, 2d], of pairs that the model cannot have seen.
        unlabeled_features: number[U, 2d], of pairs of which some are members.
        target_features: number[N, 2d], of the pairs to be scored.
        key: random key.
        threshold_std: λ. Fix it beforehand: on validation pairs, never on the labels reported.
        num_seeds: S.
        variant: "best" or "released".
        max_epochs: passes over the training pairs, at most.
        min_count: fewest pseudo-members, and non-members, to go on with.

    Returns:
        `WeaklySupervised`.

    Raises:
        InputError: for features of the wrong shape or not finite, sets that share a row, too few
            pseudo-members (naming the λ that would give enough), or options out of range.

    Reference:
        Ko et al., "Practical Membership Inference Attacks Against Large-Scale Multi-Modal Models:
        A Pilot Study", ICCV 2023 (arXiv 2310.00108); ruoxi-jia-group/CLIP-MIA, commit 1d8317a.

    Example:
        >>> pairs = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
        >>> known, unlabeled, targets = pairs[:40], pairs[40:], pairs[80:]
        >>> repeat_weakly_supervised_attack(known, unlabeled, targets, key=jax.random.key(0))
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: unlabeled_features and target_features share 10 rows, first
        unlabeled_features[40] = target_features[0]: drop them from one
    """
    check_key(key)
    check_count(num_seeds, "num_seeds")
    check_count(max_epochs, "max_epochs")
    check_count(min_count, "min_count", minimum=8)  # a tenth of both classes is held out
    if variant not in ("best", "released"):
        raise InputError(f'variant is {variant!r}: "best" or "released"')
    targets = check_pairs(target_features, "target_features")
    refuse_overlap(
        nonmember_features=nonmember_features,
        unlabeled_features=unlabeled_features,
        target_features=target_features,
    )
    chosen = select_pseudo_members(
        nonmember_features, unlabeled_features, threshold_std=threshold_std, min_count=min_count
    )
    members = np.asarray(unlabeled_features)[chosen.mask]
    features = jnp.concatenate([jnp.asarray(members), jnp.asarray(nonmember_features)])
    num_members, num_nonmembers = len(members), len(nonmember_features)
    scores, epochs, losses = _attack(
        features.astype(targets.dtype),
        targets,
        jax.random.split(key, num_seeds),
        num_members=num_members,
        variant=variant,
        max_epochs=max_epochs,
    )
    return WeaklySupervised(
        scores=jnp.mean(scores, axis=0),
        seed_scores=scores,
        threshold=chosen.threshold,
        num_pseudo_members=num_members,
        num_per_class=min(num_members, num_nonmembers),
        epochs=np.asarray(epochs),
        validation_loss=np.asarray(losses),
    )


class _Progress(NamedTuple):
    """Where the training of one attack network stands; `kept` are the weights that score."""

    epoch: jax.Array
    stale: jax.Array
    best: jax.Array
    kept: Params
    kept_loss: jax.Array
    params: Params
    optimizer: optax.OptState


@functools.partial(jax.jit, static_argnames=("num_members", "variant", "max_epochs"))
def _attack(
    features: Float[jax.Array, "T 2d"],
    targets: Float[jax.Array, "N 2d"],
    keys: jax.Array,
    *,
    num_members: int,
    variant: Variant,
    max_epochs: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    model = MLP(_HIDDEN, 2)
    optimizer = optax.adam(_LEARNING_RATE)
    per_class = min(num_members, features.shape[0] - num_members)
    num_train = 9 * 2 * per_class // 10
    num_held_out = 2 * per_class - num_train
    labels = (jnp.arange(features.shape[0]) < num_members).astype(jnp.int32)

    def mean_loss(params: Params, rows: jax.Array, weights: jax.Array) -> jax.Array:
        logits: Any = model.apply({"params": params}, features[rows])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows])
        return jnp.sum(losses * weights)

    def one_seed(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        start_key, member_key, nonmember_key, split_key, order_key = jax.random.split(key, 5)
        members = jax.random.permutation(member_key, num_members)
        others = jax.random.permutation(nonmember_key, features.shape[0] - num_members)
        rows = jnp.concatenate([members[:per_class], num_members + others[:per_class]])
        rows = jax.random.permutation(split_key, rows)
        train, held_out = rows[:num_train], rows[num_train:]
        params = _torch_init(model, start_key, features)

        def epoch(now: _Progress) -> _Progress:
            order = jax.random.permutation(jax.random.fold_in(order_key, now.epoch), train)

            def step(carry: tuple[Params, optax.OptState], batch: tuple[jax.Array, jax.Array]):
                params, state = carry
                updates, state = optimizer.update(jax.grad(mean_loss)(params, *batch), state)
                return (optax.apply_updates(params, updates), state), None

            batches = _padded(order), _weights(num_train)
            (params, state), _ = jax.lax.scan(step, (now.params, now.optimizer), batches)
            weights = jnp.full(num_held_out, 1 / num_held_out, features.dtype)
            loss = mean_loss(params, held_out, weights)
            judged = loss
            if variant == "released":
                weights = _weights(num_held_out).ravel()[:num_held_out] / num_held_out
                judged = mean_loss(params, held_out, weights)
            better = judged < now.best
            keep = better | (variant == "released")
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
            lambda now: (now.epoch < max_epochs) & (now.stale < _PATIENCE), epoch, start
        )
        logits: Any = model.apply({"params": end.kept}, targets)
        score = jax.nn.sigmoid(logits[:, 1])
        if variant == "best":
            score = logits[:, 1] - logits[:, 0]
        return score, end.epoch, end.kept_loss

    return jax.vmap(one_seed)(keys)


def _torch_init(model: MLP, key: jax.Array, features: jax.Array) -> Params:
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
    num_batches = -(-order.shape[0] // _BATCH_SIZE)
    places = jnp.minimum(jnp.arange(num_batches * _BATCH_SIZE), order.shape[0] - 1)
    return order[places].reshape(num_batches, _BATCH_SIZE)


def _weights(count: int) -> jax.Array:
    """Weights of `count` rows in batches, so that every batch's weights sum to one."""
    num_batches = -(-count // _BATCH_SIZE)
    real = np.arange(num_batches * _BATCH_SIZE).reshape(num_batches, _BATCH_SIZE) < count
    return jnp.asarray(real / real.sum(axis=1, keepdims=True), float)
