"""Small convolutional networks, NHWC."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from jaxinf.models.pooling import max_pool


class SmallCNN(nn.Module):
    """The CNN of the Mirrored Influence experiments: two 5x5 convolutions, two dense layers.

    Conv 32, ReLU, max-pool 2, conv 64, ReLU, max-pool 2, dense 128, ReLU, dense C; no padding.
    Inputs float[B, H, W, c] with H, W at least 16 (28x28x1 and 32x32x3 in the paper); the result
    is logits float[B, C].

    Attributes:
        num_classes: C, the number of outputs.

    Example:
        >>> import jax.numpy as jnp
        >>> model, x = SmallCNN(), jnp.ones((2, 28, 28, 1))
        >>> variables = model.init(jax.random.key(0), x)
        >>> model.apply(variables, x).shape
        (2, 10)
    """

    num_classes: int = 10

    def setup(self):
        """Define the output layer."""
        self.linear = nn.Dense(self.num_classes)

    @nn.compact
    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Penultimate features float[B, 128]; `train` changes nothing."""
        for width in (32, 64):
            x = nn.relu(nn.Conv(width, (5, 5), padding="VALID")(x))
            x = max_pool(x)
        return nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits float[B, C]; `train` changes nothing."""
        return self.linear(self.features(x, train))


class BatchNormCNN(nn.Module):
    """Blocks of 3x3 convolution, BatchNorm and ReLU, then the mean over the image.

    Every block after the first halves the image. Inputs float[B, H, W, c] of any size; the
    result is logits float[B, C]. The BatchNorm statistics are the collection "batch_stats":
    used as they are with `train=False`, recomputed from the batch with `train=True` (then
    `apply` needs `mutable=["batch_stats"]`).

    Attributes:
        widths: channels of each block.
        num_classes: C, the number of outputs.

    Example:
        >>> import jax.numpy as jnp
        >>> model, x = BatchNormCNN(widths=(8, 16)), jnp.ones((2, 8, 8, 1))
        >>> variables = model.init(jax.random.key(0), x)
        >>> model.apply(variables, x, method="features").shape
        (2, 16)
    """

    widths: Sequence[int] = (32, 64, 64)
    num_classes: int = 10

    def __post_init__(self):
        # a tuple, so that the module can be hashed and compiled functions found again
        self.widths = tuple(self.widths)
        super().__post_init__()

    def setup(self):
        """Define the output layer."""
        self.linear = nn.Dense(self.num_classes)

    @nn.compact
    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Penultimate features float[B, widths[-1]]."""
        for block, width in enumerate(self.widths):
            stride = 2 if block else 1
            x = nn.Conv(width, (3, 3), strides=stride, padding=1, use_bias=False)(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x)
            x = nn.relu(x)
        return x.mean(axis=(1, 2))

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits float[B, C]."""
        return self.linear(self.features(x, train))
