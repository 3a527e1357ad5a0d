"""The denoising loss over fixed draws, and influence on generated images.

A diffusion model has no loss of an image: it has one for every noise level and every noise. The
per-example loss here is their mean over T fixed draws, the same for every image and before and
after the step (common random numbers). The difference of two losses, which is all that influence
is, then holds no noise of its own; with draws of its own for each loss it would be mostly that.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jax.tree_util import Partial
from jaxtyping import Float

from jaxinf.errors import InputError, check_count, check_examples, check_key, check_labels
from jaxinf.influence import Attribution, Attributor, attribute
from jaxinf.models.diffusion.edm import EDM, P_MEAN, P_STD, weighted_error
from jaxinf.typing import Batch, Params, PerExampleLoss

WeightedError = Callable[[Params, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""`(params, x, noise, sigma, labels) -> float[B]`: one draw's error for each row."""


class NoiseDraws(NamedTuple):
    """T noise levels σ [T] and T noises [T, H, W, c], shared by all images."""

    sigma: Float[jax.Array, " T"]
    noise: Float[jax.Array, "T H W c"]


def draw_noise(
    key: jax.Array,
    num_draws: int,
    image_shape: tuple[int, ...],
    *,
    p_mean: float = P_MEAN,
    p_std: float = P_STD,
) -> NoiseDraws:
    """Draw noise levels and noises once, for all images.

    ln σ is normal, as in the training of an EDM, and stratified: one draw from each of T equally
    likely intervals, so that few draws cover all levels.

    Args:
        key: random key.
        num_draws: T.
        image_shape: (H, W, c).
        p_mean: mean of ln σ; lower looks at finer detail.
        p_std: standard deviation of ln σ.

    Returns:
        `NoiseDraws`.

    Raises:
        InputError: for no draws, or a spread that is negative.

    Example:
        >>> draws = draw_noise(jax.random.key(0), 4, (8, 8, 1))
        >>> draws.noise.shape, bool((jnp.diff(draws.sigma) > 0).all())
        ((4, 8, 8, 1), True)
    """
    check_key(key)
    check_count(num_draws, "num_draws")
    if not (np.isfinite(p_mean) and np.isfinite(p_std) and p_std >= 0):
        raise InputError(f"p_mean is {p_mean}, p_std {p_std}: finite, and p_std not negative")
    level_key, noise_key = jax.random.split(key)
    within = jax.random.uniform(level_key, (num_draws,), minval=1e-3, maxval=1 - 1e-3)
    quantiles = (jnp.arange(num_draws) + within) / num_draws
    sigma = jnp.exp(p_mean + p_std * ndtri(quantiles))
    return NoiseDraws(sigma, jax.random.normal(noise_key, (num_draws, *image_shape)))


def denoising_loss(model: EDM | WeightedError, draws: NoiseDraws) -> PerExampleLoss:
    """Mean denoising loss of each image over fixed draws: `loss_fn(params, batch) -> float[B]`.

    Batches are `{"x": float[B, H, W, c], "y": int[B]}`. A step sees B · T images at once: choose
    the batch size accordingly.

    Args:
        model: an `EDM`; or `error(params, x, noise, sigma, labels) -> float[B]` for a model of
            one's own, its error at one noise level and noise per row.
        draws: what `draw_noise` returned. Draws of the same shape share compiled programs.

    Returns:
        The loss, NaN for a class that an `EDM` does not have.

    Example:
        >>> error = lambda mean, x, noise, sigma, labels: jnp.mean((x - mean) ** 2, (1, 2, 3))
        >>> loss = denoising_loss(error, draw_noise(jax.random.key(0), 3, (2, 2, 1)))
        >>> loss(jnp.zeros(()), {"x": jnp.ones((5, 2, 2, 1)), "y": jnp.zeros(5, int)}).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    return Partial(Partial(_MeanError(model)), draws)


class _MeanError:
    """The loss's static part; equal models are equal, so that compiled functions are shared."""

    def __init__(self, model: EDM | WeightedError):
        self.model = model

    def __hash__(self) -> int:
        return hash(self.model)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _MeanError) and self.model == other.model

    def __call__(self, draws: NoiseDraws, params: Params, batch: Batch) -> jax.Array:
        x, labels = batch["x"], batch["y"]
        size, count = len(x), len(draws.sigma)
        # one pass over B · T images: inside a loop convolutions are several times slower
        repeated = lambda a: jnp.repeat(a, count, axis=0)
        tiled = lambda a: jnp.broadcast_to(a[None], (size, *a.shape)).reshape(-1, *a.shape[1:])
        noise, sigma = tiled(draws.noise), tiled(draws.sigma)
        given = params, repeated(x), noise.astype(x.dtype), sigma.astype(x.dtype), repeated(labels)
        error = (
            weighted_error(self.model, *given)
            if isinstance(self.model, EDM)
            else self.model(*given)
        )
        return error.reshape(size, count).mean(axis=1)


def attribute_generated(
    attributor: Attributor,
    params: Params,
    generated: Batch,
    train: Batch,
    *,
    num_classes: int | None = None,
    **options: Any,
) -> Attribution:
    """Influence of training images on generated images.

    Sign: positive = training on the image lowers the denoising loss of the generated one (a
    proponent).

    Args:
        attributor: any of `jaxinf.influence`, made of a `denoising_loss`.
        params: the weights: those that generated the image, or those before fine-tuning.
        generated: K images, `{"x": float[K, H, W, c], "y": int[K]}`, scaled as in training.
        train: N candidates, likewise.
        num_classes: the model's, to check the classes before any work.
        **options: those of `jaxinf.attribute`: batch_size, top_k, store, progress ...

    Returns:
        An `Attribution`, its scores float[K, N].

    Raises:
        InputError: no generated image or no candidate, generated images of another size than the
            training images, pixels that are no floats, classes out of range; and as
            `jaxinf.attribute`.

    Example:
        >>> from jaxinf.influence import forward_inf_jvp
        >>> error = lambda mean, x, noise, sigma, labels: jnp.mean((x - mean) ** 2, (1, 2, 3))
        >>> loss = denoising_loss(error, draw_noise(jax.random.key(0), 2, (2, 2, 1)))
        >>> def images(*values):
        ...     x = np.ones((len(values), 2, 2, 1)) * np.reshape(values, (-1, 1, 1, 1))
        ...     return {"x": x.astype(np.float32), "y": np.zeros(len(values), np.int32)}
        >>> found = attribute_generated(
        ...     forward_inf_jvp(loss), jnp.zeros(()), images(1), images(2, -1), progress=False)
        >>> bool(found.scores[0, 0] > 0 > found.scores[0, 1])
        True
    """
    check_generated(generated, train, num_classes)
    return attribute(attributor, params, generated, train, **options)


def check_generated(generated: Batch, train: Batch, num_classes: int | None = None) -> None:
    """Refuse what cannot be attributed, before any work.

    Raises:
        InputError: see `attribute_generated`.
    """
    for name, batch in (("generated", generated), ("train", train)):
        if not isinstance(batch, dict) or set(batch) != {"x", "y"}:
            raise InputError(f"{name} must be a dict with x, the images, and y, their classes")
        check_examples(batch, name)
        if (found := np.asarray(batch["x"][:1]).dtype).kind != "f" or np.ndim(batch["x"]) != 4:
            raise InputError(
                f"{name}['x'] is {found}{list(np.shape(batch['x']))}: float images [N, H, W, c], "
                "scaled as in training, are needed"
            )
        if num_classes is not None:
            check_labels(batch["y"], num_classes, f"{name}['y']")
    size, wanted = np.shape(generated["x"])[1:], np.shape(train["x"])[1:]
    if size != wanted:
        raise InputError(
            f"generated images are {list(size)} but the training images {list(wanted)}: resize "
            "them to the size that the model was trained on"
        )
