"""Residual networks for small images, NHWC, with PyTorch's paddings and module names.

Every network takes float[B, H, W, c] and returns logits float[B, C]; `features` returns the
pooled penultimate features. BatchNorm statistics are the collection "batch_stats": used as they
are with `train=False`, recomputed from the batch with `train=True` (then `apply` needs
`mutable=["batch_stats"]`). They decay by 0.9 with epsilon 1e-5, as PyTorch's do, except that the
running variance is the biased one (PyTorch multiplies it by n / (n - 1)).

Submodules carry PyTorch's names with dots as underscores (`layer1_0/conv1`, `shortcut_0`), so
that `jaxinf.models.variables_from_torch` needs no table.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinf.errors import InputError
from jaxinf.models.winograd import convolve


def _conv(features: int, name: str, kernel: int = 3, stride: int = 1) -> nn.Conv:
    # Explicit padding: at stride 2 "SAME" pads even sizes on one side only, PyTorch on both.
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=stride,
        padding=kernel // 2,
        use_bias=False,
        kernel_init=nn.initializers.he_normal(),
        conv_general_dilated=convolve,
        name=name,
    )


def _norm(train: bool, name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name=name)


class ProjectionBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: 1x1 convolution + BatchNorm where the shape changes."""

    channels: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """float[B, H, W, c] -> float[B, H / stride, W / stride, channels]."""
        y = nn.relu(_norm(train, "bn1")(_conv(self.channels, "conv1", stride=self.stride)(x)))
        y = _norm(train, "bn2")(_conv(self.channels, "conv2")(y))
        if x.shape != y.shape:
            x = _conv(self.channels, "shortcut_0", kernel=1, stride=self.stride)(x)
            x = _norm(train, "shortcut_1")(x)
        return nn.relu(y + x)


class PadBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A of He et al. 2016).

    Where the shape changes, the shortcut keeps every second pixel and pads channels with zeros.
    """

    channels: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """float[B, H, W, c] -> float[B, H / stride, W / stride, channels]."""
        y = nn.relu(_norm(train, "bn1")(_conv(self.channels, "conv1", stride=self.stride)(x)))
        y = _norm(train, "bn2")(_conv(self.channels, "conv2")(y))
        extra = self.channels - x.shape[-1]
        x = x[:, :: self.stride, :: self.stride, :]
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))
        return nn.relu(y + x)


class PreActBlock(nn.Module):
    """BatchNorm and ReLU before each convolution; 1x1 convolution where the shape changes."""

    channels: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """float[B, H, W, c] -> float[B, H / stride, W / stride, channels]."""
        y = nn.relu(_norm(train, "bn1")(x))
        if self.stride != 1 or x.shape[-1] != self.channels:
            x = _conv(self.channels, "shortcut_0", kernel=1, stride=self.stride)(y)
        y = _conv(self.channels, "conv1", stride=self.stride)(y)
        y = _conv(self.channels, "conv2")(nn.relu(_norm(train, "bn2")(y)))
        return y + x


def _stages(
    block: Callable[..., nn.Module],
    x: jax.Array,
    train: bool,
    num_blocks: Sequence[int],
    width: int,
) -> jax.Array:
    """Stages of blocks; each stage after the first halves the image and doubles the channels."""
    for stage, count in enumerate(num_blocks):
        for index in range(count):
            stride = 2 if stage and not index else 1
            name = f"layer{stage + 1}_{index}"
            x = block(width * 2**stage, stride, name=name)(x, train)
    return x


class ResNet18(nn.Module):
    """ResNet-18 for 32x32 images: 3x3 stem, no max-pool, stages of 64, 128, 256, 512 channels.

    Attributes:
        num_classes: C, the number of outputs.
        width: channels of the first stage; the features have 8 times as many.

    Reference:
        He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016.

    Example:
        >>> model, x = ResNet18(width=4), jnp.ones((1, 8, 8, 3))
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
        """Penultimate features float[B, 8 * width]: the mean over the last stage's image."""
        x = nn.relu(_norm(train, "bn1")(_conv(self.width, "conv1")(x)))
        return _stages(ProjectionBlock, x, train, (2, 2, 2, 2), self.width).mean(axis=(1, 2))

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits float[B, C]."""
        return self.linear(self.features(x, train))


class PreActResNet18(nn.Module):
    """ResNet-18 with BatchNorm and ReLU before the convolutions, and once more at the end.

    Attributes:
        num_classes: C, the number of outputs.
        width: channels of the first stage; the features have 8 times as many.

    Reference:
        He, Zhang, Ren, Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016.

    Example:
        >>> model, x = PreActResNet18(width=4), jnp.ones((1, 8, 8, 3))
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
        """Penultimate features float[B, 8 * width]: the mean over the last stage's image."""
        x = _stages(PreActBlock, _conv(self.width, "conv1")(x), train, (2, 2, 2, 2), self.width)
        return nn.relu(_norm(train, "bn")(x)).mean(axis=(1, 2))

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits float[B, C]."""
        return self.linear(self.features(x, train))


class CifarResNet(nn.Module):
    """The CIFAR-10 networks of the ResNet paper: 6n + 2 layers, 16, 32, 64 channels, option A.

    Attributes:
        depth: number of layers, 6n + 2: 20, 32, 44, 56, ...
        num_classes: C, the number of outputs.

    Raises:
        InputError: when first applied, for a depth that is not 6n + 2.

    Reference:
        He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
        section 4.2.

    Example:
        >>> model, x = CifarResNet(depth=20), jnp.ones((1, 32, 32, 3))
        >>> shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
        >>> sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
        269722
    """

    depth: int = 20
    num_classes: int = 10

    def setup(self):
        """Define the output layer."""
        self.linear = nn.Dense(self.num_classes)

    @nn.compact
    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Penultimate features float[B, 64]: the mean over the last stage's image."""
        if self.depth < 8 or (self.depth - 2) % 6:
            raise InputError(f"depth is {self.depth}: it must be 6n + 2, such as 20, 32, 44 or 56")
        x = nn.relu(_norm(train, "bn1")(_conv(16, "conv1")(x)))
        return _stages(PadBlock, x, train, [(self.depth - 2) // 6] * 3, 16).mean(axis=(1, 2))

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits float[B, C]."""
        return self.linear(self.features(x, train))
