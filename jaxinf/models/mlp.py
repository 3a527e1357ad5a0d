"""Multilayer perceptron."""

from collections.abc import Sequence

import flax.linen as nn
import jax


class MLP(nn.Module):
    """Dense layers with ReLU between them; `hidden=()` is multinomial logistic regression.

    Inputs of any shape [B, ...] are flattened to [B, D]; the result is logits float[B, C].
    `features` gives the last hidden layer float[B, hidden[-1]] (the flattened input when there
    is none).

    Attributes:
        hidden: widths of the hidden layers, input side first.
        num_classes: C, the number of outputs.

    Example:
        >>> import jax.numpy as jnp
        >>> model, x = MLP(hidden=(32, 16), num_classes=10), jnp.ones((2, 8, 8, 1))
        >>> variables = model.init(jax.random.key(0), x)
        >>> model.apply(variables, x).shape
        (2, 10)
        >>> model.apply(variables, x, method="features").shape
        (2, 16)
    """

    hidden: Sequence[int] = (128,)
    num_classes: int = 10

    def __post_init__(self):
        # a tuple, so that the module can be hashed and compiled functions found again
        self.hidden = tuple(self.hidden)
        super().__post_init__()

    def setup(self):
        """Define the output layer."""
        self.linear = nn.Dense(self.num_classes)

    @nn.compact
    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Penultimate features float[B, hidden[-1]]; `train` changes nothing."""
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return x

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits float[B, C]; `train` changes nothing."""
        return self.linear(self.features(x, train))
