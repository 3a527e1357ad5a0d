"""Features of a network's hidden layer, for every row of a source, kept on disk if wanted."""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxinf.engine import ScoreStore, as_source, data_mesh, score_rows
from jaxinf.engine.fingerprint import fingerprint, program_fingerprint
from jaxinf.engine.mesh import num_shards
from jaxinf.engine.sources import IterableSource, check_rows, source_fingerprint
from jaxinf.errors import InputError, check_dtypes, check_finite
from jaxinf.models import PreActResNet18
from jaxinf.typing import Batch, PyTree

FeatureFn: TypeAlias = Callable[[PyTree, Batch], jax.Array]
"""`feature_fn(params, batch) -> float[B, ...]`: row b depends on example b alone."""

_BATCHES_PER_CHUNK = 8
# how many feature functions keep their compiled program
_KEPT = 32


def embed(
    feature_fn: FeatureFn,
    params: PyTree,
    source: Any,
    *,
    batch_size: int = 256,
    cache: str | os.PathLike | None = None,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> Float[np.ndarray, "N d"]:
    """Run a feature function over every row of a source, in blocks of one size.

    One compiled function serves all blocks: the last one is padded, and rows are split over the
    devices.

    Args:
        feature_fn: `(params, batch) -> float[B, ...]`; trailing axes are flattened. The functions
            of `hidden_layer` are such ones.
        params: its parameters, any pytree.
        source: N examples: a pytree of arrays, a memory map, a Hugging Face data set, a grain
            source, an iterable of batches; see `jaxinf.engine.sources`.
        batch_size: rows per step over all devices; rounded up to a multiple of their number.
        cache: folder that keeps the features. Called again for the same function, parameters,
            rows and batch size, they are read from it; a killed run goes on where it stopped; a
            folder that belongs to anything else is refused. Rows in memory count whole up to 1 GiB,
            and others by a sample of 64.
        mesh: has a `data` axis; default: all devices of this process.
        progress: show a bar with rate and time left.

    Returns:
        float32[N, d] on the host, in the order of the source.

    Raises:
        InputError: no rows, NaN or infinities in rows, parameters or features, float64 while x64
            is off, features that are not one row per example, a batch size below 1, a cache of
            something else, or a cache for an iterable, which cannot be told from another.

    Example:
        >>> x = np.arange(6, dtype=np.float32).reshape(3, 2)
        >>> embed(lambda w, batch: batch["x"] * w, np.float32(2), {"x": x}, batch_size=2)
        array([[ 0.,  2.],
               [ 4.,  6.],
               [ 8., 10.]], dtype=float32)
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}: it must be at least 1")
    check_dtypes(params, "params")
    check_finite(params, "params")
    rows = as_source(source, "source")
    if isinstance(rows, IterableSource):
        if cache is not None:
            raise InputError(
                "cache cannot tell one iterable of batches from another: pass rows that can be "
                "read by their number, or leave cache out"
            )
        first = next(batches := iter(rows), None)
        if first is None:
            raise InputError("source holds no batches")
        rows = IterableSource(_put_back(first, batches))
        probe = jax.tree.map(lambda a: np.asarray(a)[:1], first)
    else:
        check_rows(rows, "source")
        probe = rows.read(0, 1)
    columns = _columns(feature_fn)
    width = _width(feature_fn, params, probe)
    mesh = data_mesh() if mesh is None else mesh
    length = None if isinstance(rows, IterableSource) else len(rows)
    shards = num_shards(mesh)
    batch_size = -(-min(batch_size, length or batch_size) // shards) * shards
    store = None
    if cache is not None:
        assert length is not None
        spec = {
            "format": 1,
            "method": "embed",
            "program": program_fingerprint(columns, params, probe),
            "params": fingerprint(params),
            "rows": source_fingerprint(rows),
            "batch_size": batch_size,
            "chunk_size": _BATCHES_PER_CHUNK * batch_size,
            "num_queries": width,
            "num_examples": length,
            "dtype": "float32",
        }
        store = ScoreStore(cache, spec)
    done = score_rows(
        columns,
        params,
        rows,
        num_queries=width,
        batch_size=batch_size,
        chunk_size=_BATCHES_PER_CHUNK * batch_size,
        mesh=mesh,
        store=store,
        progress=progress,
    )
    assert done.scores is not None
    features = np.ascontiguousarray(done.scores.T)
    check_finite(features, "features", first_row=0)
    return features


def hidden_layer(
    module: nn.Module, *, mean: ArrayLike = 0.0, std: ArrayLike = 1.0, method: str = "features"
) -> FeatureFn:
    """The last hidden layer of a flax.linen module as a feature function, for images as stored.

    Its `params` are the module's variables, as `module.init` or `jaxinf.models.load_variables`
    returned them. uint8 images are scaled to [0, 1] on the device; then `mean` is subtracted and
    `std` divided by.

    Args:
        module: has a method of that name that maps float[B, ...] to features; all of
            `jaxinf.models` have `"features"`.
        mean: a number or one per channel.
        std: a number or one per channel, positive.
        method: the method's name.

    Returns:
        `(variables, batch) -> float[B, d]`, where a batch is an array or a dict with `"x"`.

    Raises:
        InputError: the module has no such method, or `std` is not positive.

    Example:
        >>> from jaxinf.models import MLP
        >>> model, x = MLP((4,), num_classes=3), np.ones((5, 2), np.float32)
        >>> variables = model.init(jax.random.key(0), x)
        >>> embed(hidden_layer(model), variables, {"x": x}, batch_size=2).shape
        (5, 4)
    """
    if not callable(getattr(module, method, None)):
        raise InputError(f"{type(module).__name__} has no method {method!r}: name the one to call")
    shift, scale = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    if not (scale > 0).all():
        raise InputError("std must be positive in every channel")

    def features(variables: PyTree, batch: Batch) -> jax.Array:
        x = batch["x"] if isinstance(batch, Mapping) else batch
        if x.dtype == jnp.uint8:
            x = x.astype(jnp.float32) / 255
        at_channels = lambda a: a.reshape((1,) * (x.ndim - a.ndim) + a.shape)
        x = (x - at_channels(shift)) / at_channels(scale)
        return jnp.asarray(module.apply(variables, x, method=method))

    return features


def clip_images(preprocess: Any) -> FeatureFn:
    """Image features of a CLIP as a feature function, for uint8 images of any one size.

    Its `params` are the model: `model, preprocess, _ = jaxinf.models.clip.load(path)`, then
    `embed(clip_images(preprocess), model, images)`. Resizing, cropping and normalising happen on
    the device, to the same bits as on the host.

    Args:
        preprocess: of the checkpoint, a `jaxinf.models.clip.Preprocess`.

    Returns:
        `(model, batch) -> float[B, D]`, rows of unit norm, where a batch is uint8[B, H, W, 3] (or
        one channel, which stands for all three), or a dict with it as `"x"`.

    Raises:
        InputError: when applied to images that are not uint8.

    Example:
        >>> from jaxinf.models.clip import Preprocess
        >>> features = clip_images(Preprocess(size=4, resize_to=4))
        >>> features(None, {"x": jnp.zeros((2, 8, 8, 3))})
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: images are float32[2, 8, 8, 3]: uint8[B, H, W, 3] is needed
    """

    def features(model: Any, batch: Batch) -> jax.Array:
        x = batch["x"] if isinstance(batch, Mapping) else batch
        if x.dtype != jnp.uint8 or x.ndim != 4 or x.shape[3] not in (1, 3):
            raise InputError(f"images are {x.dtype}{list(x.shape)}: uint8[B, H, W, 3] is needed")
        coloured = jnp.broadcast_to(x, (*x.shape[:3], 3))
        pixels = jax.vmap(preprocess.pixels_on_device)(coloured)
        return model.encode_image(preprocess.normalise(pixels))

    return features


def preact_resnet18(
    *, width: int = 64, num_classes: int = 10, mean: ArrayLike = 0.0, std: ArrayLike = 1.0
) -> FeatureFn:
    """The last hidden layer of PreActResNet-18: the mean over the last stage's image.

    Args:
        width: channels of the first stage; there are 8 times as many features.
        num_classes: outputs of the network whose weights are loaded; the features do not use them.
        mean: as for `hidden_layer`.
        std: as for `hidden_layer`.

    Returns:
        `(variables, batch) -> float[B, 8 * width]`.

    Example:
        >>> from jaxinf.models import PreActResNet18
        >>> fn, x = preact_resnet18(width=4), jnp.ones((1, 8, 8, 3))
        >>> model = PreActResNet18(width=4)
        >>> jax.eval_shape(lambda: fn(model.init(jax.random.key(0), x), x)).shape
        (1, 32)
    """
    return hidden_layer(PreActResNet18(num_classes, width), mean=mean, std=std)


@functools.lru_cache(maxsize=_KEPT)
def _columns(feature_fn: FeatureFn) -> Callable[[PyTree, Batch], jax.Array]:
    """The feature function as the engine wants it: one row per feature, one column per example."""

    def columns(params: PyTree, batch: Batch) -> jax.Array:
        found = feature_fn(params, batch)
        return found.reshape(found.shape[0], -1).astype(jnp.float32).T

    return columns


def _width(feature_fn: FeatureFn, params: PyTree, probe: Batch) -> int:
    """How many features an example has, without computing any."""
    try:
        shape = jax.eval_shape(feature_fn, params, probe).shape
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"feature_fn cannot be run on one row of source ({reason})") from error
    if len(shape) < 2 or shape[0] != 1 or 0 in shape:
        raise InputError(
            f"feature_fn turned one row into features of shape {list(shape)}: [1, d] is needed"
        )
    return int(np.prod(shape[1:]))


def _put_back(first: Batch, rest: Any):
    yield first
    yield from rest
