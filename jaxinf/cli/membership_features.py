"""Pairs through the encoders, batch by batch, onto disk: what is done survives a kill."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float, Int32

from jaxinf.cli.membership_pairs import Pairs
from jaxinf.cli.membership_rows import ImageRows
from jaxinf.errors import InputError
from jaxinf.membership import TRANSFORMATIONS, view_similarities
from jaxinf.models.clip import Checkpoint, Preprocess, TrainedCLIP
from jaxinf.models.clip_train import untrained_clip
from jaxinf.typing import Batch, PyTree
from jaxinf.valuation.embed import embed

# a linear classifier sees no more of an untrained encoder than these many random directions
_CONTROL_WIDTH = 128


@dataclass(frozen=True)
class Encoders:
    """What every pair goes through.

    Attributes:
        checkpoint: the model in question.
        untrained: the same architecture with random weights: the blind control.
        directions: float[2d, 128], what the untrained features are projected on.
        key: random key of the views.
        draws: views per transformation; 0 for none.
        keep_features: whether the weakly supervised attack will want the features.
        hash_images: whether near-duplicates will be looked for.
    """

    checkpoint: Checkpoint
    untrained: TrainedCLIP
    directions: jax.Array
    key: jax.Array
    draws: int
    keep_features: bool
    hash_images: bool


class Encoded(NamedTuple):
    """What the encoders made of a set, one row per pair.

    Attributes:
        similarity: float32[N], cosine of image and text.
        untrained: float32[N, c], features of the untrained encoder.
        views: float32[N, K, draws], similarities of changed images; None without views.
        features: float32[N, 2d], [image ‖ text]; None unless they were wanted.
        hashes: uint64[N]; None unless they were wanted.
        reference: float32[N], cosine of image and text by another model; None without one.
    """

    similarity: Float[np.ndarray, " N"]
    untrained: Float[np.ndarray, "N c"]
    views: Float[np.ndarray, "N K draws"] | None = None
    features: Float[np.ndarray, "N e"] | None = None
    hashes: np.ndarray | None = None
    reference: Float[np.ndarray, " N"] | None = None

    def rows(self, chosen: np.ndarray) -> "Encoded":
        """Some rows."""
        return Encoded(*(None if column is None else column[chosen] for column in self))  # pyright: ignore[reportArgumentType]


def make_encoders(
    checkpoint: Checkpoint,
    *,
    key: jax.Array,
    draws: int,
    keep_features: bool,
    hash_images: bool,
) -> Encoders:
    """The model, an untrained one beside it, and what is drawn."""
    view_key, weights_key, directions_key = jax.random.split(key, 3)
    module = checkpoint.model.module
    return Encoders(
        checkpoint,
        untrained_clip(module.config, key=weights_key, dtype=module.dtype),
        # features of the untrained encoder are seen from these directions alone
        jax.random.normal(directions_key, (2 * module.config.embed_dim, _CONTROL_WIDTH))
        / _CONTROL_WIDTH**0.5,
        view_key,
        draws,
        keep_features,
        hash_images,
    )


def encode_pairs(
    pairs: Pairs,
    tokens: Int32[np.ndarray, "N T"],
    encoders: Encoders,
    *,
    batch_size: int,
    store: Path | None,
    progress: bool,
) -> tuple[Pairs, Encoded]:
    """Encode a set; damaged images are left out of what is returned, and named in its `dropped`.

    Args:
        pairs: the set.
        tokens: of its captions.
        encoders: what it goes through.
        batch_size: pairs per step over all devices.
        store: folder of the finished chunks; the same call goes on where a killed one stopped.
        progress: show a bar.

    Raises:
        InputError: no image could be read, or the folder is of another run.
    """
    source = ImageRows(pairs, tokens, encoders.checkpoint.preprocess, encoders.hash_images)
    params = {
        "model": encoders.checkpoint.model,
        "untrained": encoders.untrained,
        "directions": encoders.directions,
        "key": jax.random.key_data(encoders.key),
    }
    function = feature_function(
        encoders.checkpoint.preprocess,
        draws=encoders.draws,
        keep_features=encoders.keep_features,
    )
    found = embed(function, params, source, batch_size=batch_size, cache=store, progress=progress)
    ok = found[:, 0] > 0
    if not ok.any():
        raise InputError(f"--{pairs.name}: none of the {len(pairs)} images can be read")
    damaged = {}
    for row in np.flatnonzero(~ok).tolist():
        reason = source.pixels(row)  # a resumed run has not seen it
        damaged[row] = reason if isinstance(reason, str) else "unreadable"
    return pairs.drop(damaged), _split(found[ok], encoders)


@functools.lru_cache(maxsize=8)
def feature_function(preprocess: Preprocess, *, draws: int, keep_features: bool) -> Any:
    """`(params, batch) -> float32[B, columns]`, in the order that `_split` takes apart."""

    def encode(model: TrainedCLIP, pixels: jax.Array) -> jax.Array:
        return model.encode_image(preprocess.normalise(pixels))

    def features(params: PyTree, batch: Batch) -> jax.Array:
        model, blind = params["model"], params["untrained"]
        image, text = encode(model, batch["pixels"]), model.encode_text(batch["tokens"])
        unseen = jnp.concatenate(
            [encode(blind, batch["pixels"]), blind.encode_text(batch["tokens"])], axis=1
        )
        columns = [
            batch["ok"][:, None],
            jnp.sum(image * text, axis=1, keepdims=True),
            unseen @ params["directions"],
        ]
        if draws:
            views = view_similarities(
                Partial(encode, model),
                batch["pixels"],
                text,
                key=jax.random.wrap_key_data(params["key"]),
                draws=draws,
                example_ids=batch["id"],
            ).views
            columns.append(views.reshape(views.shape[0], -1))
        if keep_features:
            columns += [image, text]
        if "hash" in batch:
            columns.append(batch["hash"])
        return jnp.concatenate(columns, axis=1)

    return features


def _split(found: Float[np.ndarray, "N c"], encoders: Encoders) -> Encoded:
    num_views = len(TRANSFORMATIONS) * encoders.draws
    width = encoders.directions.shape[0] if encoders.keep_features else 0
    ends = np.cumsum([1, 1, _CONTROL_WIDTH, num_views, width])
    _, similarity, untrained, views, features, hashes = np.split(found, ends, axis=1)
    return Encoded(
        similarity[:, 0],
        untrained,
        views.reshape(len(found), len(TRANSFORMATIONS), -1) if num_views else None,
        features if width else None,
        np.ascontiguousarray(hashes.astype(np.uint16)).view(np.uint64)[:, 0]
        if encoders.hash_images
        else None,
    )


def reference_similarity(
    pairs: Pairs,
    tokens: Int32[np.ndarray, "N T"],
    checkpoint: Checkpoint,
    *,
    batch_size: int,
    store: Path | None,
    progress: bool,
) -> Float[np.ndarray, " N"]:
    """Cosine of image and text by another model, for pairs whose images are sound."""
    found = embed(
        _similarity_function(checkpoint.preprocess),
        checkpoint.model,
        ImageRows(pairs, tokens, checkpoint.preprocess, hashed=False),
        batch_size=batch_size,
        cache=store,
        progress=progress,
    )
    return found[:, 0]


@functools.lru_cache(maxsize=8)
def _similarity_function(preprocess: Preprocess) -> Any:
    def similarity(model: TrainedCLIP, batch: Batch) -> jax.Array:
        image = model.encode_image(preprocess.normalise(batch["pixels"]))
        text = model.encode_text(batch["tokens"])
        return jnp.sum(image * text, axis=1, keepdims=True)

    return similarity
