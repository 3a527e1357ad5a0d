"""What a decoder-only transformer is made of, whichever family it comes from."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from jaxinf.errors import InputError

Activation: TypeAlias = Literal["gelu", "gelu_tanh", "relu", "silu"]
"""`"gelu"` is exact, `"gelu_tanh"` its usual approximation (`gelu_new`)."""

ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")


@dataclass(frozen=True)
class RotaryScaling:
    """Rotary frequencies of a model that was taught longer contexts after its training.

    Attributes:
        kind: `"linear"`, all wavelengths times `factor`; or `"llama3"`, only the long ones.
        factor: how much longer.
        low_freq_factor: of `"llama3"`: wavelengths over `original_context` / this are scaled.
        high_freq_factor: of `"llama3"`: wavelengths under `original_context` / this are kept.
        original_context: of `"llama3"`: the context before.
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True)
class LanguageConfig:
    """A decoder-only transformer.

    The defaults are GPT-2's: learned positions, LayerNorm, a GELU network, biases, a tied head.

    Attributes:
        vocab_size: V, the number of tokens.
        context: the longest sequence.
        width: size of the residual stream.
        num_layers: blocks.
        num_heads: heads that ask.
        num_kv_heads: heads that answer, which divides `num_heads`; None: as many.
        head_dim: numbers per head; None: width / num_heads.
        mlp_width: of the hidden layer; None: 4 times the width.
        activation: of the hidden layer.
        gated: whether the hidden layer is multiplied by a second one (SwiGLU with `"silu"`).
        norm: `"layer"` (LayerNorm) or `"rms"` (RMSNorm).
        eps: added to the variance in it.
        rotary_dim: how many of each head's numbers are rotated by their position; None: positions
            are learned vectors instead.
        rotary_base: the longest wavelength is about 2π times this.
        rotary_scaling: see `RotaryScaling`; None: none.
        parallel: whether attention and hidden layer read the same residual stream, both at once.
        qkv_bias: whether the projections into attention have a bias.
        out_bias: whether the projection out of it has one.
        mlp_bias: whether the hidden layer's projections have one.
        tie_head: whether the output layer is the token embedding, transposed.

    Raises:
        InputError: for sizes that do not fit one another.

    Example:
        >>> config = LanguageConfig(vocab_size=9, context=8, width=8, num_layers=1, num_heads=2)
        >>> config.size_of_head
        4
    """

    vocab_size: int
    context: int
    width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int | None = None
    head_dim: int | None = None
    mlp_width: int | None = None
    activation: Activation = "gelu_tanh"
    gated: bool = False
    norm: Literal["layer", "rms"] = "layer"
    eps: float = 1e-5
    rotary_dim: int | None = None
    rotary_base: float = 10_000.0
    rotary_scaling: RotaryScaling | None = None
    parallel: bool = False
    qkv_bias: bool = True
    out_bias: bool = True
    mlp_bias: bool = True
    tie_head: bool = True

    def __post_init__(self):
        for name in ("vocab_size", "context", "width", "num_layers", "num_heads"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)!r}: a whole number, at least 1")
        if self.head_dim is None and self.width % self.num_heads:
            raise InputError(f"width {self.width} is no multiple of num_heads {self.num_heads}")
        if self.num_heads % self.kv_heads:
            raise InputError(
                f"num_kv_heads {self.kv_heads} does not divide num_heads {self.num_heads}"
            )
        rotary = self.rotary_dim
        if rotary is not None and (rotary % 2 or not 0 < rotary <= self.size_of_head):
            raise InputError(
                f"rotary_dim is {rotary}: an even number, 2 to the head's {self.size_of_head}"
            )
        if self.activation not in ACTIVATIONS:
            raise InputError(f"activation {self.activation!r}: one of {', '.join(ACTIVATIONS)}")

    @property
    def kv_heads(self) -> int:
        """Heads that answer."""
        return self.num_kv_heads or self.num_heads

    @property
    def size_of_head(self) -> int:
        """Numbers per head."""
        return self.head_dim or self.width // self.num_heads

    @property
    def size_of_mlp(self) -> int:
        """Width of the hidden layer."""
        return self.mlp_width or 4 * self.width


def inverse_wavelengths(config: LanguageConfig) -> tuple[float, ...]:
    """Radians per position of each pair of rotated numbers.

    Example:
        >>> config = LanguageConfig(11, 8, 8, 1, 1, rotary_dim=4)
        >>> [round(value, 6) for value in inverse_wavelengths(config)]
        [1.0, 0.01]

    Reference: Su et al., RoFormer, 2021; the scaling of `"llama3"` is that of Llama 3.1's release.
    """
    assert config.rotary_dim is not None
    size, scaling = config.rotary_dim, config.rotary_scaling
    plain = [config.rotary_base ** (-2 * i / size) for i in range(size // 2)]
    if scaling is None:
        return tuple(plain)
    if scaling.kind == "linear":
        return tuple(value / scaling.factor for value in plain)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor

    def scaled(value: float) -> float:
        turns = scaling.original_context * value / (2 * math.pi)
        kept = min(max((turns - low) / (high - low), 0.0), 1.0)
        return (1 - kept) * value / scaling.factor + kept * value

    return tuple(map(scaled, plain))
