"""Small problems over the three kinds of network that every estimator is held to."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinf.adapters import from_linen
from jaxinf.models import MLP, BatchNormCNN, Transformer, cross_entropy, next_token_cross_entropy


class Problem(NamedTuple):
    """What `attribute` is handed."""

    loss_fn: Any
    params: Any
    queries: Any
    train: Any


def make_problem(name: str, *, num_train: int = 37, num_queries: int = 3) -> Problem:
    """Build one of `mlp`, `cnn` (with BatchNorm) and `transformer`, with random weights."""
    rng = np.random.default_rng(0)
    total = num_train + num_queries
    if name == "transformer":
        module = Transformer(vocab_size=13, num_layers=1, width=16, num_heads=2, max_length=8)
        data = {"x": rng.integers(0, 13, (total, 8)).astype(np.int32)}
        variables = module.init(jax.random.key(1), data["x"][:2])
        # embeddings of the size that training gives them; at 0.02 the first LayerNorm magnifies
        # every gradient fifty times
        grow = lambda path, a: a * 30 if "embedding" in jax.tree_util.keystr(path) else a
        variables = jax.tree_util.tree_map_with_path(grow, variables)
        loss_fn, params = from_linen(module, variables, next_token_cross_entropy)
    else:
        module = MLP((16, 8), 4) if name == "mlp" else BatchNormCNN(widths=(6,), num_classes=4)
        data = {
            "x": rng.normal(size=(total, 6, 6, 2)).astype(np.float32),
            "y": rng.integers(0, 4, total).astype(np.int32),
        }
        variables = module.init(jax.random.key(1), data["x"][:2])
        if name == "cnn":
            # statistics as after training: neither zero mean nor unit variance
            keys = iter(jax.random.split(jax.random.key(2), 100))
            variables = variables | {
                "batch_stats": jax.tree.map(
                    lambda a: jnp.abs(a + 0.3 * jax.random.normal(next(keys), a.shape)) + 0.1,
                    variables["batch_stats"],
                )
            }
        loss_fn, params = from_linen(module, variables, cross_entropy, train=False)
    split = lambda part: jax.tree.map(lambda a: a[part], data)
    return Problem(loss_fn, params, split(slice(num_train, None)), split(slice(num_train)))


def to_float64(tree: Any) -> Any:
    """Cast the floating-point leaves; integers stay."""
    return jax.tree.map(
        lambda a: (
            jnp.asarray(a, jnp.float64) if jnp.issubdtype(jnp.result_type(a), jnp.floating) else a
        ),
        tree,
    )


def relative(a: Any, b: Any) -> float:
    """Norm-wise difference: entries near zero do not count for more than they weigh."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
