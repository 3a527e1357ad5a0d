"""The cosine similarity attack: a model has pulled together the pairs that it was trained on."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxinf.errors import InputError
from jaxinf.membership.checks import check_features
from jaxinf.typing import AnyArray


def cosine_similarity_attack(
    image_features: Float[AnyArray, "N d"], text_features: Float[AnyArray, "N d"]
) -> Float[jax.Array, " N"]:
    """Score each pair by the cosine similarity of its image and its text (CSA).

    A high similarity alone says that image and caption agree; that a *member's* is higher than a
    like non-member's is the attack's whole premise, so never read the scores without blind
    controls (`membership_report`). Jits.

    Args:
        image_features: number[N, d], of any length; they are scaled to unit norm in float32.
        text_features: number[N, d], row n of the same pair.

    Returns:
        float[N], −1 to 1, higher = more likely a member.

    Raises:
        InputError: for features that are not [N, d] or differ in shape, NaN or infinities, or a
            row of zeros.

    Reference:
        Ko et al., "Practical Membership Inference Attacks Against Large-Scale Multi-Modal Models:
        A Pilot Study", ICCV 2023 (arXiv 2310.00108).

    Example:
        >>> import numpy as np
        >>> image = np.array([[2.0, 0.0], [0.0, 1.0]], np.float32)
        >>> text = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
        >>> cosine_similarity_attack(image, text).round(6).tolist()
        [1.0, 0.800000011920929]
    """
    image = check_features(image_features, "image_features")
    text = check_features(text_features, "text_features")
    if image.shape != text.shape:
        raise InputError(
            f"image_features are {list(image.shape)} and text_features {list(text.shape)}: one "
            "row for each pair, of one width"
        )
    return cosine(image, text)


def cosine(a: Float[jax.Array, "... d"], b: Float[jax.Array, "... d"]) -> Float[jax.Array, "..."]:
    """Cosine of the angle between vectors along the last axis, in float32 at least."""
    return jnp.sum(unit(a) * unit(b), axis=-1)


def unit(vectors: Float[jax.Array, "... d"]) -> Float[jax.Array, "... d"]:
    """Scale vectors along the last axis to unit norm, in float32 at least."""
    wide = vectors.astype(jnp.promote_types(vectors.dtype, jnp.float32))
    return wide / jnp.linalg.norm(wide, axis=-1, keepdims=True)
