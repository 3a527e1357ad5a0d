"""CLIP in flax.linen, and its checkpoints from disk.

`load(path)` gives `(model, preprocess, tokenize)`; `model.encode_image(preprocess(pictures))` and
`model.encode_text(tokenize(captions))` are the features, rows of unit norm.
"""

from jaxinf.models.clip.architectures import ARCHITECTURES, architecture
from jaxinf.models.clip.blocks import fused_attention
from jaxinf.models.clip.checkpoint import Checkpoint, load
from jaxinf.models.clip.config import (
    CLIPConfig,
    ResNetConfig,
    TextConfig,
    TransformerConfig,
    VisionTransformerConfig,
)
from jaxinf.models.clip.model import CLIP, TrainedCLIP
from jaxinf.models.clip.preprocess import Preprocess
from jaxinf.models.clip.tokenizer import Tokenizer

__all__ = [
    "ARCHITECTURES",
    "CLIP",
    "CLIPConfig",
    "Checkpoint",
    "Preprocess",
    "ResNetConfig",
    "TextConfig",
    "Tokenizer",
    "TrainedCLIP",
    "TransformerConfig",
    "VisionTransformerConfig",
    "architecture",
    "fused_attention",
    "load",
]
