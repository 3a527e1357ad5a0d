"""ResNet-9, the fast CIFAR-10 network, NHWC."""

import flax.linen as nn
import jax

from jaxinf.models.pooling import max_pool
from jaxinf.models.winograd import convolve


class _ConvNormRelu(nn.Module):
    channels: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(
            self.channels,
            (3, 3),
            padding=1,
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            conv_general_dilated=convolve,
        )(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x)
        return nn.relu(x)


class ResNet9(nn.Module):
    """ResNet-9: four 3x3 stages with max-pools, residual pairs after the second and the fourth.

    Inputs float[B, H, W, c] with H, W at least 8; the result is logits float[B, C]. BatchNorm
    statistics are the collection "batch_stats": used as they are with `train=False`, recomputed
    from the batch with `train=True` (then `apply` needs `mutable=["batch_stats"]`).

    Attributes:
        num_classes: C, the number of outputs.
        width: channels of the stem; the features have 8 times as many.

    Reference:
        Page, "How to Train Your ResNet", 2018.

    Example:
        >>> import jax.numpy as jnp
        >>> model, x = ResNet9(width=4), jnp.ones((1, 8, 8, 3))
        >>> jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), x)[0]).shape
        (1, 10)
    """

    num_classes: int = 10
    width: int = 64

    def setup(self):
        """Define the output layer."""
        self.linear = nn.Dense(self.num_classes)

    @nn.compact
    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Penultimate features float[B, 8 * width]: the maximum over the last stage's image."""
        x = _ConvNormRelu(self.width)(x, train)
        for factor, residual in ((2, True), (4, False), (8, True)):
            channels = factor * self.width
            x = max_pool(_ConvNormRelu(channels)(x, train))
            if residual:
                x = x + _ConvNormRelu(channels)(_ConvNormRelu(channels)(x, train), train)
        return x.max(axis=(1, 2))

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits float[B, C]."""
        # the reference scales the logits so that training starts far from saturation
        return 0.125 * self.linear(self.features(x, train))
