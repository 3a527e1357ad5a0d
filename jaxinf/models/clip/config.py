"""What a CLIP is made of: two towers and the width of the space they share.

Nothing here has a default that could be wrong in silence: the activation, the number of heads and
the pooling belong to a checkpoint and change its features.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from jaxinf.errors import InputError

Activation: TypeAlias = Literal["quick_gelu", "gelu", "gelu_tanh"]
"""`x·σ(1.702 x)`; the exact GELU; its tanh approximation."""

ACTIVATIONS: tuple[Activation, ...] = ("quick_gelu", "gelu", "gelu_tanh")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A stack of pre-LayerNorm blocks.

    Attributes:
        width: size of the residual stream, a multiple of `heads`.
        layers: number of blocks.
        heads: attention heads.
        mlp_width: hidden units of each block's MLP.
        activation: of the MLP; one of `ACTIVATIONS`.
        eps: of every LayerNorm of the tower.

    Raises:
        InputError: for an unknown activation, or a width that the heads do not divide.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: Activation
    eps: float = 1e-5

    def __post_init__(self):
        if self.activation not in ACTIVATIONS:
            raise InputError(
                f"activation is {self.activation!r}: it must be one of {', '.join(ACTIVATIONS)}"
            )
        if self.width % self.heads:
            raise InputError(f"width {self.width} is no multiple of heads {self.heads}")


@dataclass(frozen=True, kw_only=True)
class VisionTransformerConfig:
    """A ViT: square images cut into square patches.

    Attributes:
        image_size: pixels per side.
        patch_size: pixels per side of a patch.
        transformer: the blocks.
    """

    image_size: int
    patch_size: int
    transformer: TransformerConfig


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """A ResNet with CLIP's stem, antialiased strides and attention pooling.

    Attributes:
        image_size: pixels per side, a multiple of 32.
        blocks: number of bottleneck blocks of each of the four stages.
        width: channels of the stem; the last stage has 32 times as many.
        heads: of the attention pooling.
    """

    image_size: int
    blocks: tuple[int, int, int, int]
    width: int
    heads: int


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """A causal transformer over tokens.

    Attributes:
        context_length: the longest sequence.
        vocab_size: number of tokens.
        transformer: the blocks.
        end_token: the features are those of the first such token; None = of the token with the
            largest id, which in CLIP's own vocabulary is the same one.
    """

    context_length: int
    vocab_size: int
    transformer: TransformerConfig
    end_token: int | None = None


@dataclass(frozen=True, kw_only=True)
class CLIPConfig:
    """Both towers.

    Attributes:
        embed_dim: D, width of the shared space.
        vision: the image tower.
        text: the text tower.
    """

    embed_dim: int
    vision: VisionTransformerConfig | ResNetConfig
    text: TextConfig
