"""The deterministic sampler of Karras et al.: Heun's or Euler's method on the flow's ODE."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxinf.errors import InputError, check_count, check_key, check_labels
from jaxinf.models.diffusion.edm import EDM
from jaxinf.typing import Params


def noise_schedule(
    num_steps: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Float[np.ndarray, " n"]:
    """Noise levels from `sigma_max` down to `sigma_min`, then 0: float32[num_steps + 1].

    Raises:
        InputError: for fewer than 2 steps, or levels that do not fall.

    Example:
        >>> noise_schedule(3).round(3).tolist()
        [80.0, 2.515..., 0.002..., 0.0]

    Reference: Karras et al., 2022, equation 5.
    """
    check_count(num_steps, "num_steps", 2)
    if not 0 < sigma_min < sigma_max:
        raise InputError(f"sigma_min is {sigma_min}, sigma_max {sigma_max}: 0 < min < max")
    share = np.linspace(0, 1, num_steps)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return np.append((high + share * (low - high)) ** rho, 0).astype(np.float32)


def sample(
    model: EDM,
    params: Params,
    labels: np.ndarray,
    key: jax.Array,
    *,
    num_steps: int = 18,
    method: Literal["heun", "euler"] = "heun",
    sigma_max: float = 80.0,
) -> Float[np.ndarray, "K H W c"]:
    """Generate one image per label. All randomness is the initial noise, from `key`.

    Image k starts from the same noise whatever the model and however many images there are, so
    the images of two models can be compared one by one.

    Args:
        model: the denoiser.
        params: its weights.
        labels: int[K].
        key: random key.
        num_steps: noise levels; Heun's method calls the model 2 · num_steps − 1 times.
        method: `"heun"`, of second order, or `"euler"`.
        sigma_max: where sampling starts.

    Returns:
        float32[K, H, W, c], clipped to [−1, 1].

    Raises:
        InputError: for labels that are not the model's, or settings that mean nothing.

    Example:
        >>> from jaxinf.models.diffusion.edm import init_params
        >>> model = EDM((4, 4, 1), num_classes=2, widths=(8,))
        >>> shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
        >>> params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
        >>> sample(model, params, np.array([0, 1]), jax.random.key(1), method="euler").shape
        (2, 4, 4, 1)

    Reference: Karras et al., 2022, algorithm 1.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not labels.size:
        raise InputError(f"labels have shape {labels.shape}: one class per image is needed, [K]")
    check_labels(labels, model.num_classes)
    check_key(key)
    if method not in ("heun", "euler"):
        raise InputError(f"method must be 'heun' or 'euler', not {method!r}")
    levels = noise_schedule(num_steps, sigma_max=sigma_max)
    found = _sample(model, method, params, labels.astype(np.int32), key, levels)
    return np.asarray(found)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sample(
    model: EDM, method: str, params: Params, labels: jax.Array, key: jax.Array, levels: jax.Array
) -> jax.Array:
    keys = jax.vmap(lambda k: jax.random.fold_in(key, k))(jnp.arange(len(labels)))
    x = levels[0] * jax.vmap(lambda k: jax.random.normal(k, model.image_shape))(keys)

    def slope(x: jax.Array, sigma: jax.Array) -> jax.Array:
        # the last level is 0: its slope is not used
        safe = jnp.where(sigma > 0, sigma, 1)
        clean = model.apply({"params": params}, x, jnp.full(len(labels), safe), labels)
        return (x - jnp.asarray(clean)) / safe

    def step(x: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        here, there = pair
        first = slope(x, here)
        moved = x + (there - here) * first
        if method == "euler":
            return moved, None
        second = jnp.where(there > 0, slope(moved, there), first)
        return x + (there - here) * (first + second) / 2, None

    x = jax.lax.scan(step, x, (levels[:-1], levels[1:]))[0]
    return jnp.clip(x, -1, 1)
