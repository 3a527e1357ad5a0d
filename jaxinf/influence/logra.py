"""LoGra: influence functions on low-rank projections of each layer's gradient."""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxinf.errors import InputError, check_differentiable
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.inverse_hessian.kronecker import moments
from jaxinf.influence.inverse_hessian.layers import Layer, Traffic, find_layers, traffic
from jaxinf.influence.inverse_hessian.system import DampingUnit, damping_name
from jaxinf.influence.layer_projection import (
    Factors,
    principal_factors,
    project_layer,
    random_factors,
    squared_norms,
)
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.measures import Measure, as_measure, measure_name
from jaxinf.influence.passes import TrainingRows, is_traced, only_shapes, training_rows
from jaxinf.influence.queries import QueryGroups, as_groups
from jaxinf.typing import Batch, Params, PerExampleLoss, PyTree

Init = Literal["random", "pca"]
Blocks = Literal["layers", "all"]


class LograState(NamedTuple):
    """The model, each layer's projections, and by blocks the inverse curvature and K solutions."""

    loss_fn: Partial
    measured: Partial
    params: Params
    factors: list[Factors]
    inverses: list[jax.Array]
    solved: list[jax.Array]
    diagnostics: dict[str, jax.Array]


def logra(
    loss_fn: PerExampleLoss,
    *,
    rank: int = 16,
    init: Init = "random",
    key: jax.Array | None = None,
    blocks: Blocks = "layers",
    damping: float = 0.1,
    damping_unit: DampingUnit = "mean_eigenvalue",
    measure: Measure = "loss",
    with_self_score: bool = False,
) -> Attributor:
    """`φ(q)ᵀ (ΦᵀΦ / N + damping)⁻¹ φ(z) / N`, φ the layers' gradients projected on both sides.

    A linear layer's gradient is the sum over positions of `a sᵀ`, of what enters and of the slopes
    in what leaves; it is taken as `(Lᵀ a)(Rᵀ s)ᵀ`, rank · rank numbers, so that no gradient is ever
    formed in full. With projections of full rank and `blocks="all"` it is `influence_function` with
    `curvature="fisher"`, exactly, over the parameters of those layers.

    Layers are the `Dense`, `DenseGeneral` (so attention's projections) and `Conv` of flax.linen
    that the loss calls once; all other parameters are left out.

    Sign: positive = training on the example lowers the query's measure (a proponent). Unit: that
    of the measure; the score estimates what leaving the example out changes.

    Cost: about 3 forward passes per training example, whatever K, both in `prepare` and when
    scoring. Memory: the square of rank² per layer, and of the sum over layers with
    `blocks="all"`.

    Args:
        loss_fn: `(params, batch) -> float[B]`, in evaluation mode.
        rank: columns of each projection; sides that are no wider are kept whole.
        init: `"random"`, orthogonal columns that keep inner products on average; `"pca"`, the
            principal directions of inputs and slopes over the training set, one pass more.
        key: of the random projections; needed with `init="random"`.
        blocks: which products of features the curvature holds: those within each layer, or all.
        damping: added to each block of the curvature.
        damping_unit: `"mean_eigenvalue"` takes damping as a multiple of each block's trace over
            min(N, d).
        measure: what the query is asked about, as in `influence_function`.
        with_self_score: keep the inverse curvature in the state, for `self_influence` and
            `normalise_by_self_influence`.

    Returns:
        An `Attributor` whose `prepare` needs the training set. Its diagnostics, float[K] each:
        `loss_before` (the measure) and `kept`, the share of the query's squared gradient, in the
        layers, that its features hold (about 1 on average for random ones, at most 1 for pca).

    Raises:
        InputError: for settings that mean nothing, or no training set to pass over; in `prepare`,
            for a loss that calls no such layer, or a singular block.

    Example:
        >>> import flax.linen as nn
        >>> from jaxinf.adapters import from_linen
        >>> from jaxinf.engine import Stream, as_source
        >>> module, batch = nn.Dense(1, use_bias=False), {"x": jnp.eye(2) * jnp.array([[1.0, 2.0]])}
        >>> variables = {"params": {"kernel": jnp.ones((2, 1))}}
        >>> loss, params = from_linen(module, variables, lambda outputs, batch: outputs[:, 0])
        >>> method = logra(loss, rank=2, init="pca", damping=0.5, damping_unit="absolute")
        >>> state = method.prepare(params, batch, Stream(as_source(batch), 2))
        >>> [[round(abs(float(s)), 3) for s in row] for row in method.score(state, batch)]
        [[0.5, 0.0], [0.0, 0.8]]

    Reference: Choe et al., What is Your Data Worth to GPT? LLM-Scale Data Valuation with Influence
    Functions, arXiv 2405.13954, 2024, section 3.
    """
    _check_settings(rank, init, key, blocks, damping, damping_unit)
    loss = scoring_loss(loss_fn, None, "highest")
    measured = scoring_loss(as_measure(loss, measure), None, "highest")

    def factors_of(
        layers: list[Layer], params: Params, few: Batch, rows: TrainingRows | None
    ) -> list[Factors]:
        if init == "random" or rows is None:
            passed = jax.eval_shape(lambda at: traffic(measured, at, few, layers), params)
            sides = [(part.entering.shape[2], part.slopes.shape[2]) for part in passed]
            return random_factors(jax.random.key(0) if key is None else key, sides, rank)
        add = jax.jit(lambda b, mask: moments(tuple(layers), measured, params, b, mask))
        return [principal_factors(each.entering, each.slopes, rank) for each in rows.total(add)]

    def prepare(params: Params, queries: PyTree, train: Any = None) -> LograState:
        check_differentiable(params)
        groups = as_groups(queries)
        flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), groups.examples)
        layers = find_layers(measured, params, flat)
        if not layers:
            raise InputError(
                "logra saw no Dense, DenseGeneral or Conv layer of flax.linen in the loss: hand "
                "over the loss of such a model, not itself compiled, or use trak"
            )
        planned = only_shapes(train, params, queries)
        rows = None if planned else training_rows(train, "logra")
        factors = factors_of(layers, params, flat, rows)
        found, before, share = _of_queries(measured, params, factors, groups)
        if blocks == "all":
            found = [jnp.concatenate(found, axis=1)]
        if rows is None:
            grams = [jnp.full((a.shape[1], a.shape[1]), jnp.nan, a.dtype) for a in found]
        else:
            grams = rows.total(lambda b, mask: _gram(measured, params, factors, b, mask, blocks))
        count = 1 if rows is None else rows.count
        inverses = [_inverse(gram, count, damping, damping_unit) for gram in grams]
        for inverse in () if planned else inverses:
            if not is_traced(inverse) and not bool(jnp.isfinite(inverse).all()):
                raise InputError(
                    f"a block of {inverse.shape[0]} projected gradients over {count} training "
                    "examples is singular: set damping above 0, or a lower rank"
                )
        with jax.default_matmul_precision("highest"):
            solved = [part @ inverse for part, inverse in zip(found, inverses, strict=True)]
        figures = {"loss_before": before, "kept": share}
        kept = inverses if with_self_score else []
        return LograState(loss, measured, params, factors, kept, solved, figures)

    def score(state: LograState, batch: PyTree) -> jax.Array:
        found = _joined(_features(state.loss_fn, state.params, state.factors, batch), blocks)
        with jax.default_matmul_precision("highest"):
            dots = [a @ b.T for a, b in zip(state.solved, found, strict=True)]
        return jnp.sum(jnp.stack(dots), axis=0)

    def self_score(state: LograState, batch: PyTree) -> jax.Array:
        asked = _joined(_features(state.measured, state.params, state.factors, batch), blocks)
        found = _joined(_features(state.loss_fn, state.params, state.factors, batch), blocks)
        with jax.default_matmul_precision("highest"):
            triples = zip(asked, state.inverses, found, strict=True)
            dots = [jnp.sum((a @ inverse) * b, axis=1) for a, inverse, b in triples]
        return jnp.sum(jnp.stack(dots), axis=0)

    asked, damped = measure_name(measure), damping_name(damping, damping_unit)
    return Attributor(
        prepare,
        score,
        lambda state, batch, key: state.diagnostics,
        loss_fn,
        lambda k: 3.0,
        f"logra(rank {rank}, {init}, {blocks}, {asked}, {damped})",
        self_score if with_self_score else None,
    )


def _features(
    measured: Partial, params: Params, factors: list[Factors], batch: Batch
) -> list[jax.Array]:
    """Projected gradients of each layer, float[B, d]."""
    layers = find_layers(measured, params, batch)
    passed = traffic(measured, params, batch, layers)
    return [project_layer(part, pair) for part, pair in zip(passed, factors, strict=True)]


def _joined(features: list[jax.Array], blocks: Blocks) -> list[jax.Array]:
    return features if blocks == "layers" else [jnp.concatenate(features, axis=1)]


@jax.jit
def _of_queries(
    measured: Partial, params: Params, factors: list[Factors], groups: QueryGroups
) -> tuple[list[jax.Array], jax.Array, jax.Array]:
    count, size = groups.weights.shape
    flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), groups.examples)
    weights = groups.weights.reshape(-1, 1, 1)
    grouped = []
    for part in traffic(measured, params, flat, find_layers(measured, params, flat)):
        # the positions of a group's members are positions of one gradient, their mean
        slopes = part.slopes * weights.astype(part.slopes.dtype)
        sides = (part.entering, slopes)
        grouped.append(Traffic(*(a.reshape(count, -1, a.shape[2]) for a in sides)))
    found = [project_layer(part, pair) for part, pair in zip(grouped, factors, strict=True)]
    total = jnp.sum(jnp.stack([squared_norms(part) for part in grouped]), axis=0)
    held = jnp.sum(jnp.stack([jnp.sum(a**2, axis=1) for a in found]), axis=0)
    kept = jnp.where(total > 0, held / jnp.where(total > 0, total, 1), 1.0)
    losses = measured(params, flat).reshape(count, size)
    return found, jnp.sum(losses * groups.weights.astype(losses.dtype), axis=1), kept


@partial(jax.jit, static_argnums=5)
def _gram(
    measured: Partial,
    params: Params,
    factors: list[Factors],
    batch: Batch,
    mask: jax.Array,
    blocks: Blocks,
) -> list[jax.Array]:
    found = _joined(_features(measured, params, factors, batch), blocks)
    masked = [a * mask[:, None] for a in found]
    return [jnp.matmul(a.T, a, precision="highest") for a in masked]


def _inverse(gram: jax.Array, count: int, damping: float, unit: DampingUnit) -> jax.Array:
    """(gram / N + damping)⁻¹ / N; NaN where it is singular."""
    size = gram.shape[0]
    scale = jnp.trace(gram) / count / min(count, size) if unit == "mean_eigenvalue" else 1.0
    values, vectors = jnp.linalg.eigh(gram / count)
    damped = values + damping * scale
    floor = 4 * size * jnp.finfo(gram.dtype).eps * damped[-1]
    safe = jnp.where(damped[0] > floor, damped, jnp.nan)
    with jax.default_matmul_precision("highest"):
        return (vectors / safe[None]) @ vectors.T / count


def _check_settings(rank: int, init: str, key: Any, blocks: str, damping: float, unit: str) -> None:
    if isinstance(rank, bool) or rank != int(rank) or rank < 1:
        raise InputError(f"rank must be a whole number of at least 1, not {rank}")
    if init not in ("random", "pca"):
        raise InputError(f"init must be 'random' or 'pca', not {init!r}")
    if init == "random" and key is None:
        raise InputError("random projections need a key: pass key=jax.random.key(0)")
    if blocks not in ("layers", "all"):
        raise InputError(f"blocks must be 'layers' or 'all', not {blocks!r}")
    if not 0 <= damping < float("inf"):
        raise InputError(f"damping must be at least 0, not {damping}")
    if unit not in ("absolute", "mean_eigenvalue"):
        raise InputError(f"damping_unit must be 'absolute' or 'mean_eigenvalue', not {unit!r}")
