"""PyTorch twins of the benchmarked flax models, loaded with the very same weights.

Submodules are named as in flax, so that one rule converts every parameter.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


class MLP(nn.Module):
    """Dense layers with ReLU between them; without hidden ones, a linear model."""

    def __init__(
        self, inputs: int = 784, hidden: Sequence[int] = (1024, 1024), num_classes: int = 10
    ):
        super().__init__()
        widths = [inputs, *hidden]
        self.hidden = [f"Dense_{layer}" for layer in range(len(hidden))]
        for name, below, width in zip(self.hidden, widths, hidden, strict=False):
            self.add_module(name, nn.Linear(below, width))
        self.linear = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] -> [B, C]."""
        for name in self.hidden:
            x = F.relu(getattr(self, name)(x))
        return self.linear(x)


class SmallCNN(nn.Module):
    """Two 5x5 convolutions with max-pools, two dense layers, for 28x28 images."""

    def __init__(self, num_classes: int = 10):
        super().__init__()
        self.Conv_0 = nn.Conv2d(1, 32, 5)
        self.Conv_1 = nn.Conv2d(32, 64, 5)
        self.Dense_0 = nn.Linear(1024, 128)
        self.linear = nn.Linear(128, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1, 28, 28] -> [B, C]."""
        for convolution in (self.Conv_0, self.Conv_1):
            x = F.max_pool2d(F.relu(convolution(x)), 2)
        # flax flattens with the channels last
        return self.linear(F.relu(self.Dense_0(x.permute(0, 2, 3, 1).flatten(1))))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.projects = stride != 1 or inputs != channels
        if self.projects:
            self.shortcut_0 = nn.Conv2d(inputs, channels, 1, stride, bias=False)
            self.shortcut_1 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c, H, W] -> [B, channels, H / stride, W / stride]."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (self.shortcut_1(self.shortcut_0(x)) if self.projects else x))


class ResNet18(nn.Module):
    """ResNet-18 for 32x32 images: 3x3 stem, no max-pool."""

    def __init__(self, num_classes: int = 10, width: int = 64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        blocks, inputs = [], width
        for stage in range(4):
            for index in range(2):
                channels = width * 2**stage
                blocks.append(f"layer{stage + 1}_{index}")
                stride = 2 if stage and not index else 1
                self.add_module(blocks[-1], Block(inputs, channels, stride))
                inputs = channels
        self.blocks = blocks
        self.linear = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, 32, 32] -> [B, C]."""
        x = F.relu(self.bn1(self.conv1(x)))
        for name in self.blocks:
            x = getattr(self, name)(x)
        return self.linear(x.mean(dim=(2, 3)))


class ConvNormRelu(nn.Module):
    """3x3 convolution, BatchNorm, ReLU."""

    def __init__(self, inputs: int, channels: int):
        super().__init__()
        self.Conv_0 = nn.Conv2d(inputs, channels, 3, 1, 1, bias=False)
        self.BatchNorm_0 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c, H, W] -> [B, channels, H, W]."""
        return F.relu(self.BatchNorm_0(self.Conv_0(x)))


class ResNet9(nn.Module):
    """ResNet-9: four 3x3 stages with max-pools, residual pairs after the second and the fourth."""

    def __init__(self, num_classes: int = 10, width: int = 64):
        super().__init__()
        inputs, number = width, 1
        self._ConvNormRelu_0 = ConvNormRelu(3, width)
        # name of the stage's convolution, of the first and the second of its residual pair
        self.stages: list[list[str]] = []
        for factor, residual in ((2, True), (4, False), (8, True)):
            channels = factor * width
            # flax names the outer one of the pair first
            offsets = (0, 2, 1) if residual else (0,)
            self.stages.append([f"_ConvNormRelu_{number + offset}" for offset in offsets])
            for name in self.stages[-1]:
                self.add_module(name, ConvNormRelu(inputs, channels))
                inputs = channels
            number += len(offsets)
        self.linear = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C]."""
        x = self._ConvNormRelu_0(x)
        for name, *pair in self.stages:
            x = F.max_pool2d(getattr(self, name)(x), 2)
            if pair:
                y = x
                for each in pair:
                    y = getattr(self, each)(y)
                x = x + y
        return 0.125 * self.linear(x.amax(dim=(2, 3)))


class TransformerBlock(nn.Module):
    """Causal self-attention and a GELU MLP, LayerNorm before each."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp1 = nn.Linear(width, 4 * width)
        self.mlp2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, width] -> [B, T, width]."""
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(heads.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp2(F.gelu(self.mlp1(self.norm2(x)), approximate="tanh"))


class Transformer(nn.Module):
    """Decoder-only transformer with learned positions."""

    def __init__(
        self, vocab_size: int, num_layers: int, width: int, num_heads: int, max_length: int
    ):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(max_length, width)
        for layer in range(num_layers):
            self.add_module(f"block_{layer}", TransformerBlock(width, num_heads))
        self.num_layers = num_layers
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, vocab_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T] -> [B, T, V]."""
        h = self.tokens(x) + self.positions.weight[: x.shape[1]]
        for layer in range(self.num_layers):
            h = getattr(self, f"block_{layer}")(h)
        return self.head(self.norm(h))


def cross_entropy(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Per-example cross-entropy [B]."""
    return F.cross_entropy(logits, batch["y"], reduction="none")


def next_token_cross_entropy(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Per-example mean cross-entropy of the next token [B]."""
    targets = batch["x"][:, 1:]
    losses = F.cross_entropy(
        logits[:, :-1].reshape(-1, logits.shape[-1]), targets.reshape(-1), reduction="none"
    )
    return losses.view(targets.shape).mean(dim=1)


def load_flax(module: nn.Module, arrays: dict[str, np.ndarray]) -> nn.Module:
    """Fill a twin with flax variables given as `{"params/conv1/kernel": array, ...}`."""
    converted = {}
    for path, array in arrays.items():
        _, *parents, leaf = path.split("/")
        if leaf == "kernel":
            # [..., in, out] -> [out, in, ...]
            array = np.moveaxis(array, (-1, -2), (0, 1))
        converted[".".join([*parents, _LEAVES[leaf]])] = torch.from_numpy(array.copy())
    missing, unexpected = module.load_state_dict(converted, strict=False)
    # how many batches BatchNorm saw has no bearing on evaluation mode
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"weights do not fit the twin: missing {missing}, unexpected {unexpected}")
    return module.eval()
