"""Outputs of a trained model over many inputs."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxinf.engine.batching import read_blocks
from jaxinf.engine.sources import ArraySource
from jaxinf.errors import InputError, check_finite
from jaxinf.typing import PyTree


def predict(
    module: nn.Module,
    variables: PyTree,
    x: Any,
    batch_size: int = 256,
    *,
    method: str | None = None,
) -> np.ndarray:
    """Apply a flax module in evaluation mode to every row of `x`, batch by batch.

    The last batch is padded to the common size, so one compiled function serves them all.

    Args:
        module: flax.linen module, evaluating by default (`train=False`) as ours do.
        variables: what `module.init` returned, or `{"params": params, **state}`.
        x: array [N, ...].
        batch_size: rows per call.
        method: another method than `__call__`, such as `"features"`.

    Returns:
        The outputs [N, ...] (logits float[N, C]), on the host.

    Raises:
        InputError: no rows, a dtype that the device cannot hold, NaN among the inputs, or a
            batch size below 1.

    Example:
        >>> from jaxinf.models.mlp import MLP
        >>> model, x = MLP((4,), num_classes=3), np.ones((5, 2), np.float32)
        >>> variables = model.init(jax.random.key(0), x)
        >>> predict(model, variables, x, batch_size=2).shape
        (5, 3)
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}: it must be at least 1")
    check_finite(x, "x", first_row=0)
    outputs = [
        np.asarray(_apply(module, method, variables, block.batch))[: block.count]
        for block in read_blocks(ArraySource(x, "x"), batch_size)
    ]
    return np.concatenate(outputs)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(module: nn.Module, method: str | None, variables: PyTree, x: jax.Array) -> jax.Array:
    return jnp.asarray(module.apply(variables, x, method=method))
