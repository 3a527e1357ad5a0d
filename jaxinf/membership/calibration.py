"""Scores calibrated by reference models, which know how well any model would fit a pair."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxinf.errors import InputError, check_count
from jaxinf.membership.checks import check_vectors
from jaxinf.typing import AnyArray


def reference_difference(
    similarity: Float[AnyArray, " N"], reference_similarity: Float[AnyArray, "*R N"]
) -> Float[jax.Array, " N"]:
    """How much better the model fits a pair than models that never saw it.

    Args:
        similarity: float[N], any score of the model in question, such as its cosine
            similarities.
        reference_similarity: float[N], the same score by a reference model, or float[R, N] by
            several, whose mean is taken. References that saw the pairs cancel the signal.

    Returns:
        float[N], higher = more likely a member.

    Raises:
        InputError: for shapes that do not match, NaN or infinities.

    Example:
        >>> score = reference_difference(np.array([0.5, 0.5], np.float32),
        ...                              np.array([0.25, 0.5], np.float32))
        >>> score.tolist()
        [0.25, 0.0]
    """
    references = _check_references(similarity, reference_similarity, "")
    return jnp.asarray(similarity) - jnp.mean(references, axis=0)


def population_ratio(
    similarity: Float[AnyArray, " N"],
    reference_similarity: Float[AnyArray, "*R N"],
    population_similarity: Float[AnyArray, " M"],
    population_reference_similarity: Float[AnyArray, "*R M"],
    *,
    logit_scale: float = 100.0,
    gamma: float = 2.0,
) -> Float[jax.Array, " N"]:
    """Share of population pairs that a pair beats by a likelihood ratio of γ, as in RMIA.

    exp(scale · similarity) stands for the likelihood of a pair under a model, and the mean of
    that over the reference models for its probability. A pair's ratio of the two must be at
    least γ times that of a population pair to beat it. The order is that of the log-ratio, but
    ties at both ends are many when γ or the scale is large.

    Args:
        similarity: float[N], cosine similarities by the model in question.
        reference_similarity: float[N] or float[R, N], by reference models.
        population_similarity: float[M], of pairs that the model cannot have seen.
        population_reference_similarity: float[M] or float[R, M], by the same references.
        logit_scale: exp of CLIP's learnt `logit_scale`, 100 in most released models.
        gamma: γ, at least 1.

    Returns:
        float[N], 0 to 1, higher = more likely a member.

    Raises:
        InputError: for shapes that do not match, unlike numbers of references, NaN or
            infinities, or options out of range.

    Reference:
        Zarifzadeh, Liu and Shokri, "Low-Cost High-Power Membership Inference Attacks", ICML 2024
        (arXiv 2312.03262), with similarities in place of likelihoods.

    Example:
        >>> like = np.zeros(4, np.float32)
        >>> population_ratio(np.array([0.1, -0.1], np.float32), like[:2],
        ...                  np.array([0.0, 0.0, 0.05, 0.2], np.float32), like).tolist()
        [0.75, 0.0]
    """
    if not (np.isfinite(gamma) and gamma >= 1):
        raise InputError(f"gamma is {gamma}: a finite number, at least 1")
    if not (np.isfinite(logit_scale) and logit_scale > 0):
        raise InputError(f"logit_scale is {logit_scale}: a positive, finite number")
    references = _check_references(similarity, reference_similarity, "")
    others = _check_references(
        population_similarity, population_reference_similarity, "population_"
    )
    if references.shape[0] != others.shape[0]:
        raise InputError(
            f"{references.shape[0]} references for the pairs and {others.shape[0]} for the "
            "population: the same models must score both"
        )

    def log_ratio(own: AnyArray, by_references: jax.Array) -> jax.Array:
        mean = jax.nn.logsumexp(logit_scale * by_references, axis=0) - jnp.log(len(by_references))
        return logit_scale * jnp.asarray(own) - mean

    bar = jnp.sort(log_ratio(population_similarity, others))
    beaten = jnp.searchsorted(bar, log_ratio(similarity, references) - jnp.log(gamma), side="right")
    return beaten / bar.shape[0]


def _check_references(
    similarity: AnyArray, references: AnyArray, prefix: str
) -> Float[jax.Array, "R N"]:
    rows = references[None] if getattr(references, "ndim", None) == 1 else references
    if getattr(rows, "ndim", None) != 2:
        raise InputError(f"{prefix}reference_similarity has shape {np.shape(references)}: [R, N]")
    check_count(rows.shape[0], f"the number of rows of {prefix}reference_similarity")
    for row in rows:
        check_vectors(**{f"{prefix}similarity": similarity, f"{prefix}reference_similarity": row})
    return jnp.asarray(rows)
